//! A decoder on whatever computes it, behind one set of words: what training, evaluation and sampling ask for.
//!
//! The CPU's is [`Llama`] with its optimizer beside it; a card's keeps everything on the card. Must not know recipes.

use super::cache::KvCache;
use super::config::Config;
#[cfg(feature = "cuda")]
use super::cuda::CudaLlama;
use super::llama::{Llama, Pass, TABLES, Weighted};
use super::params::Params;
use super::ranks::Ranks;
use crate::data::batch::Batch;
use crate::ops::adamw::Rule;
use crate::ops::arena;
pub use crate::ops::cross_entropy::LogProbabilities;
use crate::ops::optimizer::{Moments, Optim, Optimizer};
use crate::{Error, Result};
use candle_core::Tensor;

/// Who says how likely a text is.
#[derive(Debug, Clone, Copy)]
pub enum Voice<'a> {
    /// The model as it stands.
    Policy,
    /// The base, as if there were no adapter.
    Base,
    /// The model with these values of what trains, as many as [`Params::len`].
    Values(&'a [f32]),
}

/// What a weighted pass makes of the labels' log-probabilities.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Weighed {
    /// What the batch adds to the step's loss.
    pub loss: f64,
    /// The derivative of the loss by each log-probability.
    pub weights: Vec<f64>,
}

/// What an optimizer step came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stepped {
    /// Σ NLL over the micro-batches since the last step; of weighted passes, the sum of their losses.
    pub nll: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// False where loss or gradient were not finite: nothing was changed then.
    pub taken: bool,
}

/// Bytes on a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub components: Vec<(&'static str, u64)>,
    pub used: u64,
    /// Its largest so far.
    pub peak: u64,
    /// All of the card's.
    pub total: u64,
}

/// The model, what trains of it, and its optimizer.
pub enum Engine {
    Cpu(Box<OnCpu>),
    #[cfg(feature = "cuda")]
    Cuda(Box<CudaLlama>),
}

pub struct OnCpu {
    model: Llama,
    optim: Optim,
    /// Made at the first step, or when a checkpoint is put back.
    optimizer: Option<Optimizer>,
    nll: f64,
}

/// Keys and values of tokens already read.
pub enum Cache {
    Cpu(KvCache),
    #[cfg(feature = "cuda")]
    Cuda(Box<super::cuda::CudaCache>),
}

impl Engine {
    /// `model` on the CPU, with the optimizer that its training will step with.
    pub fn on_cpu(model: Llama, optim: Optim) -> Self {
        Engine::Cpu(Box::new(OnCpu { model, optim, optimizer: None, nll: 0.0 }))
    }

    pub fn config(&self) -> &Config {
        match self {
            Engine::Cpu(c) => c.model.config(),
            #[cfg(feature = "cuda")]
            Engine::Cuda(c) => c.config(),
        }
    }

    /// Names, places and values of what trains; [`Engine::fetch`] brings the values up to date.
    pub fn params(&self) -> &Params {
        match self {
            Engine::Cpu(c) => c.model.params(),
            #[cfg(feature = "cuda")]
            Engine::Cuda(c) => c.params(),
        }
    }

    /// Numbers in the model, adapters included; a tied head counts once.
    pub fn total_parameters(&self) -> u64 {
        match self {
            Engine::Cpu(c) => c.model.total_parameters(),
            #[cfg(feature = "cuda")]
            Engine::Cuda(c) => c.total_parameters(),
        }
    }

    /// With `false` the base speaks, as if there were no adapter.
    pub fn set_adapter_enabled(&mut self, on: bool) {
        match self {
            Engine::Cpu(c) => c.model.set_adapter_enabled(on),
            #[cfg(feature = "cuda")]
            Engine::Cuda(c) => c.set_adapter_enabled(on),
        }
    }

    /// Noise on the embeddings of training passes from now on: NEFTune's alpha.
    ///
    /// # Errors
    /// On a card, whose engine has none.
    pub fn set_neftune(&mut self, alpha: Option<f64>) -> Result<()> {
        match self {
            Engine::Cpu(c) => c.model.set_neftune(alpha),
            #[cfg(feature = "cuda")]
            Engine::Cuda(_) if alpha.is_some() => {
                return Err(Error::usage("train.neftune_noise_alpha is not computed on a card")
                    .next("train on the CPU: model.device = \"cpu\""));
            }
            #[cfg(feature = "cuda")]
            Engine::Cuda(_) => {}
        }
        Ok(())
    }

    /// The base model's weights in Hugging Face's names, f32.
    ///
    /// # Errors
    /// On a card, where the base is frozen and in fewer bits.
    pub fn full_state(&self) -> Result<Vec<(String, Tensor)>> {
        match self {
            Engine::Cpu(c) => c.model.full_state(),
            #[cfg(feature = "cuda")]
            Engine::Cuda(_) => Err(Error::new("the base on a card is frozen: there is nothing of it to save")),
        }
    }

    /// Forget gradients and losses since the last step.
    pub fn zero_grad(&mut self) -> Result<()> {
        match self {
            Engine::Cpu(c) => {
                c.nll = 0.0;
                c.model.params().zero_grad()
            }
            #[cfg(feature = "cuda")]
            Engine::Cuda(c) => c.zero_grad(),
        }
    }

    /// Add scale · ∂ΣNLL into the gradients, and ΣNLL to what [`Engine::step`] reports.
    pub fn forward_backward(&mut self, batch: &Batch, scale: f64, pass: &Pass) -> Result<()> {
        match self {
            Engine::Cpu(c) => {
                c.nll += c.model.forward_backward(batch, scale, pass)?;
                Ok(())
            }
            #[cfg(feature = "cuda")]
            Engine::Cuda(c) => c.forward_backward(batch, scale),
        }
    }

    /// Gradients and ΣNLL since the last step become their sums over all ranks. Every rank calls it before its step.
    pub fn reduce(&mut self, ranks: &mut Ranks) -> Result<()> {
        if ranks.size() == 1 {
            return Ok(());
        }
        match self {
            Engine::Cpu(c) => {
                let mut nll = [c.nll];
                ranks.sum(&mut nll)?;
                c.nll = nll[0];
                let grads = c.model.params().grad_tensor();
                let mut all = grads.to_vec1::<f32>()?;
                ranks.sum_f32(&mut all)?;
                arena::copy_(grads, &all)
            }
            #[cfg(feature = "cuda")]
            Engine::Cuda(c) => c.reduce(ranks),
        }
    }

    /// A training pass whose loss is any function of the labels' log-probabilities: `weigh` is given them, in the batch's
    /// order, and answers with the loss and its derivative by each. The loss is added to what [`Engine::step`] reports.
    pub fn weighted_backward(
        &mut self,
        batch: &Batch,
        of: Weighted,
        pass: &Pass,
        weigh: &mut dyn FnMut(&LogProbabilities) -> Result<Weighed>,
    ) -> Result<()> {
        match self {
            Engine::Cpu(c) => {
                let mut loss = 0.0;
                c.model.weighted_backward(batch, of, pass, &mut |chances| {
                    let weighed = weigh(chances)?;
                    loss = weighed.loss;
                    Ok(weighed.weights)
                })?;
                c.nll += loss;
                Ok(())
            }
            #[cfg(feature = "cuda")]
            Engine::Cuda(c) => c.weighted_backward(batch, of, weigh),
        }
    }

    /// The log-probability of every label of `batches`, in order, as `voice` has it: no dropout, nothing saved.
    pub fn log_probabilities(
        &mut self,
        batches: &[Batch],
        of: Weighted,
        voice: Voice,
    ) -> Result<Vec<LogProbabilities>> {
        match self {
            Engine::Cpu(c) => {
                let all = |model: &Llama| {
                    batches.iter().map(|b| model.log_probabilities(b, of.temperature, of.entropies)).collect()
                };
                match voice {
                    Voice::Policy => all(&c.model),
                    Voice::Base => {
                        c.model.set_adapter_enabled(false);
                        let said = all(&c.model);
                        c.model.set_adapter_enabled(true);
                        said
                    }
                    Voice::Values(values) => {
                        let own = c.model.params().values()?;
                        c.model.params().set_values(values)?;
                        let said = all(&c.model);
                        c.model.params().set_values(&own)?;
                        said
                    }
                }
            }
            #[cfg(feature = "cuda")]
            Engine::Cuda(c) => c.log_probabilities(batches, of, voice),
        }
    }

    /// One AdamW step over the gradients since the last one, clipped to the rule's norm as
    /// `torch.nn.utils.clip_grad_norm_` does. Loss or gradients that are not finite change nothing.
    pub fn step(&mut self, rule: &Rule) -> Result<Stepped> {
        match self {
            Engine::Cpu(c) => {
                let params = c.model.params();
                let grad_norm = params.grad_norm()?;
                let clip = match rule.max_grad_norm {
                    max if max > 0.0 => (max / (grad_norm + 1e-6)).min(1.0),
                    _ => 1.0,
                };
                let taken = grad_norm.is_finite() && c.nll.is_finite();
                let optimizer = optimizer(&mut c.optimizer, c.optim, params)?;
                if taken {
                    let tables = params.ranges(&TABLES);
                    let (values, grads) = (params.value_tensor(), params.grad_tensor());
                    optimizer.step_apart(rule, values, grads, params.decayed(), &tables, clip)?;
                    params.changed();
                }
                Ok(Stepped { nll: std::mem::take(&mut c.nll), grad_norm, taken })
            }
            #[cfg(feature = "cuda")]
            Engine::Cuda(c) => c.step(rule),
        }
    }

    /// ΣNLL and the number of labels: no dropout, nothing saved.
    pub fn loss(&self, batch: &Batch) -> Result<(f64, u64)> {
        match self {
            Engine::Cpu(c) => c.model.loss(batch),
            #[cfg(feature = "cuda")]
            Engine::Cuda(c) => c.loss(batch),
        }
    }

    /// `[T, V]`, f32: all of them at once, for tests and proofs on short batches.
    pub fn logits(&self, batch: &Batch) -> Result<Tensor> {
        match self {
            Engine::Cpu(c) => c.model.logits(batch),
            #[cfg(feature = "cuda")]
            Engine::Cuda(c) => c.logits(batch),
        }
    }

    /// Room for `capacity` tokens.
    pub fn new_cache(&self, capacity: usize) -> Result<Cache> {
        match self {
            Engine::Cpu(c) => Ok(Cache::Cpu(c.model.new_cache(capacity)?)),
            #[cfg(feature = "cuda")]
            Engine::Cuda(c) => Ok(Cache::Cuda(Box::new(c.new_cache(1, capacity)?))),
        }
    }

    /// Read `ids` (a prompt, or one token) after what `cache` holds; the logits `[V]` that follow the last.
    pub fn decode(&self, ids: &[u32], cache: &mut Cache) -> Result<Vec<f32>> {
        match (self, cache) {
            (Engine::Cpu(c), Cache::Cpu(cache)) => c.model.decode(ids, cache),
            #[cfg(feature = "cuda")]
            (Engine::Cuda(c), Cache::Cuda(cache)) => c.decode(ids, cache),
            #[cfg(feature = "cuda")]
            _ => Err(Error::new("a cache of another model")),
        }
    }

    /// Another conversation that has read what `cache` holds, with room for `capacity` tokens.
    ///
    /// # Errors
    /// On a card, whose engine decodes one conversation at a time.
    pub fn fork_cache(&self, cache: &Cache, capacity: usize) -> Result<Cache> {
        match cache {
            Cache::Cpu(cache) => Ok(Cache::Cpu(cache.fork(capacity)?)),
            #[cfg(feature = "cuda")]
            Cache::Cuda(_) => Err(not_on_a_card()),
        }
    }

    /// Read one token of each of several conversations, `ids[i]` after what `caches[i]` holds; the logits `[V]` that
    /// follow each.
    ///
    /// # Errors
    /// On a card, whose engine decodes one conversation at a time.
    pub fn decode_rows(&self, ids: &[u32], caches: &mut [&mut Cache]) -> Result<Vec<Vec<f32>>> {
        match self {
            Engine::Cpu(c) => {
                let mut own = Vec::with_capacity(caches.len());
                for cache in caches.iter_mut() {
                    match cache {
                        Cache::Cpu(cache) => own.push(cache),
                        #[cfg(feature = "cuda")]
                        Cache::Cuda(_) => return Err(Error::new("a cache of another model")),
                    }
                }
                c.model.decode_rows(ids, &mut own)
            }
            #[cfg(feature = "cuda")]
            Engine::Cuda(_) => Err(not_on_a_card()),
        }
    }

    /// The card that it computes on: its name and UUID; `None` on the CPU.
    pub fn card(&self) -> Option<(String, String)> {
        match self {
            Engine::Cpu(_) => None,
            #[cfg(feature = "cuda")]
            Engine::Cuda(c) => Some((c.gpu().name().to_string(), c.gpu().uuid().to_string())),
        }
    }

    /// Bytes by component that training on batches of `tokens` will hold on a card; `None` on the CPU.
    ///
    /// # Errors
    /// Where they do not fit.
    pub fn predict(&self, _tokens: usize) -> Result<Option<Vec<(&'static str, u64)>>> {
        match self {
            Engine::Cpu(_) => Ok(None),
            #[cfg(feature = "cuda")]
            Engine::Cuda(c) => c.predict(_tokens).map(Some),
        }
    }

    /// What is held on a card now; `None` on the CPU, where the process is measured as a whole.
    pub fn held(&self) -> Option<Held> {
        match self {
            Engine::Cpu(_) => None,
            #[cfg(feature = "cuda")]
            Engine::Cuda(c) => {
                let ledger = c.gpu().ledger();
                Some(Held {
                    components: ledger.now(),
                    used: ledger.total(),
                    peak: ledger.peak,
                    total: c.gpu().total_memory(),
                })
            }
        }
    }

    /// Bring the values of [`Engine::params`] up to date.
    pub fn fetch(&self) -> Result<()> {
        match self {
            Engine::Cpu(_) => Ok(()),
            #[cfg(feature = "cuda")]
            Engine::Cuda(c) => c.fetch(),
        }
    }

    /// Overwrite what trains; as many values as [`Params::len`].
    pub fn set_values(&self, values: &[f32]) -> Result<()> {
        self.params().set_values(values)?;
        match self {
            Engine::Cpu(_) => Ok(()),
            #[cfg(feature = "cuda")]
            Engine::Cuda(c) => c.put(),
        }
    }

    /// The optimizer's moments, and the steps it has taken.
    pub fn moments(&self) -> Result<(Moments, u64)> {
        match self {
            Engine::Cpu(c) => match &c.optimizer {
                Some(o) => o.moments(),
                None => fresh(c.optim, c.model.params())?.moments(),
            },
            #[cfg(feature = "cuda")]
            Engine::Cuda(c) => c.moments(),
        }
    }

    /// Put moments back as a checkpoint has them.
    pub fn set_moments(&mut self, moments: &Moments, t: u64) -> Result<()> {
        match self {
            Engine::Cpu(c) => optimizer(&mut c.optimizer, c.optim, c.model.params())?.set_moments(moments, t),
            #[cfg(feature = "cuda")]
            Engine::Cuda(c) => c.set_moments(moments, t),
        }
    }
}

fn fresh(optim: Optim, params: &Params) -> Result<Optimizer> {
    Optimizer::new(optim, params.len(), params.value_tensor().device())
}

#[cfg(feature = "cuda")]
fn not_on_a_card() -> Error {
    Error::usage("dpo and grpo are not computed on a card").next("train on the CPU: model.device = \"cpu\"")
}

fn optimizer<'a>(held: &'a mut Option<Optimizer>, optim: Optim, params: &Params) -> Result<&'a mut Optimizer> {
    if held.is_none() {
        *held = Some(fresh(optim, params)?);
    }
    held.as_mut().ok_or_else(|| Error::new("the optimizer is gone"))
}
