//! `stop`: end training with a checkpoint, and wait until it has ended.

use std::time::Duration;

use super::args::StopArgs;
use super::output::{print, progress};
use crate::run::folder::RunFolder;
use crate::run::link::send_once;
use crate::run::lock::{Holder, holder};
use crate::run::summary::{Status, thousands};
use crate::run::{Command, Index};
use crate::{Error, Result};

pub fn run(args: &StopArgs) -> Result<()> {
    let index = Index::of_user();
    let runs = if args.all { live_here(&index) } else { vec![index.find(args.run.as_deref())?] };
    if runs.is_empty() {
        return print("no run is being trained on this host");
    }
    // All are told first, so that they write their checkpoints at the same time.
    let mut told = Vec::new();
    let mut failure = None;
    for folder in runs {
        match tell(&index, &folder) {
            Ok(()) => told.push(folder),
            Err(e) => failure = Some(e),
        }
    }
    if !told.is_empty() {
        progress("after the step in hand a checkpoint is written; Ctrl-C stops waiting, not the stop");
    }
    for folder in told {
        while holder(folder.path()).is_live() {
            std::thread::sleep(Duration::from_millis(20));
        }
        print(&outcome(&index, &folder))?;
    }
    failure.map_or(Ok(()), Err)
}

fn live_here(index: &Index) -> Vec<RunFolder> {
    let here = |f: &RunFolder| match holder(f.path()) {
        Holder::Nobody | Holder::Elsewhere { .. } => false,
        Holder::Trainer(worker) => worker.is_none_or(|w| w.on_this_host()),
    };
    index.folders().into_iter().filter(here).collect()
}

/// Over the socket; a trainer that could make none gets the signal that means the same.
fn tell(index: &Index, folder: &RunFolder) -> Result<()> {
    let worker = match holder(folder.path()) {
        Holder::Trainer(worker) => worker,
        Holder::Elsewhere { worker, .. } => Some(worker),
        Holder::Nobody => {
            let s = index.summary(folder);
            let error = Error::new(format!("{} is not being trained: it {}", s.name, ended(s.state)));
            let error = error.at(folder.path().display());
            return Err(match s.last_checkpoint.filter(|_| s.state != Status::Finished) {
                Some(_) => error.next(format!("go on with it: `finetop train --resume {}`", s.name)),
                None => error,
            });
        }
    };
    match worker.filter(|w| w.socket.is_none() && w.process_lives()) {
        Some(worker) => {
            let pid = i32::try_from(worker.pid).ok().and_then(rustix::process::Pid::from_raw);
            let pid = pid.ok_or_else(|| Error::new("worker.json names no process").at(folder.path().display()))?;
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)
                .map_err(|e| Error::new(format!("cannot signal process {}: {e}", worker.pid)))
        }
        None => send_once(folder.path(), &Command::Stop),
    }
}

fn ended(state: Status) -> String {
    match state {
        Status::Finished => "has finished".into(),
        Status::Stopped => "was stopped".into(),
        other => other.word().into(),
    }
}

fn outcome(index: &Index, folder: &RunFolder) -> String {
    let s = index.summary(folder);
    let kept = match s.last_checkpoint {
        Some(step) => format!("checkpoint {} is whole · finetop train --resume {}", thousands(step), s.name),
        None => "there is no checkpoint".into(),
    };
    format!("{} {} at step {}; {kept}", s.name, ended(s.state), s.progress())
}
