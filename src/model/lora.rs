//! Low-rank adapters (Hu et al., 2021) as PEFT defines them: `y += alpha/r · dropout(x)·Aᵀ·Bᵀ`.
//!
//! rsLoRA takes alpha/√r, DoRA stands in `dora.rs`. The adapters of projections that share an input lie side by side, so their thin products are one.

use super::config::Config;
use super::params::{Param, Params};
use crate::ops::dropout::{dropout, dropout_};
use crate::ops::matmul::{matmul, matmul_add_, matmul_to_};
use crate::ops::random::Stream;
use crate::ops::residual::add_;
use crate::recipe::modules::{TargetModules, is_pattern};
use crate::{Error, Result};
use candle_core::{DType, Tensor};

/// The projections of a Llama-style block that can carry an adapter; a position here is the module's number in random
/// streams.
pub const MODULES: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
/// Those of a block with fused matrices besides (Phi-3); their numbers follow.
pub const FUSED: [&str; 2] = ["qkv_proj", "gate_up_proj"];
pub use crate::recipe::modules::ALL_LINEAR;

/// An adapter's shape.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraConfig {
    pub r: usize,
    pub alpha: f64,
    /// On the adapter's input, 0..1.
    pub dropout: f64,
    /// Endings of module paths out of [`Config::modules`]; or alone, [`ALL_LINEAR`] or a pattern over whole paths.
    pub target_modules: Vec<String>,
    /// In the same words, left out of them.
    pub exclude_modules: Vec<String>,
    /// Only these layers.
    pub layers: Option<Vec<usize>>,
    /// Scaled by alpha / √r.
    pub rslora: bool,
    /// With a magnitude for each row (`dora.rs`).
    pub dora: bool,
    /// Out of [`TABLES`]: trained whole. Where the head is the embedding, either means both.
    pub modules_to_save: Vec<String>,
}

/// What [`LoraConfig::modules_to_save`] can name.
pub const TABLES: [&str; 2] = ["embed_tokens", "lm_head"];

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            r: 16,
            alpha: 16.0,
            dropout: 0.0,
            target_modules: vec![ALL_LINEAR.into()],
            exclude_modules: Vec::new(),
            layers: None,
            rslora: false,
            dora: false,
            modules_to_save: Vec::new(),
        }
    }
}

/// What B · A is multiplied by: `alpha / r`, of rsLoRA (Kalajdzievski, 2023) `alpha / √r`.
pub fn scale(alpha: f64, r: usize, rslora: bool) -> f64 {
    if rslora { alpha / (r as f64).sqrt() } else { alpha / r as f64 }
}

impl LoraConfig {
    /// What B · A is multiplied by.
    pub fn scale(&self) -> f64 {
        scale(self.alpha, self.r, self.rslora)
    }

    /// Whether the module at `path` of layer `layer` carries an adapter, as PEFT matches names.
    pub(super) fn targets(&self, layer: usize, path: &str) -> bool {
        let chosen = self.layers.as_ref().is_none_or(|l| l.contains(&layer));
        chosen && meant(&self.target_modules).holds(path) && !meant(&self.exclude_modules).holds(path)
    }

    /// With the names of the modules that carry adapters in this model, in place of `all-linear`.
    pub fn named(mut self, c: &Config) -> Self {
        if self.target_modules.iter().any(|m| m == ALL_LINEAR) {
            self.target_modules = c.modules().into_iter().map(String::from).collect();
        }
        if c.tie_word_embeddings && !self.modules_to_save.is_empty() {
            self.modules_to_save = vec![TABLES[0].into()];
        }
        self
    }

    /// Whether `embed_tokens` (0) or `lm_head` (1) trains, by its own name or as the one matrix that both are.
    pub(super) fn saves(&self, table: usize, c: &Config) -> bool {
        match c.tie_word_embeddings {
            true => table == 0 && !self.modules_to_save.is_empty(),
            false => self.modules_to_save.iter().any(|m| m == TABLES[table]),
        }
    }

    /// Whether every layer carries the same adapters.
    pub fn is_even(&self, c: &Config) -> bool {
        c.projections().into_iter().flatten().all(|(name, ..)| {
            let here = |n: usize| self.targets(n, &format!("model.layers.{n}.{name}"));
            (1..c.num_hidden_layers).all(|n| here(n) == here(0))
        })
    }

    pub(super) fn check(&self, c: &Config) -> Result<()> {
        let modules = c.modules();
        if self.r == 0 {
            return Err(Error::usage("lora.r must be at least 1"));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::usage(format!("lora.lora_dropout = {} is not a probability below 1", self.dropout)));
        }
        if self.target_modules.is_empty() {
            return Err(Error::usage("lora.target_modules names no module").next("use \"all-linear\""));
        }
        let known = |m: &String| {
            m == ALL_LINEAR || is_pattern(m) || m.rsplit('.').next().is_some_and(|leaf| modules.contains(&leaf))
        };
        if let Some(m) = self.target_modules.iter().find(|m| !known(m)) {
            return Err(Error::usage(format!("lora.target_modules: this model has no {m:?}"))
                .next(format!("it has {}", modules.join(", "))));
        }
        let layers = c.num_hidden_layers;
        if let Some(l) = self.layers.iter().flatten().find(|l| **l >= layers) {
            return Err(Error::usage(format!("lora.layers_to_transform: this model has no layer {l}"))
                .next(format!("its layers are 0 to {}", layers - 1)));
        }
        if let Some(m) = self.modules_to_save.iter().find(|m| !TABLES.contains(&m.as_str())) {
            return Err(Error::usage(format!("lora.modules_to_save: {m:?} is not trained whole"))
                .next(format!("it can name {}", TABLES.join(", "))));
        }
        let paths = c.projections().into_iter().flatten();
        let mut all = paths.flat_map(|(p, ..)| (0..layers).map(move |n| (n, format!("model.layers.{n}.{p}"))));
        match all.any(|(n, path)| self.targets(n, &path)) {
            true => Ok(()),
            false => Err(Error::usage("lora: no linear layer is left to carry an adapter")
                .next("widen target_modules or layers_to_transform, or exclude less")),
        }
    }
}

/// A list as it stands in an `adapter_config.json`; a pattern stands alone.
pub fn meant(list: &[String]) -> TargetModules {
    match list {
        [word] if word == ALL_LINEAR || is_pattern(word) => TargetModules::Word(word.clone()),
        names => TargetModules::Names(names.to_vec()),
    }
}

/// What trains.
#[derive(Debug, Clone, PartialEq)]
pub enum Tuning {
    Full,
    Lora(LoraConfig),
    None,
}

/// What a pass needs to know inside a layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context {
    /// Whether adapters count.
    pub adapter: bool,
    /// (seed, step, micro-step) of the dropout masks; none in evaluation.
    pub dropout: Option<(u64, u64, u64)>,
    pub layer: u32,
}

/// One projection's adapter inside a [`Lora`].
#[derive(Debug)]
pub(super) struct Part {
    /// Columns of the fused output.
    pub out: (usize, usize),
    /// Rows of the fused A.
    pub rank: (usize, usize),
    pub a: Param,
    pub b: Param,
    /// DoRA's.
    pub magnitude: Option<Param>,
    module: u32,
}

/// The adapters of projections that share an input.
#[derive(Debug)]
pub(super) struct Lora {
    pub parts: Vec<Part>,
    /// All A matrices, one under the other: `[R, in]`.
    pub a: Param,
    pub scale: f32,
    pub dropout: f64,
}

/// The adapter's tensor names under a projection's prefix (`model.layers.0.self_attn.q_proj`).
pub(super) fn names(prefix: &str) -> (String, String) {
    (format!("{prefix}.lora_A.weight"), format!("{prefix}.lora_B.weight"))
}

/// The name of DoRA's magnitudes under a projection's prefix, as PEFT saves it.
pub(super) fn magnitude(prefix: &str) -> String {
    format!("{prefix}.lora_magnitude_vector")
}

/// A projection's number in random streams.
fn module(prefix: &str) -> u32 {
    let leaf = prefix.rsplit('.').next();
    MODULES.iter().chain(&FUSED).position(|m| Some(*m) == leaf).unwrap_or(MODULES.len() + FUSED.len()) as u32
}

/// Fresh adapters: A uniform on ±1/√in (PEFT's `kaiming_uniform_(a=√5)`), B zero. What else trains is left as it is.
pub(super) fn start(params: &Params, seed: u64) -> Result<()> {
    let mut values = params.values()?;
    for entry in params.entries() {
        let Some(prefix) = entry.name.strip_suffix(".lora_A.weight") else { continue };
        let layer = prefix.strip_prefix("model.layers.").and_then(|p| p.split('.').next()?.parse().ok());
        let bound = 1.0 / (entry.shape.last().copied().unwrap_or(1) as f32).sqrt();
        let stream = Stream { seed, words: [layer.unwrap_or(u32::MAX), module(prefix), u32::MAX] };
        stream.fill_uniform(bound, &mut values[entry.range.clone()]);
    }
    params.set_values(&values)
}

impl Lora {
    /// Over projections `(prefix, first output column, width)`; those not in `params` have no adapter.
    pub fn new(config: &LoraConfig, params: &Params, projections: &[(String, usize, usize)]) -> Result<Option<Self>> {
        let mut parts = Vec::new();
        let mut all = Vec::new();
        for (prefix, start, width) in projections {
            let (name_a, name_b) = names(prefix);
            let (Some(a), Some(b)) = (params.param(std::slice::from_ref(&name_a))?, params.param(&[name_b])?) else {
                continue;
            };
            let (module, magnitude) = (module(prefix), params.param(&[magnitude(prefix)])?);
            parts.push(Part { out: (*start, *width), rank: (all.len() * config.r, config.r), a, b, magnitude, module });
            all.push(name_a);
        }
        if parts.is_empty() {
            return Ok(None);
        }
        let a = params.param(&all)?.ok_or_else(|| Error::new("adapters of one layer do not lie side by side"))?;
        Ok(Some(Self { parts, a, scale: config.scale() as f32, dropout: config.dropout }))
    }

    pub fn stream(&self, part: &Part, c: &Context) -> Option<Stream> {
        let (seed, step, micro) = c.dropout.filter(|_| self.dropout > 0.0)?;
        Some(Stream { seed, words: [step as u32, micro as u32, c.layer << 8 | part.module] })
    }

    pub fn drops(&self, c: &Context) -> bool {
        self.dropout > 0.0 && c.dropout.is_some()
    }

    /// Adds the adapters' share into `y [T, out]`; returns `dropout(x)·Aᵀ [T, R]`, which the backward pass wants.
    pub fn forward(&self, x: &Tensor, y: &Tensor, c: &Context) -> Result<Tensor> {
        let h = if self.drops(c) {
            let h = Tensor::zeros((x.dim(0)?, self.a.value.dim(0)?), DType::F32, x.device())?;
            for p in &self.parts {
                if let Some(stream) = self.stream(p, c) {
                    let x = dropout(x, self.dropout, stream)?;
                    matmul_to_(&h.narrow(1, p.rank.0, p.rank.1)?, 1.0, &x, &p.a.value.t()?)?;
                }
            }
            h
        } else {
            matmul(x, &self.a.value.t()?)?
        };
        for p in &self.parts {
            let (y, h) = (y.narrow(1, p.out.0, p.out.1)?, h.narrow(1, p.rank.0, p.rank.1)?);
            matmul_add_(&y, self.scale, &h, &p.b.value.t()?)?;
        }
        Ok(h)
    }

    /// Adds into the gradients of A and B, and into `dx [T, in]` where there is one. `h` from the forward pass.
    pub fn backward(&self, dy: &Tensor, x: &Tensor, h: &Tensor, dx: Option<&Tensor>, c: &Context) -> Result<()> {
        let dh = Tensor::zeros(h.shape(), DType::F32, h.device())?;
        for p in &self.parts {
            let dy = dy.narrow(1, p.out.0, p.out.1)?;
            let h = h.narrow(1, p.rank.0, p.rank.1)?;
            matmul_to_(&dh.narrow(1, p.rank.0, p.rank.1)?, self.scale, &dy, &p.b.value)?;
            matmul_add_(&p.b.grad, self.scale, &dy.t()?, &h)?;
        }
        if !self.drops(c) {
            matmul_add_(&self.a.grad, 1.0, &dh.t()?, x)?;
            return dx.map_or(Ok(()), |dx| matmul_add_(dx, 1.0, &dh, &self.a.value));
        }
        for p in &self.parts {
            let Some(stream) = self.stream(p, c) else { continue };
            let dh = dh.narrow(1, p.rank.0, p.rank.1)?;
            matmul_add_(&p.a.grad, 1.0, &dh.t()?, &dropout(x, self.dropout, stream)?)?;
            if let Some(dx) = dx {
                let through = matmul(&dh, &p.a.value)?;
                dropout_(&through, self.dropout, stream)?;
                add_(dx, &through)?;
            }
        }
        Ok(())
    }
}
