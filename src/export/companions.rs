//! The files beside a model's weights, so that transformers and this program open the folder.
//!
//! Must not know where the weights come from.

use super::config_json::config_json;
use super::vocabulary::ending_ids;
use crate::Result;
use crate::data::tokenizer::{Templates, Tokenizer};
use crate::model::config::Config;
use crate::model::files::Files;
use serde_json::{Value, json};

/// What is copied from the base where it is a folder.
const COPIED: [&str; 8] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "tokenizer.model",
];

/// Name and content of each file for weights of type `dtype` (`bfloat16` …): the base's own where it has them
/// (`base` is `None` for a GGUF), else written anew. `template` takes the place of the base's own chat template.
pub fn companions(
    base: Option<&Files>,
    config: &Config,
    tokenizer: &Tokenizer,
    template: Option<&Templates>,
    dtype: &str,
) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    match base {
        Some(base) => {
            for name in COPIED.iter().filter(|n| base.has(n)) {
                let bytes = base.bytes(name)?.to_vec();
                match *name {
                    "config.json" => files.push((name.to_string(), with_dtype(&bytes, dtype)?)),
                    "tokenizer_config.json" => files.push((name.to_string(), with_template(&bytes, template)?)),
                    // The new one stands in tokenizer_config.json, where every version of transformers looks.
                    "chat_template.jinja" if template.is_some() => {}
                    _ => files.push((name.to_string(), bytes)),
                }
            }
        }
        None => {
            // A GGUF names one end, and llama.cpp knows others by their text: where a program reads ids, all are named.
            let mut config = config.clone();
            let known = config.eos_token_ids.clone();
            config.eos_token_ids.extend(ending_ids(tokenizer).into_iter().filter(|id| !known.contains(id)));
            files.push(("config.json".into(), pretty(&config_json(&config, dtype)?)?));
            files.push(("tokenizer.json".into(), tokenizer.to_json()?.into_bytes()));
            let mut about = tokenizer.special.to_map();
            about.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
            let about = serde_json::to_vec(&Value::Object(about))?;
            files.push(("tokenizer_config.json".into(), with_template(&about, template)?));
        }
    }
    Ok(files)
}

fn with_dtype(config: &[u8], dtype: &str) -> Result<Vec<u8>> {
    let mut value: Value = serde_json::from_slice(config)?;
    if let Some(map) = value.as_object_mut() {
        // transformers before version 5 reads `torch_dtype`, and so do programs that are not Python.
        map.shift_remove("dtype");
        // What is written beside it is not quantized.
        map.shift_remove("quantization_config");
        map.insert("torch_dtype".into(), json!(dtype));
    }
    pretty(&value)
}

fn with_template(config: &[u8], template: Option<&Templates>) -> Result<Vec<u8>> {
    let mut value: Value = serde_json::from_slice(config)?;
    if let (Some(map), Some(Templates { default: Some(default), tool_use })) = (value.as_object_mut(), template) {
        let entry = match tool_use {
            None => json!(default),
            Some(tools) => json!([
                {"name": "default", "template": default}, {"name": "tool_use", "template": tools},
            ]),
        };
        map.insert("chat_template".into(), entry);
    }
    pretty(&value)
}

fn pretty(value: &Value) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec_pretty(value)?)
}
