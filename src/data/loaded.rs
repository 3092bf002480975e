//! A model ready to work with: weights, tokenizer and chat template together.

use crate::Result;
use crate::data::tokenizer::{Templates, Tokenizer};
use crate::model::config::Weights;
use crate::model::loading::Opened;
use crate::model::source::Source;

/// Everything a model's files say.
pub struct Loaded {
    pub weights: Weights,
    pub tokenizer: Tokenizer,
    /// Its chat templates as Jinja text; a base model may have none.
    pub templates: Templates,
    /// Short, for titles.
    pub name: String,
    /// For `base_model_name_or_path` of an adapter.
    pub reference: String,
}

/// Load all of a model. Where only its tokenizer or its shape is needed, use [`Opened`] and [`Tokenizer::of`].
pub fn load(source: &Source) -> Result<Loaded> {
    let opened = Opened::open(source)?;
    let (tokenizer, templates) = Tokenizer::of(&opened)?;
    let weights = opened.weights()?;
    Ok(Loaded { weights, tokenizer, templates, name: source.name.clone(), reference: source.reference.clone() })
}
