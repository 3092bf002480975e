//! The terminal while the screen is up: raw mode, alternate screen, mouse, paste and focus reports;
//! and always restored, however the program ends.
//!
//! Must not know what is drawn: it is given buffers and puts the cells that differ on the terminal,
//! in one write, between Begin- and EndSynchronizedUpdate.

use crossterm::event::{DisableBracketedPaste, DisableFocusChange, EnableBracketedPaste, EnableFocusChange};
use crossterm::style::{Print, ResetColor};
use crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen,
    disable_raw_mode, enable_raw_mode,
};
use crossterm::{cursor, execute, queue};
use ratatui::backend::{Backend, CrosstermBackend};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::thread::{self, ThreadId};

use crate::{Error, Result};

/// Clicks and the wheel, in SGR form. Motion is not asked for: every move would wake the program.
const MOUSE_ON: &str = "\x1b[?1000h\x1b[?1006h";
const MOUSE_OFF: &str = "\x1b[?1006l\x1b[?1000l";

/// Whether the screen is up now: what [`restore`] undoes, once.
static UP: AtomicBool = AtomicBool::new(false);
/// Whether clicks and the wheel are asked for.
static MOUSE: AtomicBool = AtomicBool::new(true);
/// The thread that owns the screen. A panic elsewhere leaves the screen alone.
static OWNER: Mutex<Option<ThreadId>> = Mutex::new(None);
/// What panics on other threads said while the screen was up.
static HELD: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Whether this terminal can show the console; the error says what to use instead.
pub fn usable() -> Result<()> {
    let instead = "`finetop train RECIPE` trains without a screen, `finetop runs` lists the runs";
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(Error::usage("the console needs a terminal, and this is none").next(instead));
    }
    match std::env::var("TERM").as_deref() {
        Ok("dumb") => Err(Error::usage("the console cannot be shown on this terminal (TERM=dumb)").next(instead)),
        _ => Ok(()),
    }
}

/// The screen, up from [`Screen::enter`] until it is dropped.
pub struct Screen {
    backend: CrosstermBackend<BufWriter<Stdout>>,
    /// What the terminal shows.
    shown: Buffer,
}

impl Screen {
    /// Takes the terminal, and with `mouse` its clicks and wheel. Errors: it cannot be put into raw mode.
    pub fn enter(mouse: bool) -> Result<Screen> {
        MOUSE.store(mouse, Ordering::SeqCst);
        chain_panic_hook();
        *OWNER.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread::current().id());
        let (width, height) = size()?;
        // One frame is one write: larger than any frame.
        let writer = BufWriter::with_capacity(1 << 18, io::stdout());
        let screen =
            Screen { backend: CrosstermBackend::new(writer), shown: Buffer::empty(Rect::new(0, 0, width, height)) };
        set_up()?;
        Ok(screen)
    }

    pub fn area(&self) -> Rect {
        self.shown.area
    }

    /// A screen of another size, empty.
    pub fn resize(&mut self, width: u16, height: u16) -> Result<()> {
        self.shown = Buffer::empty(Rect::new(0, 0, width, height));
        queue!(self.backend, ResetColor, Clear(ClearType::All))?;
        Ok(())
    }

    /// Puts `next` on the terminal; writes nothing where nothing differs. Returns whether anything did.
    pub fn show(&mut self, next: Buffer) -> Result<bool> {
        if next.area != self.shown.area {
            self.resize(next.area.width, next.area.height)?;
        }
        let mut differing = self.shown.diff_iter(&next).peekable();
        if differing.peek().is_none() {
            return Ok(false);
        }
        queue!(self.backend, BeginSynchronizedUpdate)?;
        self.backend.draw(differing)?;
        queue!(self.backend, EndSynchronizedUpdate)?;
        io::Write::flush(&mut self.backend)?;
        self.shown = next;
        Ok(true)
    }

    /// Whether the screen is still up: a panic that was caught may have taken it down.
    pub fn is_up(&self) -> bool {
        UP.load(Ordering::SeqCst)
    }

    /// Runs `f` on the restored terminal (an editor, a stop), then takes the terminal back, empty.
    pub fn outside<T>(&mut self, f: impl FnOnce() -> T) -> Result<T> {
        restore();
        let out = f();
        set_up()?;
        let (width, height) = size()?;
        self.resize(width, height)?;
        Ok(out)
    }

    /// Writes `bytes` (a clipboard or bell sequence) between two frames.
    pub fn send(&mut self, bytes: &str) -> Result<()> {
        queue!(self.backend, Print(bytes))?;
        io::Write::flush(&mut self.backend)?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// The terminal's size; 80 × 24 where it has none to tell (`docker exec`, `expect`).
fn size() -> Result<(u16, u16)> {
    let (width, height) = crossterm::terminal::size()?;
    Ok(if width == 0 || height == 0 { (80, 24) } else { (width, height) })
}

fn set_up() -> Result<()> {
    enable_raw_mode()?;
    UP.store(true, Ordering::SeqCst);
    execute!(
        io::stdout(),
        EnterAlternateScreen,
        Clear(ClearType::All),
        cursor::Hide,
        Print(if MOUSE.load(Ordering::SeqCst) { MOUSE_ON } else { "" }),
        EnableBracketedPaste,
        EnableFocusChange,
    )?;
    Ok(())
}

/// Gives the terminal back as it was; does nothing where the screen is not up.
pub fn restore() {
    if !UP.swap(false, Ordering::SeqCst) {
        return;
    }
    // A terminal that hung up cannot be written to; raw mode is undone all the same.
    let _ = execute!(
        io::stdout(),
        EndSynchronizedUpdate,
        DisableFocusChange,
        DisableBracketedPaste,
        Print(MOUSE_OFF),
        ResetColor,
        cursor::Show,
        LeaveAlternateScreen,
    );
    let _ = disable_raw_mode();
}

/// Prints `line` on the restored terminal, and what panics on other threads said meanwhile.
pub fn say_after(line: Option<&str>) -> Result<()> {
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    let mut stderr = io::stderr().lock();
    for panic in held.drain(..) {
        writeln!(stderr, "{panic}")?;
    }
    if let Some(line) = line {
        writeln!(io::stdout().lock(), "{line}")?;
    }
    Ok(())
}

/// Once per process: a panic restores the terminal before anything is printed.
fn chain_panic_hook() {
    static CHAINED: Once = Once::new();
    CHAINED.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let owner = *OWNER.lock().unwrap_or_else(PoisonError::into_inner);
            if UP.load(Ordering::SeqCst) && owner != Some(thread::current().id()) {
                HELD.lock().unwrap_or_else(PoisonError::into_inner).push(info.to_string());
                return;
            }
            restore();
            previous(info);
        }));
    });
}
