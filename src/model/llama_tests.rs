//! The whole model: gradients against differences, checkpointing, packing, decoding, and candle-transformers.

use super::*;
use crate::data::batch::Example;
use crate::model::config::Config;
use crate::ops::random::Stream;
use std::collections::HashMap;

fn config(tied: bool) -> Config {
    Config {
        model_type: "llama".into(),
        vocab_size: 29,
        hidden_size: 12,
        intermediate_size: 20,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 4,
        max_position_embeddings: 128,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: None,
        tie_word_embeddings: tied,
        attention_bias: false,
        bos_token_id: None,
        eos_token_ids: vec![2],
        traits: Default::default(),
    }
}

fn weights(tied: bool) -> Weights {
    let c = config(tied);
    let mut tensors = HashMap::new();
    for (seed, (name, shape, _)) in (1..).zip(plan(&c, &Tuning::Full)) {
        let mut v = vec![0f32; shape.iter().product()];
        Stream { seed, words: [0; 3] }.fill_uniform(0.6, &mut v);
        if name.contains("norm") {
            v.iter_mut().for_each(|x| *x += 1.0);
        }
        tensors.insert(name, Tensor::from_vec(v, shape, &Device::Cpu).unwrap());
    }
    Weights::new(c, tensors)
}

fn all_linear(dropout: f64) -> Tuning {
    let target_modules = lora::MODULES.iter().map(|m| m.to_string()).collect();
    Tuning::Lora(LoraConfig { r: 3, alpha: 6.0, dropout, target_modules, ..LoraConfig::default() })
}

/// A model whose trainables are all away from zero (a fresh B would hide A's gradient).
fn model(tied: bool, tuning: &Tuning) -> Llama {
    let m = Llama::new(weights(tied), tuning, 1).unwrap();
    let mut v = m.params().values().unwrap();
    if let Tuning::Lora(_) = tuning {
        Stream { seed: 99, words: [0; 3] }.fill_uniform(0.4, &mut v);
        m.params().set_values(&v).unwrap();
    }
    m
}

fn example(ids: &[u32], from: usize) -> Example {
    Example { ids: ids.to_vec().into(), trained: (0..ids.len()).map(|i| i >= from).collect(), row: 0, truncated: false }
}

fn batch() -> Batch {
    Batch::of(&[&example(&[1, 7, 3, 9, 28, 4], 2), &example(&[5, 5, 11], 0), &example(&[13, 2], 1)])
}

const PASS: Pass = Pass { seed: 3, step: 5, micro: 1, checkpointing: Checkpointing::Off };

/// Every entry's gradient along its own direction against a central difference of the f32 loss along it: the sum over an
/// entry is measurable where one number would drown in rounding.
fn gradients_agree(m: &Llama) {
    let b = batch();
    let p = m.params();
    p.zero_grad().unwrap();
    m.forward_backward(&b, 1.0, &PASS).unwrap();
    let (values, grads) = (p.values().unwrap(), p.grads().unwrap());
    for e in p.entries() {
        let g = &grads[e.range.clone()];
        let norm = g.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        assert!(norm > 1e-4, "{} has no gradient", e.name);
        let h = 2e-3;
        let along = |sign: f64| {
            let mut v = values.clone();
            for (v, g) in v[e.range.clone()].iter_mut().zip(g) {
                *v += (sign * h * f64::from(*g) / norm) as f32;
            }
            p.set_values(&v).unwrap();
            // The training pass itself, so that dropout's mask is the same one.
            m.forward_backward(&b, 0.0, &PASS).unwrap()
        };
        let slope = (along(1.0) - along(-1.0)) / (2.0 * h);
        p.set_values(&values).unwrap();
        assert!((slope - norm).abs() < 0.01 * norm + 2e-3, "{}: slope {slope}, gradient {norm}", e.name);
    }
}

#[test]
fn lora_gradients_agree_with_finite_differences() {
    gradients_agree(&model(true, &all_linear(0.0)));
}

#[test]
fn lora_gradients_under_dropout_agree_with_finite_differences() {
    gradients_agree(&model(true, &all_linear(0.4)));
}

#[test]
fn lora_gradients_on_some_modules_agree_with_finite_differences() {
    let target_modules = vec!["q_proj".into(), "v_proj".into(), "up_proj".into()];
    let m = model(
        false,
        &Tuning::Lora(LoraConfig { r: 2, alpha: 3.0, dropout: 0.0, target_modules, ..LoraConfig::default() }),
    );
    assert_eq!(m.params().entries().len(), 2 * 3 * 2);
    gradients_agree(&m);
}

#[test]
fn full_gradients_agree_with_finite_differences_with_a_tied_head() {
    gradients_agree(&model(true, &Tuning::Full));
}

#[test]
fn full_gradients_agree_with_finite_differences_with_a_head_of_its_own() {
    gradients_agree(&model(false, &Tuning::Full));
}

#[test]
fn checkpointing_changes_no_bit() {
    for tuning in [all_linear(0.3), Tuning::Full] {
        let m = model(true, &tuning);
        let run = |checkpointing| {
            m.params().zero_grad().unwrap();
            let loss = m.forward_backward(&batch(), 0.1, &Pass { checkpointing, ..PASS }).unwrap();
            (loss.to_bits(), m.params().grads().unwrap())
        };
        assert_eq!(run(Checkpointing::Off), run(Checkpointing::Full));
    }
}

#[test]
fn a_packed_batch_is_its_sequences_one_by_one() {
    let m = model(true, &all_linear(0.0));
    let parts = [example(&[1, 7, 3, 9, 28, 4], 2), example(&[5, 5, 11], 0), example(&[13, 2], 1)];
    m.params().zero_grad().unwrap();
    let packed = m.forward_backward(&batch(), 0.5, &PASS).unwrap();
    let together = m.params().grads().unwrap();
    m.params().zero_grad().unwrap();
    let mut sum = 0.0;
    for p in &parts {
        sum += m.forward_backward(&Batch::of(&[p]), 0.5, &PASS).unwrap();
    }
    assert!((packed - sum).abs() < 1e-5 * sum, "{packed} {sum}");
    let apart = m.params().grads().unwrap();
    let top = apart.iter().fold(0f32, |m, x| m.max(x.abs()));
    assert!(together.iter().zip(&apart).all(|(a, b)| (a - b).abs() < 1e-5 * top));
    assert!((m.loss(&batch()).unwrap().0 - sum).abs() < 1e-5 * sum);
    assert_eq!(m.loss(&batch()).unwrap().1, batch().label_tokens());
}

#[test]
fn decoding_gives_the_logits_of_a_whole_pass() {
    let m = model(false, &all_linear(0.2));
    let ids: Vec<u32> = (0..90).map(|i| i * 7 % 29).collect();
    let want = m.logits(&Batch::of(&[&example(&ids, 0)])).unwrap().to_vec2::<f32>().unwrap();
    let mut cache = m.new_cache(90).unwrap();
    for (a, b) in [(0, 70), (70, 71), (71, 74), (74, 90)] {
        let found = m.decode(&ids[a..b], &mut cache).unwrap();
        let worst = found.iter().zip(&want[b - 1]).fold(0f32, |w, (a, b)| w.max((a - b).abs()));
        assert!(worst < 1e-4, "{worst} after {b}");
    }
    assert_eq!(cache.len(), 90);
    assert!(m.decode(&[1], &mut cache).is_err());
    cache.truncate(70).unwrap();
    let again = m.decode(&ids[70..71], &mut cache).unwrap();
    assert!(again.iter().zip(&want[70]).all(|(a, b)| (a - b).abs() < 1e-4));
}

#[test]
fn it_agrees_with_candle_transformers() {
    use candle_transformers::models::llama as oracle;
    let w = weights(false);
    let c = oracle::Config {
        hidden_size: 12,
        intermediate_size: 20,
        vocab_size: 29,
        num_hidden_layers: 2,
        num_attention_heads: 3,
        num_key_value_heads: 3,
        use_flash_attn: false,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        bos_token_id: None,
        eos_token_id: None,
        rope_scaling: None,
        max_position_embeddings: 128,
        tie_word_embeddings: false,
    };
    // The oracle derives the head size from hidden / heads, so this shape has three heads of four.
    let mut own = Weights::new(Config { num_attention_heads: 3, num_key_value_heads: 3, ..w.config }, w.tensors);
    for layer in 0..2 {
        for (i, name) in ["q_proj", "k_proj", "v_proj", "o_proj"].iter().enumerate() {
            let mut v = vec![0f32; 144];
            Stream { seed: layer * 10 + i as u64, words: [4; 3] }.fill_uniform(0.5, &mut v);
            let t = Tensor::from_vec(v, (12, 12), &Device::Cpu).unwrap();
            own.tensors.insert(format!("model.layers.{layer}.self_attn.{name}.weight"), t);
        }
    }
    let vb = candle_nn::VarBuilder::from_tensors(own.tensors.clone(), DType::F32, &Device::Cpu);
    let theirs = oracle::Llama::load(vb, &c).unwrap();
    let ours = Llama::new(own, &Tuning::None, 0).unwrap();
    let ids = [3u32, 1, 4, 1, 5, 9, 2, 6, 5];
    let mut cache = oracle::Cache::new(false, DType::F32, &c, &Device::Cpu).unwrap();
    let want =
        theirs.forward(&Tensor::new(&ids[..], &Device::Cpu).unwrap().unsqueeze(0).unwrap(), 0, &mut cache).unwrap();
    let want = want.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let found = ours.logits(&Batch::of(&[&example(&ids, 0)])).unwrap().to_vec2::<f32>().unwrap();
    let worst = found[ids.len() - 1].iter().zip(&want).fold(0f32, |w, (a, b)| w.max((a - b).abs()));
    assert!(worst < 1e-5, "{worst}");
    assert!(ours.forward_backward(&batch(), 1.0, &PASS).is_err());
}

#[test]
fn a_fresh_adapter_changes_nothing_and_one_switched_off_neither() {
    let base = Llama::new(weights(true), &Tuning::None, 0).unwrap().loss(&batch()).unwrap();
    let fresh = Llama::new(weights(true), &all_linear(0.0), 0).unwrap();
    assert!((fresh.loss(&batch()).unwrap().0 - base.0).abs() < 1e-6);
    let mut trained = model(true, &all_linear(0.0));
    assert!((trained.loss(&batch()).unwrap().0 - base.0).abs() > 0.1);
    trained.set_adapter_enabled(false);
    assert!((trained.loss(&batch()).unwrap().0 - base.0).abs() < 1e-6);
}

#[test]
fn full_state_is_what_was_loaded() {
    for tuning in [Tuning::Full, all_linear(0.0)] {
        let (m, w) = (Llama::new(weights(false), &tuning, 0).unwrap(), weights(false));
        let state = m.full_state().unwrap();
        assert_eq!(state.len(), w.tensors.len());
        for (name, t) in state {
            assert_eq!(t.to_vec1_or_2(), w.tensors[&name].to_vec1_or_2(), "{name}");
        }
    }
    let total: usize = weights(false).tensors.values().map(|t| t.elem_count()).sum();
    let m = Llama::new(weights(false), &all_linear(0.0), 0).unwrap();
    assert_eq!(m.total_parameters(), (total + m.params().len()) as u64);
}

trait Flat {
    fn to_vec1_or_2(&self) -> (Vec<usize>, Vec<f32>);
}

impl Flat for Tensor {
    fn to_vec1_or_2(&self) -> (Vec<usize>, Vec<f32>) {
        (self.dims().to_vec(), self.flatten_all().unwrap().to_vec1().unwrap())
    }
}

#[test]
fn a_missing_or_misshapen_weight_is_named() {
    let name = "model.layers.1.mlp.up_proj.weight";
    let mut w = weights(true);
    w.tensors.remove(name);
    assert!(Llama::new(w, &Tuning::None, 0).err().unwrap().what.contains(name));
    let mut w = weights(true);
    w.tensors.insert(name.into(), Tensor::zeros((20, 13), DType::F32, &Device::Cpu).unwrap());
    let e = Llama::new(w, &Tuning::Full, 0).err().unwrap();
    assert!(e.what.contains(name) && e.what.contains("[20, 13]") && e.what.contains("[20, 12]"), "{e}");
}

#[test]
fn bad_batches_and_adapters_are_errors() {
    let m = model(true, &all_linear(0.0));
    let mut b = batch();
    b.ids[0] = 29;
    assert!(m.loss(&b).is_err());
    let mut b = batch();
    b.labels[1] = 29;
    assert!(m.loss(&b).is_err());
    let mut b = batch();
    b.cu_seqlens.pop();
    assert!(m.loss(&b).is_err());
    assert!(m.loss(&Batch::default()).is_err());
    for bad in [("x_proj", 1, 0.0), ("q_proj", 0, 0.0), ("q_proj", 1, 1.0)] {
        let l = LoraConfig {
            r: bad.1,
            alpha: 1.0,
            dropout: bad.2,
            target_modules: vec![bad.0.into()],
            ..LoraConfig::default()
        };
        assert!(Llama::new(weights(true), &Tuning::Lora(l), 0).is_err());
    }
}
