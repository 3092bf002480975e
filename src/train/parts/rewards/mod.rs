//! What a completion is worth: the recipe's reward functions, built in or a person's own program.
//!
//! A score of NaN says that a function has nothing to say of a completion. Must not know how completions are drawn.

mod answer;
mod program;
mod schema;

use crate::recipe::RewardFunc;
use crate::{Error, Result};
use regex::Regex;
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::time::Duration;

/// A completion and the row that it answers.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// The prompt as the row has it: a text or a list of messages.
    pub prompt: &'a Value,
    pub completion: &'a str,
    /// The completion's tokens, its end token included.
    pub ids: &'a [u32],
    /// The row's columns.
    pub columns: &'a Map<String, Value>,
}

/// The reward functions of a recipe, ready to score.
pub struct Rewards {
    judges: Vec<Judge>,
}

struct Judge {
    name: String,
    weight: f64,
    score: Score,
}

enum Score {
    Exact { column: String },
    Numeric { column: String, tolerance: f64 },
    Pattern(Regex),
    Think,
    Schema(schema::Schema),
    Overlong { max_completion_len: usize, soft_punish_cache: usize },
    Repetition { ngram_size: usize, max_penalty: f64 },
    Program(Box<program::Program>),
}

impl Rewards {
    /// # Errors
    /// A pattern or a schema that cannot be used.
    pub fn new(funcs: &[RewardFunc]) -> Result<Self> {
        let mut judges: Vec<Judge> = Vec::new();
        for func in funcs {
            let base = func.name();
            let same = judges.iter().filter(|j| j.name.split('#').next() == Some(base)).count();
            let name = if same == 0 { base.to_string() } else { format!("{base}#{}", same + 1) };
            judges.push(Judge { name, weight: func.weight(), score: Score::new(func)? });
        }
        Ok(Self { judges })
    }

    /// The functions' names, in the recipe's order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.judges.iter().map(|j| j.name.as_str())
    }

    /// The scores of every answer, one a function, in the recipe's order.
    ///
    /// # Errors
    /// A row without the column that a function compares with; a program that fails twice.
    pub fn score(&mut self, answers: &[Answer]) -> Result<Vec<Vec<f64>>> {
        answers
            .iter()
            .map(|a| self.judges.iter_mut().map(|j| j.score.of(a).map_err(|e| e.at(&j.name))).collect())
            .collect()
    }

    /// The weighted sum of one answer's scores; NaN where no function has anything to say.
    pub fn total(&self, scores: &[f64]) -> f64 {
        if scores.iter().all(|s| s.is_nan()) {
            return f64::NAN;
        }
        scores.iter().zip(&self.judges).filter(|(s, _)| !s.is_nan()).map(|(s, j)| s * j.weight).sum()
    }
}

impl Score {
    fn new(func: &RewardFunc) -> Result<Self> {
        Ok(match func {
            RewardFunc::ExactAnswer { column, .. } => Self::Exact { column: column.clone() },
            RewardFunc::NumericAnswer { column, tolerance, .. } => {
                Self::Numeric { column: column.clone(), tolerance: *tolerance }
            }
            RewardFunc::Regex { pattern, .. } => Self::Pattern(Regex::new(pattern).map_err(|e| {
                Error::usage(format!("the pattern cannot be used: {e}")).at("grpo.reward_funcs, regex")
            })?),
            RewardFunc::ThinkFormat { .. } => Self::Think,
            RewardFunc::JsonSchema { schema, .. } => Self::Schema(schema::Schema::new(schema)?),
            RewardFunc::SoftOverlongPunishment { max_completion_len, soft_punish_cache, .. } => {
                Self::Overlong { max_completion_len: *max_completion_len, soft_punish_cache: *soft_punish_cache }
            }
            RewardFunc::RepetitionPenalty { ngram_size, max_penalty, .. } => {
                Self::Repetition { ngram_size: *ngram_size, max_penalty: *max_penalty }
            }
            RewardFunc::Program { command, timeout_seconds, .. } => Self::Program(Box::new(program::Program::new(
                command.clone(),
                Duration::from_secs_f64(*timeout_seconds),
            ))),
        })
    }

    fn of(&mut self, a: &Answer) -> Result<f64> {
        let yes = |b: bool| Ok(f64::from(u8::from(b)));
        match self {
            Self::Exact { column } => yes(answer::exact(a.completion, &expected(a, column)?)),
            Self::Numeric { column, tolerance } => {
                yes(answer::numeric(a.completion, &expected(a, column)?, *tolerance).ok_or_else(|| {
                    Error::new(format!("the column {column} holds no number: {:?}", a.columns.get(column.as_str())))
                        .next("use exact_answer, or name the column that has the number: column = \"…\"")
                })?)
            }
            Self::Pattern(pattern) => yes(pattern.is_match(a.completion)),
            Self::Think => yes(thinks(a.completion)),
            Self::Schema(schema) => yes(schema.fits(a.completion)),
            Self::Overlong { max_completion_len, soft_punish_cache } => {
                Ok(overlong(a.ids.len(), *max_completion_len, *soft_punish_cache))
            }
            Self::Repetition { ngram_size, max_penalty } => Ok(repeated(a.ids, *ngram_size) * *max_penalty),
            Self::Program(program) => program.score(a),
        }
    }
}

fn expected(a: &Answer, column: &str) -> Result<String> {
    match a.columns.get(column) {
        Some(Value::String(s)) => Ok(s.clone()),
        Some(Value::Number(n)) => Ok(n.to_string()),
        Some(Value::Bool(b)) => Ok(b.to_string()),
        Some(other @ (Value::Array(_) | Value::Object(_))) => Ok(other.to_string()),
        Some(Value::Null) | None => {
            let there: Vec<_> = a.columns.keys().map(String::as_str).collect();
            Err(Error::new(format!("a row has no answer in the column {column}; it has {}", there.join(", ")))
                .next("name the column that has it: { name = \"exact_answer\", column = \"…\" }"))
        }
    }
}

/// TRL's `think_format_reward`: `<think>`, no second one, `</think>`, then anything.
fn thinks(text: &str) -> bool {
    text.strip_prefix("<think>").is_some_and(|rest| !rest.contains("<think>") && rest.contains("</think>"))
}

/// TRL's `get_soft_overlong_punishment` (DAPO, equation 13): 0, then down to -1 over the last `cache` tokens.
fn overlong(tokens: usize, most: usize, cache: usize) -> f64 {
    let free = most.saturating_sub(cache);
    match tokens {
        n if n <= free => 0.0,
        n if n <= most => (free as f64 - n as f64) / cache as f64,
        _ => -1.0,
    }
}

/// TRL's `get_repetition_penalty_reward`, as a share: 1 − distinct n-grams of tokens ÷ n-grams.
fn repeated(ids: &[u32], n: usize) -> f64 {
    let grams: Vec<&[u32]> = ids.windows(n.max(1)).collect();
    if grams.is_empty() {
        return 0.0;
    }
    1.0 - grams.iter().collect::<HashSet<_>>().len() as f64 / grams.len() as f64
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
