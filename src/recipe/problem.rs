//! What is wrong with a recipe, and where. All problems of a file are kept, not only the first.

use crate::{Error, Kind, Result};
use std::fmt;
use std::ops::Range;
use toml_edit::Document;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Line and column count from 1, in characters.
    File { file: String, line: usize, column: usize },
    /// Given on the command line or while editing, as written: `--set train.seed=1`.
    Set(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Place::Set(text) => f.write_str(text),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub place: Place,
    /// The dotted key as written; empty for a syntax error.
    pub key: String,
    pub what: String,
    pub next: String,
}

impl Problem {
    /// The line in the file, counting from 1.
    pub fn line(&self) -> Option<usize> {
        match self.place {
            Place::File { line, .. } => Some(line),
            Place::Set(_) => None,
        }
    }
}

/// All problems as the one error of the program: printed, each has its place and what to do.
pub fn error(problems: &[Problem]) -> Error {
    let mut what = String::new();
    for (i, p) in problems.iter().enumerate() {
        if i > 0 {
            what.push_str(&format!("\n{}: ", p.place));
        }
        what.push_str(&p.what);
        if i + 1 < problems.len() {
            what.push_str(&format!("\n  → {}", p.next));
        }
    }
    let error = Error::new(what).kind(Kind::Usage);
    match (problems.first(), problems.last()) {
        (Some(first), Some(last)) => error.at(&first.place).next(last.next.clone()),
        _ => error,
    }
}

/// Turns byte offsets of a TOML text into places.
#[derive(Debug, Clone, Copy)]
pub struct Locator<'a> {
    pub file: &'a str,
    pub text: &'a str,
}

impl Locator<'_> {
    /// The text as TOML, with the places of all that is in it.
    ///
    /// # Errors
    /// `Kind::Usage`: it is none; with the place.
    pub fn document(&self) -> Result<Document<String>> {
        Document::parse(self.text.to_string())
            .map_err(|e| Error::usage(format!("this is not TOML: {}", e.message().trim())).at(self.place(e.span())))
    }

    /// The place of a span's start; without a span, the start of the file.
    pub fn place(&self, span: Option<Range<usize>>) -> Place {
        let at = span.map_or(0, |s| s.start).min(self.text.len());
        let before = self.text.get(..at).unwrap_or("");
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
        Place::File { file: self.file.to_string(), line, column }
    }
}
