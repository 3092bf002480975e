//! The loop: wait, take in all that happened, update, carry out the effects, draw once.
//!
//! Nothing wakes it but keys, signals, what a run says, and the clock where a text depends on it; nothing
//! is drawn where nothing changed. Must not know what any message means.

use ratatui::buffer::Buffer;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;

use super::effects::{Effects, Note, Wish};
use super::keyboard::Keyboard;
use super::personal::Personal;
use super::signals::{self, Sig, Signals};
use super::terminal::Screen;
use super::{StartAt, clipboard, editor, input, zone};
use crate::console::key::Key;
use crate::console::{Effect, Message, Model, Page, update, view};
use crate::run::host::now;
use crate::{Error, Result};

/// Between two frames: 20 a second here, 8 over SSH.
const FRAME: Duration = Duration::from_millis(50);
const FRAME_SSH: Duration = Duration::from_millis(125);
/// Texts with a time in them change once a second.
const SECOND: Duration = Duration::from_secs(1);
/// Between two readings of the list of runs: while one goes on, and otherwise.
const LIST: Duration = Duration::from_secs(2);
const LIST_IDLE: Duration = Duration::from_secs(10);
/// The demo's trainer comes up within this time, mostly; until then there is nothing to see of it.
const HOLD: Duration = Duration::from_millis(110);
/// TSTP and CONT that a stop of our own brings with it arrive within this time.
const ECHO: Duration = Duration::from_millis(300);

/// Shows the console until it is left; returns the line to print on the restored terminal.
pub async fn run(screen: &mut Screen, at: StartAt, personal: Personal) -> Result<Option<String>> {
    let complaint = personal.complaint();
    let area = screen.area();
    let (effects, inbox) = Effects::new();
    let mut state = Loop {
        model: Model {
            keymap: personal.keymap,
            utc_offset: zone::utc_offset(now()),
            ..Model::new(personal.theme, area.width, area.height, now())
        },
        screen,
        effects,
        inbox,
        signals: Signals::listen()?,
        inputs: Some(Keyboard::listen()),
        frame: if std::env::var_os("SSH_CONNECTION").is_some() { FRAME_SSH } else { FRAME },
        drawn: None,
        dirty: true,
        stopped: None,
        listed: Instant::now(),
        hold: None,
        left: None,
    };
    if let Some(text) = complaint {
        state.tell(Message::Replied(Err(text)))?;
    }
    state.begin(at)?;
    state.turn().await
}

struct Loop<'a> {
    model: Model,
    screen: &'a mut Screen,
    effects: Effects,
    inbox: UnboundedReceiver<Note>,
    signals: Signals,
    /// None while another program has the keyboard.
    inputs: Option<Keyboard>,
    frame: Duration,
    /// When the last frame was drawn.
    drawn: Option<Instant>,
    dirty: bool,
    /// When we last came back from a stop of our own.
    stopped: Option<Instant>,
    /// When the list of runs was last asked for.
    listed: Instant,
    /// No frame before this: what is to be seen first is about to come.
    hold: Option<Instant>,
    /// Set on leaving.
    left: Option<Option<String>>,
}

impl Loop<'_> {
    /// Asks for what is to be seen first.
    fn begin(&mut self, at: StartAt) -> Result<()> {
        match at {
            StartAt::Start => self.carry_out(Effect::ListRuns),
            StartAt::Recipe(path) => {
                // A recipe that cannot be read is said on the plain terminal.
                let note = self.effects.open_recipe(&path.to_string_lossy())?;
                self.take(note)
            }
            StartAt::Run(dir) => {
                let note = self.effects.open_run(&dir)?;
                self.take(note)
            }
            StartAt::Local(end) => {
                let note = self.effects.open_local(end)?;
                self.take(note)
            }
            StartAt::Demo => {
                self.hold = Some(Instant::now() + HOLD);
                self.carry_out(Effect::Demo)
            }
        }
    }

    async fn turn(&mut self) -> Result<Option<String>> {
        loop {
            if let Some(line) = self.left.take() {
                self.effects.part();
                return Ok(line);
            }
            if !self.screen.is_up() {
                return Err(Error::new("the console failed; the run is not touched by that"));
            }
            self.draw_if_due()?;
            let wake = self.wake();
            let inputs = &mut self.inputs;
            let first = tokio::select! {
                biased;
                signal = self.signals.next() => Happening::Signal(signal),
                event = async { match inputs { Some(i) => i.next().await, None => std::future::pending().await } } => {
                    match event {
                        Some(Ok(event)) => Happening::Input(event),
                        // The keyboard is gone, and with it whoever sat there.
                        Some(Err(_)) | None => Happening::Signal(Sig::Leave),
                    }
                }
                Some(note) = self.inbox.recv() => Happening::Note(note),
                () = sleep_until(wake) => Happening::Clock,
            };
            self.drain(first)?;
        }
    }

    /// Takes in `first` and all else that is there already.
    fn drain(&mut self, first: Happening) -> Result<()> {
        let mut queue = VecDeque::from([first]);
        while let Some(event) = self.inputs.as_mut().and_then(Keyboard::waiting) {
            queue.push_back(Happening::Input(event));
        }
        while let Ok(note) = self.inbox.try_recv() {
            queue.push_back(Happening::Note(note));
        }
        self.tell(Message::Tick { now: now() })?;
        for happening in queue {
            match happening {
                Happening::Input(event) => {
                    if let Some(message) = input::message(event) {
                        if let Message::Resize { width, height } = message {
                            self.screen.resize(width, height)?;
                        }
                        let back = message == Message::Focus(true);
                        self.tell(message)?;
                        if back && self.model.page() == Page::Start {
                            self.carry_out(Effect::ListRuns)?;
                        }
                    }
                }
                Happening::Note(note) => self.take(note)?,
                Happening::Signal(signal) => self.signal(signal)?,
                Happening::Clock => self.clock()?,
            }
            if self.left.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// Updates, and carries out what the update asks for.
    fn tell(&mut self, message: Message) -> Result<()> {
        // The clock alone changes nothing that must be drawn at once, but a text with a time in it.
        self.dirty = true;
        for effect in update(&mut self.model, message) {
            self.carry_out(effect)?;
        }
        Ok(())
    }

    fn take(&mut self, note: Note) -> Result<()> {
        match note {
            Note::Tell(message) => self.tell(message),
            Note::Open(dir) => {
                let note = self.effects.open_run(&dir).unwrap_or_else(Note::failed);
                self.take(note)
            }
            Note::List => self.carry_out(Effect::ListRuns),
        }
    }

    fn carry_out(&mut self, effect: Effect) -> Result<()> {
        match effect {
            Effect::ListRuns => self.listed = Instant::now(),
            // A trainer takes a moment to come up.
            Effect::Demo | Effect::StartTraining { .. } | Effect::Resume { .. } | Effect::Branch { .. } => {
                self.tell(Message::Replied(Ok("starting …".into())))?;
            }
            _ => {}
        }
        match self.effects.carry_out(effect) {
            Wish::Nothing => Ok(()),
            Wish::Take(note) => self.take(note),
            Wish::Leave(line) => {
                self.left = Some(line);
                Ok(())
            }
            Wish::Suspend => self.suspend(),
            Wish::Edit(path) => self.edit(&path),
            Wish::Copy(text) => {
                let how = match clipboard::copy(&text) {
                    clipboard::Copied::Tmux => "copied, through tmux",
                    clipboard::Copied::Send(bytes) => {
                        self.screen.send(&bytes)?;
                        "sent to the terminal's clipboard (OSC 52)"
                    }
                };
                self.tell(Message::Replied(Ok(how.into())))
            }
            // Who looks at the screen needs no bell.
            Wish::Ring(_) if self.model.focused => Ok(()),
            Wish::Ring(bytes) => self.screen.send(&bytes),
        }
    }

    fn signal(&mut self, signal: Sig) -> Result<()> {
        let echo = self.stopped.is_some_and(|at| at.elapsed() < ECHO);
        match signal {
            Sig::Leave => self.left = Some(None),
            Sig::Interrupt => self.tell(Message::Key(Key::Ctrl('c')))?,
            Sig::Stop | Sig::Continue if echo => {}
            Sig::Stop => self.suspend()?,
            Sig::Continue => {
                // Stopped from outside: what the terminal shows, and its modes, are anybody's guess. The keyboard
                // stays ours: taking it anew would wait for ever on a terminal that hung up.
                self.screen.outside(|| ())?;
                self.resized()?;
            }
        }
        Ok(())
    }

    /// To the shell, until it continues us.
    fn suspend(&mut self) -> Result<()> {
        if !signals::can_stop() {
            return self.tell(Message::Replied(Err("there is no shell to go back to".into())));
        }
        self.outside(signals::stop)?;
        self.stopped = Some(Instant::now());
        Ok(())
    }

    fn edit(&mut self, path: &std::path::Path) -> Result<()> {
        let edited = self.outside(|| editor::edit(path))?;
        let note = edited.and_then(|()| self.effects.open_recipe(&path.to_string_lossy()));
        self.take(note.unwrap_or_else(Note::failed))
    }

    /// Runs `f` with the terminal and the keyboard given back, then takes both again.
    fn outside<T>(&mut self, f: impl FnOnce() -> T) -> Result<T> {
        // Its thread would read the keys that are meant for the other program.
        self.inputs = None;
        let out = self.screen.outside(f);
        self.inputs = Some(Keyboard::listen());
        self.resized()?;
        out
    }

    fn resized(&mut self) -> Result<()> {
        let area = self.screen.area();
        self.tell(Message::Resize { width: area.width, height: area.height })
    }

    fn draw_if_due(&mut self) -> Result<()> {
        if self.model.page() != Page::Start {
            self.hold = None;
        }
        let held = self.hold.is_some_and(|until| until > Instant::now());
        if !self.dirty || held || self.drawn.is_some_and(|at| at.elapsed() < self.frame) {
            return Ok(());
        }
        let area = self.screen.area();
        let mut buffer = Buffer::empty(area);
        view::render(&self.model, area, &mut buffer);
        self.screen.show(buffer)?;
        self.dirty = false;
        self.drawn = Some(Instant::now());
        Ok(())
    }

    /// When to wake without anything happening; `None`: not at all.
    fn wake(&self) -> Option<Instant> {
        let frame = self.drawn.map(|at| at + self.frame).max(self.hold).filter(|_| self.dirty);
        let left = |until: f64| Instant::now() + Duration::from_secs_f64((until - self.model.now).clamp(0.05, 60.0));
        let notice = self.model.notice.as_ref().map(|n| left(n.until));
        let list = match self.model.page() {
            Page::Start if self.model.start.any_live() => Some(self.listed + LIST),
            Page::Start if self.model.focused => Some(self.listed + LIST_IDLE),
            _ => None,
        };
        let ticking = self.model.page() != Page::Start && self.model.run.as_ref().is_some_and(|r| r.live);
        let second = ticking.then(|| Instant::now() + SECOND);
        [frame, notice, list, second].into_iter().flatten().min()
    }

    fn clock(&mut self) -> Result<()> {
        match self.model.page() {
            Page::Start => {
                let every = if self.model.start.any_live() { LIST } else { LIST_IDLE };
                if self.listed.elapsed() >= every {
                    self.carry_out(Effect::ListRuns)?;
                }
            }
            Page::Log => {
                if let Some(note) = self.effects.log_again() {
                    self.take(note)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// What woke the loop.
enum Happening {
    Signal(Sig),
    Input(crossterm::event::Event),
    Note(Note),
    Clock,
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
