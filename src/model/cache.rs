//! Keys and values of the tokens a model has already read, for decoding.

use crate::ops::arena;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};

/// One per conversation; belongs to the model that made it.
#[derive(Debug)]
pub struct KvCache {
    /// Per layer: keys and values, each `[capacity, kv_heads·head_dim]`, f32.
    pub(super) layers: Vec<(Tensor, Tensor)>,
    pub(super) len: usize,
    capacity: usize,
}

impl KvCache {
    pub(super) fn new(layers: usize, capacity: usize, width: usize, device: &Device) -> Result<Self> {
        let one = || Tensor::zeros((capacity, width), DType::F32, device);
        let layers = (0..layers).map(|_| Ok((one()?, one()?))).collect::<Result<_>>()?;
        Ok(Self { layers, len: 0, capacity })
    }

    /// Tokens read so far.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tokens it can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Another conversation that has read the same tokens, with room for `capacity`.
    pub fn fork(&self, capacity: usize) -> Result<Self> {
        if capacity < self.len {
            return Err(Error::new(format!("{} tokens do not fit in a cache of {capacity}", self.len)));
        }
        let copy = |t: &Tensor| -> Result<Tensor> {
            let new = Tensor::zeros((capacity, t.dim(1)?), DType::F32, t.device())?;
            if self.len > 0 {
                arena::copy_tensor_(&new.narrow(0, 0, self.len)?, &t.narrow(0, 0, self.len)?)?;
            }
            Ok(new)
        };
        let layers = self.layers.iter().map(|(k, v)| Ok((copy(k)?, copy(v)?))).collect::<Result<_>>()?;
        Ok(Self { layers, len: self.len, capacity })
    }

    /// Forget all but the first `len` tokens; more than there are is an error.
    pub fn truncate(&mut self, len: usize) -> Result<()> {
        if len > self.len {
            return Err(Error::new(format!("a cache of {} tokens cannot be cut to {len}", self.len)));
        }
        self.len = len;
        Ok(())
    }
}
