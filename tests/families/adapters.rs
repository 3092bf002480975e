//! PEFT's other adapters: rsLoRA, DoRA, choices of layers and modules, whole embeddings and heads. What PEFT saved is read,
//! gives its logits and gradients, is written again as PEFT writes it, and merges into weights that give the same logits.
//! The fixtures are by `tests/reference/adapters.py`.

use super::*;
use finetop::export::adapter::{self, Adapter, AdapterConfig};
use finetop::export::weights::Weights as Stored;
use finetop::model::loading::Opened;
use finetop::train::speaker::lora_of;
use std::path::{Path, PathBuf};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families/adapters").join(name)
}

struct Case {
    name: &'static str,
    /// What a recipe would say.
    fresh: LoraConfig,
    given: Adapter,
    model: Model,
}

fn case(name: &'static str, base: &'static str, fresh: LoraConfig) -> Case {
    let given = adapter::read(&folder(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut model = open(base);
    model.wanted = candle_core::safetensors::load(folder(name).join("numbers.safetensors"), &Device::Cpu).unwrap();
    Case { name, fresh: LoraConfig { r: 3, alpha: 6.0, ..fresh }, given, model }
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|w| w.to_string()).collect()
}

fn flat(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

impl Case {
    fn with(&self, lora: &LoraConfig) -> Llama {
        let m = Llama::new(self.model.weights(), &Tuning::Lora(lora.clone()), 0).unwrap();
        let (mut values, entries) = (m.params().values().unwrap(), self.given.of_model(&self.model.config));
        assert_eq!(m.params().entries().len(), entries.len(), "{}", self.name);
        for e in m.params().entries() {
            let from = entries.iter().find(|x| x.0 == e.name && x.1 == e.shape);
            values[e.range.clone()].copy_from_slice(&from.unwrap_or_else(|| panic!("{}: {}", self.name, e.name)).2);
        }
        m.params().set_values(&values).unwrap();
        m
    }

    /// Logits, loss and gradients, of the adapter as it was read and as a recipe asks for it.
    fn agrees(&self) {
        self.given.fits(&self.model.config).unwrap();
        for lora in [&lora_of(&self.given), &self.fresh] {
            let m = self.with(lora);
            let batch = batch();
            self.model.close("logits", &flat(&m.logits(&batch).unwrap()), 1e-4);
            for checkpointing in [Checkpointing::Off, Checkpointing::Full] {
                m.params().zero_grad().unwrap();
                let loss = m.forward_backward(&batch, 1.0, &Pass { checkpointing, ..PASS }).unwrap();
                self.model.close("loss", &[loss as f32], 1e-5);
                let grads = m.params().grads().unwrap();
                for e in m.params().entries() {
                    self.model.close(&format!("grad.{}", e.name), &grads[e.range.clone()], 1e-4);
                }
            }
            let theirs = self.model.wanted.keys().filter(|k| k.starts_with("grad.")).count();
            assert_eq!(m.params().entries().len(), theirs, "{}", self.name);
        }
    }

    /// With the adapter off the base speaks; decoding token by token is the whole pass.
    fn speaks(&self) {
        let mut m = self.with(&self.fresh);
        let ids = sequence(1);
        let b = Batch::of(&[&example(ids.clone())]);
        let whole = m.logits(&b).unwrap().to_vec2::<f32>().unwrap();
        let mut cache = m.new_cache(ids.len()).unwrap();
        for (i, id) in ids.iter().enumerate() {
            let found = m.decode(&[*id], &mut cache).unwrap();
            close(&format!("{}: token {i}", self.name), &found, &whole[i], 1e-4);
        }
        m.set_adapter_enabled(false);
        let base = Llama::new(self.model.weights(), &Tuning::None, 0).unwrap();
        close(self.name, &flat(&m.logits(&b).unwrap()), &flat(&base.logits(&b).unwrap()), 1e-6);
    }

    /// The same tensors under the same names, and the same fields, as PEFT wrote.
    fn is_written_as_peft_does(&self) {
        let dir = tempfile::tempdir().unwrap();
        let named = self.fresh.clone().named(&self.model.config);
        let tied = self.model.config.tie_word_embeddings && !named.modules_to_save.is_empty();
        let config = AdapterConfig {
            base_model_name_or_path: self.given.config.base_model_name_or_path.clone(),
            ensure_weight_tying: tied,
            ..AdapterConfig::of(&named)
        };
        adapter::write(dir.path(), &config, &self.given.of_model(&self.model.config)).unwrap();
        let tensors = |p: &Path| candle_core::safetensors::load(p.join(adapter::WEIGHTS), &Device::Cpu).unwrap();
        let (ours, theirs) = (tensors(dir.path()), tensors(&folder(self.name)));
        assert_eq!(ours.len(), theirs.len(), "{}", self.name);
        for (name, t) in &theirs {
            assert_eq!((ours[name].dims(), flat(&ours[name])), (t.dims(), flat(t)), "{}: {name}", self.name);
        }
        let json = |p: &Path| -> serde_json::Value {
            serde_json::from_str(&std::fs::read_to_string(p.join(adapter::CONFIG)).unwrap()).unwrap()
        };
        let (ours, theirs) = (json(dir.path()), json(&folder(self.name)));
        for key in ["use_rslora", "use_dora", "r", "lora_alpha", "layers_to_transform", "ensure_weight_tying"] {
            assert_eq!(ours[key], theirs[key], "{}: {key}", self.name);
        }
        for key in ["target_modules", "exclude_modules"] {
            let sorted = |v: &serde_json::Value| match v.as_array() {
                Some(list) => {
                    // Of some classes PEFT spells all-linear out as whole paths.
                    let leaf = |v: &serde_json::Value| v.as_str().unwrap().rsplit('.').next().unwrap().to_string();
                    let mut list: Vec<_> = list.iter().map(leaf).collect();
                    list.sort();
                    list.dedup();
                    list
                }
                None => vec![v.to_string()],
            };
            assert_eq!(sorted(&ours[key]), sorted(&theirs[key]), "{}: {key}", self.name);
        }
    }

    /// Every row of the merged model, as `merge` and `export` take them.
    fn merges(&self) {
        let dir = tempfile::tempdir().unwrap();
        let own = self.model.weights();
        candle_core::safetensors::save(&own.tensors, dir.path().join("model.safetensors")).unwrap();
        std::fs::copy(at(self.model.name, "json"), dir.path().join("config.json")).unwrap();
        let opened = Opened::Hf(Box::new(HfModel::open(Files::Folder(dir.path().into())).unwrap()));
        let stored = Stored::open(&opened, Some(&self.given)).unwrap();
        let merged = own.tensors.iter().map(|(name, t)| {
            let m = stored.matrix(name).unwrap();
            let mut values = vec![0f32; t.elem_count()];
            for (row, out) in values.chunks_exact_mut(m.columns).enumerate() {
                m.row(row, out).unwrap();
            }
            (name.clone(), Tensor::from_vec(values, t.dims(), &Device::Cpu).unwrap())
        });
        let merged = Weights::new(self.model.config.clone(), merged.collect());
        let m = Llama::new(merged, &Tuning::None, 0).unwrap();
        self.model.close("logits", &flat(&m.logits(&batch()).unwrap()), 1e-4);
    }

    fn all(&self) {
        self.agrees();
        self.speaks();
        self.is_written_as_peft_does();
        self.merges();
    }
}

#[test]
fn rslora_in_chosen_layers() {
    let fresh = LoraConfig {
        target_modules: words(&["q_proj", "v_proj", "up_proj", "o_proj"]),
        exclude_modules: words(&["o_proj"]),
        layers: Some(vec![1]),
        rslora: true,
        ..LoraConfig::default()
    };
    let c = case("rslora_layers", "llama", fresh);
    assert_eq!(c.given.modules().len(), 3);
    c.all();
}

#[test]
fn a_pattern_over_whole_paths() {
    let target_modules = words(&[r".*\.(0\.self_attn\.(q|k)_proj|1\.mlp\.down_proj)"]);
    case("pattern", "qwen3", LoraConfig { target_modules, ..LoraConfig::default() }).all();
}

#[test]
fn dora_over_biases_over_fused_matrices_and_in_some_modules() {
    let dora = LoraConfig { dora: true, ..LoraConfig::default() };
    case("dora", "llama", dora.clone()).all();
    case("dora_rslora_fused", "phi3", LoraConfig { rslora: true, ..dora.clone() }).all();
    let target_modules = words(&["k_proj", "gate_proj", "down_proj"]);
    case("dora_some", "gemma2", LoraConfig { target_modules, ..dora }).all();
}

#[test]
fn embeddings_and_heads_trained_whole() {
    let of = |targets: &[&str], saved: &[&str]| LoraConfig {
        target_modules: words(targets),
        modules_to_save: words(saved),
        ..LoraConfig::default()
    };
    case("tables", "llama", of(&["q_proj", "down_proj"], &["embed_tokens", "lm_head"])).all();
    case("head", "qwen3", of(&["q_proj"], &["lm_head"])).all();
    // Where they are one matrix, either name means it.
    case("tied_tables", "qwen2", of(&["q_proj"], &["lm_head", "embed_tokens"])).all();
    case("tied_scaled_table", "gemma3", of(&["o_proj"], &["lm_head"])).all();
}

#[test]
fn a_tied_head_that_was_trained_apart_is_refused() {
    let mut c = case("tied_tables", "qwen2", LoraConfig::default());
    let head = c.given.entries.iter_mut().find(|e| e.0 == "lm_head.weight").unwrap();
    head.2[5] += 1.0;
    assert!(c.given.fits(&c.model.config).unwrap_err().to_string().contains("trained apart"));
    c.given.entries.retain(|e| e.0 != "lm_head.weight");
    c.given.fits(&c.model.config).unwrap();
    c.given.config.ensure_weight_tying = false;
    assert!(c.given.fits(&c.model.config).is_err());
}

/// The numbers of a fresh DoRA adapter change nothing, whatever the dropout.
#[test]
fn a_fresh_dora_is_the_base() {
    let model = open("llama");
    let lora = LoraConfig { dora: true, dropout: 0.5, ..LoraConfig::default() };
    let m = Llama::new(model.weights(), &Tuning::Lora(lora), 7).unwrap();
    let base = Llama::new(model.weights(), &Tuning::None, 0).unwrap();
    let (fresh, want) = (m.logits(&batch()).unwrap(), base.logits(&batch()).unwrap());
    close("fresh", &flat(&fresh), &flat(&want), 1e-5);
    let loss = m.forward_backward(&batch(), 1.0, &PASS).unwrap();
    close("loss under dropout", &[loss as f32], &[base.loss(&batch()).unwrap().0 as f32], 1e-5);
}

/// With dropout, whose masks are the pass's: magnitudes against central differences; of A and B what the constant length
/// leaves out is added: the length's own slope, from the magnitudes' gradients.
#[test]
fn dora_under_dropout_agrees_with_finite_differences() {
    let model = open("llama");
    let lora = LoraConfig { r: 3, alpha: 6.0, dora: true, dropout: 0.4, ..LoraConfig::default() };
    let m = Llama::new(model.weights(), &Tuning::Lora(lora), 7).unwrap();
    let p = m.params();
    let mut values = p.values().unwrap();
    for e in p.entries().iter().filter(|e| e.name.contains("lora_B")) {
        values[e.range.clone()].copy_from_slice(&filled(&e.name, &e.shape, false));
    }
    let loss = |v: &[f32]| {
        p.set_values(v).unwrap();
        m.forward_backward(&batch(), 1.0, &PASS).unwrap()
    };
    let grads = |v: &[f32]| {
        p.zero_grad().unwrap();
        loss(v);
        p.grads().unwrap()
    };
    let g = grads(&values);
    let weights = model.weights();
    for e in p.entries().iter().filter(|e| e.name.contains("layers.1")) {
        let part = &g[e.range.clone()];
        let top = (0..part.len()).max_by(|a, b| part[*a].abs().total_cmp(&part[*b].abs())).unwrap();
        assert!(part[top].abs() > 1e-3, "{}", e.name);
        let h = 4e-3f32;
        let at = |sign: f32| {
            let mut v = values.clone();
            v[e.range.start + top] += sign * h;
            v
        };
        let slope = (loss(&at(1.0)) - loss(&at(-1.0))) / f64::from(2.0 * h);
        let mut found = f64::from(part[top]);
        if let Some((module, _)) = e.name.split_once(".lora_A").or(e.name.split_once(".lora_B")) {
            let entry = |end: &str| p.entries().iter().find(|e| e.name == format!("{module}.{end}")).unwrap();
            let (a, b, mag) = (entry("lora_A.weight"), entry("lora_B.weight"), entry("lora_magnitude_vector"));
            let w = weights.tensors[&format!("{module}.weight")].to_vec2::<f32>().unwrap();
            let lengths = |v: &[f32]| -> Vec<f64> {
                let (a, b, n) = (&v[a.range.clone()], &v[b.range.clone()], w[0].len());
                let row = |j: usize, i: usize| {
                    f64::from(w[j][i])
                        + (0..3).map(|k| 2.0 * f64::from(b[j * 3 + k]) * f64::from(a[k * n + i])).sum::<f64>()
                };
                (0..w.len()).map(|j| (0..n).map(|i| row(j, i).powi(2)).sum::<f64>().sqrt()).collect()
            };
            let (up, down, now) = (lengths(&at(1.0)), lengths(&at(-1.0)), lengths(&values));
            for j in 0..w.len() {
                let (dm, m) = (f64::from(g[mag.range.start + j]), f64::from(values[mag.range.start + j]));
                found -= dm * m / now[j] * (up[j] - down[j]) / f64::from(2.0 * h);
            }
        }
        assert!((slope - found).abs() < 0.02 * f64::from(part[top].abs()) + 5e-3, "{}: {found}, but {slope}", e.name);
    }
}

#[test]
fn an_adapter_s_gguf_carries_the_scale_of_rslora_and_no_dora() {
    use finetop::export::lora_gguf;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.gguf");
    // A plain Llama: the fixtures' have biases, which that file does not know.
    let mut config = open("llama").config;
    (config.attention_bias, config.traits.output_bias, config.traits.mlp_bias) = (false, false, false);
    let mut given = adapter::read(&folder("rslora_layers")).unwrap();
    lora_gguf::write(&given, &config, "a", &path).unwrap();
    let file = finetop::model::gguf::GgufFile::open(&path).unwrap();
    let alpha = file.metadata().float("adapter.lora.alpha").unwrap().unwrap();
    assert!((alpha / 3.0 - 6.0 / 3f64.sqrt()).abs() < 1e-6, "{alpha}");
    lora_gguf::compare(&file, &given, &config).unwrap();
    given.config.use_rslora = false;
    assert!(lora_gguf::compare(&file, &given, &config).is_err());
    for (name, word) in [("dora", "DoRA"), ("tables", "embed_tokens")] {
        let given = adapter::read(&folder(name)).unwrap();
        let e = lora_gguf::write(&given, &config, "a", &path).unwrap_err().to_string();
        assert!(e.contains(word) && e.contains("merge"), "{e}");
    }
}
