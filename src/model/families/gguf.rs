//! Reading a `.gguf`'s metadata: a family's keys under llama.cpp's names, and what all families share.

use crate::model::config::{Config, LongRope, RopeScaling, Traits, Yarn};
use crate::model::gguf::Metadata;
use crate::{Error, Result};

/// The header of a `.gguf`, as a family sees it.
pub(in crate::model) struct Gguf<'a> {
    /// `general.architecture`, which comes before the family's own keys.
    pub architecture: &'a str,
    pub meta: Metadata<'a>,
    /// Rows of the embedding, where there is one.
    pub vocab_size: Option<usize>,
    /// Whether there is a tensor of this name.
    pub has: &'a dyn Fn(&str) -> bool,
    /// The numbers of a vector of this name and length.
    pub values: &'a dyn Fn(&str, usize) -> Result<Vec<f32>>,
}

impl Gguf<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    pub fn size(&self, key: &str) -> Result<Option<usize>> {
        self.meta.size(&self.key(key))
    }

    pub fn float(&self, key: &str) -> Result<Option<f64>> {
        self.meta.float(&self.key(key))
    }

    fn required(&self, key: &str) -> Result<usize> {
        self.size(key)?.ok_or_else(|| Error::new(format!("{} is missing", self.key(key))))
    }

    /// What all families have in common, `traits` plain.
    ///
    /// # Errors
    /// What changes the arithmetic and is not implemented, by its key.
    pub fn base(&self, model_type: &str) -> Result<Config> {
        let vocab_size = self.vocab_size.ok_or_else(|| {
            Error::new("token_embd.weight is missing")
                .next("is this file only a vocabulary, or one part of a split model?")
        })?;
        let (hidden_size, heads) = (self.required("embedding_length")?, self.required("attention.head_count")?);
        let head_dim = match self.size("attention.key_length")? {
            Some(n) => n,
            None => hidden_size / heads.max(1),
        };
        if let Some(n) = self.size("attention.value_length")?.filter(|&n| n != head_dim) {
            return Err(Error::new(format!(
                "{} = {n} differs from the head size {head_dim}, which is not supported",
                self.key("attention.value_length")
            )));
        }
        let turned = self.size("rope.dimension_count")?.filter(|&n| n != head_dim);
        let mut eos_token_ids = Vec::new();
        for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
            let id = self.meta.size(key)?.and_then(|n| u32::try_from(n).ok());
            if let Some(id) = id.filter(|id| !eos_token_ids.contains(id)) {
                eos_token_ids.push(id);
            }
        }
        let eps = self.float("attention.layer_norm_rms_epsilon")?;
        let longest = self.required("context_length")?;
        Ok(Config {
            model_type: model_type.to_string(),
            vocab_size,
            hidden_size,
            intermediate_size: self.required("feed_forward_length")?,
            num_hidden_layers: self.required("block_count")?,
            num_attention_heads: heads,
            num_key_value_heads: self.size("attention.head_count_kv")?.unwrap_or(heads),
            head_dim,
            max_position_embeddings: longest,
            rms_norm_eps: eps
                .ok_or_else(|| Error::new(format!("{} is missing", self.key("attention.layer_norm_rms_epsilon"))))?,
            rope_theta: self.float("rope.freq_base")?.unwrap_or(10_000.0),
            rope_scaling: self.scaling(turned.unwrap_or(head_dim) / 2, longest)?,
            tie_word_embeddings: !(self.has)("output.weight"),
            attention_bias: (self.has)("blk.0.attn_q.bias"),
            bos_token_id: self.meta.size("tokenizer.ggml.bos_token_id")?.and_then(|n| u32::try_from(n).ok()),
            eos_token_ids,
            traits: Traits {
                output_bias: (self.has)("blk.0.attn_output.bias"),
                mlp_bias: (self.has)("blk.0.ffn_down.bias"),
                rotary_dim: turned,
                ..Traits::default()
            },
        })
    }

    fn scaling(&self, frequencies: usize, longest: usize) -> Result<Option<RopeScaling>> {
        let factor = || match self.float("rope.scaling.factor")? {
            Some(f) if f > 0.0 => Ok(f),
            _ => Err(Error::new(format!("{} is missing or not positive", self.key("rope.scaling.factor")))),
        };
        let original = self.size("rope.scaling.original_context_length")?.unwrap_or(longest);
        let kind = self.meta.text(&self.key("rope.scaling.type"))?;
        Ok(match kind.unwrap_or("none") {
            "linear" => Some(RopeScaling::Linear(factor()?)),
            "yarn" => {
                let factor = factor()?;
                Some(RopeScaling::Yarn(Yarn {
                    factor,
                    original_max_position_embeddings: original,
                    beta_fast: self.float("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                    beta_slow: self.float("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                    truncate: true,
                    attention_factor: self
                        .float("rope.scaling.yarn_attn_factor")?
                        .unwrap_or_else(|| Yarn::magnitude_of(factor)),
                }))
            }
            // Older files of Phi-3 have the factors, and no type.
            "none" | "longrope" if (self.has)(LONG) => {
                let list = |name: &str| -> Result<Vec<f64>> {
                    Ok((self.values)(name, frequencies)?.into_iter().map(f64::from).collect())
                };
                Some(RopeScaling::LongRope(LongRope {
                    short_factor: list(SHORT)?,
                    long_factor: list(LONG)?,
                    original_max_position_embeddings: original,
                    attention_factor: self.float("rope.scaling.attn_factor")?.unwrap_or(1.0),
                }))
            }
            "none" => None,
            other => {
                return Err(Error::new(format!("rope scaling of type \"{other}\" is not supported"))
                    .next("supported: none, linear, yarn, longrope, and Llama 3's (rope_freqs.weight)"));
            }
        })
    }
}

/// The tensors of LongRoPE's factors.
pub const LONG: &str = "rope_factors_long.weight";
pub const SHORT: &str = "rope_factors_short.weight";
