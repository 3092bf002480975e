//! An export in a process of its own, which outlives the terminal it was asked for in.

use super::word::{self, Word};
use crate::run::files::failed;
use crate::run::worker::this_program;
use crate::{Error, Result};
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a viewer asks for; what is left open is as `finetop export` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub what: String,
    /// As `--gguf` takes them, and `lora` and `merged`.
    pub kinds: Vec<String>,
    pub name: String,
}

/// Starts it; [`super::words`] of `out` tell how it goes. Should it die without a word, that is said there too.
///
/// # Errors
/// When the folder cannot be made, or the program not be started.
pub fn start(wanted: &Wanted, out: &Path) -> Result<()> {
    std::fs::create_dir_all(out).map_err(failed("make the export's folder", out))?;
    // What an earlier export said must not be taken for this one's words.
    drop(word::Writer::create(out)?);
    let log_path = out.join("export.log");
    let log = File::create(&log_path).map_err(failed("write the export's log", &log_path))?;
    let errors = log.try_clone().map_err(failed("write the export's log", &log_path))?;
    let program = this_program()?;
    let mut command = Command::new(&program);
    command.arg("export").arg(&wanted.what).arg("--out").arg(out).arg("--name").arg(&wanted.name).arg("--worker");
    let ggufs: Vec<&str> =
        wanted.kinds.iter().map(String::as_str).filter(|k| !matches!(*k, "lora" | "merged")).collect();
    if !ggufs.is_empty() {
        command.arg("--gguf").arg(ggufs.join(","));
    }
    for kind in ["lora", "merged"] {
        if wanted.kinds.iter().any(|k| k == kind) {
            command.arg(format!("--{kind}"));
        }
    }
    command.stdin(Stdio::null()).stdout(log).stderr(errors);
    let mut child = command.spawn().map_err(failed("start the export", &program))?;
    let out = out.to_owned();
    std::thread::spawn(move || {
        let Ok(status) = child.wait() else { return };
        let ended = |w: &Word| matches!(w, Word::Ended { .. } | Word::Failed { .. });
        if word::read(&out).is_ok_and(|words| !words.iter().any(ended)) {
            let why =
                Error::new(format!("the export ended with {status}")).at(out.display()).next("export.log says more");
            let _ = word::Writer::append(&out).and_then(|mut w| w.write(&Word::Failed { why: why.to_string() }));
        }
    });
    Ok(())
}
