//! From files to packed batches: readers, formats, chat templates, masks, packing, token cache.

pub mod batch;
