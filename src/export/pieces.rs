//! Rows made by all cores and written in order.
//!
//! What is in memory at once is one batch of finished rows, however large the tensor.

use crate::{Error, Result};
use rayon::prelude::*;
use std::io::Write;
use std::path::Path;

/// Values a task makes at least; as many as its caches hold.
const PIECE: usize = 1 << 16;
/// Bytes of finished rows that are held before they are written.
const BATCH: usize = 16 << 20;

/// Makes whole rows of a tensor: `(tensor, first row, rows' bytes)`. Called from many threads, for each row once.
pub type Fill<'a> = dyn Fn(usize, usize, &mut [u8]) -> Result<()> + Sync + 'a;

/// `rows` rows of `columns` values and `row` bytes into `file`. `fill(first row, rows' bytes)` makes whole rows, called
/// from many threads, each row once.
pub fn write(
    file: &mut impl Write,
    path: &Path,
    (rows, columns, row): (usize, usize, usize),
    fill: &(dyn Fn(usize, &mut [u8]) -> Result<()> + Sync),
) -> Result<()> {
    let piece = (PIECE / columns.max(1)).max(1);
    let at_once = (BATCH / row.max(1) / piece).max(1) * piece;
    let mut batch = Vec::new();
    for first in (0..rows).step_by(at_once) {
        batch.resize(at_once.min(rows - first) * row, 0);
        batch.par_chunks_mut(piece * row).enumerate().try_for_each(|(n, out)| fill(first + n * piece, out))?;
        file.write_all(&batch).map_err(|e| disk(e, path))?;
    }
    Ok(())
}

/// An error of writing `path`.
pub fn disk(e: std::io::Error, path: &Path) -> Error {
    Error::from(e).at(path.display()).next("is the disk full, or the folder read-only?")
}
