//! Everything that trains, in one flat f32 arena: one fused optimizer step, one norm, one blob in a checkpoint.
//!
//! Layers hold views of it. Must not know what the numbers are for.

use crate::ops::adamw::AdamW;
use crate::ops::arena;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One trainable tensor and its place in the arena.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// As Hugging Face and PEFT name it: `model.layers.0.self_attn.q_proj.lora_A.weight`, `model.embed_tokens.weight`.
    pub name: String,
    pub shape: Vec<usize>,
    pub range: Range<usize>,
    /// Whether weight decay applies: not to norms, as in transformers' `Trainer`.
    pub decay: bool,
}

/// A view of trainables and of their gradient: one entry, or several that lie side by side.
#[derive(Debug, Clone)]
pub(super) struct Param {
    pub value: Tensor,
    pub grad: Tensor,
}

/// The arena: entries in order, values and gradients.
#[derive(Debug)]
pub struct Params {
    entries: Vec<Entry>,
    index: HashMap<String, usize>,
    decayed: Vec<Range<usize>>,
    values: Tensor,
    grads: Tensor,
    /// Counts changes of the values, for what is worked out from them.
    version: Arc<AtomicU64>,
}

impl Params {
    /// An arena of zeros for tensors of these names, shapes and decay, in this order.
    pub(super) fn new(plan: Vec<(String, Vec<usize>, bool)>, device: &Device) -> Result<Self> {
        let mut at = 0;
        let entries: Vec<Entry> = plan
            .into_iter()
            .map(|(name, shape, decay)| {
                let range = at..at + shape.iter().product::<usize>();
                at = range.end;
                Entry { name, shape, range, decay }
            })
            .collect();
        let mut decayed: Vec<Range<usize>> = Vec::new();
        for e in entries.iter().filter(|e| e.decay) {
            match decayed.last_mut() {
                Some(last) if last.end == e.range.start => last.end = e.range.end,
                _ => decayed.push(e.range.clone()),
            }
        }
        let index = entries.iter().enumerate().map(|(i, e)| (e.name.clone(), i)).collect();
        let zeros = || Tensor::zeros(at, DType::F32, device);
        Ok(Self { entries, index, decayed, values: zeros()?, grads: zeros()?, version: Arc::default() })
    }

    /// The matrix (or vector) that the named entries make together, one under the other; `None` unless all are there
    /// and side by side.
    pub(super) fn param(&self, names: &[String]) -> Result<Option<Param>> {
        let found: Option<Vec<&Entry>> =
            names.iter().map(|n| self.index.get(n).and_then(|&i| self.entries.get(i))).collect();
        let Some((first, last)) = found.as_ref().and_then(|f| Some((f.first()?, f.last()?))) else { return Ok(None) };
        let (start, len) = (first.range.start, last.range.end - first.range.start);
        let mut shape = first.shape.clone();
        let row: usize = shape.iter().skip(1).product();
        if row == 0 || found.iter().flatten().map(|e| e.range.len()).sum::<usize>() != len {
            return Ok(None);
        }
        if let Some(rows) = shape.first_mut() {
            *rows = len / row;
        }
        let view = |arena: &Tensor| arena.narrow(0, start, len)?.reshape(shape.as_slice());
        Ok(Some(Param { value: view(&self.values)?, grad: view(&self.grads)? }))
    }

    /// Whether a tensor of this name trains.
    pub fn has(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// In arena order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The ranges under weight decay, in order and apart.
    pub fn decayed(&self) -> &[Range<usize>] {
        &self.decayed
    }

    /// Numbers that train.
    pub fn len(&self) -> usize {
        self.entries.last().map_or(0, |e| e.range.end)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy of all values, in arena order.
    pub fn values(&self) -> Result<Vec<f32>> {
        Ok(self.values.to_vec1()?)
    }

    /// Overwrite all values; as many as [`Params::len`].
    pub fn set_values(&self, values: &[f32]) -> Result<()> {
        if values.len() != self.len() {
            return Err(Error::new(format!("{} values were given, but {} parameters train", values.len(), self.len()))
                .next("the checkpoint was written with another model or other [lora] values"));
        }
        arena::copy_(&self.values, values)?;
        self.changed();
        Ok(())
    }

    /// Whoever changes values through [`Params::value_tensor`] says so here.
    pub fn changed(&self) {
        self.version.fetch_add(1, Ordering::Release);
    }

    /// The count of changes.
    pub(super) fn version(&self) -> Arc<AtomicU64> {
        self.version.clone()
    }

    /// Where the named entries lie, in order; those that are not there are left out.
    pub fn ranges(&self, names: &[&str]) -> Vec<Range<usize>> {
        let named = self.entries.iter().filter(|e| names.contains(&e.name.as_str()));
        named.map(|e| e.range.clone()).collect()
    }

    /// A copy of all gradients, in arena order.
    pub fn grads(&self) -> Result<Vec<f32>> {
        Ok(self.grads.to_vec1()?)
    }

    pub fn zero_grad(&self) -> Result<()> {
        arena::zero_(&self.grads)
    }

    /// L2 norm over all gradients.
    pub fn grad_norm(&self) -> Result<f64> {
        arena::l2(&self.grads)
    }

    /// `[len]`, f32.
    pub fn value_tensor(&self) -> &Tensor {
        &self.values
    }

    /// `[len]`, f32.
    pub fn grad_tensor(&self) -> &Tensor {
        &self.grads
    }
}

impl AdamW {
    /// Zero moments for these parameters.
    pub fn new(params: &Params, (beta1, beta2): (f64, f64), eps: f64, weight_decay: f64) -> Result<Self> {
        Self::with_len(params.len(), params.values.device(), (beta1, beta2), eps, weight_decay)
    }

    /// One step at learning rate `lr`, every gradient multiplied by `grad_scale` (the clipping factor).
    pub fn step(&mut self, params: &Params, lr: f64, grad_scale: f64) -> Result<()> {
        self.update(&params.values, &params.grads, &params.decayed, lr, grad_scale)?;
        params.changed();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Params {
        let plan =
            vec![("a".to_string(), vec![2, 3], true), ("b".into(), vec![1, 3], true), ("n".into(), vec![2], false)];
        Params::new(plan, &Device::Cpu).unwrap()
    }

    #[test]
    fn neighbours_make_one_matrix_and_strangers_none() {
        let p = two();
        p.set_values(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]).unwrap();
        let ab = p.param(&["a".into(), "b".into()]).unwrap().unwrap();
        assert_eq!(ab.value.to_vec2::<f32>().unwrap(), [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0], [6.0, 7.0, 8.0]]);
        assert_eq!(p.param(&["n".into()]).unwrap().unwrap().value.to_vec1::<f32>().unwrap(), [9.0, 10.0]);
        assert!(p.param(&["a".into(), "c".into()]).unwrap().is_none());
    }

    #[test]
    fn decay_skips_the_norms() {
        let p = two();
        p.set_values(&[1.0; 11]).unwrap();
        AdamW::new(&p, (0.9, 0.999), 1e-8, 0.5).unwrap().step(&p, 0.1, 1.0).unwrap();
        let v = p.values().unwrap();
        assert_eq!((v[0], v[8], v[9]), (0.95, 0.95, 1.0));
        assert!(p.set_values(&[1.0; 10]).is_err());
    }
}
