//! GRPO's reward functions as a recipe writes them: names, or tables with a name, a weight, and what a function needs.

use serde::{Deserialize, Serialize};

/// One reward function. Two of them, `soft_overlong_punishment` and `repetition_penalty`, are TRL's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum RewardFunc {
    /// 1 where the completion's answer is that of the row's column, letter for letter.
    ExactAnswer {
        #[serde(default = "one")]
        weight: f64,
        #[serde(default = "answer")]
        column: String,
    },
    /// 1 where the last number of the completion's answer is that of the row's column.
    NumericAnswer {
        #[serde(default = "one")]
        weight: f64,
        #[serde(default = "answer")]
        column: String,
        #[serde(default = "millionth")]
        tolerance: f64,
    },
    /// 1 where the pattern is found in the completion.
    Regex {
        #[serde(default = "one")]
        weight: f64,
        pattern: String,
    },
    /// 1 where the completion begins with one thought: `<think>…</think>`.
    ThinkFormat {
        #[serde(default = "one")]
        weight: f64,
    },
    /// 1 where the completion is JSON that the schema describes.
    JsonSchema {
        #[serde(default = "one")]
        weight: f64,
        schema: serde_json::Value,
    },
    /// 0, then down to -1 over the last tokens before `max_completion_len`.
    SoftOverlongPunishment {
        #[serde(default = "one")]
        weight: f64,
        max_completion_len: usize,
        soft_punish_cache: usize,
    },
    /// Down to `max_penalty` by the share of repeated n-grams of tokens.
    RepetitionPenalty {
        #[serde(default = "one")]
        weight: f64,
        #[serde(default = "three")]
        ngram_size: usize,
        #[serde(default = "minus_one")]
        max_penalty: f64,
    },
    /// What a program says: one JSON object a line in, one number a line out.
    Program {
        #[serde(default = "one")]
        weight: f64,
        /// The program and its arguments; relative to the folder that the run is started in.
        command: Vec<String>,
        #[serde(default = "thirty")]
        timeout_seconds: f64,
    },
}

fn one() -> f64 {
    1.0
}

fn minus_one() -> f64 {
    -1.0
}

fn thirty() -> f64 {
    30.0
}

fn millionth() -> f64 {
    1e-6
}

fn three() -> usize {
    3
}

fn answer() -> String {
    "answer".into()
}

/// The names there are.
pub const NAMES: [&str; 8] = [
    "exact_answer",
    "numeric_answer",
    "regex",
    "think_format",
    "json_schema",
    "soft_overlong_punishment",
    "repetition_penalty",
    "program",
];

impl RewardFunc {
    pub fn name(&self) -> &'static str {
        match self {
            Self::ExactAnswer { .. } => NAMES[0],
            Self::NumericAnswer { .. } => NAMES[1],
            Self::Regex { .. } => NAMES[2],
            Self::ThinkFormat { .. } => NAMES[3],
            Self::JsonSchema { .. } => NAMES[4],
            Self::SoftOverlongPunishment { .. } => NAMES[5],
            Self::RepetitionPenalty { .. } => NAMES[6],
            Self::Program { .. } => NAMES[7],
        }
    }

    pub fn weight(&self) -> f64 {
        match self {
            Self::ExactAnswer { weight, .. }
            | Self::NumericAnswer { weight, .. }
            | Self::Regex { weight, .. }
            | Self::ThinkFormat { weight }
            | Self::JsonSchema { weight, .. }
            | Self::SoftOverlongPunishment { weight, .. }
            | Self::RepetitionPenalty { weight, .. }
            | Self::Program { weight, .. } => *weight,
        }
    }
}

/// A reward function from what a recipe holds: its name alone, or a table.
///
/// # Errors
/// What is wrong with it, in words.
pub fn read(value: &serde_json::Value) -> Result<RewardFunc, String> {
    let table = match value {
        serde_json::Value::String(name) => serde_json::json!({ "name": name }),
        other => other.clone(),
    };
    match table.get("name").and_then(serde_json::Value::as_str) {
        Some(name) if NAMES.contains(&name) => {}
        Some(name) => return Err(format!("there is no reward function {name}; there are {}", NAMES.join(", "))),
        None => return Err(format!("it has no name; there are {}", NAMES.join(", "))),
    }
    let func: RewardFunc = serde_json::from_value(table).map_err(|e| e.to_string())?;
    match &func {
        RewardFunc::Program { command, .. } if command.is_empty() => Err("command is empty".into()),
        RewardFunc::Program { timeout_seconds, .. } if !(0.001..=86_400.0).contains(timeout_seconds) => {
            Err(format!("timeout_seconds = {timeout_seconds} is not between 0.001 and 86400"))
        }
        RewardFunc::RepetitionPenalty { max_penalty, .. } if *max_penalty > 0.0 => {
            Err(format!("max_penalty = {max_penalty} is above 0"))
        }
        RewardFunc::RepetitionPenalty { ngram_size: 0, .. } => Err("ngram_size is 0".into()),
        RewardFunc::SoftOverlongPunishment { max_completion_len, soft_punish_cache, .. }
            if *soft_punish_cache == 0 || soft_punish_cache > max_completion_len =>
        {
            Err("soft_punish_cache is above 0 and at most max_completion_len".into())
        }
        _ if !func.weight().is_finite() => Err("weight is not a number".into()),
        _ => Ok(func),
    }
}
