//! The optimizers a recipe can name, behind one set of words, and their state as a checkpoint holds it.
//!
//! Must not know what trains.

use super::adamw::{AdamW, Apart, Rule};
use super::quant8::{AdamW8, BLOCK};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use std::ops::Range;

/// `train.optim`, by transformers' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Optim {
    /// `adamw_torch`: moments in f32.
    #[default]
    Torch,
    /// `adamw_8bit`: moments in a byte each, with one f32 for 256 of them, as bitsandbytes keeps them.
    EightBit,
}

impl Optim {
    /// What a recipe's word means.
    pub fn named(name: &str) -> Self {
        match name {
            "adamw_8bit" => Self::EightBit,
            _ => Self::Torch,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Torch => "adamw_torch",
            Self::EightBit => "adamw_8bit",
        }
    }

    /// Bytes of both moments of `n` trainables.
    pub fn bytes(self, n: u64) -> u64 {
        match self {
            Self::Torch => 8 * n,
            Self::EightBit => 2 * n + 8 * n.div_ceil(BLOCK as u64),
        }
    }
}

/// First and second moments of all trainables, in their order.
#[derive(Debug, Clone, PartialEq)]
pub enum Moments {
    Torch { m: Vec<f32>, v: Vec<f32> },
    EightBit(Codes),
}

/// Moments in codes of the dynamic maps, with an `absmax` for each block of [`BLOCK`].
#[derive(Debug, Clone, PartialEq)]
pub struct Codes {
    pub m: Vec<u8>,
    pub v: Vec<u8>,
    pub absmax_m: Vec<f32>,
    pub absmax_v: Vec<f32>,
}

impl Moments {
    /// Numbers that they belong to.
    pub fn len(&self) -> usize {
        match self {
            Self::Torch { m, .. } => m.len(),
            Self::EightBit(c) => c.m.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether they are `optim`'s, of `len` trainables.
    ///
    /// # Errors
    /// What they are instead.
    pub fn fit(&self, optim: Optim, len: usize) -> Result<()> {
        let whole = match self {
            Self::Torch { m, v } => optim == Optim::Torch && m.len() == v.len(),
            Self::EightBit(c) => {
                let blocks = c.m.len().div_ceil(BLOCK);
                optim == Optim::EightBit
                    && c.v.len() == c.m.len()
                    && (c.absmax_m.len(), c.absmax_v.len()) == (blocks, blocks)
            }
        };
        if whole && self.len() == len {
            return Ok(());
        }
        let kind = match self {
            Self::Torch { .. } => Optim::Torch,
            Self::EightBit(_) => Optim::EightBit,
        };
        Err(Error::new(format!(
            "the optimizer state is {}'s, of {} numbers; {len} train with {}",
            kind.name(),
            self.len(),
            optim.name()
        ))
        .next("resume with the recipe that wrote the checkpoint"))
    }
}

/// One of them, with its state, over one arena.
#[derive(Debug)]
pub enum Optimizer {
    Torch(AdamW),
    EightBit(Box<AdamW8>),
}

impl Optimizer {
    /// Zero moments for `len` trainables.
    pub fn new(optim: Optim, len: usize, device: &Device) -> Result<Self> {
        let betas = (0.9, 0.999);
        Ok(match optim {
            Optim::Torch => Self::Torch(AdamW::with_len(len, device, betas, 1e-8, 0.0)?),
            Optim::EightBit => Self::EightBit(Box::new(AdamW8::with_len(len, betas, 1e-8, 0.0))),
        })
    }

    fn optim(&self) -> Optim {
        match self {
            Self::Torch(_) => Optim::Torch,
            Self::EightBit(_) => Optim::EightBit,
        }
    }

    /// One step over `values` with `grads · grad_scale` (both `[len]`, f32); `decay` lists the ranges under weight
    /// decay, in order and apart.
    pub fn step(
        &mut self,
        rule: &Rule,
        values: &Tensor,
        grads: &Tensor,
        decay: &[Range<usize>],
        grad_scale: f64,
    ) -> Result<()> {
        self.step_apart(rule, values, grads, decay, &[], grad_scale)
    }

    /// As [`Optimizer::step`]; what lies in `tables` (ranges in order and apart) steps at [`Rule::table_lr`].
    pub fn step_apart(
        &mut self,
        rule: &Rule,
        values: &Tensor,
        grads: &Tensor,
        decay: &[Range<usize>],
        tables: &[Range<usize>],
        grad_scale: f64,
    ) -> Result<()> {
        let apart = rule.table_lr.map(|lr| Apart { ranges: tables, lr });
        match self {
            Self::Torch(a) => {
                a.obey(rule);
                a.update_apart(values, grads, decay, apart, rule.lr, grad_scale)
            }
            Self::EightBit(a) => {
                a.obey(rule);
                a.update_apart(values, grads, decay, apart, rule.lr, grad_scale)
            }
        }
    }

    /// The moments, and the steps taken.
    pub fn moments(&self) -> Result<(Moments, u64)> {
        Ok(match self {
            Self::Torch(a) => (Moments::Torch { m: a.m.to_vec1()?, v: a.v.to_vec1()? }, a.t),
            Self::EightBit(a) => {
                let (m, v) = (a.m.clone(), a.v.clone());
                let codes = Codes { m, v, absmax_m: a.absmax_m.clone(), absmax_v: a.absmax_v.clone() };
                (Moments::EightBit(codes), a.t)
            }
        })
    }

    /// Put moments back as a checkpoint has them.
    ///
    /// # Errors
    /// Another optimizer's, or of another number of trainables.
    pub fn set_moments(&mut self, moments: &Moments, t: u64) -> Result<()> {
        let len = match self {
            Self::Torch(a) => a.m.elem_count(),
            Self::EightBit(a) => a.m.len(),
        };
        moments.fit(self.optim(), len)?;
        match (self, moments) {
            (Self::Torch(a), Moments::Torch { m, v }) => a.set_state(m, v, t),
            (Self::EightBit(a), Moments::EightBit(c)) => {
                a.m.copy_from_slice(&c.m);
                a.v.copy_from_slice(&c.v);
                a.absmax_m.copy_from_slice(&c.absmax_m);
                a.absmax_v.copy_from_slice(&c.absmax_v);
                a.t = t;
                Ok(())
            }
            _ => Err(Error::new("the optimizer state is another optimizer's")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::*;

    const RULE: Rule =
        Rule { lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, max_grad_norm: 0.0, table_lr: None };

    #[test]
    fn a_state_put_back_goes_on_to_the_bit() {
        for optim in [Optim::Torch, Optim::EightBit] {
            let n = 600;
            let g = |s: f64| wave(&[n], 0.9, s);
            let all = 0..n;
            let decay = std::slice::from_ref(&all);
            let mut one = Optimizer::new(optim, n, &Device::Cpu).unwrap();
            let w = wave(&[n], 0.7, 0.0);
            one.step(&RULE, &w, &g(0.0), decay, 1.0).unwrap();
            let (held, t) = one.moments().unwrap();
            let other = tensor(&f32s(&w), &[n]);
            one.step(&RULE, &w, &g(1.0), decay, 1.0).unwrap();
            let mut two = Optimizer::new(optim, n, &Device::Cpu).unwrap();
            two.set_moments(&held, t).unwrap();
            two.step(&RULE, &other, &g(1.0), decay, 1.0).unwrap();
            assert_eq!(f32s(&w), f32s(&other), "{optim:?}");
        }
    }

    #[test]
    fn a_state_of_another_optimizer_or_size_is_refused() {
        let of = |optim, n| Optimizer::new(optim, n, &Device::Cpu).unwrap();
        let (eight, _) = of(Optim::EightBit, 300).moments().unwrap();
        assert!(of(Optim::Torch, 300).set_moments(&eight, 1).unwrap_err().to_string().contains("adamw_8bit"));
        assert!(of(Optim::EightBit, 301).set_moments(&eight, 1).is_err());
        of(Optim::EightBit, 300).set_moments(&eight, 1).unwrap();
    }

    #[test]
    fn eight_bits_take_a_quarter_of_the_bytes() {
        assert_eq!((Optim::Torch.bytes(1024), Optim::EightBit.bytes(1024)), (8192, 2048 + 32));
    }
}
