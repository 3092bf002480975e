//! Parquet: rows with typed columns, lists and structs; a row group at a time.

use super::{Columns, Place, Raw};
use crate::{Error, Result};
use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::{Field, Row};
use serde_json::{Number, Value};
use std::fs::File;
use std::path::Path;

/// Rows of a piece.
const PIECE: usize = 2048;

/// Hands every row to `each`, some thousands at a time. A row's place counts rows, from 1 as a line and from 0 as an
/// offset: it has no bytes of its own.
pub fn stream(path: &Path, file: u32, each: &mut dyn FnMut(Vec<Raw>) -> Result<()>) -> Result<()> {
    let reader = open(path)?;
    let (mut rows, mut n) = (Vec::new(), 0u64);
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).map_err(|e| broken(&e, path))?;
        for row in group.get_row_iter(None).map_err(|e| broken(&e, path))? {
            let columns = columns(row.map_err(|e| broken(&e, path))?);
            let place = Place { file, line: (n + 1) as u32, offset: n, len: 0 };
            rows.push(Raw { place, columns: Ok(columns), document: false });
            n += 1;
            if rows.len() == PIECE {
                each(std::mem::take(&mut rows))?;
            }
        }
    }
    if rows.is_empty() { Ok(()) } else { each(rows) }
}

/// How many rows a file has, by its footer.
pub fn count(path: &Path) -> Result<u64> {
    Ok(open(path)?.metadata().file_metadata().num_rows().max(0) as u64)
}

/// The columns of row `n`, counted from 0; `None` where there are fewer.
pub fn row(path: &Path, n: u64) -> Result<Option<Columns>> {
    let reader = open(path)?;
    let mut before = 0u64;
    for i in 0..reader.num_row_groups() {
        let group = reader.get_row_group(i).map_err(|e| broken(&e, path))?;
        let rows = group.metadata().num_rows().max(0) as u64;
        if n < before + rows {
            let mut rows = group.get_row_iter(None).map_err(|e| broken(&e, path))?;
            let found = rows.nth((n - before) as usize).transpose().map_err(|e| broken(&e, path))?;
            return Ok(found.map(columns));
        }
        before += rows;
    }
    Ok(None)
}

fn open(path: &Path) -> Result<SerializedFileReader<File>> {
    let file = File::open(path).map_err(|e| Error::from(e).at(path.display()))?;
    SerializedFileReader::new(file).map_err(|e| broken(&e, path))
}

fn broken(e: &ParquetError, path: &Path) -> Error {
    let next = match e.to_string() {
        text if text.contains("compress") || text.contains("feature") => {
            "files compressed with snappy or zstd, or not at all, are read: write it again with one of these"
        }
        _ => "fetch or write the file again",
    };
    Error::new(format!("not a Parquet file that can be read: {e}")).at(path.display()).next(next)
}

fn columns(row: Row) -> Columns {
    row.into_columns().into_iter().map(|(name, field)| (name, value(&field))).collect()
}

/// A field as JSON; what has no counterpart there (raw bytes, as images are) is null.
fn value(field: &Field) -> Value {
    let float = |f: f64| Number::from_f64(f).map_or(Value::Null, Value::Number);
    match field {
        Field::Null => Value::Null,
        Field::Bool(b) => (*b).into(),
        Field::Byte(n) => (*n).into(),
        Field::Short(n) => (*n).into(),
        Field::Int(n) | Field::Date(n) | Field::TimeMillis(n) => (*n).into(),
        Field::Long(n) | Field::TimeMicros(n) | Field::TimestampMillis(n) | Field::TimestampMicros(n) => (*n).into(),
        Field::UByte(n) => (*n).into(),
        Field::UShort(n) => (*n).into(),
        Field::UInt(n) => (*n).into(),
        Field::ULong(n) => (*n).into(),
        Field::Float16(f) => float(f64::from(f.to_f32())),
        Field::Float(f) => float(f64::from(*f)),
        Field::Double(f) => float(*f),
        Field::Str(s) => s.as_str().into(),
        // Some writers leave out that a text is one.
        Field::Bytes(b) => std::str::from_utf8(b.data()).map_or(Value::Null, Value::from),
        Field::Decimal(_) => field.to_string().into(),
        Field::Group(row) => {
            row.get_column_iter().map(|(name, f)| (name.clone(), value(f))).collect::<Columns>().into()
        }
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        Field::MapInternal(map) => {
            let key = |f: &Field| match value(f) {
                Value::String(s) => s,
                other => other.to_string(),
            };
            map.entries().iter().map(|(k, v)| (key(k), value(v))).collect::<Columns>().into()
        }
    }
}
