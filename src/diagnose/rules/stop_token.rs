//! Whether the model is taught to stop: the token that ends a turn must carry a label.

use crate::data::batch::Example;
use crate::diagnose::{finding, preflight::Preflight};
use crate::recipe::Method;
use crate::recipe::guidance::{row, thousands};
use crate::train::event::{Finding, Severity};

pub const NAME: &str = "stop_token";

/// Below this share of turns something is wrong with a part of the rows.
const NEARLY_ALL: f64 = 0.99;

pub fn look(p: &Preflight<'_>) -> Vec<Finding> {
    // What GRPO trains on is drawn, and ends as the model ends it.
    if p.recipe.method == Method::Grpo {
        return Vec::new();
    }
    let (mut taught, mut turns) = (0u64, 0u64);
    let mut untaught = None;
    for e in p.examples {
        let (good, all) = match p.recipe.method {
            Method::Sft | Method::Dpo | Method::Grpo => turn_ends(e, p.end_ids),
            // A document's blocks are separate examples; those that hold its end are the ones to count.
            Method::Cpt => text_end(e, p.end_ids),
        };
        taught += good;
        turns += all;
        if good < all && untaught.is_none() {
            untaught = Some(e);
        }
    }
    if p.end_ids.is_empty() {
        let mut f = finding(NAME, Severity::Warning, "no end token is known", row::STOP);
        f.evidence = "Neither the tokenizer nor the model's configuration names one.".into();
        return vec![f];
    }
    if turns == 0 {
        // Every turn is cut, or none is trained on (which `mask_all` says).
        if p.examples.iter().all(|e| !e.trained.contains(&true)) {
            return Vec::new();
        }
        let mut f = finding(NAME, Severity::Error, "stop token untrained", row::STOP);
        f.evidence = "Every row is cut before its last turn ends.".into();
        f.cause = "max_seq_length is shorter than every row.".into();
        return vec![f];
    }
    let noun = if matches!(p.recipe.method, Method::Sft | Method::Dpo) { "turns" } else { "texts" };
    let counted = format!("{}/{} {noun}", thousands(taught), thousands(turns));
    if taught == turns {
        let mut f = finding(NAME, Severity::Passed, "stop token trained", row::STOP);
        f.evidence = counted;
        return vec![f];
    }
    let share = taught as f64 / turns as f64;
    let severity = match taught {
        0 => Severity::Error,
        _ if share < NEARLY_ALL => Severity::Warning,
        _ => Severity::Note,
    };
    let title = if taught == 0 { "stop token untrained" } else { "stop token untrained in some rows" };
    let mut f = finding(NAME, severity, title, row::STOP);
    f.evidence = match untaught {
        Some(e) => format!("{counted}; row {} ends in {}.", e.row, tail(e, p)),
        None => counted,
    };
    f.cause = "Masking or template error: the token that ends the turn has no label, or is not written.".into();
    vec![f]
}

/// (turns whose terminator carries a label, turns) of a chat. A turn is a run of labels; a truncated row's last run,
/// where it reaches the end, has lost its terminator and does not count.
fn turn_ends(e: &Example, end_ids: &[u32]) -> (u64, u64) {
    let (mut taught, mut turns) = (0, 0);
    let mut i = 1;
    while i < e.ids.len() {
        if !Preflight::is_label(e, i) {
            i += 1;
            continue;
        }
        let start = i;
        while i < e.ids.len() && Preflight::is_label(e, i) {
            i += 1;
        }
        if e.truncated && i == e.ids.len() {
            continue;
        }
        turns += 1;
        // The terminator, perhaps with the template's newline after it.
        let tail = &e.ids[start.max(i.saturating_sub(3))..i];
        taught += u64::from(tail.iter().any(|id| end_ids.contains(id)));
    }
    (taught, turns)
}

/// (ends that carry a label, ends) of a plain text.
fn text_end(e: &Example, end_ids: &[u32]) -> (u64, u64) {
    let ends: Vec<usize> = (0..e.ids.len()).filter(|&i| end_ids.contains(&e.ids[i])).collect();
    match ends.last() {
        // A block that goes on in the next example has no end of its own.
        None if e.truncated || e.ids.is_empty() => (0, 0),
        None => (0, 1),
        Some(&i) => (u64::from(Preflight::is_label(e, i)), 1),
    }
}

/// The last tokens of a row, as text.
fn tail(e: &Example, p: &Preflight<'_>) -> String {
    format!("{:?}", (p.decode)(&e.ids[e.ids.len().saturating_sub(4)..]))
}
