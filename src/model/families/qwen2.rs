//! Qwen2 and Qwen2.5: Llama with biases on q, k and v, and (where asked for) a sliding window in the upper layers.

use super::Family;
use super::gguf::Gguf;
use super::json::{Defaults, Json, LLAMA};
use crate::Result;
use crate::model::config::{Activation, Config};

pub(super) const FAMILY: Family =
    Family { architecture: "Qwen2ForCausalLM", model_type: "qwen2", from_hf, gguf: Some(("qwen2", from_gguf)) };

/// `Qwen2Config`'s, which `Qwen3Config` shares.
pub(super) const DEFAULTS: Defaults = Defaults {
    num_key_value_heads: Some(32),
    max_position_embeddings: 32_768,
    bos_token_id: None,
    eos_token_id: None,
    ..LLAMA
};

fn from_hf(json: &Json) -> Result<Config> {
    json.whole_heads()?;
    let mut c = json.base("qwen2", &DEFAULTS)?;
    c.attention_bias = true;
    c.traits.activation = json.activation("hidden_act", Activation::Silu)?;
    windows(json, &mut c)?;
    Ok(c)
}

/// `use_sliding_window`, `sliding_window`, `max_window_layers`, `layer_types`.
pub(super) fn windows(json: &Json, c: &mut Config) -> Result<()> {
    if json.flag("use_sliding_window", false)? {
        c.traits.sliding_window = json.size_or("sliding_window", Some(4096))?;
    }
    let (window, above) = (c.traits.sliding_window, json.size("max_window_layers")?.unwrap_or(28));
    c.traits.layers = json.layer_types(c.num_hidden_layers, |i| window.is_some() && i >= above)?;
    if window.is_none() {
        c.traits.layers.iter_mut().for_each(|l| l.sliding = false);
    }
    Ok(())
}

fn from_gguf(keys: &Gguf) -> Result<Config> {
    keys.base("qwen2")
}
