//! The files beside a fully tuned model's weights, so that transformers and this program open the folder.

use crate::Result;
use crate::model::config::Config;
use crate::model::source::{self, Place};
use crate::train::speaker::Speaker;
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

/// The base's own files where it has them; configuration and tokenizer written anew where it is a GGUF.
pub fn companions(name_or_path: &str, speaker: &Speaker) -> Result<Vec<(String, Vec<u8>)>> {
    let source = source::resolve(name_or_path)?;
    let mut files = Vec::new();
    if let Some(base) = source.place.files() {
        for name in COPIED.iter().filter(|n| base.has(n)) {
            let bytes = base.bytes(name)?.to_vec();
            // Weights are saved as f32, whatever the base was stored as.
            let bytes = if *name == "config.json" { in_f32(&bytes)? } else { bytes };
            files.push((name.to_string(), bytes));
        }
    }
    if let Place::Gguf(_) = source.place {
        files.push(("config.json".into(), pretty(&config_json(speaker.model.config()))?));
        files.push(("tokenizer.json".into(), speaker.tokenizer.to_json()?.into_bytes()));
        let mut about = speaker.tokenizer.special.to_map();
        about.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
        if let Some(template) = &speaker.own_template {
            about.insert("chat_template".into(), json!(template));
        }
        files.push(("tokenizer_config.json".into(), pretty(&Value::Object(about))?));
    }
    Ok(files)
}

fn in_f32(config: &[u8]) -> Result<Vec<u8>> {
    let mut value: Value = serde_json::from_slice(config)?;
    if let Some(map) = value.as_object_mut() {
        map.remove("torch_dtype");
        map.insert("dtype".into(), json!("float32"));
    }
    pretty(&value)
}

fn pretty(value: &Value) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec_pretty(value)?)
}

/// A `config.json` for transformers' `LlamaForCausalLM`.
fn config_json(c: &Config) -> Value {
    let scaling = c.rope_scaling.map(|s| {
        json!({
            "rope_type": "llama3", "factor": s.factor, "low_freq_factor": s.low_freq_factor,
            "high_freq_factor": s.high_freq_factor,
            "original_max_position_embeddings": s.original_max_position_embeddings,
        })
    });
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "float32", "hidden_act": "silu",
        "vocab_size": c.vocab_size, "hidden_size": c.hidden_size, "intermediate_size": c.intermediate_size,
        "num_hidden_layers": c.num_hidden_layers, "num_attention_heads": c.num_attention_heads,
        "num_key_value_heads": c.num_key_value_heads, "head_dim": c.head_dim,
        "max_position_embeddings": c.max_position_embeddings, "rms_norm_eps": c.rms_norm_eps,
        "rope_theta": c.rope_theta, "rope_scaling": scaling, "tie_word_embeddings": c.tie_word_embeddings,
        "attention_bias": false, "mlp_bias": false,
        "bos_token_id": c.bos_token_id, "eos_token_id": c.eos_token_ids,
    })
}
