//! A train loss that does not fall, far from any plateau worth having.

use crate::diagnose::{
    finding,
    history::History,
    recipe_fix,
    statistics::{block_means, line, mean},
};
use crate::recipe::guidance::{learning_rates, row};
use crate::recipe::{Method, schema::short};
use crate::train::event::{Finding, Severity};

pub const NAME: &str = "stalled_loss";

/// Steps looked at: at least so many after the warm-up, and no more than the newest of them.
const LEAST: usize = 60;
const MOST: usize = 200;
/// The window is cut into so many blocks; its slope has their number less two degrees of freedom.
const BLOCKS: usize = 6;
/// Student's t at 95 % (one side) with 4 degrees of freedom.
const T: f64 = 2.132;
/// A fall of less than this share of the loss over the window is none; the error must be small enough to tell.
const FALL: f64 = 0.02;
const BLUNT: f64 = 0.10;
/// The guidance: 0.5 – 2.0 is healthy for chats. Above it a plateau is worth nothing; below it there is little left.
const HIGH: f64 = 2.0;
const LOW: f64 = 0.5;
/// At the schedule's end the loss stands because the rate does: below this share of the peak nothing is said.
const RATE: f64 = 0.1;

pub fn look(h: &History, open: Option<&Finding>) -> Option<Finding> {
    // What the losses of DPO and GRPO say is said by their rewards: see `preference` and `reward`.
    if let Method::Dpo | Method::Grpo = h.recipe.method {
        return None;
    }
    if let Some(open) = open {
        let last = History::losses(h.last(20));
        let then = History::losses(&h.steps[..h.steps.partition_point(|(s, _)| *s <= open.since)]);
        let tail = &then[then.len().saturating_sub(20)..];
        let gone = h.now() < open.since || last.is_empty() || tail.is_empty() || mean(&last) < 0.95 * mean(tail);
        return if gone { None } else { Some(open.clone()) };
    }
    let from = h.steps.partition_point(|(s, _)| *s <= h.warmup_steps());
    let settled = &h.steps[from..];
    // One look every tenth step: looking again and again at nearly the same window would find chance.
    if settled.len() < LEAST || !h.now().is_multiple_of(10) {
        return None;
    }
    let window = &settled[settled.len() - settled.len().min(MOST)..];
    let losses = History::losses(window);
    if losses.len() < LEAST || window.last()?.1.learning_rate < RATE * h.recipe.train.learning_rate {
        return None;
    }
    let level = mean(&losses);
    let blocks = block_means(&losses, BLOCKS);
    let x: Vec<f64> = (0..BLOCKS).map(|i| (i * (losses.len() / BLOCKS)) as f64).collect();
    let l = line(&x, &blocks)?;
    let length = losses.len() as f64;
    let flat = l.slope > -T * l.error && -l.slope * length < FALL * level;
    if !flat || T * l.error * length > BLUNT * level {
        return None;
    }
    // Not fallen at all since the start, or standing where no run should end.
    let first = mean(&History::losses(&h.steps[..20.min(h.steps.len())]));
    let fallen = first - level;
    let never = fallen < FALL * first && level > LOW;
    let high = h.recipe.method == Method::Sft && level > HIGH;
    let eval_fell = match (h.evals.first(), h.evals.last()) {
        (Some((_, a)), Some((_, b))) => *b < a * (1.0 - FALL),
        _ => false,
    };
    if !(high || never && !eval_fell) {
        return None;
    }
    let severity = if h.recipe.method == Method::Cpt { Severity::Note } else { Severity::Warning };
    let mut f = finding(NAME, severity, "loss does not fall", row::STALLED);
    f.evidence = format!(
        "{level:.3} over the last {} steps, slope {:+.4} ± {:.4} per 100 steps; {first:.3} at the start.",
        losses.len(),
        100.0 * l.slope,
        100.0 * T * l.error
    );
    let (min, _, start) = learning_rates(h.recipe.method, h.recipe.lora.is_some());
    let rate = h.recipe.train.learning_rate;
    if rate < min {
        f.cause = format!("The learning rate {} is below {}, where the useful range begins.", short(rate), short(min));
        f.fix = Some(recipe_fix(&[("train.learning_rate", short(start))]));
    } else {
        f.cause = "The data's format or the chat template does not fit the model, or too few rows.".into();
    }
    f.since = h.now();
    Some(f)
}
