//! Rows that cannot be used: where they are and what was expected there. Never dropped without a word.

use crate::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// A row that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadRow {
    pub file: PathBuf,
    /// 1-based line where the row begins.
    pub line: u32,
    /// Row number in reading order, 0-based.
    pub row: u32,
    /// What is wrong and what was expected.
    pub problem: String,
}

impl fmt::Display for BadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} (row {}): {}", self.file.display(), self.line, self.row, self.problem)
    }
}

/// Listed in an error, and kept in a summary.
pub const LISTED_IN_ERROR: usize = 5;

/// An error when more than `max_share` of `rows` are bad. `first` are the first of the `bad` ones, to be listed.
pub fn enforce(first: &[BadRow], bad: usize, rows: usize, max_share: f64) -> Result<()> {
    if bad == 0 || bad as f64 <= max_share * rows as f64 {
        return Ok(());
    }
    let mut what = format!(
        "{} of {} rows cannot be used ({:.1} %, data.max_bad_rows allows {} %):",
        bad,
        rows,
        100.0 * bad as f64 / rows as f64,
        trim_number(100.0 * max_share),
    );
    for b in first.iter().take(LISTED_IN_ERROR) {
        what.push_str(&format!("\n  {b}"));
    }
    if bad > LISTED_IN_ERROR {
        what.push_str(&format!("\n  and {} more", bad - LISTED_IN_ERROR));
    }
    let share = (1000.0 * bad as f64 / rows as f64).ceil() / 1000.0;
    Err(Error::new(what)
        .kind(Kind::Blocked)
        .next(format!("mend these rows, or leave them out knowingly with data.max_bad_rows = {share}")))
}

/// `1` for 1.0, `0.5` for 0.5.
fn trim_number(x: f64) -> String {
    let s = format!("{x:.3}");
    s.trim_end_matches('0').trim_end_matches('.').to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(n: usize) -> Vec<BadRow> {
        (0..n)
            .map(|i| BadRow { file: "a.jsonl".into(), line: i as u32 + 1, row: i as u32, problem: "empty".into() })
            .collect()
    }

    #[test]
    fn up_to_the_allowed_share_bad_rows_do_not_stop_the_read() {
        assert!(enforce(&bad(1), 1, 100, 0.01).is_ok());
        assert!(enforce(&[], 0, 0, 0.0).is_ok());
    }

    #[test]
    fn above_the_allowed_share_the_first_bad_rows_are_listed_with_file_line_and_row() {
        let e = enforce(&bad(7), 7, 100, 0.01).unwrap_err();
        assert_eq!(e.kind, Kind::Blocked);
        let text = e.to_string();
        assert!(text.contains("7 of 100 rows"), "{text}");
        assert!(text.contains("a.jsonl:1 (row 0): empty"), "{text}");
        assert!(text.contains("and 2 more"), "{text}");
        assert!(text.contains("data.max_bad_rows = 0.07"), "{text}");
        assert!(!text.contains("a.jsonl:6"), "{text}");
    }
}
