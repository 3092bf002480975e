//! A loss or gradient norm that is no number: from there on nothing is learnt.

use super::{back_to, half_rate, row_list};
use crate::diagnose::{finding, history::History};
use crate::recipe::guidance::row;
use crate::train::event::{Finding, Severity};

pub const NAME: &str = "non_finite";

/// So many finite steps in a row end it.
const CALM: usize = 10;

pub fn look(h: &History, open: Option<&Finding>) -> Option<Finding> {
    let bad = |s: &crate::train::event::Step| !s.loss.is_finite() || !s.grad_norm.is_finite();
    let recent = h.last(if open.is_some() { CALM } else { 1 });
    let (step, first) = recent.iter().find(|(_, s)| bad(s))?;
    let which = match (first.loss.is_finite(), first.grad_norm.is_finite()) {
        (false, false) => "loss and gradient norm are",
        (false, true) => "loss is",
        _ => "gradient norm is",
    };
    let mut f = finding(NAME, Severity::Error, "loss or gradient is not a number", row::JUMPS);
    f.evidence = format!("step {step}: {which} not finite; {} in it.", row_list(&first.rows));
    f.cause = "The learning rate is too high, or one batch is bad.".into();
    f.fix = Some(back_to(h, step.saturating_sub(1), false, vec![half_rate(h)]));
    f.since = *step;
    Some(f)
}
