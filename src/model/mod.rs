//! One file an architecture; LoRA and frozen linear layers; loading.
//!
//! Must not know recipes, runs or the console.

pub mod config;
pub(crate) mod convert;
pub mod demo;
pub mod files;
pub mod gguf;
pub mod hf;
pub mod loading;
mod pypi;
pub mod source;
