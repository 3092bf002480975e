//! Memory that grows with every step.

use crate::diagnose::{finding, history::History, statistics::line};
use crate::recipe::guidance::{row, thousands};
use crate::train::event::{Finding, Severity};

pub const NAME: &str = "memory_creep";

/// The first steps allocate; from there on so many readings over so many steps.
const SKIP: u64 = 10;
const READINGS: usize = 12;
const STEPS: u64 = 50;
/// The newest of them, at most.
const MOST: usize = 400;
/// A rise that counts, over the readings: share of what was held, and in bytes.
const RISE: f64 = 0.05;
const BYTES: f64 = 64.0 * 1024.0 * 1024.0;
const MIB: f64 = 1024.0 * 1024.0;

pub fn look(h: &History, open: Option<&Finding>) -> Option<Finding> {
    let (mut x, mut y) = (Vec::new(), Vec::new());
    let from = h.memory.len().saturating_sub(MOST);
    for (step, used) in h.memory[from..].iter().filter(|(step, _)| *step > SKIP) {
        x.push(*step as f64);
        y.push(*used as f64);
    }
    if let Some(open) = open {
        // It ends when the newer half of the readings since no longer rises.
        let since: Vec<usize> = (0..x.len()).filter(|i| x[*i] > open.since as f64).collect();
        if h.now() < open.since {
            return None;
        }
        if since.len() < READINGS {
            return Some(open.clone());
        }
        let from = since[since.len() - READINGS];
        let flat = line(&x[from..], &y[from..]).is_some_and(|l| l.slope < 2.0 * l.error || l.slope <= 0.0);
        return if flat { None } else { Some(open.clone()) };
    }
    if x.len() < READINGS || x[x.len() - 1] - x[0] < STEPS as f64 {
        return None;
    }
    let whole = line(&x, &y)?;
    let length = x[x.len() - 1] - x[0];
    let rise = whole.slope * length;
    // A longest batch met once is a step, not a slope: each third must rise, none by much less than the whole does.
    let third = x.len() / 3;
    let steady = [0, third, x.len() - third]
        .iter()
        .all(|&from| line(&x[from..from + third], &y[from..from + third]).is_some_and(|l| l.slope > 0.4 * whole.slope));
    if !steady || rise < (RISE * y[0]).max(BYTES) || whole.slope < 4.0 * whole.error {
        return None;
    }
    let mut f = finding(NAME, Severity::Warning, "memory grows with every step", row::COLLAPSE);
    let left = match h.memory_total {
        Some(total) if total as f64 > y[y.len() - 1] => {
            format!("; full in about {} steps", thousands(((total as f64 - y[y.len() - 1]) / whole.slope) as u64))
        }
        _ => String::new(),
    };
    f.evidence = format!("+{:.1} MiB a step over {} steps{left}.", whole.slope / MIB, length as u64);
    f.cause = "Something is kept that should be let go.".into();
    f.since = h.now();
    Some(f)
}
