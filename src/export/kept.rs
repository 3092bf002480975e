//! Whether a file says all that a model computes. Architectures have keys for some of it only: what llama.cpp would compute
//! otherwise is refused by name, or, where only long texts feel it, named.
//!
//! The keys are read back as any file's are, and the two descriptions compared. Must not know who asks.

use super::gguf::Keys;
use super::gguf::writer::{self, Tensor};
use crate::model::config::{Config, RopeScaling};
use crate::model::gguf::{LONG, ROPE_FREQS, config_of_header};
use crate::{Error, Result};

/// What of `c` a GGUF with these keys and tensors leaves out and only texts longer than a window feel.
///
/// # Errors
/// What changes the arithmetic of every text, by its name in `config.json`.
pub(super) fn check(c: &Config, keys: &Keys, tensors: &[Tensor]) -> Result<Vec<String>> {
    // Llama 3's divisors are in the file whatever its parameters were, which cannot always be found again from them.
    let named: Vec<Tensor> = tensors.iter().filter(|t| t.name != ROPE_FREQS).cloned().collect();
    let values = |name: &str, _: usize| match &c.rope_scaling {
        Some(RopeScaling::LongRope(l)) => {
            let list = if name == LONG { &l.long_factor } else { &l.short_factor };
            Ok(list.iter().map(|v| *v as f32).collect())
        }
        _ => Err(Error::new("not in the file").at(name)),
    };
    let read = config_of_header(&writer::header(keys, &named), &values)?;
    refuse(c, &read, "a GGUF")?;
    let window = c.traits.sliding_window.unwrap_or(0);
    Ok(match windows(c) == windows(&read) {
        true => Vec::new(),
        false => vec![format!(
            "the window of {window} tokens is not in the file: beyond that many tokens llama.cpp computes otherwise"
        )],
    })
}

/// How many tokens each layer sees, where not all.
pub(super) fn windows(c: &Config) -> Vec<Option<usize>> {
    let window = |i| c.traits.sliding_window.filter(|_| c.layer(i).sliding);
    (0..c.num_hidden_layers).map(window).collect()
}

/// Refuses to write `what` where reading it again gives other arithmetic, windows apart.
pub(super) fn refuse(own: &Config, read: &Config, what: &str) -> Result<()> {
    match difference(own, read) {
        None => Ok(()),
        Some(name) => Err(Error::usage(format!("{name} of this {} model cannot be said in {what}", own.model_type))
            .next(match what {
                "a GGUF" => "export as safetensors (finetop merge), which keeps it",
                _ => "merge over the model's Hugging Face folder",
            })),
    }
}

/// The first of what both compute differently. Numbers count as equal when their f32 are.
fn difference(a: &Config, b: &Config) -> Option<&'static str> {
    let (s, t) = (&a.traits, &b.traits);
    let float = |a: f64, b: f64| (a - b).abs() <= 1e-6 * a.abs().max(b.abs());
    let maybe = |a: Option<f64>, b: Option<f64>| match (a, b) {
        (Some(a), Some(b)) => float(a, b),
        (a, b) => a == b,
    };
    let layers = |c: &Config| -> Vec<_> { (0..c.num_hidden_layers).map(|i| c.layer(i).rope).collect() };
    // What scores are divided by, squared.
    let scale = |c: &Config| c.traits.query_pre_attn_scalar.unwrap_or(c.head_dim as f64);
    let experts = |c: &Config| c.traits.experts.map(|e| (e.count, e.per_token, e.intermediate_size));
    let normalized = |c: &Config| c.traits.experts.is_some_and(|e| e.normalized);
    [
        ("the shape", a.tensor_shapes() == b.tensor_shapes()),
        ("num_attention_heads", a.num_attention_heads == b.num_attention_heads),
        ("num_key_value_heads", a.num_key_value_heads == b.num_key_value_heads),
        ("max_position_embeddings", a.max_position_embeddings == b.max_position_embeddings),
        ("rms_norm_eps", float(a.rms_norm_eps, b.rms_norm_eps)),
        ("rope_theta", float(a.rope_theta, b.rope_theta)),
        ("the scaling of rotary frequencies", scaling(a.rope_scaling.as_ref(), b.rope_scaling.as_ref())),
        ("hidden_act", s.activation == t.activation),
        ("the scale of embeddings", maybe(s.embedding_scale, t.embedding_scale)),
        ("query_pre_attn_scalar", float(scale(a), scale(b))),
        ("attn_logit_softcapping", maybe(s.attn_logit_softcapping, t.attn_logit_softcapping)),
        ("final_logit_softcapping", maybe(s.final_logit_softcapping, t.final_logit_softcapping)),
        ("partial_rotary_factor", s.rotary_dim == t.rotary_dim),
        ("which layers are turned by which angles", layers(a) == layers(b)),
        (
            "rope_local_base_freq",
            maybe(s.rope_local_base_freq, t.rope_local_base_freq)
                || !layers(a).contains(&crate::model::config::Rope::Local),
        ),
        ("the experts' number", experts(a) == experts(b)),
        ("norm_topk_prob = false", normalized(a) == normalized(b)),
        ("norms of 1 + weight", s.unit_offset == t.unit_offset),
    ]
    .into_iter()
    .find(|(_, same)| !same)
    .map(|(name, _)| name)
}

fn scaling(a: Option<&RopeScaling>, b: Option<&RopeScaling>) -> bool {
    let float = |a: f64, b: f64| (a - b).abs() <= 1e-6 * a.abs().max(b.abs());
    let list = |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| float(*a, *b));
    match (a, b) {
        (Some(RopeScaling::Llama3(_)), _) => true,
        (None, None) => true,
        (Some(RopeScaling::Linear(a)), Some(RopeScaling::Linear(b))) => float(*a, *b),
        (Some(RopeScaling::Yarn(a)), Some(RopeScaling::Yarn(b))) => {
            a.original_max_position_embeddings == b.original_max_position_embeddings
                && a.truncate == b.truncate
                && float(a.factor, b.factor)
                && float(a.beta_fast, b.beta_fast)
                && float(a.beta_slow, b.beta_slow)
                && float(a.attention_factor, b.attention_factor)
        }
        (Some(RopeScaling::LongRope(a)), Some(RopeScaling::LongRope(b))) => {
            a.original_max_position_embeddings == b.original_max_position_embeddings
                && list(&a.short_factor, &b.short_factor)
                && list(&a.long_factor, &b.long_factor)
                && float(a.attention_factor, b.attention_factor)
        }
        _ => false,
    }
}
