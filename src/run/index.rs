//! The runs seen on this machine, wherever their folders are. Under `$XDG_STATE_HOME/finetop`:
//! `runs/` holds one file a run with the path of its folder, `digests/` what its events added up to when
//! last read. Never the truth: all of it can be deleted, and nothing fails where it cannot be written.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::digest::Digest;
use super::events::Tail;
use super::folder::RunFolder;
use super::host::WorkerInfo;
use super::lock::holder;
use super::places::state_home;
use super::summary::Summary;
use crate::{Error, Result};

/// A digest is kept again when so much was added to the events: reading that takes a few milliseconds.
const KEEP_AFTER: u64 = 256 * 1024;
/// The start of `events.jsonl`, its first event's time in it, tells one run from another of the same path.
const HEAD: usize = 96;

/// The index, in the folder it lives in.
#[derive(Debug, Clone)]
pub struct Index {
    home: Option<PathBuf>,
}

/// A digest and what it was made of.
#[derive(Serialize, Deserialize)]
struct Kept {
    version: String,
    head: String,
    offset: u64,
    digest: Digest,
}

impl Index {
    /// This user's.
    pub fn of_user() -> Self {
        Self { home: state_home() }
    }

    /// In a folder of the caller's choice.
    pub fn at(home: &Path) -> Self {
        Self { home: Some(home.to_owned()) }
    }

    /// Remembers a run's folder.
    pub fn remember(&self, folder: &RunFolder) {
        let Some(entry) = self.file("runs", folder.path()) else { return };
        if entry.exists() {
            return;
        }
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(entry.parent().unwrap_or(&entry))?;
            fs::write(&entry, folder.path().as_os_str().as_bytes())
        };
        // Only a convenience: the run does not depend on it.
        let _ = write();
    }

    /// Forgets a folder.
    pub fn forget(&self, dir: &Path) {
        for kind in ["runs", "digests"] {
            if let Some(file) = self.file(kind, dir) {
                let _ = fs::remove_file(file);
            }
        }
    }

    /// Remembers every run folder directly below `output_dir`.
    pub fn scan(&self, output_dir: &Path) {
        let Ok(entries) = fs::read_dir(output_dir) else { return };
        for dir in entries.flatten().map(|e| e.path()) {
            if let Ok(folder) = RunFolder::open(&dir) {
                self.remember(&folder);
            }
        }
    }

    /// The folders of all runs that are there. One whose folder is gone is forgotten.
    pub fn folders(&self) -> Vec<RunFolder> {
        let Some(runs) = self.home.as_ref().map(|home| home.join("runs")) else { return Vec::new() };
        let Ok(entries) = fs::read_dir(runs) else { return Vec::new() };
        let mut folders = Vec::new();
        for bytes in entries.flatten().filter_map(|e| fs::read(e.path()).ok()) {
            let dir = PathBuf::from(std::ffi::OsString::from_vec(bytes));
            match RunFolder::open(&dir) {
                Ok(folder) => folders.push(folder),
                Err(_) => self.forget(&dir),
            }
        }
        folders
    }

    /// All runs seen, the one whose trainer started last first.
    pub fn list(&self) -> Vec<Summary> {
        let mut all: Vec<Summary> = self.folders().par_iter().map(|folder| self.summary(folder)).collect();
        all.sort_by(|a, b| b.trainer_started.total_cmp(&a.trainer_started).then_with(|| a.dir.cmp(&b.dir)));
        all
    }

    /// One run's.
    pub fn summary(&self, folder: &RunFolder) -> Summary {
        Summary::of(folder, &self.digest(folder))
    }

    /// What the run's events add up to; reads only what was written since it was last kept.
    pub fn digest(&self, folder: &RunFolder) -> Digest {
        let file = self.file("digests", folder.path());
        let head = head(&folder.events());
        let kept = file.as_ref().and_then(|f| fs::read(f).ok()).and_then(|b| serde_json::from_slice::<Kept>(&b).ok());
        let kept = kept.filter(|k| k.version == env!("CARGO_PKG_VERSION") && k.head == head && !head.is_empty());
        let (mut digest, from) = kept.map_or((Digest::default(), 0), |k| (k.digest, k.offset));
        let mut tail = Tail::from_offset(folder.events(), from);
        match tail.read() {
            Ok(events) => events.iter().for_each(|event| digest.add(event)),
            Err(e) => digest.why = e.to_string(),
        }
        let ended = digest.state.is_some_and(super::RunState::is_final) && tail.offset() > from;
        let much = tail.offset() - from.min(tail.offset()) > KEEP_AFTER;
        if let Some(file) = file.filter(|_| ended || much) {
            let version = env!("CARGO_PKG_VERSION").to_owned();
            keep(&file, &Kept { version, head, offset: tail.offset(), digest: digest.clone() });
        }
        digest
    }

    /// The run that a person means: by folder, by name (the newest of that name), or, without a word, the
    /// newest live one on this host.
    pub fn find(&self, what: Option<&str>) -> Result<RunFolder> {
        let Some(what) = what else { return self.newest_live() };
        let path = Path::new(what);
        if path.is_dir() || what.contains('/') {
            // A folder of the run's name in which nothing was trained does not hide the run.
            match RunFolder::open(path) {
                Ok(folder) => {
                    self.remember(&folder);
                    return Ok(folder);
                }
                Err(e) if what.contains('/') => return Err(e),
                Err(_) => {}
            }
        }
        let folders = self.folders();
        let named = folders.iter().filter(|f| f.name() == what).cloned().collect();
        newest(named).ok_or_else(|| {
            let error = Error::usage(format!("there is no run {what:?}"));
            let near = folders
                .iter()
                .map(RunFolder::name)
                .max_by(|a, b| strsim::jaro_winkler(a, what).total_cmp(&strsim::jaro_winkler(b, what)));
            match near.filter(|name| strsim::jaro_winkler(name, what) > 0.8) {
                Some(name) => error.next(format!("did you mean {name}? `finetop runs` lists all")),
                None => error.next("`finetop runs` lists all; a run folder's path is taken too"),
            }
        })
    }

    /// `RUN` or `RUN@STEP`.
    pub fn find_with_step(&self, what: &str) -> Result<(RunFolder, Option<u64>)> {
        match what.rsplit_once('@') {
            Some((run, step)) if !Path::new(what).is_dir() => {
                let step = step.parse().map_err(|_| {
                    Error::usage(format!("{step:?} is no step")).at(what).next("write RUN@STEP, as in my-run@200")
                })?;
                Ok((self.find(Some(run))?, Some(step)))
            }
            _ => Ok((self.find(Some(what))?, None)),
        }
    }

    fn newest_live(&self) -> Result<RunFolder> {
        let live = self.folders().into_iter().filter(|f| holder(f.path()).is_live());
        let here = live.filter(|f| WorkerInfo::read(f.path()).is_none_or(|w| w.on_this_host())).collect();
        newest(here).ok_or_else(|| {
            Error::new("no run is being trained on this host").next("`finetop runs` lists all; name one to open it")
        })
    }

    fn file(&self, kind: &str, dir: &Path) -> Option<PathBuf> {
        let name = &blake3::hash(dir.as_os_str().as_bytes()).to_hex()[..16];
        Some(self.home.as_ref()?.join(kind).join(name))
    }
}

fn newest(folders: Vec<RunFolder>) -> Option<RunFolder> {
    let started = |f: &RunFolder| WorkerInfo::read(f.path()).map_or(0.0, |w| w.started);
    folders.into_iter().max_by(|a, b| started(a).total_cmp(&started(b)))
}

fn head(events: &Path) -> String {
    let mut bytes = [0; HEAD];
    let read = fs::File::open(events).and_then(|mut f| std::io::Read::read(&mut f, &mut bytes)).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}

/// Renamed in, so that two who list at once do not mix; not synced, since it can be made again.
fn keep(file: &Path, kept: &Kept) {
    let write = || -> Result<()> {
        fs::create_dir_all(file.parent().unwrap_or(file))?;
        let beside = file.with_extension(format!("tmp-{}-{:?}", std::process::id(), std::thread::current().id()));
        fs::write(&beside, serde_json::to_vec(kept)?)?;
        Ok(fs::rename(&beside, file)?)
    };
    // Without it the next listing is slower.
    let _ = write();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::event::{Body, RunState, State};
    use crate::run::{Session, Status};
    use crate::train::outlet::Outlet;

    struct Place {
        out: tempfile::TempDir,
        index: Index,
    }

    fn place() -> Place {
        let out = tempfile::tempdir().unwrap();
        Place { index: Index::at(&out.path().join("state")), out }
    }

    impl Place {
        fn output(&self, name: &str) -> PathBuf {
            self.out.path().join(name)
        }

        /// A run that says `state` and, if `live`, goes on.
        fn run(&self, output: &str, name: &str, state: RunState, live: bool) -> (RunFolder, Option<Session>) {
            let folder = RunFolder::create(&self.output(output), name).unwrap();
            let mut session = Session::open_quietly(folder.clone()).unwrap();
            session.emit(1, Body::State(State { state, why: String::new() })).unwrap();
            self.index.remember(&folder);
            (folder, live.then_some(session))
        }
    }

    #[test]
    fn runs_are_listed_newest_first_and_those_whose_folder_is_gone_are_dropped() {
        let place = place();
        let (old, _) = place.run("a", "old", RunState::Finished, false);
        let (new, _session) = place.run("b", "new", RunState::Running, true);
        let names = |index: &Index| index.list().into_iter().map(|s| (s.name, s.state)).collect::<Vec<_>>();
        assert_eq!(names(&place.index), [("new".to_owned(), Status::Running), ("old".to_owned(), Status::Finished)]);
        fs::remove_dir_all(old.path()).unwrap();
        assert_eq!(names(&place.index).len(), 1);
        assert_eq!(fs::read_dir(place.output("state/runs")).unwrap().count(), 1, "forgotten, not only hidden");
        place.index.forget(new.path());
        assert!(place.index.list().is_empty());
    }

    #[test]
    fn a_deleted_index_is_rebuilt_by_looking_into_the_output_folder() {
        let place = place();
        place.run("runs", "a", RunState::Finished, false);
        place.run("runs", "b", RunState::Finished, false);
        fs::create_dir(place.output("runs").join("no-run")).unwrap();
        let before = place.index.list();
        fs::remove_dir_all(place.output("state")).unwrap();
        assert!(place.index.list().is_empty());
        place.index.scan(&place.output("runs"));
        assert_eq!(place.index.list(), before);
    }

    #[test]
    fn a_kept_digest_is_gone_on_from_and_never_taken_for_another_runs() {
        let place = place();
        let (folder, _) = place.run("a", "r", RunState::Finished, false);
        let first = place.index.digest(&folder);
        assert_eq!(fs::read_dir(place.output("state/digests")).unwrap().count(), 1);
        let mut session = Session::open_quietly(folder.clone()).unwrap();
        session.emit(2, Body::State(State { state: RunState::Failed, why: "later".into() })).unwrap();
        drop(session);
        let second = place.index.digest(&folder);
        assert_eq!((second.first, second.state, second.why.as_str()), (first.first, Some(RunState::Failed), "later"));

        // The same path, another run, and longer than the old one was.
        fs::remove_dir_all(folder.path()).unwrap();
        let (folder, session) = place.run("a", "r", RunState::Preparing, true);
        let mut session = session.unwrap();
        (0..20).for_each(|n| {
            session.emit(n, Body::State(State { state: RunState::Running, why: String::new() })).unwrap()
        });
        let third = place.index.digest(&folder);
        assert!(third.first > second.first);
        assert_eq!(third.why, "");
    }

    #[test]
    fn a_damaged_digest_is_made_anew() {
        let place = place();
        let (folder, _) = place.run("a", "r", RunState::Finished, false);
        let first = place.index.digest(&folder);
        for entry in fs::read_dir(place.output("state/digests")).unwrap() {
            fs::write(entry.unwrap().path(), "{\"version\":").unwrap();
        }
        assert_eq!(place.index.digest(&folder), first);
    }

    #[test]
    fn a_run_is_found_by_folder_by_name_and_the_newest_of_a_name_wins() {
        let place = place();
        let (old, _) = place.run("a", "same", RunState::Finished, false);
        let (new, _) = place.run("b", "same", RunState::Finished, false);
        assert_eq!(place.index.find(Some("same")).unwrap(), new);
        assert_eq!(place.index.find(old.path().to_str()).unwrap(), old);
        let with_step = format!("{}@200", old.path().display());
        assert_eq!(place.index.find_with_step(&with_step).unwrap(), (old, Some(200)));
        assert_eq!(place.index.find_with_step("same").unwrap(), (new, None));
        assert!(place.index.find_with_step("same@x").unwrap_err().to_string().contains("no step"));
        let error = place.index.find(Some("sane")).unwrap_err();
        assert_eq!(error.kind, crate::Kind::Usage);
        assert!(error.to_string().contains("did you mean same"), "{error}");
    }

    #[test]
    fn without_a_word_the_newest_live_run_is_meant() {
        let place = place();
        let (first, session) = place.run("a", "first", RunState::Running, true);
        place.run("a", "ended", RunState::Finished, false);
        assert_eq!(place.index.find(None).unwrap(), first);
        drop(session);
        assert!(place.index.find(None).unwrap_err().to_string().contains("no run is being trained"));
    }

    #[test]
    fn a_state_folder_that_cannot_be_written_fails_nothing() {
        let place = place();
        let index = Index::at(Path::new("/proc/nowhere"));
        let (folder, _) = place.run("a", "r", RunState::Finished, false);
        index.remember(&folder);
        assert!(index.list().is_empty());
        assert_eq!(index.summary(&folder).state, Status::Finished);
    }
}
