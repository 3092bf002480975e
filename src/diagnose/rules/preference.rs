//! DPO that does not learn to tell the answers apart, or that makes both of them unlikely.

use crate::diagnose::{finding, history::History, recipe_fix, statistics::mean};
use crate::recipe::guidance::{learning_rates, row};
use crate::recipe::{Method, schema::short};
use crate::train::event::{Finding, Severity, Step};

pub const ACCURACY: &str = "preference_accuracy";
pub const COLLAPSE: &str = "chosen_collapse";

/// The guidance: at 0.5 after 100 steps. Looked at over so many steps; a coin over their pairs stays below `COIN`, and
/// above `TOLD` the answers are told apart.
const AFTER: u64 = 100;
const WINDOW: usize = 50;
const COIN: f64 = 0.55;
const TOLD: f64 = 0.6;
/// The chosen answers' log-probability has collapsed where it has lost so large a share of what the reference gives
/// them, over so many steps; it is over below half of that. finetop's own threshold.
const LOST: f64 = 0.25;
const STEPS: usize = 20;

fn means(steps: &[(u64, Step)], name: &str) -> Option<f64> {
    let values: Vec<f64> = steps.iter().filter_map(|(_, s)| s.metrics.get(name).copied()).collect();
    (values.len() == steps.len() && !values.is_empty()).then(|| mean(&values))
}

pub fn accuracy(h: &History, open: Option<&Finding>) -> Option<Finding> {
    if h.recipe.method != Method::Dpo || h.now() < AFTER {
        return None;
    }
    let now = means(h.last(WINDOW), "rewards/accuracies")?;
    if let Some(open) = open {
        return (now < TOLD).then(|| open.clone());
    }
    if now >= COIN {
        return None;
    }
    let margin = means(h.last(WINDOW), "rewards/margins")?;
    let mut f = finding(ACCURACY, Severity::Warning, "chosen and rejected are not told apart", row::PREFERENCE);
    f.evidence = format!("accuracy {now:.2}, margin {margin:+.3} over the last {WINDOW} steps; a coin has 0.50 and 0.");
    let (min, most, _) = learning_rates(Method::Dpo, h.recipe.lora.is_some());
    let rate = h.recipe.train.learning_rate;
    if rate < most {
        let next = (rate * 5.0).clamp(min, most);
        f.cause = format!("The learning rate {} is low for so few steps, or the pairs hardly differ.", short(rate));
        f.fix = Some(recipe_fix(&[("train.learning_rate", short(next))]));
    } else {
        f.cause = "The pairs hardly differ, or chosen and rejected are mixed up in some of them.".into();
    }
    f.since = h.now();
    Some(f)
}

pub fn collapse(h: &History, open: Option<&Finding>) -> Option<Finding> {
    if h.recipe.method != Method::Dpo || h.steps.len() < STEPS {
        return None;
    }
    let beta = h.recipe.dpo.as_ref()?.beta;
    let last = h.last(STEPS);
    let (now, gained) = (means(last, "logps/chosen")?, means(last, "rewards/chosen")? / beta);
    // What the reference gives the same answers.
    let then = now - gained;
    let lost = gained / then;
    if let Some(open) = open {
        return (lost > LOST / 2.0).then(|| open.clone());
    }
    if lost < LOST {
        return None;
    }
    let mut f = finding(COLLAPSE, Severity::Warning, "chosen answers grow unlikely", row::PREFERENCE);
    f.evidence =
        format!("log-probability of chosen {then:.1} under the reference, {now:.1} now, over the last {STEPS} steps.");
    f.cause = "It parts from the reference to push rejected answers down: too high a rate, or too small a beta.".into();
    f.fix = Some(recipe_fix(&[("dpo.beta", short(2.0 * beta)), ("train.learning_rate", super::half_rate(h).1)]));
    f.since = h.now();
    Some(f)
}
