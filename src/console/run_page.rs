//! The run page's state: the folded run, the focused pane, cursors and fields.

use super::model::Reading;
use super::run_state::Run;
use crate::run::event::SampleSettings;
use std::path::PathBuf;
use tui_input::Input;

#[derive(Debug, Clone)]
pub struct RunPage {
    /// The run's folder; absent while a recipe is edited before any run.
    pub folder: Option<PathBuf>,
    /// Where the recipe came from, before a run.
    pub recipe_path: Option<PathBuf>,
    pub name: String,
    /// Whether the run's worker can be reached.
    pub live: bool,
    pub watching: u32,
    pub run: Run,
    pub reading: Reading,
    /// Utilisation in percent (of the card, else of the processor) at steps seen while watching.
    pub utilisation: Vec<(u64, f64)>,
    pub focus: Pane,
    pub zoomed: bool,
    pub chart: Chart,
    pub samples: Samples,
    pub recipe: RecipePane,
    pub diagnostics: Diagnostics,
    /// What is being typed.
    pub input: Option<Typing>,
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

    pub fn name(self) -> &'static str {
        match self {
            Pane::Loss => "loss",
            Pane::Samples => "samples",
            Pane::Memory => "memory",
            Pane::Recipe => "recipe",
            Pane::Diagnostics => "diagnostics",
        }
    }

    /// The digit that focuses it.
    pub fn number(self) -> usize {
        Pane::ALL.iter().position(|p| *p == self).map_or(0, |i| i + 1)
    }
}

/// What the large chart shows, and the sparklines below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    Loss,
    Grad,
    LearningRate,
    TokensPerSecond,
    Utilisation,
}

impl Metric {
    pub const ALL: [Metric; 5] =
        [Metric::Loss, Metric::Grad, Metric::LearningRate, Metric::TokensPerSecond, Metric::Utilisation];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XAxis {
    Step,
    Epoch,
    Tokens,
    Time,
}

/// The large chart's view.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    pub metric: Metric,
    pub axis: XAxis,
    pub log: bool,
    /// The step under the cursor; `None` follows the newest.
    pub cursor: Option<u64>,
    /// Steps shown; `None`: all. It survives new data.
    pub zoom: Option<(f64, f64)>,
    /// The marked sparkline.
    pub mark: Option<usize>,
}

impl Chart {
    /// The metrics shown as sparklines: all but the large one.
    pub fn sparklines(&self) -> impl Iterator<Item = Metric> {
        let hero = self.metric;
        Metric::ALL.into_iter().filter(move |m| *m != hero)
    }
}

#[derive(Debug, Clone, Default)]
pub struct Samples {
    /// Settings for the next draw by key; follow the recipe until changed here.
    pub settings: SampleSettings,
    pub changed: bool,
    /// The later step compared; `None` follows the newest.
    pub step: Option<u64>,
    /// The first prompt shown.
    pub first: usize,
}

#[derive(Debug, Clone, Default)]
pub struct RecipePane {
    /// The text as it stands, and as it was when opened.
    pub text: String,
    pub original: String,
    /// Earlier texts, for undo.
    pub undo: Vec<String>,
    pub selected: usize,
    /// Whether only what differs from the original is shown.
    pub diff: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Diagnostics {
    pub selected: usize,
    /// Whether the selected finding is shown whole.
    pub why: bool,
}

/// Text being typed, and what for.
#[derive(Debug, Clone)]
pub struct Typing {
    pub goal: Goal,
    pub input: Input,
    /// Why Enter did not take it.
    pub problem: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goal {
    /// A prompt of one's own.
    Prompt,
    /// The value of this recipe key.
    Field(String),
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
            utilisation: Vec::new(),
            focus: Pane::Loss,
            zoomed: false,
            chart: Chart {
                metric: Metric::Loss,
                axis: XAxis::Step,
                log: false,
                cursor: None,
                zoom: None,
                mark: None,
            },
            samples: Samples::default(),
            recipe: RecipePane { text: recipe.clone(), original: recipe, ..RecipePane::default() },
            diagnostics: Diagnostics::default(),
            input: None,
        }
    }

    /// The step that readouts are about: the cursor's, or the last.
    pub fn cursor_step(&self) -> u64 {
        let last = self.run.step_number();
        self.chart.cursor.map_or(last, |c| c.min(last))
    }

    /// The later sample step compared: the chosen one, or the newest.
    pub fn sample_step(&self) -> Option<u64> {
        let steps = self.run.sample_steps();
        let newest = steps.last().copied();
        self.samples.step.and_then(|s| steps.iter().rev().find(|t| **t <= s).copied()).or(newest)
    }
}
