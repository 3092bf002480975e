//! Evaluations that no longer improve, before they rise enough to be called overfitting.

use super::overfitting;
use crate::diagnose::{finding, history::History, statistics::line};
use crate::recipe::guidance::row;
use crate::train::event::{Finding, Severity};

pub const NAME: &str = "eval_stalled";

/// An improvement that counts: 0.2 % of the loss.
const COUNTS: f64 = 0.002;
/// Evaluations without one while train still falls, and in any case.
const FALLING: usize = 2;
const ANYWAY: usize = 3;

pub fn look(h: &History, open: Option<&Finding>) -> Option<Finding> {
    let mut evals = h.evals.iter().filter(|(_, l)| l.is_finite());
    let (mut best_step, mut best) = *evals.next()?;
    let mut since = Vec::new();
    for &(step, loss) in evals {
        if loss < best * (1.0 - COUNTS) {
            (best_step, best) = (step, loss);
            since.clear();
        } else {
            since.push(loss);
        }
    }
    let last = *since.last()?;
    if let Some(open) = open {
        return if best_step == open.since { Some(open.clone()) } else { None };
    }
    // The first evaluation is made before the first step: a run that never improved on it is another matter.
    if best_step == 0 || overfitting::rising(h).is_some() {
        return None;
    }
    let slope = falling(h, best_step);
    if since.len() < FALLING || (since.len() < ANYWAY && slope.is_none()) {
        return None;
    }
    let train = match slope {
        Some(s) => format!(", train still falling {:.3} per 100 steps", -100.0 * s),
        None => String::new(),
    };
    let mut f = finding(NAME, Severity::Warning, "eval stopped improving", row::DUMBER);
    f.evidence = format!("eval {best:.3} → {last:.3} in {} evals{train}.", since.len());
    f.cause = "What these rows can teach at this rate has been learnt.".into();
    f.fix = Some(overfitting::stop_at(h, best_step));
    f.since = best_step;
    Some(f)
}

/// Train loss per step since `step`, if it falls by more than its noise.
fn falling(h: &History, step: u64) -> Option<f64> {
    let from = h.steps.partition_point(|(s, _)| *s <= step);
    let points: Vec<_> = h.steps[from..].iter().filter(|(_, s)| s.loss.is_finite()).collect();
    let x: Vec<f64> = points.iter().map(|(s, _)| *s as f64).collect();
    let y: Vec<f64> = points.iter().map(|(_, s)| s.loss).collect();
    let l = line(&x, &y)?;
    (l.slope < -2.0 * l.error).then_some(l.slope)
}
