//! The open run: a thread that reads its events as they come, sends it commands in order, and looks now
//! and then at whether its trainer lives, how many watch it, and what the machine says of itself.
//!
//! A thread of its own, because a socket's answer may take seconds and the screen must not wait for it.

use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;

use super::effects::Note;
use super::telemetry::Telemetry;
use crate::console::Message;
use crate::run::command::Command;
use crate::run::event::Body;
use crate::run::link::Link;

/// Between two looks at the events of a run that goes on.
const LOOK: Duration = Duration::from_millis(200);
/// Between two looks at a run without a trainer: one may come.
const LOOK_IDLE: Duration = Duration::from_millis(1000);
/// Between two looks at the trainer and the machine.
const LOOK_AROUND: Duration = Duration::from_millis(1500);
/// How long leaving waits for commands on their way.
const PARTING: Duration = Duration::from_secs(4);

/// A run that is being followed; dropped, it is no longer.
pub struct Follower {
    pub dir: PathBuf,
    /// Dropped on leaving: the thread then ends, after the commands it has.
    orders: Option<mpsc::Sender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    /// Follows a run that is open already.
    pub fn start(link: Link, inbox: UnboundedSender<Note>) -> Follower {
        let (orders, received) = mpsc::channel();
        let dir = link.dir().to_owned();
        let thread = std::thread::Builder::new()
            .name("follow".into())
            .spawn(move || Watch { link, inbox, live: None, watching: None, card: None }.run(&received))
            .ok();
        Follower { dir, orders: Some(orders), thread }
    }

    /// To the trainer; an answer that is an error comes as a message.
    pub fn send(&self, command: Command) {
        if let Some(orders) = &self.orders {
            let _ = orders.send(command);
        }
    }

    /// Ends it once the commands on their way have been taken; gives up after a few seconds.
    pub fn part(mut self) {
        self.orders = None;
        let Some(thread) = self.thread.take() else { return };
        let began = Instant::now();
        while !thread.is_finished() && began.elapsed() < PARTING {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

struct Watch {
    link: Link,
    inbox: UnboundedSender<Note>,
    /// What was last said of it.
    live: Option<bool>,
    watching: Option<usize>,
    /// The card that it trains on, as its start event says; inside, its UUID where that is known.
    card: Option<Option<String>>,
}

impl Watch {
    fn run(mut self, orders: &mpsc::Receiver<Command>) {
        let mut looked_around: Option<Instant> = None;
        // Made on the first look around: it takes a while, and the events come first.
        let mut telemetry: Option<Telemetry> = None;
        loop {
            let due = looked_around.is_none_or(|at| at.elapsed() >= LOOK_AROUND);
            // Whether it lives is asked before the events are read, so that the last ones are not missed.
            if due {
                self.look_around();
            }
            if !self.read() {
                return;
            }
            if due {
                let live = self.live == Some(true);
                let telemetry = telemetry.get_or_insert_with(Telemetry::default);
                self.say(Message::Telemetry(telemetry.read(
                    self.link.dir(),
                    live,
                    self.card.as_ref().map(Option::as_deref),
                )));
                looked_around = Some(Instant::now());
            }
            let pause = if self.live == Some(true) { LOOK } else { LOOK_IDLE };
            match orders.recv_timeout(pause) {
                Ok(command) => {
                    if let Err(e) = self.link.send(command) {
                        self.say(Message::Replied(Err(e.to_string())));
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Passes on what was written since; false when nobody listens any more.
    fn read(&mut self) -> bool {
        match self.link.events() {
            Ok(events) if events.is_empty() => !self.inbox.is_closed(),
            Ok(events) => {
                let started =
                    events.iter().rev().find_map(|e| if let Body::Start(s) = &e.body { Some(s) } else { None });
                if let Some(s) = started {
                    self.card = s.device.starts_with("cuda").then(|| s.device_uuid.clone());
                }
                self.say(Message::Events { run: self.link.dir().to_owned(), events })
            }
            Err(e) => {
                self.say(Message::Replied(Err(e.to_string())));
                false
            }
        }
    }

    fn look_around(&mut self) {
        let live = self.link.alive();
        if live {
            self.link.reconnect();
        }
        if self.live != Some(live) {
            self.live = Some(live);
            self.say(Message::Live { run: self.link.dir().to_owned(), live });
        }
        // This terminal watches even where no trainer is there to count it.
        let watching = self.link.watching().max(1);
        if self.watching != Some(watching) {
            self.watching = Some(watching);
            self.say(Message::Watching(u32::try_from(watching).unwrap_or(u32::MAX)));
        }
    }

    fn say(&self, message: Message) -> bool {
        self.inbox.send(Note::Tell(message)).is_ok()
    }
}
