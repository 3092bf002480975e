//! `finetop eval`: loss and perplexity of a run, an adapter or a model over rows, and its scored prompts.

use super::args::EvalArgs;
use super::output;
use crate::model::ranks::Ranks;
use crate::recipe::Method;
use crate::run::artifact;
use crate::run::summary::thousands;
use crate::train::parts::evaluate::evaluate;
use crate::train::parts::samples;
use crate::train::setup;
use crate::{Error, Result};
use serde_json::json;

pub fn run(args: &EvalArgs) -> Result<()> {
    let artifact = artifact::find(&args.what)?;
    output::fetch(&artifact.model)?;
    let speaker = artifact.load()?;
    let Some(recipe) = artifact.recipe_for(args.data.as_deref())? else {
        return Err(Error::usage(format!("{} has no rows of its own to evaluate on", artifact.title))
            .next("name some: --data PATH"));
    };
    if let Method::Dpo | Method::Grpo = recipe.method {
        let method = recipe.method.name();
        return Err(Error::usage(format!(
            "eval measures the likelihood of one answer a row, and {} is a {method} run",
            artifact.title
        ))
        .next("its own evaluations are in the run: finetop attach; or order one while it trains (e)"));
    }
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
