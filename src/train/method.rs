//! The loop of a recipe's method.

use super::outlet::Outlet;
use super::parts::ending::Ending;
use super::setup::Prepared;
use super::{cpt, dpo, grpo, sft};
use crate::Result;
use crate::recipe::{Method, Recipe};
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
