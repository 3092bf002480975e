//! All the state of the screen. Views read it, [`super::update`] alone changes it.

use super::chat_page::ChatPage;
use super::export_page::ExportPage;
use super::keymap::{Context, Keymap};
use super::new_page::NewPage;
use super::run_page::RunPage;
use super::start::StartPage;
use super::theme::Theme;
use std::path::PathBuf;
use tui_input::Input;

#[derive(Debug, Clone)]
pub struct Model {
    /// The page stack, the visible one last; never empty. Esc takes one away.
    pub pages: Vec<Page>,
    pub start: StartPage,
    /// The page of a new run.
    pub new: NewPage,
    /// The open run or recipe.
    pub run: Option<RunPage>,
    pub export: ExportPage,
    pub chat: ChatPage,
    pub palette: Palette,
    /// First line shown on a page that scrolls (help, log, rows).
    pub scroll: usize,
    pub log: Vec<String>,
    pub rows: Vec<RowTokens>,
    pub machine: Machine,
    pub theme: Theme,
    pub keymap: Keymap,
    pub width: u16,
    pub height: u16,
    /// Unix time in seconds, from the last tick.
    pub now: f64,
    /// Seconds east of UTC; `None`: unknown, clocks are UTC and say so.
    pub utc_offset: Option<i32>,
    /// Whether the terminal has the keyboard focus.
    pub focused: bool,
    /// One line of answer, shown in the status line for a few seconds.
    pub notice: Option<Notice>,
    /// A question that waits for y or n.
    pub confirm: Option<Confirm>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    Start,
    New,
    Run,
    Export,
    Chat,
    Palette,
    Help,
    Log,
    Rows,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    pub text: String,
    pub error: bool,
    /// Shown until this time.
    pub until: f64,
}

/// A question: `y` (or the same key again) does it, anything else drops it.
#[derive(Debug, Clone, PartialEq)]
pub struct Confirm {
    pub question: String,
    pub effect: super::message::Effect,
}

/// The command palette: what is typed, and which match is selected.
#[derive(Debug, Clone, Default)]
pub struct Palette {
    pub input: Input,
    pub selected: usize,
    /// The contexts that held where the palette was opened, innermost first.
    pub contexts: Vec<Context>,
}

/// This machine, for the start page's header.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Machine {
    /// `H100 80GB`, or the processor's name.
    pub name: String,
    pub gpu_free: Option<u64>,
    pub cores: u32,
    pub memory_total: Option<u64>,
    pub disk_free: Option<u64>,
}

/// One run in the start page's list.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunRow {
    pub folder: PathBuf,
    pub name: String,
    /// `training`, `paused`, `finished`, `stopped`, `failed`, `died`.
    pub state: String,
    pub method: String,
    pub model: String,
    /// The smoothed training loss, evenly thinned.
    pub loss: Vec<f64>,
    pub best_eval: Option<(f64, u64)>,
    pub step: u64,
    pub total_steps: u64,
    /// The step of its newest whole checkpoint.
    pub checkpoint: Option<u64>,
    /// Unix time of the last event.
    pub changed: f64,
    /// A second line under the row: why it ended, what can be done.
    pub note: String,
    pub live: bool,
}

/// One recipe file beside us.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RecipeRow {
    pub path: PathBuf,
    /// `Ok(warnings)`, or what is wrong and where: `line 14`.
    pub check: Option<Result<u32, String>>,
}

/// One row of the data as the model sees it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RowTokens {
    pub row: u32,
    /// Where it stands: `alpaca.jsonl line 12`; may be empty.
    pub place: String,
    pub tokens: Vec<RowToken>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct RowToken {
    pub id: u32,
    pub text: String,
    /// Whether the model is trained to say it.
    pub trained: bool,
    pub loss: Option<f64>,
}

/// What the machine says of itself now. Absent is unknown, shown as –.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reading {
    /// `nvml cuda:0` or `host`.
    pub source: String,
    pub gpu_percent: Option<f64>,
    pub cpu_percent: Option<f64>,
    pub power_watts: Option<f64>,
    pub temperature_celsius: Option<f64>,
    pub clock_mhz: Option<f64>,
    /// Of the card, or of the training process on the CPU; bytes.
    pub used: Option<u64>,
    pub total: Option<u64>,
    pub host_used: Option<u64>,
    pub host_total: Option<u64>,
}

impl Model {
    pub fn new(theme: Theme, width: u16, height: u16, now: f64) -> Self {
        Self {
            pages: vec![Page::Start],
            start: StartPage::default(),
            new: NewPage::default(),
            run: None,
            export: ExportPage::default(),
            chat: ChatPage::default(),
            palette: Palette::default(),
            scroll: 0,
            log: Vec::new(),
            rows: Vec::new(),
            machine: Machine::default(),
            theme,
            keymap: Keymap::default(),
            width,
            height,
            now,
            utc_offset: None,
            focused: true,
            notice: None,
            confirm: None,
        }
    }

    /// The page on top.
    pub fn page(&self) -> Page {
        self.pages.last().copied().unwrap_or(Page::Start)
    }

    /// Whether keys are text now: then no letter acts.
    pub fn typing(&self) -> bool {
        match self.page() {
            Page::Palette | Page::New | Page::Chat => true,
            Page::Export => self.export.typing.is_some(),
            Page::Run => self.run.as_ref().is_some_and(|r| r.input.is_some()),
            Page::Start => self.start.search.is_some(),
            _ => false,
        }
    }

    pub fn say(&mut self, text: impl Into<String>) {
        self.notice = Some(Notice { text: text.into(), error: false, until: self.now + 6.0 });
    }

    pub fn complain(&mut self, text: impl Into<String>) {
        self.notice = Some(Notice { text: text.into(), error: true, until: self.now + 15.0 });
    }
}
