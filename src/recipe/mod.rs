//! The recipe: schema, defaults, validation with line numbers, guidance, comment-preserving edits.
//!
//! [`load`] reads one, [`to_toml`] writes one, [`set`] and [`unset`] edit its text, [`with`] its values.
//! Must not know the engine, the run or the console.

pub mod check;
mod cross;
pub mod demo;
mod edit;
pub mod guidance;
mod load;
pub mod modules;
pub mod problem;
pub mod python;
mod rewards;
pub mod scheduler;
pub mod schema;
mod table;
mod unknown;
pub mod values;
mod write;

#[cfg(test)]
mod tests;

pub use edit::{all, diff, get, set, unset, with};
pub use load::{Loaded, examine, load, parse};
pub use modules::TargetModules;
pub use problem::{Place, Problem};
pub use rewards::RewardFunc;
pub use table::{FUSED, LINEAR, TYPES};
pub use values::*;
pub use write::to_toml;
