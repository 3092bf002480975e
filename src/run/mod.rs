//! A run is a folder, and the only truth about itself.

/// The words that trainer and viewers share; the trainer's room has them, since dependencies point down only.
pub use crate::train::{command, event};
