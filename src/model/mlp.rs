//! A block's MLP: `down(act(gate(x)) · up(x))`, one for all tokens or a mixture of experts.

use super::block::linear;
use super::config::{Activation, Weights};
use super::experts::{self, Experts};
use super::linear::{Linear, Saved as Inner};
use super::lora::{Context, LoraConfig};
use super::params::Params;
use crate::Result;
use crate::ops::swiglu::{swiglu, swiglu_backward_};
use candle_core::Tensor;

#[derive(Debug)]
pub(super) enum Mlp {
    Dense(Dense),
    Experts(Experts),
}

#[derive(Debug)]
pub(super) struct Dense {
    gate_up: Linear,
    down: Linear,
    act: Activation,
}

/// What the backward pass needs besides the input.
pub(super) enum Saved {
    /// Gate and up, which the backward pass turns into their gradients.
    Dense(Tensor, [Inner; 2]),
    Experts(experts::Saved),
}

impl Mlp {
    pub fn new(weights: &mut Weights, params: &Params, lora: Option<&LoraConfig>, prefix: &str) -> Result<Self> {
        let c = weights.config.clone();
        if let Some(is) = c.traits.experts {
            return Ok(Mlp::Experts(Experts::new(weights, params, is, prefix)?));
        }
        let ([.., gate_up, down], [.., gate_up_bias, down_bias]) = (c.projections(), c.biases());
        Ok(Mlp::Dense(Dense {
            gate_up: linear(weights, params, lora, prefix, &gate_up, gate_up_bias)?,
            down: linear(weights, params, lora, prefix, &down, down_bias)?,
            act: c.traits.activation,
        }))
    }

    /// The normed `x [T, n]` to its share of the residual stream.
    pub fn forward(&self, x: &Tensor, c: &Context) -> Result<(Tensor, Saved)> {
        match self {
            Mlp::Dense(m) => {
                let (gate_up, inner_gate_up) = m.gate_up.forward(x, c)?;
                let (y, inner_down) = m.down.forward(&swiglu(&gate_up, m.act)?, c)?;
                Ok((y, Saved::Dense(gate_up, [inner_gate_up, inner_down])))
            }
            Mlp::Experts(m) => m.forward(x, c).map(|(y, saved)| (y, Saved::Experts(saved))),
        }
    }

    /// The first half of going back: from `dy [T, n]` to the gradient of gate and up, which it leaves in `saved`.
    pub fn backward_inner(&self, dy: &Tensor, saved: &mut Saved, c: &Context) -> Result<()> {
        match (self, saved) {
            (Mlp::Dense(m), Saved::Dense(gate_up, inner)) => {
                let active = swiglu(gate_up, m.act)?;
                if let Some(dactive) = m.down.backward(dy, &active, &inner[1], true, c)? {
                    swiglu_backward_(gate_up, &dactive, m.act)?;
                }
                Ok(())
            }
            (Mlp::Experts(m), Saved::Experts(saved)) => m.backward_inner(dy, saved, c),
            _ => Ok(()),
        }
    }

    /// The second half: to the gradient of the normed `x`.
    pub fn backward(&self, x: &Tensor, saved: &Saved, c: &Context) -> Result<Option<Tensor>> {
        match (self, saved) {
            (Mlp::Dense(m), Saved::Dense(gate_up, inner)) => m.gate_up.backward(gate_up, x, &inner[0], true, c),
            (Mlp::Experts(m), Saved::Experts(saved)) => m.backward(x, saved, c).map(Some),
            _ => Ok(None),
        }
    }

    pub fn state(&self) -> Result<Vec<(String, Tensor)>> {
        match self {
            Mlp::Dense(m) => Ok([m.gate_up.state()?, m.down.state()?].concat()),
            Mlp::Experts(m) => m.state(),
        }
    }
}
