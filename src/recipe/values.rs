//! The values of a recipe, all defaults filled in. Names are the field's own; see [`super::schema`].

use super::modules::TargetModules;
use super::rewards::RewardFunc;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    Sft,
    Cpt,
    Dpo,
    Grpo,
}

impl Method {
    /// As a recipe spells it.
    pub fn name(self) -> &'static str {
        match self {
            Method::Sft => "sft",
            Method::Cpt => "cpt",
            Method::Dpo => "dpo",
            Method::Grpo => "grpo",
        }
    }
}

/// A whole recipe, resolved: nothing in it is left to a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    pub method: Method,
    pub run_name: String,
    pub output_dir: PathBuf,
    pub model: ModelSection,
    /// Without it: full fine-tuning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraSection>,
    pub data: DataSection,
    pub train: TrainSection,
    /// With method dpo, and only then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dpo: Option<DpoSection>,
    /// With method grpo, and only then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpo: Option<GrpoSection>,
    pub sample: SampleSection,
    pub export: ExportSection,
    pub check: CheckSection,
}

impl Recipe {
    /// Whether what trains starts from more than a fresh adapter that says nothing yet: the base's own weights, or a
    /// given adapter's.
    pub fn has_given_start(&self) -> bool {
        self.lora.as_ref().is_none_or(|l| l.adapter_name_or_path.is_some())
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// Folder, `.gguf`, `pypi:PACKAGE`, or `demo`; an existing path wins.
    pub name_or_path: String,
    pub max_seq_length: usize,
    /// A named template, a Jinja string, or a file, in place of the model's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<String>,
    /// Extra variables for the template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_template_kwargs: Option<serde_json::Map<String, serde_json::Value>>,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// NF4, on a card.
    pub load_in_4bit: bool,
    /// e4m3, on a Hopper card.
    pub load_in_fp8: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraSection {
    pub r: usize,
    pub lora_alpha: f64,
    pub lora_dropout: f64,
    pub target_modules: TargetModules,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude_modules: Option<TargetModules>,
    /// Only these layers, counted from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers_to_transform: Option<Vec<usize>>,
    /// Scale by `lora_alpha / √r`.
    pub use_rslora: bool,
    pub use_dora: bool,
    /// `embed_tokens`, `lm_head`: trained whole, and saved in the adapter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modules_to_save: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter_name_or_path: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSection {
    /// Files, folders and data sets of the hub, read in this order.
    pub train: Vec<DataSource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval: Option<Vec<DataSource>>,
    /// Share of the training rows held out for evaluation; 0: none.
    pub eval_fraction: f64,
    /// `auto`, `alpaca`, `prompt_completion`, `messages`, `sharegpt`, `text`, `preference`, `prompt`.
    pub format: String,
    /// The formatting function: templates over the row's columns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<Vec<MessageTemplate>>,
    /// The column of a document, of plain text rows.
    pub text_column: String,
    pub shuffle: bool,
    /// Share of rows that may be bad before the run stops, 0..1.
    pub max_bad_rows: f64,
}

/// Rows to read: a path, `demo`, or `hf:OWNER/NAME`; written as the path alone where nothing else is said.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(from = "SourceForm", into = "SourceForm")]
pub struct DataSource {
    pub path: PathBuf,
    /// Only the files of this split.
    pub split: Option<String>,
    /// Its share of the examples, beside those of the others.
    pub weight: Option<f64>,
    /// In place of `data.format` and `data.messages`.
    pub format: Option<String>,
}

impl<P: Into<PathBuf>> From<P> for DataSource {
    fn from(path: P) -> Self {
        Self { path: path.into(), ..Self::default() }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum SourceForm {
    Path(PathBuf),
    Full {
        path: PathBuf,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        split: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weight: Option<f64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        format: Option<String>,
    },
}

impl From<SourceForm> for DataSource {
    fn from(form: SourceForm) -> Self {
        match form {
            SourceForm::Path(path) => Self { path, ..Self::default() },
            SourceForm::Full { path, split, weight, format } => Self { path, split, weight, format },
        }
    }
}

impl From<DataSource> for SourceForm {
    fn from(source: DataSource) -> Self {
        let DataSource { path, split, weight, format } = source;
        match (&split, weight, &format) {
            (None, None, None) => Self::Path(path),
            _ => Self::Full { path, split, weight, format },
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessageTemplate {
    pub role: String,
    pub content: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainSection {
    pub per_device_train_batch_size: usize,
    pub gradient_accumulation_steps: usize,
    pub per_device_eval_batch_size: usize,
    pub learning_rate: f64,
    /// Of embeddings and lm_head, where these train; `None`: the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_learning_rate: Option<f64>,
    pub num_train_epochs: f64,
    /// Overrides epochs, and wraps over the data; 0: by epochs.
    pub max_steps: u64,
    /// One of [`super::scheduler::NAMES`].
    pub lr_scheduler_type: String,
    /// What it takes besides, by transformers' names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr_scheduler_kwargs: Option<serde_json::Map<String, serde_json::Value>>,
    pub warmup_ratio: f64,
    /// Overrides `warmup_ratio`; 0: by ratio.
    pub warmup_steps: u64,
    pub weight_decay: f64,
    /// 0: no clipping.
    pub max_grad_norm: f64,
    /// `adamw_torch`.
    pub optim: String,
    pub adam_beta1: f64,
    pub adam_beta2: f64,
    pub adam_epsilon: f64,
    /// Noise on the embeddings in training; `None`: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neftune_noise_alpha: Option<f64>,
    pub seed: u64,
    pub packing: bool,
    /// Labels on assistant turns only (chats).
    pub assistant_only_loss: bool,
    /// Labels on the completion only (prompt/completion rows; of a chat the last assistant turn).
    pub completion_only_loss: bool,
    /// `auto`, `full`, `off`.
    pub gradient_checkpointing: String,
    /// 0: only before the first step and at the end.
    pub eval_steps: u64,
    /// 0: only at the end.
    pub save_steps: u64,
    pub save_total_limit: usize,
    pub logging_steps: u64,
    /// Evaluations without improvement before the run ends; 0: off.
    pub early_stopping_patience: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DpoSection {
    pub loss_type: DpoLoss,
    pub beta: f64,
    /// Of `robust`, below 0.5.
    pub label_smoothing: f64,
}

/// TRL's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DpoLoss {
    Sigmoid,
    Hinge,
    Ipo,
    Robust,
    ApoZero,
    ApoDown,
    SigmoidNorm,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrpoSection {
    pub reward_funcs: Vec<RewardFunc>,
    pub num_generations: usize,
    pub max_completion_length: usize,
    pub temperature: f64,
    pub top_p: f64,
    /// 0: off.
    pub top_k: u32,
    /// 0: no reference.
    pub beta: f64,
    pub use_bias_correction_kl: bool,
    pub loss_type: GrpoLoss,
    pub epsilon: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon_high: Option<f64>,
    pub importance_sampling_level: SamplingLevel,
    pub scale_rewards: ScaleRewards,
    pub num_iterations: u64,
    pub mask_truncated_completions: bool,
}

impl GrpoSection {
    pub fn epsilon_high(&self) -> f64 {
        self.epsilon_high.unwrap_or(self.epsilon)
    }
}

/// TRL's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrpoLoss {
    Grpo,
    Bnpo,
    DrGrpo,
    Dapo,
}

/// TRL's `importance_sampling_level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SamplingLevel {
    Token,
    Sequence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScaleRewards {
    Group,
    Batch,
    None,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleSection {
    pub prompts: Vec<Prompt>,
    /// A system message before each prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    pub temperature: f64,
    pub top_p: f64,
    pub top_k: u32,
    pub min_p: f64,
    pub repetition_penalty: f64,
    pub max_new_tokens: u32,
    pub seed: u64,
    pub stop: Vec<String>,
    /// 0: only before the first step and at the end.
    pub every_steps: u64,
}

/// `"…"`, or `{ prompt = "…", expect = "…" }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Prompt {
    Plain(String),
    Scored { prompt: String, expect: String },
}

impl Prompt {
    pub fn text(&self) -> &str {
        match self {
            Prompt::Plain(p) | Prompt::Scored { prompt: p, .. } => p,
        }
    }

    pub fn expect(&self) -> Option<&str> {
        match self {
            Prompt::Plain(_) => None,
            Prompt::Scored { expect, .. } => Some(expect),
        }
    }
}

/// What a run that has finished writes beside its checkpoints, in `export/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportSection {
    /// `none`, `16bit` or `f32`.
    pub merged: String,
    /// As `finetop export --gguf` takes them.
    pub gguf: Vec<String>,
    /// The adapter alone, as a GGUF.
    pub lora: bool,
    /// The model of Ollama's to make.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ollama: Option<String>,
}

impl ExportSection {
    /// Whether anything is asked for.
    pub fn asks(&self) -> bool {
        self.merged != "none" || self.lora || !self.gguf.is_empty()
    }
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckSection {
    /// Rules whose block is overridden; the run records it.
    pub allow: Vec<String>,
}
