//! Where a trainer's words go and its orders come from. The run's session is one; tests have their own.

use super::command::Command;
use super::event::Body;
use crate::Result;

pub trait Outlet {
    /// Say something that belongs to `step`. What it returns as an error ends the run.
    fn emit(&mut self, step: u64, body: Body) -> Result<()>;

    /// The next order, if there is one.
    fn try_command(&mut self) -> Option<Command>;

    /// The next order; blocks while paused. `None` when no more can come.
    fn wait_command(&mut self) -> Option<Command>;
}
