//! LoRA adapters as PEFT stores them: `adapter_model.safetensors` and `adapter_config.json`.
//!
//! Must not know how an adapter is trained, nor where in a run it lies.

use crate::model::config::Config;
use crate::model::convert::{Float, floats};
use crate::model::files::Bytes;
use crate::model::lora::{self, LoraConfig};
use crate::recipe::TargetModules;
use crate::{Error, Result};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

pub const WEIGHTS: &str = "adapter_model.safetensors";
pub const CONFIG: &str = "adapter_config.json";

/// What PEFT puts before a module's name: `PeftModel.base_model.model`.
const PREFIX: &str = "base_model.model.";
const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// The part of PEFT's `LoraConfig` that this program uses.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterConfig {
    pub r: usize,
    pub lora_alpha: f64,
    pub lora_dropout: f64,
    /// Endings of module paths (`q_proj`, `down_proj` …), or one pattern.
    pub target_modules: Vec<String>,
    pub exclude_modules: Vec<String>,
    pub layers_to_transform: Option<Vec<usize>>,
    pub use_rslora: bool,
    pub use_dora: bool,
    /// `embed_tokens`, `lm_head`.
    pub modules_to_save: Vec<String>,
    /// The head is the embedding, and what is saved of one is both.
    pub ensure_weight_tying: bool,
    pub base_model_name_or_path: String,
    /// The base's commit on the hub.
    pub revision: Option<String>,
}

/// One tensor: its name without PEFT's prefix (`model.layers.0.self_attn.q_proj.lora_A.weight`), its shape
/// (A: `[r, in]`, B: `[out, r]`, DoRA's magnitudes: `[out]`, a whole embedding or head: `[vocabulary, width]`) and its values,
/// row by row.
pub type Entry = (String, Vec<usize>, Vec<f32>);

/// An adapter read from disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    pub config: AdapterConfig,
    /// Sorted by name; every `lora_A` has its `lora_B`, and of DoRA its magnitudes.
    pub entries: Vec<Entry>,
}

/// Write an adapter into `folder` (made if absent). Each file is written beside its place and renamed in, the
/// configuration last, so that a folder with [`CONFIG`] is whole.
pub fn write(folder: &Path, config: &AdapterConfig, entries: &[Entry]) -> Result<()> {
    let mut entries: Vec<&Entry> = entries.iter().collect();
    let head;
    if let (true, Some(table)) = (config.ensure_weight_tying, entries.iter().find(|e| e.0 == EMBEDDING)) {
        // As PEFT saves it: under both names.
        head = (HEAD.to_string(), table.1.clone(), table.2.clone());
        entries.push(&head);
    }
    pairs(entries.iter().copied(), config).map_err(|e| e.at(folder.join(WEIGHTS).display()))?;
    std::fs::create_dir_all(folder).map_err(|e| Error::from(e).at(folder.display()))?;
    let bytes: Vec<Vec<u8>> =
        entries.iter().map(|(_, _, values)| values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let mut views = Vec::new();
    for (&(name, shape, _), bytes) in entries.iter().zip(&bytes) {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes)
            .map_err(|e| Error::new(format!("{name}: {e}")).at(folder.join(WEIGHTS).display()))?;
        views.push((format!("{PREFIX}{name}"), view));
    }
    // `format` is how transformers tells a PyTorch file from others.
    let about = HashMap::from([("format".to_string(), "pt".to_string())]);
    let file = safetensors::serialize(views, Some(about))
        .map_err(|e| Error::new(e.to_string()).at(folder.join(WEIGHTS).display()))?;
    put(folder, WEIGHTS, &file)?;
    put(folder, CONFIG, &config.to_json()?)
}

/// Read an adapter back. Errors name the file and the tensor.
///
/// What PEFT can express and this program does not compute (ranks by layer, trained biases, adapters of embeddings) is
/// refused by name rather than left out.
pub fn read(folder: &Path) -> Result<Adapter> {
    let path = folder.join(WEIGHTS);
    let place = path.display().to_string();
    let config = AdapterConfig::read(folder)?;
    if !path.is_file() {
        let next = match folder.join("adapter_model.bin").is_file() {
            true => {
                "adapter_model.bin is PyTorch's pickle format, which can run code; save it as safetensors with PEFT"
            }
            false => "name the folder that PEFT's save_pretrained wrote",
        };
        return Err(Error::new("not found").at(place).next(next));
    }
    let bytes = Bytes::map(&path)?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|e| Error::new(format!("not a whole safetensors file: {e}")).at(&place))?;
    let mut entries = Vec::new();
    for (name, view) in file.iter() {
        let at = |e: Error| e.at(format!("{place}: {name}"));
        let Some(short) = name.strip_prefix(PREFIX).filter(|n| Role::of(n).is_some()) else {
            return Err(at(Error::new("not a part of an adapter that is known here")
                .next("known: LoRA and DoRA of linear layers, and whole embed_tokens and lm_head")));
        };
        let kind = match view.dtype() {
            Dtype::F32 => Float::F32,
            Dtype::F16 => Float::F16,
            Dtype::BF16 => Float::BF16,
            other => return Err(at(Error::new(format!("stored as {other:?}; supported: F32, F16, BF16")))),
        };
        entries.push((short.to_string(), view.shape().to_vec(), floats(view.data(), kind)));
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    pairs(entries.iter(), &config).map_err(|e| e.at(&place))?;
    Ok(Adapter { config, entries })
}

impl Adapter {
    /// Refuses an adapter that was made for a model of another shape, or that trained apart what is one in it.
    pub fn fits(&self, model: &Config) -> Result<()> {
        let shapes: HashMap<String, Vec<usize>> = model.tensor_shapes().into_iter().collect();
        for (name, shape, _) in &self.entries {
            let tied_head = name == HEAD && model.tie_word_embeddings;
            let (module, role) = Role::of(name).unwrap_or((name, Role::Table));
            let weight = if tied_head { EMBEDDING.to_string() } else { format!("{module}.weight") };
            let Some(base) = shapes.get(&weight).filter(|s| s.len() == 2) else {
                return Err(Error::new("the model has no such layer").at(name).next(self.base_hint()));
            };
            let expected = match role {
                Role::A => vec![self.config.r, base[1]],
                Role::B => vec![base[0], self.config.r],
                Role::Magnitude => vec![base[0]],
                Role::Table => base.clone(),
            };
            if *shape != expected {
                return Err(Error::new(format!("shape {shape:?}, but the model asks for {expected:?}"))
                    .at(name)
                    .next(self.base_hint()));
            }
        }
        let table = |name: &str| self.entries.iter().find(|e| e.0 == name).map(|e| &e.2);
        let (embedding, head) = (table(EMBEDDING), table(HEAD));
        let one = match (embedding, head) {
            (Some(a), Some(b)) => a == b,
            (None, None) => true,
            _ => self.config.ensure_weight_tying,
        };
        match model.tie_word_embeddings && !one {
            true => {
                Err(Error::new("embed_tokens and lm_head were trained apart, and in this model they are one matrix")
                    .next("train it with ensure_weight_tying = True"))
            }
            false => Ok(()),
        }
    }

    /// The entries that a model trains: of a head that is the embedding, only the embedding.
    pub fn of_model(&self, model: &Config) -> Vec<Entry> {
        let mut entries = self.entries.clone();
        if model.tie_word_embeddings
            && let Some(at) = entries.iter().position(|e| e.0 == HEAD)
        {
            let head = entries.remove(at);
            if !entries.iter().any(|e| e.0 == EMBEDDING) {
                entries.push((EMBEDDING.to_string(), head.1, head.2));
            }
        }
        entries
    }

    /// The paths of the modules that carry adapters.
    pub fn modules(&self) -> Vec<String> {
        let of = |e: &Entry| Role::of(&e.0).filter(|(_, role)| *role == Role::A).map(|(module, _)| module.to_string());
        self.entries.iter().filter_map(of).collect()
    }

    /// Endings of the tensors that are trained whole: `embed_tokens`, `lm_head`.
    pub fn tables(&self) -> Vec<String> {
        let leaf = |m: &str| m.rsplit('.').next().unwrap_or(m).to_string();
        let of = |e: &Entry| Role::of(&e.0).filter(|(_, role)| *role == Role::Table).map(|(module, _)| leaf(module));
        self.entries.iter().filter_map(of).collect()
    }

    fn base_hint(&self) -> String {
        format!("the adapter was made for {}", self.config.base_model_name_or_path)
    }
}

impl AdapterConfig {
    /// What is written of a fresh adapter; the base is for the caller to say.
    pub fn of(l: &LoraConfig) -> Self {
        Self {
            r: l.r,
            lora_alpha: l.alpha,
            lora_dropout: l.dropout,
            target_modules: l.target_modules.clone(),
            exclude_modules: l.exclude_modules.clone(),
            layers_to_transform: l.layers.clone(),
            use_rslora: l.rslora,
            use_dora: l.dora,
            modules_to_save: l.modules_to_save.clone(),
            ensure_weight_tying: false,
            base_model_name_or_path: String::new(),
            revision: None,
        }
    }

    /// What B · A is multiplied by.
    pub fn scale(&self) -> f64 {
        lora::scale(self.lora_alpha, self.r, self.use_rslora)
    }

    /// The base as `model.name_or_path` names it: at the commit it was trained over, where that is known.
    pub fn base(&self) -> String {
        let name = &self.base_model_name_or_path;
        match &self.revision {
            Some(revision) if crate::hub::is_id(name) && !Path::new(name).exists() => format!("hf:{name}@{revision}"),
            _ => name.clone(),
        }
    }

    /// Every field that PEFT wrote when LoRA was new and still reads; what later versions added has defaults.
    fn to_json(&self) -> Result<Vec<u8>> {
        let alpha = match self.lora_alpha.fract() == 0.0 && self.lora_alpha.abs() < 1e9 {
            true => json!(self.lora_alpha as i64),
            false => json!(self.lora_alpha),
        };
        // A pattern is text, not a list.
        let modules = |list: &[String]| match lora::meant(list) {
            TargetModules::Word(word) => json!(word),
            TargetModules::Names(names) => json!(names),
        };
        let filled = |list: &[String]| if list.is_empty() { Value::Null } else { modules(list) };
        let value = json!({
            "alpha_pattern": {},
            "auto_mapping": null,
            "base_model_name_or_path": self.base_model_name_or_path,
            "bias": "none",
            "ensure_weight_tying": self.ensure_weight_tying,
            "exclude_modules": filled(&self.exclude_modules),
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "layers_pattern": null,
            "layers_to_transform": self.layers_to_transform,
            "lora_alpha": alpha,
            "lora_dropout": self.lora_dropout,
            "modules_to_save": filled(&self.modules_to_save),
            "peft_type": "LORA",
            "r": self.r,
            "rank_pattern": {},
            "revision": self.revision,
            "target_modules": modules(&self.target_modules),
            "task_type": "CAUSAL_LM",
            "use_dora": self.use_dora,
            "use_rslora": self.use_rslora,
        });
        let mut text = serde_json::to_vec_pretty(&value)?;
        text.push(b'\n');
        Ok(text)
    }

    /// Read only `adapter_config.json`. `target_modules` is what the file lists (empty for a pattern).
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(CONFIG);
        let text = std::fs::read_to_string(&path).map_err(|e| {
            Error::new(e.to_string()).at(path.display()).next("name the folder that PEFT's save_pretrained wrote")
        })?;
        let value: Value =
            serde_json::from_str(&text).map_err(|e| Error::new(format!("not valid JSON: {e}")).at(path.display()))?;
        Self::from_json(&value).map_err(|e| e.at(path.display()))
    }

    fn from_json(value: &Value) -> Result<Self> {
        let kind = value.get("peft_type").and_then(Value::as_str).unwrap_or("(none)");
        if kind != "LORA" {
            return Err(Error::new(format!("peft_type {kind} is not supported")).next("supported: LORA"));
        }
        for key in ["use_qalora", "use_bdlora", "lora_bias", "fan_in_fan_out"] {
            if value.get(key).and_then(Value::as_bool) == Some(true) {
                return Err(Error::new(format!("{key} = true is not supported")));
            }
        }
        let unknown = [
            "rank_pattern",
            "alpha_pattern",
            "target_parameters",
            "layer_replication",
            "trainable_token_indices",
            "megatron_config",
        ];
        for key in unknown {
            let set = match value.get(key) {
                Some(Value::Object(map)) => !map.is_empty(),
                Some(Value::Array(list)) => !list.is_empty(),
                other => !matches!(other, None | Some(Value::Null)),
            };
            if set {
                return Err(Error::new(format!("{key} is not supported")));
            }
        }
        match value.get("bias").and_then(Value::as_str) {
            None | Some("none") => {}
            Some(bias) => return Err(Error::new(format!("bias = \"{bias}\" is not supported")).next("supported: none")),
        }
        let r = value.get("r").and_then(Value::as_u64).and_then(|r| usize::try_from(r).ok()).filter(|r| *r > 0);
        let float = |key: &str| value.get(key).and_then(Value::as_f64).filter(|v| v.is_finite());
        let texts = |key: &str| match value.get(key) {
            Some(Value::String(word)) => vec![word.clone()],
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).map(str::to_string).collect(),
            _ => Vec::new(),
        };
        let truth = |key: &str| value.get(key).and_then(Value::as_bool).unwrap_or(false);
        // The decoder's blocks are its only numbered layers, whatever they are called.
        if texts("layers_pattern").iter().any(|p| p != "layers") {
            return Err(Error::new("layers_pattern is not supported").next("supported: layers"));
        }
        let numbers = |v: &Value| match v {
            Value::Array(list) => list.iter().map(|v| v.as_u64().map(|n| n as usize)).collect::<Option<Vec<_>>>(),
            one => one.as_u64().map(|n| vec![n as usize]),
        };
        let layers_to_transform = match value.get("layers_to_transform") {
            None | Some(Value::Null) => None,
            Some(v) => Some(numbers(v).ok_or_else(|| Error::new("layers_to_transform is no list of layers"))?),
        };
        let mut modules_to_save = Vec::new();
        for name in texts("modules_to_save") {
            let leaf = name.rsplit('.').next().unwrap_or(&name).to_string();
            if !lora::TABLES.contains(&leaf.as_str()) {
                return Err(Error::new(format!("modules_to_save: {name} is not supported"))
                    .next(format!("supported: {}", lora::TABLES.join(", "))));
            }
            if !modules_to_save.contains(&leaf) {
                modules_to_save.push(leaf);
            }
        }
        Ok(Self {
            r: r.ok_or_else(|| Error::new("r is missing or not a positive number"))?,
            lora_alpha: float("lora_alpha").ok_or_else(|| Error::new("lora_alpha is missing or not a number"))?,
            lora_dropout: float("lora_dropout").unwrap_or(0.0),
            target_modules: texts("target_modules"),
            exclude_modules: texts("exclude_modules"),
            layers_to_transform,
            use_rslora: truth("use_rslora"),
            use_dora: truth("use_dora"),
            modules_to_save,
            ensure_weight_tying: truth("ensure_weight_tying"),
            base_model_name_or_path: value
                .get("base_model_name_or_path")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_string(),
            revision: value.get("revision").and_then(Value::as_str).map(str::to_string),
        })
    }
}

/// What a tensor of an adapter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    A,
    B,
    Magnitude,
    Table,
}

impl Role {
    /// A tensor's module, and what it is of it.
    fn of(name: &str) -> Option<(&str, Self)> {
        if name == EMBEDDING || name == HEAD {
            return name.strip_suffix(".weight").map(|m| (m, Self::Table));
        }
        [(".lora_A.weight", Self::A), (".lora_B.weight", Self::B), (".lora_magnitude_vector", Self::Magnitude)]
            .into_iter()
            .find_map(|(end, role)| name.strip_suffix(end).map(|m| (m, role)))
    }
}

/// Checks names, shapes and sizes, and that A and B come in pairs of the rank, with magnitudes where there are to be.
fn pairs<'a>(entries: impl Iterator<Item = &'a Entry>, config: &AdapterConfig) -> Result<()> {
    let r = config.r;
    let mut modules: BTreeMap<&str, [Option<usize>; 3]> = BTreeMap::new();
    for (name, shape, values) in entries {
        let Some((module, role)) = Role::of(name) else {
            return Err(Error::new(format!("{name} is no part of an adapter that is known here")));
        };
        let whole = shape.iter().product::<usize>() == values.len();
        let (size, rank, place) = match (role, shape.as_slice()) {
            (Role::Table, &[_, _]) if whole => continue,
            (Role::A, &[rows, columns]) if whole => (columns, rows, 0),
            (Role::B, &[rows, columns]) if whole => (rows, columns, 1),
            (Role::Magnitude, &[rows]) if whole && config.use_dora => (rows, r, 2),
            (Role::Magnitude, _) if !config.use_dora => {
                return Err(Error::new(format!("{name} is there, but use_dora is false")));
            }
            _ => return Err(Error::new(format!("{name}: {} values are no matrix of shape {shape:?}", values.len()))),
        };
        if rank != r {
            let asked = if role == Role::A { format!("[{r}, {size}]") } else { format!("[{size}, {r}]") };
            return Err(Error::new(format!("{name}: shape {shape:?}, but r = {r} asks for {asked}")));
        }
        if modules.entry(module).or_default()[place].replace(size).is_some() {
            return Err(Error::new(format!("{name} comes twice")));
        }
    }
    if modules.is_empty() {
        return Err(Error::new("no LoRA matrices"));
    }
    for (module, sizes) in &modules {
        let ends = ["lora_A.weight", "lora_B.weight", "lora_magnitude_vector"];
        for (size, end) in sizes.iter().zip(ends).take(if config.use_dora { 3 } else { 2 }) {
            if size.is_none() {
                return Err(Error::new(format!("{module}.{end} is missing")));
            }
        }
    }
    Ok(())
}

/// Write beside, flush to disk, rename in.
fn put(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = folder.join(name);
    let beside = folder.join(format!(".{name}.{}", std::process::id()));
    let written = std::fs::File::create(&beside)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&beside, &path));
    written.map_err(|e| {
        // The error that matters is the first one.
        let _ = std::fs::remove_file(&beside);
        Error::from(e).at(path.display()).next("is the disk full, or the folder read-only?")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> AdapterConfig {
        AdapterConfig {
            base_model_name_or_path: "owner/model".into(),
            ..AdapterConfig::of(&LoraConfig {
                r: 2,
                alpha: 16.0,
                dropout: 0.05,
                target_modules: vec!["down_proj".into(), "q_proj".into()],
                ..LoraConfig::default()
            })
        }
    }

    fn entries() -> Vec<Entry> {
        let matrix = |name: &str, rows: usize, columns: usize| {
            let values = (0..rows * columns).map(|i| i as f32 * 0.37 - 1.0).collect();
            (format!("model.layers.0.{name}.weight"), vec![rows, columns], values)
        };
        vec![
            matrix("mlp.down_proj.lora_A", 2, 5),
            matrix("mlp.down_proj.lora_B", 3, 2),
            matrix("self_attn.q_proj.lora_A", 2, 3),
            matrix("self_attn.q_proj.lora_B", 4, 2),
        ]
    }

    #[test]
    fn what_is_written_is_read_back_to_the_bit() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &config(), &entries()).unwrap();
        assert_eq!(read(dir.path()).unwrap(), Adapter { config: config(), entries: entries() });
        // And again over it, leaving nothing else behind.
        write(dir.path(), &config(), &entries()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn everything_that_an_adapter_can_be_is_written_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config();
        config.target_modules = vec![r".*\.(down|q)_proj".into()];
        config.exclude_modules = vec!["1.mlp.down_proj".into()];
        config.layers_to_transform = Some(vec![0, 3]);
        (config.use_rslora, config.use_dora, config.ensure_weight_tying) = (true, true, true);
        config.modules_to_save = vec!["embed_tokens".into()];
        let mut all = entries();
        let vector =
            |name: &str, n: usize| (format!("model.layers.0.{name}.lora_magnitude_vector"), vec![n], vec![1.5; n]);
        all.extend([vector("mlp.down_proj", 3), vector("self_attn.q_proj", 4)]);
        let error = write(dir.path(), &config, &entries()).unwrap_err().to_string();
        assert!(error.contains("down_proj.lora_magnitude_vector is missing"), "{error}");
        all.push((EMBEDDING.into(), vec![7, 3], vec![0.25; 21]));
        write(dir.path(), &config, &all).unwrap();
        // A tied head stands under both names, as in PEFT.
        all.push((HEAD.into(), vec![7, 3], vec![0.25; 21]));
        all.sort_by(|a, b| a.0.cmp(&b.0));
        let back = read(dir.path()).unwrap();
        assert_eq!(back, Adapter { config: config.clone(), entries: all });
        assert_eq!(back.config.scale(), 16.0 / 2f64.sqrt());
        let text = std::fs::read_to_string(dir.path().join(CONFIG)).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["target_modules"], r".*\.(down|q)_proj");
    }

    #[test]
    fn keys_and_fields_are_those_of_peft() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &config(), &entries()).unwrap();
        let bytes = std::fs::read(dir.path().join(WEIGHTS)).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let a = file.tensor("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight").unwrap();
        assert_eq!((a.dtype(), a.shape()), (Dtype::F32, &[2, 3][..]));
        let text = std::fs::read_to_string(dir.path().join(CONFIG)).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["peft_type"], "LORA");
        assert_eq!(json["task_type"], "CAUSAL_LM");
        assert_eq!(json["lora_alpha"].to_string(), "16");
        assert_eq!(json["target_modules"], json!(["down_proj", "q_proj"]));
    }

    #[test]
    fn what_does_not_belong_together_is_refused_by_the_tensor_s_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut half = entries();
        half.pop();
        let error = write(dir.path(), &config(), &half).unwrap_err().to_string();
        assert!(error.contains("q_proj.lora_B.weight is missing"), "{error}");
        let mut wrong = entries();
        wrong[1].1 = vec![2, 3];
        let error = write(dir.path(), &config(), &wrong).unwrap_err().to_string();
        assert!(error.contains("down_proj.lora_B.weight") && error.contains("[2, 2]"), "{error}");
        assert!(!dir.path().join(CONFIG).exists());
    }

    #[test]
    fn an_adapter_for_another_shape_does_not_fit() {
        let mut model = Config {
            model_type: "llama".into(),
            vocab_size: 7,
            hidden_size: 3,
            intermediate_size: 5,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            num_key_value_heads: 1,
            head_dim: 2,
            max_position_embeddings: 8,
            rms_norm_eps: 1e-5,
            rope_theta: 1e4,
            rope_scaling: None,
            tie_word_embeddings: true,
            attention_bias: false,
            traits: Default::default(),
            bos_token_id: None,
            eos_token_ids: vec![],
        };
        let adapter = Adapter { config: config(), entries: entries() };
        adapter.fits(&model).unwrap();
        model.intermediate_size = 6;
        let error = adapter.fits(&model).unwrap_err().to_string();
        assert!(
            error.contains("down_proj.lora_A") && error.contains("[2, 6]") && error.contains("owner/model"),
            "{error}"
        );
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        for (key, value) in [
            ("use_qalora", json!(true)),
            ("rank_pattern", json!({"q_proj": 4})),
            ("modules_to_save", json!(["norm"])),
            ("layers_pattern", json!("h")),
            ("bias", json!("all")),
            ("peft_type", json!("LOHA")),
        ] {
            let mut file: Value = serde_json::from_slice(&config().to_json().unwrap()).unwrap();
            file[key] = value;
            let error = AdapterConfig::from_json(&file).unwrap_err().to_string();
            assert!(error.contains(key), "{key}: {error}");
        }
    }
}
