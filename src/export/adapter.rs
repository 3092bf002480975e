//! LoRA adapters as PEFT stores them: `adapter_model.safetensors` and `adapter_config.json`.
//!
//! Must not know how an adapter is trained, nor where in a run it lies.

use crate::model::config::Config;
use crate::model::convert::{Float, floats};
use crate::model::files::Bytes;
use crate::{Error, Result};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::path::Path;

pub const WEIGHTS: &str = "adapter_model.safetensors";
pub const CONFIG: &str = "adapter_config.json";

/// What PEFT puts before a module's name: `PeftModel.base_model.model`.
const PREFIX: &str = "base_model.model.";

/// The part of PEFT's `LoraConfig` that this program uses.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterConfig {
    pub r: usize,
    /// The product is scaled by `lora_alpha / r`.
    pub lora_alpha: f64,
    pub lora_dropout: f64,
    /// Leaf names: `q_proj`, `down_proj` …
    pub target_modules: Vec<String>,
    pub base_model_name_or_path: String,
    /// The base's commit on the hub.
    pub revision: Option<String>,
}

/// One matrix: its name without PEFT's prefix (`model.layers.0.self_attn.q_proj.lora_A.weight`), its shape
/// (A: `[r, in]`, B: `[out, r]`) and its values, row by row.
pub type Entry = (String, Vec<usize>, Vec<f32>);

/// An adapter read from disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    pub config: AdapterConfig,
    /// Sorted by name; every `lora_A` has its `lora_B`.
    pub entries: Vec<Entry>,
}

/// Write an adapter into `folder` (made if absent). Each file is written beside its place and renamed in, the
/// configuration last, so that a folder with [`CONFIG`] is whole.
pub fn write(folder: &Path, config: &AdapterConfig, entries: &[Entry]) -> Result<()> {
    pairs(entries, config.r).map_err(|e| e.at(folder.join(WEIGHTS).display()))?;
    std::fs::create_dir_all(folder).map_err(|e| Error::from(e).at(folder.display()))?;
    let bytes: Vec<Vec<u8>> =
        entries.iter().map(|(_, _, values)| values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let mut views = Vec::new();
    for ((name, shape, _), bytes) in entries.iter().zip(&bytes) {
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
/// What PEFT can express and this program does not compute (DoRA, rsLoRA, ranks by layer, trained biases or
/// embeddings) is refused by name rather than left out.
pub fn read(folder: &Path) -> Result<Adapter> {
    let path = folder.join(WEIGHTS);
    let place = path.display().to_string();
    let mut config = AdapterConfig::read(folder)?;
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
        let Some(short) = name.strip_prefix(PREFIX).filter(|n| side(n).is_some()) else {
            return Err(at(Error::new("not a LoRA matrix of a linear layer")
                .next("only lora_A and lora_B of linear layers are supported: no embeddings, no modules_to_save")));
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
    let modules = pairs(&entries, config.r).map_err(|e| e.at(&place))?;
    // The names in the file say which modules it has; the list in the configuration may be a pattern.
    let leaves: BTreeSet<String> = modules.keys().map(|m| m.rsplit('.').next().unwrap_or(m).to_string()).collect();
    config.target_modules = leaves.into_iter().collect();
    Ok(Adapter { config, entries })
}

impl Adapter {
    /// Refuses an adapter that was made for a model of another shape.
    pub fn fits(&self, model: &Config) -> Result<()> {
        let shapes: HashMap<String, Vec<usize>> = model.tensor_shapes().into_iter().collect();
        for (name, shape, _) in &self.entries {
            let (module, is_a) = side(name).unwrap_or((name, true));
            let Some(base) = shapes.get(&format!("{module}.weight")).filter(|s| s.len() == 2) else {
                return Err(Error::new("the model has no such layer").at(name).next(self.base_hint()));
            };
            let expected = if is_a { [self.config.r, base[1]] } else { [base[0], self.config.r] };
            if shape.as_slice() != expected {
                return Err(Error::new(format!("shape {shape:?}, but the model asks for {expected:?}"))
                    .at(name)
                    .next(self.base_hint()));
            }
        }
        Ok(())
    }

    fn base_hint(&self) -> String {
        format!("the adapter was made for {}", self.config.base_model_name_or_path)
    }
}

impl AdapterConfig {
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
        let value = json!({
            "alpha_pattern": {},
            "auto_mapping": null,
            "base_model_name_or_path": self.base_model_name_or_path,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "layers_pattern": null,
            "layers_to_transform": null,
            "lora_alpha": alpha,
            "lora_dropout": self.lora_dropout,
            "modules_to_save": null,
            "peft_type": "LORA",
            "r": self.r,
            "rank_pattern": {},
            "revision": self.revision,
            "target_modules": self.target_modules,
            "task_type": "CAUSAL_LM",
            "use_dora": false,
            "use_rslora": false,
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
        for key in ["use_dora", "use_rslora", "use_qalora", "lora_bias", "fan_in_fan_out"] {
            if value.get(key).and_then(Value::as_bool) == Some(true) {
                return Err(Error::new(format!("{key} = true is not supported")));
            }
        }
        for key in ["rank_pattern", "alpha_pattern", "modules_to_save", "target_parameters", "layer_replication"] {
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
        let list = value.get("target_modules").and_then(Value::as_array);
        Ok(Self {
            r: r.ok_or_else(|| Error::new("r is missing or not a positive number"))?,
            lora_alpha: float("lora_alpha").ok_or_else(|| Error::new("lora_alpha is missing or not a number"))?,
            lora_dropout: float("lora_dropout").unwrap_or(0.0),
            target_modules: list.into_iter().flatten().filter_map(Value::as_str).map(str::to_string).collect(),
            base_model_name_or_path: value
                .get("base_model_name_or_path")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_string(),
            revision: value.get("revision").and_then(Value::as_str).map(str::to_string),
        })
    }
}

/// A matrix's module, and whether it is A.
fn side(name: &str) -> Option<(&str, bool)> {
    let a = name.strip_suffix(".lora_A.weight").map(|m| (m, true));
    a.or_else(|| name.strip_suffix(".lora_B.weight").map(|m| (m, false)))
}

/// Checks names, shapes and sizes, and that A and B come in pairs of rank `r`. The modules with `[in, out]`.
fn pairs(entries: &[Entry], r: usize) -> Result<BTreeMap<&str, [Option<usize>; 2]>> {
    let mut modules: BTreeMap<&str, [Option<usize>; 2]> = BTreeMap::new();
    for (name, shape, values) in entries {
        let Some((module, is_a)) = side(name) else {
            return Err(Error::new(format!("{name} is neither a lora_A.weight nor a lora_B.weight")));
        };
        let (&[rows, columns], true) = (shape.as_slice(), shape.iter().product::<usize>() == values.len()) else {
            return Err(Error::new(format!("{name}: {} values are no matrix of shape {shape:?}", values.len())));
        };
        let (rank, size) = if is_a { (rows, columns) } else { (columns, rows) };
        if rank != r {
            let asked = if is_a { format!("[{r}, {columns}]") } else { format!("[{rows}, {r}]") };
            return Err(Error::new(format!("{name}: shape {shape:?}, but r = {r} asks for {asked}")));
        }
        if modules.entry(module).or_default()[usize::from(!is_a)].replace(size).is_some() {
            return Err(Error::new(format!("{name} comes twice")));
        }
    }
    if modules.is_empty() {
        return Err(Error::new("no LoRA matrices"));
    }
    for (module, sizes) in &modules {
        for (size, half) in sizes.iter().zip(["lora_A", "lora_B"]) {
            if size.is_none() {
                return Err(Error::new(format!("{module}.{half}.weight is missing")));
            }
        }
    }
    Ok(modules)
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
            r: 2,
            lora_alpha: 16.0,
            lora_dropout: 0.05,
            target_modules: vec!["down_proj".into(), "q_proj".into()],
            base_model_name_or_path: "owner/model".into(),
            revision: None,
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
            ("use_dora", json!(true)),
            ("use_rslora", json!(true)),
            ("rank_pattern", json!({"q_proj": 4})),
            ("modules_to_save", json!(["lm_head"])),
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
