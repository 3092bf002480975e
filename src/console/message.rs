//! What the console is told ([`Message`]) and what it asks for ([`Effect`]).

use super::key::Key;
use super::model::{Machine, Reading, RecipeRow, RowTokens, RunRow};
use crate::run::command::Command;
use crate::run::event::{Event, SampleSettings};
use crate::run::shipping::{Offer, Wanted, Word};
use std::path::PathBuf;

/// Something happened: a key, a line of events, the clock.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    Key(Key),
    Mouse(Mouse),
    Paste(String),
    Resize {
        width: u16,
        height: u16,
    },
    /// Whether the terminal has the keyboard focus; bells are off while it has.
    Focus(bool),
    /// Unix time in seconds. The console has no other clock.
    Tick {
        now: f64,
    },
    Machine(Machine),
    Runs(Vec<RunRow>),
    Recipes(Vec<RecipeRow>),
    /// A run is open: its events follow.
    Opened {
        run: PathBuf,
        name: String,
        /// The run's resolved `recipe.toml`.
        recipe: String,
        /// Whether its worker can be reached.
        live: bool,
    },
    /// A recipe is open for editing, before any run.
    RecipeOpened {
        path: PathBuf,
        text: String,
    },
    Events {
        run: PathBuf,
        events: Vec<Event>,
    },
    /// The worker went away (or came back).
    Live {
        run: PathBuf,
        live: bool,
    },
    Telemetry(Reading),
    /// Terminals attached to this run, this one included.
    Watching(u32),
    /// What became of an effect; the text is shown, an error stays longer.
    Replied(Result<String, String>),
    Log(Vec<String>),
    Rows(Vec<RowTokens>),
    /// What rows are that a recipe is to be written for.
    Looked(Result<Looked, String>),
    /// A recipe was written here.
    Drafted(PathBuf),
    /// It could not be.
    NotDrafted(String),
    /// What can be written of a run.
    Offered {
        run: PathBuf,
        found: Result<Offer, String>,
    },
    /// All that the run's export has said so far.
    Exported {
        run: PathBuf,
        words: Vec<Word>,
    },
    /// The model has been read, and what it was before, where that was asked for.
    TalkReady {
        title: String,
        before: Option<String>,
        settings: SampleSettings,
    },
    /// The next piece of an answer; `ended` with its last: why, how many tokens, how fast.
    Heard {
        who: Who,
        piece: String,
        ended: Option<String>,
    },
    TalkFailed(String),
}

/// Who answers on the chat page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Trained,
    /// What it was before it was trained.
    Before,
}

/// A mouse event; columns and rows from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mouse {
    Click { column: u16, row: u16 },
    WheelUp { column: u16, row: u16 },
    WheelDown { column: u16, row: u16 },
}

/// What rows that are to be trained on turned out to be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Looked {
    /// As it was typed.
    pub data: String,
    /// `999 rows; columns instruction, input, output`.
    pub about: String,
    pub goals: Vec<Goal>,
    /// A model to begin with on this machine.
    pub model: String,
}

/// A goal that a recipe can be written for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Goal {
    /// As `finetop new --method` takes it.
    pub name: String,
    pub good_for: String,
    /// The data it needs, or why these rows are not that.
    pub words: String,
    pub serves: bool,
}

/// Something the runtime is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Leave; `line` is printed on the restored terminal.
    Quit {
        line: Option<String>,
    },
    /// Ctrl-Z: restore the terminal and stop this process; redraw on return.
    Suspend,
    /// To the worker of the open run.
    Send(Command),
    ListRuns,
    OpenRun(PathBuf),
    /// Stop following the open run.
    CloseRun,
    /// Open a recipe for editing before a run: a path, or `demo`.
    OpenRecipe(String),
    /// Start a training of this recipe text and open it. `path` is where the text came from.
    StartTraining {
        path: Option<PathBuf>,
        text: String,
    },
    Demo,
    Resume {
        run: PathBuf,
        step: Option<u64>,
    },
    /// Start another run from a checkpoint of this one, with values set.
    Branch {
        run: PathBuf,
        step: u64,
        set: Vec<(String, String)>,
    },
    Delete {
        runs: Vec<PathBuf>,
    },
    SaveRecipe {
        path: PathBuf,
        text: String,
    },
    EditExternally {
        path: PathBuf,
    },
    /// To the clipboard.
    Copy(String),
    Bell,
    Notify(String),
    /// Ask for these rows as tokens.
    Rows {
        run: PathBuf,
        rows: Vec<u32>,
    },
    ReadLog {
        run: PathBuf,
    },
    /// Look at rows, and say which goals they serve.
    LookAt {
        data: String,
    },
    /// Write a recipe for a goal, a model and rows.
    Draft {
        goal: String,
        model: String,
        data: String,
    },
    /// Say what can be written of a run, and follow an export of it that is there.
    LookAtExport {
        run: PathBuf,
    },
    Export {
        run: PathBuf,
        out: PathBuf,
        wanted: Wanted,
    },
    /// Stop following it; what is at work goes on.
    CloseExport,
    /// Read the run's model to talk to it; `compare`: what it was before too.
    Talk {
        run: PathBuf,
        compare: bool,
    },
    Say {
        text: String,
        settings: SampleSettings,
    },
    /// End the answer that is on its way.
    Hush,
    BeginAnew,
    EndTalk,
}
