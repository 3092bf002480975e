//! A decoder's shape, named as Hugging Face's `config.json` names it.

use candle_core::Tensor;
use std::collections::HashMap;

/// The shape of a Llama-style decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `llama` …: `model_type` in `config.json`, `general.architecture` in a GGUF.
    pub model_type: String,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub max_position_embeddings: usize,
    pub rms_norm_eps: f64,
    pub rope_theta: f64,
    /// Llama-3 scaling of the rotary frequencies, where the model has it.
    pub rope_scaling: Option<RopeScaling>,
    pub tie_word_embeddings: bool,
    pub bos_token_id: Option<u32>,
    /// Any of these ends a generation (`config.json` and `generation_config.json` together).
    pub eos_token_ids: Vec<u32>,
}

/// `rope_type = "llama3"`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeScaling {
    pub factor: f64,
    pub low_freq_factor: f64,
    pub high_freq_factor: f64,
    pub original_max_position_embeddings: usize,
}

/// A model's weights by their Hugging Face names (`model.layers.0.self_attn.q_proj.weight`),
/// in Hugging Face layout (`[out, in]`; q and k rows never permuted), f32 on the CPU.
/// With a tied head there is no `lm_head.weight`.
pub struct Weights {
    pub config: Config,
    pub tensors: HashMap<String, Tensor>,
}
