//! The trainer's end of the control socket: takes commands, one JSON object a line, answers each with
//! `{"ok":true}` or `{"error":"…"}`, and tells viewers how many they are with `{"watching":N}`.
//!
//! A connection that sends `{"watch":true}` is a viewer. Events do not travel here: they are in the file.

use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::command::Command;
use super::files::failed;
use super::places::socket_folder;
use crate::{Error, Result};

/// A viewer that reads nothing for this long is let go; its socket's buffer holds thousands of lines.
const WRITE_TIMEOUT: Duration = Duration::from_millis(200);

/// What a client says that is not a [`Command`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Watch {
    pub watch: bool,
}

/// What the server says.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reply {
    Ok(bool),
    Error(String),
    Watching(usize),
}

/// Takes commands until dropped; then the socket is gone.
pub struct CommandServer {
    path: PathBuf,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    clients: Mutex<Vec<Client>>,
    watching: Arc<AtomicUsize>,
    closing: AtomicBool,
}

struct Client {
    id: u64,
    stream: UnixStream,
    watches: bool,
}

impl CommandServer {
    /// Where the socket of the run in `folder` belongs: a short name, from the folder's path.
    pub fn place_for(folder: &Path) -> Result<PathBuf> {
        use std::os::unix::ffi::OsStrExt;
        let name = &blake3::hash(folder.as_os_str().as_bytes()).to_hex()[..16];
        let dir = socket_folder()?;
        let path = dir.join(format!("{name}.sock"));
        // One that answers belongs to a run of the same path in another container that shares the folder.
        Ok(if UnixStream::connect(&path).is_ok() {
            dir.join(format!("{name}-{}.sock", std::process::id()))
        } else {
            path
        })
    }

    /// Listens at `path` (mode 0600), in place of a socket that a killed trainer left there. Commands go
    /// to `commands`; the count of viewers is kept in `watching`.
    pub fn start(path: &Path, commands: Sender<Command>, watching: Arc<AtomicUsize>) -> Result<Self> {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed("replace the socket", path)(e)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(failed("make the control socket", path))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
            .map_err(failed("protect the control socket", path))?;
        let shared = Arc::new(Shared { clients: Mutex::default(), watching, closing: AtomicBool::new(false) });
        let for_thread = Arc::clone(&shared);
        let accepting = std::thread::Builder::new()
            .name("finetop-socket".into())
            .spawn(move || accept(&listener, &for_thread, &commands))
            .map_err(failed("start listening", path))?;
        Ok(Self { path: path.to_owned(), shared, accepting: Some(accepting) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for CommandServer {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which then sees that it is over.
        let woken = UnixStream::connect(&self.path).is_ok();
        let _ = std::fs::remove_file(&self.path);
        if let Some(thread) = self.accepting.take().filter(|_| woken) {
            let _ = thread.join();
        }
        for client in self.shared.clients().drain(..) {
            let _ = client.stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>, commands: &Sender<Command>) {
    for (id, stream) in (0..).zip(listener.incoming()) {
        if shared.closing.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else {
            // Out of file descriptors, most likely: not a reason to spin.
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        // Here and not in the client's thread: whoever is accepted is on the list when the server closes.
        let Ok(()) = shared.enter(id, &stream) else { continue };
        let (for_client, commands) = (Arc::clone(shared), commands.clone());
        let spawned = std::thread::Builder::new().name("finetop-client".into()).spawn(move || {
            // However it ends, the client has left.
            let _ = serve(id, &stream, &for_client, &commands);
            for_client.leave(id);
        });
        if spawned.is_err() {
            shared.leave(id);
        }
    }
}

/// Answers one client until it leaves.
fn serve(id: u64, stream: &UnixStream, shared: &Shared, commands: &Sender<Command>) -> std::io::Result<()> {
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if serde_json::from_str::<Watch>(&line).is_ok_and(|w| w.watch) {
            shared.join(id);
            continue;
        }
        let reply = match take(&line, commands) {
            Ok(()) => Reply::Ok(true),
            Err(e) => Reply::Error(e.to_string()),
        };
        shared.tell(id, &reply);
    }
    Ok(())
}

fn take(line: &str, commands: &Sender<Command>) -> Result<()> {
    let command: Command =
        serde_json::from_str(line).map_err(|e| Error::new(format!("this trainer does not know that command: {e}")))?;
    commands.send(command).map_err(|_| Error::new("the trainer is ending and takes no more commands"))
}

impl Shared {
    fn clients(&self) -> MutexGuard<'_, Vec<Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, id: u64, stream: &UnixStream) -> std::io::Result<()> {
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        self.clients().push(Client { id, stream: stream.try_clone()?, watches: false });
        Ok(())
    }

    fn join(&self, id: u64) {
        let mut clients = self.clients();
        clients.iter_mut().filter(|c| c.id == id).for_each(|c| c.watches = true);
        self.tell_viewers(&mut clients);
    }

    fn leave(&self, id: u64) {
        let mut clients = self.clients();
        clients.retain(|c| c.id != id);
        self.tell_viewers(&mut clients);
    }

    fn tell(&self, id: u64, reply: &Reply) {
        self.clients().iter_mut().filter(|c| c.id == id).for_each(|c| c.send(reply));
    }

    /// Counts the viewers, and tells each if the count has changed.
    fn tell_viewers(&self, clients: &mut [Client]) {
        let count = clients.iter().filter(|c| c.watches).count();
        if self.watching.swap(count, Ordering::SeqCst) != count {
            clients.iter_mut().filter(|c| c.watches).for_each(|c| c.send(&Reply::Watching(count)));
        }
    }
}

impl Client {
    fn send(&mut self, reply: &Reply) {
        let Ok(mut line) = serde_json::to_vec(reply) else { return };
        line.push(b'\n');
        if self.stream.write_all(&line).is_err() {
            // Its reading thread then sees the end and takes it off the list.
            let _ = self.stream.shutdown(std::net::Shutdown::Both);
        }
    }
}
