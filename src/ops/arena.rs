//! Flat arenas of trainables and gradients: set, clear, measure.

use super::{host, simd::vectorized};
use crate::{Error, Result};
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

/// Overwrite a contiguous f32 tensor, in place, with as many numbers.
pub fn copy_(t: &Tensor, from: &[f32]) -> Result<()> {
    host::write(t, "copy", |v| {
        if v.len() != from.len() {
            return Err(Error::new(format!("{} numbers do not fill a tensor of {}", from.len(), v.len())));
        }
        v.par_chunks_mut(PIECE).zip(from.par_chunks(PIECE)).for_each(|(v, f)| v.copy_from_slice(f));
        Ok(())
    })
}

/// Overwrite a contiguous f32 tensor, in place, with another of as many numbers.
pub fn copy_tensor_(t: &Tensor, from: &Tensor) -> Result<()> {
    copy_(t, &host::read(from, "copy")?)
}

/// Set every number of a contiguous f32 tensor to 0, in place.
pub fn zero_(t: &Tensor) -> Result<()> {
    host::write(t, "zero", |v| {
        v.par_chunks_mut(PIECE).for_each(|v| v.fill(0.0));
        Ok(())
    })
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

    #[test]
    fn setting_a_view_changes_its_place_in_the_arena_and_nothing_else() {
        let arena = tensor(&[1.0; 6], &[6]);
        copy_(&arena.narrow(0, 1, 2).unwrap(), &[7.0, 8.0]).unwrap();
        zero_(&arena.narrow(0, 4, 1).unwrap()).unwrap();
        assert_eq!(f32s(&arena), [1.0, 7.0, 8.0, 1.0, 0.0, 1.0]);
        assert!(copy_(&arena, &[0.0; 5]).is_err());
    }
}
