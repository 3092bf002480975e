//! A block's MLP: `down(act(gate(x)) · up(x))`.

use super::block::linear;
use super::config::{Activation, Weights};
use super::linear::{Linear, Saved as Inner};
use super::lora::{Context, LoraConfig};
use super::params::Params;
use crate::Result;
use crate::ops::swiglu::{swiglu, swiglu_backward_};
use candle_core::Tensor;

#[derive(Debug)]
pub(super) struct Mlp {
    gate_up: Linear,
    down: Linear,
    act: Activation,
}

/// What the backward pass needs besides the input.
pub(super) struct Saved {
    /// Gate and up; the backward pass turns them into their gradients.
    gate_up: Tensor,
    inner: [Inner; 2],
}

impl Mlp {
    pub fn new(weights: &mut Weights, params: &Params, lora: Option<&LoraConfig>, prefix: &str) -> Result<Self> {
        let c = weights.config.clone();
        let ([.., gate_up, down], [.., gate_up_bias, down_bias]) = (c.projections(), c.biases());
        Ok(Self {
            gate_up: linear(weights, params, lora, prefix, &gate_up, gate_up_bias)?,
            down: linear(weights, params, lora, prefix, &down, down_bias)?,
            act: c.traits.activation,
        })
    }

    /// The normed `x [T, n]` to its share of the residual stream.
    pub fn forward(&self, x: &Tensor, c: &Context) -> Result<(Tensor, Saved)> {
        let (gate_up, inner_gate_up) = self.gate_up.forward(x, c)?;
        let (y, inner_down) = self.down.forward(&swiglu(&gate_up, self.act)?, c)?;
        Ok((y, Saved { gate_up, inner: [inner_gate_up, inner_down] }))
    }

    /// The first half of going back: from `dy [T, n]` to the gradient of gate and up, which it leaves in `saved`.
    pub fn backward_inner(&self, dy: &Tensor, saved: &Saved, c: &Context) -> Result<()> {
        let active = swiglu(&saved.gate_up, self.act)?;
        if let Some(dactive) = self.down.backward(dy, &active, &saved.inner[1], true, c)? {
            swiglu_backward_(&saved.gate_up, &dactive, self.act)?;
        }
        Ok(())
    }

    /// The second half: to the gradient of the normed `x`.
    pub fn backward(&self, x: &Tensor, saved: &Saved, c: &Context) -> Result<Option<Tensor>> {
        self.gate_up.backward(&saved.gate_up, x, &saved.inner[0], true, c)
    }

    pub fn state(&self) -> Result<Vec<(String, Tensor)>> {
        Ok([self.gate_up.state()?, self.down.state()?].concat())
    }
}
