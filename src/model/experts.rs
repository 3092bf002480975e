//! A mixture of experts in place of a block's MLP: a router sends each token to a few of many small MLPs.
//!
//! The experts and the router carry no adapters: `all-linear` does not reach them in PEFT either, where both are
//! parameters and no linear layers.

use super::config::{Activation, Config, Experts as Description, Weights};
use super::linear::{Linear, Weight};
use super::lora::Context;
use super::params::Params;
use crate::ops::embedding::{gather, scatter_add_};
use crate::ops::matmul::matmul;
use crate::ops::moe::{Routes, route, route_backward, row_products, scale_rows_};
use crate::ops::residual::{add_bias_, add_bias_backward};
use crate::ops::swiglu::{swiglu, swiglu_backward_};
use crate::{Error, Result};
use candle_core::{DType, Tensor};

#[derive(Debug)]
pub(super) struct Experts {
    /// `n` to as many logits as there are experts.
    router: Linear,
    /// Gate and up, and down, of each.
    experts: Vec<(Linear, Down)>,
    is: Description,
    act: Activation,
}

/// An expert's last matrix. Its bias is added before the route's weight, so that it is apart.
#[derive(Debug)]
struct Down {
    matrix: Linear,
    bias: Option<(String, Weight)>,
}

/// What the backward pass needs besides the input.
pub(super) struct Saved {
    logits: Tensor,
    routes: Routes,
    /// Of each expert that was chosen: its number, the places (`token · k + slot`), and gate and up of their tokens, which
    /// the backward pass turns into their gradients.
    parts: Vec<(usize, Vec<usize>, Tensor)>,
    /// The gradient of the routes' weights, from the first half of going back.
    dweights: Vec<f32>,
}

/// An expert's matrices under a block: gate, up, down.
pub(super) fn names(expert: usize) -> [String; 3] {
    ["gate_proj", "up_proj", "down_proj"].map(|m| format!("mlp.experts.{expert}.{m}"))
}

impl Experts {
    pub fn new(weights: &mut Weights, params: &Params, is: Description, prefix: &str) -> Result<Self> {
        let Config { hidden_size: n, traits, .. } = weights.config.clone();
        let router = format!("{prefix}.{}", is.router);
        let router = Linear::new(weights, params, None, &[(router, is.count)], n, is.biased)?;
        let f = is.intermediate_size;
        let experts = (0..is.count)
            .map(|e| {
                let [gate, up, down] = names(e).map(|m| format!("{prefix}.{m}"));
                let gate_up = Linear::new(weights, params, None, &[(gate, f), (up, f)], n, is.biased)?;
                let bias = format!("{down}.bias");
                let matrix = Linear::new(weights, params, None, &[(down, n)], f, false)?;
                let bias = match is.biased {
                    true => Some((bias.clone(), Weight::load(weights, params, &[(bias, vec![n])])?)),
                    false => None,
                };
                Ok((gate_up, Down { matrix, bias }))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { router, experts, is, act: traits.activation })
    }

    fn expert(&self, e: usize) -> Result<&(Linear, Down)> {
        self.experts.get(e).ok_or_else(|| Error::new(format!("there is no expert {e}")))
    }

    /// The normed `x [T, n]` to its share of the residual stream.
    pub fn forward(&self, x: &Tensor, c: &Context) -> Result<(Tensor, Saved)> {
        let (logits, _) = self.router.forward(x, c)?;
        let routes = route(&logits, self.is.per_token, self.is.normalized)?;
        let y = Tensor::zeros(x.shape(), DType::F32, x.device())?;
        let mut parts = Vec::new();
        for (e, places) in routes.by_expert(self.is.count).into_iter().enumerate().filter(|(_, p)| !p.is_empty()) {
            let (gate_up, down) = self.expert(e)?;
            let (tokens, weights) = self.chosen(&routes, &places);
            let (inner, _) = gate_up.forward(&gather(x, &tokens)?, c)?;
            let (out, _) = down.matrix.forward(&swiglu(&inner, self.act)?, c)?;
            if let Some((_, bias)) = &down.bias {
                add_bias_(&out, &bias.value)?;
            }
            scale_rows_(&out, &weights)?;
            scatter_add_(&y, &tokens, &out)?;
            parts.push((e, places, inner));
        }
        let dweights = vec![0.0; routes.weights.len()];
        Ok((y, Saved { logits, routes, parts, dweights }))
    }

    /// The tokens of places, and their weights.
    fn chosen(&self, routes: &Routes, places: &[usize]) -> (Vec<u32>, Vec<f32>) {
        places.iter().map(|p| ((p / routes.per_token) as u32, routes.weights[*p])).unzip()
    }

    /// The first half of going back: from `dy [T, n]` to the gradients of gates and ups and of the routes' weights, which
    /// it leaves in `saved`.
    pub fn backward_inner(&self, dy: &Tensor, saved: &mut Saved, c: &Context) -> Result<()> {
        for (e, places, inner) in &saved.parts {
            let (_, down) = self.expert(*e)?;
            let (tokens, weights) = self.chosen(&saved.routes, places);
            let (dout, active) = (gather(dy, &tokens)?, swiglu(inner, self.act)?);
            let unweighted = active.copy()?;
            // The weight belongs to the product, so the matrix sees it on its input, and the input's gradient without it.
            scale_rows_(&active, &weights)?;
            let Some(dactive) = down.matrix.backward(&dout, &active, &Default::default(), true, c)? else { continue };
            for (place, d) in places.iter().zip(row_products(&dactive, &unweighted)?) {
                saved.dweights[*place] = d;
            }
            if let Some((_, bias)) = &down.bias {
                let all = matmul(&dout, &bias.value.reshape(((), 1))?)?;
                for (place, d) in places.iter().zip(all.flatten_all()?.to_vec1::<f32>()?) {
                    saved.dweights[*place] += d;
                }
                if let Some(grad) = &bias.grad {
                    scale_rows_(&dout, &weights)?;
                    add_bias_backward(&dout, grad)?;
                }
            }
            scale_rows_(&dactive, &weights)?;
            swiglu_backward_(inner, &dactive, self.act)?;
        }
        Ok(())
    }

    /// The second half: to the gradient of the normed `x`.
    pub fn backward(&self, x: &Tensor, saved: &Saved, c: &Context) -> Result<Tensor> {
        let dlogits = route_backward(&saved.logits, &saved.routes, &saved.dweights, self.is.normalized)?;
        let dx = self.router.backward(&dlogits, x, &Default::default(), true, c)?;
        let dx = dx.ok_or_else(|| Error::new("the router gave no gradient"))?;
        for (e, places, inner) in &saved.parts {
            let (gate_up, _) = self.expert(*e)?;
            let (tokens, _) = self.chosen(&saved.routes, places);
            if let Some(d) = gate_up.backward(inner, &gather(x, &tokens)?, &Default::default(), true, c)? {
                scatter_add_(&dx, &tokens, &d)?;
            }
        }
        Ok(dx)
    }

    pub fn state(&self) -> Result<Vec<(String, Tensor)>> {
        let mut all = self.router.state()?;
        for (gate_up, down) in &self.experts {
            all.extend(gate_up.state()?);
            all.extend(down.matrix.state()?);
            all.extend(down.bias.iter().map(|(name, bias)| (name.clone(), bias.value.clone())));
        }
        Ok(all)
    }
}
