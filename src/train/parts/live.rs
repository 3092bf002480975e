//! Recipe values that can change while a run goes on.

use crate::recipe::{self, Recipe, schema};
use crate::{Error, Result};

/// The recipe with `key` at `value` (TOML text).
///
/// # Errors
/// A key that cannot change during a run, or a value that is not allowed.
pub fn change(recipe: &Recipe, key: &str, value: &str) -> Result<Recipe> {
    match schema::entry(key) {
        Some(entry) if !entry.live => Err(Error::usage(format!("{key} cannot change while a run goes on"))
            .next("edit the recipe and start another run, or branch from a checkpoint")),
        _ => recipe::with(recipe, key, value),
    }
}

/// The value of `key` as TOML text, `–` where it is not set.
pub fn value(recipe: &Recipe, key: &str) -> String {
    recipe::get(recipe, key).unwrap_or_else(|| "–".into())
}
