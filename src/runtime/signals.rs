//! Signals as the event loop sees them, and stopping for the shell.

use rustix::process::{Signal, getpgrp, getsid, kill_process_group};
use tokio::signal::unix::{self, SignalKind};

use crate::Result;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sig {
    /// TERM or HUP: leave. A run goes on.
    Leave,
    /// INT from outside; from the keyboard it comes as a key.
    Interrupt,
    /// TSTP: give the terminal back and stop.
    Stop,
    /// CONT: the terminal may have been used by others.
    Continue,
}

pub struct Signals {
    term: unix::Signal,
    hup: unix::Signal,
    int: unix::Signal,
    tstp: unix::Signal,
    cont: unix::Signal,
}

impl Signals {
    pub fn listen() -> Result<Signals> {
        Ok(Signals {
            term: unix::signal(SignalKind::terminate())?,
            hup: unix::signal(SignalKind::hangup())?,
            int: unix::signal(SignalKind::interrupt())?,
            tstp: unix::signal(SignalKind::from_raw(Signal::TSTP.as_raw()))?,
            cont: unix::signal(SignalKind::from_raw(Signal::CONT.as_raw()))?,
        })
    }

    pub async fn next(&mut self) -> Sig {
        // Leaving first: a terminal that hangs up sends HUP and CONT together.
        tokio::select! {
            biased;
            _ = self.term.recv() => Sig::Leave,
            _ = self.hup.recv() => Sig::Leave,
            _ = self.int.recv() => Sig::Interrupt,
            _ = self.tstp.recv() => Sig::Stop,
            _ = self.cont.recv() => Sig::Continue,
        }
    }
}

/// Ends the process a while after TERM or HUP, should the loop not get there itself: on a terminal that hung
/// up, reading keys may never return. The terminal is restored, and a run is never touched by that.
pub async fn end_at_last(grace: std::time::Duration) -> Result<()> {
    let mut term = unix::signal(SignalKind::terminate())?;
    let mut hup = unix::signal(SignalKind::hangup())?;
    tokio::select! {
        _ = term.recv() => {}
        _ = hup.recv() => {}
    }
    tokio::time::sleep(grace).await;
    super::terminal::restore();
    std::process::exit(0)
}

/// Whether a shell with job control is there to wake us again: without one the process group is the
/// session leader's, and a stop would be for ever.
pub fn can_stop() -> bool {
    getsid(None).is_ok_and(|session| session != getpgrp())
}

/// Stops this process, and what was started with it in the same job; returns when it is continued.
/// The terminal must have been given back.
pub fn stop() {
    // `finetop` under `cargo run`, or in a pipe: the shell waits for the whole group.
    let _ = kill_process_group(getpgrp(), Signal::TSTP);
    // Our own TSTP goes to the handler, so it does not stop us; this does. To this thread: a signal to the process may
    // be taken by another one, and this one would go on and take the terminal back before the stop reaches it.
    let _ = signal_hook::low_level::raise(Signal::STOP.as_raw());
}
