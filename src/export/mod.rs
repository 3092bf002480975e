//! What a run leaves for others to use: the adapter, the merged model, GGUF files, a Modelfile,
//! and the proof that they are what was trained.
//!
//! Must not know recipes, runs or the console.

pub mod adapter;
pub mod companions;
mod config_json;
pub mod convert;
pub mod gguf;
mod hyperparameters;
mod kept;
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

/// Refuses models whose experts are stored in stacks of 4 bits: what is read here row by row is one matrix an expert.
fn refuse_stacked(c: &Config) -> Result<()> {
    match c.traits.experts.is_some_and(|e| e.biased) {
        true => Err(Error::usage(format!("a {} model can be neither merged nor written as a GGUF", c.model_type))
            .next("its adapter can be served as it is, by programs that read PEFT's")),
        false => Ok(()),
    }
}
