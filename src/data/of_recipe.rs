//! The rows of a recipe as its model's tokenizer sees them, without loading the model's weights.
//!
//! Must not know a run: a trainer has the model at hand and does the same with it.

use super::cache::Cache;
use super::prepare::{self, Prepared};
use super::template::{self, ChatTemplate};
use super::tokenizer::{Templates, Tokenizer};
use super::traits::{ModelSide, Render};
use crate::Result;
use crate::model::loading::Opened;
use crate::recipe::Recipe;
use serde_json::Map;

/// Rows, and the tokenizer that made tokens of them.
pub struct OfRecipe {
    pub tokenizer: Tokenizer,
    pub prepared: Prepared,
}

/// Reads and tokenizes a recipe's data for the model in `opened` (from the token cache, mostly).
///
/// # Errors
/// The model's tokenizer or the data cannot be read.
pub fn read(recipe: &Recipe, opened: &Opened) -> Result<OfRecipe> {
    let (tokenizer, own) = Tokenizer::of(opened)?;
    let templates = match &recipe.model.chat_template {
        Some(setting) => Templates { default: Some(template::choose(setting)?), tool_use: None },
        None => own,
    };
    let none = Map::new();
    let kwargs = recipe.model.chat_template_kwargs.as_ref().unwrap_or(&none);
    let template = match templates.default {
        Some(_) => Some(ChatTemplate::new(&templates, &tokenizer.special, kwargs)?),
        None => None,
    };
    let side = ModelSide {
        encode: &tokenizer,
        render: template.as_ref().map(|t| t as &dyn Render),
        eos_token: tokenizer.special.eos_token.as_deref(),
    };
    let prepared = prepare::prepare(recipe, &side, Cache::of_user().as_ref(), &|_, _| ())?;
    Ok(OfRecipe { tokenizer, prepared })
}
