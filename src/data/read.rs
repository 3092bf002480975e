//! Files into rows: JSON, JSON lines, CSV, Parquet, text. Every row keeps its number, file and line.
//!
//! Knows nothing of what the columns mean.

mod csv;
pub mod parquet;
mod stream;

pub use stream::stream;

use super::files::Kind;
use super::json;
use crate::{Error, Result};
use rayon::prelude::*;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Where a row stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Index among the files read.
    pub file: u32,
    /// 1-based.
    pub line: u32,
    /// Byte range in the file.
    pub offset: u64,
    pub len: u64,
}

/// A row's columns.
pub type Columns = Map<String, Value>;

/// A row as it stands in its file.
#[derive(Debug, Clone, PartialEq)]
pub struct Raw {
    pub place: Place,
    /// Its columns, or what is wrong with it.
    pub columns: std::result::Result<Columns, String>,
    /// A whole text file; its only column is `text`.
    pub document: bool,
}

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Source {
    pub path: PathBuf,
    pub rows: u64,
    pub bytes: u64,
    /// Hash of its contents, hexadecimal.
    pub blake3: String,
}

/// The rows of one file of JSON or text that is in memory. `file` is its index among the files read.
///
/// # Errors
/// Where the file as a whole cannot be parsed (a JSON array that is cut off, say); with line and column.
pub fn rows(path: &Path, bytes: &[u8], file: u32) -> Result<Vec<Raw>> {
    let kind = Kind::of(path).ok_or_else(|| Error::new("not a kind of file that is read").at(path.display()))?;
    match kind {
        Kind::Csv | Kind::Parquet => Err(Error::new("this kind of file is read from disk only").at(path.display())),
        Kind::Text => Ok(vec![document(bytes, file)]),
        Kind::Json | Kind::JsonLines => {
            if json::is_one_value(bytes, kind == Kind::Json) {
                whole_json(bytes, file).map_err(|e| e.at(path.display()))
            } else {
                Ok(json_lines(bytes, file))
            }
        }
    }
}

/// A text file: one document. CRLF becomes LF, a byte-order mark goes, as Python reads text with `utf-8-sig`.
fn document(bytes: &[u8], file: u32) -> Raw {
    let start = json::bom(bytes);
    let place = Place { file, line: 1, offset: start as u64, len: (bytes.len() - start) as u64 };
    let columns = match std::str::from_utf8(&bytes[start..]) {
        Err(e) => Err(not_utf8(start + e.valid_up_to())),
        Ok(text) if text.trim().is_empty() => Err("the file is empty; expected text".to_string()),
        Ok(text) => Ok(Map::from_iter([("text".to_string(), Value::String(text.replace("\r\n", "\n")))])),
    };
    Raw { place, columns, document: true }
}

/// A JSON array of objects, or an object whose `data` is one.
fn whole_json(bytes: &[u8], file: u32) -> Result<Vec<Raw>> {
    let start = json::bom(bytes);
    let text = std::str::from_utf8(&bytes[start..])
        .map_err(|e| Error::new(not_utf8(start + e.valid_up_to())).next("save the file as UTF-8"))?;
    let elements = json::elements(text)?;
    Ok(elements
        .into_iter()
        .map(|e| Raw {
            place: Place { file, line: e.line, offset: (start + e.range.start) as u64, len: e.range.len() as u64 },
            columns: object(e.value),
            document: false,
        })
        .collect())
}

/// One JSON object a line; blank lines are no rows.
fn json_lines(bytes: &[u8], file: u32) -> Vec<Raw> {
    json_lines_from(bytes, file, 1, 0)
}

/// As [`json_lines`], for a piece that begins at line `number` and byte `base` of its file.
fn json_lines_from(bytes: &[u8], file: u32, mut number: u32, base: u64) -> Vec<Raw> {
    let mut lines = Vec::new();
    let mut start = if base == 0 { json::bom(bytes) } else { 0 };
    while start < bytes.len() {
        let end = bytes[start..].iter().position(|&b| b == b'\n').map_or(bytes.len(), |n| start + n);
        let line = bytes[start..end].trim_ascii();
        if !line.is_empty() {
            let lead = bytes[start..end].len() - bytes[start..end].trim_ascii_start().len();
            lines.push((number, start + lead, line));
        }
        start = end + 1;
        number += 1;
    }
    lines
        .into_par_iter()
        .map(|(line, offset, bytes)| {
            let columns = match std::str::from_utf8(bytes) {
                Err(e) => Err(not_utf8(base as usize + offset + e.valid_up_to())),
                Ok(text) => match serde_json::from_str::<Value>(text) {
                    Ok(value) => object(value),
                    Err(e) => Err(format!(
                        "not valid JSON at column {}: {}; expected one object a line",
                        e.column(),
                        words(&e)
                    )),
                },
            };
            Raw {
                place: Place { file, line, offset: base + offset as u64, len: bytes.len() as u64 },
                columns,
                document: false,
            }
        })
        .collect()
}

fn object(value: Value) -> std::result::Result<Columns, String> {
    match value {
        Value::Object(map) => Ok(map),
        other => Err(format!("expected an object with named columns, found {}", json::name(&other))),
    }
}

fn not_utf8(offset: usize) -> String {
    format!("not valid UTF-8 at byte {offset}")
}

/// serde_json's message without its own "at line 1 column 7".
fn words(e: &serde_json::Error) -> String {
    let text = e.to_string();
    text.split(" at line ").next().unwrap_or(&text).to_string()
}

/// Finds a row's text again, by its number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RowIndex {
    pub files: Vec<PathBuf>,
    pub places: Vec<Place>,
}

/// A row as it stands in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowText {
    pub file: PathBuf,
    pub line: u32,
    pub text: String,
}

impl RowIndex {
    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The row's own bytes, read from its file now.
    ///
    /// # Errors
    /// No such row; a file that is gone or shorter than it was.
    pub fn text(&self, row: u32) -> Result<RowText> {
        let place = self.places.get(row as usize).ok_or_else(|| {
            Error::new(format!("there is no row {row}; rows are 0 to {}", self.len().saturating_sub(1)))
        })?;
        let path = self
            .files
            .get(place.file as usize)
            .ok_or_else(|| Error::new(format!("row {row} belongs to no file that was read")))?;
        if Kind::of(path) == Some(Kind::Parquet) {
            let columns = parquet::row(path, place.offset)?
                .ok_or_else(|| Error::new(format!("row {row} is gone: the file has fewer")).at(path.display()))?;
            return Ok(RowText { file: path.clone(), line: place.line, text: Value::Object(columns).to_string() });
        }
        let bytes = bytes_at(path, place)
            .map_err(|e| Error::new(format!("row {row} cannot be read again: {e}")).at(path.display()))?;
        if (bytes.len() as u64) < place.len {
            return Err(
                Error::new(format!("row {row} is gone: the file is shorter than when it was read")).at(path.display())
            );
        }
        Ok(RowText { file: path.clone(), line: place.line, text: String::from_utf8_lossy(&bytes).into_owned() })
    }
}

/// The bytes of a place, or as many of them as there still are.
fn bytes_at(path: &Path, place: &Place) -> std::io::Result<Vec<u8>> {
    use std::io::{Read, Seek, SeekFrom};
    if let Some(text) = super::builtin::contents(path) {
        let start = (place.offset as usize).min(text.len());
        let end = (start + place.len as usize).min(text.len());
        return Ok(text.as_bytes()[start..end].to_vec());
    }
    let mut file = std::fs::File::open(path)?;
    file.seek(SeekFrom::Start(place.offset))?;
    let mut bytes = Vec::new();
    file.take(place.len).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
