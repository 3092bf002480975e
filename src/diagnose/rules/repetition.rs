//! Samples that loop, or turns that no longer end.

use crate::diagnose::{finding, history::History, recipe_fix, statistics::mean};
use crate::recipe::guidance::row;
use crate::train::event::{Finding, Fix, Sample, Severity};

pub const NAME: &str = "repetition";

/// Share of repeated 4-grams from which a round loops, and below which it no longer does. finetop's own: a chat
/// answer seldom has more than a tenth.
const LOOPS: f64 = 0.3;
const CALM: f64 = 0.15;
/// Rounds in a row.
const ROUNDS: usize = 2;
/// Shorter completions say nothing about loops.
const TOKENS: u32 = 16;

struct Round {
    step: u64,
    repetition: f64,
    stopped: usize,
    drawn: usize,
}

fn round(step: u64, samples: &[Sample]) -> Round {
    let share: Vec<f64> = samples.iter().map(|s| if s.tokens >= TOKENS { s.repetition } else { 0.0 }).collect();
    Round {
        step,
        repetition: if share.is_empty() { 0.0 } else { mean(&share) },
        stopped: samples.iter().filter(|s| s.stop_reason != "length").count(),
        drawn: samples.len(),
    }
}

pub fn look(h: &History, open: Option<&Finding>) -> Option<Finding> {
    let rounds: Vec<_> = h.rounds.iter().map(|(step, s)| round(*step, s)).collect();
    let last = rounds.last()?;
    if let Some(open) = open {
        let calm = last.step < open.since || (last.repetition < CALM && last.stopped > 0);
        return if calm { None } else { Some(open.clone()) };
    }
    let base = rounds.first().filter(|r| r.step == 0);
    let trained: Vec<_> = rounds.iter().filter(|r| r.step > 0).collect();
    if trained.len() < ROUNDS {
        return None;
    }
    let recent = &trained[trained.len() - ROUNDS..];
    // A base model that looped before the first step and loops less now is on its way.
    let worse = base.is_none_or(|b| last.repetition > b.repetition - 0.05);
    let loops = worse && recent.iter().all(|r| r.repetition >= LOOPS);
    let ended = base.is_some_and(|b| 2 * b.stopped > b.drawn);
    let endless = ended && recent.iter().all(|r| r.stopped == 0);
    if !loops && !endless {
        return None;
    }
    let title = if loops { "samples repeat themselves" } else { "samples no longer end" };
    let mut f = finding(NAME, Severity::Warning, title, row::REPEATS);
    let before = base.map_or(String::new(), |b| format!(", {:.2} before the first step", b.repetition));
    f.evidence = format!(
        "repeated 4-grams {:.2} at step {}{before}; {} of {} ended by themselves.",
        last.repetition, last.step, last.stopped, last.drawn
    );
    f.cause = "Overfitting with too low a temperature, a stop token never trained, or duplicate rows.".into();
    f.fix = cures(h);
    f.since = recent[0].step;
    Some(f)
}

/// The guidance's sampling settings, those that are not so already.
fn cures(h: &History) -> Option<Fix> {
    let s = &h.recipe.sample;
    let mut set = Vec::new();
    if s.temperature < 0.7 {
        set.push(("sample.temperature", "0.7".to_string()));
    }
    if s.top_p != 0.9 {
        set.push(("sample.top_p", "0.9".to_string()));
    }
    if s.repetition_penalty < 1.1 {
        set.push(("sample.repetition_penalty", "1.1".to_string()));
    }
    (!set.is_empty()).then(|| recipe_fix(&set))
}
