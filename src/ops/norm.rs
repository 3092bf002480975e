//! The L2 norm over a flat arena of gradients.

use super::{host, simd::vectorized};
use crate::Result;
use candle_core::Tensor;
use rayon::prelude::*;

const PIECE: usize = 1 << 14;

vectorized! {
    fn squares(v: &[f32]) -> f64 {
        let mut lanes = [0f64; 8];
        let mut pieces = v.chunks_exact(8);
        for p in &mut pieces {
            for (lane, &x) in lanes.iter_mut().zip(p) {
                *lane += f64::from(x) * f64::from(x);
            }
        }
        lanes.iter().sum::<f64>() + pieces.remainder().iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>()
    }
}

/// √Σx², accumulated in f64 over fixed pieces that are added in index order.
pub fn l2(t: &Tensor) -> Result<f64> {
    let v = host::read(t, "l2 norm")?;
    let v: &[f32] = &v;
    let pieces: Vec<f64> = v.par_chunks(PIECE).map(squares).collect();
    Ok(pieces.iter().sum::<f64>().sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::*;

    #[test]
    fn the_norm_agrees_with_a_plain_f64_sum_and_shows_what_is_not_finite() {
        let t = random(&[3 * PIECE + 5], 1);
        let want = f64s(&t).iter().map(|x| x * x).sum::<f64>().sqrt();
        assert!((l2(&t).unwrap() - want).abs() < 1e-9 * want);
        assert!(l2(&tensor(&[1.0, f32::NAN], &[2])).unwrap().is_nan());
        assert_eq!(l2(&tensor(&[1.0, f32::INFINITY], &[2])).unwrap(), f64::INFINITY);
    }
}
