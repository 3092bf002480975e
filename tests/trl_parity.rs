//! The first eight optimizer steps equal TRL + PEFT's: same base, same starting adapter (B not zero), same rows in
//! order, batch 2 × accumulation 2, linear schedule with warm-up, loss on the completion only, or on all of a document.
//!
//! The reference numbers come from `tests/reference/trl_sft.py`.

mod common;

use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    recipe: Settings,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Settings {
    per_device_train_batch_size: usize,
    gradient_accumulation_steps: usize,
    max_steps: usize,
    learning_rate: f64,
    lr_scheduler_type: String,
    warmup_steps: usize,
    weight_decay: f64,
    max_grad_norm: f64,
    max_seq_length: usize,
}

#[derive(Deserialize)]
struct Step {
    loss: f64,
    grad_norm: f64,
    learning_rate: f64,
    label_tokens: u64,
}

/// Completions of chats.
const SFT: [&str; 3] = ["sft", "", "completion_only_loss = true"];
/// Documents, one a sequence.
const CPT: [&str; 3] = ["cpt", "text_column = \"body\"", "packing = false"];

fn compare(model: &str, lora: &str, rows: &str, reference: &str, kind: [&str; 3]) {
    compare_in(model, "", lora, rows, reference, kind);
}

/// `held` is said of the model besides its name, `lora` is the recipe's table, the lines of `kind` its method and what goes under [data] and [train].
fn compare_in(model: &str, held: &str, lora: &str, rows: &str, reference: &str, kind: [&str; 3]) {
    let [method, of_data, of_train] = kind;
    let text = std::fs::read_to_string(common::repo(reference)).unwrap();
    let reference: Reference = serde_json::from_str(&text).unwrap();
    let s = &reference.recipe;
    let recipe = format!(
        r#"
method = "{method}"
[model]
name_or_path = "{model}"
max_seq_length = {}
{held}
[lora]
{lora}
[data]
train = "{rows}"
shuffle = false
{of_data}
[train]
{of_train}
per_device_train_batch_size = {}
gradient_accumulation_steps = {}
max_steps = {}
learning_rate = {}
lr_scheduler_type = "{}"
warmup_steps = {}
weight_decay = {}
max_grad_norm = {}
[sample]
prompts = []
"#,
        s.max_seq_length,
        s.per_device_train_batch_size,
        s.gradient_accumulation_steps,
        s.max_steps,
        s.learning_rate,
        s.lr_scheduler_type,
        s.warmup_steps,
        s.weight_decay,
        s.max_grad_norm,
    );
    let steps = common::train(&recipe, &[]).steps();
    assert_eq!(steps.len(), reference.steps.len());
    for (i, (ours, theirs)) in steps.iter().zip(&reference.steps).enumerate() {
        println!(
            "step {} loss {:.5} {:.5} grad {:.5} {:.5} labels {} {}",
            i + 1,
            ours.loss,
            theirs.loss,
            ours.grad_norm,
            theirs.grad_norm,
            ours.label_tokens,
            theirs.label_tokens
        );
        assert!((ours.loss - theirs.loss).abs() <= 0.002, "step {}: loss {} for {}", i + 1, ours.loss, theirs.loss);
        assert!(
            (ours.grad_norm / theirs.grad_norm - 1.0).abs() <= 0.01,
            "step {}: gradient norm {} for {}",
            i + 1,
            ours.grad_norm,
            theirs.grad_norm
        );
        assert!((ours.learning_rate - theirs.learning_rate).abs() < 1e-12, "step {}: learning rate", i + 1);
    }
    let labels: Vec<u64> =
        steps.iter().scan(0, |before, s| Some(s.label_tokens - std::mem::replace(before, s.label_tokens))).collect();
    assert_eq!(labels, reference.steps.iter().map(|s| s.label_tokens).collect::<Vec<_>>());
}

fn given(adapter: &str) -> String {
    format!("adapter_name_or_path = \"{adapter}\"")
}

const TINY: &str = "tests/fixtures/tiny-llama";

#[test]
fn a_tiny_llama_follows_trl() {
    let (lora, rows) = (given("tests/fixtures/tiny-llama-adapter"), "tests/fixtures/tiny-llama/rows.jsonl");
    compare(TINY, &lora, rows, "tests/fixtures/trl_tiny.json", SFT);
}

#[test]
fn continued_pre_training_follows_trl_from_a_given_adapter_and_a_fresh_one() {
    let rows = "tests/fixtures/tiny-llama/documents.jsonl";
    compare(TINY, &given("tests/fixtures/tiny-llama-adapter"), rows, "tests/fixtures/trl_cpt_tiny.json", CPT);
    // What this draws is tests/fixtures/tiny-llama-fresh, from which TRL started.
    compare(TINY, "r = 4\nlora_alpha = 8", rows, "tests/fixtures/trl_cpt_tiny_fresh.json", CPT);
}

/// A checkpoint that transformers wrote, with the tokenizer of the model it was made from.
fn quantized(folder: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (from, names) in [
        (folder, &["config.json", "generation_config.json", "model.safetensors"][..]),
        ("tests/fixtures/tiny-llama", &["tokenizer.json", "tokenizer_config.json"]),
    ] {
        for name in names {
            std::fs::copy(common::repo(from).join(name), dir.path().join(name)).unwrap();
        }
    }
    dir
}

#[test]
fn a_tiny_llama_in_nf4_follows_trl_over_bitsandbytes() {
    let saved = quantized("tests/fixtures/tiny-llama-bnb-4bit");
    for (model, held) in [
        (TINY, "load_in_4bit = true"),
        // As bitsandbytes has stored it, whatever is said.
        (saved.path().to_str().unwrap(), ""),
        (saved.path().to_str().unwrap(), "load_in_4bit = true"),
    ] {
        let (lora, rows) = (given("tests/fixtures/tiny-llama-adapter"), "tests/fixtures/tiny-llama/rows.jsonl");
        compare_in(model, held, &lora, rows, "tests/fixtures/trl_tiny_nf4.json", SFT);
    }
}

#[test]
fn smollm2_follows_trl_from_safetensors_and_from_its_gguf() {
    let Some(assets) = common::assets() else { return };
    let place = |p: &str| assets.join(p).to_string_lossy().into_owned();
    for model in ["smollm2-hf", "smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"] {
        let (lora, rows) = (given(&place("start-adapter")), place("llamafactory/alpaca_en_demo.json"));
        compare(&place(model), &lora, &rows, "tests/fixtures/trl_smollm2.json", SFT);
    }
}
