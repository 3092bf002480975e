//! How fast this machine trains: a few real optimizer steps on random weights of a known shape.
//!
//! The peer's side of the same measurement is a plain PyTorch + PEFT loop with the same shape, batch and labels.

#[cfg(feature = "cuda")]
pub mod card;
mod shapes;

pub use shapes::SHAPES;

use crate::Result;
use crate::data::batch::{Batch, Example};
use crate::memory::{Local, Telemetry};
use crate::model::config::{Config, Weights};
use crate::model::llama::{Checkpointing, Llama, Pass};
use crate::model::lora::{LoraConfig, MODULES, Tuning};
use crate::ops::adamw::Rule;
use crate::ops::optimizer::{Optim, Optimizer};
use crate::ops::random::Stream;
use candle_core::{Device, Tensor};
use serde::Serialize;
use std::collections::HashMap;
use std::time::Instant;

#[derive(Debug, Clone)]
pub struct Options {
    pub shape: String,
    pub batch: usize,
    pub seq: usize,
    pub steps: usize,
    /// Micro-batches of a step.
    pub accumulate: usize,
    pub r: usize,
    pub checkpointing: Recompute,
    /// NF4, on a card.
    pub load_in_4bit: bool,
    /// e4m3, on a Hopper card.
    pub load_in_fp8: bool,
    /// Bytes of a card that may be used.
    pub vram: Option<u64>,
    pub optim: Optim,
}

/// What is computed again instead of being kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recompute {
    /// What does not fit; on the CPU nothing.
    Auto,
    Full,
    Off,
}

#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub shape: String,
    pub batch: usize,
    pub seq: usize,
    pub r: usize,
    pub checkpointing: &'static str,
    pub threads: usize,
    /// Median over the steps after the first.
    pub tokens_per_s: f64,
    pub step_s: f64,
    /// Floating-point operations a second, counting what the step needs (forward, gradient of the inputs, LoRA).
    pub gflop_per_s: f64,
    pub peak_rss_gib: Option<f64>,
    pub loss: f64,
}

/// What every step is made with.
pub(super) const RULE: Rule =
    Rule { lr: 2e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, max_grad_norm: 1.0, table_lr: None };

/// Run `steps` optimizer steps and take the median of all but the first. `on_step` sees each step's seconds.
pub fn run(options: &Options, on_step: &mut dyn FnMut(usize, f64)) -> Result<Report> {
    let config = shapes::shape(&options.shape)?;
    let checkpointing = match options.checkpointing {
        Recompute::Full => Checkpointing::Full,
        Recompute::Auto | Recompute::Off => Checkpointing::Off,
    };
    let weights = random_weights(config.clone())?;
    let lora = LoraConfig {
        r: options.r,
        alpha: options.r as f64,
        dropout: 0.0,
        target_modules: MODULES.iter().map(|m| m.to_string()).collect(),
        ..LoraConfig::default()
    };
    let model = Llama::new(weights, &Tuning::Lora(lora), 3407)?;
    let params = model.params();
    let mut optimizer = Optimizer::new(options.optim, params.len(), params.value_tensor().device())?;
    let mut seconds = Vec::new();
    let mut loss = f64::NAN;
    for step in 0..options.steps.max(2) {
        let batches: Vec<_> = (0..options.accumulate)
            .map(|micro| random_batch(&config, options, (step * options.accumulate + micro) as u64))
            .collect();
        let labels: u64 = batches.iter().map(Batch::label_tokens).sum();
        let started = Instant::now();
        params.zero_grad()?;
        let mut nll = 0.0;
        for (micro, batch) in batches.iter().enumerate() {
            let pass = Pass { seed: 3407, step: step as u64, micro: micro as u64, checkpointing };
            nll += model.forward_backward(batch, 1.0 / labels as f64, &pass)?;
        }
        loss = nll / labels as f64;
        let clip = (1.0 / (params.grad_norm()? + 1e-6)).min(1.0);
        optimizer.step(&RULE, params.value_tensor(), params.grad_tensor(), params.decayed(), clip)?;
        let took = started.elapsed().as_secs_f64();
        on_step(step + 1, took);
        if step > 0 {
            seconds.push(took);
        }
    }
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    let tokens = (options.batch * options.seq * options.accumulate) as f64;
    Ok(Report {
        shape: options.shape.clone(),
        batch: options.batch,
        seq: options.seq,
        r: options.r,
        checkpointing: if checkpointing == Checkpointing::Full { "full" } else { "off" },
        threads: rayon::current_num_threads(),
        tokens_per_s: tokens / median,
        step_s: median,
        gflop_per_s: operations(&config, options) * options.accumulate as f64 / median / 1e9,
        peak_rss_gib: Local::new().read().peak.map(|b| b as f64 / (1u64 << 30) as f64),
        loss,
    })
}

/// Operations that one micro-batch needs: frozen products forward and for the gradient of their input (4 a weight and token),
/// LoRA's forward and both gradients (6), attention's two products forward and five backward, half of them causal.
fn operations(c: &Config, o: &Options) -> f64 {
    let (h, f, d) = (c.hidden_size as f64, c.intermediate_size as f64, c.head_dim as f64);
    let (q, kv) = (c.num_attention_heads as f64 * d, c.num_key_value_heads as f64 * d);
    let layer = h * q + 2.0 * h * kv + q * h + 3.0 * h * f;
    let lora = o.r as f64 * ((h + q) + 2.0 * (h + kv) + (q + h) + 2.0 * (h + f) + (f + h));
    let attention = 7.0 * o.seq as f64 * q;
    let layers = c.num_hidden_layers as f64 * (4.0 * layer + 6.0 * lora + attention);
    (o.batch * o.seq) as f64 * (layers + 4.0 * h * c.vocab_size as f64)
}

/// Uniform weights of standard deviation 0.02, norms of 1, biases of 0.
pub fn random_weights(config: Config) -> Result<Weights> {
    let mut tensors = HashMap::new();
    for (stream, (name, shape)) in config.tensor_shapes().into_iter().enumerate() {
        let mut values = vec![if name.ends_with(".bias") { 0f32 } else { 1.0 }; shape.iter().product()];
        if shape.len() > 1 {
            // Uniform on ±b has the standard deviation b / √3.
            Stream { seed: 3407, words: [stream as u32, 0, 0] }.fill_uniform(0.02 * 3f32.sqrt(), &mut values);
        }
        tensors.insert(name, Tensor::from_vec(values, shape, &Device::Cpu)?);
    }
    Ok(Weights::new(config, tensors))
}

fn random_batch(c: &Config, o: &Options, step: u64) -> Batch {
    let random = Stream { seed: 3407, words: [u32::MAX, step as u32, 0] };
    let id = |i: usize| 3 + random.block(i as u32)[0] % (c.vocab_size as u32 - 3);
    let examples: Vec<Example> = (0..o.batch)
        .map(|b| Example {
            ids: (0..o.seq).map(|i| id(b * o.seq + i)).collect(),
            trained: vec![true; o.seq].into(),
            row: b as u32,
            truncated: false,
        })
        .collect();
    Batch::of(&examples.iter().collect::<Vec<_>>())
}
