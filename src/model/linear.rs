//! A linear layer: one or several projections of the same input as one matrix, frozen or trained, with their adapters.

use super::config::Weights;
use super::dora::Dora;
use super::lora::{Context, Lora, LoraConfig};
use super::params::{Param, Params};
use crate::ops::arena;
use crate::ops::matmul::matmul_add_;
use crate::ops::matrix::Matrix;
use crate::ops::packed::Packed;
use crate::ops::residual::{add_bias_, add_bias_backward};
use crate::{Error, Result};
use candle_core::{DType, Tensor};

/// Take a weight out of a model's tensors, f32 and contiguous; complain unless it is there with this shape.
pub(super) fn take(weights: &mut Weights, name: &str, shape: &[usize]) -> Result<Tensor> {
    let Some(t) = weights.tensors.remove(name) else {
        return Err(Error::new(format!("the model has no tensor {name} (expected shape {shape:?})"))
            .next("the files are incomplete, or of an architecture that config.json does not describe"));
    };
    if t.dims() != shape {
        return Err(mismatch(name, t.dims(), shape));
    }
    Ok(t.to_dtype(DType::F32)?.contiguous()?)
}

fn mismatch(name: &str, found: &[usize], expected: &[usize]) -> Error {
    Error::new(format!("tensor {name} has shape {found:?}, expected {expected:?}"))
        .next("the weights and config.json do not belong together")
}

/// A weight, and its gradient where it trains: a vector, or a [`Matrix`].
#[derive(Debug)]
pub(super) struct Weight<V = Tensor> {
    pub value: V,
    pub grad: Option<Tensor>,
}

impl Weight {
    /// Take the named tensors, one under the other. Where `params` has them the values move there, else they stay frozen.
    pub fn load(weights: &mut Weights, params: &Params, parts: &[(String, Vec<usize>)]) -> Result<Self> {
        let names: Vec<String> = parts.iter().map(|(n, _)| n.clone()).collect();
        if let Some(Param { value, grad }) = params.param(&names)? {
            let mut at = 0;
            for (name, shape) in parts {
                let t = take(weights, name, shape)?;
                arena::copy_tensor_(&value.narrow(0, at, shape[0])?, &t)?;
                at += shape[0];
            }
            return Ok(Self { value, grad: Some(grad) });
        }
        let taken = parts.iter().map(|(n, s)| take(weights, n, s)).collect::<Result<Vec<_>>>()?;
        let value = match taken.as_slice() {
            [one] => one.clone(),
            several => Tensor::cat(several, 0)?,
        };
        Ok(Self { value, grad: None })
    }
}

impl Weight<Matrix> {
    /// As [`Weight::load`]; what is packed stays so, unless it trains.
    pub fn load_matrix(weights: &mut Weights, params: &Params, parts: &[(String, Vec<usize>)]) -> Result<Self> {
        let trains = parts.iter().any(|(name, _)| params.has(name));
        if trains || !parts.iter().any(|(name, _)| weights.packed.contains_key(name)) {
            for (name, _) in parts {
                if let Some(packed) = weights.packed.remove(name) {
                    weights.tensors.insert(name.clone(), packed.to_tensor()?);
                }
            }
            let Weight { value, grad } = Weight::load(weights, params, parts)?;
            return Ok(Self { value: Matrix::Dense(value), grad });
        }
        let taken = parts.iter().map(|(name, shape)| match weights.packed.remove(name) {
            Some(packed) if [packed.rows(), packed.cols()] == shape[..] => Ok(packed),
            Some(packed) => Err(mismatch(name, &[packed.rows(), packed.cols()], shape)),
            None => Packed::floats(&take(weights, name, shape)?),
        });
        Ok(Self { value: Matrix::Packed(Packed::stack(taken.collect::<Result<_>>()?)?), grad: None })
    }
}

/// Projections of one input. Output column `start..start + width` of the fused layer is the projection's own output.
#[derive(Debug)]
pub(super) struct Linear {
    weight: Weight<Matrix>,
    bias: Option<Weight>,
    lora: Option<Lora>,
    dora: Option<Dora>,
    /// (prefix, first output column, width) of each projection.
    projections: Vec<(String, usize, usize)>,
}

/// What the backward pass needs besides the input: the adapters' inner activations.
#[derive(Debug, Default)]
pub(super) struct Saved(Option<Tensor>);

impl Linear {
    /// Projections `(prefix, outputs)` of an input of `inputs` numbers, each with a bias where `biased`.
    pub fn new(
        weights: &mut Weights,
        params: &Params,
        lora: Option<&LoraConfig>,
        projections: &[(String, usize)],
        inputs: usize,
        biased: bool,
    ) -> Result<Self> {
        let parts: Vec<_> = projections.iter().map(|(p, out)| (format!("{p}.weight"), vec![*out, inputs])).collect();
        let mut at = 0;
        let placed: Vec<_> = projections
            .iter()
            .map(|(p, out)| {
                at += out;
                (p.clone(), at - out, *out)
            })
            .collect();
        let weight = Weight::load_matrix(weights, params, &parts)?;
        let bias = match biased {
            false => None,
            true => {
                let parts: Vec<_> = projections.iter().map(|(p, out)| (format!("{p}.bias"), vec![*out])).collect();
                Some(Weight::load(weights, params, &parts)?)
            }
        };
        let config_dora = lora.is_some_and(|l| l.dora);
        let lora = match lora {
            Some(config) => Lora::new(config, params, &placed)?,
            None => None,
        };
        let dora = match (&lora, config_dora) {
            (Some(l), true) => Some(Dora::new(&weight.value, l, params.version())?),
            _ => None,
        };
        Ok(Self { weight, bias, lora, dora, projections: placed })
    }

    /// `x [T, in]` to `y [T, out]`.
    pub fn forward(&self, x: &Tensor, c: &Context) -> Result<(Tensor, Saved)> {
        let y = self.weight.value.times_transposed(x)?;
        let inner = match (&self.lora, &self.dora) {
            (Some(lora), Some(dora)) if c.adapter => Some(dora.forward(&self.weight.value, lora, x, &y, c)?),
            (Some(lora), None) if c.adapter => Some(lora.forward(x, &y, c)?),
            _ => None,
        };
        if let Some(bias) = &self.bias {
            add_bias_(&y, &bias.value)?;
        }
        Ok((y, Saved(inner)))
    }

    /// Adds into what trains, given `dy [T, out]` and the forward pass's `x`; returns `dx [T, in]` where `wanted`.
    pub fn backward(
        &self,
        dy: &Tensor,
        x: &Tensor,
        saved: &Saved,
        wanted: bool,
        c: &Context,
    ) -> Result<Option<Tensor>> {
        if let (Some(lora), Some(dora), Some(inner)) = (&self.lora, &self.dora, &saved.0) {
            return dora.backward(&self.weight.value, lora, dy, x, inner, wanted, c);
        }
        let dx = if wanted { Some(self.weight.value.times(dy)?) } else { None };
        if let Some(grad) = &self.weight.grad {
            matmul_add_(grad, 1.0, &dy.t()?, x)?;
        }
        if let Some(grad) = self.bias.as_ref().and_then(|b| b.grad.as_ref()) {
            add_bias_backward(dy, grad)?;
        }
        if let (Some(lora), Some(inner)) = (&self.lora, &saved.0) {
            lora.backward(dy, x, inner, dx.as_ref(), c)?;
        }
        Ok(dx)
    }

    /// The projections' own weights and biases by name: views, or all of a packed matrix in f32.
    pub fn state(&self) -> Result<Vec<(String, Tensor)>> {
        let mut all = Vec::new();
        let weight = self.weight.value.to_tensor()?;
        let kinds = [Some(("weight", &weight)), self.bias.as_ref().map(|b| ("bias", &b.value))];
        for (kind, value) in kinds.into_iter().flatten() {
            for (p, start, width) in &self.projections {
                all.push((format!("{p}.{kind}"), value.narrow(0, *start, *width)?));
            }
        }
        Ok(all)
    }
}
