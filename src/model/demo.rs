//! The model that the program carries, in Hugging Face's layout.

use crate::model::files::EmbeddedFile;

/// `config.json`, `model.safetensors`, `tokenizer.json` and its companions; empty in a build without them.
pub const FILES: &[EmbeddedFile] = &[];
