//! The lock that the trainer holds on `lock` in its folder: it decides "running" against "died", and
//! refuses a second writer. The kernel lets go of it however the process ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use super::files::failed;
use super::host::{WorkerInfo, now};
use crate::{Error, Result};

const FILE: &str = "lock";
/// A prober holds the lock for microseconds; only who holds it longer is a trainer.
const PATIENCE: Duration = Duration::from_millis(300);
/// A worker on another host whose events are younger than this is taken to be alive.
const FRESH: f64 = 120.0;

/// The held lock; let go when dropped.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
}

/// Who trains in a folder.
#[derive(Debug, Clone, PartialEq)]
pub enum Holder {
    /// Nobody, as far as this host can tell.
    Nobody,
    /// A trainer on this host, or on another one over a file system that passes locks on.
    Trainer(Option<WorkerInfo>),
    /// The lock looks free from here, but the worker is another host's, did not say that it ended, and
    /// wrote `age` seconds ago: file systems exist that keep locks to each host.
    Elsewhere { worker: WorkerInfo, age: f64 },
}

impl Holder {
    pub fn is_live(&self) -> bool {
        !matches!(self, Holder::Nobody)
    }
}

impl RunLock {
    /// Takes the lock.
    ///
    /// # Errors
    /// When another trainer has it: the error says who, and how to join or stop it.
    pub fn acquire(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed("open the run's lock", &path))?;
        let began = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if began.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(TryLockError::WouldBlock) => return Err(taken(folder, WorkerInfo::read(folder), None)),
                // A file system without locks: the worker's word has to do.
                Err(TryLockError::Error(_)) => match by_process(folder) {
                    Holder::Trainer(worker) => return Err(taken(folder, worker, None)),
                    _ => break,
                },
            }
        }
        match elsewhere(folder) {
            Some((worker, age)) => Err(taken(folder, Some(worker), Some(age))),
            None => Ok(Self { _file: file }),
        }
    }
}

/// Who trains in `folder` at this moment. Takes microseconds and changes nothing.
pub fn holder(folder: &Path) -> Holder {
    let free = match File::open(folder.join(FILE)) {
        Err(_) => true,
        Ok(file) => match file.try_lock_shared() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(_)) => return by_process(folder),
        },
    };
    if !free {
        return Holder::Trainer(WorkerInfo::read(folder));
    }
    match elsewhere(folder) {
        Some((worker, age)) => Holder::Elsewhere { worker, age },
        None => Holder::Nobody,
    }
}

/// Without locks: the worker that the folder names, if its process lives here.
fn by_process(folder: &Path) -> Holder {
    match WorkerInfo::read(folder) {
        Some(worker) if worker.ended.is_none() && worker.process_lives() => Holder::Trainer(Some(worker)),
        _ => elsewhere(folder).map_or(Holder::Nobody, |(worker, age)| Holder::Elsewhere { worker, age }),
    }
}

/// A worker of another host that seems to be at work, and how many seconds ago it wrote.
fn elsewhere(folder: &Path) -> Option<(WorkerInfo, f64)> {
    let worker = WorkerInfo::read(folder).filter(|w| w.ended.is_none() && !w.on_this_host())?;
    let written = std::fs::metadata(folder.join("events.jsonl")).and_then(|m| m.modified()).ok()?;
    let age = now() - written.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs_f64();
    (age < FRESH).then_some((worker, age.max(0.0)))
}

fn taken(folder: &Path, worker: Option<WorkerInfo>, age: Option<f64>) -> Error {
    let who = match &worker {
        Some(w) if w.on_this_host() => format!("by process {} on this host", w.pid),
        Some(w) => format!("by process {} on {}", w.pid, w.host),
        None => "by a process that has not said who it is".into(),
    };
    let heard = age.map(|s| format!(", which wrote {s:.0} s ago")).unwrap_or_default();
    let dir = folder.display();
    let next = match age {
        Some(_) => format!("stop it there; if that host is gone, wait {FRESH:.0} s after its last event and try again"),
        None => format!("join it: `finetop attach {dir}`; end it: `finetop stop {dir}`"),
    };
    Error::new(format!("this run is being trained already, {who}{heard}")).at(dir).next(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_writer_is_refused_and_told_who_has_the_run() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(holder(dir.path()), Holder::Nobody);
        let lock = RunLock::acquire(dir.path()).unwrap();
        WorkerInfo::this_process(None).write(dir.path()).unwrap();
        let error = RunLock::acquire(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        assert!(error.contains("finetop attach"), "{error}");
        assert!(matches!(holder(dir.path()), Holder::Trainer(Some(_))));
        drop(lock);
        assert_eq!(holder(dir.path()), Holder::Nobody);
        RunLock::acquire(dir.path()).unwrap();
    }

    #[test]
    fn many_probes_never_refuse_a_trainer() {
        let dir = tempfile::tempdir().unwrap();
        drop(RunLock::acquire(dir.path()).unwrap());
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|s| {
            s.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    holder(dir.path());
                }
            });
            for _ in 0..50 {
                let lock = RunLock::acquire(dir.path());
                stop.fetch_or(lock.is_err(), std::sync::atomic::Ordering::Relaxed);
                lock.unwrap();
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }

    #[test]
    fn another_hosts_fresh_worker_is_not_written_over_and_an_old_one_is() {
        let dir = tempfile::tempdir().unwrap();
        let events = dir.path().join("events.jsonl");
        std::fs::write(&events, "").unwrap();
        let there = WorkerInfo { host: "node-3".into(), ..WorkerInfo::this_process(None) };
        there.write(dir.path()).unwrap();
        assert!(matches!(holder(dir.path()), Holder::Elsewhere { .. }));
        let error = RunLock::acquire(dir.path()).unwrap_err().to_string();
        assert!(error.contains("on node-3, which wrote"), "{error}");

        let old = std::time::SystemTime::now() - Duration::from_secs(600);
        File::options().write(true).open(&events).unwrap().set_modified(old).unwrap();
        assert_eq!(holder(dir.path()), Holder::Nobody);
        RunLock::acquire(dir.path()).unwrap();
    }
}
