//! A run is a folder, and the only truth about itself.

pub mod command;
pub mod event;
