//! Shapes of well-known models, with the sizes that their `config.json` has.

use crate::model::config::{Config, Llama3, RopeScaling, Traits};
use crate::{Error, Result};

/// Shapes by name.
pub const SHAPES: [&str; 8] = [
    "smollm2-135m",
    "smollm2-360m",
    "qwen2.5-0.5b",
    "qwen2.5-1.5b",
    "qwen2.5-7b",
    "llama3.2-1b",
    "llama3.2-3b",
    "llama3.1-8b",
];

struct Sizes {
    hidden: usize,
    ffn: usize,
    layers: usize,
    heads: usize,
    kv: usize,
    head_dim: usize,
    vocab: usize,
    tied: bool,
}

/// The configuration of a shape by its name.
pub fn shape(name: &str) -> Result<Config> {
    let of = |hidden, ffn, layers, heads, kv, head_dim, vocab, tied| Sizes {
        hidden,
        ffn,
        layers,
        heads,
        kv,
        head_dim,
        vocab,
        tied,
    };
    let s = match name {
        "smollm2-135m" => of(576, 1536, 30, 9, 3, 64, 49_152, true),
        "smollm2-360m" => of(960, 2560, 32, 15, 5, 64, 49_152, true),
        "qwen2.5-0.5b" => of(896, 4864, 24, 14, 2, 64, 151_936, true),
        "qwen2.5-1.5b" => of(1536, 8960, 28, 12, 2, 128, 151_936, true),
        "qwen2.5-7b" => of(3584, 18_944, 28, 28, 4, 128, 152_064, false),
        "llama3.2-1b" => of(2048, 8192, 16, 32, 8, 64, 128_256, true),
        "llama3.2-3b" => of(3072, 8192, 28, 24, 8, 128, 128_256, true),
        "llama3.1-8b" => of(4096, 14_336, 32, 32, 8, 128, 128_256, false),
        other => {
            return Err(
                Error::usage(format!("unknown shape \"{other}\"")).next(format!("use one of {}", SHAPES.join(", ")))
            );
        }
    };
    let qwen = name.starts_with("qwen");
    let scaled = |factor| {
        RopeScaling::Llama3(Llama3 {
            factor,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        })
    };
    Ok(Config {
        model_type: if qwen { "qwen2" } else { "llama" }.into(),
        vocab_size: s.vocab,
        hidden_size: s.hidden,
        intermediate_size: s.ffn,
        num_hidden_layers: s.layers,
        num_attention_heads: s.heads,
        num_key_value_heads: s.kv,
        head_dim: s.head_dim,
        max_position_embeddings: if name.starts_with("smol") { 8192 } else { 131_072 },
        rms_norm_eps: if qwen { 1e-6 } else { 1e-5 },
        rope_theta: match () {
            () if qwen => 1e6,
            () if name.starts_with("smol") => 1e5,
            () => 5e5,
        },
        rope_scaling: match () {
            () if name.starts_with("llama3.2") => Some(scaled(32.0)),
            () if name.starts_with("llama3.1") => Some(scaled(8.0)),
            () => None,
        },
        tie_word_embeddings: s.tied,
        attention_bias: qwen,
        bos_token_id: Some(1),
        eos_token_ids: vec![2],
        traits: Traits::default(),
    })
}
