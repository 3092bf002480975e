//! What convert_hf_to_gguf.py writes of a model's `config.json`, under its architecture's name: the keys that all families
//! share (`TextModel.set_gguf_parameters`), and those that each adds or leaves out.
//!
//! Must not know vocabularies or tensors.

use super::gguf::{Keys, Value};
use crate::Result;
use crate::model::config::{Config, RopeScaling};
use crate::model::gguf::architecture;
use serde_json::Value as Json;

/// Whether the converter treats the model as a Llama (its class `LlamaModel`).
pub(super) fn is_llama(c: &Config) -> bool {
    matches!(architecture(c), "llama" | "smollm3")
}

/// Add them. `json` is the `config.json` that `c` was read from.
///
/// # Errors
/// When a number is too large for a GGUF.
pub(super) fn add(keys: &mut Keys, json: &Json, c: &Config, file_type: u32) -> Result<()> {
    let mut to = To { keys, architecture: architecture(c) };
    match to.architecture {
        "gemma2" => to.gemma2(c, file_type),
        "phi3" => to.phi3(json, c, file_type),
        name => {
            to.usual(json, c, file_type)?;
            match name {
                "gemma3" => to.gemma3(json, c),
                "qwen3moe" => {
                    let width = c.traits.experts.map_or(0, |e| e.intermediate_size);
                    to.size("expert_feed_forward_length", width)
                }
                _ if is_llama(c) => {
                    to.size("vocab_size", c.vocab_size)?;
                    to.size("rope.dimension_count", c.head_dim)
                }
                _ => Ok(()),
            }
        }
    }
}

/// The table of rotary embeddings, of the layers that see all where there is one for each kind of layer.
fn rope_table(json: &Json) -> &Json {
    let table = json.get("rope_parameters").or_else(|| json.get("rope_scaling")).unwrap_or(&Json::Null);
    table.get("full_attention").unwrap_or(table)
}

fn given(json: &Json, key: &str) -> bool {
    json.get(key).is_some_and(|v| !v.is_null())
}

/// Keys under an architecture's name.
struct To<'a> {
    keys: &'a mut Keys,
    architecture: &'static str,
}

impl To<'_> {
    fn size(&mut self, key: &str, value: usize) -> Result<()> {
        self.keys.size(format!("{}.{key}", self.architecture), value)
    }

    fn float(&mut self, key: &str, value: f64) {
        self.keys.float(format!("{}.{key}", self.architecture), value);
    }

    fn file_type(&mut self, file_type: u32) {
        self.keys.set("general.file_type", Value::U32(file_type));
    }

    fn head_size(&mut self, c: &Config) -> Result<()> {
        self.size("attention.key_length", c.head_dim)?;
        self.size("attention.value_length", c.head_dim)
    }

    fn usual(&mut self, json: &Json, c: &Config, file_type: u32) -> Result<()> {
        self.size("block_count", c.num_hidden_layers)?;
        self.size("context_length", c.max_position_embeddings)?;
        self.size("embedding_length", c.hidden_size)?;
        self.size("feed_forward_length", c.intermediate_size)?;
        self.size("attention.head_count", c.num_attention_heads)?;
        self.size("attention.head_count_kv", c.num_key_value_heads)?;
        self.scaling(json, c)?;
        self.float("rope.freq_base", c.rope_theta);
        self.local_theta(json, c);
        self.float("attention.layer_norm_rms_epsilon", c.rms_norm_eps);
        if let Some(e) = &c.traits.experts {
            self.size("expert_count", e.count)?;
            self.size("expert_used_count", e.per_token)?;
        }
        if given(json, "head_dim") {
            self.head_size(c)?;
        }
        self.file_type(file_type);
        Ok(())
    }

    fn scaling(&mut self, json: &Json, c: &Config) -> Result<()> {
        let kind = format!("{}.rope.scaling.type", self.architecture);
        match &c.rope_scaling {
            Some(RopeScaling::Linear(factor)) => {
                self.keys.text(kind, "linear");
                self.float("rope.scaling.factor", *factor);
            }
            Some(RopeScaling::Yarn(y)) => {
                self.keys.text(kind, "yarn");
                self.float("rope.scaling.factor", y.factor);
                self.size("rope.scaling.original_context_length", y.original_max_position_embeddings)?;
                let table = rope_table(json);
                for (key, names) in [
                    ("yarn_ext_factor", &["extrapolation_factor"][..]),
                    ("yarn_attn_factor", &["attention_factor", "attn_factor"]),
                    ("yarn_beta_fast", &["beta_fast"]),
                    ("yarn_beta_slow", &["beta_slow"]),
                ] {
                    if let Some(v) = names.iter().find_map(|n| table.get(*n)?.as_f64()) {
                        self.float(&format!("rope.scaling.{key}"), v);
                    }
                }
            }
            Some(RopeScaling::LongRope(_)) => self.keys.text(kind, "longrope"),
            // Llama 3's is a tensor.
            Some(RopeScaling::Llama3(_)) | None => {}
        }
        Ok(())
    }

    /// θ of layers with a window, where `config.json` says it.
    fn local_theta(&mut self, json: &Json, c: &Config) {
        let nested = json.pointer("/rope_parameters/sliding_attention/rope_theta").is_some();
        if let Some(theta) = c.traits.rope_local_base_freq.filter(|_| nested || given(json, "rope_local_base_freq")) {
            self.float("rope.freq_base_swa", theta);
        }
    }

    /// The shapes, as Gemma 2's and Phi-3's classes write them by themselves.
    fn shapes(&mut self, c: &Config) -> Result<()> {
        self.size("embedding_length", c.hidden_size)?;
        self.size("block_count", c.num_hidden_layers)?;
        self.size("feed_forward_length", c.intermediate_size)?;
        self.size("attention.head_count", c.num_attention_heads)?;
        self.size("attention.head_count_kv", c.num_key_value_heads)?;
        self.float("attention.layer_norm_rms_epsilon", c.rms_norm_eps);
        Ok(())
    }

    /// Without θ, which llama.cpp takes to be 10,000.
    fn gemma2(&mut self, c: &Config, file_type: u32) -> Result<()> {
        self.size("context_length", c.max_position_embeddings)?;
        self.shapes(c)?;
        self.head_size(c)?;
        self.file_type(file_type);
        if let Some(cap) = c.traits.attn_logit_softcapping {
            self.float("attn_logit_softcapping", cap);
        }
        if let Some(cap) = c.traits.final_logit_softcapping {
            self.float("final_logit_softcapping", cap);
        }
        self.size("attention.sliding_window", c.traits.sliding_window.unwrap_or(0))
    }

    fn gemma3(&mut self, json: &Json, c: &Config) -> Result<()> {
        self.head_size(c)?;
        if let Some(cap) = c.traits.final_logit_softcapping {
            self.float("final_logit_softcapping", cap);
        }
        match c.traits.sliding_window {
            Some(window) if json.get("sliding_window_pattern").and_then(Json::as_u64) != Some(1) => {
                self.size("attention.sliding_window", window)
            }
            _ => Ok(()),
        }
    }

    fn phi3(&mut self, json: &Json, c: &Config, file_type: u32) -> Result<()> {
        let original = match &c.rope_scaling {
            Some(RopeScaling::LongRope(s)) => s.original_max_position_embeddings,
            _ => {
                let key = "original_max_position_embeddings";
                let found = rope_table(json).get(key).or_else(|| json.get(key)).and_then(Json::as_u64);
                // Phi3Config's default.
                found.and_then(|n| usize::try_from(n).ok()).unwrap_or(4096)
            }
        };
        self.size("context_length", c.max_position_embeddings)?;
        self.size("rope.scaling.original_context_length", original)?;
        self.shapes(c)?;
        self.size("rope.dimension_count", c.traits.rotary_dim.unwrap_or(c.head_dim))?;
        self.float("rope.freq_base", c.rope_theta);
        self.file_type(file_type);
        // 0 tells Phi-4 from the others.
        self.size("attention.sliding_window", c.traits.sliding_window.unwrap_or(0))?;
        if let Some(RopeScaling::LongRope(_)) = &c.rope_scaling {
            let (longest, original) = (c.max_position_embeddings as f64, original as f64);
            let scale = longest / original;
            let factor = if scale > 1.0 { (1.0 + scale.ln() / original.ln()).sqrt() } else { 1.0 };
            self.float("rope.scaling.attn_factor", factor);
        }
        Ok(())
    }
}
