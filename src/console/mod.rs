//! The console: what is on the screen, and what a key does to it.
//!
//! [`Model`](model::Model) is all its state; [`update`](update::update) turns a message into a new state and
//! effects, without I/O and without a clock; [`view`] draws the state and never changes it.
//! The runtime feeds the messages and carries out the effects.
//!
//! Must not know the engine (no model, data, train, ops), nor files, sockets or the terminal: it speaks
//! `run`'s events and commands and `recipe`'s schema, nothing else.

pub mod chart;
mod chart_update;
pub mod chat_page;
pub mod curves;
pub mod export_page;
pub mod fields;
pub mod format;
pub mod key;
pub mod keymap;
pub mod message;
pub mod model;
pub mod new_page;
pub mod own_keys;
pub mod pager;
pub mod palette;
mod recipe_update;
pub mod remedy;
pub mod run_page;
pub mod run_state;
pub mod run_update;
mod samples_update;
pub mod start;
#[cfg(test)]
mod start_tests;
pub mod theme;
pub mod update;
pub mod view;

pub use message::{Effect, Message};
pub use model::{Model, Page};
pub use update::update;
pub use view::{draw, snapshot};
