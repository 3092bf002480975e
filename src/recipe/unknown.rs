//! What to say about a key or value that a recipe does not have: another tool's name for one it has,
//! something this version does not do, or the nearest key.

use super::schema::{self, SECTIONS};

/// Known elsewhere and without a counterpart here; the sentence says what there is.
const NOT_HERE: &[(&[&str], &str)] = &[
    (
        &["load_in_8bit", "bnb_4bit_quant_type", "bnb_4bit_compute_dtype", "quantization_config"],
        "weights are held in f32 on the CPU, in bf16 on a card, and as NF4 on both with model.load_in_4bit; remove it",
    ),
    (
        &["bf16", "fp16", "tf32", "dtype", "torch_dtype", "mixed_precision", "pure_bf16"],
        "it computes in f32 on the CPU and in bf16 on a card; remove it",
    ),
    (
        &["ref_model", "orpo_alpha", "simpo_gamma"],
        "the methods here are sft, cpt, dpo and grpo, and the reference is the policy before the first step; remove it",
    ),
    (&["max_prompt_length"], "a prompt may take what model.max_seq_length leaves; remove it"),
    (
        &["use_vllm", "vllm_mode", "steps_per_generation", "generation_batch_size"],
        "a step draws batch × accumulation completions, then trains on them; remove it",
    ),
    (
        &[
            "init_lora_weights",
            "loraplus_lr_ratio",
            "layers_pattern",
            "rank_pattern",
            "alpha_pattern",
            "bias",
            "ensure_weight_tying",
        ],
        "one rank and scale for all layers, fresh adapters with B = 0, no biases, and a head that is the embedding stays it; remove it",
    ),
    (
        &[
            "report_to",
            "wandb_project",
            "logging_dir",
            "use_wandb",
            "wandb_entity",
            "plot_loss",
            "mlflow_experiment_name",
        ],
        "every step is in the run folder's events.jsonl; remove it",
    ),
    (
        &[
            "deepspeed",
            "fsdp",
            "fsdp_config",
            "ddp_find_unused_parameters",
            "ddp_timeout",
            "world_size",
            "num_processes",
        ],
        "a run is one process here; remove it",
    ),
    (&["push_to_hub", "hub_model_id", "hub_token", "hub_strategy"], "nothing is uploaded; remove it"),
    (
        &[
            "padding",
            "padding_side",
            "pad_to_sequence_len",
            "group_by_length",
            "pad_to_multiple_of",
            "padding_free",
            "remove_padding",
        ],
        "there is no padding here: sequences are laid end to end; remove it",
    ),
    (
        &[
            "use_liger_kernel",
            "attn_implementation",
            "flash_attention",
            "flash_attn",
            "torch_compile",
            "use_cce",
            "sdp_attention",
            "enable_liger_kernel",
            "xformers_attention",
        ],
        "there is one implementation of every operation here; remove it",
    ),
    (
        &[
            "dataloader_num_workers",
            "dataset_num_proc",
            "preprocessing_num_workers",
            "num_proc",
            "dataset_processes",
            "dataloader_pin_memory",
        ],
        "rows are tokenized on all cores and the tokens kept for the next run; remove it",
    ),
    (
        &["overwrite_output_dir", "resume_from_checkpoint", "auto_resume_from_checkpoints"],
        "every run has a folder of its own, and finetop train --resume RUN goes on from one; remove it",
    ),
    (&["trust_remote_code"], "no code of a model is run; remove it"),
];

/// Known elsewhere and spelled in another way here.
const OTHERWISE: &[(&[&str], &str)] = &[
    (
        &["train_on_responses_only", "train_on_inputs", "train_on_prompt", "roles_to_train", "train_on_eos"],
        "here it is train.assistant_only_loss (every assistant turn) or train.completion_only_loss (the last one)",
    ),
    (
        &["eval_strategy", "evaluation_strategy", "do_eval", "eval_on_start"],
        "here it is train.eval_steps; an evaluation before the first step and at the end is always made",
    ),
    (
        &["save_strategy", "load_best_model_at_end"],
        "here it is train.save_steps; the best by eval and the final one are always kept",
    ),
    (&["logging_strategy"], "here it is train.logging_steps"),
    (
        &["finetuning_type", "use_peft", "peft_type", "tuner_type"],
        "here a [lora] table makes it LoRA; without one it is full fine-tuning",
    ),
    (
        &["effective_batch_size", "global_batch_size", "total_batch_size"],
        "here it is train.per_device_train_batch_size × train.gradient_accumulation_steps",
    ),
    (&["do_train", "do_predict"], "here it is the command: finetop train RECIPE, finetop eval RUN"),
];

/// Tables of other tools.
const TABLES: &[(&[&str], &str)] = &[
    (&["peft", "peft_config", "lora_config", "adapter"], "lora"),
    (&["training", "training_args", "trainer", "sft_config", "training_arguments", "optimizer", "args"], "train"),
    (&["dataset", "datasets", "train_data"], "data"),
    (&["sampling", "generation", "generation_config", "samples", "inference"], "sample"),
    (&["base_model", "tokenizer"], "model"),
    (&["save", "saving", "output", "gguf", "ollama"], "export"),
    (&["checks", "preflight"], "check"),
];

fn plain(name: &str) -> String {
    name.trim().to_lowercase().replace('-', "_")
}

fn find<'a>(table: &'a [(&[&str], &'a str)], name: &str) -> Option<&'a str> {
    table.iter().find(|(names, _)| names.contains(&name)).map(|(_, answer)| *answer)
}

/// Whether writing `value` for a key that does not exist here asks for what happens anyway.
pub fn asks_for_nothing(key: &str, value: &str) -> bool {
    let leaf = plain(key.rsplit('.').next().unwrap_or(key));
    let named = find(NOT_HERE, &leaf).is_some();
    named && matches!(value.trim(), "false" | "\"none\"" | "\"no\"" | "[]")
}

/// What to do about the unknown key `path`.
pub fn key(path: &str) -> String {
    let path = plain(path);
    let leaf = path.rsplit('.').next().unwrap_or(&path);
    if let Some(sentence) = find(NOT_HERE, leaf).or_else(|| find(OTHERWISE, leaf)) {
        return sentence.to_string();
    }
    let section = path.split_once('.').map_or("", |(s, _)| s);
    let named = |e: &&schema::Entry| e.other_names.contains(&leaf);
    let same_section = schema::entries().find(|e| e.section() == section && named(e));
    if let Some(e) =
        same_section.or_else(|| schema::entries().find(|e| e.leaf() == leaf)).or_else(|| schema::entries().find(named))
    {
        return format!("here it is {}", e.key);
    }
    let near = nearest(leaf, schema::entries().filter(|e| e.section() == section).map(|e| e.leaf()))
        .and_then(|leaf| schema::entries().find(|e| e.section() == section && e.leaf() == leaf))
        .or_else(|| nearest(&path, schema::entries().map(|e| e.key)).and_then(schema::entry))
        .or_else(|| {
            nearest(leaf, schema::entries().map(|e| e.leaf())).and_then(|l| schema::entries().find(|e| e.leaf() == l))
        });
    match near {
        Some(e) => format!("the nearest is {}", e.key),
        None => {
            let keys: Vec<_> = schema::entries().filter(|e| e.section() == section).map(|e| e.leaf()).collect();
            let place = if section.is_empty() { "before the first table".to_string() } else { format!("[{section}]") };
            if keys.is_empty() { tables() } else { format!("{place} has {}", keys.join(", ")) }
        }
    }
}

/// What to do about the unknown table `name`, if its name says it.
pub fn table(name: &str) -> Option<String> {
    let name = plain(name);
    if let Some(sentence) = find(NOT_HERE, &name) {
        return Some(sentence.to_string());
    }
    if let Some(section) = find(TABLES, &name) {
        return Some(format!("here it is [{section}]"));
    }
    nearest(&name, SECTIONS.iter().copied()).map(|near| format!("the nearest is [{near}]"))
}

/// The tables there are.
pub fn tables() -> String {
    let list: Vec<_> = SECTIONS.iter().map(|s| format!("[{s}]")).collect();
    format!("the tables are {}", list.join(", "))
}

/// What to do about a value that another tool, or a later version, has for `key`.
pub fn value(key: &str, value: &str) -> Option<String> {
    let value = plain(value);
    match (key, value.as_str()) {
        ("method", "orpo" | "simpo" | "kto" | "ppo" | "rm" | "rl" | "reward") => Some(
            "this version trains sft (pairs and chats), cpt (plain text), dpo (preferences) and grpo (rewards)".into(),
        ),
        ("method", "pt" | "pretrain" | "pretraining" | "completion" | "clm") => Some("here it is \"cpt\"".into()),
        ("method", "instruct" | "chat" | "instruction" | "full" | "lora" | "qlora") => {
            Some("here it is \"sft\"; a [lora] table makes it LoRA".into())
        }
        ("model.device", v) if v.starts_with("gpu") => {
            Some("here it is \"cuda\", or \"cuda:N\" for another card".into())
        }
        ("model.device", "mps" | "metal" | "rocm" | "xpu") => Some("it trains on NVIDIA cards and on the CPU".into()),
        ("train.optim", v) if v.ends_with("8bit") => Some("here it is \"adamw_8bit\"".into()),
        ("train.optim", _) => Some("here it is \"adamw_torch\", or \"adamw_8bit\" with its moments in 8 bits".into()),
        ("train.lr_scheduler_type", "wsd" | "warmup_stable") => Some("here it is \"warmup_stable_decay\"".into()),
        ("train.lr_scheduler_type", "cosine_with_min_lr" | "inverse_sqrt" | "reduce_lr_on_plateau") => {
            Some("near to it are polynomial (with its lr_end) and warmup_stable_decay (with its min_lr_ratio)".into())
        }
        ("train.gradient_checkpointing", "unsloth" | "true" | "on") => Some("here it is \"full\"".into()),
        ("train.gradient_checkpointing", "false" | "none" | "no") => Some("here it is \"off\"".into()),
        ("data.format", "chatml" | "openai" | "chat" | "conversation") => Some("here it is \"messages\"".into()),
        ("data.format", "completion" | "raw" | "pretrain") => Some("here it is \"text\"".into()),
        ("data.format", "instruction" | "instruct") => Some("here it is \"alpaca\"".into()),
        _ => None,
    }
}

/// The most alike of `names`, if one is alike enough to be a slip of the pen.
pub fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = names
        .map(|n| (strsim::normalized_damerau_levenshtein(name, n).max(0.97 * strsim::jaro_winkler(name, n) - 0.15), n));
    scored.filter(|(score, _)| *score >= 0.65).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, n)| n)
}
