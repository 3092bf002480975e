//! Sums of activations: the residual stream; rows of biases, and multiples.

use super::{host, simd::vectorized};
use crate::Result;
use candle_core::Tensor;
use rayon::prelude::*;

const PIECE: usize = 1 << 14;

vectorized! {
    fn add(a: &mut [f32], b: &[f32]) {
        for (a, &b) in a.iter_mut().zip(b) {
            *a += b;
        }
    }
}

/// `a += b`, elementwise; same shape, f32. Its gradient is the identity to both.
pub fn add_(a: &Tensor, b: &Tensor) -> Result<()> {
    const OP: &str = "residual add";
    host::same(OP, "the addend", b.dims(), a.dims())?;
    let b = host::read(b, OP)?;
    let b: &[f32] = &b;
    host::write(a, OP, |a| {
        a.par_chunks_mut(PIECE).zip(b.par_chunks(PIECE)).for_each(|(a, b)| add(a, b));
        Ok(())
    })
}

vectorized! {
    fn times(a: &mut [f32], s: f32) {
        for a in a {
            *a *= s;
        }
    }
}

/// `a *= s`, elementwise, f32. Its gradient is the same multiple.
pub fn scale_(a: &Tensor, s: f32) -> Result<()> {
    host::write(a, "scale", |a| {
        a.par_chunks_mut(PIECE).for_each(|a| times(a, s));
        Ok(())
    })
}

/// Rows that a task sums: fixed pieces, combined in index order.
const ROWS: usize = 64;

/// Every row of `y [T, n]` gains `bias [n]`, in place.
pub fn add_bias_(y: &Tensor, bias: &Tensor) -> Result<()> {
    const OP: &str = "bias";
    let (_, n) = host::dims2(y, OP)?;
    host::same(OP, "the bias", bias.dims(), &[n])?;
    let bias = host::read(bias, OP)?;
    let bias: &[f32] = &bias;
    host::write(y, OP, |y| {
        y.par_chunks_mut((ROWS * n).max(1)).for_each(|y| y.chunks_exact_mut(n.max(1)).for_each(|y| add(y, bias)));
        Ok(())
    })
}

/// The gradient of [`add_bias_`]: `dbias [n]` gains the sum of the rows of `dy [T, n]`.
pub fn add_bias_backward(dy: &Tensor, dbias: &Tensor) -> Result<()> {
    const OP: &str = "bias";
    let (_, n) = host::dims2(dy, OP)?;
    host::same(OP, "the bias", dbias.dims(), &[n])?;
    let dy = host::read(dy, OP)?;
    let dy: &[f32] = &dy;
    let pieces: Vec<Vec<f32>> = dy
        .par_chunks((ROWS * n).max(1))
        .map(|dy| {
            let mut sum = vec![0f32; n];
            dy.chunks_exact(n.max(1)).for_each(|dy| add(&mut sum, dy));
            sum
        })
        .collect();
    host::write(dbias, OP, |d| {
        pieces.iter().for_each(|piece| add(d, piece));
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::*;

    #[test]
    fn a_bias_is_added_to_every_row_and_its_gradient_sums_the_rows() {
        let (t, n) = (131, 7);
        let (y, b, dy) = (random(&[t, n], 1), random(&[n], 2), random(&[t, n], 3));
        let want: Vec<f64> = f64s(&y).iter().enumerate().map(|(i, y)| y + f64s(&b)[i % n]).collect();
        add_bias_(&y, &b).unwrap();
        close(&f64s(&y), &want, 1e-6);
        let db = tensor(&vec![1.0; n], &[n]);
        add_bias_backward(&dy, &db).unwrap();
        let dy = f64s(&dy);
        let want: Vec<f64> = (0..n).map(|c| 1.0 + dy.iter().skip(c).step_by(n).sum::<f64>()).collect();
        close(&f64s(&db), &want, 2e-6);
        assert!(add_bias_(&y, &random(&[n + 1], 4)).is_err());
    }

    #[test]
    fn a_multiple_is_of_every_number() {
        let a = random(&[130, 257], 1);
        let want: Vec<f64> = f64s(&a).iter().map(|a| a * 5.5).collect();
        scale_(&a, 5.5).unwrap();
        close(&f64s(&a), &want, 1e-6);
    }

    #[test]
    fn the_sum_is_the_sum_over_many_pieces() {
        let (a, b) = (random(&[130, 257], 1), random(&[130, 257], 2));
        let want: Vec<f64> = f64s(&a).iter().zip(f64s(&b)).map(|(a, b)| a + b).collect();
        add_(&a, &b).unwrap();
        close(&f64s(&a), &want, 1e-6);
    }

    #[test]
    fn unlike_shapes_are_an_error() {
        assert!(add_(&random(&[2, 3], 1), &random(&[3, 2], 2)).is_err());
    }
}
