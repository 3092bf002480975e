//! Llama 2 and 3.x, SmolLM2, and what shares their class.

use super::Family;
use super::gguf::Gguf;
use super::json::{Json, LLAMA};
use crate::Result;
use crate::model::config::{Activation, Config};

pub(super) const FAMILY: Family =
    Family { architecture: "LlamaForCausalLM", model_type: "llama", from_hf, gguf: Some(("llama", from_gguf)) };

fn from_hf(json: &Json) -> Result<Config> {
    json.whole_heads()?;
    let mut c = json.base("llama", &LLAMA)?;
    let bias = json.flag("attention_bias", false)?;
    (c.attention_bias, c.traits.output_bias) = (bias, bias);
    c.traits.mlp_bias = json.flag("mlp_bias", false)?;
    c.traits.activation = json.activation("hidden_act", Activation::Silu)?;
    Ok(c)
}

fn from_gguf(keys: &Gguf) -> Result<Config> {
    keys.base("llama")
}
