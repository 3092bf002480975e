//! From files to packed batches: readers, formats, chat templates, masks, packing, token cache.

#[cfg(test)]
pub(crate) mod assets;
pub mod bad;
pub mod batch;
mod builtin;
pub mod cache;
pub mod dataset;
pub mod demo;
pub mod examples;
pub mod explain;
#[cfg(test)]
pub(crate) mod fakes;
pub mod files;
pub mod format;
pub mod formatting;
mod json;
pub mod loaded;
pub mod mask;
pub mod mix;
pub mod of_recipe;
pub mod pack;
pub mod permute;
pub mod plan;
pub mod preference;
pub mod prepare;
pub mod prompt;
pub mod read;
#[cfg(test)]
mod real_tests;
pub mod rows;
pub mod sources;
pub mod store;
pub mod summary;
pub mod survey;
pub mod template;
pub mod tokenizer;
pub mod traits;

pub use explain::explain;
pub use plan::Plan;
pub use prepare::{Prepared, prepare};
pub use summary::Summary;
pub use traits::ModelSide;

/// Told (rows done, rows) while tokenizing, from several threads.
pub type Progress<'a> = &'a (dyn Fn(usize, usize) + Sync);
