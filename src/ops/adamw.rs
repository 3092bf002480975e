//! AdamW over the flat arena of trainables, in one pass over memory.

use super::{host, simd::vectorized};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use std::ops::Range;

const OP: &str = "AdamW";
const PIECE: usize = 1 << 14;

/// One step's numbers, as torch names them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
    /// `torch.nn.utils.clip_grad_norm_`'s; at most 0: no clipping.
    pub max_grad_norm: f64,
    /// The rate of embeddings and lm_head; `None`: `lr`.
    pub table_lr: Option<f64>,
}

/// What steps at a rate of its own: ranges in order and apart.
#[derive(Debug, Clone, Copy)]
pub struct Apart<'a> {
    pub ranges: &'a [Range<usize>],
    pub lr: f64,
}

/// Which factors count where.
pub(super) struct Spans<'a> {
    decay: &'a [Range<usize>],
    apart: &'a [Range<usize>],
    /// Plain and decayed; then those of [`Apart`].
    factors: [Factors; 4],
}

impl<'a> Spans<'a> {
    pub fn new(
        decay: &'a [Range<usize>],
        apart: Option<Apart<'a>>,
        lr: f64,
        of: impl Fn(f64, bool) -> Factors,
    ) -> Self {
        let own = apart.map_or(lr, |a| a.lr);
        let factors = [of(lr, false), of(lr, true), of(own, false), of(own, true)];
        Self { decay, apart: apart.map_or(&[], |a| a.ranges), factors }
    }

    /// The factors at index `i`, and where they end to count.
    pub fn at(&self, i: usize) -> (Factors, usize) {
        let ((decays, one), (apart, other)) = (run(self.decay, i), run(self.apart, i));
        (self.factors[usize::from(decays) + 2 * usize::from(apart)], one.min(other))
    }
}

/// The optimizer's state. `step` is `torch.optim.AdamW`'s (decoupled decay, bias correction, no amsgrad).
#[derive(Debug)]
pub struct AdamW {
    /// First moments, f32, one per trainable.
    pub m: Tensor,
    /// Second moments, f32.
    pub v: Tensor,
    /// Steps taken.
    pub t: u64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
}

/// The factors of one step, as torch computes them in double precision.
#[derive(Clone, Copy)]
pub(super) struct Factors {
    grad: f32,
    pub keep: f32,
    pub new1: f32,
    pub beta2: f32,
    pub new2: f32,
    pub rate: f32,
    pub root: f32,
    pub eps: f32,
}

impl Factors {
    /// Step `t`, counted from 1, under weight decay `decay`.
    pub fn new(lr: f64, (beta1, beta2): (f64, f64), eps: f64, decay: f64, t: f64, grad_scale: f64) -> Self {
        Self {
            grad: grad_scale as f32,
            keep: (1.0 - lr * decay) as f32,
            new1: (1.0 - beta1) as f32,
            beta2: beta2 as f32,
            new2: (1.0 - beta2) as f32,
            rate: (lr / (1.0 - beta1.powf(t))) as f32,
            root: (1.0 - beta2.powf(t)).sqrt() as f32,
            eps: eps as f32,
        }
    }
}

vectorized! {
    pub(super) fn update(w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], f: Factors) {
        for (((w, &g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
            let g = g * f.grad;
            *m += f.new1 * (g - *m);
            *v = f.beta2 * *v + f.new2 * g * g;
            *w = *w * f.keep - f.rate * *m / (v.sqrt() / f.root + f.eps);
        }
    }
}

impl AdamW {
    /// Take over a step's factors.
    pub fn obey(&mut self, rule: &Rule) {
        (self.beta1, self.beta2, self.eps) = (rule.beta1, rule.beta2, rule.eps);
        self.weight_decay = rule.weight_decay;
    }

    /// Zero moments for `len` trainables on `device`.
    pub fn with_len(
        len: usize,
        device: &Device,
        (beta1, beta2): (f64, f64),
        eps: f64,
        weight_decay: f64,
    ) -> Result<Self> {
        let zeros = || Tensor::from_vec(vec![0f32; len], len, device);
        Ok(Self { m: zeros()?, v: zeros()?, t: 0, beta1, beta2, eps, weight_decay })
    }

    /// One step over `values` with `grads · grad_scale`; `decay` lists the ranges under weight decay, in order and apart.
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

    /// As [`AdamW::update`], with ranges that step at a rate of their own.
    pub fn update_apart(
        &mut self,
        values: &Tensor,
        grads: &Tensor,
        decay: &[Range<usize>],
        apart: Option<Apart>,
        lr: f64,
        grad_scale: f64,
    ) -> Result<()> {
        host::same(OP, "the gradient", grads.dims(), values.dims())?;
        host::same(OP, "the moments", self.m.dims(), values.dims())?;
        self.t += 1;
        let (betas, t) = ((self.beta1, self.beta2), self.t as f64);
        let weight_decay = |decays: bool| if decays { self.weight_decay } else { 0.0 };
        let factors = |lr, decays| Factors::new(lr, betas, self.eps, weight_decay(decays), t, grad_scale);
        let spans = Spans::new(decay, apart, lr, factors);
        let g = host::read(grads, OP)?;
        let g: &[f32] = &g;
        host::write(values, OP, |w| {
            host::write(&self.m, OP, |m| {
                host::write(&self.v, OP, |v| {
                    let pieces = w.par_chunks_mut(PIECE).zip(g.par_chunks(PIECE));
                    let moments = m.par_chunks_mut(PIECE).zip(v.par_chunks_mut(PIECE));
                    pieces.zip(moments).enumerate().for_each(|(i, ((w, g), (m, v)))| {
                        let start = i * PIECE;
                        let mut at = 0;
                        // Runs of equal factors within this piece.
                        while at < w.len() {
                            let (f, end) = spans.at(start + at);
                            let to = end.saturating_sub(start).min(w.len());
                            update(&mut w[at..to], &g[at..to], &mut m[at..to], &mut v[at..to], f);
                            at = to;
                        }
                    });
                    Ok(())
                })
            })
        })
    }

    /// Replace moments and step count, as read from a checkpoint.
    pub fn set_state(&mut self, m: &[f32], v: &[f32], t: u64) -> Result<()> {
        for (place, new) in [(&self.m, m), (&self.v, v)] {
            if place.elem_count() != new.len() {
                return Err(Error::new(format!(
                    "the optimizer state has {} moments, but {} parameters train",
                    new.len(),
                    place.elem_count()
                ))
                .next("resume with the recipe that wrote the checkpoint"));
            }
            host::write(place, OP, |old| {
                old.copy_from_slice(new);
                Ok(())
            })?;
        }
        self.t = t;
        Ok(())
    }
}

/// Whether index `i` is under decay, and where that ends to be so.
pub(super) fn run(decay: &[Range<usize>], i: usize) -> (bool, usize) {
    match decay.get(decay.partition_point(|r| r.end <= i)) {
        Some(r) if r.start <= i => (true, r.end),
        Some(r) => (false, r.start),
        None => (false, usize::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::*;

    #[test]
    fn three_steps_agree_with_torch() {
        // w=Parameter(seq((4,),0.7)); AdamW([w],lr=0.1,betas=(0.9,0.999),eps=1e-8,weight_decay=0.01)
        // for s in range(3): w.grad=seq((4,),0.9,float(s)); opt.step()   (seq: sin(a·(i+1)+b))
        let w = wave(&[4], 0.7, 0.0);
        let mut o = AdamW::with_len(4, &Device::Cpu, (0.9, 0.999), 1e-8, 0.01).unwrap();
        for s in 0..3 {
            // A gradient twice too large under a scale of one half is the same gradient.
            let g = (wave(&[4], 0.9, f64::from(s)) * 2.0).unwrap();
            o.update(&w, &g, &[0..1, 1..4], 0.1, 0.5).unwrap();
        }
        close(&f64s(&w), &[0.35440943, 0.7696768, 0.83640194, 0.62465775], 1e-6);
        close(&f64s(&o.m), &[0.17254141, 0.047844805, -0.1130598, -0.18840303], 1e-6);
        close(&f64s(&o.v), &[0.0015642032, 0.0014329585, 0.0014625806, 0.0015803649], 1e-6);
    }

    #[test]
    fn decay_touches_only_its_ranges_across_pieces() {
        let n = PIECE + 100;
        let (w, g) = (tensor(&vec![1.0; n], &[n]), tensor(&vec![0.0; n], &[n]));
        let mut o = AdamW::with_len(n, &Device::Cpu, (0.9, 0.999), 1e-8, 0.5).unwrap();
        let ranges = [3..10, PIECE - 2..PIECE + 2, n - 1..n];
        o.update(&w, &g, &ranges, 0.1, 1.0).unwrap();
        for (i, x) in f32s(&w).into_iter().enumerate() {
            let want = if ranges.iter().any(|r| r.contains(&i)) { 0.95 } else { 1.0 };
            assert_eq!(x, want, "at {i}");
        }
    }

    #[test]
    fn what_stands_apart_steps_at_its_own_rate() {
        let n = PIECE + 10;
        let step = |apart: Option<Apart>, lr: f64| {
            let w = tensor(&vec![1.0; n], &[n]);
            let mut o = AdamW::with_len(n, &Device::Cpu, (0.9, 0.999), 1e-8, 0.5).unwrap();
            o.update_apart(&w, &tensor(&vec![1.0; n], &[n]), &[0..2, 2..5], apart, lr, 1.0).unwrap();
            f32s(&w)
        };
        let ranges = [3..8, n - 2..n];
        let (mixed, all, own) =
            (step(Some(Apart { ranges: &ranges, lr: 0.01 }), 0.1), step(None, 0.1), step(None, 0.01));
        for i in 0..n {
            let want = if ranges.iter().any(|r| r.contains(&i)) { own[i] } else { all[i] };
            assert_eq!(mixed[i], want, "at {i}");
        }
    }

    #[test]
    fn state_of_another_size_is_refused() {
        let mut o = AdamW::with_len(3, &Device::Cpu, (0.9, 0.999), 1e-8, 0.0).unwrap();
        assert!(o.set_state(&[0.0; 2], &[0.0; 3], 1).is_err());
        o.set_state(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0], 7).unwrap();
        assert_eq!((f32s(&o.m), f32s(&o.v), o.t), (vec![1.0, 2.0, 3.0], vec![4.0, 5.0, 6.0], 7));
    }
}
