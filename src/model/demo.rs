//! The model that the program carries, in Hugging Face's layout.
//!
//! It was made by `recipes/demo/make.sh`: trained from random weights by this program on text of this project's own.

use crate::model::files::EmbeddedFile;

macro_rules! file {
    ($name:literal) => {
        EmbeddedFile { name: $name, bytes: include_bytes!(concat!("../../recipes/demo/model/", $name)) }
    };
}

/// `config.json`, `model.safetensors`, `tokenizer.json` and its companions.
pub const FILES: &[EmbeddedFile] = &[
    file!("config.json"),
    file!("generation_config.json"),
    file!("model.safetensors"),
    file!("tokenizer.json"),
    file!("tokenizer_config.json"),
];
