//! `[train]`: named as transformers' `TrainingArguments` and TRL's `SFTConfig` name them.

use super::of_method;
use crate::recipe::scheduler::NAMES;
use crate::recipe::schema::{Basis, Bounds, Default::*, Entry, Type::*};
use crate::recipe::values::Method;

/// Within the guidance's ranges: LoRA wants about ten times the full fine-tuning rate, CPT with LoRA 5e-5; DPO and GRPO far less.
fn learning_rate(basis: Basis) -> &'static str {
    match (basis.lora, basis.method) {
        (true, Method::Sft) => "2e-4",
        (true, Method::Cpt) => "5e-5",
        (true, Method::Dpo) => "5e-6",
        (true, Method::Grpo) => "1e-5",
        (false, Method::Dpo | Method::Grpo) => "1e-6",
        (false, _) => "2e-5",
    }
}

pub(in crate::recipe) const TRAIN: &[Entry] = &[
    Entry::new(
        "train.per_device_train_batch_size",
        Integer(1, 65_536),
        Is("4"),
        "Sequences a forward pass; what memory allows.",
    )
    .guide("effective batch")
    .unit("sequences")
    .names(&["micro_batch_size", "batch_size", "train_batch_size", "per_gpu_train_batch_size", "mini_batch_size"]),
    Entry::new(
        "train.gradient_accumulation_steps",
        Integer(1, 65_536),
        Is("4"),
        "Forward passes an optimizer step: effective batch = batch × accumulation.",
    )
    .guide("effective batch")
    .names(&[
        "gradient_accumulation",
        "grad_accum",
        "accumulation_steps",
        "accumulate_grad_batches",
        "grad_accumulation_steps",
    ]),
    Entry::new(
        "train.per_device_eval_batch_size",
        Integer(1, 65_536),
        Is("4"),
        "Sequences a forward pass in evaluation.",
    )
    .unit("sequences")
    .names(&["eval_batch_size", "per_gpu_eval_batch_size"]),
    Entry::new(
        "train.learning_rate",
        Float(Bounds::above(0.0, 1.0)),
        By(learning_rate),
        "The peak rate; LoRA needs about ten times the full fine-tuning rate.",
    )
    .guide("learning rate")
    .names(&["lr", "max_lr", "base_lr", "peak_lr"])
    .live(),
    Entry::new(
        "train.embedding_learning_rate",
        Float(Bounds::above(0.0, 1.0)),
        Absent,
        "The rate of embeddings and lm_head where these train (lora.modules_to_save): a tenth to a half of learning_rate; without it, the same.",
    )
    .names(&["embedding_lr", "embeddings_learning_rate"]),
    Entry::new(
        "train.num_train_epochs",
        Float(Bounds::above(0.0, 10_000.0)),
        Is("1"),
        "Passes over the rows; more rows want fewer.",
    )
    .guide("Epochs")
    .unit("epochs")
    .names(&["num_epochs", "epochs", "max_epochs", "n_epochs"]),
    Entry::new(
        "train.max_steps",
        Integer(0, 1_000_000_000),
        Is("0"),
        "Optimizer steps in place of epochs, wrapping over the rows; 0: by epochs.",
    )
    .unit("steps")
    .names(&["max_train_steps", "num_steps", "total_steps", "iters", "max_iters", "train_steps"])
    .live(),
    Entry::new(
        "train.lr_scheduler_type",
        Choice(NAMES),
        Is("\"linear\""),
        "How the rate falls after the warm-up, as in transformers.",
    )
    .guide("Warm-up")
    .names(&["lr_scheduler", "scheduler", "lr_schedule", "lr_decay_style"]),
    Entry::new(
        "train.lr_scheduler_kwargs",
        Table,
        Absent,
        "What the schedule takes besides: num_cycles of cosine_with_restarts, lr_end and power of polynomial, num_decay_steps of warmup_stable_decay.",
    )
    .guide("Warm-up")
    .names(&["scheduler_kwargs", "scheduler_specific_kwargs", "cosine_min_lr_ratio", "lr_end", "num_cycles", "num_decay_steps", "num_stable_steps"]),
    Entry::new(
        "train.warmup_ratio",
        Float(Bounds::below(0.0, 1.0)),
        Is("0.03"),
        "Share of the steps in which the rate rises from 0.",
    )
    .guide("Warm-up")
    .unit("share")
    .names(&["warmup", "warmup_fraction", "warmup_proportion"]),
    Entry::new(
        "train.warmup_steps",
        Integer(0, 1_000_000_000),
        Is("0"),
        "Warm-up in steps, in place of warmup_ratio; 0: by ratio.",
    )
    .guide("Warm-up")
    .unit("steps")
    .names(&["num_warmup_steps", "lr_warmup_steps", "warmup_iters"]),
    Entry::new(
        "train.weight_decay",
        Float(Bounds::new(0.0, 1.0)),
        Is("0.01"),
        "Decoupled weight decay, on the LoRA matrices too.",
    )
    .guide("Warm-up")
    .names(&["wd", "adam_weight_decay"]),
    Entry::new(
        "train.max_grad_norm",
        Float(Bounds::new(0.0, 1e6)),
        Is("1.0"),
        "Gradients are scaled down to this norm; 0: no clipping.",
    )
    .guide("Warm-up")
    .names(&["gradient_clipping", "clip_grad_norm", "grad_clip", "max_gradient_norm", "gradient_clip_val"]),
    Entry::new(
        "train.optim",
        Choice(&["adamw_torch", "adamw_8bit"]),
        Is("\"adamw_torch\""),
        "AdamW with its moments in f32, or in 8 bits as bitsandbytes keeps them: a quarter of the memory.",
    )
    .names(&["optimizer", "optimizer_type", "optim_name"]),
    Entry::new("train.adam_beta1", Float(Bounds::below(0.0, 1.0)), Is("0.9"), "Decay of the first moment.")
        .names(&["beta1"]),
    Entry::new("train.adam_beta2", Float(Bounds::below(0.0, 1.0)), Is("0.999"), "Decay of the second moment.")
        .names(&["beta2"]),
    Entry::new("train.adam_epsilon", Float(Bounds::above(0.0, 1.0)), Is("1e-8"), "Added to the second moment's root.")
        .names(&["eps", "epsilon", "adam_eps"]),
    Entry::new(
        "train.neftune_noise_alpha",
        Float(Bounds::above(0.0, 1000.0)),
        Absent,
        "NEFTune: noise on the embeddings in training, uniform on ±alpha/√(tokens × hidden size) of each row; 5 is usual.",
    )
    .names(&["neftune", "neftune_alpha", "noise_alpha"]),
    Entry::new(
        "train.seed",
        Integer(0, i64::MAX),
        Is("3407"),
        "Decides the order of rows, dropout and fresh adapters; same seed, same run.",
    )
    .guide("Warm-up")
    .names(&["random_state", "random_seed", "data_seed"]),
    Entry::new(
        "train.packing",
        Bool,
        By(|b| of_method(b, Method::Cpt, "true", "false")),
        "Fill each sequence of a batch up with several rows; attention never crosses them.",
    )
    .names(&["sample_packing", "pack", "neat_packing", "pack_sequences", "use_packing", "multipack"]),
    Entry::new(
        "train.assistant_only_loss",
        Bool,
        By(|b| of_method(b, Method::Sft, "true", "false")),
        "Train on what the assistant says only; in prompt and completion rows that is the completion.",
    )
    .names(&["assistant_loss_only", "only_assistant"]),
    Entry::new(
        "train.completion_only_loss",
        Bool,
        Is("false"),
        "Train on the completion only; of a chat, on its last assistant turn.",
    )
    .names(&["mask_prompt", "mask_history", "completions_only", "train_on_completions_only"]),
    Entry::new(
        "train.gradient_checkpointing",
        Choice(&["auto", "full", "off"]),
        Is("\"auto\""),
        "Recompute activations instead of keeping them: less memory, more time; auto looks at free memory.",
    )
    .names(&["use_gradient_checkpointing", "activation_checkpointing", "grad_checkpoint", "recompute"]),
    Entry::new(
        "train.eval_steps",
        Integer(0, 1_000_000_000),
        Is("50"),
        "Steps between evaluations; 0: only before the first step and at the end.",
    )
    .unit("steps")
    .names(&["evaluation_steps", "eval_every", "eval_interval", "evals_per_epoch", "steps_per_eval", "eval_freq"])
    .live(),
    Entry::new(
        "train.save_steps",
        Integer(0, 1_000_000_000),
        Is("100"),
        "Steps between checkpoints; 0: only at the end.",
    )
    .unit("steps")
    .names(&["save_every", "checkpointing_steps", "saves_per_epoch", "save_interval", "checkpoint_every", "save_freq"])
    .live(),
    Entry::new(
        "train.save_total_limit",
        Integer(1, 100_000),
        Is("2"),
        "Checkpoints kept, besides the best by eval and the final one.",
    )
    .names(&["save_limit", "max_checkpoints", "keep_checkpoints", "checkpoints_total_limit"]),
    Entry::new(
        "train.logging_steps",
        Integer(1, 1_000_000_000),
        Is("1"),
        "Steps between printed lines without a screen; every step is recorded all the same.",
    )
    .unit("steps")
    .names(&["log_every", "log_interval", "steps_per_report", "log_steps", "log_every_n_steps", "log_freq"])
    .live(),
    Entry::new(
        "train.early_stopping_patience",
        Integer(0, 1_000_000),
        Is("0"),
        "Evaluations without improvement before the run ends; 0: off.",
    )
    .unit("evaluations")
    .names(&["patience", "early_stopping", "early_stopping_steps", "early_stop_patience"])
    .live(),
];
