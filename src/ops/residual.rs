//! Sums of activations: the residual stream.

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::*;

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
