//! Reading a `config.json`: numbers, flags and lists by name, and what all families share.

use crate::model::bnb;
use crate::model::config::{Activation, Config, Layer, Llama3, LongRope, RopeScaling, Traits, Yarn};
use crate::{Error, Result};
use serde_json::Value;

/// A `config.json`, or a table in it.
#[derive(Clone, Copy)]
pub(super) struct Json<'a>(pub &'a Value);

/// What a family's configuration class takes where a key is absent.
pub(super) struct Defaults {
    /// `None`: as many as there are query heads.
    pub num_key_value_heads: Option<usize>,
    /// `None`: `hidden_size / num_attention_heads`.
    pub head_dim: Option<usize>,
    pub max_position_embeddings: usize,
    /// A key of its own in Phi-3's class; elsewhere the table of rotary parameters has it.
    pub original_max_position_embeddings: Option<usize>,
    pub rms_norm_eps: f64,
    pub rope_theta: f64,
    pub tie_word_embeddings: bool,
    pub bos_token_id: Option<u32>,
    pub eos_token_id: Option<u32>,
}

/// `LlamaConfig`'s, from which the others differ.
pub(super) const LLAMA: Defaults = Defaults {
    num_key_value_heads: None,
    head_dim: None,
    max_position_embeddings: 2048,
    original_max_position_embeddings: None,
    rms_norm_eps: 1e-6,
    rope_theta: 10_000.0,
    tie_word_embeddings: false,
    bos_token_id: Some(1),
    eos_token_id: Some(2),
};

/// θ, scaling and turned share, as a table of rotary parameters says.
pub(super) struct RopeTable {
    pub theta: f64,
    pub scaling: Option<RopeScaling>,
    pub partial: f64,
}

impl<'a> Json<'a> {
    /// What is there; null counts as absent.
    pub fn get(self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    /// A size, where there is one.
    pub fn size(self, key: &str) -> Result<Option<usize>> {
        match self.get(key) {
            None => Ok(None),
            Some(v) => match v.as_u64().and_then(|n| usize::try_from(n).ok()) {
                Some(n) => Ok(Some(n)),
                None => Err(Error::new(format!("{key} = {v} is not a whole number"))),
            },
        }
    }

    pub fn required(self, key: &str) -> Result<usize> {
        self.size(key)?.ok_or_else(|| Error::new(format!("{key} is missing")))
    }

    /// A size under a key that may be null: absent gives `default`, null gives `None`.
    pub fn size_or(self, key: &str, default: Option<usize>) -> Result<Option<usize>> {
        match self.0.get(key) {
            None => Ok(default),
            Some(_) => self.size(key),
        }
    }

    pub fn float(self, key: &str) -> Result<Option<f64>> {
        match self.get(key) {
            None => Ok(None),
            Some(v) => match v.as_f64().filter(|v| v.is_finite()) {
                Some(v) => Ok(Some(v)),
                None => Err(Error::new(format!("{key} = {v} is not a number"))),
            },
        }
    }

    /// A number under a key that may be null: absent gives `default`, null gives `None`.
    pub fn float_or(self, key: &str, default: Option<f64>) -> Result<Option<f64>> {
        match self.0.get(key) {
            None => Ok(default),
            Some(_) => self.float(key),
        }
    }

    pub fn flag(self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(v) => v.as_bool().ok_or_else(|| Error::new(format!("{key} = {v} is not true or false"))),
        }
    }

    fn text(self, key: &str) -> Result<Option<&'a str>> {
        match self.get(key) {
            None => Ok(None),
            Some(v) => v.as_str().map(Some).ok_or_else(|| Error::new(format!("{key} = {v} is not a string"))),
        }
    }

    fn floats(self, key: &str) -> Result<Vec<f64>> {
        let list = self.get(key).and_then(Value::as_array);
        let list = list.ok_or_else(|| Error::new(format!("{key} is missing or not a list")))?;
        let float = |v: &Value| match v.as_f64() {
            Some(v) if v.is_finite() && v > 0.0 => Ok(v),
            _ => Err(Error::new(format!("{key} holds {v}, which is not a positive number"))),
        };
        list.iter().map(float).collect()
    }

    fn positive(self, key: &str) -> Result<f64> {
        match self.float(key)? {
            Some(v) if v > 0.0 => Ok(v),
            _ => Err(Error::new(format!("rope_scaling.{key} is missing or not a positive number"))),
        }
    }

    /// The activation under `key`.
    pub fn activation(self, key: &str, default: Activation) -> Result<Activation> {
        match self.text(key)? {
            None => Ok(default),
            Some("silu" | "swish") => Ok(Activation::Silu),
            Some("gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
            Some(other) => {
                Err(Error::new(format!("{key} = \"{other}\" is not supported"))
                    .next("supported: silu, gelu_pytorch_tanh"))
            }
        }
    }

    /// `layer_types`, or where there is none what `sliding` says of each of `layers` layers.
    pub fn layer_types(self, layers: usize, sliding: impl Fn(usize) -> bool) -> Result<Vec<Layer>> {
        let Some(types) = self.get("layer_types") else {
            return Ok((0..layers).map(|i| Layer { sliding: sliding(i), ..Layer::default() }).collect());
        };
        let list = types.as_array().ok_or_else(|| Error::new("layer_types is not a list"))?;
        let layer = |v: &Value| match v.as_str() {
            Some("full_attention") => Ok(Layer::default()),
            Some("sliding_attention") => Ok(Layer { sliding: true, ..Layer::default() }),
            _ => Err(Error::new(format!("layer_types: {v} is not supported"))
                .next("supported: full_attention, sliding_attention")),
        };
        list.iter().map(layer).collect()
    }

    /// The table of rotary parameters: `rope_scaling` (the older spelling), else `rope_parameters` (transformers 5's).
    pub fn rope_table(self) -> Option<&'a Value> {
        let filled = |v: &&Value| v.as_object().is_some_and(|t| !t.is_empty());
        self.get("rope_scaling").filter(filled).or_else(|| self.get("rope_parameters").filter(filled))
    }

    /// θ, scaling and turned share, from a table of rotary parameters and the keys beside it.
    pub fn rope(self, table: Option<&'a Value>, d: &Defaults) -> Result<RopeTable> {
        let empty = Value::Null;
        let rope = Json(table.unwrap_or(&empty));
        let either = |key: &str| -> Result<Option<f64>> {
            match rope.float(key)? {
                Some(v) => Ok(Some(v)),
                None => self.float(key),
            }
        };
        Ok(RopeTable {
            theta: either("rope_theta")?.unwrap_or(d.rope_theta),
            partial: either("partial_rotary_factor")?.unwrap_or(1.0),
            scaling: self.scaling(rope, d)?,
        })
    }

    fn scaling(self, rope: Json, d: &Defaults) -> Result<Option<RopeScaling>> {
        let kind = match rope.text("rope_type")? {
            Some(kind) => kind,
            None => rope.text("type")?.unwrap_or("default"),
        };
        // transformers moves the length of pre-training into the table, a key of the configuration before one of the table.
        let longest = self.size("max_position_embeddings")?.unwrap_or(d.max_position_embeddings);
        let original = match self.size("original_max_position_embeddings")?.or(d.original_max_position_embeddings) {
            Some(n) => n,
            None => rope.size("original_max_position_embeddings")?.unwrap_or(longest),
        };
        let factor = || match rope.float("factor")? {
            Some(f) if f > 0.0 => Ok(f),
            Some(f) => Err(Error::new(format!("rope_scaling.factor = {f} must be a positive number"))),
            None => Ok(longest as f64 / original.max(1) as f64),
        };
        Ok(match kind {
            "default" => None,
            "linear" => Some(RopeScaling::Linear(rope.positive("factor")?)),
            "llama3" => Some(RopeScaling::Llama3(Llama3 {
                factor: rope.positive("factor")?,
                low_freq_factor: rope.positive("low_freq_factor")?,
                high_freq_factor: rope.positive("high_freq_factor")?,
                original_max_position_embeddings: original,
            })),
            "yarn" => {
                let factor = factor()?;
                let attention_factor = match (rope.float("mscale")?, rope.float("mscale_all_dim")?) {
                    (Some(m), Some(all)) if m != 0.0 && all != 0.0 => {
                        let of = |m: f64| if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
                        of(m) / of(all)
                    }
                    _ => Yarn::magnitude_of(factor),
                };
                Some(RopeScaling::Yarn(Yarn {
                    factor,
                    original_max_position_embeddings: original,
                    beta_fast: rope.float("beta_fast")?.filter(|b| *b != 0.0).unwrap_or(32.0),
                    beta_slow: rope.float("beta_slow")?.filter(|b| *b != 0.0).unwrap_or(1.0),
                    truncate: rope.flag("truncate", true)?,
                    attention_factor: rope.float("attention_factor")?.unwrap_or(attention_factor),
                }))
            }
            "longrope" | "su" => {
                let factor = factor()?;
                let magnitude = match factor <= 1.0 {
                    true => 1.0,
                    false => (1.0 + factor.ln() / (original as f64).ln()).sqrt(),
                };
                Some(RopeScaling::LongRope(LongRope {
                    short_factor: rope.floats("short_factor")?,
                    long_factor: rope.floats("long_factor")?,
                    original_max_position_embeddings: original,
                    attention_factor: rope.float("attention_factor")?.unwrap_or(magnitude),
                }))
            }
            other => {
                return Err(Error::new(format!("rope_scaling of type \"{other}\" is not supported"))
                    .next("supported: default, linear, llama3, yarn, longrope"));
            }
        })
    }

    /// What all families have in common, `traits` plain. Whole heads are turned; a family that turns a part says so after.
    ///
    /// # Errors
    /// What changes the arithmetic and is not implemented, by name.
    pub fn base(self, model_type: &str, d: &Defaults) -> Result<Config> {
        if let Some(quantized) = self.get("quantization_config") {
            bnb::check(quantized)?;
        }
        self.unquantized_base(model_type, d)
    }

    /// As [`Json::base`], for a family that has looked at `quantization_config` itself.
    pub fn unquantized_base(self, model_type: &str, d: &Defaults) -> Result<Config> {
        for key in ["attention_dropout", "resid_pdrop", "embd_pdrop"] {
            if let Some(p) = self.float(key)?.filter(|p| *p != 0.0) {
                return Err(Error::new(format!("{key} = {p} is not supported")).next("set it to 0 in config.json"));
            }
        }
        if self.flag("use_bidirectional_attention", false)? {
            return Err(Error::new("use_bidirectional_attention = true is not supported"));
        }
        let hidden_size = self.required("hidden_size")?;
        let heads = self.required("num_attention_heads")?;
        let rope = self.rope(self.rope_table(), d)?;
        let one = |id: Option<u32>| id.into_iter().collect::<Vec<_>>();
        let bos = token_ids(self.0, "bos_token_id")?.unwrap_or_else(|| one(d.bos_token_id));
        Ok(Config {
            model_type: model_type.to_string(),
            vocab_size: self.required("vocab_size")?,
            hidden_size,
            intermediate_size: self.required("intermediate_size")?,
            num_hidden_layers: self.required("num_hidden_layers")?,
            num_attention_heads: heads,
            num_key_value_heads: self.size_or("num_key_value_heads", d.num_key_value_heads)?.unwrap_or(heads),
            head_dim: match self.size_or("head_dim", d.head_dim)? {
                Some(n) => n,
                None => hidden_size / heads.max(1),
            },
            max_position_embeddings: self.size("max_position_embeddings")?.unwrap_or(d.max_position_embeddings),
            rms_norm_eps: self.float("rms_norm_eps")?.unwrap_or(d.rms_norm_eps),
            rope_theta: rope.theta,
            rope_scaling: rope.scaling,
            tie_word_embeddings: self.flag("tie_word_embeddings", d.tie_word_embeddings)?,
            attention_bias: false,
            bos_token_id: bos.first().copied(),
            eos_token_ids: token_ids(self.0, "eos_token_id")?.unwrap_or_else(|| one(d.eos_token_id)),
            traits: Traits::default(),
        })
    }

    /// Refuses a turned share other than all, in families whose heads are turned whole.
    pub fn whole_heads(self) -> Result<()> {
        match self.rope(self.rope_table(), &LLAMA)?.partial {
            1.0 => Ok(()),
            p => Err(Error::new(format!("partial_rotary_factor = {p} is not supported in this family"))),
        }
    }
}

/// A token id or a list of them; `None` where the key is absent, an empty list where it is null.
pub(super) fn token_ids(value: &Value, key: &str) -> Result<Option<Vec<u32>>> {
    let id = |v: &Value| match v.as_u64().and_then(|n| u32::try_from(n).ok()) {
        Some(n) => Ok(n),
        None => Err(Error::new(format!("{key} = {v} is not a token id"))),
    };
    match value.get(key) {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(Vec::new())),
        Some(Value::Array(list)) => list.iter().map(id).collect::<Result<_>>().map(Some),
        Some(v) => Ok(Some(vec![id(v)?])),
    }
}
