//! Printing. A reader who has seen enough (`finetop runs | head`) ends the program quietly; a terminal
//! that has gone away ends nothing.

use serde::Serialize;
use std::io::{ErrorKind, IsTerminal, Write};

use crate::model::source::{self, Need};
use crate::{Error, Result};

/// Prints a result to stdout, with a line end if it has none.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let end = if text.ends_with('\n') || text.is_empty() { "" } else { "\n" };
    match out.write_all(text.as_bytes()).and_then(|()| out.write_all(end.as_bytes())).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(e) => Err(Error::new(format!("cannot write the output: {e}"))),
    }
}

/// Prints one line of a stream that is a by-product: a reader that has gone away ends nothing.
pub fn stream(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Prints a result as indented JSON.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    print(&serde_json::to_string_pretty(value)?)
}

/// Tells how it goes, on stderr. What cannot be told is not told: training goes on without a terminal.
pub fn progress(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Have all of a model on disk, telling how its download goes where it is one of the hub's.
pub fn fetch(model: &str) -> Result<()> {
    source::resolve_saying(model, Need::Everything, &mut progress).map(|_| ())
}

/// Whether a person sits before this: keys come in and a screen goes out.
pub fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// Columns of the terminal that stdout is; none where it is no terminal.
pub fn columns() -> Option<usize> {
    let out = std::io::stdout();
    let size = out.is_terminal().then(|| rustix::termios::tcgetwinsize(&out).ok())??;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// Whether only ASCII may be printed (`FINETOP_ASCII`).
pub fn ascii() -> bool {
    std::env::var_os("FINETOP_ASCII").is_some_and(|v| !v.is_empty() && v != "0")
}

/// Asks a question on the terminal; `y` or `yes` is yes, all else no. `None` where nobody can answer.
pub fn ask(question: &str) -> Option<bool> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return None;
    }
    let mut err = std::io::stderr().lock();
    let _ = write!(err, "{question} [y/N] ").and_then(|()| err.flush());
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).ok()?;
    Some(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
