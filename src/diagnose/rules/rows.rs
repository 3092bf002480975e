//! Rows that are cut, and rows that come twice.

use crate::diagnose::{
    finding,
    preflight::{Preflight, share},
};
use crate::recipe::Method;
use crate::recipe::guidance::{row, thousands};
use crate::train::event::{Finding, Severity};
use std::collections::HashSet;

pub const TRUNCATED: &str = "truncated";
pub const DUPLICATES: &str = "duplicates";

/// From this share on it is worth a warning. finetop's own threshold, not the guidance's.
const MANY: f64 = 0.05;

pub fn truncated(p: &Preflight<'_>) -> Vec<Finding> {
    // Plain text is cut into consecutive blocks with nothing lost.
    if p.examples.is_empty() || p.recipe.method == Method::Cpt {
        return Vec::new();
    }
    let cut: Vec<u32> = p.examples.iter().filter(|e| e.truncated).map(|e| e.row).collect();
    let limit = p.recipe.model.max_seq_length;
    let source = "the rows as tokenized";
    let Some(first) = cut.first() else {
        let longest = p.examples.iter().map(|e| e.ids.len()).max().unwrap_or(0);
        let mut f = finding(TRUNCATED, Severity::Passed, "no row is cut", source);
        f.evidence = format!("the longest has {longest} of {limit} tokens");
        return vec![f];
    };
    let noun = if p.recipe.method == Method::Dpo { "answers" } else { "rows" };
    let many = cut.len() as f64 / p.examples.len() as f64 > MANY;
    let severity = if many { Severity::Warning } else { Severity::Note };
    let mut f = finding(TRUNCATED, severity, "rows are cut at max_seq_length", source);
    f.evidence =
        format!("{} are longer than {limit} tokens, the first row {first}.", share(cut.len(), p.examples.len(), noun));
    f.cause = "model.max_seq_length is short for these rows: what is cut, and its stop token, is not learnt.".into();
    vec![f]
}

pub fn duplicates(p: &Preflight<'_>) -> Vec<Finding> {
    if p.examples.is_empty() {
        return Vec::new();
    }
    let mut seen = HashSet::with_capacity(p.examples.len());
    let mut again = Vec::new();
    // Of preferences a row is two examples, and an answer may well stand in several rows.
    let each = if p.recipe.method == Method::Dpo { 2 } else { 1 };
    for row in p.examples.chunks(each) {
        let mut hash = blake3::Hasher::new();
        row.iter().flat_map(|e| &e.ids).for_each(|id| {
            hash.update(&id.to_le_bytes());
        });
        if !seen.insert(*hash.finalize().as_bytes()) {
            again.push(row[0].row);
        }
    }
    let near = p.near_duplicates.unwrap_or(0);
    let rows = p.examples.len() / each;
    if again.is_empty() && near == 0 {
        let mut f = finding(DUPLICATES, Severity::Passed, "no row comes twice", row::REPEATS);
        f.evidence = format!("{} rows", thousands(rows as u64));
        return vec![f];
    }
    let many = (again.len() as u64).max(near) as f64 / rows as f64 > MANY;
    let severity = if many { Severity::Warning } else { Severity::Note };
    let mut f = finding(DUPLICATES, severity, "rows come more than once", row::REPEATS);
    let exact = again.first().map(|first| {
        format!("{} repeat an earlier one token for token, the first row {first}.", share(again.len(), rows, "rows"))
    });
    let alike = (near > again.len() as u64)
        .then(|| format!("{} rows repeat an earlier one but for case and punctuation.", thousands(near)));
    f.evidence = [exact, alike].into_iter().flatten().collect::<Vec<_>>().join(" ");
    f.cause = "Repeated rows are learnt by heart first.".into();
    vec![f]
}
