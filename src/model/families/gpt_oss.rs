//! gpt-oss: a mixture of experts with biases, attention sinks, every other layer over a sliding window, YaRN, and a clamped
//! activation. Its experts are stored stacked, in floats or in MXFP4 (`model/stacked.rs` reads them).

use super::Family;
use super::json::{Defaults, Json, LLAMA};
use crate::model::config::{Activation, Config, Experts, RopeScaling, Yarn};
use crate::{Error, Result};
use serde_json::Value;

/// A `.gguf` of it stores the experts in MXFP4, which the reader of GGUF files does not know.
pub(super) const FAMILY: Family =
    Family { architecture: "GptOssForCausalLM", model_type: "gpt_oss", from_hf, gguf: None };

const DEFAULTS: Defaults = Defaults {
    num_key_value_heads: Some(8),
    head_dim: Some(64),
    max_position_embeddings: 131_072,
    rms_norm_eps: 1e-5,
    rope_theta: 150_000.0,
    bos_token_id: None,
    eos_token_id: None,
    ..LLAMA
};

fn from_hf(json: &Json) -> Result<Config> {
    json.whole_heads()?;
    let quantized = json.get("quantization_config").and_then(|q| q.get("quant_method")).and_then(Value::as_str);
    if let Some(other) = quantized.filter(|q| *q != "mxfp4") {
        return Err(Error::new(format!("the weights are quantized ({other})")).next("supported: mxfp4, or 16 bits"));
    }
    let mut c = json.unquantized_base("gpt_oss", &DEFAULTS)?;
    if json.flag("output_router_logits", false)? {
        return Err(Error::new("output_router_logits = true (a loss on the router) is not supported")
            .next("set it to false in config.json"));
    }
    let bias = json.flag("attention_bias", true)?;
    c.attention_bias = bias;
    if json.rope_table().is_none() {
        c.rope_scaling = Some(RopeScaling::Yarn(Yarn {
            factor: 32.0,
            original_max_position_embeddings: 4096,
            beta_fast: 32.0,
            beta_slow: 1.0,
            truncate: false,
            attention_factor: Yarn::magnitude_of(32.0),
        }));
    }
    let t = &mut c.traits;
    t.output_bias = bias;
    t.sinks = true;
    t.activation = Activation::Clamped {
        alpha: json.float("swiglu_alpha")?.unwrap_or(1.702) as f32,
        limit: json.float("swiglu_limit")?.unwrap_or(7.0) as f32,
    };
    t.sliding_window = json.size_or("sliding_window", Some(128))?;
    t.layers = json.layer_types(c.num_hidden_layers, |i| i.is_multiple_of(2))?;
    t.experts = Some(Experts {
        count: json.size("num_local_experts")?.unwrap_or(128),
        // Files of OpenAI's own have both spellings.
        per_token: json.size("num_experts_per_tok")?.or(json.size("experts_per_token")?).unwrap_or(4),
        intermediate_size: c.intermediate_size,
        normalized: true,
        router: "mlp.router",
        biased: true,
    });
    Ok(c)
}
