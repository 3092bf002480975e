//! llama.cpp's names of weights, and how it lays them out differently from Hugging Face.

use crate::model::config::Config;

/// `general.architecture` of this model's file: llama.cpp keeps a Mistral as a Llama.
pub fn architecture(c: &Config) -> &'static str {
    match c.model_type.as_str() {
        "qwen2" => "qwen2",
        "qwen3" => "qwen3",
        "qwen3_moe" => "qwen3moe",
        "gpt_oss" => "gpt-oss",
        "gemma2" => "gemma2",
        "gemma3_text" => "gemma3",
        "phi3" => "phi3",
        "smollm3" => "smollm3",
        _ => "llama",
    }
}

/// llama.cpp's name of a weight.
pub fn gguf_name(c: &Config, name: &str) -> String {
    match name {
        "model.embed_tokens.weight" => return "token_embd.weight".to_string(),
        "model.norm.weight" => return "output_norm.weight".to_string(),
        "lm_head.weight" => return "output.weight".to_string(),
        _ => {}
    }
    let rest = name.strip_prefix("model.layers.").unwrap_or(name);
    let (layer, part) = rest.split_once('.').unwrap_or(("", rest));
    let (part, kind) = match part.strip_suffix(".bias") {
        Some(part) => (part, "bias"),
        None => (part.strip_suffix(".weight").unwrap_or(part), "weight"),
    };
    let part = match part {
        "input_layernorm" => "attn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.qkv_proj" => "attn_qkv",
        "self_attn.o_proj" => "attn_output",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        // The same name is the norm before the MLP in Llama, and the one after attention in Gemma.
        "post_attention_layernorm" if c.traits.post_norms => "post_attention_norm",
        "post_attention_layernorm" | "pre_feedforward_layernorm" => "ffn_norm",
        "post_feedforward_layernorm" => "post_ffw_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" | "mlp.gate_up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        "mlp.gate" => "ffn_gate_inp",
        other => match expert(other) {
            Some((_, "gate_proj")) => "ffn_gate_exps",
            Some((_, "up_proj")) => "ffn_up_exps",
            Some((_, "down_proj")) => "ffn_down_exps",
            _ => other,
        },
    };
    format!("blk.{layer}.{part}.{kind}")
}

/// The expert whose matrix this is, and the matrix's own name: the file stacks those of all experts in one tensor.
pub fn expert(name: &str) -> Option<(usize, &str)> {
    let (_, rest) = name.split_once("mlp.experts.")?;
    let (number, part) = rest.split_once('.')?;
    Some((number.parse().ok()?, part.strip_suffix(".weight").unwrap_or(part)))
}

/// Whether the rows of this weight's heads are interleaved in the file: q and k of what its converter treats as a Llama.
pub fn is_interleaved(c: &Config, name: &str) -> bool {
    let llama = matches!(c.model_type.as_str(), "llama" | "mistral" | "smollm3");
    llama && matches!(name.rsplit('.').nth(1), Some("q_proj" | "k_proj"))
}

/// What the file adds to the numbers of this weight: 1 to Gemma's norms.
pub fn offset(c: &Config, name: &str) -> f32 {
    if c.traits.unit_offset && name.ends_with("norm.weight") { 1.0 } else { 0.0 }
}
