//! The doctor: one rule a file, what it looks for, the evidence it cites, the fix as a recipe diff.
//!
//! [`Doctor`] watches a run's events; [`preflight`] looks at tokenized rows before the first step. Both are pure:
//! the same events give the same findings, so a doctor is rebuilt by replaying a run's events.
//! Must not know the trainer, files or the screen.

mod doctor;
mod history;
mod preflight;
mod rules;
mod statistics;

#[cfg(test)]
mod tests;

pub use doctor::Doctor;
pub use preflight::{Preflight, blocked, passed, preflight};

use crate::train::event::{Finding, Fix, FixAction, Severity};

/// A finding without a fix; rules add what they know.
fn finding(rule: &str, severity: Severity, title: impl Into<String>, source: &str) -> Finding {
    Finding {
        rule: rule.into(),
        severity,
        title: title.into(),
        evidence: String::new(),
        cause: String::new(),
        fix: None,
        since: 0,
        resolved: false,
        source: source.into(),
    }
}

/// A fix that is a recipe diff alone; its label is the diff.
fn recipe_fix(set: &[(&str, String)]) -> Fix {
    Fix {
        label: set.iter().map(|(k, v)| format!("{k} = {v}")).collect::<Vec<_>>().join(", "),
        set: set.iter().map(|(k, v)| ((*k).to_string(), v.clone())).collect(),
        action: FixAction::Recipe,
    }
}
