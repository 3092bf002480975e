//! SmolLM3: Llama with every fourth layer not turned.

use super::Family;
use super::gguf::Gguf;
use super::json::{Defaults, Json, LLAMA};
use crate::Error;
use crate::Result;
use crate::model::config::{Activation, Config, Layer, Rope};
use serde_json::Value;

pub(super) const FAMILY: Family =
    Family { architecture: "SmolLM3ForCausalLM", model_type: "smollm3", from_hf, gguf: Some(("smollm3", from_gguf)) };

const DEFAULTS: Defaults = Defaults {
    num_key_value_heads: Some(4),
    max_position_embeddings: 32_768,
    rope_theta: 2e6,
    tie_word_embeddings: true,
    bos_token_id: Some(128_000),
    eos_token_id: Some(128_001),
    ..LLAMA
};

fn from_hf(json: &Json) -> Result<Config> {
    json.whole_heads()?;
    let mut c = json.base("smollm3", &DEFAULTS)?;
    let bias = json.flag("attention_bias", false)?;
    (c.attention_bias, c.traits.output_bias) = (bias, bias);
    c.traits.mlp_bias = json.flag("mlp_bias", false)?;
    c.traits.activation = json.activation("hidden_act", Activation::Silu)?;
    let turned = turned(json, c.num_hidden_layers)?;
    if json.flag("use_sliding_window", false)? {
        c.traits.sliding_window = json.size("sliding_window")?;
    }
    let window = c.traits.sliding_window.is_some();
    c.traits.layers = json.layer_types(c.num_hidden_layers, |i| window && !turned[i])?;
    for (layer, turned) in c.traits.layers.iter_mut().zip(&turned) {
        layer.sliding &= window;
        layer.rope = if *turned { Rope::Global } else { Rope::None };
    }
    Ok(c)
}

/// `no_rope_layers` (1 where a layer is turned, whatever its name says), or every `no_rope_layer_interval`-th not.
fn turned(json: &Json, layers: usize) -> Result<Vec<bool>> {
    let Some(list) = json.get("no_rope_layers") else {
        let interval = json.size("no_rope_layer_interval")?.unwrap_or(4).max(1);
        return Ok((0..layers).map(|i| !(i + 1).is_multiple_of(interval)).collect());
    };
    let list = list.as_array().filter(|l| l.len() == layers);
    let list = list.ok_or_else(|| Error::new(format!("no_rope_layers is not a list of {layers} numbers")))?;
    let flag = |v: &Value| match v.as_u64() {
        Some(n) => Ok(n != 0),
        None => Err(Error::new(format!("no_rope_layers holds {v}, which is neither 0 nor 1"))),
    };
    list.iter().map(flag).collect()
}

/// Which layers are not turned is not in the file: every fourth, as in the one model there is.
fn from_gguf(keys: &Gguf) -> Result<Config> {
    let mut c = keys.base("smollm3")?;
    let rope = |i: usize| if (i + 1).is_multiple_of(4) { Rope::None } else { Rope::Global };
    c.traits.layers = (0..c.num_hidden_layers).map(|i| Layer { sliding: false, rope: rope(i) }).collect();
    Ok(c)
}
