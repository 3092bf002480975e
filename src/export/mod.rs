//! What a run leaves for others to use: the adapter, and ggml's storage types.
//!
//! Must not know recipes, runs or the console.

pub mod adapter;
pub mod convert;
pub mod gguf;
pub mod metadata;
pub mod mixture;
pub mod quant;
mod sentencepiece;
pub mod subject;
pub mod vocabulary;
pub mod weights;
