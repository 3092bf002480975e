//! Frozen weights in the bits their files keep them in: bitsandbytes' checkpoints hold its numbers, and LoRA over each of
//! GGUF's types has the gradients of LoRA over the dequantized weights.

mod common;

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use finetop::data::batch::Batch;
use finetop::export::merge::merge;
use finetop::export::quant::Kind;
use finetop::export::subject::Subject;
use finetop::model::config::{Hold, Weights};
use finetop::model::files::Files;
use finetop::model::gguf::GgufModel;
use finetop::model::hf::HfModel;
use finetop::model::llama::{Checkpointing, Llama, Pass};
use finetop::model::lora::{LoraConfig, Tuning};
use std::path::Path;

fn digest(values: &[f32]) -> String {
    let bytes = values.iter().flat_map(|v| v.to_le_bytes());
    let h = bytes.fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    format!("{h:016x}")
}

fn values(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

fn folder(name: &str) -> HfModel {
    HfModel::open(Files::Folder(common::repo("tests/fixtures").join(name))).unwrap()
}

#[test]
fn a_checkpoint_of_bitsandbytes_holds_its_codes_and_its_numbers() {
    // tests/reference/bnb.py
    let text = std::fs::read_to_string(common::repo("tests/fixtures/nf4.json")).unwrap();
    let reference: serde_json::Value = serde_json::from_str(&text).unwrap();
    let ours = folder("tiny-llama").held(Hold::Nf4).unwrap();
    for name in ["tiny-llama-bnb-4bit", "tiny-llama-bnb-4bit-plain"] {
        let model = folder(name);
        assert!(model.quantized);
        let (held, wide) = (model.held(Hold::Stored).unwrap(), model.weights().unwrap());
        let expected = reference["checkpoints"][name].as_object().unwrap();
        assert_eq!(expected.len(), 14);
        for (name, theirs) in expected {
            let packed = &held.packed[name];
            let codes = packed.as_nf4().unwrap()[0].packed();
            assert_eq!(codes, ours.packed[name].as_nf4().unwrap()[0].packed(), "{name}");
            let numbers = values(&packed.to_tensor().unwrap());
            assert_eq!(digest(&numbers), theirs.as_str().unwrap(), "{name}");
            assert_eq!(values(&wide.tensors[name]), numbers);
        }
        // Embeddings and head are as stored, norms in f32.
        assert!(
            held.packed["lm_head.weight"].as_nf4().is_none()
                && held.packed["model.embed_tokens.weight"].as_nf4().is_none()
        );
        assert_eq!(held.packed.len(), 16);
        assert_eq!(held.tensors.len(), 5);
    }
}

#[test]
fn merging_a_checkpoint_of_bitsandbytes_writes_its_numbers_and_no_quantization() {
    let dir = tempfile::tempdir().unwrap();
    for (from, names) in [
        ("tiny-llama-bnb-4bit", &["config.json", "model.safetensors"][..]),
        ("tiny-llama", &["tokenizer.json", "tokenizer_config.json"]),
    ] {
        for name in names {
            std::fs::copy(common::repo("tests/fixtures").join(from).join(name), dir.path().join(name)).unwrap();
        }
    }
    let subject = Subject::open(dir.path().to_str().unwrap(), None, None).unwrap();
    assert!(subject.is_quantized().unwrap());
    let out = tempfile::tempdir().unwrap();
    merge(&subject, out.path(), Kind::F32, 1.0, u64::MAX, &mut |_, _| {}).unwrap();
    let merged = HfModel::open(Files::Folder(out.path().into())).unwrap();
    assert!(!merged.quantized);
    let (merged, base) = (merged.weights().unwrap(), folder("tiny-llama-bnb-4bit").weights().unwrap());
    for (name, tensor) in &base.tensors {
        assert_eq!(values(&merged.tensors[name]), values(tensor), "{name}");
    }
}

const HIDDEN: usize = 256;
const INNER: usize = 512;
const VOCAB: usize = 300;

/// A random Llama as llama.cpp's converter would lay it out, its matrices of one type; the head is the embedding.
fn gguf(path: &Path, kind: GgmlDType) {
    let random = |n: usize, seed: u64| -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        (0..n).map(|_| next() * 0.2).collect()
    };
    let mut tensors = Vec::new();
    let mut add = |name: String, rows: usize, cols: usize| {
        let seed = 1 + tensors.len() as u64;
        let t = Tensor::from_vec(random(rows * cols, seed), (rows, cols), &Device::Cpu).unwrap();
        tensors.push((name, QTensor::quantize(&t, kind).unwrap()));
    };
    add("token_embd.weight".into(), VOCAB, HIDDEN);
    for layer in 0..2 {
        for (name, rows, cols) in [
            ("attn_q", HIDDEN, HIDDEN),
            ("attn_k", HIDDEN / 2, HIDDEN),
            ("attn_v", HIDDEN / 2, HIDDEN),
            ("attn_output", HIDDEN, HIDDEN),
            ("ffn_gate", INNER, HIDDEN),
            ("ffn_up", INNER, HIDDEN),
            ("ffn_down", HIDDEN, INNER),
        ] {
            add(format!("blk.{layer}.{name}.weight"), rows, cols);
        }
    }
    let norms = (0..2).flat_map(|l| [format!("blk.{l}.attn_norm.weight"), format!("blk.{l}.ffn_norm.weight")]);
    for name in norms.chain(["output_norm.weight".to_string()]) {
        let ones =
            Tensor::from_vec(random(HIDDEN, 99).iter().map(|v| 1.0 + v).collect(), HIDDEN, &Device::Cpu).unwrap();
        tensors.push((name, QTensor::quantize(&ones, GgmlDType::F32).unwrap()));
    }
    let sizes = [
        ("embedding_length", HIDDEN),
        ("feed_forward_length", INNER),
        ("block_count", 2),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
        ("context_length", 64),
    ];
    let mut meta: Vec<(String, Value)> =
        sizes.iter().map(|(key, n)| (format!("llama.{key}"), Value::U32(*n as u32))).collect();
    meta.push(("llama.attention.layer_norm_rms_epsilon".into(), Value::F32(1e-5)));
    meta.push(("general.architecture".into(), Value::String("llama".into())));
    let meta: Vec<(&str, &Value)> = meta.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    gguf_file::write(&mut file, &meta, &tensors).unwrap();
}

/// Loss and gradients of fresh adapters whose B is not zero.
fn gradients(weights: Weights, dora: bool) -> (f64, Vec<f32>, Vec<f32>) {
    let lora = LoraConfig { r: 4, alpha: 8.0, dora, ..LoraConfig::default() };
    let model = Llama::new(weights, &Tuning::Lora(lora), 7).unwrap();
    let moved: Vec<f32> =
        model.params().values().unwrap().iter().enumerate().map(|(i, v)| v + 0.01 * (i as f32).sin()).collect();
    model.params().set_values(&moved).unwrap();
    let ids: Vec<u32> = (0..40).map(|i| (i * 37 + 11) % VOCAB as u32).collect();
    let labels = ids.iter().map(|id| i64::from((id + 5) % VOCAB as u32)).collect();
    let positions = (0..25).chain(0..15).collect();
    let batch = Batch { ids, labels, positions, cu_seqlens: vec![0, 25, 40], rows: vec![0, 1] };
    let pass = Pass { seed: 1, step: 0, micro: 0, checkpointing: Checkpointing::Off };
    let loss = model.forward_backward(&batch, 0.025, &pass).unwrap();
    let mut cache = model.new_cache(8).unwrap();
    let spoken = model.decode(&[3, 9, 200], &mut cache).unwrap();
    (loss, model.params().grads().unwrap(), spoken)
}

#[test]
fn lora_over_every_gguf_type_has_the_gradients_of_the_dequantized_weights() {
    use GgmlDType::*;
    let dir = tempfile::tempdir().unwrap();
    for kind in [F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4K, Q5K, Q6K] {
        let path = dir.path().join(format!("{kind:?}.gguf"));
        gguf(&path, kind);
        let model = GgufModel::open(&path).unwrap();
        let held = model.held(Hold::Stored).unwrap();
        // Every matrix, with the bytes of the file and no more.
        assert_eq!((held.packed.len(), held.tensors.len()), (15, 5), "{kind:?}");
        let stored: u64 = held.packed.values().map(|p| p.bytes()).sum();
        assert_eq!(stored + 4 * 5 * HIDDEN as u64, model.bytes(), "{kind:?}");
        assert_eq!(model.is_quantized(), kind.block_size() > 1);
        // DoRA asks for the rows' lengths and for one projection of several, besides.
        let dora = matches!(kind, Q4K | Q8_0);
        let (loss, grads, spoken) = gradients(held, dora);
        let (want_loss, want, said) = gradients(model.weights().unwrap(), dora);
        let worst = |a: &[f32], b: &[f32]| {
            let top = b.iter().fold(0f32, |m, v| m.max(v.abs()));
            assert!(top > 0.0 && a.len() == b.len());
            a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / top
        };
        println!("{kind:?}: gradients within {:e}, logits within {:e}", worst(&grads, &want), worst(&spoken, &said));
        assert!((loss - want_loss).abs() < 1e-4, "{kind:?}: {loss} for {want_loss}");
        assert!(worst(&grads, &want) < 1e-5 && worst(&spoken, &said) < 1e-5, "{kind:?}");
    }
}

#[test]
fn a_gguf_is_held_in_nf4_where_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q8_0.gguf");
    gguf(&path, GgmlDType::Q8_0);
    let model = GgufModel::open(&path).unwrap();
    let (held, wide) = (model.held(Hold::Nf4).unwrap(), model.weights().unwrap());
    assert!(held.packed["model.embed_tokens.weight"].as_nf4().is_none());
    let name = "model.layers.1.self_attn.q_proj.weight";
    assert!(held.packed[name].as_nf4().is_some());
    // Of the rows in Hugging Face's order, as everything else is.
    let flat = values(&wide.tensors[name]);
    let want = finetop::ops::nf4::Nf4::quantize(&flat, HIDDEN, HIDDEN).unwrap();
    assert_eq!(held.packed[name].as_nf4().unwrap()[0].packed(), want.packed());
}
