//! A process that trains beside rank 0: it obeys the same orders, reads the same run folder, and says and writes nothing.

use super::folder::RunFolder;
use crate::Result;
use crate::train::command::Command;
use crate::train::event::Body;
use crate::train::outlet::{Outlet, Saved};
use std::path::{Path, PathBuf};

/// The outlet of every rank but 0.
pub struct Follower {
    folder: RunFolder,
}

impl Follower {
    pub fn new(folder: RunFolder) -> Self {
        Self { folder }
    }
}

impl Outlet for Follower {
    fn emit(&mut self, _step: u64, _body: Body) -> Result<()> {
        Ok(())
    }

    fn try_command(&mut self) -> Option<Command> {
        None
    }

    fn wait_command(&mut self) -> Option<Command> {
        None
    }

    fn save_checkpoint(&mut self, step: u64, _fill: &mut dyn FnMut(&Path) -> Result<()>) -> Result<Saved> {
        Ok(Saved { path: format!("checkpoints/step-{step}"), bytes: 0 })
    }

    fn checkpoint(&self, step: u64) -> Option<PathBuf> {
        self.folder.find_checkpoint(Some(step)).ok().map(|(_, path)| path)
    }

    fn prune_checkpoints(&mut self, _limit: usize, _best: Option<u64>, _last: u64) -> Result<()> {
        Ok(())
    }

    fn forget_after(&mut self, _step: u64) -> Result<()> {
        Ok(())
    }
}
