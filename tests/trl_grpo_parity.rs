//! GRPO's advantages, losses and gradients equal TRL + PEFT's for given completions and rewards: every `loss_type`, token
//! and sequence level, with and without a reference, on policy and off it.
//!
//! The reference numbers come from `tests/reference/trl_grpo.py`.

mod common;

use finetop::data::batch::{Batch, Example};
use finetop::model::engine::{Voice, Weighed};
use finetop::model::llama::{Checkpointing, Pass, Weighted};
use finetop::recipe::GrpoSection;
use finetop::train::parts::policy_loss::{Rollout, Scale, advantages, loss};
use finetop::train::setup;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Reference {
    group: usize,
    max_completion_length: usize,
    temperature: f64,
    adapter_times: f32,
    epsilon: f64,
    epsilon_high: f64,
    prompts: Vec<Vec<u32>>,
    completions: Vec<Vec<u32>>,
    rewards: Vec<f64>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    loss_type: String,
    importance_sampling_level: String,
    beta: f64,
    #[serde(default = "yes")]
    use_bias_correction_kl: bool,
    #[serde(default)]
    mask_truncated_completions: bool,
    #[serde(default = "group")]
    scale_rewards: String,
    old: Vec<Vec<f32>>,
    advantages: Vec<f64>,
    loss: f64,
    grad_norm: f64,
    metrics: BTreeMap<String, f64>,
}

fn yes() -> bool {
    true
}

fn group() -> String {
    "group".into()
}

fn section(r: &Reference, c: &Case) -> GrpoSection {
    let recipe = format!(
        r#"
method = "grpo"
[model]
name_or_path = "demo"
[data]
train = "a"
[grpo]
reward_funcs = ["think_format"]
num_generations = {}
max_completion_length = {}
temperature = {:?}
epsilon = {:?}
epsilon_high = {:?}
beta = {:?}
loss_type = "{}"
importance_sampling_level = "{}"
use_bias_correction_kl = {}
scale_rewards = "{}"
"#,
        r.group,
        r.max_completion_length,
        r.temperature,
        r.epsilon,
        r.epsilon_high,
        c.beta,
        c.loss_type,
        c.importance_sampling_level,
        c.use_bias_correction_kl,
        c.scale_rewards,
    );
    finetop::recipe::parse(&recipe, "g.toml", &[]).unwrap().recipe.grpo.unwrap()
}

#[test]
fn every_loss_follows_trl_for_given_completions_and_rewards() {
    let text = std::fs::read_to_string(common::repo("tests/fixtures/trl_grpo_tiny.json")).unwrap();
    let r: Reference = serde_json::from_str(&text).unwrap();
    let recipe = r#"
[model]
name_or_path = "tests/fixtures/tiny-llama"
device = "cpu"
[lora]
adapter_name_or_path = "tests/fixtures/tiny-llama-adapter"
[data]
train = "tests/fixtures/tiny-llama/rows.jsonl"
"#;
    let recipe = finetop::recipe::parse(recipe, &common::repo("test.toml").to_string_lossy(), &[]).unwrap().recipe;
    let mut prepared = setup::prepare(&recipe, finetop::model::ranks::Ranks::alone(), &mut |_| {}).unwrap();
    let end = prepared.speaker.stop_ids.clone();
    let model = &mut prepared.speaker.model;
    // The reference is the adapter as given; the policy has moved since.
    let given = model.params().values().unwrap();
    model.set_values(&given.iter().map(|v| v * r.adapter_times).collect::<Vec<_>>()).unwrap();

    let lay = |which: &[usize]| {
        let examples: Vec<Example> = which
            .iter()
            .map(|&i| {
                let ids: Vec<u32> = r.prompts[i].iter().chain(&r.completions[i]).copied().collect();
                let trained = (0..ids.len()).map(|t| t >= r.prompts[i].len()).collect::<Vec<bool>>().into();
                Example { ids: ids.into(), trained, row: i as u32, truncated: false }
            })
            .collect();
        Batch::of(&examples.iter().collect::<Vec<_>>())
    };
    for c in &r.cases {
        let at = format!("{} {} beta {} old {}", c.loss_type, c.importance_sampling_level, c.beta, !c.old.is_empty());
        let grpo = section(&r, c);
        let worth = advantages(&r.rewards, r.group, grpo.scale_rewards);
        for (got, want) in worth.values.iter().zip(&c.advantages) {
            assert!((got - want).abs() < 1e-5, "{at}: advantage {got} for {want}");
        }
        assert!((worth.zero_std - c.metrics["frac_reward_zero_std"]).abs() < 1e-6);
        let ends = |i: &usize| end.contains(r.completions[*i].last().unwrap());
        let which: Vec<usize> = (0..r.completions.len()).filter(|i| !c.mask_truncated_completions || ends(i)).collect();
        let tokens = which.iter().map(|&i| r.completions[i].len()).sum();
        let (completions, max_completion_length) = (r.completions.len(), r.max_completion_length);
        let scale = Scale { completions, tokens, step_tokens: tokens, micro_batches: 1, max_completion_length };
        let batch = lay(&which);
        let of = Weighted { temperature: r.temperature, entropies: true };
        let reference = match c.beta > 0.0 {
            true => {
                model
                    .log_probabilities(std::slice::from_ref(&batch), of, Voice::Values(&given))
                    .unwrap()
                    .remove(0)
                    .labels
            }
            false => Vec::new(),
        };
        let pass = Pass { seed: 0, step: 0, micro: 0, checkpointing: Checkpointing::Off };
        let (mut sum, mut entropy, mut kl, mut clipped, mut ratios) = (0.0, 0.0, 0.0, (0.0, 0.0), 0.0);
        model.zero_grad().unwrap();
        model
            .weighted_backward(&batch, of, &pass, &mut |said| {
                let mut weighed = Weighed::default();
                let mut from = 0;
                for &i in &which {
                    let to = from + r.completions[i].len();
                    let rollout = Rollout {
                        now: &said.labels[from..to],
                        old: c.old.get(i).map_or(&[], |o| o.as_slice()),
                        reference: reference.get(from..to).unwrap_or_default(),
                        advantage: worth.values[i],
                    };
                    let lost = loss(&rollout, &grpo, &scale);
                    kl += lost.kl;
                    clipped = (clipped.0 + lost.clipped_low, clipped.1 + lost.clipped_high);
                    ratios += lost.ratios;
                    weighed.loss += lost.loss;
                    weighed.weights.extend(lost.weights);
                    from = to;
                }
                sum = weighed.loss;
                entropy = said.entropies.iter().map(|&e| f64::from(e)).sum();
                Ok(weighed)
            })
            .unwrap();
        let norm = model.params().grad_norm().unwrap();
        println!("{at}: loss {sum:.6} {:.6} grad {norm:.6} {:.6}", c.loss, c.grad_norm);
        assert!((sum - c.loss).abs() <= 2e-5, "{at}: loss {sum} for {}", c.loss);
        assert!((norm / c.grad_norm - 1.0).abs() <= 1e-3, "{at}: gradient norm {norm} for {}", c.grad_norm);
        let tokens = tokens as f64;
        let mut measured = vec![
            ("entropy", entropy / tokens),
            ("clip_ratio/low_mean", clipped.0 / ratios),
            ("clip_ratio/high_mean", clipped.1 / ratios),
        ];
        if c.beta > 0.0 {
            measured.push(("kl", kl / tokens));
        }
        for (name, got) in measured {
            assert!((got - c.metrics[name]).abs() < 1e-4, "{at}: {name} {got} for {}", c.metrics[name]);
        }
    }
}
