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
