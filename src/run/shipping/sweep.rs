//! How much of an adapter is good: held-out loss and what general text loses, at several factors of the adapter.

use crate::export::proof::probe::{PASSAGE, chats, log_probabilities, render};
use crate::model::engine::Engine;
use crate::model::ranks::Ranks;
use crate::run::artifact::Artifact;
use crate::train::parts::evaluate::evaluate;
use crate::train::setup;
use crate::train::speaker::Speaker;
use crate::{Error, Result};
use serde::Serialize;
use std::path::Path;

/// Factors that are tried; 0 is the base, 1 what was trained.
pub const FACTORS: [f64; 7] = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5];
/// A held-out loss within this share of the best is as good.
const AS_GOOD: f64 = 0.01;
/// Sequences of general text are cut here, in tokens.
const LONGEST: usize = 512;

/// What a factor gives.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    pub factor: f64,
    /// Mean loss over the labels of the held-out rows.
    pub held_out: f64,
    /// Perplexity of a passage of plain English.
    pub general: f64,
    /// KL divergence from the base over general prompts and that passage, mean over positions, in nats.
    pub drift: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sweep {
    pub points: Vec<Point>,
    /// The factor with the lowest held-out loss.
    pub best: f64,
    /// The smallest factor whose held-out loss is as good: what lies beyond moves the model and gains nothing.
    pub knee: f64,
}

/// Measure `artifact` at [`FACTORS`]. `data`: rows in place of the run's own held-out ones.
///
/// # Errors
/// When it is no plain LoRA adapter, or has no rows to be measured on.
pub fn sweep(artifact: &Artifact, data: Option<&Path>, tell: &mut dyn FnMut(&str)) -> Result<Sweep> {
    let speaker = artifact.load()?;
    let trained = speaker.model.params().values()?;
    let ups: Vec<std::ops::Range<usize>> = {
        let entries = speaker.model.params().entries();
        if let Some(other) = entries.iter().find(|e| !e.name.contains(".lora_A.") && !e.name.contains(".lora_B.")) {
            return Err(Error::usage(format!("{} trains more than LoRA's matrices ({})", artifact.title, other.name))
                .next("a factor has a meaning for a plain LoRA adapter only"));
        }
        entries.iter().filter(|e| e.name.contains(".lora_B.")).map(|e| e.range.clone()).collect()
    };
    if ups.is_empty() {
        return Err(
            Error::usage(format!("{} is no adapter", artifact.title)).next("name a run with [lora], or an adapter")
        );
    }
    let recipe = artifact.recipe_for(data)?.ok_or_else(|| {
        Error::usage(format!("{} has no rows of its own", artifact.title)).next("name some: --data PATH")
    })?;
    let examples = setup::examples_to_evaluate(&recipe, &speaker, tell)?;
    let texts = general(&speaker)?;
    let mut base = Vec::new();
    let mut points = Vec::new();
    for factor in FACTORS {
        let mut values = trained.clone();
        ups.iter().flat_map(|r| r.clone()).for_each(|i| values[i] *= factor as f32);
        speaker.model.set_values(&values)?;
        let size = recipe.train.per_device_eval_batch_size;
        let held_out = evaluate(&speaker.model, &mut Ranks::alone(), &examples, size, &mut || true)?
            .ok_or_else(|| Error::new("these rows hold no label to evaluate"))?
            .loss;
        let here = texts.iter().map(|ids| log_probabilities(&speaker.model, ids)).collect::<Result<Vec<_>>>()?;
        if base.is_empty() {
            base.clone_from(&here);
        }
        let drift = divergence(&base, &here, vocabulary(&speaker.model));
        let passage = texts.len() - 1;
        let general = perplexity(&texts[passage], &here[passage], vocabulary(&speaker.model));
        tell(&format!("× {factor:.2}  held out {held_out:.4}  general {general:.2}  drift {drift:.4}"));
        points.push(Point { factor, held_out, general, drift });
    }
    let (best, knee) = knee(&points);
    Ok(Sweep { points, best, knee })
}

fn vocabulary(model: &Engine) -> usize {
    model.config().vocab_size
}

/// General prompts as chats, and the passage last.
fn general(speaker: &Speaker) -> Result<Vec<Vec<u32>>> {
    let mut out = Vec::new();
    for probe in chats(None, &[]) {
        // A chat that the template refuses is left out.
        if let Ok(ids) = render(&speaker.tokenizer, speaker.template.as_ref(), &probe.messages) {
            out.push(ids);
        }
    }
    out.push(speaker.tokenizer.encode_with_special(PASSAGE)?.ids);
    let limit = speaker.model.config().max_position_embeddings.min(LONGEST);
    out.iter_mut().for_each(|ids| ids.truncate(limit));
    Ok(out)
}

/// Mean KL divergence, over all positions of all sequences.
fn divergence(base: &[Vec<f32>], here: &[Vec<f32>], vocab_size: usize) -> f64 {
    let (mut sum, mut n) = (0.0, 0usize);
    for (a, b) in base.iter().zip(here) {
        for (a, b) in a.chunks_exact(vocab_size).zip(b.chunks_exact(vocab_size)) {
            sum += a.iter().zip(b).map(|(a, b)| f64::from(*a).exp() * f64::from(a - b)).sum::<f64>();
            n += 1;
        }
    }
    sum / n.max(1) as f64
}

fn perplexity(ids: &[u32], log_probabilities: &[f32], vocab_size: usize) -> f64 {
    let rows = log_probabilities.chunks_exact(vocab_size);
    let next = ids.iter().skip(1).zip(rows).filter_map(|(id, row)| row.get(*id as usize));
    let (sum, n) = next.fold((0.0, 0usize), |(sum, n), l| (sum - f64::from(*l), n + 1));
    (sum / n.max(1) as f64).exp()
}

/// The best factor, and the smallest that is as good.
fn knee(points: &[Point]) -> (f64, f64) {
    let best = points.iter().min_by(|a, b| a.held_out.total_cmp(&b.held_out));
    let Some(best) = best else { return (1.0, 1.0) };
    let good = points.iter().find(|p| p.held_out <= best.held_out * (1.0 + AS_GOOD));
    (best.factor, good.map_or(best.factor, |p| p.factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_knee_is_the_smallest_factor_that_is_as_good_as_the_best() {
        let point = |factor, held_out| Point { factor, held_out, general: 9.0, drift: 0.0 };
        let points = [point(0.0, 3.0), point(0.5, 1.3), point(0.75, 1.205), point(1.0, 1.2), point(1.25, 1.4)];
        assert_eq!(knee(&points), (1.0, 0.75));
    }

    #[test]
    fn a_distribution_diverges_from_itself_by_nothing() {
        let rows = vec![vec![0.25f32.ln(), 0.75f32.ln(), 0.5f32.ln(), 0.5f32.ln()]];
        let other = vec![vec![0.5f32.ln(), 0.5f32.ln(), 0.5f32.ln(), 0.5f32.ln()]];
        assert_eq!(divergence(&rows, &rows, 2), 0.0);
        let expected = 0.25 * (0.25f64 / 0.5).ln() + 0.75 * (0.75f64 / 0.5).ln();
        assert!((divergence(&rows, &other, 2) - expected / 2.0).abs() < 1e-6);
        assert!((perplexity(&[0, 1, 0], &rows[0], 2) - (0.75f64 * 0.5).sqrt().recip()).abs() < 1e-6);
    }
}
