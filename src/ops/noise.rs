//! Noise on embeddings (NEFTune; Jain et al., 2024): uniform on ±alpha/√(L·d), L being the tokens of the row's own
//! sequence, d the width. Its gradient is the identity.
//!
//! A pure function of the stream, the place in the batch, and the sequence's length.

use super::host;
use super::random::Stream;
use crate::Result;
use candle_core::Tensor;
use rayon::prelude::*;

/// Add noise into `x [T, d]`, whose sequences end where `cu_seqlens` says.
pub fn noise_(x: &Tensor, cu_seqlens: &[u32], alpha: f64, stream: Stream) -> Result<()> {
    const OP: &str = "noise";
    let (t, d) = host::dims2(x, OP)?;
    let mut bounds = vec![0f32; t];
    for ends in cu_seqlens.windows(2) {
        let (start, end) = ((ends[0] as usize).min(t), (ends[1] as usize).min(t));
        let bound = alpha / ((end.saturating_sub(start) * d).max(1) as f64).sqrt();
        bounds[start..end.max(start)].fill(bound as f32);
    }
    let blocks = d.div_ceil(4) as u32;
    host::write(x, OP, |x| {
        x.par_chunks_mut(d.max(1)).zip(&bounds).enumerate().for_each(|(row, (x, &bound))| {
            for (i, piece) in x.chunks_mut(4).enumerate() {
                let words = stream.block((row as u32).wrapping_mul(blocks).wrapping_add(i as u32));
                for (x, w) in piece.iter_mut().zip(words) {
                    *x += ((w >> 8) as f32 / (1u32 << 23) as f32 - 1.0) * bound;
                }
            }
        });
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::*;

    const STREAM: Stream = Stream { seed: 3, words: [4, 5, 6] };

    #[test]
    fn each_sequence_has_noise_of_its_own_length() {
        let (t, d) = (1000, 10);
        let x = tensor(&vec![0.0; t * d], &[t, d]);
        noise_(&x, &[0, 900, 1000], 5.0, STREAM).unwrap();
        let v = f64s(&x);
        for (part, n) in [(&v[..9000], 900.0), (&v[9000..], 100.0)] {
            let bound = 5.0 / (n * d as f64).sqrt();
            let spread = part.iter().map(|v| v * v).sum::<f64>() / part.len() as f64;
            assert!(part.iter().all(|v| v.abs() <= bound * 1.0001));
            // A uniform's variance is a third of its bound squared.
            assert!((spread / (bound * bound / 3.0) - 1.0).abs() < 0.1, "{spread} {bound}");
        }
    }

    #[test]
    fn the_same_stream_gives_the_same_noise_and_another_gives_another() {
        let noisy = |stream| {
            let x = tensor(&[0.0; 12], &[4, 3]);
            noise_(&x, &[0, 4], 1.0, stream).unwrap();
            f64s(&x)
        };
        assert_eq!(noisy(STREAM), noisy(STREAM));
        assert_ne!(noisy(STREAM), noisy(Stream { words: [4, 6, 6], ..STREAM }));
    }
}
