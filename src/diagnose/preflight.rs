//! Looking at tokenized rows before the first step.

use super::rules;
use crate::data::batch::Example;
use crate::recipe::Recipe;
use crate::recipe::guidance::thousands;
use crate::train::event::{Finding, Severity};
use crate::{Error, Kind};

/// What is looked at: plain data, and two closures over the tokenizer.
pub struct Preflight<'a> {
    pub recipe: &'a Recipe,
    /// The training examples as they will be trained on.
    pub examples: &'a [Example],
    /// Ids that end a turn or a text (`eos_token_ids`, end of turn).
    pub end_ids: &'a [u32],
    /// Id that begins a text, where the model has one.
    pub bos_id: Option<u32>,
    /// Ids to text, special tokens shown.
    pub decode: &'a dyn Fn(&[u32]) -> String,
    /// Text to ids, nothing added.
    pub encode: &'a dyn Fn(&str) -> Vec<u32>,
    /// The template in use; none for plain text.
    pub template: Option<&'a str>,
    /// The model's own template.
    pub own_template: Option<&'a str>,
    /// Numbers in the model.
    pub parameters: Option<u64>,
    /// Rows that repeat an earlier one but for case, punctuation and spacing, where they were counted.
    pub near_duplicates: Option<u64>,
}

impl Preflight<'_> {
    /// Whether `example.ids[i]` is a target (the first id of an example never is).
    pub(super) fn is_label(example: &Example, i: usize) -> bool {
        i > 0 && example.trained.get(i).copied().unwrap_or(false)
    }
}

/// All findings, those that hold as `Severity::Passed`. A finding of `Severity::Error` blocks the start; one whose rule
/// is in `check.allow` is a warning that says so.
pub fn preflight(p: &Preflight<'_>) -> Vec<Finding> {
    let mut found: Vec<Finding> = rules::BEFORE.iter().flat_map(|look| look(p)).collect();
    for f in &mut found {
        if f.severity == Severity::Error && p.recipe.check.allow.contains(&f.rule) {
            f.severity = Severity::Warning;
            f.evidence.push_str(" Allowed by check.allow.");
        }
    }
    found
}

/// What holds, as a run's `Start` event lists it: (rule, title, evidence).
pub fn passed(findings: &[Finding]) -> Vec<(String, String, String)> {
    let held = findings.iter().filter(|f| f.severity == Severity::Passed);
    held.map(|f| (f.rule.clone(), f.title.clone(), f.evidence.clone())).collect()
}

/// The error that ends a run before its start, if a finding blocks it.
pub fn blocked(findings: &[Finding]) -> Option<Error> {
    let errors: Vec<_> = findings.iter().filter(|f| f.severity == Severity::Error && !f.resolved).collect();
    let first = errors.first()?;
    let what: Vec<_> = errors.iter().map(|f| format!("{}: {}", f.title, f.evidence)).collect();
    let rules: Vec<_> = errors.iter().map(|f| format!("\"{}\"", f.rule)).collect();
    let mend = if first.cause.is_empty() { String::new() } else { format!("{} ", first.cause) };
    let next = format!("{mend}To start all the same: check.allow = [{}]", rules.join(", "));
    Some(Error::new(format!("blocked by preflight: {}", what.join("; "))).kind(Kind::Blocked).next(next))
}

/// `12 of 41,207 rows (0.0 %)`.
pub(super) fn share(part: usize, whole: usize, noun: &str) -> String {
    let percent = 100.0 * part as f64 / whole.max(1) as f64;
    format!("{} of {} {noun} ({percent:.1} %)", thousands(part as u64), thousands(whole as u64))
}
