//! Who and where this process is: what a run folder on a shared file system has to know about its worker.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::files::write_beside_and_rename;
use crate::Result;

/// `worker.json`: the process that trains, or trained, in this folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerInfo {
    pub host: String,
    pub pid: u32,
    /// Differs after a reboot, so that a process id is never taken for another's. Empty where there is none.
    pub boot_id: String,
    /// Where commands are taken; none where no socket could be made.
    pub socket: Option<PathBuf>,
    /// Unix time in seconds.
    pub started: f64,
    /// When the worker left in good order; none while it runs, and for ever if it was killed.
    #[serde(default)]
    pub ended: Option<f64>,
}

impl WorkerInfo {
    pub const FILE: &str = "worker.json";

    /// This process, as the worker.
    pub fn this_process(socket: Option<PathBuf>) -> Self {
        Self { host: host_name(), pid: std::process::id(), boot_id: boot_id(), socket, started: now(), ended: None }
    }

    /// What the folder says; none where the file is missing or unreadable.
    pub fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(folder.join(Self::FILE)).ok()?).ok()
    }

    pub fn write(&self, folder: &Path) -> Result<()> {
        write_beside_and_rename(&folder.join(Self::FILE), &serde_json::to_vec(self)?)
    }

    pub fn on_this_host(&self) -> bool {
        self.host == host_name()
    }

    /// Whether the host has not restarted since; true where it cannot be known.
    pub fn same_boot(&self) -> bool {
        let here = boot_id();
        here.is_empty() || self.boot_id.is_empty() || here == self.boot_id
    }

    /// Whether a process with its id lives on this host. Says nothing for another host.
    pub fn process_lives(&self) -> bool {
        self.on_this_host() && self.same_boot() && process_lives(self.pid)
    }
}

/// Whether a process with this id exists on this host (a zombie counts as gone).
pub fn process_lives(pid: u32) -> bool {
    let Some(id) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else { return false };
    // EPERM: it is there, and somebody else's.
    let there = !matches!(rustix::process::test_kill_process(id), Err(rustix::io::Errno::SRCH));
    there && !is_zombie(pid)
}

fn is_zombie(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the command name, which is in parentheses and may hold anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

pub fn host_name() -> String {
    sysinfo::System::host_name().unwrap_or_else(|_| "unknown host".into())
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|s| s.trim().to_owned()).unwrap_or_default()
}

/// Unix time in seconds.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|d| d.as_secs_f64()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_a_reaped_child_does_not() {
        assert!(WorkerInfo::this_process(None).process_lives());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert!(!process_lives(pid));
    }

    #[test]
    fn a_zombie_counts_as_gone() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        for _ in 0..200 {
            if !process_lives(pid) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(!process_lives(pid), "not waited for yet, and still gone");
        child.wait().unwrap();
    }

    #[test]
    fn a_process_of_another_host_or_boot_is_never_taken_for_ours() {
        let here = WorkerInfo::this_process(None);
        assert!(!WorkerInfo { host: "elsewhere".into(), ..here.clone() }.process_lives());
        assert!(!WorkerInfo { boot_id: "another boot".into(), ..here }.process_lives());
    }
}
