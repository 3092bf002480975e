//! The run page's state: the folded run, the focused pane, cursors and fields.

use super::curves::{self, Curve};
use super::model::Reading;
use super::run_state::Run;
use crate::recipe::{self, Recipe};
use crate::run::event::{Body, Event, RunState, SampleSettings, Severity};
use std::collections::BTreeMap;
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
    /// One of the method's own, by its place in [`curves::of`].
    Own(usize),
    Grad,
    LearningRate,
    TokensPerSecond,
    Utilisation,
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
    /// Whether y is logarithmic, once a person said so; see [`RunPage::log_y`].
    pub log: Option<bool>,
    /// The step under the cursor; `None` follows the newest.
    pub cursor: Option<u64>,
    /// Steps shown; `None`: all. It survives new data.
    pub zoom: Option<(f64, f64)>,
    /// The marked sparkline.
    pub mark: Option<usize>,
}

/// A loss that has fallen by this factor is drawn over a logarithmic axis: on a linear one the tail, where eval turns
/// up, would be flat.
const FALLS_FAR: f64 = 8.0;

impl RunPage {
    /// What can be charted: the loss, what the method measures, and what every run has.
    pub fn metrics(&self) -> Vec<Metric> {
        let own = (0..self.curves().len()).map(Metric::Own);
        let rest = [Metric::Grad, Metric::LearningRate, Metric::TokensPerSecond, Metric::Utilisation];
        [Metric::Loss].into_iter().chain(own).chain(rest).collect()
    }

    /// The curves of the run's method.
    pub fn curves(&self) -> &'static [Curve] {
        curves::of(&self.run.start.method)
    }

    /// The metrics shown as sparklines: all but the large one.
    pub fn sparklines(&self) -> impl Iterator<Item = Metric> {
        let hero = self.chart.metric;
        self.metrics().into_iter().filter(move |m| *m != hero)
    }

    /// Whether the large chart's y axis is logarithmic: as the person said, else where the loss has fallen far.
    pub fn log_y(&self) -> bool {
        self.chart.log.unwrap_or_else(|| {
            let smooth = self.run.steps.iter().map(|p| p.smooth);
            let evals = self.run.evals.iter().map(|e| e.data.loss);
            let (low, high) = smooth
                .chain(evals)
                .filter(|v| v.is_finite() && *v > 0.0)
                .fold((f64::INFINITY, 0.0f64), |(low, high), v| (low.min(v), high.max(v)));
            self.chart.metric == Metric::Loss && high > FALLS_FAR * low
        })
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
    /// The text as it stands.
    pub text: String,
    /// The values as written in the text, by key.
    pub written: BTreeMap<String, String>,
    /// What the text says; the last readable state while it is wrong.
    pub values: Option<Recipe>,
    /// The same as texts, by key: every frame shows them.
    pub texts: BTreeMap<&'static str, String>,
    /// What they were when the run started or the recipe was opened.
    pub original: BTreeMap<&'static str, String>,
    /// What is wrong with the text, one line each.
    pub problems: Vec<String>,
    /// Edits made here: the key and its value before, for undo. `None`: it was not in the text.
    pub undo: Vec<(String, Option<String>)>,
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

impl RecipePane {
    /// A recipe just opened.
    pub fn of(text: String) -> Self {
        let mut pane = Self { text, ..Self::default() };
        pane.read();
        pane.original.clone_from(&pane.texts);
        pane
    }

    /// Reads the text anew after it changed.
    pub fn read(&mut self) {
        self.written = written(&self.text);
        match recipe::examine(&self.text, "recipe.toml", &[]) {
            Ok(loaded) => {
                self.texts = recipe::all(&loaded.recipe);
                self.values = Some(loaded.recipe);
                self.problems.clear();
            }
            Err(problems) => self.problems = problems.into_iter().map(|p| format!("{}: {}", p.place, p.what)).collect(),
        }
    }
}

/// The values that a recipe's text holds, as written; nothing where it is not TOML.
fn written(text: &str) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let Ok(doc) = text.parse::<toml_edit::DocumentMut>() else { return out };
    // Without what stands around a value: a comment after it is none of it.
    let bare = |item: &toml_edit::Item| match item.as_value() {
        Some(value) => value.clone().decorated("", "").to_string(),
        None => item.to_string().trim().to_string(),
    };
    for (key, item) in doc.iter() {
        match item.as_table_like() {
            Some(table) => out.extend(table.iter().map(|(k, v)| (format!("{key}.{k}"), bare(v)))),
            None => drop(out.insert(key.to_string(), bare(item))),
        }
    }
    out
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
            chart: Chart { metric: Metric::Loss, axis: XAxis::Step, log: None, cursor: None, zoom: None, mark: None },
            samples: Samples::default(),
            recipe: RecipePane::of(recipe),
            diagnostics: Diagnostics::default(),
            input: None,
        }
    }

    /// Takes one event in; a live change also alters the recipe shown.
    pub fn take(&mut self, event: &Event) {
        self.run.fold(event);
        match &event.body {
            // A folder's name is what commands call a run; a branch has its origin's run_name.
            Body::Start(s) => {
                if self.name.is_empty() {
                    self.name.clone_from(&s.run_name);
                }
                // GRPO's loss says nothing: its reward is what is looked at first.
                if s.method == "grpo" && self.run.steps.is_empty() {
                    self.chart.metric = Metric::Own(0);
                }
            }
            Body::Change(c) => {
                if let Ok(text) = recipe::set(&self.recipe.text, &c.key, &c.to) {
                    self.recipe.text = text;
                    self.recipe.read();
                }
            }
            _ => {}
        }
    }

    /// What is worth a bell: a new finding, or the end.
    pub fn news(&self, event: &Event) -> Option<String> {
        match &event.body {
            Body::Finding(f) if f.severity >= Severity::Warning && !f.resolved => {
                Some(format!("{}: {}", self.name, f.title))
            }
            Body::State(s) => match s.state {
                RunState::Finished => Some(format!("{} has finished", self.name)),
                RunState::Failed => Some(format!("{} has failed: {}", self.name, s.why)),
                _ => None,
            },
            _ => None,
        }
    }

    /// Takes a reading of the machine, and remembers its utilisation while the run goes on.
    pub fn saw(&mut self, reading: Reading) {
        let step = self.run.step_number();
        let running = self.run.state == Some(RunState::Running) && self.live;
        if let Some(v) = reading.gpu_percent.or(reading.cpu_percent).filter(|_| running && step > 0) {
            let known = self.utilisation.partition_point(|u| u.0 <= step);
            self.utilisation.truncate(known);
            self.utilisation.push((step, v));
        }
        self.reading = reading;
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

    /// The settings of the next draw by key: as changed here, else the recipe's.
    pub fn settings(&self) -> SampleSettings {
        match &self.recipe.values {
            Some(r) if !self.samples.changed => SampleSettings::from(&r.sample),
            _ => self.samples.settings.clone(),
        }
    }

    /// The schedule in words: `cosine, warm-up 3 %`.
    pub fn schedule_words(&self) -> String {
        let Some(r) = &self.recipe.values else { return String::new() };
        let t = &r.train;
        let name =
            t.lr_scheduler_type.replace("_with_warmup", "").replace("warmup_stable_decay", "wsd").replace('_', " ");
        match (t.warmup_steps, t.warmup_ratio) {
            (0, share) if share > 0.0 => format!("{name}, warm-up {:.0} %", share * 100.0),
            (0, _) => name,
            (steps, _) => format!("{name}, warm-up {steps}"),
        }
    }
}
