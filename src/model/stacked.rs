//! gpt-oss's experts as its checkpoints store them: all of a layer in one tensor, gate and up in turn, in floats or in MXFP4.
//!
//! The rest of the program knows one matrix an expert, `[out, in]`, under names as Qwen's.

use super::convert::{Float, floats};
use crate::model::config::Config;
use crate::{Error, Result};
use safetensors::{Dtype, SafeTensors};

/// Where an expert's weight or bias lies.
pub(super) struct Place {
    /// The stack without its suffix: `model.layers.0.mlp.experts.gate_up_proj`.
    stack: String,
    bias: bool,
    expert: usize,
    /// Every `step`-th output from `first` on.
    first: usize,
    step: usize,
}

impl Place {
    /// The place of a weight by its name; `None` for one that has a tensor of its own.
    pub fn of(c: &Config, name: &str) -> Option<Self> {
        c.traits.experts.filter(|e| e.biased)?;
        let (before, rest) = name.split_once("mlp.experts.")?;
        let [expert, matrix, kind] = rest.split('.').collect::<Vec<_>>().try_into().ok()?;
        let (stack, first, step) = match matrix {
            "gate_proj" => ("gate_up_proj", 0, 2),
            "up_proj" => ("gate_up_proj", 1, 2),
            _ => (matrix, 0, 1),
        };
        let stack = format!("{before}mlp.experts.{stack}");
        Some(Self { stack, bias: kind == "bias", expert: expert.parse().ok()?, first, step })
    }

    /// The tensors that may hold it: in floats, or as blocks and scales.
    pub fn tensors(&self) -> Vec<String> {
        match self.bias {
            true => vec![format!("{}_bias", self.stack)],
            false => vec![self.stack.clone(), format!("{}_blocks", self.stack), format!("{}_scales", self.stack)],
        }
    }

    /// Its numbers, `[out, in]` or `[out]`, for `count` experts; `find` gives the shard that holds a tensor.
    pub fn read<'a>(
        &self,
        find: &dyn Fn(&str) -> Option<&'a SafeTensors<'a>>,
        count: usize,
        shape: &[usize],
    ) -> Result<Vec<f32>> {
        let rows = shape.first().copied().unwrap_or(0) * self.step;
        if self.bias {
            let stack = stack(find, &self.tensors()[0], &[count, rows])?;
            return Ok(self.outputs(&of_expert(&stack, self.expert, count), 1));
        }
        let columns = shape.get(1).copied().unwrap_or(0);
        if find(&self.stack).is_none() {
            return self.mxfp4(find, count, rows, columns);
        }
        // Inputs first: x · W, not x · Wᵀ.
        let stack = stack(find, &self.stack, &[count, columns, rows])?;
        let stored = of_expert(&stack, self.expert, count);
        let mut out = Vec::with_capacity(rows / self.step * columns);
        for row in (self.first..rows).step_by(self.step) {
            out.extend((0..columns).map(|column| stored[column * rows + row]));
        }
        Ok(out)
    }

    /// Rows `first`, `first + step` … of rows of `columns` numbers.
    fn outputs(&self, values: &[f32], columns: usize) -> Vec<f32> {
        values.chunks_exact(columns).skip(self.first).step_by(self.step).flatten().copied().collect()
    }

    fn mxfp4<'a>(
        &self,
        find: &dyn Fn(&str) -> Option<&'a SafeTensors<'a>>,
        count: usize,
        rows: usize,
        columns: usize,
    ) -> Result<Vec<f32>> {
        let groups = columns / GROUP;
        if !columns.is_multiple_of(GROUP) {
            return Err(Error::new(format!("{columns} inputs are no whole groups of {GROUP}")).at(&self.stack));
        }
        let bytes = |suffix: &str, shape: &[usize]| -> Result<&'a [u8]> {
            let name = format!("{}_{suffix}", self.stack);
            let view = find(&name).and_then(|s| s.tensor(&name).ok());
            let view = view.ok_or_else(|| Error::new("tensor is missing").at(&name))?;
            if view.dtype() != Dtype::U8 || view.shape() != shape {
                return Err(
                    Error::new(format!("{:?} {:?}, expected U8 {shape:?}", view.dtype(), view.shape())).at(name)
                );
            }
            let size = view.data().len() / count;
            Ok(&view.data()[self.expert * size..(self.expert + 1) * size])
        };
        let blocks = bytes("blocks", &[count, rows, groups, GROUP / 2])?;
        let scales = bytes("scales", &[count, rows, groups])?;
        Ok(self.outputs(&dequantize(blocks, scales), columns))
    }
}

/// Numbers that share a scale.
const GROUP: usize = 32;

/// MXFP4 (OCP Microscaling Formats v1.0): E2M1 numbers, the earlier in the low half of a byte, times 2^(scale − 127).
fn dequantize(blocks: &[u8], scales: &[u8]) -> Vec<f32> {
    const NUMBERS: [f32; 16] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];
    let mut out = Vec::with_capacity(2 * blocks.len());
    for (block, scale) in blocks.chunks_exact(GROUP / 2).zip(scales) {
        let scale = (f32::from(*scale) - 127.0).exp2();
        out.extend(block.iter().flat_map(|b| [b & 15, b >> 4]).map(|n| NUMBERS[usize::from(n)] * scale));
    }
    out
}

/// A stack in floats, its shape checked.
fn stack<'a>(
    find: &dyn Fn(&str) -> Option<&'a SafeTensors<'a>>,
    name: &str,
    shape: &[usize],
) -> Result<(&'a [u8], Float)> {
    let view = find(name).and_then(|s| s.tensor(name).ok());
    let view = view.ok_or_else(|| Error::new(format!("tensor {shape:?} is missing")).at(name))?;
    if view.shape() != shape {
        return Err(Error::new(format!("shape {:?}, but config.json asks for {shape:?}", view.shape())).at(name));
    }
    let kind = match view.dtype() {
        Dtype::F32 => Float::F32,
        Dtype::F16 => Float::F16,
        Dtype::BF16 => Float::BF16,
        other => return Err(Error::new(format!("stored as {other:?}, which is not supported")).at(name)),
    };
    Ok((view.data(), kind))
}

/// One expert's numbers out of a stack of `count`.
fn of_expert((bytes, kind): &(&[u8], Float), expert: usize, count: usize) -> Vec<f32> {
    let size = bytes.len() / count.max(1);
    bytes.get(expert * size..(expert + 1) * size).map_or_else(Vec::new, |own| floats(own, *kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mxfp4_is_what_transformers_makes_of_it() {
        // from transformers.integrations.mxfp4 import convert_moe_packed_tensors as f; b = torch.arange(32,dtype=torch.uint8)*7+3
        // f(b.reshape(1,1,2,16), torch.tensor([[[120,129]]],dtype=torch.uint8), dtype=torch.float32)[0,:,0][[0,1,2,3,30,31,32,33,63]]
        let blocks: Vec<u8> = (0..32u8).map(|i| i.wrapping_mul(7).wrapping_add(3)).collect();
        let found = dequantize(&blocks, &[120, 129]);
        let at = [0, 1, 2, 3, 30, 31, 32, 33, 63].map(|i: usize| found[i]);
        assert_eq!(at, [0.01171875, 0.0, -0.0078125, 0.0, -0.015625, 0.03125, 6.0, 24.0, -12.0]);
    }
}
