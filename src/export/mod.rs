//! What a run leaves for others to use: the adapter, the merged model, GGUF files, a Modelfile,
//! and the proof that they are what was trained.
//!
//! Must not know recipes, runs or the console.

pub mod adapter;
pub mod companions;
pub mod convert;
pub mod gguf;
pub mod lora_gguf;
pub mod merge;
pub mod metadata;
pub mod mixture;
pub mod ollama;
pub mod pieces;
pub mod proof;
pub mod quant;
pub mod safetensors;
mod sentencepiece;
pub mod subject;
pub mod vocabulary;
pub mod weights;

use crate::model::config::Config;
use crate::{Error, Result};

/// Refuses to write `what` of a model that is not a Llama: names, keys and layout here are those of one.
fn only_llama(c: &Config, what: &str) -> Result<()> {
    let beyond = c.beyond_llama();
    if c.model_type == "llama" && beyond.is_empty() && !c.attention_bias {
        return Ok(());
    }
    let traits = if beyond.is_empty() { String::new() } else { format!(" ({})", beyond.join(", ")) };
    Err(Error::usage(format!("{what} of a {} model{traits} cannot be written", c.model_type))
        .next("its adapter can; and so can the merged folder of a model in Hugging Face's layout, but for gpt-oss"))
}
