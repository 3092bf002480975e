//! The recipe: schema, defaults, validation with line numbers, guidance, comment-preserving edits.
//!
//! Must not know the engine, the run or the console.

pub mod values;

pub use values::*;
