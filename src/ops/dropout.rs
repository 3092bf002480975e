//! Inverted dropout whose mask is a function of a counter: the backward pass draws it again instead of keeping it.

use super::host;
use super::random::Stream;
use crate::{Error, Result};
use candle_core::Tensor;
use rayon::prelude::*;

const OP: &str = "dropout";
const PIECE: usize = 1 << 12;

/// `x` with each number kept with probability `1 - p` and then divided by it, else 0. Any shape, f32.
///
/// The gradient is the same function of `dy` with the same stream. Number i uses word `i % 4` of block `i / 4`.
pub fn dropout(x: &Tensor, p: f64, stream: Stream) -> Result<Tensor> {
    let y = host::tensor(host::read(x, OP)?.to_vec(), x.dims())?;
    dropout_(&y, p, stream)?;
    Ok(y)
}

/// [`dropout`] in place.
pub fn dropout_(x: &Tensor, p: f64, stream: Stream) -> Result<()> {
    if !(0.0..1.0).contains(&p) {
        return Err(Error::new(format!("a dropout of {p} is not a probability below 1")));
    }
    let (cut, scale) = ((p * 4_294_967_296.0) as u32, (1.0 / (1.0 - p)) as f32);
    host::write(x, OP, |x| {
        x.par_chunks_mut(PIECE).enumerate().for_each(|(piece, x)| {
            for (i, four) in x.chunks_mut(4).enumerate() {
                let words = stream.block((piece * (PIECE / 4) + i) as u32);
                for (x, w) in four.iter_mut().zip(words) {
                    *x = if w < cut { 0.0 } else { *x * scale };
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

    #[test]
    fn the_share_dropped_is_p_and_what_is_kept_is_scaled() {
        let n = 100_000;
        let x = tensor(&vec![1.0; n], &[n]);
        let y = f32s(&dropout(&x, 0.3, Stream { seed: 5, words: [1, 2, 3] }).unwrap());
        let dropped = y.iter().filter(|&&y| y == 0.0).count() as f64 / n as f64;
        assert!((dropped - 0.3).abs() < 0.01, "{dropped}");
        assert!(y.iter().all(|&y| y == 0.0 || (y - 1.0 / 0.7).abs() < 1e-6));
        assert_eq!(f32s(&x), vec![1.0; n]);
    }

    #[test]
    fn one_stream_gives_one_mask_and_another_stream_another() {
        let x = random(&[33, 129], 1);
        let draw = |seed, word| f32s(&dropout(&x, 0.5, Stream { seed, words: [word, 0, 0] }).unwrap());
        assert_eq!(draw(1, 0), draw(1, 0));
        assert_ne!(draw(1, 0), draw(2, 0));
        assert_ne!(draw(1, 0), draw(1, 1));
    }

    #[test]
    fn a_probability_of_one_is_refused() {
        assert!(dropout(&random(&[2], 1), 1.0, Stream { seed: 0, words: [0; 3] }).is_err());
    }
}
