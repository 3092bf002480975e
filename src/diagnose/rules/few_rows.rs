//! Too few rows to learn from.

use crate::diagnose::{finding, preflight::Preflight};
use crate::recipe::Method;
use crate::recipe::guidance::{FEW_ROWS, row, thousands};
use crate::train::event::{Finding, Severity};
use std::collections::HashSet;

pub const NAME: &str = "few_rows";

pub fn look(p: &Preflight<'_>) -> Vec<Finding> {
    // One text file is one row of plain text, however long.
    if p.recipe.method == Method::Cpt {
        return Vec::new();
    }
    // A chat may be several examples.
    let rows = p.examples.iter().map(|e| e.row).collect::<HashSet<_>>().len() as u64;
    let few = rows < FEW_ROWS;
    let (severity, title) =
        if few { (Severity::Warning, "few rows") } else { (Severity::Passed, "enough rows to begin with") };
    let mut f = finding(NAME, severity, title, row::EPOCHS);
    f.evidence = format!("{} rows; under {FEW_ROWS} may be too few to learn from", thousands(rows));
    vec![f]
}
