//! Llama and its kin, as a [`Config`] describes them: training passes with explicit gradients, evaluation, and decoding.

use super::block::{Block, Place, Saved, projections};
use super::cache::KvCache;
use super::config::{Config, Rope, Weights};
use super::linear::Weight;
use super::lora::{self, Context, LoraConfig, Tuning};
use super::norm::Norm;
use super::params::Params;
use crate::data::batch::{Batch, IGNORE};
use crate::ops::cross_entropy::{self, Gradients, LogProbabilities, cross_entropy, softcap_};
use crate::ops::embedding::{gather, scatter_add_};
use crate::ops::matrix::Matrix;
use crate::ops::noise::noise_;
use crate::ops::random::Stream;
use crate::ops::residual::scale_;
use crate::ops::rope::Rotary;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};

const EMBEDDING: &str = "model.embed_tokens.weight";
/// What may step at a rate of its own.
pub(super) const TABLES: [&str; 2] = [EMBEDDING, HEAD];
/// The number of the noise on embeddings in random streams, beyond every layer's dropout.
const NOISE: u32 = u32::MAX - 1;
const NORM: &str = "model.norm.weight";
const HEAD: &str = "lm_head.weight";

/// The random streams of a pass, and what it keeps for going back.
#[derive(Debug, Clone, Copy)]
pub struct Pass {
    pub seed: u64,
    pub step: u64,
    /// The accumulation step within the optimizer step.
    pub micro: u64,
    pub checkpointing: Checkpointing,
}

/// What the log-probabilities of a weighted pass are.
#[derive(Debug, Clone, Copy)]
pub struct Weighted {
    /// The logits are divided by it.
    pub temperature: f64,
    /// Whether each row's entropy is wanted too.
    pub entropies: bool,
}

/// What a training pass keeps of the way forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checkpointing {
    /// What each block's backward pass needs.
    Off,
    /// The blocks' inputs only; the rest is computed again, to the same bits.
    Full,
}

/// What a block leaves behind.
enum Kept {
    All(Box<Saved>),
    Input(Tensor),
}

/// A decoder with what trains of it.
pub struct Llama {
    config: Config,
    params: Params,
    tuning: Tuning,
    embedding: Weight<Matrix>,
    blocks: Vec<Block>,
    norm: Norm,
    /// None where the embedding is the head.
    head: Option<Weight<Matrix>>,
    rotary: Rotary,
    /// The angles of layers that turn by their own, where there are such.
    local: Option<Rotary>,
    adapter: bool,
    /// Embedding and head as they were, where they train beside adapters.
    base: [Option<Matrix>; 2],
    /// NEFTune's alpha.
    neftune: Option<f64>,
    device: Device,
    total: u64,
}

/// Names, shapes and decay of what trains, in arena order: projections of one input side by side, their A matrices too.
pub(super) fn plan(c: &Config, tuning: &Tuning) -> Vec<(String, Vec<usize>, bool)> {
    let mut plan = Vec::new();
    let table = vec![c.vocab_size, c.hidden_size];
    let saves = |which| matches!(tuning, Tuning::Lora(l) if l.saves(which, c));
    if *tuning == Tuning::Full || saves(0) {
        plan.push((EMBEDDING.to_string(), table.clone(), true));
    }
    for layer in 0..c.num_hidden_layers {
        let prefix = format!("model.layers.{layer}");
        match tuning {
            Tuning::None => {}
            Tuning::Full => {
                let prefix = format!("{prefix}.");
                plan.extend(c.matrices(&prefix).into_iter().map(|(n, shape)| (n, shape, true)));
                plan.extend(c.vectors(&prefix).into_iter().map(|(n, shape)| (n, shape, false)));
            }
            Tuning::Lora(l) => {
                for mut group in projections(c) {
                    group.retain(|(name, ..)| l.targets(layer, &format!("{prefix}.{name}")));
                    let names: Vec<_> =
                        group.iter().map(|(name, ..)| lora::names(&format!("{prefix}.{name}"))).collect();
                    let a = names.iter().zip(&group).map(|((a, _), g)| (a.clone(), vec![l.r, g.2], true));
                    let b = names.iter().zip(&group).map(|((_, b), g)| (b.clone(), vec![g.1, l.r], true));
                    let prefixes = group.iter().map(|(name, out, _)| (format!("{prefix}.{name}"), *out));
                    let m = prefixes.filter(|_| l.dora).map(|(p, out)| (lora::magnitude(&p), vec![out], true));
                    plan.extend(a.chain(b).chain(m));
                }
            }
        }
    }
    if *tuning == Tuning::Full {
        plan.push((NORM.to_string(), vec![c.hidden_size], false));
    }
    if (*tuning == Tuning::Full && !c.tie_word_embeddings) || saves(1) {
        plan.push((HEAD.to_string(), table, true));
    }
    plan
}

impl Llama {
    /// Build from a model's weights; `seed` draws fresh adapters. A weight that is missing or of another shape is an
    /// error that names it.
    pub fn new(mut weights: Weights, tuning: &Tuning, seed: u64) -> Result<Llama> {
        let config = weights.config.clone();
        let lora: Option<&LoraConfig> = match tuning {
            Tuning::Lora(l) => Some(l),
            _ => None,
        };
        if let Some(l) = lora {
            l.check(&config)?;
        }
        let device = weights.tensors.get(EMBEDDING).map_or(Device::Cpu, |t| t.device().clone());
        let base: usize = config.tensor_shapes().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        let params = Params::new(plan(&config, tuning), &device)?;
        lora::start(&params, seed)?;
        let table = vec![config.vocab_size, config.hidden_size];
        let embedding = Weight::load_matrix(&mut weights, &params, &[(EMBEDDING.into(), table.clone())])?;
        let blocks = (0..config.num_hidden_layers)
            .map(|layer| Block::new(&mut weights, &params, lora, layer as u32))
            .collect::<Result<Vec<_>>>()?;
        let norm = Norm::load(&mut weights, &params, NORM.into())?;
        let head = match config.tie_word_embeddings {
            true => None,
            false => Some(Weight::load_matrix(&mut weights, &params, &[(HEAD.into(), table)])?),
        };
        let turned = config.traits.rotary_dim.unwrap_or(config.head_dim);
        let rotary = Rotary::new(turned, config.rope_theta, config.rope_scaling.as_ref());
        let local = config.traits.layers.iter().any(|l| l.rope == Rope::Local);
        let local = config.traits.rope_local_base_freq.filter(|_| local).map(|theta| Rotary::new(turned, theta, None));
        let adapters = if lora.is_some() { params.len() } else { 0 };
        let kept = |w: Option<&Weight<Matrix>>| -> Result<Option<Matrix>> {
            match w.filter(|w| lora.is_some() && w.grad.is_some()) {
                Some(w) => Ok(Some(w.value.to_tensor()?.copy()?.into())),
                None => Ok(None),
            }
        };
        let kept = [kept(Some(&embedding))?, kept(head.as_ref())?];
        let (tuning, adapter, neftune, total) = (tuning.clone(), true, None, (base + adapters) as u64);
        Ok(Llama {
            config,
            params,
            tuning,
            embedding,
            blocks,
            norm,
            head,
            rotary,
            local,
            adapter,
            base: kept,
            neftune,
            device,
            total,
        })
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What trains.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Numbers in the model, adapters included; a tied head counts once.
    pub fn total_parameters(&self) -> u64 {
        self.total
    }

    /// With `false` the base speaks, as if there were no adapter.
    pub fn set_adapter_enabled(&mut self, on: bool) {
        self.adapter = on;
    }

    /// The base model's weights in Hugging Face's names (views, but for packed matrices, which come in f32); adapters are in [`Llama::params`].
    pub fn full_state(&self) -> Result<Vec<(String, Tensor)>> {
        let was = |which: usize, now: &Weight<Matrix>| self.base[which].as_ref().unwrap_or(&now.value).to_tensor();
        let mut all = vec![(EMBEDDING.to_string(), was(0, &self.embedding)?)];
        for block in &self.blocks {
            all.extend(block.state()?);
        }
        all.push((NORM.to_string(), self.norm.weight.value.clone()));
        if let Some(head) = &self.head {
            all.push((HEAD.to_string(), was(1, head)?));
        }
        Ok(all)
    }

    fn head(&self) -> &Weight<Matrix> {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// The embedding as it speaks: the base's own where adapters are off.
    fn table(&self) -> &Matrix {
        self.base[0].as_ref().filter(|_| !self.adapter).unwrap_or(&self.embedding.value)
    }

    /// The head as it speaks.
    fn speaking_head(&self) -> &Matrix {
        match &self.head {
            Some(head) => self.base[1].as_ref().filter(|_| !self.adapter).unwrap_or(&head.value),
            None => self.table(),
        }
    }

    /// Noise on the embeddings of training passes from now on.
    pub fn set_neftune(&mut self, alpha: Option<f64>) {
        self.neftune = alpha;
    }

    fn context(&self, pass: Option<&Pass>) -> Context {
        Context { adapter: self.adapter, dropout: pass.map(|p| (p.seed, p.step, p.micro)), layer: 0 }
    }

    fn place<'a>(&self, positions: &[u32], cu_seqlens: &'a [u32]) -> Result<Place<'a>> {
        let local = self.local.as_ref().map(|r| r.angles(positions, cu_seqlens)).transpose()?;
        Ok(Place { global: self.rotary.angles(positions, cu_seqlens)?, local, cu_seqlens })
    }

    /// The tokens' embeddings, `[T, n]`.
    fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        let x = self.table().gather(ids)?;
        if let Some(scale) = self.config.traits.embedding_scale {
            scale_(&x, scale as f32)?;
        }
        Ok(x)
    }

    /// The head's product with normed hidden states: logits `[T, V]`, capped where the family caps them.
    fn logits_of(&self, normed: &Tensor) -> Result<Tensor> {
        let logits = self.speaking_head().times_transposed(normed)?;
        if let Some(cap) = self.softcap() {
            softcap_(&logits, cap)?;
        }
        Ok(logits)
    }

    fn softcap(&self) -> Option<f32> {
        self.config.traits.final_logit_softcapping.map(|c| c as f32)
    }

    /// Add scale · ∂ΣNLL into the gradients; returns ΣNLL over the labels, unscaled. A batch without labels gives 0.
    pub fn forward_backward(&self, batch: &Batch, scale: f64, pass: &Pass) -> Result<f64> {
        if self.tuning == Tuning::None {
            return Err(Error::new("nothing of this model trains"));
        }
        let (rows, labels) = self.labelled(batch)?;
        if rows.is_empty() {
            return Ok(0.0);
        }
        let mut loss = 0.0;
        self.there_and_back(batch, pass, &mut |x| {
            let (sum, d) = self.top(x, &rows, &labels, scale)?;
            loss = sum;
            Ok(d)
        })?;
        Ok(loss)
    }

    /// Forward, then back from the gradient that `top` gives for the last block's output.
    fn there_and_back(&self, batch: &Batch, pass: &Pass, top: &mut dyn FnMut(&Tensor) -> Result<Tensor>) -> Result<()> {
        let context = self.context(Some(pass));
        let place = self.place(&batch.positions, &batch.cu_seqlens)?;
        let mut x = self.embed(&batch.ids)?;
        if let Some(alpha) = self.neftune {
            let words = [pass.step as u32, pass.micro as u32, NOISE];
            noise_(&x, &batch.cu_seqlens, alpha, Stream { seed: pass.seed, words })?;
        }
        let mut kept = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let (y, saved) = block.forward(&x, &place, context)?;
            kept.push(match pass.checkpointing {
                Checkpointing::Off => Kept::All(Box::new(saved)),
                Checkpointing::Full => Kept::Input(x),
            });
            x = y;
        }
        let mut d = top(&x)?;
        drop(x);
        let below = self.embedding.grad.as_ref();
        for (i, block) in self.blocks.iter().enumerate().rev() {
            let saved = match kept.pop() {
                Some(Kept::All(saved)) => *saved,
                Some(Kept::Input(x)) => block.forward(&x, &place, context)?.1,
                None => return Err(Error::new("a block left nothing to go back from")),
            };
            d = block.backward(d, saved, &place, i > 0 || below.is_some(), context)?;
        }
        if let Some(grad) = below {
            if let Some(scale) = self.config.traits.embedding_scale {
                scale_(&d, scale as f32)?;
            }
            scatter_add_(grad, &batch.ids, &d)?;
        }
        Ok(())
    }

    /// The log-probability of every label at `temperature`, in the batch's order: no dropout, nothing saved.
    pub fn log_probabilities(&self, batch: &Batch, temperature: f64, entropies: bool) -> Result<LogProbabilities> {
        let (rows, labels) = self.labelled(batch)?;
        if rows.is_empty() {
            return Ok(LogProbabilities::default());
        }
        let labelled = gather(&self.hidden(batch)?, &rows)?;
        let (normed, _) = self.norm.forward(&labelled)?;
        let softcap = self.softcap();
        cross_entropy::log_probabilities(&normed, self.speaking_head(), &labels, temperature, entropies, softcap)
    }

    /// A training pass whose loss is any function of the labels' log-probabilities: forward, then `weigh` is given them
    /// and answers with the derivative of the loss by each, then back. Adds into the gradients. A batch without labels
    /// is not weighed.
    pub fn weighted_backward(
        &self,
        batch: &Batch,
        of: Weighted,
        pass: &Pass,
        weigh: &mut dyn FnMut(&LogProbabilities) -> Result<Vec<f64>>,
    ) -> Result<()> {
        if self.tuning == Tuning::None {
            return Err(Error::new("nothing of this model trains"));
        }
        let (rows, labels) = self.labelled(batch)?;
        if rows.is_empty() {
            return Ok(());
        }
        self.there_and_back(batch, pass, &mut |x| {
            let (head, temperature) = (self.head(), of.temperature);
            let labelled = gather(x, &rows)?;
            let (normed, rstd) = self.norm.forward(&labelled)?;
            let (softcap, asked) = (self.softcap(), of.entropies);
            let chances = cross_entropy::log_probabilities(&normed, &head.value, &labels, temperature, asked, softcap)?;
            let weights = weigh(&chances)?;
            let dnormed = cross_entropy::log_probabilities_backward(
                &normed,
                &head.value,
                &labels,
                temperature,
                &weights,
                head.grad.as_ref(),
                softcap,
            )?;
            let dx = Tensor::zeros(x.shape(), DType::F32, &self.device)?;
            let dlabelled = Tensor::zeros(labelled.shape(), DType::F32, &self.device)?;
            self.norm.backward(&dnormed, &labelled, &rstd, &dlabelled)?;
            scatter_add_(&dx, &rows, &dlabelled)?;
            Ok(dx)
        })
    }

    /// Final norm, head and loss at the labelled rows of `x [T, n]`: the loss and dx `[T, n]`.
    fn top(&self, x: &Tensor, rows: &[u32], labels: &[u32], scale: f64) -> Result<(f64, Tensor)> {
        let head = self.head();
        let labelled = gather(x, rows)?;
        let (normed, rstd) = self.norm.forward(&labelled)?;
        let gradients = Gradients { scale, head: head.grad.as_ref() };
        let (loss, dnormed) = cross_entropy(&normed, &head.value, labels, Some(gradients), self.softcap())?;
        let dx = Tensor::zeros(x.shape(), DType::F32, &self.device)?;
        if let Some(dnormed) = dnormed {
            let dlabelled = Tensor::zeros(labelled.shape(), DType::F32, &self.device)?;
            self.norm.backward(&dnormed, &labelled, &rstd, &dlabelled)?;
            scatter_add_(&dx, rows, &dlabelled)?;
        }
        Ok((loss, dx))
    }

    /// Hidden states before the final norm, nothing saved, no dropout.
    fn hidden(&self, batch: &Batch) -> Result<Tensor> {
        let place = self.place(&batch.positions, &batch.cu_seqlens)?;
        let mut x = self.embed(&batch.ids)?;
        for block in &self.blocks {
            x = block.forward(&x, &place, self.context(None))?.0;
        }
        Ok(x)
    }

    /// ΣNLL and the number of labels: no dropout, nothing saved.
    pub fn loss(&self, batch: &Batch) -> Result<(f64, u64)> {
        let (rows, labels) = self.labelled(batch)?;
        if rows.is_empty() {
            return Ok((0.0, 0));
        }
        let labelled = gather(&self.hidden(batch)?, &rows)?;
        let (normed, _) = self.norm.forward(&labelled)?;
        let (loss, _) = cross_entropy(&normed, self.speaking_head(), &labels, None, self.softcap())?;
        Ok((loss, labels.len() as u64))
    }

    /// `[T, V]`, f32: all of them at once, for tests and proofs on short batches.
    pub fn logits(&self, batch: &Batch) -> Result<Tensor> {
        self.labelled(batch)?;
        self.logits_of(&self.norm.forward(&self.hidden(batch)?)?.0)
    }

    /// Room for `capacity` tokens.
    pub fn new_cache(&self, capacity: usize) -> Result<KvCache> {
        let width = self.config.num_key_value_heads * self.config.head_dim;
        KvCache::new(self.blocks.len(), capacity, width, &self.device)
    }

    /// Read `ids` (a prompt, or one token) after what `cache` holds; the logits `[V]` that follow the last.
    pub fn decode(&self, ids: &[u32], cache: &mut KvCache) -> Result<Vec<f32>> {
        if ids.is_empty() || cache.layers.len() != self.blocks.len() {
            return Err(Error::new("decoding needs at least one token, and a cache of this model"));
        }
        let past = cache.len();
        let positions: Vec<u32> = (past..past + ids.len()).map(|p| p as u32).collect();
        let place = self.place(&positions, &[])?;
        let mut x = self.embed(ids)?;
        for (block, layer) in self.blocks.iter().zip(&cache.layers) {
            x = block.decode(&x, &place, layer, past, self.context(None))?;
        }
        let last = x.narrow(0, ids.len() - 1, 1)?;
        let logits = self.logits_of(&self.norm.forward(&last)?.0)?;
        cache.len = past + ids.len();
        Ok(logits.flatten_all()?.to_vec1()?)
    }

    /// Read one token of each of several conversations, `ids[i]` after what `caches[i]` holds; the logits `[V]` that
    /// follow each. One product a layer for all of them.
    pub fn decode_rows(&self, ids: &[u32], caches: &mut [&mut KvCache]) -> Result<Vec<Vec<f32>>> {
        if ids.is_empty() || ids.len() != caches.len() || caches.iter().any(|c| c.layers.len() != self.blocks.len()) {
            return Err(Error::new("decoding needs a token and a cache of this model for each row"));
        }
        let pasts: Vec<usize> = caches.iter().map(|c| c.len()).collect();
        let positions: Vec<u32> = pasts.iter().map(|&p| p as u32).collect();
        let place = self.place(&positions, &[])?;
        let mut x = self.embed(ids)?;
        for (i, block) in self.blocks.iter().enumerate() {
            let layers: Vec<&(Tensor, Tensor)> = caches.iter().map(|c| &c.layers[i]).collect();
            x = block.decode_rows(&x, &place, &layers, &pasts, self.context(None))?;
        }
        let logits = self.logits_of(&self.norm.forward(&x)?.0)?;
        for cache in caches.iter_mut() {
            cache.len += 1;
        }
        Ok(logits.to_vec2()?)
    }

    /// Rows that have a label, and the labels; complains about a batch that does not hold together.
    fn labelled(&self, batch: &Batch) -> Result<(Vec<u32>, Vec<u32>)> {
        let t = batch.ids.len();
        if t == 0 || batch.positions.len() != t || batch.labels.len() != t {
            return Err(Error::new(format!(
                "a batch of {t} tokens has {} positions and {} labels",
                batch.positions.len(),
                batch.labels.len()
            )));
        }
        let counted = batch.labels.iter().enumerate().filter(|(_, l)| **l != IGNORE);
        counted
            .map(|(i, &l)| match u32::try_from(l) {
                Ok(label) => Ok((i as u32, label)),
                Err(_) => Err(Error::new(format!("label {l} is no token id"))),
            })
            .collect::<Result<Vec<_>>>()
            .map(|pairs| pairs.into_iter().unzip())
    }
}

#[cfg(test)]
#[path = "llama_tests.rs"]
mod tests;
