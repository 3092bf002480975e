//! Gemma 3's text model: Gemma 2 with q/k norms in place of the cap on scores, and two θ: one for the layers that see all,
//! one for those with a window.

use super::Family;
use super::gemma2;
use super::gguf::Gguf;
use super::json::{Defaults, Json};
use crate::model::config::{Config, Layer, Rope};
use crate::{Error, Result};

pub(super) const FAMILY: Family =
    Family { architecture: "Gemma3ForCausalLM", model_type: "gemma3_text", from_hf, gguf: Some(("gemma3", from_gguf)) };

const DEFAULTS: Defaults = Defaults { max_position_embeddings: 131_072, rope_theta: 1e6, ..gemma2::DEFAULTS };

fn from_hf(json: &Json) -> Result<Config> {
    let mut c = json.base("gemma3_text", &DEFAULTS)?;
    gemma2::common(json, &mut c)?;
    c.traits.head_norms = true;
    // transformers' Gemma 3 reads `attn_logit_softcapping` but caps no scores.
    c.traits.final_logit_softcapping = json.float_or("final_logit_softcapping", None)?;
    let pattern = json.size("sliding_window_pattern")?.unwrap_or(6).max(1);
    c.traits.layers = json.layer_types(c.num_hidden_layers, |i| !(i + 1).is_multiple_of(pattern))?;
    let local = json.float("rope_local_base_freq")?.unwrap_or(10_000.0);
    // transformers 5 writes a table for each kind of layer; before, there was one for the full ones.
    let nested =
        json.rope_table().filter(|t| t.get("full_attention").is_some() || t.get("sliding_attention").is_some());
    let local = match nested {
        None => local,
        Some(table) => {
            let full = json.rope(Json(table).get("full_attention"), &DEFAULTS)?;
            let sliding =
                json.rope(Json(table).get("sliding_attention"), &Defaults { rope_theta: local, ..DEFAULTS })?;
            if let Some(scaling) = &sliding.scaling {
                return Err(Error::new(format!(
                    "rope_type \"{}\" of sliding_attention is not supported",
                    scaling.name()
                )));
            }
            (c.rope_theta, c.rope_scaling) = (full.theta, full.scaling);
            Json(table).get("sliding_attention").map_or(local, |_| sliding.theta)
        }
    };
    c.traits.rope_local_base_freq = Some(local);
    for layer in c.traits.layers.iter_mut().filter(|l| l.sliding) {
        layer.rope = Rope::Local;
    }
    Ok(c)
}

fn from_gguf(keys: &Gguf) -> Result<Config> {
    let mut c = keys.base("gemma3_text")?;
    gemma2::common_gguf(keys, &mut c, 62)?;
    let t = &mut c.traits;
    t.head_norms = true;
    t.rope_local_base_freq = Some(keys.float("rope.freq_base_swa")?.unwrap_or(10_000.0));
    let window = t.sliding_window.is_some();
    let local = Layer { sliding: true, rope: Rope::Local };
    let layer = |i: usize| if window && !(i + 1).is_multiple_of(6) { local } else { Layer::default() };
    t.layers = (0..c.num_hidden_layers).map(layer).collect();
    Ok(c)
}
