//! The one error of the program: what happened, where, and what to do next.

use std::fmt;

pub type Result<T> = std::result::Result<T, Error>;

/// What kind of ending an error is; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Something failed (exit 1).
    Failed,
    /// Wrong usage, or a recipe that cannot be parsed (exit 2).
    Usage,
    /// Blocked by preflight (exit 3).
    Blocked,
    /// Stopped by a finding (exit 4).
    Finding,
    /// Out of memory (exit 5).
    OutOfMemory,
    /// Stopped and resumable (exit 75).
    Resumable,
    /// Interrupted, with a checkpoint (exit 130).
    Interrupted,
}

impl Kind {
    /// The process exit code of this ending.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Blocked => 3,
            Kind::Finding => 4,
            Kind::OutOfMemory => 5,
            Kind::Resumable => 75,
            Kind::Interrupted => 130,
        }
    }
}

/// What happened, where (file, line, row, tensor), and what to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub kind: Kind,
    pub what: String,
    pub place: Option<String>,
    pub next: Option<String>,
}

impl Error {
    /// An ordinary failure.
    pub fn new(what: impl Into<String>) -> Self {
        Self { kind: Kind::Failed, what: what.into(), place: None, next: None }
    }

    /// Wrong usage, or a recipe that cannot be parsed.
    pub fn usage(what: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, ..Self::new(what) }
    }

    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Where: `file:line`, a row, a tensor. A place that is already there is kept.
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.place.get_or_insert_with(|| place.to_string());
        self
    }

    /// What to do next.
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.what)?;
        if let Some(next) = &self.next {
            write!(f, "\n  → {next}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<candle_core::Error> for Error {
    fn from(e: candle_core::Error) -> Self {
        Self::new(e.to_string())
    }
}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        Self::new(e.to_string())
    }
}

impl From<serde_json::Error> for Error {
    fn from(e: serde_json::Error) -> Self {
        Self::new(e.to_string())
    }
}
