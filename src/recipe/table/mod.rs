//! The entries of the schema, a file for the long sections. Data only.

mod dpo;
mod export;
mod grpo;
mod sample;
mod train;

pub(super) use dpo::DPO;
pub(super) use export::EXPORT;
pub use export::TYPES;
pub(super) use grpo::GRPO;
pub(super) use sample::{CHECK, SAMPLE};
pub(super) use train::TRAIN;

use super::schema::{Basis, Bounds, Default::*, Entry, Type::*};
use super::values::Method;

/// The seven linear layers of a Llama-style block, as PEFT's `target_modules` names them.
pub const LINEAR: &[&str] = &["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
/// Phi-3 has these in place of q, k, v and of gate, up.
pub const FUSED: &[&str] = &["qkv_proj", "gate_up_proj"];
/// All of both.
pub(super) const MODULES: &[&str] =
    &["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "qkv_proj", "gate_up_proj"];

pub(super) const ROOT: &[Entry] = &[
    Entry::new(
        "method",
        Choice(&["sft", "cpt", "dpo", "grpo"]),
        Is("\"sft\""),
        "sft learns from pairs and chats, cpt from plain text, dpo from a better and a worse answer, grpo from rewards.",
    )
    .guide("Which method for which goal")
    .names(&["stage", "trainer", "rl", "training_type", "task_type"]),
    Entry::new("run_name", Name, FileStem, "Names the run's folder and its titles; by default the recipe's file name.")
        .names(&["name", "experiment_name", "wandb_run_name", "wandb_name"]),
    Entry::new("output_dir", Path, Is("\"runs\""), "The folder that run folders are made in.").names(&[
        "output_path",
        "save_dir",
        "output_directory",
        "checkpoint_dir",
    ]),
];

pub(super) const MODEL: &[Entry] = &[
    Entry::new(
        "model.name_or_path",
        Model,
        Required,
        "What is trained: a folder, a .gguf file, a hub id (OWNER/NAME), ollama:NAME, pypi:PACKAGE, or demo; an existing path wins.",
    )
    .names(&[
        "model_name_or_path",
        "model_name",
        "model",
        "base_model",
        "model_id",
        "pretrained_model_name_or_path",
        "model_path",
        "path",
    ]),
    Entry::new(
        "model.max_seq_length",
        Integer(2, 1_048_576),
        Is("2048"),
        "Longer rows are cut here, and the share that was cut is shown.",
    )
    .unit("tokens")
    .names(&[
        "max_length",
        "cutoff_len",
        "sequence_len",
        "max_len",
        "seq_length",
        "seq_len",
        "block_size",
        "model_max_length",
        "context_length",
        "n_ctx",
    ]),
    Entry::new(
        "model.chat_template",
        Template,
        Absent,
        "A template in place of the model's own; the model's own is nearly always right.",
    )
    .guide("template mismatch")
    .names(&["template", "chat_template_path", "chat_template_jinja", "custom_chat_template", "prompt_template"]),
    Entry::new(
        "model.chat_template_kwargs",
        Table,
        Absent,
        "Extra variables for the template, such as enable_thinking.",
    )
    .names(&["template_kwargs"]),
    Entry::new(
        "model.device",
        Choice(&[
            "auto", "cpu", "cuda", "cuda:0", "cuda:1", "cuda:2", "cuda:3", "cuda:4", "cuda:5", "cuda:6", "cuda:7",
        ]),
        Is("\"auto\""),
        "Where it trains; auto takes the first NVIDIA card that can do it, else the CPU.",
    )
    .names(&["device_map", "use_cpu", "no_cuda"]),
    Entry::new(
        "model.load_in_4bit",
        Bool,
        Is("false"),
        "QLoRA: hold the frozen matrices as NF4 with double quantization, as bitsandbytes does.",
    )
    .names(&["quantization_bit", "qlora"]),
    Entry::new(
        "model.load_in_fp8",
        Bool,
        Is("false"),
        "Hold the frozen matrices as e4m3 and multiply in fp8, on a Hopper card: faster, a little less exact.",
    )
    .names(&["fp8"]),
];

pub(super) const LORA: &[Entry] = &[
    Entry::new("lora.r", Integer(1, 4096), Is("16"), "Rank: start at 16 and raise it only if that falls short.")
        .guide("Rank")
        .names(&["lora_rank", "lora_r", "rank", "lora_dim"]),
    Entry::new(
        "lora.lora_alpha",
        Float(Bounds::above(0.0, 65_536.0)),
        Is("16"),
        "The adapter is scaled by lora_alpha / r; r or 2r is usual.",
    )
    .guide("Rank")
    .names(&["alpha", "lora_scale"]),
    Entry::new(
        "lora.lora_dropout",
        Float(Bounds::below(0.0, 1.0)),
        Is("0.0"),
        "Share of the adapter's inputs dropped; 0, or 0.1 if it overfits.",
    )
    .guide("Rank")
    .names(&["dropout"]),
    Entry::new(
        "lora.target_modules",
        Modules(MODULES),
        Is("\"all-linear\""),
        "The linear layers that get an adapter; all serve best.",
    )
    .guide("Rank")
    .names(&["lora_target", "lora_target_modules", "lora_target_linear", "lora_modules", "lora_layers"]),
    Entry::new(
        "lora.exclude_modules",
        Modules(MODULES),
        Absent,
        "Linear layers left out of target_modules: names, path endings, or a regular expression.",
    )
    .names(&["lora_exclude_modules"]),
    Entry::new(
        "lora.layers_to_transform",
        Layers,
        Absent,
        "Adapters in these layers only, counted from 0; fewer layers learn less and take less memory.",
    )
    .names(&["peft_layers_to_transform", "lora_layers_to_transform", "num_layers"]),
    Entry::new(
        "lora.use_rslora",
        Bool,
        Is("false"),
        "Scale by lora_alpha / √r in place of lora_alpha / r: ranks of 64 and more learn as fast as small ones.",
    )
    .names(&["rslora", "peft_use_rslora"])
    .aside(),
    Entry::new(
        "lora.use_dora",
        Bool,
        Is("false"),
        "Train each row's length apart from its direction: a little better at small ranks, slower; llama.cpp cannot load it unmerged.",
    )
    .names(&["dora", "peft_use_dora"])
    .aside(),
    Entry::new(
        "lora.modules_to_save",
        Parts(&["embed_tokens", "lm_head"]),
        Absent,
        "Trained whole beside the adapters, and saved with them: for new knowledge or a new language, with method cpt.",
    )
    .names(&["lora_modules_to_save", "additional_target", "peft_modules_to_save"]),
    Entry::new(
        "lora.adapter_name_or_path",
        Path,
        Absent,
        "Start from this PEFT adapter; r, lora_alpha and target_modules are then its own.",
    )
    .names(&["lora_model_dir", "adapter_path", "resume_adapter", "adapter_name", "peft_model_id", "adapter"]),
];

/// One default for a method, another for all others.
fn of_method(basis: Basis, method: Method, its: &'static str, others: &'static str) -> &'static str {
    if basis.method == method { its } else { others }
}

pub(super) const DATA: &[Entry] = &[
    Entry::new(
        "data.train",
        Sources,
        Required,
        "Rows to learn from: a file, a folder, a data set of the hub, or a list of these, mixed by weight where they have one.",
    )
    .names(&[
        "train_file",
        "dataset",
        "datasets",
        "dataset_name",
        "data_path",
        "train_data",
        "data_files",
        "train_dataset",
        "dataset_path",
        "dataset_dir",
    ]),
    Entry::new("data.eval", Sources, Absent, "Rows held out for evaluation; none unless asked for.").names(&[
        "eval_dataset",
        "validation_file",
        "eval_file",
        "test_datasets",
        "validation",
        "eval_data",
        "val_data",
        "eval_path",
    ]),
    Entry::new(
        "data.eval_fraction",
        Float(Bounds::below(0.0, 1.0)),
        Is("0.0"),
        "Share of the training rows held out for evaluation instead of data.eval; 0: none.",
    )
    .unit("share")
    .names(&[
        "val_size",
        "val_set_size",
        "test_size",
        "validation_split",
        "eval_split",
        "eval_size",
        "validation_split_percentage",
    ]),
    Entry::new(
        "data.format",
        Choice(&["auto", "alpaca", "prompt_completion", "messages", "sharegpt", "text", "preference", "prompt"]),
        Is("\"auto\""),
        "What the columns mean; auto finds it from their names and shows it.",
    )
    .names(&["formatting", "dataset_format", "dataset_type", "type", "ds_type"]),
    Entry::new(
        "data.messages",
        Messages,
        Absent,
        "The formatting function: templates over the row's columns, one a message.",
    )
    .names(&["formatting_func", "prompt_template_func", "field_messages", "columns"]),
    Entry::new(
        "data.text_column",
        Text,
        Is("\"text\""),
        "The column that holds a document, of plain text rows.",
    )
    .names(&["dataset_text_field", "text_field", "field", "text_key", "content_field"])
    .aside(),
    Entry::new(
        "data.shuffle",
        Bool,
        Is("true"),
        "Rows in an order drawn from the seed; false keeps the order of the files.",
    )
    .names(&["shuffle_dataset", "disable_shuffling", "shuffle_merged_datasets", "shuffle_data"]),
    Entry::new(
        "data.max_bad_rows",
        Float(Bounds::new(0.0, 1.0)),
        Is("0.01"),
        "Share of rows that may be unreadable before the run refuses to start; each is reported.",
    )
    .unit("share")
    .names(&["max_bad_row_share", "skip_bad_rows"]),
];
