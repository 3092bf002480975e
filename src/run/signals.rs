//! Signals to a trainer, as commands: INT or TERM ends it with a checkpoint, a second INT at once, USR1
//! writes a checkpoint and goes on, HUP does nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

use super::command::Command;
use crate::{Error, Kind, Result};

/// How long the trainer has after a second INT before the process ends as it stands; the run folder is
/// whole at any instant.
const LAST_GRACE: Duration = Duration::from_secs(3);

/// Which signal ended the training, if one did.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    cause: Arc<AtomicU8>,
}

const INTERRUPTED: u8 = 1;
const TERMINATED: u8 = 2;

impl Signals {
    /// From now on, until the process ends, signals come as commands. For the process that trains,
    /// once, before its work begins.
    pub fn install(commands: Sender<Command>) -> Result<Self> {
        let signals = Self::default();
        let cause = Arc::clone(&signals.cause);
        let fail = |e: std::io::Error| Error::new(format!("cannot listen for signals: {e}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(fail)?;
        // Here and not in the thread: when this returns, no signal is missed any more.
        let (mut int, mut term, mut usr1, mut hup) = {
            let _inside = runtime.enter();
            let listen = |kind| signal(kind).map_err(fail);
            (
                listen(SignalKind::interrupt())?,
                listen(SignalKind::terminate())?,
                listen(SignalKind::user_defined1())?,
                listen(SignalKind::hangup())?,
            )
        };
        let work = async move {
            loop {
                let command = tokio::select! {
                    _ = int.recv() => match cause.swap(INTERRUPTED, Ordering::SeqCst) {
                        INTERRUPTED => {
                            std::thread::spawn(|| {
                                std::thread::sleep(LAST_GRACE);
                                std::process::exit(i32::from(Kind::Interrupted.exit_code()));
                            });
                            Command::Abort
                        }
                        _ => Command::Stop,
                    },
                    _ = term.recv() => {
                        let _ = cause.compare_exchange(0, TERMINATED, Ordering::SeqCst, Ordering::SeqCst);
                        Command::Stop
                    }
                    _ = usr1.recv() => Command::CheckpointNow,
                    _ = hup.recv() => continue,
                };
                // A trainer that has ended takes no more; the process is about to end.
                let _ = commands.send(command);
            }
        };
        std::thread::Builder::new()
            .name("finetop-signals".into())
            .spawn(move || runtime.block_on(work))
            .map_err(fail)?;
        Ok(signals)
    }

    /// How the process should end because of a signal: [`Kind::Interrupted`] after INT,
    /// [`Kind::Resumable`] after TERM.
    pub fn ending(&self) -> Option<Kind> {
        match self.cause.load(Ordering::SeqCst) {
            INTERRUPTED => Some(Kind::Interrupted),
            TERMINATED => Some(Kind::Resumable),
            _ => None,
        }
    }
}
