//! Generation on a card: a cache of keys and values for a batch of sequences, prompts into it, then a token a sequence
//! and step; and logits for whoever wants to see them.

use super::layer::{Pass, Reads};
use super::workspace::Workspace;
use super::{CudaLlama, Uploaded};
use crate::data::batch::{Batch, IGNORE};
use crate::ops::cuda::attention::{Cached, Shape};
use crate::ops::cuda::device::{Buffer, Gpu, Graph};
use crate::ops::cuda::elementwise;
use crate::ops::cuda::gemm::{Mat, Out, Product};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use half::bf16;

/// Keys and values of the tokens that `batch` sequences hold; belongs to the model that made it.
pub struct CudaCache {
    shape: Shape,
    batch: usize,
    capacity: usize,
    splits: usize,
    /// Keys of all layers, then values: `[layers, batch, capacity, K·D]` each.
    held: Buffer,
    layers: usize,
    /// i32 lengths, then u32 positions and ids, `[batch]` each; then slots.
    state: Buffer,
    partial: Buffer,
    counters: Buffer,
    /// What the host knows of the lengths.
    lengths: Vec<usize>,
    logits: Buffer,
}

const CACHE: &str = "cache";

impl CudaCache {
    fn row_bytes(&self) -> usize {
        2 * self.shape.kv_heads * self.shape.head_dim
    }

    /// What attention needs of one layer.
    pub(super) fn layer(&self, layer: usize, window: usize) -> Cached {
        let one = (self.batch * self.capacity * self.row_bytes()) as u64;
        Cached {
            shape: Shape { window, ..self.shape },
            batch: self.batch,
            capacity: self.capacity,
            keys: self.held.at() + one * layer as u64,
            values: self.held.at() + one * (self.layers + layer) as u64,
            lengths: self.state.at(),
            partial: self.partial.at(),
            counters: self.counters.at(),
            splits: self.splits,
        }
    }

    fn positions(&self) -> u64 {
        self.state.at() + 4 * self.batch as u64
    }

    fn ids(&self) -> u64 {
        self.state.at() + 8 * self.batch as u64
    }

    /// Tokens that the longest sequence holds.
    pub fn len(&self) -> usize {
        self.lengths.iter().copied().max().unwrap_or(0)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl CudaLlama {
    /// Room for `batch` sequences of `capacity` tokens.
    pub fn new_cache(&self, batch: usize, capacity: usize) -> Result<CudaCache> {
        let shape = self.attention();
        let splits = Cached::splits_for(&self.gpu, &shape, batch);
        let layers = self.layers.len();
        let zeros = |bytes| self.gpu.zeros(CACHE, bytes);
        let row = 2 * shape.kv_heads * shape.head_dim;
        let v = self.config.vocab_size.next_multiple_of(8);
        Ok(CudaCache {
            shape,
            batch,
            capacity,
            splits,
            held: zeros(2 * layers * batch * capacity * row)?,
            layers,
            state: zeros(12 * batch)?,
            partial: zeros(4 * batch * shape.heads * splits * (shape.head_dim + 2))?,
            counters: zeros(4 * batch * Cached::pieces(&shape))?,
            lengths: vec![0; batch],
            logits: zeros(2 * batch * v)?,
        })
    }

    /// `[T, V]`, f32: all of them at once.
    pub fn logits(&self, batch: &Batch) -> Result<Tensor> {
        let (up, space) = (self.ready(batch)?, self.space.borrow());
        let space = space_of(&space)?;
        let p = self.pass(space, &up, longest(batch), self.adapter.get())?;
        self.run(&p, up.ids)?;
        let mut rows = Vec::with_capacity(up.tokens * self.config.vocab_size);
        let chunk = space.plan.logits;
        for at in (0..up.tokens).step_by(chunk) {
            let m = chunk.min(up.tokens - at);
            self.head_of(&p, space.input(self.layers.len()).part(at, 0), m, space.shared.logits)?;
            self.read(space.shared.logits.at, m, &mut rows)?;
        }
        Ok(Tensor::from_vec(rows, (up.tokens, self.config.vocab_size), &Device::Cpu)?)
    }

    /// Make room and put the batch on the card.
    fn ready(&self, batch: &Batch) -> Result<Uploaded> {
        self.gpu.bind()?;
        self.make_room(batch.ids.len())?;
        self.upload(batch)
    }

    /// Logits of `m` rows of the last block's output into `to`.
    fn head_of(&self, p: &Pass, x: Mat, m: usize, to: Mat) -> Result<()> {
        let (n, v, hidden) = (self.config.hidden_size, self.config.vocab_size, p.space.shared.hidden);
        elementwise::rms_norm(&self.gpu, x, self.norm, hidden, (m, n), p.eps, 0)?;
        // SAFETY: `hidden` has as many rows as there are logits at a time, and `to` has m.
        unsafe {
            self.gemm.run(&Product {
                size: (m, v, n),
                a: hidden,
                ta: false,
                b: Mat::new(self.head(), n),
                tb: true,
                alpha: 1.0,
                c: None,
                d: to,
                out: Out::Bf16,
                scales: None,
            })
        }?;
        elementwise::softcap(&self.gpu, to, (m, v), self.softcap())
    }

    /// Rows of logits off the card, as f32.
    fn read(&self, at: u64, rows: usize, into: &mut Vec<f32>) -> Result<()> {
        let (v, ld) = (self.config.vocab_size, self.config.vocab_size.next_multiple_of(8));
        let mut half = vec![0u16; rows * ld];
        self.gpu.download(at, &mut half)?;
        for row in half.chunks(ld) {
            into.extend(row[..v].iter().map(|b| bf16::from_bits(*b).to_f32()));
        }
        Ok(())
    }

    /// Read `ids` (a prompt, or one token) after what the cache of one sequence holds; the logits `[V]` that follow.
    pub fn decode(&self, ids: &[u32], cache: &mut CudaCache) -> Result<Vec<f32>> {
        if cache.batch != 1 || ids.is_empty() {
            return Err(Error::new("decoding needs at least one token, and a cache of one sequence"));
        }
        let mut logits = Vec::with_capacity(self.config.vocab_size);
        if cache.is_empty() && ids.len() > 1 {
            self.prompts(std::slice::from_ref(&ids.to_vec()), cache)?;
        } else {
            for id in ids {
                self.set_next(&[*id], cache)?;
                self.next(cache)?;
            }
        }
        self.read(cache.logits.at(), 1, &mut logits)?;
        Ok(logits)
    }

    /// Read a prompt a sequence into an empty cache; leaves the logits that follow in it.
    pub fn prompts(&self, prompts: &[Vec<u32>], cache: &mut CudaCache) -> Result<()> {
        if prompts.len() != cache.batch || prompts.iter().any(|p| p.is_empty() || p.len() > cache.capacity) {
            return Err(Error::new(format!("{} prompts do not fit in a cache of {}", prompts.len(), cache.batch))
                .next("ask for fewer new tokens, or raise max_seq_length"));
        }
        let ld = self.config.vocab_size.next_multiple_of(8);
        for (sequence, prompt) in prompts.iter().enumerate() {
            let t = prompt.len();
            let batch = Batch {
                ids: prompt.clone(),
                positions: (0..t as u32).collect(),
                labels: vec![IGNORE; t],
                cu_seqlens: vec![0, t as u32],
                rows: vec![0],
            };
            let (up, space) = (self.ready(&batch)?, self.space.borrow());
            let space = space_of(&space)?;
            let slots: Vec<[i32; 2]> = (0..t as i32).map(|i| [sequence as i32, i]).collect();
            let on_card = self.gpu.zeros(CACHE, 8 * t)?;
            on_card.upload(0, &slots)?;
            let reads = Reads::Prompt(up.packed, cache, on_card.at());
            let p = self.pass_over(space, reads, up.positions, t, cache.capacity, self.adapter.get())?;
            self.run(&p, up.ids)?;
            let to = Mat::new(cache.logits.at() + (2 * sequence * ld) as u64, ld);
            self.head_of(&p, space.input(self.layers.len()).part(t - 1, 0), 1, to)?;
            self.gpu.wait()?;
        }
        cache.lengths = prompts.iter().map(Vec::len).collect();
        self.tell_lengths(cache)
    }

    fn tell_lengths(&self, cache: &CudaCache) -> Result<()> {
        let lengths: Vec<u32> = cache.lengths.iter().map(|n| *n as u32).collect();
        cache.state.upload(0, &lengths)?;
        cache.state.upload(4 * cache.batch, &lengths)
    }

    /// The token that each sequence reads next.
    pub fn set_next(&self, ids: &[u32], cache: &CudaCache) -> Result<()> {
        self.gpu.bind()?;
        match ids.iter().find(|id| **id as usize >= self.config.vocab_size) {
            Some(id) => Err(Error::new(format!("token {id} is beyond the vocabulary of {}", self.config.vocab_size))),
            None => cache.state.upload(8 * cache.batch, ids),
        }
    }

    /// Every sequence reads its next token; leaves the logits that follow in the cache. Waits for nothing.
    pub fn next(&self, cache: &mut CudaCache) -> Result<()> {
        if cache.len() >= cache.capacity {
            return Err(Error::new(format!("{} tokens do not fit in a cache of {}", cache.len() + 1, cache.capacity))
                .next("ask for fewer new tokens, or raise max_seq_length"));
        }
        self.gpu.bind()?;
        self.make_room(cache.batch)?;
        self.step_over(cache)?;
        cache.lengths.iter_mut().for_each(|n| *n += 1);
        Ok(())
    }

    /// One step of every sequence, all on the card.
    fn step_over(&self, cache: &CudaCache) -> Result<()> {
        let space = self.space.borrow();
        let space = space_of(&space)?;
        let b = cache.batch;
        let p = self.pass_over(space, Reads::Cache(cache), cache.positions(), b, cache.capacity, self.adapter.get())?;
        self.run(&p, cache.ids())?;
        let ld = self.config.vocab_size.next_multiple_of(8);
        self.head_of(&p, space.input(self.layers.len()), b, Mat::new(cache.logits.at(), ld))?;
        elementwise::advance(&self.gpu, cache.state.at(), cache.positions(), b)
    }

    /// Draw `count` more tokens for every sequence at `temperature` (0: the likeliest), all on the card: one graph, launched
    /// once a token. The tokens, a list a sequence.
    pub fn draw(&self, cache: &mut CudaCache, count: usize, temperature: f64, seed: u64) -> Result<Vec<Vec<u32>>> {
        if cache.is_empty() || cache.len() + count > cache.capacity {
            return Err(Error::new(format!("{count} more tokens do not fit in a cache of {}", cache.capacity)));
        }
        self.gpu.bind()?;
        self.make_room(cache.batch)?;
        let b = cache.batch;
        let ld = self.config.vocab_size.next_multiple_of(8);
        let drawn = self.gpu.zeros(CACHE, 4 * b * count.max(1))?;
        let pick = |gpu: &Gpu| {
            let logits = Mat::new(cache.logits.at(), ld);
            elementwise::pick(
                gpu,
                logits,
                (b, self.config.vocab_size),
                temperature,
                seed,
                cache.state.at(),
                cache.ids(),
            )
        };
        let mut graph: Option<Graph> = None;
        for i in 0..count {
            match &graph {
                // The first step finds its products' algorithms; the second is recorded.
                None if i == 0 => {
                    pick(&self.gpu)?;
                    self.step_over(cache)?;
                }
                None => {
                    let recorded = self.gpu.record(|| {
                        pick(&self.gpu)?;
                        self.step_over(cache)
                    })?;
                    recorded.launch()?;
                    graph = Some(recorded);
                }
                Some(graph) => graph.launch()?,
            }
            self.gpu.copy(cache.ids(), drawn.at() + (4 * b * i) as u64, 4 * b)?;
        }
        let mut all = vec![0u32; b * count];
        drawn.download(0, &mut all)?;
        cache.lengths.iter_mut().for_each(|n| *n += count);
        Ok((0..b).map(|s| (0..count).map(|i| all[i * b + s]).collect()).collect())
    }
}

fn longest(batch: &Batch) -> usize {
    batch.positions.iter().max().map_or(1, |p| *p as usize + 1)
}

fn space_of(space: &Option<(Workspace, Option<super::Offload>)>) -> Result<&Workspace> {
    space.as_ref().map(|(w, _)| w).ok_or_else(|| Error::new("no room was made"))
}
