//! Qwen3-MoE: Qwen3 with a mixture of experts in place of every MLP.

use super::gguf::Gguf;
use super::json::{Defaults, Json};
use super::{Family, qwen2};
use crate::model::config::{Activation, Config, Experts};
use crate::{Error, Result};

pub(super) const FAMILY: Family = Family {
    architecture: "Qwen3MoeForCausalLM",
    model_type: "qwen3_moe",
    from_hf,
    gguf: Some(("qwen3moe", from_gguf)),
};

const DEFAULTS: Defaults = Defaults { num_key_value_heads: Some(4), ..qwen2::DEFAULTS };

fn from_hf(json: &Json) -> Result<Config> {
    json.whole_heads()?;
    let mut c = json.base("qwen3_moe", &DEFAULTS)?;
    let bias = json.flag("attention_bias", false)?;
    (c.attention_bias, c.traits.output_bias) = (bias, bias);
    c.traits.head_norms = true;
    c.traits.activation = json.activation("hidden_act", Activation::Silu)?;
    // Every layer, or none: this class has no max_window_layers.
    if json.flag("use_sliding_window", false)? {
        c.traits.sliding_window = json.size_or("sliding_window", Some(4096))?;
        let layer = crate::model::config::Layer { sliding: c.traits.sliding_window.is_some(), ..Default::default() };
        c.traits.layers = vec![layer; c.num_hidden_layers];
    }
    if json.size("decoder_sparse_step")?.is_some_and(|n| n != 1) {
        return Err(Error::new("decoder_sparse_step other than 1 is not supported"));
    }
    if json.get("mlp_only_layers").and_then(|v| v.as_array()).is_some_and(|l| !l.is_empty()) {
        return Err(Error::new("mlp_only_layers is not supported: every layer must have experts"));
    }
    if json.flag("output_router_logits", false)? {
        return Err(Error::new("output_router_logits = true (a loss on the router) is not supported")
            .next("set it to false in config.json"));
    }
    c.traits.experts = Some(Experts {
        // transformers 5 writes num_local_experts.
        count: json.size("num_experts")?.or(json.size("num_local_experts")?).unwrap_or(128),
        per_token: json.size("num_experts_per_tok")?.unwrap_or(8),
        intermediate_size: json.size("moe_intermediate_size")?.unwrap_or(768),
        normalized: json.flag("norm_topk_prob", false)?,
        router: "mlp.gate",
        biased: false,
    });
    Ok(c)
}

/// llama.cpp divides the chosen weights by their sum, whatever the model's own configuration said.
fn from_gguf(keys: &Gguf) -> Result<Config> {
    let mut c = keys.base("qwen3_moe")?;
    c.traits.head_norms = true;
    let size = |key: &str| keys.size(key)?.ok_or_else(|| Error::new(format!("qwen3moe.{key} is missing")));
    c.traits.experts = Some(Experts {
        count: size("expert_count")?,
        per_token: size("expert_used_count")?,
        intermediate_size: size("expert_feed_forward_length")?,
        normalized: true,
        router: "mlp.gate",
        biased: false,
    });
    Ok(c)
}
