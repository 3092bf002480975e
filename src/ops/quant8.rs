//! 8-bit numbers in blocks of 256, as bitsandbytes keeps them, and AdamW with its moments in them.
//!
//! A block holds one f32 `absmax` and a byte a number: the index of the nearest value of a code, times `absmax`.
//! The CUDA kernels (`kernels/quant8.cuh`, `kernels/adamw.cu`) do the same operations in the same order.
//! Must not know what is quantized.

use super::adamw::{Apart, Factors, Rule, Spans, update};
use super::host;
use crate::{Error, Result};
use candle_core::Tensor;
use rayon::prelude::*;
use std::ops::Range;

/// Numbers that share an `absmax`.
pub const BLOCK: usize = 256;

/// 256 ascending values in -1..=1 and the 255 midpoints between neighbours.
#[derive(Debug, Clone)]
pub struct Code {
    values: [f32; 256],
    midpoints: [f32; 255],
}

impl Code {
    /// bitsandbytes' `create_dynamic_map(signed)`, to the bit: seven decades, each with twice the values of the one
    /// below it, evenly apart; 0; and 1. The unsigned code has no negative values and twice as many of the others.
    pub fn dynamic(signed: bool) -> Self {
        let mut values = vec![0.0, 1.0];
        for decade in 0..7 {
            let count = 1usize << (decade + usize::from(!signed));
            let scale = 10f64.powi(decade as i32 - 6) as f32;
            for i in 0..count {
                let mean = (linspace(i, count) + linspace(i + 1, count)) / 2.0;
                values.push(scale * mean);
                if signed {
                    values.push(-(scale * mean));
                }
            }
        }
        values.sort_by(f32::total_cmp);
        let mut code = Self { values: [0.0; 256], midpoints: [0.0; 255] };
        code.values.iter_mut().zip(&values).for_each(|(to, from)| *to = *from);
        for (to, pair) in code.midpoints.iter_mut().zip(values.windows(2)) {
            *to = (pair[0] + pair[1]) * 0.5;
        }
        code
    }

    /// What the 256 codes stand for.
    pub fn values(&self) -> &[f32; 256] {
        &self.values
    }

    /// The code of the nearest value, the lower one on a tie; 0 for NaN.
    #[inline]
    pub fn nearest(&self, x: f32) -> u8 {
        let mut at = 0;
        for step in [128, 64, 32, 16, 8, 4, 2, 1] {
            at += if x > self.midpoints[at + step - 1] { step } else { 0 };
        }
        at as u8
    }

    /// The largest magnitude of a block, its codes into `q`.
    pub fn quantize(&self, x: &[f32], q: &mut [u8]) -> f32 {
        let top = absmax(x);
        let scale = reciprocal(top);
        for (q, &x) in q.iter_mut().zip(x) {
            *q = self.nearest(x * scale);
        }
        top
    }
}

/// Number `i` of `torch.linspace(0.1, 1, n + 1)` in f32, which counts from the nearer end and rounds once.
fn linspace(i: usize, n: usize) -> f32 {
    let step = (1.0f32 - 0.1) / n as f32;
    if i < n.div_ceil(2) { step.mul_add(i as f32, 0.1) } else { (-step).mul_add((n - i) as f32, 1.0) }
}

/// max|x|; NaN is passed over.
pub(super) fn absmax(x: &[f32]) -> f32 {
    x.iter().fold(0f32, |top, x| top.max(x.abs()))
}

/// 1 / `absmax`, finite for a block of zeros.
pub(super) fn reciprocal(absmax: f32) -> f32 {
    1.0 / absmax.max(1e-38)
}

/// AdamW whose moments take a byte each: bitsandbytes' blockwise `AdamW8bit` over the arena in blocks of [`BLOCK`].
///
/// As there, a first moment keeps its sign when it is quantized. Unlike there, a second moment that is not 0 does not
/// become 0: the first would be divided by `eps` alone at the next small gradient.
#[derive(Debug)]
pub struct AdamW8 {
    /// First moments, codes of the signed dynamic map, one per trainable.
    pub m: Vec<u8>,
    /// Second moments, codes of the unsigned dynamic map.
    pub v: Vec<u8>,
    /// One per block of `m`.
    pub absmax_m: Vec<f32>,
    /// One per block of `v`.
    pub absmax_v: Vec<f32>,
    /// Steps taken.
    pub t: u64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
    code_m: Code,
    code_v: Code,
}

impl AdamW8 {
    /// Zero moments for `len` trainables.
    pub fn with_len(len: usize, (beta1, beta2): (f64, f64), eps: f64, weight_decay: f64) -> Self {
        let (code_m, code_v) = (Code::dynamic(true), Code::dynamic(false));
        let zeros = |code: &Code| (vec![code.nearest(0.0); len], vec![0.0; len.div_ceil(BLOCK)]);
        let ((m, absmax_m), (v, absmax_v)) = (zeros(&code_m), zeros(&code_v));
        Self { m, v, absmax_m, absmax_v, t: 0, beta1, beta2, eps, weight_decay, code_m, code_v }
    }

    /// Take over a step's factors.
    pub fn obey(&mut self, rule: &Rule) {
        (self.beta1, self.beta2, self.eps) = (rule.beta1, rule.beta2, rule.eps);
        self.weight_decay = rule.weight_decay;
    }

    /// One step over `values` with `grads · grad_scale` (both `[len]`, f32); `decay` lists the ranges under weight
    /// decay, in order and apart. Lengths that differ are an error.
    pub fn update(
        &mut self,
        values: &Tensor,
        grads: &Tensor,
        decay: &[Range<usize>],
        lr: f64,
        grad_scale: f64,
    ) -> Result<()> {
        self.update_apart(values, grads, decay, None, lr, grad_scale)
    }

    /// As [`AdamW8::update`], with ranges that step at a rate of their own.
    pub fn update_apart(
        &mut self,
        values: &Tensor,
        grads: &Tensor,
        decay: &[Range<usize>],
        apart: Option<Apart>,
        lr: f64,
        grad_scale: f64,
    ) -> Result<()> {
        const OP: &str = "8-bit AdamW";
        host::same(OP, "the gradient", grads.dims(), values.dims())?;
        if values.elem_count() != self.m.len() {
            return Err(Error::new(format!(
                "{OP} has {} moments, but {} parameters train",
                self.m.len(),
                values.elem_count()
            )));
        }
        self.t += 1;
        let (betas, t) = ((self.beta1, self.beta2), self.t as f64);
        let (eps, decay_rate) = (self.eps, self.weight_decay);
        let factors = |lr, decays| Factors::new(lr, betas, eps, if decays { decay_rate } else { 0.0 }, t, grad_scale);
        let spans = Spans::new(decay, apart, lr, factors);
        let (code_m, code_v) = (&self.code_m, &self.code_v);
        let g = host::read(grads, OP)?;
        let g: &[f32] = &g;
        let moments = self.m.par_chunks_mut(BLOCK).zip(self.v.par_chunks_mut(BLOCK));
        let scales = self.absmax_m.par_iter_mut().zip(&mut self.absmax_v);
        host::write(values, OP, |w| {
            let numbers = w.par_chunks_mut(BLOCK).zip(g.par_chunks(BLOCK));
            numbers.zip(moments).zip(scales).enumerate().for_each(|(block, (((w, g), (qm, qv)), (am, av)))| {
                let (mut m, mut v) = ([0f32; BLOCK], [0f32; BLOCK]);
                let (m, v) = (&mut m[..w.len()], &mut v[..w.len()]);
                m.iter_mut().zip(&*qm).for_each(|(m, &q)| *m = code_m.values[q as usize] * *am);
                v.iter_mut().zip(&*qv).for_each(|(v, &q)| *v = code_v.values[q as usize] * *av);
                let (start, mut at) = (block * BLOCK, 0);
                while at < w.len() {
                    let (f, end) = spans.at(start + at);
                    let to = end.saturating_sub(start).min(w.len());
                    update(&mut w[at..to], &g[at..to], &mut m[at..to], &mut v[at..to], f);
                    at = to;
                }
                *am = code_m.quantize(m, qm);
                for (q, &m) in qm.iter_mut().zip(&*m) {
                    if m < 0.0 && code_m.values[*q as usize] >= 0.0 {
                        *q -= 1;
                    }
                }
                *av = code_v.quantize(v, qv);
                for (q, &v) in qv.iter_mut().zip(&*v) {
                    if v > 0.0 && *q == 0 {
                        *q = 1;
                    }
                }
            });
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::*;

    // The expected numbers are what tests/reference/quant.py prints.

    fn bytes(x: &[f32]) -> Vec<u8> {
        x.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    #[test]
    fn the_maps_are_those_of_bitsandbytes_to_the_bit() {
        assert_eq!(digest(&bytes(Code::dynamic(true).values())), 0xd677_f22a_9666_5bc4);
        assert_eq!(digest(&bytes(Code::dynamic(false).values())), 0x4381_1b16_730a_873e);
    }

    #[test]
    fn the_nearest_code_is_found_for_every_value_midpoint_and_neighbour() {
        for code in [Code::dynamic(true), Code::dynamic(false)] {
            for (i, &v) in code.values().iter().enumerate() {
                assert_eq!(usize::from(code.nearest(v)), i);
            }
            for (i, &mid) in code.midpoints.iter().enumerate() {
                assert_eq!(usize::from(code.nearest(mid)), i);
                assert_eq!(usize::from(code.nearest(mid.next_up())), i + 1);
            }
            assert_eq!((code.nearest(-9.0), code.nearest(9.0), code.nearest(f32::NAN)), (0, 255, 0));
        }
    }

    #[test]
    fn five_steps_give_the_bits_of_the_cuda_kernel_and_the_values_of_bitsandbytes() {
        let n = 700;
        let w = tensor(&numbers(n, 2), &[n]);
        let mut o = AdamW8::with_len(n, (0.9, 0.999), 1e-8, 0.1);
        for t in 1..6 {
            let g: Vec<f32> = numbers(n, 10 + t).iter().map(|g| g * 0.5).collect();
            o.update(&w, &tensor(&g, &[n]), &[0..120, 120..300], 1e-3, 0.5).unwrap();
        }
        let w = f32s(&w);
        assert_eq!(digest(&bytes(&w)), 0xba9b_a59a_d75d_6f97);
        assert_eq!((digest(&o.m), digest(&o.v)), (0xaf34_52b3_7d1f_ce03, 0x9019_f297_4937_7df5));
        assert_eq!(digest(&bytes(&o.absmax_m)), 0x68b9_512d_f24d_e58e);
        assert_eq!(digest(&bytes(&o.absmax_v)), 0x96d6_a013_933a_42c4);
        let theirs = [0.186_470_79, -0.015_611_447, 0.502_622_8, 0.192_282_77];
        for (i, want) in [0, 100, 350, 699].into_iter().zip(theirs) {
            assert!((w[i] - want).abs() < 1e-6, "{} is not {want}", w[i]);
        }
    }

    #[test]
    fn a_small_gradient_after_zero_ones_moves_no_value_far() {
        let n = 256;
        let w = tensor(&vec![0.0; n], &[n]);
        let mut o = AdamW8::with_len(n, (0.9, 0.999), 1e-8, 0.0);
        let g = |small: f32| tensor(&(0..n).map(|i| if i == 0 { 1.0 } else { small }).collect::<Vec<_>>(), &[n]);
        for small in [1e-5, 0.0, 0.0] {
            o.update(&w, &g(small), &[], 1e-3, 1.0).unwrap();
        }
        assert!(f32s(&w).iter().all(|w| w.abs() < 1e-2), "{:?}", &f32s(&w)[..3]);
    }

    #[test]
    fn another_number_of_parameters_is_refused() {
        let mut o = AdamW8::with_len(3, (0.9, 0.999), 1e-8, 0.0);
        let four = tensor(&[0.0; 4], &[4]);
        assert!(o.update(&four, &four, &[], 1e-3, 1.0).is_err());
    }
}
