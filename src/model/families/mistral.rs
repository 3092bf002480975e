//! Mistral: Llama with a sliding window in every layer, unless `sliding_window` is null.

use super::Family;
use super::json::{Defaults, Json, LLAMA};
use crate::Result;
use crate::model::config::{Activation, Config, Layer};

/// llama.cpp keeps a Mistral as a Llama, without its window.
pub(super) const FAMILY: Family =
    Family { architecture: "MistralForCausalLM", model_type: "mistral", from_hf, gguf: None };

const DEFAULTS: Defaults = Defaults { num_key_value_heads: Some(8), max_position_embeddings: 131_072, ..LLAMA };

fn from_hf(json: &Json) -> Result<Config> {
    json.whole_heads()?;
    let mut c = json.base("mistral", &DEFAULTS)?;
    c.traits.activation = json.activation("hidden_act", Activation::Silu)?;
    c.traits.sliding_window = json.size_or("sliding_window", Some(4096))?;
    if c.traits.sliding_window.is_some() {
        c.traits.layers = vec![Layer { sliding: true, ..Layer::default() }; c.num_hidden_layers];
    }
    Ok(c)
}
