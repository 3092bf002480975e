//! A run in one line: what a list shows.

use serde::Serialize;
use std::path::{Path, PathBuf};

use super::digest::{Digest, OpenFinding};
use super::event::RunState;
use super::folder::RunFolder;
use super::host::{WorkerInfo, now};
use super::lock::{Holder, holder};

/// How a run stands: what it said last, checked against its lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Preparing,
    Running,
    Paused,
    Finished,
    Stopped,
    Failed,
    /// No trainer is there, and it never said that it ended.
    Died,
}

impl Status {
    /// Whether a trainer is at work.
    pub fn is_live(self) -> bool {
        matches!(self, Status::Preparing | Status::Running | Status::Paused)
    }

    pub fn word(self) -> &'static str {
        match self {
            Status::Preparing => "preparing",
            Status::Running => "training",
            Status::Paused => "paused",
            Status::Finished => "finished",
            Status::Stopped => "stopped",
            Status::Failed => "failed",
            Status::Died => "died",
        }
    }
}

/// `●` at work, `✓` well ended, `✕` badly ended; the pause and the stop have signs of their own.
pub fn sign(state: Status, ascii: bool) -> char {
    let (sign, plain) = match state {
        Status::Preparing | Status::Running => ('●', '*'),
        Status::Paused => ('‖', '='),
        Status::Finished => ('✓', '+'),
        Status::Stopped => ('■', '-'),
        Status::Failed | Status::Died => ('✕', 'x'),
    };
    if ascii { plain } else { sign }
}

/// A run in one line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    pub dir: PathBuf,
    /// The folder's name: unique within its output folder.
    pub name: String,
    pub state: Status,
    /// Why it is so, in words; may be empty.
    pub why: String,
    pub method: String,
    pub tuning: String,
    pub model: String,
    /// Mean losses over equal stretches of the run, at most 64: a sparkline.
    pub losses: Vec<f64>,
    /// Of the latest step; none before the first, or where it is not finite.
    pub loss: Option<f64>,
    /// By the pace of the latest steps; none while it is not known.
    pub seconds_left: Option<f64>,
    /// The lowest evaluation loss and its step.
    pub eval_best: Option<(f64, u64)>,
    pub step: u64,
    /// 0 while it is not known.
    pub total_steps: u64,
    /// The step of the latest whole checkpoint.
    pub last_checkpoint: Option<u64>,
    /// Unix times in seconds of the first and the latest event, and of the latest trainer's start.
    pub started: f64,
    pub updated: f64,
    pub trainer_started: f64,
    /// The gravest open finding.
    pub worst: Option<OpenFinding>,
    /// Open findings of at least a warning.
    pub findings: usize,
    /// Of the latest trainer.
    pub host: Option<String>,
    pub pid: Option<u32>,
}

impl Summary {
    /// Of the run in `folder`, whose events add up to `digest`. Looks at the lock, the worker's file and
    /// the names of the checkpoints.
    pub fn of(folder: &RunFolder, digest: &Digest) -> Self {
        let worker = WorkerInfo::read(folder.path());
        let last_checkpoint = folder.checkpoints().last().copied();
        let (state, why) = stands(folder.path(), digest, worker.as_ref(), last_checkpoint);
        Self {
            dir: folder.path().to_owned(),
            name: folder.name(),
            state,
            why,
            method: digest.method.clone(),
            tuning: digest.tuning.clone(),
            model: digest.model.clone(),
            losses: digest.curve.losses(),
            loss: digest.loss,
            seconds_left: digest.seconds_left(),
            eval_best: digest.eval_best(),
            step: digest.step,
            total_steps: digest.total_steps,
            last_checkpoint,
            started: digest.first,
            updated: digest.latest,
            trainer_started: worker.as_ref().map_or(digest.first, |w| w.started),
            worst: digest.worst().cloned(),
            findings: digest.grave().count(),
            host: worker.as_ref().map(|w| w.host.clone()),
            pid: worker.map(|w| w.pid),
        }
    }

    /// Of the steps, rounded down: 100 only when all are done.
    pub fn percent(&self) -> Option<u64> {
        (self.total_steps > 0).then(|| (self.step * 100 / self.total_steps).min(100))
    }

    /// `412/1,218`, or the step alone while the total is not known.
    pub fn progress(&self) -> String {
        match self.total_steps {
            0 => thousands(self.step),
            total => format!("{}/{}", thousands(self.step), thousands(total)),
        }
    }
}

fn stands(dir: &Path, digest: &Digest, worker: Option<&WorkerInfo>, checkpoint: Option<u64>) -> (Status, String) {
    let live = match holder(dir) {
        Holder::Nobody => None,
        Holder::Trainer(_) => Some(digest.why.clone()),
        Holder::Elsewhere { worker, age } => Some(format!("on {}, which wrote {age:.0} s ago", worker.host)),
    };
    match (digest.state, live) {
        (Some(RunState::Running), Some(why)) => (Status::Running, why),
        (Some(RunState::Paused), Some(why)) => (Status::Paused, why),
        (Some(RunState::Preparing), Some(why)) => (Status::Preparing, why),
        // Its trainer has just come: what the last one said is over.
        (None | Some(RunState::Finished | RunState::Stopped | RunState::Failed), Some(_)) if ended(worker) => {
            (last_word(digest.state), digest.why.clone())
        }
        (_, Some(_)) => (Status::Preparing, String::new()),
        (Some(RunState::Finished | RunState::Stopped | RunState::Failed), None) => {
            (last_word(digest.state), digest.why.clone())
        }
        (_, None) => (Status::Died, why_died(dir, digest, worker, checkpoint)),
    }
}

/// Whether the latest trainer said that it ended (and so the lock is about to be let go).
fn ended(worker: Option<&WorkerInfo>) -> bool {
    worker.is_some_and(|w| w.ended.is_some())
}

fn last_word(state: Option<RunState>) -> Status {
    match state {
        Some(RunState::Finished) => Status::Finished,
        Some(RunState::Stopped) => Status::Stopped,
        Some(RunState::Failed) => Status::Failed,
        _ => Status::Preparing,
    }
}

fn why_died(dir: &Path, digest: &Digest, worker: Option<&WorkerInfo>, checkpoint: Option<u64>) -> String {
    let cause = match worker {
        Some(w) if !w.on_this_host() => {
            format!("no word from {} for {}", w.host, duration(now() - digest.latest))
        }
        Some(w) if !w.same_boot() => "the machine restarted".to_owned(),
        _ => match (panic_line(dir), nearly_full(digest.memory)) {
            (Some(line), _) => format!("crashed ({line})"),
            (None, Some(percent)) => format!("killed while {percent} % of the memory was in use"),
            (None, None) => "killed".to_owned(),
        },
    };
    let kept = match checkpoint {
        Some(step) => format!("checkpoint {} is whole", thousands(step)),
        None => "no checkpoint was written".to_owned(),
    };
    format!("{cause} at step {}; {kept}", thousands(digest.step))
}

/// In percent, where memory was so full that the kernel may have ended the process for it.
fn nearly_full(memory: Option<(u64, u64)>) -> Option<u64> {
    // 90: the rest of the system needs memory too.
    memory.map(|(used, total)| used.saturating_mul(100) / total.max(1)).filter(|&percent| percent >= 90)
}

/// The line of a panic at the end of the trainer's log.
fn panic_line(dir: &Path) -> Option<String> {
    let log = super::files::read_end(&dir.join("run.log"), 16 * 1024).ok()?;
    let line = log.lines().rev().find(|line| line.contains("panicked at"))?;
    Some(line.trim().trim_end_matches(':').to_owned())
}

pub use crate::recipe::guidance::thousands;

/// Seconds in their largest unit: `42s`, `9m`, `5h`, `3d`.
pub fn duration(seconds: f64) -> String {
    let s = seconds.max(0.0) as u64;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m", s / 60),
        3600..86_400 => format!("{}h", s / 3600),
        _ => format!("{}d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Session;
    use crate::run::event::{Body, State};
    use crate::run::events::read_all;
    use crate::train::outlet::Outlet;

    fn summary(folder: &RunFolder) -> Summary {
        let mut digest = Digest::default();
        read_all(&folder.events()).unwrap().iter().for_each(|e| digest.add(e));
        Summary::of(folder, &digest)
    }

    fn state(state: RunState, why: &str) -> Body {
        Body::State(State { state, why: why.into() })
    }

    #[test]
    fn a_run_stands_as_it_said_while_its_trainer_lives_and_died_if_it_went_without_a_word() {
        let out = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(out.path(), "r").unwrap();
        let mut session = Session::open_quietly(folder.clone()).unwrap();
        assert_eq!(summary(&folder).state, Status::Preparing, "it has said nothing yet");
        for (said, shown) in [
            (RunState::Preparing, Status::Preparing),
            (RunState::Running, Status::Running),
            (RunState::Paused, Status::Paused),
        ] {
            session.emit(1, state(said, "tokenizing")).unwrap();
            let summary = summary(&folder);
            assert_eq!((summary.state, summary.why.as_str()), (shown, "tokenizing"));
        }
        folder.write_checkpoint(1000, |d| Ok(std::fs::write(d.join("x"), "x")?)).unwrap();
        session.emit(1020, state(RunState::Running, "")).unwrap();
        drop(session);
        let summary = summary(&folder);
        assert_eq!(summary.state, Status::Died);
        assert!(summary.why.contains("checkpoint 1,000 is whole"), "{}", summary.why);
    }

    #[test]
    fn a_run_that_said_its_end_keeps_it_and_a_new_trainer_begins_it_again() {
        let out = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(out.path(), "r").unwrap();
        let mut session = Session::open_quietly(folder.clone()).unwrap();
        session.emit(9, state(RunState::Stopped, "by you")).unwrap();
        drop(session);
        assert_eq!((summary(&folder).state, summary(&folder).why.as_str()), (Status::Stopped, "by you"));
        let _session = Session::open_quietly(folder.clone()).unwrap();
        assert_eq!(summary(&folder).state, Status::Preparing);
    }

    #[test]
    fn why_a_run_died_names_the_crash_the_restart_or_the_full_memory() {
        let out = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(out.path(), "r").unwrap();
        drop(Session::open_quietly(folder.clone()).unwrap());
        let full = Digest { memory: Some((95, 100)), ..Digest::default() };
        assert!(Summary::of(&folder, &full).why.starts_with("killed while 95 % of the memory"));
        std::fs::write(folder.log(), "loading\nthread 'x' panicked at src/a.rs:1:2:\nboom\n").unwrap();
        assert!(Summary::of(&folder, &full).why.contains("panicked at src/a.rs:1:2)"));
        let worker = WorkerInfo { boot_id: "before".into(), ..WorkerInfo::this_process(None) };
        worker.write(folder.path()).unwrap();
        assert!(Summary::of(&folder, &full).why.starts_with("the machine restarted at step 0"));
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([0, 999, 1000, 1_218_000].map(thousands), ["0", "999", "1,000", "1,218,000"]);
        assert_eq!([5.0, 560.0, 18_000.0, 90_000.0].map(duration), ["5s", "9m", "5h", "1d"]);
    }
}
