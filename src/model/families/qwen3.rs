//! Qwen3: queries and keys normalised head by head, no biases unless asked for.

use super::gguf::Gguf;
use super::json::{Defaults, Json};
use super::{Family, qwen2};
use crate::Result;
use crate::model::config::{Activation, Config};

pub(super) const FAMILY: Family =
    Family { architecture: "Qwen3ForCausalLM", model_type: "qwen3", from_hf, gguf: Some(("qwen3", from_gguf)) };

const DEFAULTS: Defaults = Defaults { head_dim: Some(128), ..qwen2::DEFAULTS };

fn from_hf(json: &Json) -> Result<Config> {
    json.whole_heads()?;
    let mut c = json.base("qwen3", &DEFAULTS)?;
    let bias = json.flag("attention_bias", false)?;
    (c.attention_bias, c.traits.output_bias) = (bias, bias);
    c.traits.head_norms = true;
    c.traits.activation = json.activation("hidden_act", Activation::Silu)?;
    qwen2::windows(json, &mut c)?;
    Ok(c)
}

fn from_gguf(keys: &Gguf) -> Result<Config> {
    let mut c = keys.base("qwen3")?;
    c.traits.head_norms = true;
    Ok(c)
}
