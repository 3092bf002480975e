//! A gradient norm of 0 (nothing is learnt) or above 100 (steps are mostly clipping).

use super::half_rate;
use crate::diagnose::{finding, history::History, recipe_fix};
use crate::recipe::guidance::row;
use crate::train::event::{Finding, Severity, Step};

pub const NAME: &str = "gradient";

/// The guidance: look at it above 100.
const HIGH: f64 = 100.0;
/// It takes [`OFTEN`] of the last [`RECENT`] steps to begin, and [`CALM`] steps without any to end.
const OFTEN: usize = 3;
const RECENT: usize = 5;
const CALM: usize = 10;

pub fn look(h: &History, open: Option<&Finding>) -> Option<Finding> {
    let zero = |s: &Step| s.grad_norm == 0.0;
    let high = |s: &Step| s.grad_norm.is_finite() && s.grad_norm > HIGH;
    if let Some(open) = open {
        let recent = h.last(CALM);
        let still = recent.iter().any(|(_, s)| zero(s) || high(s)) || (recent.len() < CALM && h.now() >= open.since);
        return if still && h.now() >= open.since { Some(open.clone()) } else { None };
    }
    let recent = h.last(RECENT);
    let found: Vec<_> = recent.iter().filter(|(_, s)| high(s)).collect();
    let none: Vec<_> = recent.iter().filter(|(_, s)| zero(s)).collect();
    if none.len() >= OFTEN {
        let mut f = finding(NAME, Severity::Warning, "gradients are zero", row::STALLED);
        f.evidence = format!("gradient norm 0 in {} of the last {} steps.", none.len(), recent.len());
        f.cause = "No label is trained on in these rows, or nothing trainable is reached.".into();
        f.since = none[0].0;
        return Some(f);
    }
    if found.len() < OFTEN {
        return None;
    }
    let largest = found.iter().map(|(_, s)| s.grad_norm).fold(0.0, f64::max);
    let mut f = finding(NAME, Severity::Warning, "gradient norm is high", row::GRADIENT);
    f.evidence = format!(
        "above {HIGH} in {} of the last {} steps, up to {largest:.0}; 0.1 – 10 is healthy.",
        found.len(),
        recent.len()
    );
    f.cause = "The learning rate is too high, or the data is far from what the model knows.".into();
    let (key, value) = half_rate(h);
    f.fix = Some(recipe_fix(&[(key.as_str(), value)]));
    f.since = found[0].0;
    Some(f)
}
