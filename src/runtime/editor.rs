//! A person's own editor, on the restored terminal.

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};
use std::path::Path;
use std::process::Command;

use crate::{Error, Result};

/// Opens `path` in `$VISUAL`, `$EDITOR` or `vi`, and waits for it. The terminal must have been given back.
///
/// # Errors
/// There is no such editor, or it says that it failed; the file is then what the editor left.
pub fn edit(path: &Path) -> Result<()> {
    let set = |name: &str| std::env::var(name).ok().filter(|v| !v.trim().is_empty());
    let editor = set("VISUAL").or_else(|| set("EDITOR")).unwrap_or_else(|| "vi".into());
    // The variable may hold arguments (`code --wait`), so the shell reads it, and the path stays one word.
    let child = Command::new("sh")
        .args(["-c", &format!("exec {editor} \"$1\""), "sh"])
        .arg(path)
        .spawn()
        .map_err(|e| Error::new(format!("{editor} cannot be started: {e}")).next("set VISUAL or EDITOR"))?;
    if wait(child.id())? {
        return Ok(());
    }
    Err(Error::new(format!("{editor} ended with an error")).next("set VISUAL or EDITOR to an editor that is installed"))
}

/// Waits for the editor; true when it ended well. When it is stopped (Ctrl-Z in it) so are we, so that the
/// shell takes over; it wakes both.
fn wait(id: u32) -> Result<bool> {
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw);
    loop {
        match waitpid(pid, WaitOptions::UNTRACED) {
            Ok(Some((_, status))) if status.stopped() => {
                let _ = kill_process(getpid(), Signal::STOP);
            }
            Ok(Some((_, status))) => return Ok(status.exit_status() == Some(0)),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Error::new(format!("the editor cannot be waited for: {e}"))),
        }
    }
}
