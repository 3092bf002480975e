//! Rows in which nothing is trained on.

use crate::diagnose::{
    finding,
    preflight::{Preflight, share},
};
use crate::recipe::Method;
use crate::recipe::guidance::{row, thousands};
use crate::train::event::{Finding, Severity};

pub const NAME: &str = "mask_all";

/// From this share on, of rows without a label, the start is blocked: the loss would be of a minority.
const BLOCKS: f64 = 0.5;

pub fn look(p: &Preflight<'_>) -> Vec<Finding> {
    // Prompts have no labels: what is drawn after them is trained on.
    if p.recipe.method == Method::Grpo {
        return Vec::new();
    }
    let rows = p.examples.len();
    let labels = |e: &crate::data::batch::Example| (0..e.ids.len()).filter(|&i| Preflight::is_label(e, i)).count();
    let counts: Vec<usize> = p.examples.iter().map(labels).collect();
    let empty: Vec<u32> = p.examples.iter().zip(&counts).filter(|(_, n)| **n == 0).map(|(e, _)| e.row).collect();
    let total: usize = counts.iter().sum();
    let tokens: usize = p.examples.iter().map(|e| e.ids.len()).sum();
    if rows == 0 || total == 0 {
        let mut f = finding(NAME, Severity::Error, "no token is trained on", row::STALLED);
        f.evidence = format!("0 labels in {} tokens of {} rows.", thousands(tokens as u64), thousands(rows as u64));
        f.cause = "The mask or the chat template is wrong, or max_seq_length cuts every answer off.".into();
        return vec![f];
    }
    let part = empty.len() as f64 / rows as f64;
    let evidence = format!(
        "{} labels in {} tokens ({:.0} %)",
        thousands(total as u64),
        thousands(tokens as u64),
        100.0 * total as f64 / tokens as f64
    );
    if empty.is_empty() {
        let mut f = finding(NAME, Severity::Passed, "every row is trained on", row::STALLED);
        f.evidence = evidence;
        return vec![f];
    }
    let severity = match part {
        _ if part >= BLOCKS => Severity::Error,
        _ if part > p.recipe.data.max_bad_rows => Severity::Warning,
        _ => Severity::Note,
    };
    let mut f = finding(NAME, severity, "rows without a token to train on", row::STALLED);
    f.evidence = format!("{}, the first row {}; {evidence}.", share(empty.len(), rows, "rows"), empty[0]);
    let cut = p.examples.iter().zip(&counts).filter(|(e, n)| **n == 0 && e.truncated).count();
    f.cause = if 2 * cut >= empty.len() {
        "They are cut at max_seq_length before the answer begins.".into()
    } else {
        "The mask or the chat template is wrong, or their answers are empty.".into()
    };
    vec![f]
}
