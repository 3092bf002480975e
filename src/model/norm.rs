//! A root-mean-square norm of a model: its weight, and what its family adds to it.

use super::config::{Config, Weights};
use super::linear::Weight;
use super::params::Params;
use crate::Result;
use crate::ops::rms_norm::{rms_norm, rms_norm_backward};
use candle_core::Tensor;

#[derive(Debug)]
pub(super) struct Norm {
    pub weight: Weight,
    plus: f32,
    eps: f64,
}

impl Norm {
    /// Over `hidden_size`, under its full name.
    pub fn load(weights: &mut Weights, params: &Params, name: String) -> Result<Self> {
        let Config { hidden_size, rms_norm_eps: eps, .. } = weights.config;
        let plus = weights.config.norm_offset();
        Ok(Self { weight: Weight::load(weights, params, &[(name, vec![hidden_size])])?, plus, eps })
    }

    /// `x [T, n]` to `(y [T, n], rstd [T])`.
    pub fn forward(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        rms_norm(x, &self.weight.value, self.plus, self.eps)
    }

    /// Adds into `dx [T, n]`, and into the weight's gradient where it trains.
    pub fn backward(&self, dy: &Tensor, x: &Tensor, rstd: &Tensor, dx: &Tensor) -> Result<()> {
        rms_norm_backward(dy, x, &self.weight.value, self.plus, rstd, dx, self.weight.grad.as_ref())
    }
}
