//! The trainer's side of a run: holds the folder and its lock, says events, takes commands.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::command::Command;
use super::event::{Body, Event, RunState, State};
use super::events::EventWriter;
use super::folder::RunFolder;
use super::host::{WorkerInfo, now};
use super::index::Index;
use super::link::LocalEnd;
use super::lock::RunLock;
use super::server::CommandServer;
use crate::Result;
use crate::diagnose::Doctor;
use crate::train::outlet::{Outlet, Saved};

/// Sees events once they are on the disk.
pub type Observer = Box<dyn FnMut(&Event) + Send>;

/// A run being trained by this process. Dropping it lets the folder go.
pub struct Session {
    pub folder: RunFolder,
    events: EventWriter,
    sender: Sender<Command>,
    commands: Receiver<Command>,
    alive: Arc<AtomicBool>,
    watching: Arc<AtomicUsize>,
    last_step: u64,
    last_state: Option<RunState>,
    doctor: Option<Doctor>,
    observer: Option<Observer>,
    server: Option<CommandServer>,
    no_socket: Option<String>,
    worker: WorkerInfo,
    // Last, so that it is let go after everything else.
    _lock: RunLock,
}

impl Session {
    /// Takes the run's lock, clears what a killed trainer left half written, opens the events and takes
    /// commands on the control socket. Without a socket the run goes on all the same; see [`Self::no_socket`].
    ///
    /// # Errors
    /// When another trainer has the run, or the folder cannot be written to.
    pub fn open(folder: RunFolder) -> Result<Self> {
        Self::open_in(folder, &Index::of_user())
    }

    /// The same, remembered in the given index.
    pub fn open_in(folder: RunFolder, index: &Index) -> Result<Self> {
        let mut session = Self::open_quietly(folder)?;
        let started = CommandServer::place_for(session.folder.path())
            .and_then(|path| CommandServer::start(&path, session.sender.clone(), Arc::clone(&session.watching)));
        match started {
            Ok(server) => session.server = Some(server),
            Err(e) => session.no_socket = Some(e.to_string()),
        }
        session.worker.socket = session.server.as_ref().map(|s| s.path().to_owned());
        session.worker.write(session.folder.path())?;
        index.remember(&session.folder);
        Ok(session)
    }

    /// The same without a control socket and without being remembered: commands come only from this process.
    pub fn open_quietly(folder: RunFolder) -> Result<Self> {
        let lock = RunLock::acquire(folder.path())?;
        folder.clear_half_written()?;
        let events = EventWriter::open(&folder.events())?;
        let worker = WorkerInfo::this_process(None);
        worker.write(folder.path())?;
        let (sender, commands) = channel();
        Ok(Self {
            folder,
            events,
            sender,
            commands,
            alive: Arc::new(AtomicBool::new(true)),
            watching: Arc::default(),
            last_step: 0,
            last_state: None,
            doctor: None,
            observer: None,
            server: None,
            no_socket: None,
            worker,
            _lock: lock,
        })
    }

    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// Why there is no control socket, where there is none.
    pub fn no_socket(&self) -> Option<&str> {
        self.no_socket.as_deref()
    }

    /// Where commands are taken.
    pub fn socket(&self) -> Option<PathBuf> {
        self.worker.socket.clone()
    }

    /// Let a doctor see every event from now on; what it finds is said as events too.
    pub fn watch(&mut self, doctor: Doctor) {
        self.doctor = Some(doctor);
    }

    /// Let `observer` see every event once it is on the disk: progress on stderr, say.
    pub fn observe(&mut self, observer: Observer) {
        self.observer = Some(observer);
    }

    fn write(&mut self, event: &Event) -> Result<()> {
        self.events.write(event)?;
        if let Some(observer) = &mut self.observer {
            observer(event);
        }
        Ok(())
    }

    /// For whoever else in this process has something to tell the trainer (signals, the console).
    pub fn sender(&self) -> Sender<Command> {
        self.sender.clone()
    }

    /// For a viewer in this process: see [`super::Link::local`].
    pub fn local_end(&self) -> LocalEnd {
        LocalEnd {
            dir: self.dir().to_owned(),
            commands: self.sender.clone(),
            alive: Arc::clone(&self.alive),
            watching: Arc::clone(&self.watching),
        }
    }
}

impl Outlet for Session {
    /// Says an event: it is on the disk when this returns.
    fn emit(&mut self, step: u64, body: Body) -> Result<()> {
        self.last_step = step;
        if let Body::State(state) = &body {
            self.last_state = Some(state.state);
        }
        let event = Event { time: now(), step, body };
        self.write(&event)?;
        for finding in self.doctor.as_mut().map(|d| d.observe(&event)).unwrap_or_default() {
            self.write(&Event { time: now(), step, body: Body::Finding(finding) })?;
        }
        Ok(())
    }

    fn try_command(&mut self) -> Option<Command> {
        self.commands.try_recv().ok()
    }

    /// Never `None`: the session itself could always send one more.
    fn wait_command(&mut self) -> Option<Command> {
        self.commands.recv().ok()
    }

    fn save_checkpoint(&mut self, step: u64, fill: &mut dyn FnMut(&Path) -> Result<()>) -> Result<Saved> {
        let written = self.folder.write_checkpoint(step, |dir| fill(dir))?;
        Ok(Saved { path: written.relative, bytes: written.bytes })
    }

    fn checkpoint(&self, step: u64) -> Option<PathBuf> {
        self.folder.find_checkpoint(Some(step)).ok().map(|(_, path)| path)
    }

    fn prune_checkpoints(&mut self, limit: usize, best: Option<u64>, last: u64) -> Result<()> {
        self.folder.prune_checkpoints(limit, best, Some(last)).map(|_| ())
    }

    fn forget_after(&mut self, step: u64) -> Result<()> {
        self.folder.remove_checkpoints_after(step)
    }
}

impl RunState {
    /// Whether nothing follows it.
    pub fn is_final(self) -> bool {
        matches!(self, RunState::Finished | RunState::Stopped | RunState::Failed)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.last_state.is_some_and(RunState::is_final) {
            let why = "the trainer crashed; run.log says where".to_owned();
            let _ = self.emit(self.last_step, Body::State(State { state: RunState::Failed, why }));
        }
        self.server = None;
        self.alive.store(false, Ordering::SeqCst);
        self.worker.socket = None;
        self.worker.ended = Some(now());
        // The lock tells the truth even if this cannot be written.
        let _ = self.worker.write(self.folder.path());
    }
}
