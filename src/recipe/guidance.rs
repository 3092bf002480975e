//! What is known about good values, as data: the ranges shown beside a recipe's keys, and whether a value is inside.
//!
//! Every answer names the row of the guidance it comes from. Must not know a run: what it needs of one is in [`Facts`].

use super::schema::short;
use super::{Method, Recipe, TargetModules};

/// A row of the table "which method for which goal".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Goal {
    pub method: &'static str,
    pub good_for: &'static str,
    pub data: &'static str,
    pub effort: &'static str,
}

/// The methods of this version, by goal.
pub const GOALS: &[Goal] = &[
    Goal {
        method: "sft",
        good_for: "following instructions, output format",
        data: "input and output pairs, or chats",
        effort: "one evening",
    },
    Goal { method: "cpt", good_for: "knowledge of a domain", data: "plain text", effort: "more data, more steps" },
    Goal {
        method: "dpo",
        good_for: "preferring one style of answer",
        data: "prompt, chosen, rejected",
        effort: "after SFT",
    },
    Goal {
        method: "grpo",
        good_for: "reasoning towards an answer that can be checked",
        data: "prompts and a reward",
        effort: "a good reward, patience",
    },
];

/// Names of the guidance's rows, as `source` cites them.
pub mod row {
    pub const RATE: &str = "guidance: ranges, learning rate";
    pub const BATCH: &str = "guidance: ranges, effective batch";
    pub const RANK: &str = "guidance: ranges, rank";
    pub const EPOCHS: &str = "guidance: ranges, epochs";
    pub const SCHEDULE: &str = "guidance: ranges, warm-up";
    pub const DUMBER: &str = "guidance: symptoms, model gets dumber";
    pub const STALLED: &str = "guidance: symptoms, loss does not fall";
    pub const REPEATS: &str = "guidance: symptoms, generation repeats";
    pub const JUMPS: &str = "guidance: symptoms, loss jumps or is NaN";
    pub const STOP: &str = "guidance: symptoms, stop token untrained";
    pub const TEMPLATE: &str = "guidance: symptoms, template mismatch";
    pub const COLLAPSE: &str = "guidance: symptoms, memory creeps or steps collapse";
    pub const LOSS: &str = "guidance: healthy, SFT loss on chat";
    pub const PREFERENCE: &str = "guidance: healthy, DPO accuracy and margin";
    pub const REWARD: &str = "guidance: healthy, GRPO reward mean";
    pub const SPREAD: &str = "guidance: healthy, GRPO reward std";
    pub const POLICY: &str = "guidance: healthy, GRPO entropy, KL, clip share, cut-off completions";
    pub const GRADIENT: &str = "guidance: healthy, SFT gradient norm";
}

/// What is known of the run a recipe is for; unknown stays `None`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Facts {
    /// Training rows.
    pub rows: Option<u64>,
    pub trainable_parameters: Option<u64>,
    /// All of the model's.
    pub total_parameters: Option<u64>,
    /// Share of rows cut at `max_seq_length`, 0..1.
    pub truncated_share: Option<f64>,
}

/// The text beside a value, whether the value is inside (`None`: the row gives no range), and the row.
#[derive(Debug, Clone, PartialEq)]
pub struct Guidance {
    pub text: String,
    pub inside: Option<bool>,
    pub source: &'static str,
}

/// Models below this many parameters bear higher rates: the ranges come from models of billions. Of one family trained
/// alike (Pythia, arXiv 2304.01373), that of 12B was given 1.2e-4, that of 70M 1e-3: some eight times as much.
pub const SMALL_MODEL: u64 = 100_000_000;
const SMALL_MODEL_RATE: f64 = 10.0;

/// Inclusive range of learning rates for a method and tuning, and the rate to begin with.
///
/// CPT with LoRA has one rate in the guidance, 5e-5; half to double of it counts as inside.
pub fn learning_rates(method: Method, lora: bool) -> (f64, f64, f64) {
    match (method, lora) {
        (Method::Sft, true) => (1e-4, 3e-4, 2e-4),
        (Method::Cpt, true) => (2.5e-5, 1e-4, 5e-5),
        (Method::Dpo, true) => (5e-7, 5e-6, 5e-6),
        (Method::Dpo, false) => (5e-7, 5e-6, 1e-6),
        (Method::Grpo, true) => (1e-6, 1e-5, 1e-5),
        (Method::Grpo, false) => (1e-6, 1e-5, 1e-6),
        (_, false) => (1e-5, 5e-5, 2e-5),
    }
}

/// Rows below which data counts as small: the first class of the guidance's epochs.
const SMALL: u64 = 10_000;

/// Below this many rows there may be too few to learn from.
pub const FEW_ROWS: u64 = 100;

/// What the guidance says about `key` in this recipe; nothing where it says nothing.
pub fn guidance(key: &str, recipe: &Recipe, facts: &Facts) -> Option<Guidance> {
    let t = &recipe.train;
    let lora = recipe.lora.as_ref();
    let say = |text: String, inside: Option<bool>, source| Some(Guidance { text, inside, source });
    let range = |v: f64, min: f64, max: f64, source| say(spread(min, max), Some(within(v, min, max)), source);
    match key {
        "train.learning_rate" => {
            let (min, max, start) = learning_rates(recipe.method, lora.is_some());
            let small = facts.total_parameters.is_some_and(|n| n < SMALL_MODEL);
            let max = if small { (max * SMALL_MODEL_RATE * 1e9).round() / 1e9 } else { max };
            let about = recipe.method == Method::Cpt && lora.is_some() && !small;
            let text = if small {
                format!("{min:e} – {max:e}")
            } else if about {
                format!("about {}", short(start))
            } else {
                spread(min, max)
            };
            say(text, Some(within(t.learning_rate, min, max)), row::RATE)
        }
        "train.per_device_train_batch_size" | "train.gradient_accumulation_steps" => {
            let batch = (t.per_device_train_batch_size * t.gradient_accumulation_steps) as f64;
            if recipe.method == Method::Grpo {
                return range(batch, 8.0, 32.0, row::BATCH);
            }
            let small = lora.is_some() && facts.rows.is_some_and(|n| n < SMALL);
            let min = if small { 4.0 } else { 16.0 };
            range(batch, min, 64.0, row::BATCH)
        }
        "train.num_train_epochs" => {
            if t.max_steps > 0 {
                return None;
            }
            match facts.rows {
                Some(n) => {
                    let max = if n < SMALL {
                        3.0
                    } else if n <= 100_000 {
                        2.0
                    } else {
                        1.0
                    };
                    let epochs = if max == 1.0 { "1".to_string() } else { format!("1–{max}") };
                    say(format!("{} rows: {epochs}", thousands(n)), Some(t.num_train_epochs <= max), row::EPOCHS)
                }
                None => say("1 – 3".into(), Some(t.num_train_epochs <= 3.0), row::EPOCHS),
            }
        }
        "train.warmup_ratio" if t.warmup_steps == 0 && t.lr_scheduler_type != "constant" => {
            range(t.warmup_ratio, 0.03, 0.1, row::SCHEDULE)
        }
        "train.weight_decay" => range(t.weight_decay, 0.001, 0.1, row::SCHEDULE),
        "train.max_grad_norm" => say("1.0".into(), None, row::SCHEDULE),
        "train.lr_scheduler_type" => say(
            "linear or cosine".into(),
            Some(matches!(t.lr_scheduler_type.as_str(), "linear" | "cosine")),
            row::SCHEDULE,
        ),
        "train.seed" => say("3407".into(), None, row::SCHEDULE),
        "lora.r" => {
            let r = lora?.r;
            let text = facts
                .trainable_parameters
                .map_or("16 to begin, 8 – 64".into(), |n| format!("{} trainable", count(n)));
            say(text, Some((8..=64).contains(&r)), row::RANK)
        }
        "lora.lora_alpha" => {
            let l = lora?;
            let r = l.r as f64;
            say(format!("{r} or {}", 2.0 * r), Some(l.lora_alpha == r || l.lora_alpha == 2.0 * r), row::RANK)
        }
        "lora.lora_dropout" => say("0, or 0.1 if it overfits".into(), Some(lora?.lora_dropout <= 0.1), row::RANK),
        "lora.target_modules" => {
            let all = match &lora?.target_modules {
                TargetModules::Word(word) => word == super::modules::ALL_LINEAR,
                TargetModules::Names(names) => {
                    let has = |m: &str| names.iter().any(|n| n == m);
                    let plain = super::LINEAR.iter().all(|m| has(m));
                    plain || super::FUSED.iter().chain(&["o_proj", "down_proj"]).all(|m| has(m))
                }
            };
            say("all linear layers".into(), Some(all), row::RANK)
        }
        "model.max_seq_length" => {
            let share = facts.truncated_share?;
            say(format!("{:.1} % rows cut", share * 100.0), None, "the rows of this run")
        }
        "sample.temperature" => say("0.7 if it repeats".into(), None, row::REPEATS),
        "sample.top_p" => say("0.9 if it repeats".into(), None, row::REPEATS),
        "sample.repetition_penalty" => say("1.1 if it repeats".into(), None, row::REPEATS),
        _ => None,
    }
}

/// Inclusive, with room for the last bit.
fn within(v: f64, min: f64, max: f64) -> bool {
    v >= min * (1.0 - 1e-9) && v <= max * (1.0 + 1e-9)
}

fn spread(min: f64, max: f64) -> String {
    format!("{} – {}", short(min), short(max))
}

/// `19,488`.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// `40.37M`.
pub fn count(n: u64) -> String {
    match n {
        0..1_000 => n.to_string(),
        1_000..1_000_000 => format!("{:.1}k", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2}M", n as f64 / 1e6),
        _ => format!("{:.2}B", n as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{parse, with};

    fn recipe(more: &str) -> Recipe {
        parse(&format!("{more}\n[model]\nname_or_path = \"demo\"\n[data]\ntrain = \"a\"\n[lora]\n"), "g.toml", &[])
            .unwrap()
            .recipe
    }

    #[test]
    fn ranges_and_verdicts_follow_the_table() {
        let lora = recipe("");
        let full = Recipe { lora: None, ..lora.clone() };
        let cpt = recipe("method = \"cpt\"");
        let rows = |n| Facts { rows: Some(n), ..Facts::default() };
        for (base, key, value, facts, text, inside) in [
            (&lora, "train.learning_rate", "2e-4", Facts::default(), "1e-4 – 3e-4", Some(true)),
            (&lora, "train.learning_rate", "3e-4", Facts::default(), "1e-4 – 3e-4", Some(true)),
            (&lora, "train.learning_rate", "2e-5", Facts::default(), "1e-4 – 3e-4", Some(false)),
            (&full, "train.learning_rate", "2e-5", Facts::default(), "1e-5 – 5e-5", Some(true)),
            (&cpt, "train.learning_rate", "2e-4", Facts::default(), "about 5e-5", Some(false)),
            (&lora, "train.per_device_train_batch_size", "4", Facts::default(), "16 – 64", Some(true)),
            (&lora, "train.gradient_accumulation_steps", "1", Facts::default(), "16 – 64", Some(false)),
            (&lora, "train.gradient_accumulation_steps", "1", rows(500), "4 – 64", Some(true)),
            (&lora, "train.num_train_epochs", "2", rows(19_488), "19,488 rows: 1–2", Some(true)),
            (&lora, "train.num_train_epochs", "3", rows(19_488), "19,488 rows: 1–2", Some(false)),
            (&lora, "train.num_train_epochs", "3", rows(9_999), "9,999 rows: 1–3", Some(true)),
            (&lora, "train.num_train_epochs", "1", rows(2_000_000), "2,000,000 rows: 1", Some(true)),
            (&lora, "train.warmup_ratio", "0.2", Facts::default(), "0.03 – 0.1", Some(false)),
            (&lora, "train.weight_decay", "0.01", Facts::default(), "0.001 – 0.1", Some(true)),
            (&lora, "lora.lora_alpha", "32", Facts::default(), "16 or 32", Some(true)),
            (&lora, "lora.r", "128", Facts::default(), "16 to begin, 8 – 64", Some(false)),
        ] {
            let r = with(base, key, value).unwrap();
            let g = guidance(key, &r, &facts).unwrap();
            assert_eq!((g.text.as_str(), g.inside), (text, inside), "{key} = {value}");
            assert!(g.source.starts_with("guidance: "));
        }
    }

    #[test]
    fn a_small_model_bears_a_higher_rate_but_not_any() {
        let of = |rate: &str, parameters| {
            let facts = Facts { total_parameters: Some(parameters), ..Facts::default() };
            let g = guidance("train.learning_rate", &with(&recipe(""), "train.learning_rate", rate).unwrap(), &facts);
            g.map(|g| (g.text, g.inside)).unwrap()
        };
        assert_eq!(of("2e-3", 1_400_000), ("1e-4 – 3e-3".into(), Some(true)));
        assert_eq!(of("5e-3", 1_400_000).1, Some(false));
        assert_eq!(of("2e-3", 135_000_000), ("1e-4 – 3e-4".into(), Some(false)));
    }

    #[test]
    fn the_exact_trainable_count_replaces_the_rule_of_thumb() {
        let facts = Facts { trainable_parameters: Some(40_370_000), ..Facts::default() };
        assert_eq!(guidance("lora.r", &recipe(""), &facts).unwrap().text, "40.37M trainable");
    }

    #[test]
    fn every_default_that_has_a_range_is_inside_it() {
        for more in ["", "method = \"cpt\""] {
            let lora = recipe(more);
            let full = with(&Recipe { lora: None, ..lora.clone() }, "train.learning_rate", "2e-5").unwrap();
            for r in [lora, full] {
                for e in crate::recipe::schema::entries() {
                    let inside = guidance(e.key, &r, &Facts::default()).and_then(|g| g.inside);
                    assert_ne!(inside, Some(false), "{}", e.key);
                }
            }
        }
    }
}
