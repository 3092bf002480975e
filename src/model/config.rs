//! What a decoder computes, named as Hugging Face's `config.json` names it: its sizes, and what differs from a plain Llama.
//!
//! The families in `families/` write it down; `decoder`, `block` and the card's engine read it. Must not know files.

use super::{experts, families};
use crate::ops::attention::{Attention, Heads};
use crate::ops::packed::Packed;
pub use crate::ops::rope::scaling::{Llama3, LongRope, Scaling as RopeScaling, Yarn};
pub use crate::ops::swiglu::Activation;
use crate::{Error, Result};
use candle_core::Tensor;
use serde_json::Value;
use std::collections::HashMap;

/// A decoder's description.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `llama`, `qwen2` …: `model_type` in `config.json`.
    pub model_type: String,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub max_position_embeddings: usize,
    pub rms_norm_eps: f64,
    pub rope_theta: f64,
    /// Scaling of the rotary frequencies (of [`Rope::Global`]), where the model has it.
    pub rope_scaling: Option<RopeScaling>,
    pub tie_word_embeddings: bool,
    /// Whether q, k and v carry a bias.
    pub attention_bias: bool,
    pub bos_token_id: Option<u32>,
    /// Any of these ends a generation (`config.json` and `generation_config.json` together).
    pub eos_token_ids: Vec<u32>,
    pub traits: Traits,
}

/// What differs from a plain Llama; the default is one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Traits {
    /// Whether `o_proj` carries a bias.
    pub output_bias: bool,
    /// Whether the MLP's matrices carry biases.
    pub mlp_bias: bool,
    /// q, k, v are one matrix `qkv_proj`, and gate and up one `gate_up_proj` (Phi-3).
    pub fused: bool,
    /// Queries and keys are normalised head by head (`q_norm`, `k_norm`), before they are turned.
    pub head_norms: bool,
    /// Norms multiply by 1 + their weight (Gemma).
    pub unit_offset: bool,
    /// What attention and MLP give is normalised before it joins the residual stream (Gemma 2 and 3).
    pub post_norms: bool,
    pub activation: Activation,
    /// What embeddings are multiplied by; a tied head is not.
    pub embedding_scale: Option<f64>,
    /// Scores are divided by its root, in place of `head_dim`'s.
    pub query_pre_attn_scalar: Option<f64>,
    pub attn_logit_softcapping: Option<f64>,
    pub final_logit_softcapping: Option<f64>,
    /// How many of a head's numbers are turned; all where there is none.
    pub rotary_dim: Option<usize>,
    /// Tokens that a layer with `sliding` sees, the own among them.
    pub sliding_window: Option<usize>,
    /// θ of layers that turn by [`Rope::Local`].
    pub rope_local_base_freq: Option<f64>,
    /// One a layer, or none: all full, all [`Rope::Global`].
    pub layers: Vec<Layer>,
    /// A mixture of experts in place of every MLP.
    pub experts: Option<Experts>,
    /// Each head's softmax has one more score, which belongs to no token (gpt-oss).
    pub sinks: bool,
}

/// A mixture of experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Experts {
    /// `num_experts`
    pub count: usize,
    /// `num_experts_per_tok`
    pub per_token: usize,
    /// `moe_intermediate_size`
    pub intermediate_size: usize,
    /// `norm_topk_prob`: the chosen experts' weights are divided by their sum.
    pub normalized: bool,
    /// The router's name under a block.
    pub router: &'static str,
    /// Whether router and experts carry biases.
    pub biased: bool,
}

/// What one layer's attention sees, and by which angles it turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Layer {
    /// Whether it sees only the last `sliding_window` tokens.
    pub sliding: bool,
    pub rope: Rope,
}

/// The angles that a layer turns queries and keys by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rope {
    /// Those of `rope_theta` and `rope_scaling`.
    #[default]
    Global,
    /// Those of `rope_local_base_freq`.
    Local,
    /// None: positions count only through the causal mask (SmolLM3).
    None,
}

/// A model's weights by their Hugging Face names (`model.layers.0.self_attn.q_proj.weight`),
/// in Hugging Face layout (`[out, in]`; q and k rows never permuted), on the CPU.
/// With a tied head there is no `lm_head.weight`.
pub struct Weights {
    pub config: Config,
    /// f32.
    pub tensors: HashMap<String, Tensor>,
    /// Matrices that stay in the bits they are stored in.
    pub packed: HashMap<String, Packed>,
}

/// How a model's weights are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// All in f32.
    Full,
    /// Matrices that their file keeps in fewer bits stay as they are there; the rest in f32.
    Stored,
    /// As [`Hold::Stored`], and the blocks' linear layers in NF4 with double quantization; embeddings and head as they are
    /// stored.
    Nf4,
}

impl Weights {
    /// All in f32.
    pub fn new(config: Config, tensors: HashMap<String, Tensor>) -> Self {
        Self { config, tensors, packed: HashMap::new() }
    }
}

/// A projection: its name under the block, outputs, inputs.
pub type Projection = (&'static str, usize, usize);

impl Config {
    /// Read `config.json`, with `generation_config.json` where there is one (its eos ids count too).
    ///
    /// Defaults are transformers' own for the family's configuration class. What would change the arithmetic and is not
    /// implemented is refused by name, and so is another architecture, with the list of those that can be read.
    pub fn from_hf(config: &Value, generation: Option<&Value>) -> Result<Self> {
        families::from_hf(config, generation)
    }

    /// The sizes that memory depends on, as of a checkpoint in 16 bits.
    pub fn shape(&self) -> crate::memory::Shape {
        let t = &self.traits;
        let keys = self.num_key_value_heads * self.head_dim;
        let queries = self.num_attention_heads * self.head_dim;
        let count = |shapes: Vec<(String, Vec<usize>)>| -> usize {
            shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
        };
        let linear: usize = self.projections().iter().flatten().map(|(_, out, inputs)| out * inputs).sum();
        crate::memory::Shape {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            // A token's own experts are its MLP.
            intermediate_size: t.experts.map_or(self.intermediate_size, |e| e.per_token * e.intermediate_size),
            num_hidden_layers: self.num_hidden_layers,
            queries,
            keys,
            num_attention_heads: self.num_attention_heads,
            tie_word_embeddings: self.tie_word_embeddings,
            fused: t.fused,
            dense: t.experts.is_none(),
            others: count(self.matrices("")) - linear + count(self.vectors("")),
            kept: [
                t.experts.map_or(0, |e| e.count + 3 * e.per_token),
                if t.head_norms { queries + 2 * keys + self.num_attention_heads + self.num_key_value_heads } else { 0 },
                if t.post_norms { 2 * self.hidden_size } else { 0 },
            ]
            .iter()
            .sum(),
            normed_heads: if t.head_norms { self.num_attention_heads + self.num_key_value_heads } else { 0 },
            post_norms: t.post_norms,
            quantizable: count(
                self.matrices("")
                    .into_iter()
                    .filter(|(name, _)| {
                        name.ends_with("_proj.weight") && !(self.stacks_experts() && name.contains("experts"))
                    })
                    .collect(),
            ),
            stored: crate::memory::Stored::Floats(2),
        }
    }

    /// Whether the experts of a layer lie in one tensor, in a form of their own (gpt-oss).
    pub fn stacks_experts(&self) -> bool {
        self.traits.experts.is_some_and(|e| e.biased)
    }

    /// What a layer's attention sees and turns by.
    pub fn layer(&self, layer: usize) -> Layer {
        self.traits.layers.get(layer).copied().unwrap_or_default()
    }

    /// A layer's attention; sinks are its own weights.
    pub(super) fn attention(&self, layer: usize) -> Attention {
        let heads =
            Heads { heads: self.num_attention_heads, kv_heads: self.num_key_value_heads, head_dim: self.head_dim };
        let t = &self.traits;
        let plain = heads.plain();
        Attention {
            scale: t.query_pre_attn_scalar.map_or(plain.scale, |s| (1.0 / s.sqrt()) as f32),
            softcap: t.attn_logit_softcapping.map(|c| c as f32),
            window: t.sliding_window.filter(|_| self.layer(layer).sliding),
            ..plain
        }
    }

    /// What every norm's weight is taken to be more than it says: 1 in Gemma, else 0.
    pub(super) fn norm_offset(&self) -> f32 {
        if self.traits.unit_offset { 1.0 } else { 0.0 }
    }

    /// A block's projections: of the normed input (q, k, v), of attention's output, of the MLP's normed input (gate, up),
    /// of the gated activation. None of the last two where there are experts.
    pub fn projections(&self) -> [Vec<Projection>; 4] {
        let (n, f) = (self.hidden_size, self.intermediate_size);
        let (q, kv) = (self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim);
        let (qkv, gate_up) = match self.traits.fused {
            true => (vec![("self_attn.qkv_proj", q + 2 * kv, n)], vec![("mlp.gate_up_proj", 2 * f, n)]),
            false => (
                vec![("self_attn.q_proj", q, n), ("self_attn.k_proj", kv, n), ("self_attn.v_proj", kv, n)],
                vec![("mlp.gate_proj", f, n), ("mlp.up_proj", f, n)],
            ),
        };
        let o = vec![("self_attn.o_proj", n, q)];
        match self.traits.experts {
            None => [qkv, o, gate_up, vec![("mlp.down_proj", n, f)]],
            Some(_) => [qkv, o, Vec::new(), Vec::new()],
        }
    }

    /// Which of [`Config::projections`] carry biases.
    pub fn biases(&self) -> [bool; 4] {
        let t = &self.traits;
        [self.attention_bias, t.output_bias, t.mlp_bias, t.mlp_bias]
    }

    /// The names of the linear modules that can carry adapters, as PEFT's `target_modules` spells them.
    pub fn modules(&self) -> Vec<&'static str> {
        let leaf = |(name, ..): Projection| name.rsplit('.').next().unwrap_or(name);
        self.projections().into_iter().flatten().map(leaf).collect()
    }

    /// The names under a block of the norms over `hidden_size`: before attention, before the MLP, then those after them.
    pub fn norms(&self) -> Vec<&'static str> {
        match self.traits.post_norms {
            false => vec!["input_layernorm.weight", "post_attention_layernorm.weight"],
            true => vec![
                "input_layernorm.weight",
                "pre_feedforward_layernorm.weight",
                "post_attention_layernorm.weight",
                "post_feedforward_layernorm.weight",
            ],
        }
    }

    /// A block's matrices, in the order in which they train; `prefix` comes before their names. `[out, in]`.
    pub(super) fn matrices(&self, prefix: &str) -> Vec<(String, Vec<usize>)> {
        let projections = self.projections().into_iter().flatten();
        let mut all: Vec<_> =
            projections.map(|(name, out, inputs)| (format!("{prefix}{name}.weight"), vec![out, inputs])).collect();
        if let Some(e) = &self.traits.experts {
            let (n, f) = (self.hidden_size, e.intermediate_size);
            all.push((format!("{prefix}{}.weight", e.router), vec![e.count, n]));
            for expert in 0..e.count {
                let shapes = [vec![f, n], vec![f, n], vec![n, f]];
                let names = experts::names(expert).map(|name| format!("{prefix}{name}.weight"));
                all.extend(names.into_iter().zip(shapes));
            }
        }
        all
    }

    /// A block's vectors (biases, norms), in the order in which they train; `prefix` comes before their names.
    pub(super) fn vectors(&self, prefix: &str) -> Vec<(String, Vec<usize>)> {
        let mut all = Vec::new();
        for (group, bias) in self.projections().iter().zip(self.biases()) {
            let named = group.iter().map(|(name, out, _)| (format!("{prefix}{name}.bias"), vec![*out]));
            all.extend(named.filter(|_| bias));
        }
        if let Some(e) = self.traits.experts.filter(|e| e.biased) {
            all.push((format!("{prefix}{}.bias", e.router), vec![e.count]));
            for expert in 0..e.count {
                let widths = [e.intermediate_size, e.intermediate_size, self.hidden_size];
                let names = experts::names(expert).map(|name| format!("{prefix}{name}.bias"));
                all.extend(names.into_iter().zip(widths.map(|w| vec![w])));
            }
        }
        all.extend(self.norms().iter().map(|n| (format!("{prefix}{n}"), vec![self.hidden_size])));
        if self.traits.head_norms {
            all.extend(HEAD_NORMS.map(|n| (format!("{prefix}{n}"), vec![self.head_dim])));
        }
        if self.traits.sinks {
            all.push((format!("{prefix}{SINKS}"), vec![self.num_attention_heads]));
        }
        all
    }

    /// Every weight of the model by its Hugging Face name, with its shape `[out, in]` (`[n]` for norms and biases).
    pub fn tensor_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let h = self.hidden_size;
        let mut shapes = vec![("model.embed_tokens.weight".to_string(), vec![self.vocab_size, h])];
        for n in 0..self.num_hidden_layers {
            let prefix = format!("model.layers.{n}.");
            let mut block = [self.matrices(&prefix), self.vectors(&prefix)].concat();
            // As they follow each other in a block.
            let [first, before_mlp] = [0, 1].map(|i| format!("{prefix}{}", self.norms()[i]));
            block.sort_by_key(|(name, _)| match name {
                n if *n == first => 0,
                n if *n == before_mlp => 2,
                n if n.contains(".mlp.") => 3,
                _ => 1,
            });
            shapes.extend(block);
        }
        shapes.push(("model.norm.weight".to_string(), vec![h]));
        if !self.tie_word_embeddings {
            shapes.push(("lm_head.weight".to_string(), vec![self.vocab_size, h]));
        }
        shapes
    }

    /// Refuses shapes that no decoder can have, so that nothing below has to.
    pub fn validate(&self) -> Result<()> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
            ("sliding_window", self.traits.sliding_window.unwrap_or(1)),
        ];
        // 2^28 is far beyond every published model and keeps all products of two sizes inside usize.
        if let Some((name, n)) = sizes.iter().find(|(_, n)| *n == 0 || *n > 1 << 28) {
            return Err(Error::new(format!("{name} = {n} is not a size a model can have")));
        }
        if self.num_hidden_layers > 10_000 {
            return Err(Error::new(format!("num_hidden_layers = {} is not credible", self.num_hidden_layers)));
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            return Err(Error::new(format!(
                "num_attention_heads = {} is not a multiple of num_key_value_heads = {}",
                self.num_attention_heads, self.num_key_value_heads
            )));
        }
        let turned = self.traits.rotary_dim.unwrap_or(self.head_dim);
        if !turned.is_multiple_of(2) || turned == 0 || turned > self.head_dim {
            return Err(Error::new(format!(
                "{turned} numbers of a head_dim of {} are to be turned; rotary embeddings need an even part of it",
                self.head_dim
            )));
        }
        let t = &self.traits;
        let positive = [
            ("rms_norm_eps", Some(self.rms_norm_eps)),
            ("rope_theta", Some(self.rope_theta)),
            ("rope_local_base_freq", t.rope_local_base_freq),
            ("query_pre_attn_scalar", t.query_pre_attn_scalar),
            ("attn_logit_softcapping", t.attn_logit_softcapping),
            ("final_logit_softcapping", t.final_logit_softcapping),
        ];
        for (name, v) in positive.into_iter().filter_map(|(name, v)| Some((name, v?))) {
            if !v.is_finite() || v <= 0.0 {
                return Err(Error::new(format!("{name} = {v} must be a positive number")));
            }
        }
        if let Some(e) = &t.experts {
            let sizes = [("num_experts", e.count), ("moe_intermediate_size", e.intermediate_size)];
            if let Some((name, n)) = sizes.iter().find(|(_, n)| *n == 0 || *n > 1 << 20) {
                return Err(Error::new(format!("{name} = {n} is not a size a model can have")));
            }
            if e.per_token == 0 || e.per_token > e.count {
                return Err(Error::new(format!("num_experts_per_tok = {} of {} experts", e.per_token, e.count)));
            }
        }
        if !t.layers.is_empty() && t.layers.len() != self.num_hidden_layers {
            return Err(Error::new(format!(
                "layer_types names {} layers, but num_hidden_layers = {}",
                t.layers.len(),
                self.num_hidden_layers
            )));
        }
        if t.layers.iter().any(|l| l.sliding) && t.sliding_window.is_none() {
            return Err(Error::new("layer_types has sliding_attention, but sliding_window is missing"));
        }
        if t.layers.iter().any(|l| l.rope == Rope::Local) && t.rope_local_base_freq.is_none() {
            return Err(Error::new("rope_local_base_freq is missing"));
        }
        if let Some(RopeScaling::LongRope(l)) = &self.rope_scaling {
            for (name, list) in [("short_factor", &l.short_factor), ("long_factor", &l.long_factor)] {
                if list.len() != turned / 2 {
                    return Err(Error::new(format!("{name} has {} numbers, expected {}", list.len(), turned / 2)));
                }
            }
        }
        Ok(())
    }
}

/// The scores of no token, one a head, under a block.
pub(super) const SINKS: &str = "self_attn.sinks";
/// The norms of query and key heads, under a block.
pub(super) const HEAD_NORMS: [&str; 2] = ["self_attn.q_norm.weight", "self_attn.k_norm.weight"];
