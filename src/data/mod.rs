//! From files to packed batches: readers, formats, chat templates, masks, packing, token cache.

pub mod bad;
pub mod batch;
pub mod examples;
#[cfg(test)]
pub(crate) mod fakes;
pub mod files;
pub mod format;
pub mod formatting;
mod json;
pub mod mask;
pub mod read;
pub mod rows;
pub mod traits;
