//! `finetop eval`: loss and perplexity of a run, an adapter or a model over rows, and its scored prompts; of DPO and GRPO
//! what these measure.

use super::args::EvalArgs;
use super::output;
use crate::model::ranks::Ranks;
use crate::recipe::{Method, Recipe};
use crate::run::artifact::{self, Artifact};
use crate::run::summary::thousands;
use crate::train::parts::evaluate::evaluate;
use crate::train::parts::samples;
use crate::train::{method, setup};
use crate::{Error, Result};
use serde_json::json;
use std::path::Path;

pub fn run(args: &EvalArgs) -> Result<()> {
    let artifact = artifact::find(&args.what)?;
    output::fetch(&artifact.model)?;
    let Some(recipe) = artifact.recipe_for(args.data.as_deref())? else {
        return Err(Error::usage(format!("{} has no rows of its own to evaluate on", artifact.title))
            .next("name some: --data PATH"));
    };
    if let Method::Dpo | Method::Grpo = recipe.method {
        return by_method(args, &artifact, &recipe);
    }
    let speaker = artifact.load()?;
    let examples = setup::examples_to_evaluate(&recipe, &speaker, &mut output::progress)?;
    let size = recipe.train.per_device_eval_batch_size;
    let Some(e) = evaluate(&speaker.model, &mut Ranks::alone(), &examples, size, &mut || true)? else {
        return Err(
            Error::new("these rows hold no label to evaluate").next("finetop check shows rows with their masks")
        );
    };
    let mut right = 0;
    let mut scored = 0;
    let settings = samples::settings(&recipe.sample);
    for (index, prompt) in samples::numbered(&recipe.sample.prompts) {
        if prompt.expect().is_some() {
            let sample = samples::draw(&speaker, &recipe, index, &prompt, &settings, true)?;
            scored += 1;
            right += u32::from(sample.score == Some(1.0));
        }
    }
    if args.json {
        return output::print_json(&json!({
            "what": artifact.title, "loss": e.loss, "perplexity": e.loss.exp(), "label_tokens": e.label_tokens,
            "examples": examples.len(), "prompts_right": right, "prompts_scored": scored,
        }));
    }
    let mut text = format!(
        "{}\nloss {:.4}  perplexity {:.3}  over {} label tokens of {} examples",
        artifact.title,
        e.loss,
        e.loss.exp(),
        thousands(e.label_tokens),
        thousands(examples.len() as u64)
    );
    if scored > 0 {
        text.push_str(&format!("\nprompts {right} of {scored} right"));
    }
    output::print(&text)
}

/// What a run of the recipe's method measures of its held-out rows: DPO's loss, rewards, margin and accuracy; GRPO's
/// rewards by function.
fn by_method(args: &EvalArgs, artifact: &Artifact, recipe: &Recipe) -> Result<()> {
    output::fetch(&recipe.model.name_or_path)?;
    let mut prepared = setup::prepare(recipe, Ranks::alone(), &mut output::progress)?;
    let full = recipe.lora.is_none().then(|| Path::new(&artifact.model));
    let e = method::evaluate(recipe, &mut prepared, artifact.adapter.as_deref().or(full))?;
    let rows = prepared.data.eval.len() / if recipe.method == Method::Dpo { 2 } else { 1 };
    let what = if recipe.method == Method::Dpo { "pairs" } else { "prompts" };
    if args.json {
        let loss = e.loss.is_finite().then_some(e.loss);
        return output::print_json(&json!({
            "what": artifact.title, "method": recipe.method.name(), "loss": loss, "metrics": e.metrics,
            "label_tokens": e.label_tokens, what: rows,
        }));
    }
    let mut text =
        format!("{}\n{} {what}, {} tokens", artifact.title, thousands(rows as u64), thousands(e.label_tokens));
    if e.loss.is_finite() {
        text.push_str(&format!("\nloss {:.4}", e.loss));
    }
    let width = e.metrics.keys().map(String::len).max().unwrap_or(0);
    for (name, value) in &e.metrics {
        text.push_str(&format!("\n{name:width$}  {value:.4}"));
    }
    output::print(&text)
}
