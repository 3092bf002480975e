//! Passes whose loss is any function of the labels' log-probabilities: what DPO and GRPO ask of a card.
//!
//! The head is computed twice: once for the log-probabilities, once for the gradient at the weights that they were given;
//! logits exist for a chunk of rows at a time, both times.

use super::workspace::Workspace;
use super::{BATCH, CudaLlama, Uploaded};
use crate::data::batch::Batch;
use crate::model::engine::{Voice, Weighed};
use crate::model::llama::Weighted;
use crate::ops::cross_entropy::LogProbabilities;
use crate::ops::cuda::device::Buffer;
use crate::ops::cuda::elementwise;
use crate::ops::cuda::gemm::{Mat, Out, Product};
use crate::{Error, Result};

impl CudaLlama {
    /// As [`crate::model::engine::Engine::weighted_backward`]. Waits for the card once, for the log-probabilities.
    pub fn weighted_backward(
        &self,
        batch: &Batch,
        of: Weighted,
        weigh: &mut dyn FnMut(&LogProbabilities) -> Result<Weighed>,
    ) -> Result<()> {
        if batch.label_tokens() == 0 {
            return Ok(());
        }
        let mut loss = 0.0;
        self.there_and_back(batch, &mut |space, up, x| {
            let chances = self.chances(space, up, x, of)?;
            let weighed = weigh(&chances)?;
            loss = weighed.loss;
            if weighed.weights.len() != up.labelled {
                return Err(Error::new(format!("{} weights for {} labels", weighed.weights.len(), up.labelled)));
            }
            // The kernel's gradient is that of the negative log-likelihood, by logits already over the temperature.
            let weights: Vec<f32> = weighed.weights.iter().map(|w| (-w / of.temperature) as f32).collect();
            let on_card = self.gpu.zeros(BATCH, 4 * weights.len())?;
            on_card.upload(0, &weights)?;
            let d = space.stream;
            elementwise::clear(&self.gpu, d.at, 2 * up.tokens * d.ld)?;
            self.chunks(space, up, x, of.temperature, &mut |at, m, rows| {
                let (n, v, sh) = (self.config.hidden_size, self.config.vocab_size, &space.shared);
                let (labels, nll) = (up.labels + 4 * at as u64, space.nll + 4 * at as u64);
                let cap = self.softcap() / of.temperature as f32;
                let weights = on_card.at() + 4 * at as u64;
                elementwise::cross_entropy(&self.gpu, sh.logits, labels, nll, (m, v), 1.0, cap, weights)?;
                let head = Mat::new(self.head(), n);
                // SAFETY: a chunk's buffers have a chunk's rows.
                unsafe { self.gemm.run(&product((m, n, v), sh.logits, head, false, 1.0, sh.dhidden)) }?;
                let eps = self.config.rms_norm_eps;
                elementwise::rms_norm_backward(&self.gpu, sh.dhidden, x, self.norm, d, (m, n), eps, rows)
            })?;
            // The weights are read in stream order; their place must last as long.
            self.gpu.wait()
        })?;
        let sum = self.nll()? + loss;
        self.sums.upload(0, &[sum])
    }

    /// As [`crate::model::engine::Engine::log_probabilities`].
    pub fn log_probabilities(&self, batches: &[Batch], of: Weighted, voice: Voice) -> Result<Vec<LogProbabilities>> {
        let all = |adapter: bool| batches.iter().map(|b| self.said(b, of, adapter)).collect();
        match voice {
            Voice::Policy => all(self.adapter.get()),
            Voice::Base => all(false),
            Voice::Values(values) => {
                let own = self.values()?;
                self.put_values(values)?;
                let said = all(true);
                self.put_values(&own)?;
                said
            }
        }
    }

    fn values(&self) -> Result<Vec<f32>> {
        let mut values = vec![0f32; self.params.len()];
        self.arena.values.download(0, &mut values)?;
        Ok(values)
    }

    fn put_values(&self, values: &[f32]) -> Result<()> {
        self.gpu.bind()?;
        self.arena.values.upload(0, values)?;
        self.spread()
    }

    fn said(&self, batch: &Batch, of: Weighted, adapter: bool) -> Result<LogProbabilities> {
        if batch.label_tokens() == 0 {
            return Ok(LogProbabilities::default());
        }
        self.gpu.bind()?;
        self.make_room(batch.ids.len())?;
        let up = self.upload(batch)?;
        let space = self.space.borrow();
        let Some((space, _)) = space.as_ref() else { return Err(Error::new("no room was made")) };
        let longest = batch.positions.iter().max().map_or(1, |p| *p as usize + 1);
        let p = self.pass(space, &up, longest, adapter)?;
        self.run(&p, up.ids)?;
        self.chances(space, &up, space.input(self.layers.len()), of)
    }

    /// Log-probabilities of the labels given the last block's output `x [T, n]`.
    fn chances(&self, space: &Workspace, up: &Uploaded, x: Mat, of: Weighted) -> Result<LogProbabilities> {
        let entropies: Option<Buffer> = match of.entropies {
            true => Some(self.gpu.zeros(BATCH, 4 * up.labelled)?),
            false => None,
        };
        let v = self.config.vocab_size;
        self.chunks(space, up, x, of.temperature, &mut |at, m, _| {
            let (labels, nll, logits) = (up.labels + 4 * at as u64, space.nll + 4 * at as u64, space.shared.logits);
            if let Some(out) = &entropies {
                elementwise::entropy(&self.gpu, logits, (m, v), out.at() + 4 * at as u64)?;
            }
            elementwise::cross_entropy(&self.gpu, logits, labels, nll, (m, v), 0.0, 0.0, 0)
        })?;
        let mut all = LogProbabilities { labels: vec![0.0; up.labelled], entropies: Vec::new() };
        self.gpu.download(space.nll, &mut all.labels)?;
        all.labels.iter_mut().for_each(|l| *l = -*l);
        if let Some(out) = &entropies {
            all.entropies = vec![0.0; up.labelled];
            out.download(0, &mut all.entropies)?;
        }
        Ok(all)
    }

    /// Logits over the temperature, a chunk of labelled rows at a time: `then` gets the first row, their number, and the
    /// address of the rows' numbers.
    fn chunks(
        &self,
        space: &Workspace,
        up: &Uploaded,
        x: Mat,
        temperature: f64,
        then: &mut dyn FnMut(usize, usize, u64) -> Result<()>,
    ) -> Result<()> {
        let (n, v, eps) = (self.config.hidden_size, self.config.vocab_size, self.config.rms_norm_eps);
        let (gpu, sh) = (&self.gpu, &space.shared);
        let _part = gpu.scope("loss");
        for at in (0..up.labelled).step_by(space.plan.logits) {
            let m = space.plan.logits.min(up.labelled - at);
            let rows = up.rows + 4 * at as u64;
            elementwise::rms_norm(gpu, x, self.norm, sh.hidden, (m, n), eps, rows)?;
            let cold = (1.0 / temperature) as f32;
            // SAFETY: a chunk's buffers have a chunk's rows.
            unsafe { self.gemm.run(&product((m, v, n), sh.hidden, Mat::new(self.head(), n), true, cold, sh.logits)) }?;
            elementwise::softcap(gpu, sh.logits, (m, v), self.softcap() * cold)?;
            then(at, m, rows)?;
        }
        Ok(())
    }
}

fn product(size: (usize, usize, usize), a: Mat, b: Mat, tb: bool, alpha: f32, d: Mat) -> Product {
    Product { size, a, ta: false, b, tb, alpha, c: None, d, out: Out::Bf16, scales: None }
}
