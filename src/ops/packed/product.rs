//! Products with a packed matrix: `x·Wᵀ` and `dy·W`, over tiles of its rows in their order, so that a result is the same to the
//! bit whatever the threads do.

use super::{Packed, TILE};
use crate::Result;
use crate::ops::host::{self, Shared, Strided};
use crate::ops::matmul::{FEW_ROWS, PIECE, dot, product};
use candle_core::Tensor;
use rayon::prelude::*;
use std::cell::Cell;
use std::ops::Range;

const OP: &str = "matmul";

thread_local! {
    /// Room that is used again. Taken out while it is used: a thread that waits may be given another product meanwhile.
    static ROOM: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

fn with_room<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut room = ROOM.take();
    if room.len() < len {
        room = host::room(len);
    }
    let out = f(&mut room[..len]);
    ROOM.set(room);
    out
}

impl Packed {
    /// `x [T, cols]·Wᵀ` to a new `[T, rows]`.
    pub fn times_transposed(&self, x: &Tensor) -> Result<Tensor> {
        let (x, lx) = host::read_matrix(x, OP)?;
        host::same(OP, "the input", &[lx.cols], &[self.cols])?;
        let mut y = host::room(lx.rows * self.rows);
        let ly = Strided { rows: lx.rows, cols: self.rows, row: self.rows, col: 1 };
        if lx.rows <= FEW_ROWS && lx.col == 1 {
            self.few_rows(&mut y, ly, (&x, lx));
        } else {
            self.tiles(|rows, tile| {
                let lt = Strided { rows: self.cols, cols: rows.len(), row: 1, col: self.cols };
                let ly = Strided { cols: rows.len(), ..ly };
                product(&mut y[rows.start..], ly, false, 1.0, (&x, lx), (tile, lt))
            })?;
        }
        host::tensor(y, &[ly.rows, ly.cols])
    }

    /// `dx = dy [T, rows]·W` into `dx [T, cols]`, which may be a view.
    pub fn times_to_(&self, dx: &Tensor, dy: &Tensor) -> Result<()> {
        let (dy, ly) = host::read_matrix(dy, OP)?;
        host::same(OP, "the gradient", &[ly.cols], &[self.rows])?;
        host::write_matrix(dx, OP, |dx, lx| {
            self.tiles(|rows, tile| {
                let ly = Strided { cols: rows.len(), ..ly };
                let lt = Strided { rows: rows.len(), cols: self.cols, row: self.cols, col: 1 };
                let from = if ly.rows == 0 { &dy[..0] } else { &dy[rows.start * ly.col..] };
                product(dx, lx, rows.start > 0, 1.0, (from, ly), (tile, lt))
            })
        })
    }

    /// Give the rows, a tile at a time.
    fn tiles(&self, mut f: impl FnMut(Range<usize>, &[f32]) -> Result<()>) -> Result<()> {
        let most = (TILE / self.cols.max(1)).clamp(1, self.rows.max(1));
        with_room(most * self.cols, |room| {
            for start in (0..self.rows).step_by(most) {
                let rows = start..(start + most).min(self.rows);
                let tile = &mut room[..rows.len() * self.cols];
                self.tile(rows.clone(), tile);
                f(rows, tile)?;
            }
            Ok(())
        })
    }

    /// As `matmul::few_rows`: each row of weights is widened once, where it is multiplied.
    fn few_rows(&self, y: &mut [f32], ly: Strided, (x, lx): (&[f32], Strided)) {
        let out = Shared::new(y);
        (0..self.rows.div_ceil(PIECE)).into_par_iter().for_each(|piece| {
            with_room(self.cols, |w| {
                for j in piece * PIECE..((piece + 1) * PIECE).min(self.rows) {
                    self.row(j, w);
                    for i in 0..ly.rows {
                        // SAFETY: (i, j) lies in `y`, and only this task has this j.
                        let place = unsafe { out.slice(i * ly.row + j, 1) };
                        place[0] = dot(&x[i * lx.row..i * lx.row + lx.cols], w);
                    }
                }
            });
        });
    }

    /// Rows picked by number, `[ids, cols]`; the ids are below the number of rows.
    pub(in crate::ops) fn gather(&self, ids: &[u32]) -> Result<Tensor> {
        let mut y = host::room(ids.len() * self.cols);
        if self.cols > 0 {
            y.par_chunks_exact_mut(self.cols).zip(ids).for_each(|(out, &id)| self.row(id as usize, out));
        }
        host::tensor(y, &[ids.len(), self.cols])
    }
}
