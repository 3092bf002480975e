//! What a run says: one JSON object a line in `events.jsonl`, append-only, a schema version first.
//!
//! Every number that may be non-finite is written as `null` and read back as NaN.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The version in the first line of every `events.jsonl`.
pub const SCHEMA_VERSION: u32 = 1;

/// What a method measures, by TRL's names: `rewards/margins`, `entropy`.
pub type Metrics = BTreeMap<String, f64>;

/// One line of `events.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Unix time in seconds.
    pub time: f64,
    /// The optimizer step this belongs to: 0 before the first, N after the N-th.
    pub step: u64,
    #[serde(flatten)]
    pub body: Body,
}

/// What the event says, by its `type`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Body {
    /// First line of the file.
    Schema {
        version: u32,
        program: String,
    },
    /// The facts of this run, known once data and model are loaded; again after a resume.
    Start(Box<Start>),
    Step(Step),
    Eval(Eval),
    Sample(Sample),
    Completions(Completions),
    Finding(Finding),
    Memory(Memory),
    Checkpoint(Checkpoint),
    Change(Change),
    State(State),
}

/// The facts of a run. Later events refer to them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Start {
    pub run_name: String,
    pub method: String,
    /// As a person would say it: `qlora r16`, `lora r16`, `full`.
    pub tuning: String,
    /// Short model name for titles: `SmolLM2-135M-Instruct`.
    pub model: String,
    /// `cpu` or `cuda:0`, and the device in words: `AMD EPYC, 2 threads`.
    pub device: String,
    pub device_name: String,
    /// Of a card, as NVML and CUDA both spell it; their orders of cards may differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_uuid: Option<String>,
    pub host: String,
    pub total_steps: u64,
    pub steps_per_epoch: f64,
    pub num_train_epochs: f64,
    pub train_rows: u64,
    pub eval_rows: u64,
    /// Share of rows cut at `max_seq_length`, 0..1.
    pub truncated_share: f64,
    pub trainable_parameters: u64,
    pub total_parameters: u64,
    pub effective_batch: u64,
    /// The files of rows that were trained on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<DataFile>,
    /// What preflight found to be well: (rule, title, evidence).
    pub passed: Vec<(String, String, String)>,
    /// 0 for a fresh start, else the step resumed from; steps after it count anew.
    pub resumed_from: u64,
    /// Whether this is the built-in demo (the console then shows its hint line).
    pub demo: bool,
}

/// A file of rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    pub path: String,
    pub rows: u64,
    /// Hash of its contents, hexadecimal.
    pub blake3: String,
}

/// One optimizer step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    #[serde(with = "number")]
    pub loss: f64,
    /// L2 norm over all trainables, before clipping.
    #[serde(with = "number")]
    pub grad_norm: f64,
    /// The learning rate that this step used.
    pub learning_rate: f64,
    pub epoch: f64,
    /// Tokens seen since the start of the run (padding never counts: there is none).
    pub tokens: u64,
    pub label_tokens: u64,
    pub tokens_per_second: f64,
    pub seconds: f64,
    /// Row numbers (0-based, in reading order) of the effective batch.
    pub rows: Vec<u32>,
    /// What the method measures besides, by TRL's names; only finite numbers.
    #[serde(default, skip_serializing_if = "Metrics::is_empty")]
    pub metrics: Metrics,
}

/// One evaluation over the held-out rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Eval {
    #[serde(with = "number")]
    pub loss: f64,
    #[serde(with = "number")]
    pub perplexity: f64,
    pub label_tokens: u64,
    pub seconds: f64,
    /// Whether this is the lowest loss so far (of GRPO: the highest reward).
    pub best: bool,
    #[serde(default, skip_serializing_if = "Metrics::is_empty")]
    pub metrics: Metrics,
}

/// One completion drawn from the model as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Index among the recipe's prompts; `None` for a prompt typed in the console.
    pub index: Option<u32>,
    pub prompt: String,
    pub text: String,
    pub settings: SampleSettings,
    /// `stop` (an end token), `stop_string` or `length`.
    pub stop_reason: String,
    pub tokens: u32,
    pub expect: Option<String>,
    /// 1 where the text equals what was expected, else 0; absent without `expect`.
    pub score: Option<f64>,
    /// Share of repeated 4-grams in the text, 0..1.
    pub repetition: f64,
    /// Drawn by a person's key rather than by the recipe's interval.
    pub on_demand: bool,
}

/// One prompt's completions in a step of GRPO, as they were drawn and scored.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Completions {
    /// Row number (0-based, in reading order).
    pub row: u32,
    /// The prompt's last message, or its text.
    pub prompt: String,
    /// The row's `answer`, where it has one.
    pub answer: Option<String>,
    /// The reward functions, in the order of the scores.
    pub functions: Vec<String>,
    pub list: Vec<Scored>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Scored {
    pub text: String,
    pub tokens: u32,
    /// Cut off before it ended.
    pub truncated: bool,
    /// The weighted sum of its scores; none where no function had anything to say.
    pub reward: Option<f64>,
    pub scores: Vec<Option<f64>>,
    pub advantage: f64,
}

/// How samples are drawn. `temperature` 0 is greedy; `top_k` 0 and `min_p` 0 are off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleSettings {
    pub temperature: f64,
    pub top_p: f64,
    pub top_k: u32,
    pub min_p: f64,
    pub repetition_penalty: f64,
    pub max_new_tokens: u32,
    pub seed: u64,
}

impl Default for SampleSettings {
    fn default() -> Self {
        Self {
            temperature: 0.7,
            top_p: 0.9,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.1,
            max_new_tokens: 128,
            seed: 3407,
        }
    }
}

impl From<&crate::recipe::SampleSection> for SampleSettings {
    fn from(s: &crate::recipe::SampleSection) -> Self {
        Self {
            temperature: s.temperature,
            top_p: s.top_p,
            top_k: s.top_k,
            min_p: s.min_p,
            repetition_penalty: s.repetition_penalty,
            max_new_tokens: s.max_new_tokens,
            seed: s.seed,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// A check that holds; shown with ✓.
    Passed,
    Note,
    Warning,
    Error,
}

/// A diagnosis: what was seen, what it cites, what mends it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable name, as in `check.allow`: `overfitting`, `stalled_loss`, …
    pub rule: String,
    pub severity: Severity,
    /// One line: `eval stopped improving`.
    pub title: String,
    /// Figures that a person can check.
    pub evidence: String,
    /// Likeliest cause, one line; may be empty.
    pub cause: String,
    pub fix: Option<Fix>,
    /// The step since which it holds.
    pub since: u64,
    /// Set when an earlier finding of this rule no longer holds.
    pub resolved: bool,
    /// Where in the guidance the rule and its numbers come from.
    pub source: String,
}

/// What mends a finding: a recipe diff, and what the trainer can do about it now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fix {
    /// In the console, after `a`: `back to step 60 and stop`.
    pub label: String,
    /// Recipe keys and their new values, as TOML text.
    pub set: Vec<(String, String)>,
    pub action: FixAction,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum FixAction {
    /// Only the recipe diff: for the next run.
    Recipe,
    /// Load the checkpoint of `step`; then stop, or go on from it.
    RollBack {
        step: u64,
        stop: bool,
    },
    /// Start a new run from the checkpoint of `step`, with the diff applied.
    Branch {
        step: u64,
    },
    Stop,
}

/// Memory by component, in bytes: predicted and measured side by side.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Memory {
    pub components: Vec<Component>,
    /// What the process holds (resident set on the CPU, device memory on a card).
    pub used: Option<u64>,
    pub peak: Option<u64>,
    /// Size of the device's (or the cgroup's, or the host's) memory.
    pub total: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Component {
    pub name: String,
    pub estimate: Option<u64>,
    pub measured: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Relative to the run folder: `checkpoints/step-200`.
    pub path: String,
    pub bytes: u64,
    pub seconds: f64,
    /// Kept because it is the best by eval, or the final one.
    pub best: bool,
    pub last: bool,
}

/// The checkpoints that are left where at most `limit` are kept (0: all): the best and the last, even beyond the limit,
/// then the newest. `all` ascends; so does the answer.
pub fn kept_checkpoints(all: &[u64], limit: usize, best: Option<u64>, last: Option<u64>) -> Vec<u64> {
    if limit == 0 || all.len() <= limit {
        return all.to_vec();
    }
    let last = last.or(all.last().copied());
    let mut keep: BTreeSet<u64> = [best, last].into_iter().flatten().filter(|s| all.contains(s)).collect();
    for &step in all.iter().rev() {
        if keep.len() >= limit {
            break;
        }
        keep.insert(step);
    }
    keep.into_iter().collect()
}

/// Something altered while the run goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Recipe key: `train.learning_rate`; or `roll_back`, `branch`.
    pub key: String,
    pub from: String,
    pub to: String,
    /// `you`, or the rule whose fix it was.
    pub by: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub state: RunState,
    /// Why, in words; empty where the state says it all.
    pub why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Loading, tokenizing; `why` says what.
    Preparing,
    Running,
    Paused,
    Finished,
    /// Ended on purpose before its last step, with a checkpoint.
    Stopped,
    Failed,
}

/// Non-finite numbers as `null` and back as NaN: JSON has no word for them.
pub mod number {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(v: &f64, s: S) -> Result<S::Ok, S::Error> {
        if v.is_finite() { s.serialize_f64(*v) } else { s.serialize_none() }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
        Ok(Option::<f64>::deserialize(d)?.unwrap_or(f64::NAN))
    }
}
