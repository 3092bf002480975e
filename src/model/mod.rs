//! One decoder that reads a description, a small file a family that writes it; LoRA and frozen linear layers; loading.
//!
//! Must not know recipes, runs or the console.

mod block;
pub(crate) mod bnb;
pub mod cache;
pub mod config;
pub(crate) mod convert;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod demo;
pub mod device;
mod dora;
pub mod engine;
mod experts;
pub mod families;
pub mod files;
pub mod gguf;
mod held;
pub mod hf;
mod hub;
mod linear;
pub mod llama;
pub mod loading;
pub mod lora;
mod mlp;
mod norm;
pub mod ollama;
pub mod params;
mod pypi;
pub mod ranks;
pub mod source;
mod stacked;
