//! The loop of a recipe's method.

use super::outlet::Outlet;
use super::parts::checkpoint;
use super::parts::course::Evaluation;
use super::parts::ending::Ending;
use super::setup::Prepared;
use super::{cpt, dpo, grpo, sft};
use crate::recipe::{Method, Recipe};
use crate::{Error, Result};
use std::path::Path;

/// Train to the end, a stop, or an error; from the checkpoint in `resume` where there is one.
pub fn train(recipe: &Recipe, prepared: Prepared, outlet: &mut dyn Outlet, resume: Option<&Path>) -> Result<Ending> {
    let train = match recipe.method {
        Method::Sft => sft::train,
        Method::Cpt => cpt::train,
        Method::Dpo => dpo::train,
        Method::Grpo => grpo::train,
    };
    train(recipe, prepared, outlet, resume)
}

/// Look at the held-out rows as the method's run does, the model being as the checkpoint in `dir` has it. `prepared` is
/// as before the first step: its model is what DPO's reference says it is.
///
/// # Errors
/// Without held-out rows; a checkpoint of another recipe.
pub fn evaluate(recipe: &Recipe, prepared: &mut Prepared, dir: Option<&Path>) -> Result<Evaluation> {
    if prepared.data.eval.is_empty() {
        return Err(Error::usage("the run's recipe holds no rows out for evaluation").next("name some: --data PATH"));
    }
    let mut method = match recipe.method {
        Method::Sft | Method::Cpt => sft::evaluator(),
        Method::Dpo => dpo::evaluator(recipe, prepared)?,
        Method::Grpo => grpo::evaluator(recipe, prepared)?,
    };
    if let Some(dir) = dir {
        checkpoint::read_values(dir, &prepared.speaker.model)?;
    }
    let found = method.evaluate(prepared, recipe, &mut || true)?;
    found.ok_or_else(|| {
        Error::new("these rows hold no label to evaluate").next("finetop check shows rows with their masks")
    })
}
