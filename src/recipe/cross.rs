//! What only several keys together can say.

use super::load::Given;
use super::problem::{Locator, Place, Problem};
use super::scheduler::{self, Shape};
use super::{DpoLoss, Method, Recipe};

/// Problems and notes of the whole recipe, each at the key it is about.
pub(super) fn check(recipe: &Recipe, given: &mut Given, locator: Locator<'_>) {
    let place = |given: &Given, key: &str| given.places.get(key).cloned().unwrap_or_else(|| locator.place(None));
    let problem = |given: &mut Given, key: &str, what: &str, next: &str| {
        let place = place(given, key);
        given.problems.push(Problem { place, key: key.into(), what: what.into(), next: next.into() });
    };
    let has = |given: &Given, key: &str| given.places.contains_key(key);
    let t = &recipe.train;
    let evaluates = recipe.data.eval.is_some() || recipe.data.eval_fraction > 0.0;

    if recipe.data.train.is_empty() {
        problem(given, "data.train", "data.train names no file", "give at least one file or folder");
    }
    if recipe.data.eval.as_ref().is_some_and(Vec::is_empty) {
        problem(given, "data.eval", "data.eval names no file", "give at least one file or folder, or remove it");
    }
    let weighed = recipe.data.train.iter().filter(|s| s.weight.is_some()).count();
    if weighed > 0 && weighed < recipe.data.train.len() {
        let what = "some sources of data.train have a weight and some have none";
        problem(given, "data.train", what, "give each a weight (their shares, as in 0.85 and 0.15), or none");
    }
    if recipe.data.eval.iter().flatten().any(|s| s.weight.is_some()) {
        let what = "a source of data.eval has a weight, and evaluation sees every row";
        problem(given, "data.eval", what, "remove the weight");
    }
    if recipe.data.eval.is_some() && recipe.data.eval_fraction > 0.0 {
        let what = "data.eval and data.eval_fraction are both given";
        problem(given, "data.eval_fraction", what, "keep one: rows of their own, or a share of the training rows");
    }
    if t.early_stopping_patience > 0 && !evaluates {
        let what = "train.early_stopping_patience needs an evaluation, and there are no rows for one";
        problem(given, "train.early_stopping_patience", what, "give data.eval, or data.eval_fraction = 0.05");
    }
    if t.early_stopping_patience > 0 && t.eval_steps == 0 {
        let what = "train.early_stopping_patience needs evaluations during the run, and train.eval_steps is 0";
        problem(given, "train.early_stopping_patience", what, "give train.eval_steps, such as 50");
    }
    if recipe.export.ollama.is_some() && recipe.export.gguf.is_empty() {
        let what = "export.ollama needs a GGUF, and export.gguf names no type";
        problem(given, "export.ollama", what, "give export.gguf = [\"q4_k_m\"]");
    }
    if recipe.export.lora && recipe.lora.is_none() {
        let what = "export.lora needs an adapter, and this recipe trains the whole model";
        problem(given, "export.lora", what, "remove it, or add [lora]");
    }
    if recipe.model.load_in_4bit && recipe.model.load_in_fp8 {
        let what = "model.load_in_4bit and model.load_in_fp8 are both given";
        problem(given, "model.load_in_fp8", what, "keep one: 4 bits for memory, fp8 for speed");
    }
    if recipe.model.load_in_4bit && recipe.lora.is_none() {
        let what = "model.load_in_4bit holds frozen weights, and without [lora] all of them train";
        problem(given, "model.load_in_4bit", what, "add [lora], or set it to false");
    }
    if recipe.method != Method::Sft {
        let (what, next) = match recipe.method {
            Method::Dpo => ("preference pairs: the answers are what is trained", "remove it"),
            Method::Grpo => ("prompts: what is drawn is what is trained", "remove it"),
            _ => ("plain text", "remove it, or take method = \"sft\""),
        };
        for (on, key) in [
            (t.assistant_only_loss, "train.assistant_only_loss"),
            (t.completion_only_loss, "train.completion_only_loss"),
        ] {
            if on {
                problem(given, key, &format!("{key} has no meaning for {what}"), next);
            }
        }
        if recipe.data.messages.is_some() && recipe.method == Method::Dpo {
            let next = "remove it: prompt, chosen and rejected are found from the columns";
            problem(given, "data.messages", "data.messages makes chats of one answer, and method is dpo", next);
        }
        if recipe.data.messages.is_some() && recipe.method == Method::Cpt {
            let next = "remove it, or take method = \"sft\"";
            problem(given, "data.messages", "data.messages makes chats, and method is cpt", next);
        }
    }
    if let Method::Dpo | Method::Grpo = recipe.method {
        let method = recipe.method.name();
        if t.packing {
            let what = format!("train.packing has no meaning for {method}, whose sequences are never padded");
            problem(given, "train.packing", &what, "remove it");
        }
    }
    if let Some(grpo) = &recipe.grpo {
        let batch = t.per_device_train_batch_size * t.gradient_accumulation_steps;
        if !batch.is_multiple_of(grpo.num_generations) {
            let (each, steps, group) =
                (t.per_device_train_batch_size, t.gradient_accumulation_steps, grpo.num_generations);
            let what = format!(
                "a step has {each} × {steps} = {batch} completions, which are not whole groups of grpo.num_generations = {group}"
            );
            problem(given, "grpo.num_generations", &what, "choose batch × accumulation as a multiple of it");
        }
        if grpo.max_completion_length >= recipe.model.max_seq_length {
            let what = "grpo.max_completion_length leaves no room for a prompt in model.max_seq_length";
            problem(given, "grpo.max_completion_length", what, "raise model.max_seq_length, or lower it");
        }
    }
    if let Some(dpo) = &recipe.dpo
        && dpo.label_smoothing > 0.0
        && dpo.loss_type != DpoLoss::Robust
    {
        note(given, "dpo.label_smoothing", "is not used: only dpo.loss_type = \"robust\" smooths");
    }
    if recipe.lora.as_ref().is_some_and(|l| l.adapter_name_or_path.is_some()) {
        for key in [
            "lora.r",
            "lora.lora_alpha",
            "lora.target_modules",
            "lora.exclude_modules",
            "lora.layers_to_transform",
            "lora.use_rslora",
            "lora.use_dora",
            "lora.modules_to_save",
        ] {
            if has(given, key) {
                note(given, key, "is the starting adapter's own; what is written here is not used");
            }
        }
    }
    let tables = recipe.lora.as_ref().is_none_or(|l| l.modules_to_save.is_some() || l.adapter_name_or_path.is_some());
    if t.embedding_learning_rate.is_some() && !tables {
        let what = "train.embedding_learning_rate is for embeddings and lm_head, and neither trains";
        let next = "add lora.modules_to_save = [\"embed_tokens\", \"lm_head\"], or remove it";
        problem(given, "train.embedding_learning_rate", what, next);
    }
    if t.neftune_noise_alpha.is_some() && recipe.method == Method::Grpo {
        let what = "train.neftune_noise_alpha would judge completions by another model than the one that drew them";
        problem(given, "train.neftune_noise_alpha", what, "remove it, or take method = \"sft\"");
    }
    if t.max_steps > 0 && has(given, "train.num_train_epochs") {
        note(given, "train.num_train_epochs", "is not used: train.max_steps is given");
    }
    if t.warmup_steps > 0 && has(given, "train.warmup_ratio") {
        note(given, "train.warmup_ratio", "is not used: train.warmup_steps is given");
    }
    if t.lr_scheduler_type == "constant" && (has(given, "train.warmup_ratio") || t.warmup_steps > 0) {
        note(given, "train.lr_scheduler_type", "constant has no warm-up; constant_with_warmup has one");
    }
    match scheduler::read(&t.lr_scheduler_type, t.lr_scheduler_kwargs.as_ref()) {
        Err((what, next)) => {
            let key =
                if t.lr_scheduler_kwargs.is_some() { "train.lr_scheduler_kwargs" } else { "train.lr_scheduler_type" };
            problem(given, key, &format!("{key}: {what}"), &next);
        }
        Ok(Shape::Polynomial { lr_end, .. }) if lr_end >= t.learning_rate => {
            let what =
                format!("lr_end = {lr_end:e} of polynomial is not below train.learning_rate = {:e}", t.learning_rate);
            problem(given, "train.lr_scheduler_kwargs", &what, "choose a lower end");
        }
        Ok(_) => {}
    }
    if has(given, "train.eval_steps") && t.eval_steps > 0 && !evaluates {
        note(given, "train.eval_steps", "does nothing: neither data.eval nor data.eval_fraction is given");
    }
}

fn note(given: &mut Given, key: &str, sentence: &str) {
    let place = match given.places.get(key) {
        Some(Place::Set(_)) | None => String::new(),
        Some(place) => format!("{place}: "),
    };
    given.notes.push(format!("{place}{key} {sentence}"));
}
