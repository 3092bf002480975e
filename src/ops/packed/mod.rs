//! Frozen matrices in the few bits that they are stored in: GGUF's blocks and 16-bit floats, lent from the mapped file, and
//! NF4. Rows are widened as they are needed, a tile at a time; no wide copy of a matrix exists.
//!
//! A matrix may be several, one under the other, of different types. Must not know names, files or layers.

mod blocks;
mod product;
#[cfg(test)]
mod tests;

use super::lent::Lent;
use super::nf4::Nf4;
use crate::{Error, Result};
use candle_core::Tensor;
pub use candle_core::quantized::GgmlDType as Kind;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// Numbers of a tile (4 MiB): what exists of a matrix in f32 at a time.
pub const TILE: usize = 1 << 20;

/// A frozen matrix `[rows, cols]`; a clone shares its bytes.
#[derive(Debug, Clone)]
pub struct Packed {
    rows: usize,
    cols: usize,
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
struct Part {
    rows: usize,
    form: Form,
    /// Rows of a head, where the file interleaves a head's two halves (llama.cpp's q and k).
    head_dim: Option<usize>,
}

#[derive(Debug, Clone)]
enum Form {
    /// Row by row, whole blocks a row.
    Blocks(Kind, Lent),
    Nf4(Arc<Nf4>),
}

impl Packed {
    /// `rows · cols` numbers in blocks of `kind`, row by row.
    ///
    /// # Errors
    /// A type that is not read; rows that are no whole blocks; another number of bytes.
    pub fn blocks(kind: Kind, rows: usize, cols: usize, bytes: Lent) -> Result<Self> {
        let (block, size) = (kind.block_size(), kind.type_size());
        if !blocks::reads(kind) {
            return Err(Error::new(format!("{kind:?} is not read")));
        }
        if rows * cols == 0 || !cols.is_multiple_of(block) || bytes.len() != rows * (cols / block) * size {
            return Err(Error::new(format!(
                "{rows} × {cols} values are no whole {kind:?} rows of {} bytes",
                bytes.len()
            )));
        }
        Ok(Self::one(rows, cols, Form::Blocks(kind, bytes)))
    }

    pub fn nf4(matrix: Nf4) -> Self {
        Self::one(matrix.rows(), matrix.cols(), Form::Nf4(Arc::new(matrix)))
    }

    /// The numbers of a matrix as they are, in f32.
    pub fn floats(matrix: &Tensor) -> Result<Self> {
        let (rows, cols) = matrix.dims2()?;
        let bytes: Vec<u8> = matrix.flatten_all()?.to_vec1::<f32>()?.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::blocks(Kind::F32, rows, cols, bytes.into())
    }

    fn one(rows: usize, cols: usize, form: Form) -> Self {
        Self { rows, cols, parts: vec![Part { rows, form, head_dim: None }] }
    }

    /// The same with rows in Hugging Face's order, where llama.cpp has interleaved each head's two halves.
    ///
    /// # Errors
    /// Rows that are no whole heads.
    pub fn straightened(mut self, head_dim: usize) -> Result<Self> {
        if head_dim == 0 || !head_dim.is_multiple_of(2) || self.parts.iter().any(|p| !p.rows.is_multiple_of(head_dim)) {
            return Err(Error::new(format!("{} rows are no whole heads of {head_dim}", self.rows)));
        }
        self.parts.iter_mut().for_each(|p| p.head_dim = Some(head_dim));
        Ok(self)
    }

    /// Matrices of the same width, one under the other.
    pub fn stack(matrices: Vec<Packed>) -> Result<Self> {
        let cols = matrices.first().map_or(0, |m| m.cols);
        if matrices.iter().any(|m| m.cols != cols) {
            return Err(Error::new("matrices of different widths cannot be one"));
        }
        let rows = matrices.iter().map(|m| m.rows).sum();
        Ok(Self { rows, cols, parts: matrices.into_iter().flat_map(|m| m.parts).collect() })
    }

    /// The stacked matrices that make up rows `start..start + rows`.
    ///
    /// # Errors
    /// Rows that begin or end inside one.
    pub fn narrow(&self, start: usize, rows: usize) -> Result<Self> {
        let (mut at, mut parts) = (0, Vec::new());
        for part in &self.parts {
            if at >= start && at + part.rows <= start + rows {
                parts.push(part.clone());
            }
            at += part.rows;
        }
        match parts.iter().map(|p| p.rows).sum::<usize>() == rows {
            true => Ok(Self { rows, cols: self.cols, parts }),
            false => Err(Error::new(format!("rows {start} to {} are no whole matrices of a stack", start + rows))),
        }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes that it takes, lent or its own.
    pub fn bytes(&self) -> u64 {
        let of = |p: &Part| match &p.form {
            Form::Blocks(_, bytes) => bytes.len() as u64,
            Form::Nf4(m) => m.bytes(),
        };
        self.parts.iter().map(of).sum()
    }

    /// The NF4 matrices that it is made of, where it is.
    pub fn as_nf4(&self) -> Option<Vec<&Nf4>> {
        let of = |p| match p {
            &Part { form: Form::Nf4(ref m), .. } => Some(&**m),
            _ => None,
        };
        self.parts.iter().map(of).collect()
    }

    /// A row in f32 into `out`, which holds `cols` numbers; one that is not there leaves it alone.
    pub fn row(&self, mut row: usize, out: &mut [f32]) {
        for part in &self.parts {
            if row < part.rows {
                let row = part.head_dim.map_or(row, |d| interleaved(row, d));
                return match &part.form {
                    Form::Blocks(kind, bytes) => {
                        let size = bytes.len() / part.rows;
                        blocks::row(*kind, &bytes[row * size..(row + 1) * size], out);
                    }
                    Form::Nf4(m) => m.row(row, out),
                };
            }
            row -= part.rows;
        }
    }

    /// Some rows in f32, one after the other, into `tile`, in parallel.
    pub fn tile(&self, rows: Range<usize>, tile: &mut [f32]) {
        let first = rows.start;
        if self.cols > 0 {
            let rows = tile.par_chunks_exact_mut(self.cols).enumerate();
            rows.with_min_len(4096_usize.div_ceil(self.cols)).for_each(|(i, out)| self.row(first + i, out));
        }
    }

    /// All of it in f32: for tests, and for what is saved.
    pub fn to_tensor(&self) -> Result<Tensor> {
        let mut all = vec![0f32; self.rows * self.cols];
        self.tile(0..self.rows, &mut all);
        super::host::tensor(all, &[self.rows, self.cols])
    }
}

/// Where llama.cpp keeps a row of q or k: inside a head it interleaves the two halves that the rotary embedding pairs.
fn interleaved(row: usize, head_dim: usize) -> usize {
    let (head, within) = (row / head_dim, row % head_dim);
    head * head_dim + 2 * (within % (head_dim / 2)) + within / (head_dim / 2)
}
