//! Gemma 2: scaled embeddings, norms of 1 + weight before and after attention and MLP, GELU, soft-capped scores and
//! logits, and every other layer over a sliding window.

use super::Family;
use super::gguf::Gguf;
use super::json::{Defaults, Json, LLAMA};
use crate::Result;
use crate::model::config::{Activation, Config, Layer};

pub(super) const FAMILY: Family =
    Family { architecture: "Gemma2ForCausalLM", model_type: "gemma2", from_hf, gguf: Some(("gemma2", from_gguf)) };

/// `Gemma2Config`'s, which `Gemma3TextConfig` shares but for the length.
pub(super) const DEFAULTS: Defaults = Defaults {
    num_key_value_heads: Some(4),
    head_dim: Some(256),
    max_position_embeddings: 8192,
    tie_word_embeddings: true,
    bos_token_id: Some(2),
    eos_token_id: Some(1),
    ..LLAMA
};

fn from_hf(json: &Json) -> Result<Config> {
    let mut c = json.base("gemma2", &DEFAULTS)?;
    json.whole_heads()?;
    common(json, &mut c)?;
    c.traits.attn_logit_softcapping = json.float_or("attn_logit_softcapping", Some(50.0))?;
    c.traits.final_logit_softcapping = json.float_or("final_logit_softcapping", Some(30.0))?;
    c.traits.layers = json.layer_types(c.num_hidden_layers, |i| i.is_multiple_of(2))?;
    Ok(c)
}

/// What Gemma 2 and 3 share.
pub(super) fn common(json: &Json, c: &mut Config) -> Result<()> {
    let bias = json.flag("attention_bias", false)?;
    c.attention_bias = bias;
    let t = &mut c.traits;
    t.output_bias = bias;
    (t.unit_offset, t.post_norms) = (true, true);
    t.activation = json.activation("hidden_activation", Activation::GeluTanh)?;
    t.embedding_scale = Some((c.hidden_size as f64).sqrt());
    t.query_pre_attn_scalar = json.float_or("query_pre_attn_scalar", Some(256.0))?;
    t.sliding_window = json.size_or("sliding_window", Some(4096))?;
    Ok(())
}

fn from_gguf(keys: &Gguf) -> Result<Config> {
    let mut c = keys.base("gemma2")?;
    common_gguf(keys, &mut c, 46)?;
    c.traits.attn_logit_softcapping = keys.float("attn_logit_softcapping")?;
    c.traits.sliding_window.get_or_insert(4096);
    c.traits.layers =
        (0..c.num_hidden_layers).map(|i| Layer { sliding: i.is_multiple_of(2), ..Layer::default() }).collect();
    Ok(c)
}

/// What Gemma 2 and 3 share. The scale of scores is not in the file: it is that of `head_dim`, but in the largest model
/// (of `largest` layers) that of `hidden_size / num_attention_heads`.
pub(super) fn common_gguf(keys: &Gguf, c: &mut Config, largest: usize) -> Result<()> {
    let t = &mut c.traits;
    (t.unit_offset, t.post_norms) = (true, true);
    t.activation = Activation::GeluTanh;
    t.embedding_scale = Some((c.hidden_size as f64).sqrt());
    let per_head = if c.num_hidden_layers == largest { c.hidden_size / c.num_attention_heads } else { c.head_dim };
    t.query_pre_attn_scalar = Some(per_head as f64);
    t.final_logit_softcapping = keys.float("final_logit_softcapping")?;
    t.sliding_window = keys.size("attention.sliding_window")?.filter(|n| *n > 0);
    Ok(())
}
