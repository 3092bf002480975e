//! From files to packed batches: readers, formats, chat templates, masks, packing, token cache.

#[cfg(test)]
pub(crate) mod assets;
pub mod bad;
pub mod batch;
pub mod demo;
pub mod files;
pub mod format;
pub mod formatting;
mod json;
pub mod loaded;
pub mod read;
pub mod rows;
pub mod tokenizer;
pub mod traits;
