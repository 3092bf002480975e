//! Every family against transformers and PEFT: logits, loss and gradients of a tiny random model, over two packed sequences
//! of which one is longer than the sliding window. The script that wrote the fixtures is `tests/reference/families.py`;
//! `families_gguf.py` wrote the same models with llama.cpp's converter.

use candle_core::{DType, Device, Tensor};
use finetop::data::batch::{Batch, Example};
use finetop::model::config::{Config, Weights};
use finetop::model::files::Files;
use finetop::model::gguf::GgufModel;
use finetop::model::hf::HfModel;
use finetop::model::llama::{Checkpointing, Llama, Pass};
use finetop::model::lora::{LoraConfig, Tuning};
use std::collections::HashMap;

#[path = "families/adapters.rs"]
mod adapters;

/// A fixture's model and what PyTorch makes of it.
struct Model {
    name: &'static str,
    config: Config,
    wanted: HashMap<String, Tensor>,
}

const LENGTHS: [usize; 2] = [23, 9];
const PASS: Pass = Pass { seed: 0, step: 1, micro: 0, checkpointing: Checkpointing::Off };

fn at(name: &str, kind: &str) -> String {
    format!("{}/tests/fixtures/families/{name}.{kind}", env!("CARGO_MANIFEST_DIR"))
}

fn open(name: &'static str) -> Model {
    let json = serde_json::from_str(&std::fs::read_to_string(at(name, "json")).unwrap()).unwrap();
    let config = Config::from_hf(&json, None).unwrap_or_else(|e| panic!("{name}: {e}"));
    Model { name, config, wanted: candle_core::safetensors::load(at(name, "safetensors"), &Device::Cpu).unwrap() }
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

/// A weight's numbers by its name: `fill` in tests/reference/families.py.
fn filled(name: &str, shape: &[usize], offset: bool) -> Vec<f32> {
    let half = shape.len() == 1 || name.contains("embed_tokens") || name.contains("lora_B");
    let around = if name.contains("norm") && !offset { 1.0 } else { 0.0 };
    let scale = match half {
        _ if name.contains("router.bias") => 0.0625,
        true => 0.5,
        false => 0.25,
    };
    numbers(name, shape.iter().product()).iter().map(|v| v * scale + around).collect()
}

impl Model {
    fn weights(&self) -> Weights {
        let tensor = |(name, shape): (String, Vec<usize>)| {
            let values = filled(&name, &shape, self.config.traits.unit_offset);
            (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
        };
        Weights::new(self.config.clone(), self.config.tensor_shapes().into_iter().map(tensor).collect())
    }

    fn build(&self, tuning: &Tuning) -> Llama {
        let model = Llama::new(self.weights(), tuning, 0).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        if let Tuning::Lora(_) = tuning {
            let mut values = model.params().values().unwrap();
            for e in model.params().entries() {
                values[e.range.clone()].copy_from_slice(&filled(&e.name, &e.shape, false));
            }
            model.params().set_values(&values).unwrap();
        }
        model
    }

    /// max|a−b| ≤ e · max|b|.
    #[track_caller]
    fn close(&self, what: &str, found: &[f32], e: f32) {
        let want = &self.wanted.get(what).unwrap_or_else(|| panic!("{}: no {what} in the fixture", self.name));
        let want: Vec<f32> = want.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        close(&format!("{}: {what}", self.name), found, &want, e);
    }

    fn agrees(&self, tuning: &Tuning, kind: &str) {
        let m = self.build(tuning);
        let batch = batch();
        let logits: Vec<f32> = m.logits(&batch).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        self.close(&format!("{kind}.logits"), &logits, 1e-4);
        for checkpointing in [Checkpointing::Off, Checkpointing::Full] {
            m.params().zero_grad().unwrap();
            let loss = m.forward_backward(&batch, 1.0, &Pass { checkpointing, ..PASS }).unwrap();
            self.close(&format!("{kind}.loss"), &[loss as f32], 1e-5);
            let grads = m.params().grads().unwrap();
            for e in m.params().entries() {
                let what = format!("{kind}.grad.{}", e.name);
                assert_eq!(self.wanted[&what].dims(), e.shape, "{}: {what}", self.name);
                self.close(&what, &grads[e.range.clone()], 1e-4);
            }
        }
        // transformers counts a tied head among its parameters under the embedding's name alone, as we do.
        let theirs = self.wanted.keys().filter(|k| k.starts_with(&format!("{kind}.grad."))).count();
        assert_eq!(m.params().entries().len(), theirs, "{}: {kind}", self.name);
    }

    /// Sampled numbers of every trainable tensor, among them its largest gradient, against central differences of the f32
    /// loss.
    fn differences(&self, tuning: &Tuning) {
        let m = self.build(tuning);
        let p = m.params();
        p.zero_grad().unwrap();
        m.forward_backward(&batch(), 1.0, &PASS).unwrap();
        let (values, grads) = (p.values().unwrap(), p.grads().unwrap());
        for (n, e) in p.entries().iter().enumerate() {
            let g = &grads[e.range.clone()];
            let top = (0..g.len()).max_by(|a, b| g[*a].abs().total_cmp(&g[*b].abs())).unwrap();
            assert!(g[top].abs() > 1e-3, "{}: {} has no gradient", self.name, e.name);
            for i in [top, (n * 7919 + 13) % g.len()] {
                let (found, most) = (f64::from(g[i]), f64::from(g[top].abs()));
                let slope = |h: f32| {
                    let at = |sign: f32| {
                        let mut v = values.clone();
                        v[e.range.start + i] += sign * h;
                        p.set_values(&v).unwrap();
                        m.loss(&batch()).unwrap().0
                    };
                    (at(1.0) - at(-1.0)) / (2.0 * f64::from(h))
                };
                // A smaller step as well, lest a token change its experts within the larger one.
                let agrees = |h: f32, noise: f64| (slope(h) - found).abs() < 0.02 * most + noise;
                let same = agrees(4e-3, 5e-3) || agrees(5e-4, 3e-2);
                assert!(same, "{}: {} at {i}: {found}, but {}", self.name, e.name, slope(4e-3));
            }
        }
        p.set_values(&values).unwrap();
    }

    /// What the converter wrote of this model is read as the model that it was: the same numbers, the same logits.
    fn is_its_gguf(&self) {
        let file = GgufModel::open(at(self.name, "gguf").as_ref()).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        let (read, own) = (file.weights().unwrap_or_else(|e| panic!("{}: {e}", self.name)), self.weights());
        let mut names: Vec<_> = own.tensors.keys().collect();
        names.sort();
        for name in names {
            let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(flat(&read.tensors[name]), flat(&own.tensors[name]), "{}: {name}", self.name);
        }
        assert_eq!(read.tensors.len(), own.tensors.len(), "{}", self.name);
        let logits = |w: Weights| {
            let m = Llama::new(w, &Tuning::None, 0).unwrap();
            m.logits(&batch()).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        close(&format!("{}: logits from the GGUF", self.name), &logits(read), &logits(own), 1e-6);
    }

    fn decodes(&self) {
        let m = self.build(&all_linear());
        let mut ids = sequence(0);
        // Where frequencies depend on the length, a sequence that grows past it is turned anew: stay on one side.
        if self.name == "phi4" {
            ids.truncate(16);
        }
        let all = Batch::of(&[&example(ids.clone())]);
        let want = m.logits(&all).unwrap().to_vec2::<f32>().unwrap();
        let mut cache = m.new_cache(ids.len()).unwrap();
        for (a, b) in [(0, 11), (11, 12), (12, 15), (15, ids.len())] {
            let found = m.decode(&ids[a..b], &mut cache).unwrap();
            close(&format!("{}: decoding to {b}", self.name), &found, &want[b - 1], 1e-5);
        }
    }
}

#[track_caller]
fn close(what: &str, found: &[f32], expected: &[f32], e: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let top = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
    let worst = found.iter().zip(expected).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(top > 0.0 && worst <= e * top, "{what}: off by {worst} of {top}");
}

fn sequence(n: usize) -> Vec<u32> {
    numbers(&format!("ids{n}"), LENGTHS[n]).iter().map(|v| ((v + 1.0) * 128.0) as u32 % 45 + 3).collect()
}

fn example(ids: Vec<u32>) -> Example {
    Example {
        trained: (0..ids.len()).map(|i| i >= 3).collect::<Vec<bool>>().into(),
        ids: ids.into(),
        row: 0,
        truncated: false,
    }
}

fn batch() -> Batch {
    let (a, b) = (example(sequence(0)), example(sequence(1)));
    Batch::of(&[&a, &b])
}

fn all_linear() -> Tuning {
    let target_modules = vec!["all-linear".to_string()];
    Tuning::Lora(LoraConfig { r: 3, alpha: 6.0, dropout: 0.0, target_modules, ..LoraConfig::default() })
}

macro_rules! families {
    ($($name:ident)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn full_tuning_agrees_with_transformers() {
                open(stringify!($name)).agrees(&Tuning::Full, "full");
            }

            #[test]
            fn lora_agrees_with_peft() {
                open(stringify!($name)).agrees(&all_linear(), "lora");
            }

            #[test]
            fn every_trainable_tensor_agrees_with_finite_differences() {
                open(stringify!($name)).differences(&Tuning::Full);
                open(stringify!($name)).differences(&all_linear());
            }

            #[test]
            fn decoding_gives_the_logits_of_a_whole_pass() {
                open(stringify!($name)).decodes();
            }
        }
    )*};
}

macro_rules! ggufs {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            let text = std::fs::read_to_string(at(stringify!($name), "gguf.json")).unwrap();
            let config = Config::from_hf(&serde_json::from_str(&text).unwrap(), None).unwrap();
            Model { name: stringify!($name), config, wanted: HashMap::new() }.is_its_gguf();
        }
    )*};
}

mod a_gguf_is_the_same_model {
    use super::*;

    ggufs! { llama qwen2 qwen3 qwen3_moe mistral gemma2 gemma3 phi3 phi4 smollm3 }
}

#[test]
fn experts_stored_in_mxfp4_and_in_floats_are_what_transformers_makes_of_them() {
    let folder = at("gpt_oss_mxfp4", "").trim_end_matches('.').to_string();
    let weights = HfModel::open(Files::Folder(folder.into())).unwrap().weights().unwrap();
    let m = Llama::new(weights, &Tuning::None, 0).unwrap();
    let found = m.logits(&batch()).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let want = candle_core::safetensors::load(at("gpt_oss_mxfp4", "safetensors"), &Device::Cpu).unwrap();
    close("gpt-oss in MXFP4", &found, &want["logits"].flatten_all().unwrap().to_vec1::<f32>().unwrap(), 1e-4);
}

families! { llama qwen2 qwen3 qwen3_moe gpt_oss mistral gemma2 gemma3 phi3 phi4 smollm3 }
