//! Reading logits off the card, and decoding.

use super::CudaLlama;
use crate::data::batch::{Batch, IGNORE};
use crate::ops::cuda::elementwise;
use crate::ops::cuda::gemm::{Mat, Out, Product};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use half::bf16;

/// What a conversation holds.
pub struct CudaCache {
    ids: Vec<u32>,
    capacity: usize,
}

impl CudaLlama {
    /// `[T, V]`, f32: all of them at once.
    pub fn logits(&self, batch: &Batch) -> Result<Tensor> {
        let rows = self.logits_of(batch, 0)?;
        let t = batch.ids.len();
        Ok(Tensor::from_vec(rows, (t, self.config.vocab_size), &Device::Cpu)?)
    }

    /// The logits of rows `from..`, f32.
    fn logits_of(&self, batch: &Batch, from: usize) -> Result<Vec<f32>> {
        self.gpu.bind()?;
        self.make_room(batch.ids.len())?;
        let up = self.upload(batch)?;
        let space = self.space.borrow();
        let Some((space, _)) = space.as_ref() else { return Err(Error::new("no room was made")) };
        let longest = batch.positions.iter().max().map_or(1, |p| *p as usize + 1);
        let p = self.pass(space, &up, longest, self.adapter.get())?;
        self.run(&p, &up)?;
        let (n, v, x) = (self.config.hidden_size, self.config.vocab_size, space.input(self.layers.len()));
        let sh = &space.shared;
        let mut all = Vec::with_capacity((up.tokens - from) * v);
        let mut at = from;
        while at < up.tokens {
            let m = space.plan.logits.min(up.tokens - at);
            elementwise::rms_norm(&self.gpu, x.part(at, 0), self.norm, sh.hidden, (m, n), p.eps, 0)?;
            // SAFETY: a chunk's buffers have a chunk's rows.
            unsafe {
                self.gemm.run(&Product {
                    size: (m, v, n),
                    a: sh.hidden,
                    ta: false,
                    b: Mat::new(self.head(), n),
                    tb: true,
                    alpha: 1.0,
                    c: None,
                    d: sh.logits,
                    out: Out::Bf16,
                })
            }?;
            let mut half = vec![0u16; m * sh.logits.ld];
            self.gpu.download(sh.logits.at, &mut half)?;
            for row in half.chunks(sh.logits.ld) {
                all.extend(row[..v].iter().map(|b| bf16::from_bits(*b).to_f32()));
            }
            at += m;
        }
        Ok(all)
    }

    /// Room for `capacity` tokens.
    pub fn new_cache(&self, _sequences: usize, capacity: usize) -> Result<CudaCache> {
        Ok(CudaCache { ids: Vec::new(), capacity })
    }

    /// Read `ids` after what `cache` holds; the logits `[V]` that follow the last.
    pub fn decode(&self, ids: &[u32], cache: &mut CudaCache) -> Result<Vec<f32>> {
        if ids.is_empty() || cache.ids.len() + ids.len() > cache.capacity {
            return Err(Error::new(format!("{} tokens do not fit in a cache of {}", ids.len(), cache.capacity)));
        }
        cache.ids.extend_from_slice(ids);
        let t = cache.ids.len();
        let batch = Batch {
            ids: cache.ids.clone(),
            positions: (0..t as u32).collect(),
            labels: vec![IGNORE; t],
            cu_seqlens: vec![0, t as u32],
            rows: vec![0],
        };
        self.logits_of(&batch, t - 1)
    }
}
