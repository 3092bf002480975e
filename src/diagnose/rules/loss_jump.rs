//! A loss far above its running median.

use super::{back_to, half_rate, row_list};
use crate::diagnose::{
    finding,
    history::History,
    statistics::{median, spread},
};
use crate::recipe::guidance::row;
use crate::train::event::{Finding, Severity};

pub const NAME: &str = "loss_jump";

/// The median of so many steps before; at least [`LEAST`] of them.
const WINDOW: usize = 50;
const LEAST: usize = 20;
/// The guidance: 2–10 times the running median.
const TIMES: f64 = 2.0;
/// And outside the noise of the run itself: so many standard deviations, and so many nats (small losses vary by
/// multiples of themselves without harm).
const SPREADS: f64 = 8.0;
const NATS: f64 = 0.5;
/// It ends when the median of so many steps is back under 1.5 times the median before the jump.
const CALM: usize = 10;

pub fn look(h: &History, open: Option<&Finding>) -> Option<Finding> {
    if let Some(open) = open {
        let before = h.steps.partition_point(|(s, _)| *s < open.since);
        let after = &h.steps[before..];
        if after.is_empty() {
            return None;
        }
        let reference = median(&History::losses(&h.steps[before.saturating_sub(WINDOW)..before]));
        let calm = after.len() > CALM && median(&History::losses(h.last(CALM))) < 1.5 * reference;
        return if calm { None } else { Some(open.clone()) };
    }
    let (step, now) = h.steps.last()?;
    let earlier = &h.steps[..h.steps.len() - 1];
    let before = History::losses(&earlier[earlier.len().saturating_sub(WINDOW)..]);
    if before.len() < LEAST || !now.loss.is_finite() {
        return None;
    }
    let middle = median(&before);
    let jumped = now.loss > TIMES * middle && now.loss > middle + (SPREADS * spread(&before)).max(NATS);
    if !jumped {
        return None;
    }
    let mut f = finding(NAME, Severity::Warning, "loss jumped", row::JUMPS);
    f.evidence = format!(
        "loss {:.3} at step {step}, {:.1} times the median {middle:.3} of the {} steps before; {} in it.",
        now.loss,
        now.loss / middle,
        before.len(),
        row_list(&now.rows)
    );
    f.cause = "The learning rate is too high, or one batch is bad.".into();
    f.fix = Some(back_to(h, step.saturating_sub(1), false, vec![half_rate(h)]));
    f.since = *step;
    Some(f)
}
