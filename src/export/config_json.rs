//! A `config.json` for a model that came without one: transformers' names for what a GGUF's keys said.
//!
//! What is written is read again, and refused where that gives another model.

use super::kept;
use crate::model::config::{Activation, Config, Rope, RopeScaling};
use crate::model::families;
use crate::{Error, Result};
use serde_json::{Map, Value, json};

/// For weights of type `dtype` (`bfloat16` …).
///
/// # Errors
/// When the family's configuration class has no key for what the model computes.
pub(super) fn config_json(c: &Config, dtype: &str) -> Result<Value> {
    let architecture = families::architecture(&c.model_type)
        .ok_or_else(|| Error::new(format!("no architecture of transformers is called {}", c.model_type)))?;
    // One id is written as a number, as the models' own files do.
    let eos = match c.eos_token_ids.as_slice() {
        [one] => json!(one),
        several => json!(several),
    };
    let mut value = json!({
        "architectures": [architecture], "model_type": c.model_type, "torch_dtype": dtype,
        "vocab_size": c.vocab_size, "hidden_size": c.hidden_size, "intermediate_size": c.intermediate_size,
        "num_hidden_layers": c.num_hidden_layers, "num_attention_heads": c.num_attention_heads,
        "num_key_value_heads": c.num_key_value_heads, "head_dim": c.head_dim,
        "max_position_embeddings": c.max_position_embeddings, "rms_norm_eps": c.rms_norm_eps,
        "rope_theta": c.rope_theta, "rope_scaling": scaling(c), "tie_word_embeddings": c.tie_word_embeddings,
        "bos_token_id": c.bos_token_id, "eos_token_id": eos,
    });
    if let Some(map) = value.as_object_mut() {
        family(c, map);
    }
    let read = Config::from_hf(&value, None)?;
    kept::refuse(c, &read, "config.json")?;
    match kept::windows(c) == kept::windows(&read) {
        true => Ok(value),
        false => Err(Error::new(format!("the windows of this {} model cannot be said in config.json", c.model_type))),
    }
}

fn scaling(c: &Config) -> Option<Value> {
    Some(match c.rope_scaling.as_ref()? {
        RopeScaling::Linear(factor) => json!({"rope_type": "linear", "factor": factor}),
        RopeScaling::Llama3(s) => json!({
            "rope_type": "llama3", "factor": s.factor, "low_freq_factor": s.low_freq_factor,
            "high_freq_factor": s.high_freq_factor,
            "original_max_position_embeddings": s.original_max_position_embeddings,
        }),
        RopeScaling::Yarn(y) => json!({
            "rope_type": "yarn", "factor": y.factor, "beta_fast": y.beta_fast, "beta_slow": y.beta_slow,
            "attention_factor": y.attention_factor, "truncate": y.truncate,
            "original_max_position_embeddings": y.original_max_position_embeddings,
        }),
        RopeScaling::LongRope(l) => json!({
            "rope_type": "longrope", "short_factor": l.short_factor, "long_factor": l.long_factor,
            "original_max_position_embeddings": l.original_max_position_embeddings,
            "attention_factor": l.attention_factor,
        }),
    })
}

/// What the family's class has besides.
fn family(c: &Config, map: &mut Map<String, Value>) {
    let t = &c.traits;
    let mut set = |key: &str, value: Value| {
        map.insert(key.to_string(), value);
    };
    let gelu = matches!(t.activation, Activation::GeluTanh);
    let gemma = c.model_type.starts_with("gemma");
    set(if gemma { "hidden_activation" } else { "hidden_act" }, json!(if gelu { "gelu_pytorch_tanh" } else { "silu" }));
    if c.model_type != "qwen2" {
        set("attention_bias", json!(c.attention_bias));
    }
    if c.model_type == "llama" {
        set("mlp_bias", json!(t.mlp_bias));
    }
    if let Some(e) = &t.experts {
        set("num_experts", json!(e.count));
        set("num_experts_per_tok", json!(e.per_token));
        set("moe_intermediate_size", json!(e.intermediate_size));
        set("norm_topk_prob", json!(e.normalized));
    }
    if gemma || c.model_type == "phi3" {
        set("sliding_window", json!(t.sliding_window));
    }
    if gemma {
        let kind = |i| if c.layer(i).sliding { "sliding_attention" } else { "full_attention" };
        set("layer_types", json!((0..c.num_hidden_layers).map(kind).collect::<Vec<_>>()));
        set("query_pre_attn_scalar", json!(t.query_pre_attn_scalar));
        set("attn_logit_softcapping", json!(t.attn_logit_softcapping));
        set("final_logit_softcapping", json!(t.final_logit_softcapping));
    }
    if let Some(theta) = t.rope_local_base_freq {
        set("rope_local_base_freq", json!(theta));
    }
    if let Some(turned) = t.rotary_dim {
        set("partial_rotary_factor", json!(turned as f64 / c.head_dim as f64));
    }
    if let Some(RopeScaling::LongRope(l)) = &c.rope_scaling {
        set("original_max_position_embeddings", json!(l.original_max_position_embeddings));
    }
    if c.model_type == "smollm3" {
        let turned = |i| u8::from(c.layer(i).rope != Rope::None);
        set("no_rope_layers", json!((0..c.num_hidden_layers).map(turned).collect::<Vec<_>>()));
    }
}
