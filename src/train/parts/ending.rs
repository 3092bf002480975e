//! How a run can end.

use crate::train::event::RunState;
use crate::{Error, Kind};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// All steps are done.
    Finished,
    /// Early stopping; why.
    Early(String),
    /// Ordered to stop; a checkpoint was written.
    Stopped,
    /// Ordered to end at once, without one.
    Aborted,
    /// Rolled back to `to` and ended there.
    RolledBack { from: u64, to: u64 },
    /// The run found something that makes going on pointless; what.
    Finding(String),
}

impl Ending {
    /// The run's last state, and why.
    pub fn state(&self) -> (RunState, String) {
        match self {
            Ending::Finished => (RunState::Finished, String::new()),
            Ending::Early(why) => (RunState::Finished, format!("stopped early: {why}")),
            Ending::Stopped => (RunState::Stopped, "asked to stop; a checkpoint was written".into()),
            Ending::Aborted => {
                (RunState::Stopped, "ended at once, as asked; steps since the last checkpoint are lost".into())
            }
            Ending::RolledBack { from, to } => {
                (RunState::Finished, format!("rolled back from step {from} to {to} and ended there"))
            }
            Ending::Finding(what) => (RunState::Failed, what.clone()),
        }
    }

    /// What the program's exit says of it: nothing for a run that ended as it should.
    pub fn error(&self) -> Option<Error> {
        match self {
            Ending::Finished | Ending::Early(_) | Ending::RolledBack { .. } => None,
            Ending::Stopped => Some(Error::new("stopped, with a checkpoint").kind(Kind::Resumable)),
            Ending::Aborted => Some(Error::new("ended at once, without a checkpoint").kind(Kind::Interrupted)),
            Ending::Finding(what) => Some(Error::new(what.clone()).kind(Kind::Finding)),
        }
    }
}
