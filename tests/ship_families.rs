//! Exports of every family: keys and tensors as llama.cpp's converters write them, and the proof, which passes what is right
//! and catches what is not. The folders in `tests/fixtures/ship` have no weights: these, and the adapters, come from their
//! names by the formula of `tests/reference/ship_families.py`, which also says where the numbers come from.

mod common;

use candle_core::quantized::gguf_file::{Content, Value};
use common::repo;
use finetop::export::convert::Plan;
use finetop::export::lora_gguf;
use finetop::export::merge::{SHARD, merge};
use finetop::export::metadata::About;
use finetop::export::mixture::Mixture;
use finetop::export::proof::probe::chats;
use finetop::export::proof::{Stage, Trained, prove};
use finetop::export::quant::Kind;
use finetop::export::subject::Subject;
use finetop::export::weights::Weights;
use finetop::export::{adapter, gguf};
use finetop::model::config::Config;
use finetop::model::gguf::expert;
use finetop::train::speaker::{Speaker, TemplateChoice};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const RANK: usize = 4;

/// A family's model and adapter, laid out in a folder of their own.
struct Tiny {
    dir: tempfile::TempDir,
    fixture: Json,
}

/// -1 to 1 in steps of 1/128, the same for the same name: `numbers` in tests/reference/families.py.
fn numbers(name: &str, count: usize) -> Vec<f32> {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    (1..=count as u64)
        .map(|i| {
            let z = seed.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (((z ^ (z >> 31)) >> 56) as f32 - 128.0) / 128.0
        })
        .collect()
}

/// `weights` in tests/reference/ship_families.py.
fn filled(name: &str, shape: &[usize], offset: bool) -> Vec<f32> {
    let around = if name.contains("norm") && !offset { 1.0 } else { 0.0 };
    let scale = match shape.len() {
        _ if name.contains("embed_tokens") => 0.0625,
        1 => 0.25,
        _ => 0.125,
    };
    numbers(name, shape.iter().product()).iter().map(|v| v * scale + around).collect()
}

impl Tiny {
    fn new(name: &str) -> Self {
        Self::changed(name, |_| {})
    }

    /// With its configuration changed first.
    fn changed(name: &str, change: impl FnOnce(&mut Json)) -> Self {
        let (dir, from) = (tempfile::tempdir().unwrap(), repo("tests/fixtures/ship").join(name));
        for entry in std::fs::read_dir(&from).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
        }
        let read = |file: &str| -> Json { serde_json::from_slice(&std::fs::read(from.join(file)).unwrap()).unwrap() };
        let mut config = read("config.json");
        change(&mut config);
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        let tiny = Self { dir, fixture: read("gguf.json") };
        let config = Config::from_hf(&config, None).unwrap_or_else(|e| panic!("{name}: {e}"));
        tiny.lay(&config);
        tiny
    }

    fn model(&self) -> &Path {
        self.dir.path()
    }

    fn adapter(&self) -> PathBuf {
        self.dir.path().join("adapter")
    }

    fn lay(&self, config: &Config) {
        let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = config
            .tensor_shapes()
            .into_iter()
            .map(|(name, shape)| {
                let values = filled(&name, &shape, config.traits.unit_offset);
                (name, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect())
            })
            .collect();
        let views = bytes.iter().map(|(n, s, b)| (n.as_str(), TensorView::new(Dtype::F32, s.clone(), b).unwrap()));
        let file = safetensors::serialize(views, None).unwrap();
        std::fs::write(self.model().join("model.safetensors"), file).unwrap();
        let mut entries: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
        for (name, shape) in config.tensor_shapes() {
            let Some(module) = name.strip_suffix("_proj.weight").filter(|m| !m.contains(".experts.")) else { continue };
            for (side, shape) in [("A", vec![RANK, shape[1]]), ("B", vec![shape[0], RANK])] {
                let key = format!("{module}_proj.lora_{side}.weight");
                let values = numbers(&key, shape.iter().product()).into_iter().map(|v| v * 0.0625);
                let bytes = values.flat_map(f32::to_le_bytes).collect();
                entries.push((format!("base_model.model.{key}"), shape, bytes));
            }
        }
        let views = entries.iter().map(|(n, s, b)| (n.as_str(), TensorView::new(Dtype::F32, s.clone(), b).unwrap()));
        std::fs::create_dir(self.adapter()).unwrap();
        std::fs::write(self.adapter().join(adapter::WEIGHTS), safetensors::serialize(views, None).unwrap()).unwrap();
        let about = json!({"peft_type": "LORA", "r": RANK, "lora_alpha": 6, "base_model_name_or_path": "tiny",
            "target_modules": config.modules()});
        std::fs::write(self.adapter().join(adapter::CONFIG), about.to_string()).unwrap();
    }

    fn subject(&self, tuned: bool) -> Subject {
        Subject::open(self.model().to_str().unwrap(), tuned.then(|| self.adapter()).as_deref(), None).unwrap()
    }

    fn write(&self, subject: &Subject, mixture: &str, change: impl FnOnce(&mut Plan)) -> PathBuf {
        let weights = subject.weights().unwrap();
        let mut plan = plan(subject, &weights, mixture).unwrap();
        change(&mut plan);
        let path = self.dir.path().join(format!("tiny.{mixture}.gguf"));
        plan.write(&path, &mut |_| {}).unwrap();
        path
    }
}

fn plan<'a>(subject: &Subject, weights: &'a Weights<'a>, mixture: &str) -> finetop::Result<Plan<'a>> {
    let about = About { name: Some("tiny"), tokenizer: &subject.tokenizer, templates: &subject.templates };
    Plan::new(&subject.opened, weights, &about, Mixture::parse(mixture).unwrap())
}

/// A side whose answers are known.
struct Side {
    tiny: Tiny,
    subject: Subject,
    trained: Trained,
}

impl Side {
    fn tuned(name: &str) -> Self {
        let tiny = Tiny::new(name);
        let speaker =
            Speaker::load(tiny.model().to_str().unwrap(), Some(&tiny.adapter()), TemplateChoice::default()).unwrap();
        let probes = chats(None, &["Where is the river?".to_string()]);
        let template = speaker.template.as_ref();
        let trained = Trained::of(&speaker.model, &speaker.tokenizer, template, &speaker.stop_ids, probes).unwrap();
        assert!(trained.answers.len() >= 2, "{name}: the template refuses the probes");
        let subject = tiny.subject(true);
        Self { tiny, subject, trained }
    }

    fn prove(&self, path: &Path) -> Stage {
        prove(&self.subject, &self.trained, path, &mut |_| {})
    }

    /// Export with `change` made to the plan.
    fn export(&self, mixture: &str, change: impl FnOnce(&mut Plan)) -> PathBuf {
        self.tiny.write(&self.subject, mixture, change)
    }
}

fn failed(stage: &Stage) -> Vec<&str> {
    stage.checks.iter().filter(|c| !c.passed).map(|c| c.name.as_str()).collect()
}

/// A file's keys and tensors as `gguf.json` says them.
fn contents(path: &Path) -> Json {
    let bytes = std::fs::read(path).unwrap();
    let content = Content::read(&mut std::io::Cursor::new(&bytes)).unwrap();
    fn value(v: &Value) -> (&'static str, Json) {
        match v {
            Value::U32(n) => ("UINT32", json!(n)),
            Value::I32(n) => ("INT32", json!(n)),
            Value::F32(n) => ("FLOAT32", json!(f64::from(*n))),
            Value::Bool(b) => ("BOOL", json!(b)),
            Value::String(s) => ("STRING", json!(s)),
            other => panic!("{other:?}"),
        }
    }
    let keys: BTreeMap<&String, Json> = content
        .metadata
        .iter()
        .map(|(key, v)| match v {
            Value::Array(list) => {
                let kind = list.first().map_or("STRING", |v| value(v).0);
                (key, json!([["ARRAY", kind], list.iter().map(|v| value(v).1).collect::<Vec<_>>()]))
            }
            v => (key, json!([[value(v).0], value(v).1])),
        })
        .collect();
    let tensors: BTreeMap<&String, Json> = content
        .tensor_infos
        .iter()
        .map(|(name, info)| {
            let (dims, kind) = (info.shape.dims(), info.ggml_dtype);
            let size = info.shape.elem_count() / kind.block_size() * kind.type_size();
            let start = (content.tensor_data_offset + info.offset) as usize;
            if name.starts_with("rope_") {
                let values: Vec<f64> = floats(&bytes[start..start + size]).into_iter().map(f64::from).collect();
                return (name, json!([format!("{kind:?}"), dims, values]));
            }
            let hex = sha256(&bytes[start..start + size]);
            (name, json!([format!("{kind:?}"), dims.iter().rev().collect::<Vec<_>>(), hex]))
        })
        .collect();
    json!({"keys": keys, "tensors": tensors})
}

fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// Vectors of one length, their numbers within a rounding of f32.
#[track_caller]
fn close(what: &str, found: &Json, expected: &Json) {
    assert_eq!((&found[0], &found[1]), (&expected[0], &expected[1]), "{what}");
    let list = |v: &Json| -> Vec<f64> { v[2].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect() };
    for (found, expected) in list(found).iter().zip(list(expected)) {
        assert!((found - expected).abs() <= 1e-6 * expected, "{what}: {found} {expected}");
    }
}

#[track_caller]
fn same(what: &str, found: &Json, expected: &Json) {
    for part in ["keys", "tensors"] {
        let (found, expected) = (found[part].as_object().unwrap(), expected[part].as_object().unwrap());
        for (name, value) in expected {
            match (name.starts_with("rope_"), found.get(name)) {
                (true, Some(found)) => close(what, found, value),
                (_, found) => assert_eq!(found, Some(value), "{what}: {name}"),
            }
        }
        let more: Vec<&String> = found.keys().filter(|k| !expected.contains_key(*k)).collect();
        assert!(more.is_empty(), "{what}: {more:?}");
    }
}

fn is_the_converter_s(name: &str) {
    let tiny = Tiny::new(name);
    let mut expected = tiny.fixture.clone();
    let found = contents(&tiny.write(&tiny.subject(false), "f16", |_| {}));
    same(name, &found, &expected);
    let (subject, path) = (tiny.subject(true), tiny.dir.path().join("lora.gguf"));
    lora_gguf::write(subject.adapter.as_ref().unwrap(), subject.opened.config(), "tiny", &path).unwrap();
    let (found, mut lora) = (contents(&path), expected["lora"].take());
    // The converter calls an adapter after its folder.
    lora["keys"]["general.name"] = found["keys"]["general.name"].clone();
    same(&format!("{name}, the adapter"), &found, &lora);
}

/// From one f16 file, both quantizers make the same ones.
fn is_llama_quantize_s(name: &str) {
    let digests = std::fs::read(repo("tests/fixtures/llama_quantize_families.json")).unwrap();
    let digests: Json = serde_json::from_slice(&digests).unwrap();
    let tiny = Tiny::new(name);
    let f16 = tiny.write(&tiny.subject(false), "f16", |_| {});
    let subject = Subject::open(f16.to_str().unwrap(), None, None).unwrap();
    let weights = subject.weights().unwrap();
    let about = About { name: None, tokenizer: &subject.tokenizer, templates: &subject.templates };
    let types = digests[name].as_object().unwrap();
    assert_eq!(types.len(), 16, "{name}");
    for (mixture, digest) in types {
        let plan = Plan::new(&subject.opened, &weights, &about, Mixture::parse(mixture).unwrap()).unwrap();
        let path = tiny.dir.path().join("quantized.gguf");
        plan.write(&path, &mut |_| {}).unwrap();
        assert_eq!(digest, &sha256(&std::fs::read(&path).unwrap()), "{name} {mixture}");
    }
}

/// f32, f16 and bf16 are exact enough to hold everything against; of the others those that mix types.
const TYPES: [&str; 6] = ["f32", "bf16", "q8_0", "q5_k_m", "q4_k_m", "q3_k_l"];

fn is_proven(name: &str) {
    let side = Side::tuned(name);
    for mixture in TYPES {
        let stage = side.prove(&side.export(mixture, |_| {}));
        assert!(stage.passed, "{name} {mixture}: {stage:#?}");
    }
    // The adapter folded in, and the adapter alone.
    let folder = side.tiny.dir.path().join("merged");
    merge(&side.subject, &folder, Kind::F32, 1.0, SHARD, &mut |_, _| {}).unwrap();
    let stage = side.prove(&folder);
    assert!(stage.passed && stage.kl.unwrap() < 1e-6, "{name}: {stage:#?}");
    let (adapter, config) = (side.subject.adapter.as_ref().unwrap(), side.subject.opened.config());
    let path = side.tiny.dir.path().join("tiny.LoRA.gguf");
    lora_gguf::write(adapter, config, "tiny", &path).unwrap();
    assert!(side.prove(&path).passed, "{name}");
    // Over a GGUF of the base: the same again, as a GGUF and as a folder whose config.json is written anew.
    let base = side.tiny.write(&side.tiny.subject(false), "f32", |_| {});
    let over = Subject::open(base.to_str().unwrap(), Some(&side.tiny.adapter()), None).unwrap();
    let again = side.tiny.dir.path().join("again.gguf");
    plan(&over, &over.weights().unwrap(), "f32").unwrap().write(&again, &mut |_| {}).unwrap();
    let folder = side.tiny.dir.path().join("from-gguf");
    merge(&over, &folder, Kind::F32, 1.0, SHARD, &mut |_, _| {}).unwrap();
    for path in [again, folder] {
        let stage = side.prove(&path);
        assert!(stage.passed && stage.kl.unwrap() < 1e-6, "{name}, {}: {stage:#?}", path.display());
    }
}

fn is_caught_when_broken(name: &str) {
    let side = Side::tuned(name);
    let weights = side.subject.weights().unwrap().scaled(0.5);
    let half = side.tiny.dir.path().join("half.gguf");
    plan(&side.subject, &weights, "q4_k_m").unwrap().write(&half, &mut |_| {}).unwrap();
    assert!(failed(&side.prove(&half)).contains(&"weights"), "{name}: half an adapter");
    // What the file lays out otherwise, in Hugging Face's way: rows of q and k, norms; experts in another order.
    let (path, weights) = (side.export("f32", |_| {}), side.subject.weights().unwrap());
    let (mut bytes, mut broken) = (std::fs::read(&path).unwrap(), false);
    let content = Content::read(&mut std::io::Cursor::new(&bytes)).unwrap();
    for name in weights.names() {
        let matrix = weights.matrix(&name).unwrap();
        let (stored, place) = (finetop::model::gguf::gguf_name(weights.config, &name), expert(&name));
        let at = (content.tensor_data_offset + content.tensor_infos[&stored].offset) as usize;
        // The last expert in place of the first, and so on.
        let number = place.map_or(0, |(n, _)| weights.config.traits.experts.unwrap().count - 1 - n);
        let (row_bytes, mut row) = (matrix.columns * 4, vec![0f32; matrix.columns]);
        for n in 0..matrix.rows {
            matrix.row(n, &mut row).unwrap();
            let start = at + (number * matrix.rows + n) * row_bytes;
            let new: Vec<u8> = row.iter().flat_map(|v| v.to_le_bytes()).collect();
            broken |= bytes[start..start + row_bytes] != new[..];
            bytes[start..start + row_bytes].copy_from_slice(&new);
        }
    }
    assert_eq!(broken, !["qwen2", "qwen3", "phi3", "phi4"].contains(&name), "{name}");
    if broken {
        let path = path.with_file_name("straight.gguf");
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(failed(&side.prove(&path)), ["weights", "logits"], "{name}: as Hugging Face lays it out");
    }
    let own = side.subject.templates.default.clone().unwrap();
    let twice = format!("{{{{ bos_token }}}}{{{{ bos_token }}}}{}", own.replace("{{ bos_token }}", ""));
    if side.subject.tokenizer.bos_id().is_some() {
        let path = side.export("f32", |plan| plan.keys.text("tokenizer.chat_template", twice));
        assert_eq!(failed(&side.prove(&path)), ["template"], "{name}: BOS twice");
    }
    let path = side.export("f32", |plan| {
        plan.keys.set("tokenizer.ggml.eos_token_id", gguf::Value::U32(40));
        plan.keys.remove("tokenizer.ggml.eot_token_id");
        rename_ends(&mut plan.keys, &side.tiny.fixture);
    });
    assert!(failed(&side.prove(&path)).contains(&"stops"), "{name}: no stop");
}

/// Tokens that llama.cpp would know by their text are called something else.
fn rename_ends(keys: &mut gguf::Keys, fixture: &Json) {
    let tokens = fixture["keys"]["tokenizer.ggml.tokens"][1].as_array().unwrap();
    let renamed = |t: &Json| match t.as_str().unwrap() {
        text if finetop::export::vocabulary::ends_by_text(text) => "<turn over>".to_string() + text,
        text => text.to_string(),
    };
    keys.set("tokenizer.ggml.tokens", gguf::Value::Texts(tokens.iter().map(renamed).collect()));
}

macro_rules! families {
    ($($name:ident)*) => {$(
        mod $name {
            #[test]
            fn keys_tensors_and_the_adapter_are_the_converters() {
                super::is_the_converter_s(stringify!($name));
            }

            #[test]
            fn quantized_files_are_llama_quantize_s_to_the_byte() {
                super::is_llama_quantize_s(stringify!($name));
            }

            #[test]
            fn every_way_out_is_proven() {
                super::is_proven(stringify!($name));
            }

            #[test]
            fn what_is_broken_on_the_way_is_caught() {
                super::is_caught_when_broken(stringify!($name));
            }
        }
    )*};
}

families! { llama qwen2 qwen3 qwen3_moe mistral gemma2 gemma3 phi3 phi4 smollm3 }

/// Why this model has no GGUF.
fn refused(name: &str, change: impl FnOnce(&mut Json)) -> String {
    let tiny = Tiny::changed(name, change);
    let subject = tiny.subject(false);
    let weights = subject.weights().unwrap();
    plan(&subject, &weights, "f16").err().expect("it is written").to_string()
}

#[test]
fn arithmetic_that_no_key_of_the_architecture_says_is_refused_by_name() {
    for (name, key, value, named) in [
        ("gemma2", "query_pre_attn_scalar", json!(100), "query_pre_attn_scalar"),
        ("gemma2", "rope_theta", json!(20_000.0), "rope_theta"),
        ("qwen3_moe", "norm_topk_prob", json!(false), "norm_topk_prob"),
        ("smollm3", "no_rope_layers", json!([1, 0, 1, 0]), "layers are turned"),
        ("mistral", "hidden_act", json!("gelu_pytorch_tanh"), "hidden_act"),
    ] {
        let error = refused(name, |config| {
            if key == "rope_theta" {
                config.as_object_mut().unwrap().remove("rope_parameters");
            }
            config[key] = value;
        });
        assert!(error.contains(named) && error.contains("finetop merge"), "{name}: {error}");
    }
}

#[test]
fn a_window_that_llama_cpp_does_not_keep_is_named() {
    let tiny = Tiny::changed("mistral", |config| config["sliding_window"] = json!(64));
    let subject = tiny.subject(false);
    let weights = subject.weights().unwrap();
    let lost = plan(&subject, &weights, "f16").unwrap().lost;
    assert!(lost.len() == 1 && lost[0].contains("64 tokens"), "{lost:?}");
    let tiny = Tiny::new("gemma3");
    let subject = tiny.subject(false);
    assert!(plan(&subject, &subject.weights().unwrap(), "f16").unwrap().lost.is_empty());
}
