//! Products by a number for each column, and their gradients: what DoRA's magnitudes are.

use super::host;
use crate::{Error, Result};
use candle_core::Tensor;
use rayon::prelude::*;

/// Rows that a task sums: fixed pieces, combined in index order.
const ROWS: usize = 64;

/// `y [T, n]` (any stride between rows) times `g [n]`, column by column, in place.
pub fn scale_columns_(y: &Tensor, g: &[f32]) -> Result<()> {
    rows_(y, "column scale", g.len(), |_, y| y.iter_mut().zip(g).for_each(|(y, g)| *y *= g))
}

/// `y [T, n]` (any stride between rows) gains the contiguous `b [T, n]`, in place.
pub fn add_matrix_(y: &Tensor, b: &Tensor) -> Result<()> {
    const OP: &str = "matrix add";
    host::same(OP, "the addend", b.dims(), y.dims())?;
    let (_, n) = host::dims2(b, OP)?;
    let b = host::read(b, OP)?;
    let b: &[f32] = &b;
    rows_(y, OP, n, |i, y| y.iter_mut().zip(&b[i * n..(i + 1) * n]).for_each(|(y, b)| *y += b))
}

/// Do `f(row number, row)` for every row of a matrix of `n` columns.
fn rows_(y: &Tensor, op: &'static str, n: usize, f: impl Fn(usize, &mut [f32]) + Sync) -> Result<()> {
    host::write_matrix(y, op, |y, m| {
        if m.cols != n || (m.col != 1 && n > 1) {
            return Err(Error::new(format!("{op} needs rows of {n} numbers, but was given {}", m.cols)));
        }
        if n > 0 && m.rows > 0 {
            y.par_chunks_mut(m.row.max(n)).enumerate().for_each(|(i, row)| f(i, &mut row[..n]));
        }
        Ok(())
    })
}

/// The gradient of [`scale_columns_`] by its factors, each divided by a length: `dm[j] += Σ_t dy[t, j] · u[t, j] / lengths[j]`.
/// `dy` and `u` are contiguous.
pub fn columns_product_sum_(dm: &Tensor, dy: &Tensor, u: &Tensor, lengths: &[f32]) -> Result<()> {
    const OP: &str = "column products";
    let (_, n) = host::dims2(dy, OP)?;
    host::same(OP, "the other factor", u.dims(), dy.dims())?;
    host::same(OP, "the gradient", dm.dims(), &[n])?;
    host::same(OP, "the lengths", &[lengths.len()], &[n])?;
    let (dy, u) = (host::read(dy, OP)?, host::read(u, OP)?);
    let (dy, u): (&[f32], &[f32]) = (&dy, &u);
    let piece = (ROWS * n).max(1);
    let pieces: Vec<Vec<f64>> = dy
        .par_chunks(piece)
        .zip(u.par_chunks(piece))
        .map(|(dy, u)| {
            let mut sum = vec![0f64; n];
            for (dy, u) in dy.chunks_exact(n.max(1)).zip(u.chunks_exact(n.max(1))) {
                sum.iter_mut().zip(dy).zip(u).for_each(|((s, dy), u)| *s += f64::from(*dy) * f64::from(*u));
            }
            sum
        })
        .collect();
    host::write(dm, OP, |dm| {
        for (j, dm) in dm.iter_mut().enumerate() {
            *dm += (pieces.iter().map(|p| p[j]).sum::<f64>() / f64::from(lengths[j])) as f32;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::*;

    #[test]
    fn columns_of_a_part_are_scaled_and_added_to_and_the_others_left() {
        let y = random(&[5, 7], 1);
        let before = f64s(&y);
        let part = y.narrow(1, 2, 3).unwrap();
        scale_columns_(&part, &[2.0, 3.0, 4.0]).unwrap();
        add_matrix_(&part, &tensor(&[1.0; 15], &[5, 3])).unwrap();
        let want: Vec<f64> = before
            .iter()
            .enumerate()
            .map(|(i, v)| if (2..5).contains(&(i % 7)) { v * (i % 7) as f64 + 1.0 } else { *v })
            .collect();
        close(&f64s(&y), &want, 1e-6);
        assert!(scale_columns_(&part, &[1.0; 2]).is_err());
    }

    #[test]
    fn the_gradient_by_the_factors_agrees_with_a_plain_sum() {
        let (t, n) = (150, 3);
        let (dy, u, dm) = (random(&[t, n], 1), random(&[t, n], 2), tensor(&[1.0; 3], &[n]));
        columns_product_sum_(&dm, &dy, &u, &[1.0, 2.0, 4.0]).unwrap();
        let (dy, u) = (f64s(&dy), f64s(&u));
        let sum = |j: usize| (0..t).map(|i| dy[i * n + j] * u[i * n + j]).sum::<f64>();
        close(&f64s(&dm), &[1.0 + sum(0), 1.0 + sum(1) / 2.0, 1.0 + sum(2) / 4.0], 1e-6);
    }
}
