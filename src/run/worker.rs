//! Starting a trainer as a process of its own, which outlives the terminal it was started from.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::files::failed;
use super::folder::RunFolder;
use super::host::WorkerInfo;
use super::lock::{Holder, holder};
use super::places::state_home;
use crate::{Error, Kind, Result};

/// On a busy file server even a small folder takes its time.
const COME_UP: Duration = Duration::from_secs(60);

/// What to train, as the `finetop train` of the new process gets it.
#[derive(Debug, Clone, Default)]
pub struct Launch {
    /// A recipe's path, or `demo`; may be left out with `resume`.
    pub recipe: Option<OsString>,
    /// `a.b=v`, each.
    pub set: Vec<String>,
    /// `RUN` or `RUN@STEP`.
    pub resume: Option<String>,
    /// How many processes train together; one if not given.
    pub processes: Option<usize>,
    /// The executable; this one if not given.
    pub program: Option<PathBuf>,
}

/// A trainer that has come up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    pub dir: PathBuf,
    pub pid: u32,
}

/// Starts a trainer for `folder`, with its output in the folder's `run.log`, and waits until it holds the
/// run or has failed.
///
/// # Errors
/// What the trainer said in failing, with its kind. A folder that was made for it and in which nothing
/// began is removed.
pub fn start(folder: &RunFolder, launch: &Launch) -> Result<Started> {
    let fresh = !folder.has_begun();
    let started = spawn_and_wait(folder, launch);
    if started.is_err() && fresh && !folder.has_begun() {
        // There is nothing in it but the log of a failure, which the error tells.
        let _ = std::fs::remove_dir_all(folder.path());
    }
    started
}

fn spawn_and_wait(folder: &RunFolder, launch: &Launch) -> Result<Started> {
    let path = folder.log();
    let log = OpenOptions::new().create(true).append(true).open(&path).map_err(failed("open the run's log", &path))?;
    let said_before = log.metadata().map_err(failed("read the run's log", &path))?.len();
    let errors = log.try_clone().map_err(failed("open the run's log", &path))?;
    let program = launch.program.clone().map_or_else(this_program, Ok)?;
    let mut command = Command::new(&program);
    command.arg("train").args(&launch.recipe);
    for value in &launch.set {
        command.arg("--set").arg(value);
    }
    if let Some(n) = launch.processes {
        command.arg("--nproc-per-node").arg(n.to_string());
    }
    match &launch.resume {
        Some(run) => command.arg("--resume").arg(run),
        None => command.arg("--run-dir").arg(folder.path()),
    };
    // `--worker`: the process makes a session of its own before anything else; see `become_worker`.
    command.arg("--worker").stdin(Stdio::null()).stdout(log).stderr(errors);
    let mut child = command.spawn().map_err(failed("start the trainer", &program))?;
    let pid = child.id();
    match wait_until_up(&mut child, folder, said_before) {
        Ok(()) => {
            // So that it does not stay a zombie for as long as this process lives.
            std::thread::spawn(move || child.wait());
            Ok(Started { dir: folder.path().to_owned(), pid })
        }
        Err(e) => Err(e),
    }
}

fn wait_until_up(child: &mut Child, folder: &RunFolder, said_before: u64) -> Result<()> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return if status.success() { Ok(()) } else { Err(early_end(folder, said_before, status)) };
        }
        let holds = matches!(holder(folder.path()), Holder::Trainer(Some(w)) if w.pid == child.id());
        if holds && folder.has_begun() && WorkerInfo::read(folder.path()).is_some_and(|w| w.pid == child.id()) {
            return Ok(());
        }
        if began.elapsed() > COME_UP {
            child.kill()?;
            child.wait()?;
            return Err(Error::new(format!("the trainer did not come up within {} s", COME_UP.as_secs()))
                .at(folder.log().display())
                .next("`finetop train` without --detach shows what it does"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The error that a trainer printed, as it was before it was printed.
fn early_end(folder: &RunFolder, said_before: u64, status: ExitStatus) -> Error {
    let bytes = std::fs::read(folder.log()).unwrap_or_default();
    let said = bytes.get(usize::try_from(said_before).unwrap_or(0)..).unwrap_or_default();
    let said = String::from_utf8_lossy(said);
    let kind = status.code().and_then(kind_of).unwrap_or(Kind::Failed);
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("with exit code {code}"),
        (None, signal) => format!("by signal {}", signal.unwrap_or_default()),
    };
    // The last that it printed as an error; a panic has no such line.
    let start = said.rmatch_indices(PREFIX).map(|(at, _)| at).find(|&at| at == 0 || said[..at].ends_with('\n'));
    let Some(start) = start else {
        let end: Vec<&str> = said.lines().rev().take(5).collect();
        let end = end.into_iter().rev().collect::<Vec<_>>().join("\n  ");
        return Error::new(format!("the trainer ended {how} before it began\n  {end}")).kind(kind);
    };
    let text = said[start + PREFIX.len()..].trim_end();
    match text.split_once("\n  → ") {
        Some((what, next)) => Error::new(what).kind(kind).next(next),
        None => Error::new(text).kind(kind),
    }
}

/// What every error line of the program begins with.
pub const PREFIX: &str = "finetop: ";

fn kind_of(code: i32) -> Option<Kind> {
    use Kind::{Blocked, Failed, Finding, Interrupted, OutOfMemory, Resumable, Usage};
    [Failed, Usage, Blocked, Finding, OutOfMemory, Resumable, Interrupted]
        .into_iter()
        .find(|kind| i32::from(kind.exit_code()) == code)
}

/// The file of this program, to start it again.
pub fn this_program() -> Result<PathBuf> {
    let program = std::env::current_exe().map_err(|e| Error::new(format!("cannot find this program's file: {e}")))?;
    // After an update the file of the running program has no name any more, but still this handle.
    Ok(if program.exists() { program } else { PathBuf::from("/proc/self/exe") })
}

/// Makes this process one that no terminal's end reaches: a session of its own. The first thing that a
/// trainer started by [`start`] does; its standard streams are the log already.
pub fn become_worker() -> Result<()> {
    match rustix::process::setsid() {
        // EPERM: it leads a session or a group already.
        Ok(_) | Err(rustix::io::Errno::PERM) => Ok(()),
        Err(e) => Err(Error::new(format!("cannot leave the terminal's session: {e}"))),
    }
}

/// Why training has to stay in the foreground here, where it has to.
pub fn stays_in_foreground() -> Option<String> {
    let job = std::env::var("SLURM_JOB_ID").ok().filter(|id| !id.is_empty())?;
    Some(format!(
        "this is Slurm job {job}: Slurm ends a job with the command it started, so training stays in the foreground"
    ))
}

/// What to do so that a log-out does not end training, where logind would; said once, then never again.
pub fn logout_hint() -> Option<String> {
    let told = state_home()?.join("told-logind");
    if told.exists() || !kills_user_processes(Path::new("/etc/systemd")) {
        return None;
    }
    let user = std::env::var("USER").ok().filter(|u| !u.is_empty())?;
    if Path::new("/var/lib/systemd/linger").join(&user).exists() {
        return None;
    }
    std::fs::create_dir_all(told.parent()?).and_then(|()| std::fs::write(&told, "")).ok()?;
    Some(
        "this machine ends a user's processes at log-out (logind, KillUserProcesses=yes); \
         `loginctl enable-linger` keeps training alive"
            .into(),
    )
}

/// Whether logind is configured to; its own default is no. Later files win, as for logind.
fn kills_user_processes(etc: &Path) -> bool {
    let mut files: Vec<PathBuf> = std::fs::read_dir(etc.join("logind.conf.d"))
        .map(|entries| {
            entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "conf")).collect()
        })
        .unwrap_or_default();
    files.sort();
    files.insert(0, etc.join("logind.conf"));
    let lines = files.iter().filter_map(|f| std::fs::read_to_string(f).ok());
    let values = lines.flat_map(|text| {
        let value = |line: &str| line.trim().strip_prefix("KillUserProcesses=").map(|v| v.trim().to_lowercase());
        text.lines().filter_map(value).collect::<Vec<_>>()
    });
    values.last().is_some_and(|v| matches!(v.as_str(), "yes" | "true" | "on" | "1"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A program that stands for a trainer.
    fn program(dir: &Path, script: &str) -> Launch {
        let path = dir.join("trainer");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        // While another test's thread is between fork and exec it may hold the file open for writing, and
        // the kernel then refuses to run it.
        let busy =
            || matches!(Command::new(&path).output(), Err(e) if e.kind() == std::io::ErrorKind::ExecutableFileBusy);
        while busy() {
            std::thread::sleep(Duration::from_millis(5));
        }
        Launch { recipe: Some("r.toml".into()), program: Some(path), ..Launch::default() }
    }

    #[test]
    fn an_early_failure_comes_back_in_its_own_words_and_leaves_no_folder() {
        let out = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(out.path(), "r").unwrap();
        let script = "echo loading; printf 'finetop: r.toml:3: unknown key\\n  → learning_rate?\\n' >&2; exit 2";
        let error = start(&folder, &program(out.path(), script)).unwrap_err();
        assert_eq!(error, Error::usage("r.toml:3: unknown key").next("learning_rate?"));
        assert!(!folder.path().exists());
    }

    #[test]
    fn a_trainer_that_dies_without_a_word_is_told_with_its_signal_and_last_lines() {
        let out = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(out.path(), "r").unwrap();
        let error = start(&folder, &program(out.path(), "echo last words; kill -9 $$")).unwrap_err().to_string();
        assert!(error.contains("by signal 9") && error.contains("last words"), "{error}");
    }

    #[test]
    fn a_failing_resume_keeps_the_run_and_tells_only_what_is_new() {
        let out = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(out.path(), "r").unwrap();
        std::fs::write(folder.events(), "").unwrap();
        std::fs::write(folder.log(), "finetop: an old error\n").unwrap();
        let launch = Launch { resume: Some("r".into()), ..program(out.path(), "exit 1") };
        let error = start(&folder, &launch).unwrap_err().to_string();
        assert!(!error.contains("old error"), "{error}");
        assert!(folder.has_begun());
    }

    #[test]
    fn the_trainer_gets_its_arguments_and_a_missing_program_is_named() {
        let out = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(out.path(), "r").unwrap();
        let mut launch = program(out.path(), "echo \"$@\" > \"$(dirname $0)/args\"");
        launch.set = vec!["train.seed=1".into()];
        start(&folder, &launch).unwrap();
        let args = std::fs::read_to_string(out.path().join("args")).unwrap();
        let expected = format!("train r.toml --set train.seed=1 --run-dir {} --worker\n", folder.path().display());
        assert_eq!(args, expected);

        launch.program = Some(out.path().join("gone"));
        assert!(start(&folder, &launch).unwrap_err().to_string().contains("gone: cannot start the trainer"));
    }

    #[test]
    fn logind_is_believed_with_the_last_file_winning() {
        let etc = tempfile::tempdir().unwrap();
        assert!(!kills_user_processes(etc.path()));
        std::fs::write(etc.path().join("logind.conf"), "[Login]\n#KillUserProcesses=no\nKillUserProcesses=yes\n")
            .unwrap();
        assert!(kills_user_processes(etc.path()));
        std::fs::create_dir(etc.path().join("logind.conf.d")).unwrap();
        std::fs::write(etc.path().join("logind.conf.d/10.conf"), "[Login]\nKillUserProcesses=no\n").unwrap();
        assert!(!kills_user_processes(etc.path()));
    }
}
