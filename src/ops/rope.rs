//! Rotary position embedding (Su et al., 2021) in Hugging Face's layout: number i of a head turns with number i + D/2.

pub mod scaling;

use super::host;
use super::simd::vectorized;
use crate::{Error, Result};
use candle_core::Tensor;
use rayon::prelude::*;
pub use scaling::{Llama3, LongRope, Scaling, Yarn};

const OP: &str = "rope";
const ROWS: usize = 16;

/// The angles a position turns by, one per pair.
#[derive(Debug, Clone)]
pub struct Rotary {
    frequencies: Vec<f32>,
    /// Those of a sequence longer than so many tokens.
    beyond: Option<(usize, Vec<f32>)>,
    /// What cosines and sines are multiplied by.
    magnitude: f32,
}

impl Rotary {
    /// `theta^(-2i/D)` for i in 0..D/2, where D numbers of a head are turned, under a scaling where there is one.
    pub fn new(turned: usize, theta: f64, scaling: Option<&Scaling>) -> Self {
        let plain: Vec<f64> = (0..turned / 2).map(|i| theta.powf(-2.0 * i as f64 / turned as f64)).collect();
        let f32s = |f: Vec<f64>| f.into_iter().map(|f| f as f32).collect();
        let Some(scaling) = scaling else { return Self { frequencies: f32s(plain), beyond: None, magnitude: 1.0 } };
        let (frequencies, beyond) = scaling.frequencies(&plain, theta);
        let beyond = beyond.map(|(length, f)| (length, f32s(f)));
        Self { frequencies: f32s(frequencies), beyond, magnitude: scaling.magnitude() as f32 }
    }

    /// Cosines and sines of T positions, each `[T, D/2]` (the angle in f32, as transformers takes it).
    ///
    /// `cu_seqlens` says which positions form a sequence; empty: all are the end of one. Where frequencies depend on a
    /// sequence's length (LongRoPE), that is its own last position and one, also among packed ones.
    pub fn angles(&self, positions: &[u32], cu_seqlens: &[u32]) -> Result<(Tensor, Tensor)> {
        let half = self.frequencies.len();
        let mut cos = Vec::with_capacity(positions.len() * half);
        let mut sin = Vec::with_capacity(positions.len() * half);
        let all = [0, positions.len() as u32];
        for ends in (if cu_seqlens.is_empty() { &all } else { cu_seqlens }).windows(2) {
            let Some(sequence) = positions.get(ends[0] as usize..ends[1] as usize) else {
                return Err(Error::new(format!("rope: {cu_seqlens:?} does not cut {} positions", positions.len())));
            };
            let length = sequence.iter().max().map_or(0, |&p| p as usize + 1);
            let frequencies = match &self.beyond {
                Some((most, long)) if length > *most => long,
                _ => &self.frequencies,
            };
            for &p in sequence {
                for f in frequencies {
                    let (s, c) = f64::from(p as f32 * f).sin_cos();
                    cos.push(c as f32 * self.magnitude);
                    sin.push(s as f32 * self.magnitude);
                }
            }
        }
        let shape = [positions.len(), half];
        Ok((host::tensor(cos, &shape)?, host::tensor(sin, &shape)?))
    }
}

vectorized! {
    fn turn(x: &mut [f32], cos: &[f32], sin: &[f32], sign: f32) {
        let (a, b) = x.split_at_mut(cos.len());
        for (((a, b), &c), &s) in a.iter_mut().zip(b).zip(cos).zip(sin) {
            let s = s * sign;
            (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
        }
    }
}

/// Turns the first `heads` heads of each row of `x [T, ≥ heads·width]` in place; `cos`, `sin` `[T, D/2]`, f32, turn the
/// first D numbers of a head (all, or a part of its `width`). The rest of the row (the values beside queries and keys)
/// stays. `back` turns the other way, which is the gradient.
pub fn rope_(x: &Tensor, (cos, sin): (&Tensor, &Tensor), heads: usize, width: usize, back: bool) -> Result<()> {
    let (t, row) = host::dims2(x, OP)?;
    let (_, half) = host::dims2(cos, OP)?;
    host::same(OP, "cos", cos.dims(), &[t, half])?;
    host::same(OP, "sin", sin.dims(), &[t, half])?;
    if half == 0 || half * 2 > width || heads * width > row {
        return Err(Error::new(format!(
            "rope: {heads} heads of {width} do not fit in rows of {row}, or {half} pairs in them"
        )));
    }
    let (cos, sin) = (host::read(cos, OP)?, host::read(sin, OP)?);
    let (cos, sin): (&[f32], &[f32]) = (&cos, &sin);
    let sign = if back { -1.0 } else { 1.0 };
    host::write(x, OP, |x| {
        x.par_chunks_mut(ROWS * row).enumerate().for_each(|(piece, x)| {
            for (r, x) in x.chunks_exact_mut(row).enumerate() {
                let at = (piece * ROWS + r) * half;
                for head in x[..heads * width].chunks_exact_mut(width) {
                    turn(&mut head[..2 * half], &cos[at..at + half], &sin[at..at + half], sign);
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

    const SCALED: Llama3 =
        Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max_position_embeddings: 64 };

    #[test]
    fn it_agrees_with_transformers_plain_and_scaled() {
        // q=seq((1,1,3,8),0.37,0) (seq: sin(a·(i+1)+b)); r=LlamaRotaryEmbedding(LlamaConfig(hidden_size=8,num_attention_heads=1,
        //   rope_parameters={"rope_type":"default","rope_theta":10000.0})); cos,sin=r(q,torch.tensor([[0,1,5]])); apply_rotary_pos_emb(q,q,cos,sin)
        // then rope_parameters={"rope_type":"llama3","rope_theta":10000.0,"factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,
        //   "original_max_position_embeddings":64}
        let plain = [
            0.36161542,
            0.67428792,
            0.89569867,
            0.99588084,
            0.96127522,
            0.79656547,
            0.52404433,
            0.18059626,
            0.73626965,
            -0.43807307,
            -0.79393446,
            -0.96277523,
            -0.69533342,
            -0.94108355,
            -0.67721295,
            -0.35621649,
            0.95747775,
            -0.13703308,
            0.63885087,
            0.89610571,
            0.27612776,
            1.0183403,
            0.82538795,
            0.52271527,
        ];
        let scaled = [
            0.36161542,
            0.67428792,
            0.89569867,
            0.99588084,
            0.96127522,
            0.79656547,
            0.52404433,
            0.18059626,
            0.73626965,
            -0.51814926,
            -0.79982966,
            -0.96308655,
            -0.69533342,
            -0.89948183,
            -0.67024016,
            -0.35537395,
            0.95747775,
            0.30466068,
            0.67433876,
            0.89838403,
            0.27612776,
            0.98131388,
            0.79665732,
            0.51878983,
        ];
        for (scaling, want) in [(None, plain), (Some(&Scaling::Llama3(SCALED)), scaled)] {
            let x = wave(&[3, 8], 0.37, 0.0);
            let (cos, sin) = Rotary::new(8, 10_000.0, scaling).angles(&[0, 1, 5], &[]).unwrap();
            rope_(&x, (&cos, &sin), 1, 8, false).unwrap();
            close(&f64s(&x), &want, 1e-6);
        }
    }

    #[test]
    fn it_agrees_with_f64_leaves_the_rest_alone_and_its_gradient_is_the_turn_back() {
        let (t, heads, width) = (33, 3, 6);
        let row = heads * width + 5;
        let positions: Vec<u32> = (0..t as u32).map(|i| i * 7 % 40).collect();
        // All of a head, and two thirds of it.
        for d in [6, 4] {
            let (x, dy) = (random(&[t, row], 1), random(&[t, row], 2));
            let reference = |x: &[f64]| {
                let mut y = x.to_vec();
                for (i, &position) in positions.iter().enumerate() {
                    for h in 0..heads {
                        for j in 0..d / 2 {
                            let a = f64::from(position) / 500f64.powf(2.0 * j as f64 / d as f64);
                            let (p, q) = (i * row + h * width + j, i * row + h * width + j + d / 2);
                            y[p] = x[p] * a.cos() - x[q] * a.sin();
                            y[q] = x[q] * a.cos() + x[p] * a.sin();
                        }
                    }
                }
                y
            };
            let before = f64s(&x);
            let (cos, sin) = Rotary::new(d, 500.0, None).angles(&positions, &[]).unwrap();
            rope_(&x, (&cos, &sin), heads, width, false).unwrap();
            close(&f64s(&x), &reference(&before), 5e-6);
            let dx = differences(&before, |x| inner(&reference(x), &f64s(&dy)));
            rope_(&dy, (&cos, &sin), heads, width, true).unwrap();
            close(&f64s(&dy), &dx, 5e-6);
        }
    }

    #[test]
    fn a_long_sequence_turns_by_its_own_frequencies_also_beside_a_short_one() {
        let scaling = Scaling::LongRope(LongRope {
            short_factor: vec![1.0, 1.0],
            long_factor: vec![2.0, 8.0],
            original_max_position_embeddings: 4,
            attention_factor: 1.5,
        });
        let rotary = Rotary::new(4, 100.0, Some(&scaling));
        let (cos, _) = rotary.angles(&[0, 1, 2, 3, 0, 1, 2, 3, 4], &[0, 4, 9]).unwrap();
        let cos = f32s(&cos);
        assert_eq!(cos[2..4], [1f32, 0.1].map(|a| 1.5 * f64::from(a).cos() as f32));
        assert_eq!(cos[10..12], [0.5f32, 0.0125].map(|a| 1.5 * f64::from(a).cos() as f32));
        assert!(rotary.angles(&[0, 1], &[0, 3]).is_err());
    }
}
