//! A person's own program as a reward function, in any language: started once, it reads one JSON object a line and
//! answers each with one line, a number (or `null`: nothing to say).
//!
//! An object has `prompt`, `completion`, and the row's other columns. A program that ends, answers something else, or
//! takes longer than its timeout is started again, once, for the same completion; the second failure ends the run.

use super::Answer;
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What is kept of a program's stderr, for the error.
const LAST_WORDS: usize = 2000;

pub struct Program {
    command: Vec<String>,
    timeout: Duration,
    running: Option<Running>,
}

struct Running {
    child: Child,
    to: ChildStdin,
    lines: Receiver<String>,
    said: Arc<Mutex<VecDeque<u8>>>,
}

impl Program {
    pub fn new(command: Vec<String>, timeout: Duration) -> Self {
        Self { command, timeout, running: None }
    }

    /// The score of one answer.
    ///
    /// # Errors
    /// Where the program fails twice: how, and the last of what it wrote to stderr.
    pub fn score(&mut self, a: &Answer) -> Result<f64> {
        let line = request(a);
        match self.ask(&line) {
            Ok(score) => Ok(score),
            Err(_) => {
                self.end();
                self.ask(&line).map_err(|what| self.failed(&what))
            }
        }
    }

    fn ask(&mut self, line: &str) -> std::result::Result<f64, String> {
        let timeout = self.timeout;
        if self.running.is_none() {
            self.running = Some(start(&self.command)?);
        }
        let Some(running) = &mut self.running else { return Err("it is not running".into()) };
        let sent = running.to.write_all(line.as_bytes()).and_then(|()| running.to.flush());
        // A program that ended is told by its silence: the pipe's own error says less.
        match running.lines.recv_timeout(if sent.is_ok() { timeout } else { Duration::from_secs(1) }) {
            Ok(answer) => match serde_json::from_str::<Option<f64>>(answer.trim()) {
                Ok(score) => Ok(score.unwrap_or(f64::NAN)),
                Err(_) => Err(format!("it answered {:?}, which is not one number", cut(answer.trim()))),
            },
            Err(RecvTimeoutError::Timeout) => Err(format!(
                "it did not answer within {} s (a program must write out each line at once: print(score, flush=True))",
                timeout.as_secs_f64()
            )),
            Err(RecvTimeoutError::Disconnected) => Err(match running.child.wait() {
                Ok(status) => format!("it ended without an answer ({status})"),
                Err(e) => format!("it ended without an answer ({e})"),
            }),
        }
    }

    fn failed(&mut self, what: &str) -> Error {
        let said = self.running.as_ref().map(|r| {
            let said = r.said.lock().unwrap_or_else(PoisonError::into_inner);
            String::from_utf8_lossy(&said.iter().copied().collect::<Vec<_>>()).trim().to_string()
        });
        self.end();
        let said = said.filter(|s| !s.is_empty()).map_or(String::new(), |s| format!("; it wrote to stderr:\n{s}"));
        Error::new(format!("the reward program failed twice: {what}{said}"))
            .at(self.command.join(" "))
            .next("mend it, try it by hand with one JSON object a line, then resume the run")
    }

    fn end(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end();
    }
}

fn start(command: &[String]) -> std::result::Result<Running, String> {
    let Some((program, arguments)) = command.split_first() else { return Err("its command is empty".into()) };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("it cannot be started: {e}"))?;
    let (Some(to), Some(out), Some(mut err)) = (child.stdin.take(), child.stdout.take(), child.stderr.take()) else {
        return Err("its pipes cannot be opened".into());
    };
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(std::result::Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let said = Arc::new(Mutex::new(VecDeque::new()));
    let kept = said.clone();
    std::thread::spawn(move || {
        let mut piece = [0; 512];
        while let Ok(n @ 1..) = err.read(&mut piece) {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend(&piece[..n]);
            let more = kept.len().saturating_sub(LAST_WORDS);
            kept.drain(..more);
        }
    });
    Ok(Running { child, to, lines, said })
}

/// One line: the row's columns, with the prompt and the completion.
fn request(a: &Answer) -> String {
    let mut object: Map<String, Value> = a.columns.clone();
    object.insert("prompt".into(), a.prompt.clone());
    object.insert("completion".into(), a.completion.into());
    format!("{}\n", Value::Object(object))
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}
