//! Rotary position embedding (Su et al., 2021) in Hugging Face's layout: number i of a head turns with number i + D/2.

use super::host;
use super::simd::vectorized;
use crate::{Error, Result};
use candle_core::Tensor;
use rayon::prelude::*;

const OP: &str = "rope";
const ROWS: usize = 16;

/// Llama 3's stretching of the slow frequencies, named as in `config.json`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Llama3 {
    pub factor: f64,
    pub low_freq_factor: f64,
    pub high_freq_factor: f64,
    pub original_max_position_embeddings: usize,
}

/// The angles a position turns by, one per pair.
#[derive(Debug, Clone)]
pub struct Rotary {
    frequencies: Vec<f32>,
}

impl Rotary {
    /// `theta^(-2i/D)` for i in 0..D/2, under Llama 3's scaling where given (as transformers' `_compute_llama3_parameters`).
    pub fn new(head_dim: usize, theta: f64, scaling: Option<Llama3>) -> Self {
        let plain = (0..head_dim / 2).map(|i| 1.0 / theta.powf(2.0 * i as f64 / head_dim as f64));
        let scaled = |f: f64| {
            let Some(s) = scaling else { return f };
            let old = s.original_max_position_embeddings as f64;
            let wave = std::f64::consts::TAU / f;
            if wave > old / s.low_freq_factor {
                f / s.factor
            } else if wave < old / s.high_freq_factor {
                f
            } else {
                let smooth = (old / wave - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
                (1.0 - smooth) * f / s.factor + smooth * f
            }
        };
        Self { frequencies: plain.map(|f| scaled(f) as f32).collect() }
    }

    /// Cosines and sines of T positions, each `[T, D/2]` (the angle in f32, as transformers takes it).
    pub fn angles(&self, positions: &[u32]) -> Result<(Tensor, Tensor)> {
        let angles = positions.iter().flat_map(|&p| self.frequencies.iter().map(move |f| f64::from(p as f32 * f)));
        let (sin, cos): (Vec<f32>, Vec<f32>) = angles.map(|a| (a.sin() as f32, a.cos() as f32)).unzip();
        let shape = [positions.len(), self.frequencies.len()];
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

/// Turns the first `heads` heads of each row of `x [T, ≥ heads·D]` in place; `cos`, `sin` `[T, D/2]`, f32.
/// The rest of the row (the values beside queries and keys) stays. `back` turns the other way, which is the gradient.
pub fn rope_(x: &Tensor, cos: &Tensor, sin: &Tensor, heads: usize, back: bool) -> Result<()> {
    let (t, row) = host::dims2(x, OP)?;
    let (_, half) = host::dims2(cos, OP)?;
    host::same(OP, "cos", cos.dims(), &[t, half])?;
    host::same(OP, "sin", sin.dims(), &[t, half])?;
    if half == 0 || heads * half * 2 > row {
        return Err(Error::new(format!("rope: {heads} heads of {} do not fit in rows of {row}", half * 2)));
    }
    let (cos, sin) = (host::read(cos, OP)?, host::read(sin, OP)?);
    let (cos, sin): (&[f32], &[f32]) = (&cos, &sin);
    let sign = if back { -1.0 } else { 1.0 };
    host::write(x, OP, |x| {
        x.par_chunks_mut(ROWS * row).enumerate().for_each(|(piece, x)| {
            for (r, x) in x.chunks_exact_mut(row).enumerate() {
                let at = (piece * ROWS + r) * half;
                for head in x[..heads * half * 2].chunks_exact_mut(half * 2) {
                    turn(head, &cos[at..at + half], &sin[at..at + half], sign);
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
        for (scaling, want) in [(None, plain), (Some(SCALED), scaled)] {
            let x = wave(&[3, 8], 0.37, 0.0);
            let (cos, sin) = Rotary::new(8, 10_000.0, scaling).angles(&[0, 1, 5]).unwrap();
            rope_(&x, &cos, &sin, 1, false).unwrap();
            close(&f64s(&x), &want, 1e-6);
        }
    }

    #[test]
    fn it_agrees_with_f64_leaves_the_values_alone_and_its_gradient_is_the_turn_back() {
        let (t, heads, d) = (33, 3, 6);
        let row = heads * d + 5;
        let positions: Vec<u32> = (0..t as u32).map(|i| i * 7 % 40).collect();
        let (x, dy) = (random(&[t, row], 1), random(&[t, row], 2));
        let reference = |x: &[f64]| {
            let mut y = x.to_vec();
            for (i, &position) in positions.iter().enumerate() {
                for h in 0..heads {
                    for j in 0..d / 2 {
                        let a = f64::from(position) / 500f64.powf(2.0 * j as f64 / d as f64);
                        let (p, q) = (i * row + h * d + j, i * row + h * d + j + d / 2);
                        y[p] = x[p] * a.cos() - x[q] * a.sin();
                        y[q] = x[q] * a.cos() + x[p] * a.sin();
                    }
                }
            }
            y
        };
        let before = f64s(&x);
        let (cos, sin) = Rotary::new(d, 500.0, None).angles(&positions).unwrap();
        rope_(&x, &cos, &sin, heads, false).unwrap();
        close(&f64s(&x), &reference(&before), 5e-6);
        let dx = differences(&before, |x| inner(&reference(x), &f64s(&dy)));
        rope_(&dy, &cos, &sin, heads, true).unwrap();
        close(&f64s(&dy), &dx, 5e-6);
    }
}
