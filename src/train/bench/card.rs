//! The same measurement on a card: weights made there at random, times by part, memory by component.

use super::{Options, RULE, Recompute, operations, random_batch, shapes::shape};
use crate::memory::card::{Checkpointing, Keep};
use crate::memory::{Local, Telemetry};
use crate::model::cuda::{CudaLlama, Options as Use, Origin, Precision};
use crate::model::lora::{LoraConfig, MODULES, Tuning};
use crate::ops::cuda::device::Gpu;
use crate::ops::cuda::elementwise;
use crate::ops::cuda::gemm::{Gemm, Mat, Out, Product};
use crate::{Error, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Instant;

/// What was measured on a card.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub shape: String,
    pub card: String,
    pub batch: usize,
    pub seq: usize,
    pub accumulate: usize,
    pub r: usize,
    pub load_in_4bit: bool,
    pub load_in_fp8: bool,
    /// Blocks that keep everything, attention only, their input only.
    pub keeps: [usize; 3],
    /// Tokens of an MLP at a time, rows of logits at a time, whether inputs wait on the host.
    pub tile: usize,
    pub logits: usize,
    pub offload: bool,
    /// Median over the steps after the second (with fewer than three steps: the last).
    pub tokens_per_s: f64,
    pub step_s: f64,
    /// Of operations that are needed (recomputation not counted), against a measured bf16 product of 8192³.
    pub tflop_per_s: f64,
    pub peak_tflop_per_s: f64,
    pub share_of_peak: f64,
    /// Milliseconds of one step by part, measured in a step of its own; what is left of the step is idle.
    pub parts_ms: BTreeMap<String, f64>,
    /// The same by kernel, and by size of product (m x n x k).
    pub launches_ms: BTreeMap<String, f64>,
    /// Largest sum of allocated bytes while training, and what it consisted of.
    pub peak_gib: f64,
    pub components_gib: BTreeMap<String, f64>,
    /// All that NVML says is held on the card, the context and others' memory included.
    pub nvml_gib: Option<f64>,
    pub loss: f64,
}

const GIB: f64 = (1u64 << 30) as f64;

impl Options {
    fn precision(&self) -> Precision {
        match (self.load_in_4bit, self.load_in_fp8) {
            (true, _) => Precision::Nf4,
            (false, true) => Precision::Fp8,
            (false, false) => Precision::Bf16,
        }
    }
}

/// Run the steps on card `ordinal`.
pub fn run(options: &Options, ordinal: usize, on_step: &mut dyn FnMut(usize, f64)) -> Result<Report> {
    let config = shape(&options.shape)?;
    let gpu = Gpu::open(ordinal)?;
    let ceiling = ceiling(&gpu)?;
    let lora = LoraConfig {
        r: options.r,
        alpha: options.r as f64,
        dropout: 0.0,
        target_modules: MODULES.iter().map(|m| m.to_string()).collect(),
        ..LoraConfig::default()
    };
    let how = Use {
        precision: options.precision(),
        checkpointing: match options.checkpointing {
            Recompute::Auto => Checkpointing::Auto,
            Recompute::Full => Checkpointing::Full,
            Recompute::Off => Checkpointing::Off,
        },
        vram: options.vram,
        optim: options.optim,
    };
    let mut model = CudaLlama::new(&gpu, Origin::Random(config.clone()), &Tuning::Lora(lora), 3407, how)?;
    gpu.reset_peak();
    let mut seconds = Vec::new();
    let mut loss = f64::NAN;
    let (mut parts, mut launches) = (BTreeMap::new(), BTreeMap::new());
    let steps = options.steps.max(1);
    // One more than asked, where there are enough to warm up: its times are taken part by part, which slows it down, so
    // it counts for nothing else.
    let (warm, last) = if steps > 2 { (2, steps) } else { (steps - 1, steps - 1) };
    for step in 0..=last {
        let batches: Vec<_> = (0..options.accumulate)
            .map(|micro| random_batch(&config, options, (step * options.accumulate + micro) as u64))
            .collect();
        let labels: u64 = batches.iter().map(|b| b.label_tokens()).sum();
        gpu.wait()?;
        if step == steps {
            gpu.start_profile();
        }
        let started = Instant::now();
        for batch in &batches {
            model.forward_backward(batch, 1.0 / labels as f64)?;
        }
        let stepped = model.step(&RULE)?;
        gpu.wait()?;
        let took = started.elapsed().as_secs_f64();
        loss = stepped.nll / labels as f64;
        if !loss.is_finite() {
            return Err(Error::new(format!("the loss of step {} is not finite", step + 1)));
        }
        if step == steps {
            for ((part, name), ms) in gpu.stop_profile()? {
                *parts.entry(part.to_string()).or_insert(0.0) += ms;
                launches.insert(format!("{part}: {name}"), ms);
            }
            let busy: f64 = parts.values().sum();
            parts.insert("idle".into(), (took * 1e3 - busy).max(0.0));
        } else {
            on_step(step + 1, took);
            if step >= warm {
                seconds.push(took);
            }
        }
    }
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    let tokens = (options.batch * options.seq * options.accumulate) as f64;
    let nvml = Local::new().read().cards.into_iter().find(|c| c.uuid.as_deref() == Some(gpu.uuid()));
    let plan = model.plan().ok_or_else(|| Error::new("nothing was trained"))?;
    let count = |k| plan.keep.iter().filter(|keep| **keep == k).count();
    let rate = operations(&config, options) * options.accumulate as f64 / median / 1e12;
    let ledger = gpu.ledger();
    Ok(Report {
        shape: options.shape.clone(),
        card: gpu.name().to_string(),
        batch: options.batch,
        seq: options.seq,
        accumulate: options.accumulate,
        r: options.r,
        load_in_4bit: options.load_in_4bit,
        load_in_fp8: options.load_in_fp8,
        keeps: [count(Keep::Everything), count(Keep::Attention), count(Keep::Input)],
        tile: plan.tile,
        logits: plan.logits,
        offload: plan.offload,
        tokens_per_s: tokens / median,
        step_s: median,
        tflop_per_s: rate,
        peak_tflop_per_s: ceiling,
        share_of_peak: rate / ceiling,
        parts_ms: parts,
        launches_ms: launches,
        peak_gib: ledger.peak as f64 / GIB,
        components_gib: ledger.at_peak.iter().map(|(k, v)| (k.to_string(), *v as f64 / GIB)).collect(),
        nvml_gib: nvml.and_then(|c| c.memory_used).map(|b| b as f64 / GIB),
        loss,
    })
}

/// How fast a card generates.
#[derive(Debug, Clone, Serialize)]
pub struct Decoded {
    pub shape: String,
    pub card: String,
    pub batch: usize,
    /// Tokens that each sequence held before, and those drawn.
    pub prompt: usize,
    pub drawn: usize,
    pub tokens_per_s: f64,
    pub step_ms: f64,
    pub peak_gib: f64,
}

/// Draw `count` tokens for each of `batch` sequences that hold `seq`, over random weights.
pub fn decode(options: &Options, ordinal: usize, count: usize) -> Result<Decoded> {
    let config = shape(&options.shape)?;
    let gpu = Gpu::open(ordinal)?;
    let how = Use {
        precision: options.precision(),
        checkpointing: Checkpointing::Full,
        vram: options.vram,
        optim: options.optim,
    };
    let model = CudaLlama::new(&gpu, Origin::Random(config.clone()), &Tuning::None, 3407, how)?;
    // One more token at first: it finds the algorithms and records the graph of a step.
    let mut cache = model.new_cache(options.batch, options.seq + count + 8)?;
    let prompts: Vec<Vec<u32>> =
        random_batch(&config, options, 0).ids.chunks(options.seq).map(<[u32]>::to_vec).collect();
    model.prompts(&prompts, &mut cache)?;
    model.draw(&mut cache, 4, 1.0, 3407)?;
    gpu.wait()?;
    let started = Instant::now();
    model.draw(&mut cache, count, 1.0, 3407)?;
    gpu.wait()?;
    let took = started.elapsed().as_secs_f64();
    let peak = gpu.ledger().peak as f64 / GIB;
    Ok(Decoded {
        shape: options.shape.clone(),
        card: gpu.name().to_string(),
        batch: options.batch,
        prompt: options.seq,
        drawn: count,
        tokens_per_s: (options.batch * count) as f64 / took,
        step_ms: took * 1e3 / count as f64,
        peak_gib: peak,
    })
}

/// TFLOP/s of a bf16 product of 8192³ on random numbers: the median of ten.
fn ceiling(gpu: &Gpu) -> Result<f64> {
    const N: usize = 8192;
    let gemm = Gemm::new(gpu)?;
    let room = gpu.zeros("measuring", 3 * 2 * N * N)?;
    let mat = |i: usize| Mat::new(room.at() + (i * 2 * N * N) as u64, N);
    for i in 0..2 {
        elementwise::fill_uniform(gpu, mat(i), (N, N), 1.0, 3407, i as u32)?;
    }
    let product = Product {
        size: (N, N, N),
        a: mat(0),
        ta: false,
        b: mat(1),
        tb: true,
        alpha: 1.0,
        c: None,
        d: mat(2),
        out: Out::Bf16,
        scales: None,
    };
    let mut times = Vec::new();
    for i in 0..13 {
        gpu.wait()?;
        let started = Instant::now();
        // SAFETY: the three matrices have N × N numbers each.
        unsafe { gemm.run(&product) }?;
        gpu.wait()?;
        if i > 2 {
            times.push(started.elapsed().as_secs_f64());
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(2.0 * (N as f64).powi(3) / times[times.len() / 2] / 1e12)
}
