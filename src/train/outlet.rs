//! Where a trainer's words go, its orders come from, and its checkpoints lie. The run's session is one; tests have
//! their own.

use super::command::Command;
use super::event::Body;
use crate::Result;
use std::path::{Path, PathBuf};

pub trait Outlet {
    /// Say something that belongs to `step`. An error ends the run.
    fn emit(&mut self, step: u64, body: Body) -> Result<()>;

    /// The next order, if there is one.
    fn try_command(&mut self) -> Option<Command>;

    /// The next order; blocks while paused. `None` when no more can come.
    fn wait_command(&mut self) -> Option<Command>;

    /// Let `fill` write into a fresh folder, then put it in place as the checkpoint of `step`, whole or not at all; one
    /// that is there is replaced.
    fn save_checkpoint(&mut self, step: u64, fill: &mut dyn FnMut(&Path) -> Result<()>) -> Result<Saved>;

    /// Where the whole checkpoint of `step` lies, if there is one.
    fn checkpoint(&self, step: u64) -> Option<PathBuf>;

    /// Delete the oldest checkpoints until `limit` are left (0: all are kept), never the best and the last.
    fn prune_checkpoints(&mut self, limit: usize, best: Option<u64>, last: u64) -> Result<()>;

    /// Delete the checkpoints after `step`: those of a way that was left.
    fn forget_after(&mut self, step: u64) -> Result<()>;
}

/// A checkpoint that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Relative to the run folder: `checkpoints/step-200`.
    pub path: String,
    pub bytes: u64,
}
