//! CSV: a header that names the columns, then a record a row. Every value is text.

use super::{Columns, Place, Raw, not_utf8};
use crate::{Error, Result};
use csv::{ByteRecord, ReaderBuilder};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Records of a piece.
const PIECE: usize = 4096;

/// Hands every record to `each`, some thousands at a time.
pub fn stream(path: &Path, file: u32, each: &mut dyn FnMut(Vec<Raw>) -> Result<()>) -> Result<()> {
    let at = |e: std::io::Error| Error::from(e).at(path.display());
    let delimiter = delimiter(path).map_err(at)?;
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter)
        .flexible(true)
        .buffer_capacity(1 << 18)
        .from_reader(File::open(path).map_err(at)?);
    let names = names(reader.byte_headers().map_err(|e| broken(&e, path))?);
    let (mut record, mut rows) = (ByteRecord::new(), Vec::new());
    while reader.read_byte_record(&mut record).map_err(|e| broken(&e, path))? {
        let (line, offset) = record.position().map_or((0, 0), |p| (p.line() as u32, p.byte()));
        let place = Place { file, line, offset, len: reader.position().byte().saturating_sub(offset) };
        rows.push(Raw { place, columns: columns(&names, &record), document: false });
        if rows.len() == PIECE {
            each(std::mem::take(&mut rows))?;
        }
    }
    if rows.is_empty() { Ok(()) } else { each(rows) }
}

/// `;` and tabs are met too: what stands most often in the header.
fn delimiter(path: &Path) -> std::io::Result<u8> {
    let mut first = Vec::new();
    BufReader::new(File::open(path)?).take(1 << 16).read_until(b'\n', &mut first)?;
    let count = |d: u8| first.iter().filter(|&&b| b == d).count();
    // The last of equals: a comma.
    Ok([b'\t', b';', b','].into_iter().max_by_key(|&d| count(d)).unwrap_or(b','))
}

/// The names of the header; one that is empty or comes twice gets the number of its column.
fn names(header: &ByteRecord) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (i, name) in header.iter().enumerate() {
        let name = String::from_utf8_lossy(name);
        let name = name.trim_start_matches('\u{feff}').trim().to_string();
        names.push(if name.is_empty() || names.contains(&name) { format!("column_{}", i + 1) } else { name });
    }
    names
}

fn columns(names: &[String], record: &ByteRecord) -> std::result::Result<Columns, String> {
    if record.len() != names.len() {
        return Err(format!(
            "{} fields, but the header names {}; a field with the delimiter or a line break in it stands in quotes",
            record.len(),
            names.len()
        ));
    }
    let field = |(name, bytes): (&String, &[u8])| match std::str::from_utf8(bytes) {
        Ok(text) => Ok((name.clone(), Value::String(text.to_string()))),
        Err(e) => Err(format!("{name}: {}", not_utf8(e.valid_up_to()))),
    };
    names.iter().zip(record).map(field).collect()
}

fn broken(e: &csv::Error, path: &Path) -> Error {
    let line = e.position().map(|p| format!(":{}", p.line())).unwrap_or_default();
    Error::new(format!("not valid CSV: {e}")).at(format!("{}{line}", path.display()))
}
