//! A decoder's shape, named as Hugging Face's `config.json` names it.

use crate::{Error, Result};
use candle_core::Tensor;
use serde_json::Value;
use std::collections::HashMap;

/// The shape of a Llama-style decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `llama` …: `model_type` in `config.json`, `general.architecture` in a GGUF.
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
    /// Llama-3 scaling of the rotary frequencies, where the model has it.
    pub rope_scaling: Option<RopeScaling>,
    pub tie_word_embeddings: bool,
    /// Whether q, k and v carry a bias.
    pub attention_bias: bool,
    pub bos_token_id: Option<u32>,
    /// Any of these ends a generation (`config.json` and `generation_config.json` together).
    pub eos_token_ids: Vec<u32>,
}

/// `rope_type = "llama3"`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeScaling {
    pub factor: f64,
    pub low_freq_factor: f64,
    pub high_freq_factor: f64,
    pub original_max_position_embeddings: usize,
}

/// A model's weights by their Hugging Face names (`model.layers.0.self_attn.q_proj.weight`),
/// in Hugging Face layout (`[out, in]`; q and k rows never permuted), f32 on the CPU.
/// With a tied head there is no `lm_head.weight`.
pub struct Weights {
    pub config: Config,
    pub tensors: HashMap<String, Tensor>,
}

/// The architectures that can be loaded, as `architectures` in `config.json` names them.
pub const SUPPORTED: &[&str] = &["LlamaForCausalLM"];

impl Config {
    /// The sizes that memory depends on.
    pub fn shape(&self) -> crate::memory::Shape {
        crate::memory::Shape {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            queries: self.num_attention_heads * self.head_dim,
            keys: self.num_key_value_heads * self.head_dim,
            num_attention_heads: self.num_attention_heads,
            tie_word_embeddings: self.tie_word_embeddings,
        }
    }

    /// Every weight of the model by its Hugging Face name, with its shape `[out, in]` (`[n]` for norms).
    pub fn tensor_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let (h, f) = (self.hidden_size, self.intermediate_size);
        let (q, kv) = (self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim);
        let mut shapes = vec![("model.embed_tokens.weight".to_string(), vec![self.vocab_size, h])];
        for n in 0..self.num_hidden_layers {
            let mut add =
                |name: &str, shape: Vec<usize>| shapes.push((format!("model.layers.{n}.{name}.weight"), shape));
            add("input_layernorm", vec![h]);
            add("self_attn.q_proj", vec![q, h]);
            add("self_attn.k_proj", vec![kv, h]);
            add("self_attn.v_proj", vec![kv, h]);
            add("self_attn.o_proj", vec![h, q]);
            add("post_attention_layernorm", vec![h]);
            add("mlp.gate_proj", vec![f, h]);
            add("mlp.up_proj", vec![f, h]);
            add("mlp.down_proj", vec![h, f]);
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
        if !self.head_dim.is_multiple_of(2) {
            return Err(Error::new(format!("head_dim = {} is odd; rotary embeddings need an even one", self.head_dim)));
        }
        for (name, v) in [("rms_norm_eps", self.rms_norm_eps), ("rope_theta", self.rope_theta)] {
            if !v.is_finite() || v <= 0.0 {
                return Err(Error::new(format!("{name} = {v} must be a positive number")));
            }
        }
        Ok(())
    }

    /// Read `config.json`, with `generation_config.json` where there is one (its eos ids count too).
    ///
    /// Defaults are transformers' own (`LlamaConfig`). Both the older spelling (`rope_theta`, `rope_scaling`) and
    /// that of transformers 5 (`rope_parameters`) are read. What would change the arithmetic and is not implemented
    /// is refused by name.
    pub fn from_hf(config: &Value, generation: Option<&Value>) -> Result<Self> {
        let named = config.get("architectures").and_then(|a| a.get(0)).and_then(Value::as_str);
        let model_type = config.get("model_type").and_then(Value::as_str);
        let supported = match (named, model_type) {
            (Some(name), _) => SUPPORTED.contains(&name),
            (None, kind) => kind == Some("llama"),
        };
        if !supported {
            let name = named.or(model_type).unwrap_or("(none named)");
            return Err(Error::new(format!("architecture {name} is not supported"))
                .next(format!("supported: {}", SUPPORTED.join(", "))));
        }
        for key in ["attention_bias", "mlp_bias"] {
            if config.get(key).and_then(Value::as_bool) == Some(true) {
                return Err(Error::new(format!("{key} = true is not supported"))
                    .next("use a model whose linear layers have no bias"));
            }
        }
        if config.get("quantization_config").is_some_and(|v| !v.is_null()) {
            return Err(Error::new("the weights are quantized (quantization_config)")
                .next("use the original 16-bit model, or a .gguf"));
        }
        let act = config.get("hidden_act").and_then(Value::as_str).unwrap_or("silu");
        if act != "silu" && act != "swish" {
            return Err(Error::new(format!("hidden_act = \"{act}\" is not supported")).next("supported: silu"));
        }

        let required = |key: &str| -> Result<usize> {
            number(config, key)?.ok_or_else(|| Error::new(format!("{key} is missing")))
        };
        let hidden_size = required("hidden_size")?;
        let num_attention_heads = required("num_attention_heads")?;
        let rope = config.get("rope_parameters").filter(|v| v.is_object());
        let rope_theta = rope.and_then(|r| r.get("rope_theta")).or_else(|| config.get("rope_theta"));
        let scaling = rope.or_else(|| config.get("rope_scaling")).filter(|v| v.is_object());
        let mut eos_token_ids = token_ids(config, "eos_token_id")?;
        if let Some(generation) = generation {
            for id in token_ids(generation, "eos_token_id")? {
                if !eos_token_ids.contains(&id) {
                    eos_token_ids.push(id);
                }
            }
        }
        let out = Self {
            model_type: "llama".to_string(),
            vocab_size: required("vocab_size")?,
            hidden_size,
            intermediate_size: required("intermediate_size")?,
            num_hidden_layers: required("num_hidden_layers")?,
            num_attention_heads,
            num_key_value_heads: number(config, "num_key_value_heads")?.unwrap_or(num_attention_heads),
            head_dim: match number(config, "head_dim")? {
                Some(n) => n,
                None => hidden_size / num_attention_heads.max(1),
            },
            max_position_embeddings: number(config, "max_position_embeddings")?.unwrap_or(2048),
            rms_norm_eps: config.get("rms_norm_eps").and_then(Value::as_f64).unwrap_or(1e-6),
            rope_theta: rope_theta.and_then(Value::as_f64).unwrap_or(10_000.0),
            rope_scaling: scaling.map(RopeScaling::from_hf).transpose()?.flatten(),
            tie_word_embeddings: config.get("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(false),
            attention_bias: false,
            bos_token_id: token_ids(config, "bos_token_id")?.first().copied(),
            eos_token_ids,
        };
        out.validate()?;
        Ok(out)
    }
}

impl RopeScaling {
    /// `rope_scaling` or `rope_parameters` of a `config.json`; `None` where it asks for no scaling.
    fn from_hf(value: &Value) -> Result<Option<Self>> {
        let kind = value.get("rope_type").or_else(|| value.get("type")).and_then(Value::as_str).unwrap_or("default");
        if kind == "default" {
            return Ok(None);
        }
        if kind != "llama3" {
            return Err(Error::new(format!("rope_scaling of type \"{kind}\" is not supported"))
                .next("supported: default, llama3"));
        }
        let float = |key: &str| -> Result<f64> {
            match value.get(key).and_then(Value::as_f64) {
                Some(v) if v.is_finite() && v > 0.0 => Ok(v),
                _ => Err(Error::new(format!("rope_scaling.{key} is missing or not a positive number"))),
            }
        };
        let original = number(value, "original_max_position_embeddings")?
            .ok_or_else(|| Error::new("rope_scaling.original_max_position_embeddings is missing"))?;
        Ok(Some(Self {
            factor: float("factor")?,
            low_freq_factor: float("low_freq_factor")?,
            high_freq_factor: float("high_freq_factor")?,
            original_max_position_embeddings: original,
        }))
    }

    /// What each of the `head_dim / 2` rotary frequencies is divided by (transformers'
    /// `_compute_llama3_parameters`): 1 for fast ones, `factor` for slow ones, between in between.
    pub fn divisors(&self, head_dim: usize, rope_theta: f64) -> Vec<f64> {
        let original = self.original_max_position_embeddings as f64;
        let (low, high) = (original / self.low_freq_factor, original / self.high_freq_factor);
        (0..head_dim / 2)
            .map(|i| {
                let frequency = rope_theta.powf(-2.0 * i as f64 / head_dim as f64);
                let wavelength = 2.0 * std::f64::consts::PI / frequency;
                if wavelength > low {
                    self.factor
                } else if wavelength < high {
                    1.0
                } else {
                    let smooth =
                        (original / wavelength - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor);
                    1.0 / ((1.0 - smooth) / self.factor + smooth)
                }
            })
            .collect()
    }
}

/// A size, or `None` where the key is absent or null.
fn number(value: &Value, key: &str) -> Result<Option<usize>> {
    match value.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(v) => match v.as_u64().and_then(|n| usize::try_from(n).ok()) {
            Some(n) => Ok(Some(n)),
            None => Err(Error::new(format!("{key} = {v} is not a whole number"))),
        },
    }
}

/// A token id or a list of them; none where the key is absent or null.
fn token_ids(value: &Value, key: &str) -> Result<Vec<u32>> {
    let id = |v: &Value| match v.as_u64().and_then(|n| u32::try_from(n).ok()) {
        Some(n) => Ok(n),
        None => Err(Error::new(format!("{key} = {v} is not a token id"))),
    };
    match value.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(id).collect(),
        Some(v) => Ok(vec![id(v)?]),
    }
}
