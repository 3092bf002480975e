//! What reading and tokenizing found: for `finetop check`, for events, for the eye.

use super::bad::BadRow;
use super::format::Format;
use super::mask::MaskMethod;
use super::read::Source;
use serde::{Deserialize, Serialize};

/// Rows by how their labels were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MaskCounts {
    pub all: u64,
    pub prefix: u64,
    pub marks: u64,
    pub turn_by_turn: u64,
    pub completion: u64,
    pub parted: u64,
    #[serde(default)]
    pub prompt: u64,
}

impl MaskCounts {
    pub fn add(&mut self, method: MaskMethod) {
        *match method {
            MaskMethod::All => &mut self.all,
            MaskMethod::Prefix => &mut self.prefix,
            MaskMethod::Marks => &mut self.marks,
            MaskMethod::TurnByTurn => &mut self.turn_by_turn,
            MaskMethod::Completion => &mut self.completion,
            MaskMethod::Parted => &mut self.parted,
            MaskMethod::Prompt => &mut self.prompt,
        } += 1;
    }

    /// Those of other rows too.
    pub fn merge(&mut self, other: &Self) {
        self.all += other.all;
        self.prefix += other.prefix;
        self.marks += other.marks;
        self.turn_by_turn += other.turn_by_turn;
        self.completion += other.completion;
        self.parted += other.parted;
    }

    /// How labels were found, and for how many rows, in words.
    pub fn words(&self) -> String {
        let parts = [
            (self.all, "every token is a label"),
            (self.prefix, "assistant turns, by rendering up to each"),
            (self.marks, "assistant turns, by the template's generation marks"),
            (self.turn_by_turn, "each assistant turn as an example of its own, as earlier turns render otherwise"),
            (self.completion, "the completion, after the prompt's tokens"),
            (self.parted, "from where the text parts from its own prompt, which the template renders otherwise"),
            (self.prompt, "a prompt, and what is drawn after it"),
        ];
        let said: Vec<_> = parts
            .iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, what)| format!("{what}: {n} {}", if *n == 1 { "row" } else { "rows" }))
            .collect();
        said.join("; ")
    }
}

/// What was found in one data set (`data.train`, or `data.eval`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub format: Format,
    /// How the format was found.
    pub why: String,
    pub sources: Vec<Source>,
    /// Rows read, bad ones included.
    pub rows: u64,
    pub bad: u64,
    /// The first of them, at most [`LISTED`].
    pub bad_rows: Vec<BadRow>,
    /// Examples to train on or to evaluate; a row can give several (turn by turn, blocks), or none.
    pub examples: u64,
    /// Rows held out of these for evaluation, by `data.eval_fraction`.
    pub held_out_rows: u64,
    pub held_out_examples: u64,
    /// Rows cut at `max_seq_length`.
    pub truncated: u64,
    /// Rows left out because every label was cut off, and the first of their numbers.
    pub masked_out: u64,
    pub masked_out_rows: Vec<u32>,
    pub mask: MaskCounts,
    /// These four over all examples, the held-out ones included.
    pub tokens: u64,
    pub label_tokens: u64,
    pub longest: u64,
    pub mean_length: f64,
    /// Rows that repeat an earlier one, case, spacing and punctuation set aside.
    pub duplicates: u64,
    /// Evaluation rows that also stand among the training rows.
    pub eval_rows_in_train: u64,
    /// Where the sources have weights: what an epoch sees of each.
    #[serde(default)]
    pub mixture: Vec<super::mix::Share>,
    /// Whatever else a person should know, one sentence each.
    pub notes: Vec<String>,
    /// Whether the tokens came from the cache.
    pub from_cache: bool,
}

/// How many bad or masked-out rows a summary lists.
pub const LISTED: usize = 100;

impl Summary {
    /// Share of tokens that are labels, 0..1.
    pub fn label_share(&self) -> f64 {
        self.label_tokens as f64 / (self.tokens.max(1)) as f64
    }

    /// Share of rows cut at `max_seq_length`, 0..1.
    pub fn truncated_share(&self) -> f64 {
        self.truncated as f64 / self.rows.saturating_sub(self.bad).max(1) as f64
    }
}
