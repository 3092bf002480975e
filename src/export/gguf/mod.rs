//! Writing `.gguf` files, version 3.
//!
//! Must not know what a key or a tensor means.

pub mod keys;
pub mod writer;

pub use keys::{Keys, Value};
