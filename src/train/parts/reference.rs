//! The reference that DPO and GRPO hold the policy against: the policy as it stood at step 0, never a second model.
//!
//! With a fresh adapter that is the base, the adapter off; with a given adapter, or where all weights train, a frozen
//! copy of what trains, put in its place for the length of a pass.

use crate::Result;
use crate::data::batch::Batch;
use crate::model::engine::{Engine, LogProbabilities, Voice};
use crate::model::llama::Weighted;
use crate::recipe::Recipe;

pub enum Reference {
    /// The base, without the adapter.
    Base,
    /// What trains, as it stood at step 0.
    Frozen(Vec<f32>),
}

impl Reference {
    /// Of a model before its first step, and before a checkpoint is put back.
    pub fn of(recipe: &Recipe, model: &Engine) -> Result<Self> {
        Ok(if recipe.has_given_start() { Self::Frozen(model.params().values()?) } else { Self::Base })
    }

    /// The log-probability of every label of `batches`, in order.
    pub fn log_probabilities(
        &self,
        model: &mut Engine,
        batches: &[Batch],
        of: Weighted,
    ) -> Result<Vec<LogProbabilities>> {
        let voice = match self {
            Self::Base => Voice::Base,
            Self::Frozen(values) => Voice::Values(values),
        };
        model.log_probabilities(batches, of, voice)
    }
}
