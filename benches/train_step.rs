//! The time of a training step on this machine: the shape of SmolLM2-135M with random weights, two sequences of 256
//! tokens, every label counted.
//!
//! usage: cargo bench --bench train_step -- [lora|full] [off|full] [steps]
//!
//! The second word is gradient checkpointing. CPU time stands beside the wall time: on a shared machine it is the
//! steadier of the two.

use candle_core::{Device, Tensor};
use finetop::data::batch::{Batch, Example};
use finetop::model::config::{Config, Weights};
use finetop::model::llama::{Checkpointing, Llama, Pass};
use finetop::model::lora::{LoraConfig, MODULES, Tuning};
use finetop::ops::adamw::AdamW;
use finetop::ops::random::Stream;
use std::collections::HashMap;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

unsafe extern "C" {
    fn mi_option_set(option: i32, value: std::ffi::c_long);
}

const TOKENS: usize = 256;

fn weights() -> Weights {
    let config = Config {
        model_type: "llama".into(),
        vocab_size: 49152,
        hidden_size: 576,
        intermediate_size: 1536,
        num_hidden_layers: 30,
        num_attention_heads: 9,
        num_key_value_heads: 3,
        head_dim: 64,
        max_position_embeddings: 8192,
        rms_norm_eps: 1e-5,
        rope_theta: 100_000.0,
        rope_scaling: None,
        tie_word_embeddings: true,
        attention_bias: false,
        bos_token_id: None,
        eos_token_ids: vec![],
        traits: Default::default(),
    };
    let mut tensors = HashMap::new();
    let mut put = |name: String, shape: &[usize]| {
        let mut v = vec![1f32; shape.iter().product()];
        if !name.contains("norm") {
            Stream { seed: tensors.len() as u64, words: [0; 3] }.fill_uniform(0.04, &mut v);
        }
        tensors.insert(name, Tensor::from_vec(v, shape, &Device::Cpu).expect("a tensor"));
    };
    put("model.embed_tokens.weight".into(), &[49152, 576]);
    put("model.norm.weight".into(), &[576]);
    for layer in 0..30 {
        let mut own = |name: &str, shape: &[usize]| put(format!("model.layers.{layer}.{name}.weight"), shape);
        own("input_layernorm", &[576]);
        own("post_attention_layernorm", &[576]);
        for (name, out) in [("q_proj", 576), ("k_proj", 192), ("v_proj", 192), ("o_proj", 576)] {
            own(&format!("self_attn.{name}"), &[out, 576]);
        }
        own("mlp.gate_proj", &[1536, 576]);
        own("mlp.up_proj", &[1536, 576]);
        own("mlp.down_proj", &[576, 1536]);
    }
    Weights::new(config, tensors)
}

/// CPU seconds of this process so far, user and system, over all threads.
fn cpu_seconds() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let spent = |t: std::fs::DirEntry| std::fs::read_to_string(t.path().join("schedstat")).ok();
    let nanoseconds = tasks.filter_map(spent).filter_map(|s| s.split(' ').next()?.parse::<f64>().ok());
    nanoseconds.sum::<f64>() / 1e9
}

fn median(mut v: Vec<f64>) -> f64 {
    v.sort_by(f64::total_cmp);
    v[v.len() / 2]
}

fn main() {
    // As the program itself does.
    // SAFETY: an option that exists, set before any thread starts.
    unsafe { mi_option_set(15, -1) };
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let word = |i: usize| words.get(i).map_or("", String::as_str);
    let target_modules = MODULES.iter().map(|m| m.to_string()).collect();
    let lora = LoraConfig { r: 16, alpha: 16.0, dropout: 0.0, target_modules, ..LoraConfig::default() };
    let tuning = if word(0) == "full" { Tuning::Full } else { Tuning::Lora(lora) };
    let checkpointing = if word(1) == "full" { Checkpointing::Full } else { Checkpointing::Off };
    let steps: u64 = word(2).parse().unwrap_or(6);
    let model = Llama::new(weights(), &tuning, 0).expect("a model");
    let mut optimizer = AdamW::new(model.params(), (0.9, 0.999), 1e-8, 0.0).expect("an optimizer");
    let example = |s: u32| Example {
        ids: (0..TOKENS as u32).map(|i| (i * 7919 + s * 104_729) % 40_000 + 3).collect(),
        trained: vec![true; TOKENS].into(),
        row: s,
        truncated: false,
    };
    let (mut wall, mut cpu) = (Vec::new(), Vec::new());
    for step in 0..=steps {
        let batch = Batch::of(&[&example(step as u32 * 2), &example(step as u32 * 2 + 1)]);
        let (started, spent) = (Instant::now(), cpu_seconds());
        model.params().zero_grad().expect("cleared");
        let scale = 1.0 / batch.label_tokens() as f64;
        let pass = Pass { seed: 0, step, micro: 0, checkpointing };
        model.forward_backward(&batch, scale, &pass).expect("a pass");
        model.params().grad_norm().expect("a norm");
        optimizer.step(model.params(), 2e-4, 1.0).expect("a step");
        if step > 0 {
            wall.push(started.elapsed().as_secs_f64());
            cpu.push(cpu_seconds() - spent);
        }
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or("?").trim();
    let tokens = (2 * TOKENS) as f64;
    let (wall, cpu) = (median(wall), median(cpu));
    println!(
        "{} threads: {wall:.3} s a step (median of {steps}), {:.0} tokens/s; {cpu:.3} s of CPU a step; peak resident {peak}",
        rayon::current_num_threads(),
        tokens / wall,
    );
}
