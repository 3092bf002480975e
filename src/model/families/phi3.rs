//! Phi-3, Phi-3.5 and Phi-4: Llama with q, k, v in one matrix and gate, up in another, frequencies of two sets (LongRoPE),
//! and in Phi-4-mini only a part of each head turned.

use super::Family;
use super::gguf::Gguf;
use super::json::{Defaults, Json, LLAMA};
use crate::model::config::{Activation, Config, Layer, RopeScaling};
use crate::{Error, Result};

pub(super) const FAMILY: Family =
    Family { architecture: "Phi3ForCausalLM", model_type: "phi3", from_hf, gguf: Some(("phi3", from_gguf)) };

const DEFAULTS: Defaults = Defaults {
    max_position_embeddings: 4096,
    original_max_position_embeddings: Some(4096),
    rms_norm_eps: 1e-5,
    eos_token_id: Some(32_000),
    ..LLAMA
};

fn from_hf(json: &Json) -> Result<Config> {
    let mut c = json.base("phi3", &DEFAULTS)?;
    if let Some(other) = c.rope_scaling.as_ref().filter(|s| !matches!(s, RopeScaling::LongRope(_))) {
        return Err(Error::new(format!("rope_scaling of type \"{}\" is not supported in Phi-3", other.name()))
            .next("supported: default, longrope"));
    }
    c.traits.fused = true;
    c.traits.activation = json.activation("hidden_act", Activation::Silu)?;
    let turned = (c.head_dim as f64 * json.rope(json.rope_table(), &DEFAULTS)?.partial) as usize;
    c.traits.rotary_dim = (turned != c.head_dim).then_some(turned);
    c.traits.sliding_window = json.size("sliding_window")?;
    if c.traits.sliding_window.is_some() {
        c.traits.layers = vec![Layer { sliding: true, ..Layer::default() }; c.num_hidden_layers];
    }
    Ok(c)
}

fn from_gguf(keys: &Gguf) -> Result<Config> {
    let mut c = keys.base("phi3")?;
    c.traits.fused = true;
    // Phi-4's file says 0. llama.cpp leaves the window out; the model was trained with it.
    c.traits.sliding_window = keys.size("attention.sliding_window")?.filter(|n| *n > 0);
    if c.traits.sliding_window.is_some() {
        c.traits.layers = vec![Layer { sliding: true, ..Layer::default() }; c.num_hidden_layers];
    }
    Ok(c)
}
