//! A run is a folder, and the only truth about itself.
//!
//! Here: the folder and its files, the lock that tells a running trainer from a dead one, the events a run
//! says and the commands it takes, the trainer's side of both ([`session`]), a viewer's side ([`link`]),
//! starting a trainer as a process of its own ([`worker`]), the list of runs seen ([`index`]), and what a run
//! leaves for others to use ([`shipping`]).
//!
//! Must not know the console, nor how anything is trained.

pub mod artifact;
pub mod checkpoints;
pub mod digest;
pub mod events;
pub mod files;
pub mod folder;
pub mod follower;
pub mod host;
pub mod index;
pub mod link;
pub mod lock;
pub mod places;
pub mod server;
pub mod session;
pub mod shipping;
pub mod signals;
pub mod summary;
pub mod talk;
pub mod trainer;
pub mod worker;

/// The words that trainer and viewers share; the trainer's room has them, since dependencies point down only.
pub use crate::train::{command, event};

pub use command::Command;
pub use event::{Body, Event, RunState};
pub use folder::RunFolder;
pub use index::Index;
pub use link::Link;
pub use session::Session;
pub use summary::{Status, Summary};

#[cfg(test)]
mod process_tests;
#[cfg(test)]
mod session_tests;
