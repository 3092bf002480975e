//! Tokens a second that fell by half.

use crate::diagnose::{finding, history::History, statistics::median};
use crate::recipe::guidance::{row, thousands};
use crate::train::event::{Finding, Severity};

pub const NAME: &str = "throughput";

/// The guidance: falls by half. Back above 0.7 of it ends it.
const FALLEN: f64 = 0.5;
const BACK: f64 = 0.7;
/// The median of the newest steps against that of up to 200 before them, less the first two of the run.
const RECENT: usize = 5;
const BEFORE: usize = 20;
const WINDOW: usize = 200;
const SKIP: usize = 2;

pub fn look(h: &History, open: Option<&Finding>) -> Option<Finding> {
    let limit = open.map_or(h.now() + 1, |f| f.since);
    if h.now() < limit.saturating_sub(1) {
        return None;
    }
    let speed = |steps: &[(u64, crate::train::event::Step)]| -> Vec<f64> {
        steps.iter().map(|(_, s)| s.tokens_per_second).filter(|v| v.is_finite() && *v > 0.0).collect()
    };
    let recent = speed(h.last(RECENT));
    let until = h.steps.partition_point(|(s, _)| *s < limit).min(h.steps.len().saturating_sub(RECENT));
    let before = speed(&h.steps[until.saturating_sub(WINDOW).max(SKIP.min(until))..until]);
    if recent.len() < RECENT || before.len() < BEFORE {
        return None;
    }
    let (now, usual) = (median(&recent), median(&before));
    match open {
        Some(open) if now < BACK * usual => return Some(open.clone()),
        Some(_) => return None,
        None if now >= FALLEN * usual => return None,
        None => {}
    }
    let mut f = finding(NAME, Severity::Warning, "steps have become slow", row::COLLAPSE);
    f.evidence = format!(
        "{} tokens/s in the last {RECENT} steps, {} in the {} before.",
        thousands(now as u64),
        thousands(usual as u64),
        before.len()
    );
    f.cause = "Something else uses this machine, or memory is being swapped.".into();
    f.since = h.last(RECENT)[0].0;
    Some(f)
}
