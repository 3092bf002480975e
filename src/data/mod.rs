//! From files to packed batches: readers, formats, chat templates, masks, packing, token cache.

#[cfg(test)]
pub(crate) mod assets;
pub mod batch;
pub mod loaded;
pub mod tokenizer;
