//! One file an architecture; LoRA and frozen linear layers; loading.
//!
//! Must not know recipes, runs or the console.

pub mod config;
