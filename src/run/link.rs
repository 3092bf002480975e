//! A viewer's end of a run: its events from the file, its commands over the control socket, or, in the
//! trainer's own process, over a channel. One protocol, two transports.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::command::Command;
use super::event::Event;
use super::events::Tail;
use super::folder::RunFolder;
use super::host::WorkerInfo;
use super::lock::{Holder, holder};
use super::server::{Reply, Watch};
use crate::{Error, Result};

/// The server only queues a command before it answers: an answer that takes longer will not come.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// The trainer's end within its own process, from [`super::Session::local_end`].
#[derive(Debug, Clone)]
pub struct LocalEnd {
    pub(super) dir: PathBuf,
    pub(super) commands: Sender<Command>,
    pub(super) alive: Arc<AtomicBool>,
    pub(super) watching: Arc<AtomicUsize>,
}

impl LocalEnd {
    /// The run folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether the session is still open.
    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::SeqCst)
    }

    /// Tells the trainer.
    pub fn send(&self, command: Command) -> Result<()> {
        self.commands.send(command).map_err(|_| Error::new("the training in this process has ended"))
    }
}

/// A run, as a viewer has it. Works for finished and dead runs too: only [`Link::send`] needs a trainer.
pub struct Link {
    dir: PathBuf,
    tail: Tail,
    end: End,
}

enum End {
    Local(LocalEnd),
    Socket(Option<Connection>),
}

impl Link {
    /// Opens a run folder as a viewer; connects if a trainer is at work.
    pub fn open(dir: &Path) -> Result<Self> {
        let folder = RunFolder::open(dir)?;
        let mut link = Self { dir: folder.path().to_owned(), tail: Tail::new(folder.events()), end: End::Socket(None) };
        // A run without a trainer can still be looked at.
        let _ = link.connect(true);
        Ok(link)
    }

    /// To the trainer in this process.
    pub fn local(end: LocalEnd) -> Self {
        Self { tail: Tail::new(end.dir.join("events.jsonl")), dir: end.dir.clone(), end: End::Local(end) }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The events since the last call; the first call returns all. Reads a file, so it is quick.
    pub fn events(&mut self) -> Result<Vec<Event>> {
        self.tail.read()
    }

    /// How many terminals watch this run, this one included. 0 when no trainer answers.
    pub fn watching(&mut self) -> usize {
        match &mut self.end {
            End::Local(end) => end.watching.load(Ordering::SeqCst) + 1,
            End::Socket(connection) => {
                if connection.as_mut().is_some_and(|c| c.drain().is_err()) {
                    *connection = None;
                }
                connection.as_ref().map_or(0, |c| c.watching)
            }
        }
    }

    /// Whether a trainer is at work in the folder.
    pub fn alive(&self) -> bool {
        match &self.end {
            End::Local(end) => end.is_alive(),
            End::Socket(_) => holder(&self.dir).is_live(),
        }
    }

    /// Sends a command; returns when the trainer has taken it, which is before it has acted on it.
    ///
    /// # Errors
    /// When no trainer is there, with what to do about it; when it refuses.
    pub fn send(&mut self, command: Command) -> Result<()> {
        if let End::Local(end) = &self.end {
            return end.send(command);
        }
        let line = serde_json::to_string(&command)?;
        // A connection from before a resume belongs to a trainer that is gone: once more, with a new one.
        if let End::Socket(Some(connection)) = &mut self.end {
            match connection.ask(&line) {
                Ok(answer) => return answer.map_err(Error::new),
                Err(_) => self.end = End::Socket(None),
            }
        }
        self.connect(true)?;
        let End::Socket(Some(connection)) = &mut self.end else { return Err(self.nobody()) };
        match connection.ask(&line) {
            Ok(answer) => answer.map_err(Error::new),
            Err(e) => {
                self.end = End::Socket(None);
                Err(Error::new(format!("the trainer did not answer: {e}"))
                    .at(self.dir.display())
                    .next("`finetop status` says whether it lives; run.log in the run folder says what it did last"))
            }
        }
    }

    /// Connects as a viewer if a trainer has come since.
    fn connect(&mut self, watch: bool) -> Result<()> {
        let connection = connect(&self.dir, watch).map_err(|e| e.unwrap_or_else(|| self.nobody()))?;
        self.end = End::Socket(Some(connection));
        Ok(())
    }

    /// Connects if it is not connected and a trainer is there. For a viewer to call now and then, so that
    /// it finds a run's next trainer after a resume.
    pub fn reconnect(&mut self) {
        if matches!(self.end, End::Socket(None)) {
            let _ = self.connect(true);
        }
    }

    fn nobody(&self) -> Error {
        nobody(&self.dir)
    }
}

/// Sends one command without becoming a viewer: what `finetop stop` does.
pub fn send_once(dir: &Path, command: &Command) -> Result<()> {
    let line = serde_json::to_string(command)?;
    let mut connection = connect(dir, false).map_err(|e| e.unwrap_or_else(|| nobody(dir)))?;
    connection
        .ask(&line)
        .map_err(|e| Error::new(format!("the trainer did not answer: {e}")).at(dir.display()))?
        .map_err(Error::new)
}

/// Connects to the trainer in `dir`. `Err(None)`: there is none.
fn connect(dir: &Path, watch: bool) -> std::result::Result<Connection, Option<Error>> {
    let worker = match holder(dir) {
        Holder::Nobody => return Err(None),
        Holder::Trainer(worker) => worker,
        Holder::Elsewhere { worker, .. } => Some(worker),
    };
    let Some(worker) = worker else {
        return Err(Some(Error::new("the trainer is starting and takes no commands yet").at(dir.display())));
    };
    if !worker.on_this_host() {
        return Err(Some(
            Error::new(format!("this run is trained on {}; commands are taken on that host only", worker.host))
                .at(dir.display())
                .next(format!("log in to {} and repeat it there", worker.host)),
        ));
    }
    let Some(path) = &worker.socket else {
        return Err(Some(
            Error::new("this trainer could make no control socket, so it takes no commands")
                .at(dir.display())
                .next(format!("`kill -TERM {}` makes it write a checkpoint and end", worker.pid)),
        ));
    };
    Connection::open(path, watch).map_err(|e| Some(unreachable(dir, path, &worker, &e)))
}

fn unreachable(dir: &Path, socket: &Path, worker: &WorkerInfo, e: &std::io::Error) -> Error {
    Error::new(format!(
        "the trainer (process {}) lives, but its socket {} does not answer: {e}",
        worker.pid,
        socket.display()
    ))
    .at(dir.display())
    .next(format!("is it another user's? `kill -TERM {}` makes it write a checkpoint and end", worker.pid))
}

fn nobody(dir: &Path) -> Error {
    let name = dir.display();
    let next = match RunFolder::open(dir).map(|f| f.checkpoints().last().copied()) {
        Ok(Some(step)) => format!("go on from its checkpoint of step {step}: `finetop train --resume {name}`"),
        _ => "it has no checkpoint to go on from; start it anew from its recipe.toml".into(),
    };
    Error::new("no trainer is at work in this run").at(name).next(next)
}

/// One connection to a control socket.
struct Connection {
    stream: UnixStream,
    /// Bytes received that are not yet a whole line.
    pending: Vec<u8>,
    watching: usize,
}

impl Connection {
    fn open(path: &Path, watch: bool) -> std::io::Result<Self> {
        let mut stream = UnixStream::connect(path)?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        if watch {
            let line = serde_json::to_string(&Watch { watch: true })?;
            stream.write_all(format!("{line}\n").as_bytes())?;
        }
        Ok(Self { stream, pending: Vec::new(), watching: usize::from(watch) })
    }

    /// Sends a line and waits for its answer. The outer error: no answer came.
    fn ask(&mut self, line: &str) -> std::io::Result<std::result::Result<(), String>> {
        self.stream.set_nonblocking(false)?;
        self.stream.write_all(format!("{line}\n").as_bytes())?;
        let began = Instant::now();
        while let Some(left) = ANSWER_TIMEOUT.checked_sub(began.elapsed()).filter(|d| !d.is_zero()) {
            self.stream.set_read_timeout(Some(left))?;
            self.receive()?;
            while let Some(reply) = self.next_reply() {
                match reply {
                    Reply::Ok(_) => return Ok(Ok(())),
                    Reply::Error(e) => return Ok(Err(e)),
                    Reply::Watching(n) => self.watching = n,
                }
            }
        }
        Err(ErrorKind::TimedOut.into())
    }

    /// Takes in what the server said since, without waiting.
    fn drain(&mut self) -> std::io::Result<()> {
        self.stream.set_nonblocking(true)?;
        loop {
            match self.receive() {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        while let Some(reply) = self.next_reply() {
            if let Reply::Watching(n) = reply {
                self.watching = n;
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> std::io::Result<()> {
        let mut block = [0; 1024];
        match self.stream.read(&mut block) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                self.pending.extend_from_slice(&block[..n]);
                Ok(())
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn next_reply(&mut self) -> Option<Reply> {
        loop {
            let end = self.pending.iter().position(|&b| b == b'\n')?;
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            // What a later version says besides is not for this one.
            if let Ok(reply) = serde_json::from_slice(&line) {
                return Some(reply);
            }
        }
    }
}
