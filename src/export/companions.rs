//! The files beside a model's weights, so that transformers and this program open the folder.
//!
//! Must not know where the weights come from.

use crate::Result;
use crate::data::tokenizer::{Templates, Tokenizer};
use crate::model::config::{Config, RopeScaling};
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
            super::only_llama(config, "a config.json")?;
            files.push(("config.json".into(), pretty(&config_json(config, dtype))?));
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

/// A `config.json` for transformers' `LlamaForCausalLM`.
fn config_json(c: &Config, dtype: &str) -> Value {
    let scaling = match &c.rope_scaling {
        Some(RopeScaling::Llama3(s)) => Some(json!({
            "rope_type": "llama3", "factor": s.factor, "low_freq_factor": s.low_freq_factor,
            "high_freq_factor": s.high_freq_factor,
            "original_max_position_embeddings": s.original_max_position_embeddings,
        })),
        _ => None,
    };
    // One id is written as a number, as the models' own files do.
    let eos = match c.eos_token_ids.as_slice() {
        [one] => json!(one),
        several => json!(several),
    };
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": dtype, "hidden_act": "silu",
        "vocab_size": c.vocab_size, "hidden_size": c.hidden_size, "intermediate_size": c.intermediate_size,
        "num_hidden_layers": c.num_hidden_layers, "num_attention_heads": c.num_attention_heads,
        "num_key_value_heads": c.num_key_value_heads, "head_dim": c.head_dim,
        "max_position_embeddings": c.max_position_embeddings, "rms_norm_eps": c.rms_norm_eps,
        "rope_theta": c.rope_theta, "rope_scaling": scaling, "tie_word_embeddings": c.tie_word_embeddings,
        "attention_bias": false, "mlp_bias": false,
        "bos_token_id": c.bos_token_id, "eos_token_id": eos,
    })
}
