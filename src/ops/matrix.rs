//! A matrix of weights in whatever form it is held: f32 numbers, which may train, or packed and frozen.
//!
//! Layers and the head multiply by it and need not know which it is.

use super::matmul::{matmul, matmul_to_};
use super::packed::Packed;
use super::{embedding, host};
use crate::Result;
use candle_core::Tensor;

#[derive(Debug, Clone)]
pub enum Matrix {
    /// `[rows, cols]`, f32.
    Dense(Tensor),
    Packed(Packed),
}

impl From<Tensor> for Matrix {
    fn from(t: Tensor) -> Self {
        Matrix::Dense(t)
    }
}

impl From<&Tensor> for Matrix {
    fn from(t: &Tensor) -> Self {
        Matrix::Dense(t.clone())
    }
}

impl Matrix {
    /// Rows and columns.
    pub fn dims(&self) -> Result<(usize, usize)> {
        match self {
            Matrix::Dense(t) => host::dims2(t, "matrix"),
            Matrix::Packed(p) => Ok((p.rows(), p.cols())),
        }
    }

    /// `x [T, cols]·Wᵀ` to a new `[T, rows]`: a layer's way forward.
    pub fn times_transposed(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Matrix::Dense(t) => matmul(x, &t.t()?),
            Matrix::Packed(p) => p.times_transposed(x),
        }
    }

    /// `dy [T, rows]·W` to a new `[T, cols]`: a layer's way back.
    pub fn times(&self, dy: &Tensor) -> Result<Tensor> {
        match self {
            Matrix::Dense(t) => matmul(dy, t),
            Matrix::Packed(p) => {
                let rows = dy.dim(0)?;
                let dx = host::tensor(host::room(rows * p.cols()), &[rows, p.cols()])?;
                p.times_to_(&dx, dy)?;
                Ok(dx)
            }
        }
    }

    /// As [`Matrix::times`], into `dx`, which may be a view.
    pub fn times_to_(&self, dx: &Tensor, dy: &Tensor) -> Result<()> {
        match self {
            Matrix::Dense(t) => matmul_to_(dx, 1.0, dy, t),
            Matrix::Packed(p) => p.times_to_(dx, dy),
        }
    }

    /// Rows by number, `[ids, cols]`. A number beyond the last is an error.
    pub fn gather(&self, ids: &[u32]) -> Result<Tensor> {
        match self {
            Matrix::Dense(t) => embedding::gather(t, ids),
            Matrix::Packed(p) => {
                embedding::check(ids, p.rows())?;
                p.gather(ids)
            }
        }
    }

    /// Rows `start..start + rows` as a matrix of their own: a view. Of a packed matrix, whole ones of those stacked in it.
    pub fn narrow(&self, start: usize, rows: usize) -> Result<Matrix> {
        match self {
            Matrix::Dense(t) => Ok(Matrix::Dense(t.narrow(0, start, rows)?)),
            Matrix::Packed(p) => Ok(Matrix::Packed(p.narrow(start, rows)?)),
        }
    }

    /// Look at every row, in order: its number and its numbers.
    pub fn each_row(&self, look: &mut dyn FnMut(usize, &[f32])) -> Result<()> {
        match self {
            Matrix::Dense(t) => {
                let (_, cols) = host::dims2(t, "matrix")?;
                let values = host::read(t, "matrix")?;
                values.chunks_exact(cols.max(1)).enumerate().for_each(|(row, values)| look(row, values));
            }
            Matrix::Packed(p) => {
                let mut values = vec![0f32; p.cols()];
                for row in 0..p.rows() {
                    p.row(row, &mut values);
                    look(row, &values);
                }
            }
        }
        Ok(())
    }

    /// Its numbers: the tensor itself, or all of a packed one in f32.
    pub fn to_tensor(&self) -> Result<Tensor> {
        match self {
            Matrix::Dense(t) => Ok(t.clone()),
            Matrix::Packed(p) => p.to_tensor(),
        }
    }
}
