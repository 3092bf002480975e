//! The model families: each turns its `config.json`, and a GGUF's keys, into the description that the decoder reads.
//!
//! A family is a file: what its configuration class defaults to, and what of it differs from a plain Llama. Must not know
//! weights or files.

mod gemma2;
mod gemma3;
pub(super) mod gguf;
mod gpt_oss;
mod json;
mod llama;
mod mistral;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen3_moe;
mod smollm3;

use super::config::Config;
use crate::{Error, Result};
use gguf::Gguf;
use json::Json;
use serde_json::Value;

/// Reads a GGUF's keys.
type FromGguf = fn(&Gguf) -> Result<Config>;

/// A family of models.
pub(super) struct Family {
    /// As `architectures` in `config.json` names it.
    pub architecture: &'static str,
    /// As `model_type` in `config.json` names it.
    pub model_type: &'static str,
    /// Reads a `config.json`.
    from_hf: fn(&Json) -> Result<Config>,
    /// As `general.architecture` in a GGUF names it, and what reads its keys; none where llama.cpp has no name of its own.
    gguf: Option<(&'static str, FromGguf)>,
}

const FAMILIES: [&Family; 10] = [
    &llama::FAMILY,
    &qwen2::FAMILY,
    &qwen3::FAMILY,
    &qwen3_moe::FAMILY,
    &gpt_oss::FAMILY,
    &mistral::FAMILY,
    &gemma2::FAMILY,
    &gemma3::FAMILY,
    &phi3::FAMILY,
    &smollm3::FAMILY,
];

/// The architectures that can be loaded, as `architectures` in `config.json` names them.
pub fn supported() -> Vec<&'static str> {
    FAMILIES.iter().map(|f| f.architecture).collect()
}

/// The architecture of a `model_type`, as `architectures` in `config.json` names it.
pub fn architecture(model_type: &str) -> Option<&'static str> {
    FAMILIES.iter().find(|f| f.model_type == model_type).map(|f| f.architecture)
}

/// The architectures that can be loaded from a `.gguf`, as `general.architecture` names them.
pub fn supported_gguf() -> Vec<&'static str> {
    FAMILIES.iter().filter_map(|f| f.gguf.map(|g| g.0)).collect()
}

/// The description in a GGUF's keys.
pub(super) fn from_gguf(keys: &Gguf) -> Result<Config> {
    let Some((_, read)) = FAMILIES.iter().filter_map(|f| f.gguf).find(|g| g.0 == keys.architecture) else {
        return Err(Error::new(format!("architecture {} is not supported", keys.architecture))
            .next(format!("supported in a .gguf: {}", supported_gguf().join(", "))));
    };
    let config = read(keys)?;
    if let (Some(n), None) = (keys.size("expert_count")?.filter(|n| *n > 0), &config.traits.experts) {
        return Err(Error::new(format!("{}.expert_count = {n} is not supported", keys.architecture))
            .next("mixtures of experts that are: qwen3moe"));
    }
    config.validate()?;
    Ok(config)
}

/// As [`Config::from_hf`].
pub(super) fn from_hf(config: &Value, generation: Option<&Value>) -> Result<Config> {
    let named = config.get("architectures").and_then(|a| a.get(0)).and_then(Value::as_str);
    let model_type = config.get("model_type").and_then(Value::as_str);
    let family = FAMILIES.iter().find(|f| match named {
        Some(name) => f.architecture == name,
        None => Some(f.model_type) == model_type,
    });
    let Some(family) = family else {
        let name = named.or(model_type).unwrap_or("(none named)");
        return Err(Error::new(format!("architecture {name} is not supported"))
            .next(format!("supported: {}", supported().join(", "))));
    };
    let mut out = (family.from_hf)(&Json(config))?;
    for id in generation.map(|g| json::token_ids(g, "eos_token_id")).transpose()?.flatten().unwrap_or_default() {
        if !out.eos_token_ids.contains(&id) {
            out.eos_token_ids.push(id);
        }
    }
    out.validate()?;
    Ok(out)
}

#[cfg(test)]
mod tests;
