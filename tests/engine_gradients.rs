//! A tiny Llama against transformers and PEFT: logits, loss and gradients. The script that wrote the fixture is
//! `tests/reference/engine_gradients.py`.

use candle_core::{DType, Device, Tensor};
use finetop::data::batch::{Batch, Example};
use finetop::model::config::{Config, Llama3, RopeScaling, Traits, Weights};
use finetop::model::llama::{Checkpointing, Llama, Pass};
use finetop::model::lora::{LoraConfig, MODULES, Tuning};
use std::collections::HashMap;

type Fixture = HashMap<String, Tensor>;

fn fixture() -> Fixture {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/engine_gradients.safetensors");
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn numbers(t: &Tensor) -> Vec<f32> {
    t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// max|a−b| ≤ 1e-4 · max|b|.
#[track_caller]
fn close(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let top = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
    let worst = found.iter().zip(expected).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(worst <= 1e-4 * top, "{what}: off by {worst} of {top}");
}

fn model(f: &Fixture, tuning: &Tuning) -> Llama {
    let config = Config {
        model_type: "llama".into(),
        vocab_size: 61,
        hidden_size: 24,
        intermediate_size: 40,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 6,
        max_position_embeddings: 128,
        rms_norm_eps: 1e-5,
        rope_theta: 500.0,
        rope_scaling: Some(RopeScaling::Llama3(Llama3 {
            factor: 4.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 32,
        })),
        tie_word_embeddings: true,
        attention_bias: false,
        bos_token_id: None,
        eos_token_ids: vec![],
        traits: Traits::default(),
    };
    let base = f.iter().filter_map(|(k, v)| Some((k.strip_prefix("base.")?.to_string(), v.clone())));
    Llama::new(Weights::new(config, base.collect()), tuning, 0).unwrap()
}

fn batch(f: &Fixture) -> Batch {
    let (ids, labels) = (numbers(&f["ids"]), numbers(&f["labels"]));
    let row = |r: usize| Example {
        ids: ids[r * 20..][..20].iter().map(|&i| i as u32).collect(),
        trained: labels[r * 20..][..20].iter().map(|&l| l >= 0.0).collect(),
        row: r as u32,
        truncated: false,
    };
    Batch::of(&[&row(0), &row(1)])
}

const PASS: Pass = Pass { seed: 0, step: 1, micro: 0, checkpointing: Checkpointing::Off };

fn compare(f: &Fixture, m: &Llama, kind: &str) {
    let b = batch(f);
    close("logits", &numbers(&m.logits(&b).unwrap()), &numbers(&f[&format!("{kind}.logits")]));
    let loss = m.forward_backward(&b, 1.0, &PASS).unwrap();
    close("loss", &[loss as f32], &numbers(&f[&format!("{kind}.loss")]));
    let grads = m.params().grads().unwrap();
    for e in m.params().entries() {
        let want = &f[&format!("{kind}.grad.{}", e.name)];
        assert_eq!(e.shape, want.dims(), "{}", e.name);
        close(&e.name, &grads[e.range.clone()], &numbers(want));
    }
}

#[test]
fn full_tuning_agrees_with_transformers() {
    let f = fixture();
    let m = model(&f, &Tuning::Full);
    assert_eq!(m.params().entries().len(), f.keys().filter(|k| k.starts_with("full.grad.")).count());
    compare(&f, &m, "full");
}

#[test]
fn lora_agrees_with_peft() {
    let f = fixture();
    let target_modules = MODULES.iter().map(|m| m.to_string()).collect();
    let m = model(
        &f,
        &Tuning::Lora(LoraConfig { r: 3, alpha: 6.0, dropout: 0.0, target_modules, ..LoraConfig::default() }),
    );
    assert_eq!(m.params().entries().len(), f.keys().filter(|k| k.starts_with("lora.grad.")).count());
    let mut values = vec![0f32; m.params().len()];
    for e in m.params().entries() {
        values[e.range.clone()].copy_from_slice(&numbers(&f[&format!("lora.value.{}", e.name)]));
    }
    m.params().set_values(&values).unwrap();
    compare(&f, &m, "lora");
}
