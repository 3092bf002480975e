//! The run page's state: the folded run, the focused pane, cursors and fields.

use super::model::Reading;
use super::run_state::Run;
use std::path::PathBuf;
use tui_input::Input;

#[derive(Debug, Clone)]
pub struct RunPage {
    /// The run's folder; absent while a recipe is edited before any run.
    pub folder: Option<PathBuf>,
    /// Where the recipe came from, before a run.
    pub recipe_path: Option<PathBuf>,
    pub name: String,
    pub live: bool,
    pub watching: u32,
    pub run: Run,
    pub reading: Reading,
    pub focus: Pane,
    pub zoomed: bool,
    /// The recipe's text as it stands.
    pub recipe: String,
    /// Text being typed: a field's value or a prompt.
    pub input: Option<Input>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pane {
    Loss,
    Samples,
    Memory,
    Recipe,
    Diagnostics,
}

impl Pane {
    pub const ALL: [Pane; 5] = [Pane::Loss, Pane::Samples, Pane::Memory, Pane::Recipe, Pane::Diagnostics];
}

impl RunPage {
    pub fn new(folder: Option<PathBuf>, name: String, recipe: String, live: bool) -> Self {
        Self {
            folder,
            recipe_path: None,
            name,
            live,
            watching: 1,
            run: Run::default(),
            reading: Reading::default(),
            focus: Pane::Loss,
            zoomed: false,
            recipe,
            input: None,
        }
    }
}
