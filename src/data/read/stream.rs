//! A file's rows in pieces, so that no more of it is in memory than a piece.
//!
//! JSON lines, CSV and Parquet are read piece by piece; a JSON array and a text file are one piece.

use super::{Kind, Raw, csv, json_lines_from, parquet, rows};
use crate::data::{builtin, json};
use crate::{Error, Result};
use serde::de::IgnoredAny;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Bytes of a piece of JSON lines; a line that is longer makes its piece longer.
const PIECE: usize = 8 << 20;

/// Hands every row of a file to `each`, in order, some thousands at a time. `file` is its index among the files read.
///
/// # Errors
/// A file that cannot be read or parsed as a whole; what `each` answers.
pub fn stream(path: &Path, file: u32, each: &mut dyn FnMut(Vec<Raw>) -> Result<()>) -> Result<()> {
    let at = |e: std::io::Error| Error::from(e).at(path.display());
    let kind = Kind::of(path).ok_or_else(|| Error::new("not a kind of file that is read").at(path.display()))?;
    if let Some(text) = builtin::contents(path) {
        return each(rows(path, text.as_bytes(), file)?);
    }
    match kind {
        Kind::Csv => csv::stream(path, file, each),
        Kind::Parquet => parquet::stream(path, file, each),
        Kind::Json | Kind::JsonLines if is_lines(path, kind).map_err(at)? => lines(path, file, each),
        Kind::Json | Kind::JsonLines | Kind::Text => each(rows(path, &std::fs::read(path).map_err(at)?, file)?),
    }
}

/// Whether a file has one object a line, by its beginning; the whole file decides where that leaves a doubt.
fn is_lines(path: &Path, kind: Kind) -> std::io::Result<bool> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut first = Vec::new();
    // A first line that is longer is no row that could be trained on.
    while first.trim_ascii().is_empty() || first[json::bom(&first)..].trim_ascii().is_empty() {
        let before = first.len();
        reader.by_ref().take(64 << 20).read_until(b'\n', &mut first)?;
        if first.len() == before {
            return Ok(false);
        }
    }
    let line = first[json::bom(&first)..].trim_ascii();
    if line.first() == Some(&b'[') {
        return Ok(false);
    }
    Ok(kind == Kind::JsonLines
        || (line.first() == Some(&b'{') && serde_json::from_slice::<IgnoredAny>(line).is_ok() && !at_end(reader)?))
}

/// Whether only white space is left.
fn at_end(mut reader: impl BufRead) -> std::io::Result<bool> {
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(true);
        }
        if !buffer.trim_ascii().is_empty() {
            return Ok(false);
        }
        let n = buffer.len();
        reader.consume(n);
    }
}

fn lines(path: &Path, file: u32, each: &mut dyn FnMut(Vec<Raw>) -> Result<()>) -> Result<()> {
    let at = |e: std::io::Error| Error::from(e).at(path.display());
    let mut reader = File::open(path).map_err(at)?;
    let (mut buffer, mut offset, mut line) = (Vec::new(), 0u64, 1u32);
    loop {
        let before = buffer.len();
        reader.by_ref().take(PIECE as u64).read_to_end(&mut buffer).map_err(at)?;
        let ended = buffer.len() == before;
        let whole = match buffer.iter().rposition(|&b| b == b'\n') {
            _ if ended => buffer.len(),
            Some(n) => n + 1,
            None => continue,
        };
        let rows = json_lines_from(&buffer[..whole], file, line, offset);
        line += buffer[..whole].iter().filter(|&&b| b == b'\n').count() as u32;
        offset += whole as u64;
        buffer.drain(..whole);
        if !rows.is_empty() {
            each(rows)?;
        }
        if ended {
            return Ok(());
        }
    }
}
