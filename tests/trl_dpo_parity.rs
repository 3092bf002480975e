//! DPO's steps equal TRL + PEFT's: same base, same starting adapter (given, or fresh with B zero), same pairs in order,
//! batch 2 × accumulation 2, every `loss_type`.
//!
//! The reference numbers come from `tests/reference/trl_dpo.py`.

mod common;

use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Reference {
    recipe: Settings,
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Settings {
    per_device_train_batch_size: usize,
    gradient_accumulation_steps: usize,
    learning_rate: f64,
    warmup_steps: usize,
    weight_decay: f64,
    max_grad_norm: f64,
    max_seq_length: usize,
    beta: f64,
    label_smoothing: f64,
}

#[derive(Deserialize)]
struct Run {
    start: String,
    loss_type: String,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    loss: f64,
    grad_norm: f64,
    learning_rate: f64,
    label_tokens: u64,
    tokens: u64,
    metrics: BTreeMap<String, f64>,
}

fn compare(model: &str, pairs: &str, lora: impl Fn(&str) -> String, reference: &str) {
    let text = std::fs::read_to_string(common::repo(reference)).unwrap();
    let reference: Reference = serde_json::from_str(&text).unwrap();
    let s = &reference.recipe;
    for run in &reference.runs {
        let recipe = format!(
            r#"
method = "dpo"
[model]
name_or_path = "{model}"
max_seq_length = {}
[lora]
{}
[data]
train = "{pairs}"
shuffle = false
[train]
per_device_train_batch_size = {}
gradient_accumulation_steps = {}
max_steps = {}
learning_rate = {}
warmup_steps = {}
weight_decay = {}
max_grad_norm = {}
[dpo]
loss_type = "{}"
beta = {}
label_smoothing = {}
"#,
            s.max_seq_length,
            lora(&run.start),
            s.per_device_train_batch_size,
            s.gradient_accumulation_steps,
            run.steps.len(),
            s.learning_rate,
            s.warmup_steps,
            s.weight_decay,
            s.max_grad_norm,
            run.loss_type,
            s.beta,
            s.label_smoothing,
        );
        let steps = common::train(&recipe, &[]).steps();
        assert_eq!(steps.len(), run.steps.len());
        let (mut tokens, mut labels) = (0, 0);
        for (i, (ours, theirs)) in steps.iter().zip(&run.steps).enumerate() {
            let at = format!("{} {} step {}", run.start, run.loss_type, i + 1);
            println!(
                "{at}: loss {:.5} {:.5} grad {:.5} {:.5}",
                ours.loss, theirs.loss, ours.grad_norm, theirs.grad_norm
            );
            assert!((ours.loss - theirs.loss).abs() <= 0.002, "{at}: loss {} for {}", ours.loss, theirs.loss);
            let ratio = ours.grad_norm / theirs.grad_norm;
            assert!((ratio - 1.0).abs() <= 0.01, "{at}: gradient norm {} for {}", ours.grad_norm, theirs.grad_norm);
            assert!((ours.learning_rate - theirs.learning_rate).abs() < 1e-12, "{at}: learning rate");
            tokens += theirs.tokens;
            labels += theirs.label_tokens;
            assert_eq!((ours.tokens, ours.label_tokens), (tokens, labels), "{at}: tokens and labels");
            assert_eq!(ours.metrics.len(), theirs.metrics.len(), "{at}: {:?}", ours.metrics);
            for (name, want) in &theirs.metrics {
                let within = if name.starts_with("logps") { 1e-4 * want.abs() } else { 0.002 };
                let got = ours.metrics[name];
                assert!((got - want).abs() <= within, "{at}: {name} {got} for {want}");
            }
        }
    }
}

#[test]
fn a_tiny_llama_follows_trl_from_a_fresh_adapter_and_from_a_given_one_with_every_loss() {
    let lora = |start: &str| match start {
        // The seed draws the same A as that of the fixture that TRL started from.
        "fresh" => "r = 4\nlora_alpha = 8".to_string(),
        _ => "adapter_name_or_path = \"tests/fixtures/tiny-llama-adapter\"".to_string(),
    };
    let fixture = "tests/fixtures/tiny-llama";
    compare(fixture, &format!("{fixture}/pairs.jsonl"), lora, "tests/fixtures/trl_dpo_tiny.json");
}

#[test]
fn smollm2_follows_trl_on_real_preferences() {
    let Some(assets) = common::assets() else { return };
    let place = |p: &str| assets.join(p).to_string_lossy().into_owned();
    let given = place("start-adapter");
    let lora = |_: &str| format!("adapter_name_or_path = \"{given}\"");
    let pairs = place("llamafactory/dpo_en_demo.json");
    compare(&place("smollm2-hf"), &pairs, lora, "tests/fixtures/trl_dpo_smollm2.json");
}
