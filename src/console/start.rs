//! The start page's state and what its keys do.
//!
//! One cursor goes through all that can be opened: the runs as shown (searched, sorted), the recipes, the demo.

use super::key::Key;
use super::keymap::Action;
use super::message::{Effect, Mouse};
use super::model::{Confirm, Model, RecipeRow, RunRow};
use std::path::PathBuf;
use tui_input::{Input, InputRequest};

#[derive(Debug, Clone, Default)]
pub struct StartPage {
    /// As the index gave them, newest first.
    pub runs: Vec<RunRow>,
    /// Whether the list has been read once: an empty one is then known to be empty.
    pub listed: bool,
    pub recipes: Vec<RecipeRow>,
    /// What the cursor is on; `None`: the first thing there is.
    pub selected: Option<Item>,
    pub marked: Vec<PathBuf>,
    pub sort: Sort,
    /// The search being typed.
    pub search: Option<Input>,
    /// The search that holds; empty: all runs.
    pub filter: String,
}

/// Something that Enter opens. Known by its path, so that the cursor stays when the list changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    Run(PathBuf),
    Recipe(PathBuf),
    Demo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sort {
    #[default]
    Newest,
    Name,
    Eval,
    State,
}

impl Sort {
    pub fn title(self) -> &'static str {
        match self {
            Sort::Newest => "newest",
            Sort::Name => "name",
            Sort::Eval => "eval best",
            Sort::State => "state",
        }
    }

    fn next(self) -> Sort {
        match self {
            Sort::Newest => Sort::Name,
            Sort::Name => Sort::Eval,
            Sort::Eval => Sort::State,
            Sort::State => Sort::Newest,
        }
    }
}

impl StartPage {
    /// The runs that match the search, sorted. The text being typed counts already.
    pub fn shown(&self) -> Vec<&RunRow> {
        let typed = self.search.as_ref().map_or(self.filter.as_str(), Input::value).to_lowercase();
        let words: Vec<&str> = typed.split_whitespace().collect();
        let matches = |r: &&RunRow| {
            let text = format!("{} {} {} {}", r.name, r.state, r.method, r.model).to_lowercase();
            words.iter().all(|w| text.contains(w))
        };
        let mut runs: Vec<&RunRow> = self.runs.iter().filter(matches).collect();
        match self.sort {
            Sort::Newest => runs.sort_by(|a, b| b.live.cmp(&a.live).then(b.changed.total_cmp(&a.changed))),
            Sort::Name => runs.sort_by(|a, b| a.name.cmp(&b.name)),
            Sort::Eval => {
                let key = |r: &RunRow| r.best_eval.map_or(f64::INFINITY, |(loss, _)| loss);
                runs.sort_by(|a, b| key(a).total_cmp(&key(b)));
            }
            Sort::State => runs.sort_by(|a, b| b.live.cmp(&a.live).then(a.state.cmp(&b.state))),
        }
        runs
    }

    /// All that the cursor goes through, in order.
    pub fn items(&self) -> Vec<Item> {
        let runs = self.shown().into_iter().map(|r| Item::Run(r.folder.clone()));
        let recipes = self.recipes.iter().map(|r| Item::Recipe(r.path.clone()));
        runs.chain(recipes).chain([Item::Demo]).collect()
    }

    /// What the cursor is on: the item chosen, or the first where that is gone.
    pub fn current(&self) -> Item {
        let items = self.items();
        match &self.selected {
            Some(item) if items.contains(item) => item.clone(),
            _ => items.into_iter().next().unwrap_or(Item::Demo),
        }
    }

    /// The run under the cursor.
    pub fn run(&self) -> Option<&RunRow> {
        let Item::Run(folder) = self.current() else { return None };
        self.runs.iter().find(|r| r.folder == folder)
    }

    /// Whether any run goes on now, so that the list is worth reading again.
    pub fn any_live(&self) -> bool {
        self.runs.iter().any(|r| r.live)
    }

    /// Whether `R` can go on with this run.
    pub fn resumable(run: &RunRow) -> bool {
        !run.live && matches!(run.state.as_str(), "died" | "stopped" | "failed") && run.checkpoint.is_some()
    }

    fn move_by(&mut self, by: isize) {
        let items = self.items();
        let current = self.current();
        let at = items.iter().position(|i| *i == current).unwrap_or(0);
        let to = at.saturating_add_signed(by).min(items.len().saturating_sub(1));
        self.selected = items.into_iter().nth(to);
    }
}

/// Carries out a command of the start page.
pub fn act(m: &mut Model, command: Action) -> Vec<Effect> {
    let start = &mut m.start;
    match command {
        Action::Up | Action::Left => start.move_by(-1),
        Action::Down | Action::Right => start.move_by(1),
        Action::PageUp => start.move_by(-10),
        Action::PageDown => start.move_by(10),
        Action::First => start.selected = start.items().into_iter().next(),
        Action::Last => start.selected = start.items().into_iter().next_back(),
        Action::New => super::new_page::open(m),
        Action::Search => start.search = Some(Input::new(start.filter.clone())),
        Action::Sort => start.sort = start.sort.next(),
        Action::Mark => {
            if let Item::Run(folder) = start.current() {
                match start.marked.iter().position(|f| *f == folder) {
                    Some(i) => drop(start.marked.remove(i)),
                    None => start.marked.push(folder),
                }
                start.move_by(1);
            }
        }
        Action::Back => {
            start.filter.clear();
            start.marked.clear();
        }
        Action::Open => {
            return match start.current() {
                Item::Run(folder) => vec![Effect::OpenRun(folder)],
                Item::Recipe(path) => vec![Effect::OpenRecipe(path.to_string_lossy().into_owned())],
                Item::Demo => vec![Effect::Demo],
            };
        }
        Action::ExportRun => match start.run().filter(|r| r.checkpoint.is_some()).map(|r| r.folder.clone()) {
            Some(run) => return super::export_page::open(m, run),
            None => m.say("choose a run that has a checkpoint"),
        },
        Action::Log => {
            if let Item::Run(run) = start.current() {
                return vec![Effect::ReadLog { run }];
            }
        }
        Action::ResumeRun => resume(m),
        Action::Delete => delete(m),
        _ => {}
    }
    Vec::new()
}

fn resume(m: &mut Model) {
    let Some(run) = m.start.run().cloned() else { return };
    match run.checkpoint {
        _ if run.live => m.complain(format!("{} is still at work", run.name)),
        _ if run.state == "finished" => m.complain(format!("{} is finished: nothing is left to train", run.name)),
        None => m.complain(format!("{} has no checkpoint to go on from", run.name)),
        Some(step) => {
            let question = format!("Go on with {} from its checkpoint of step {step}?", run.name);
            m.confirm = Some(Confirm { question, effect: Effect::Resume { run: run.folder, step: None } });
        }
    }
}

fn delete(m: &mut Model) {
    let chosen: Vec<RunRow> = if m.start.marked.is_empty() {
        m.start.run().cloned().into_iter().collect()
    } else {
        m.start.runs.iter().filter(|r| m.start.marked.contains(&r.folder)).cloned().collect()
    };
    if let Some(live) = chosen.iter().find(|r| r.live) {
        let key = m.keymap.key(Action::Stop);
        m.complain(format!("{} is still at work: open it and stop it first with {key}", live.name));
        return;
    }
    let question = match chosen.as_slice() {
        [] => return,
        [run] => format!("Delete {} with its events and checkpoints? ({})", run.name, run.folder.display()),
        several => {
            let names: Vec<&str> = several.iter().map(|r| r.name.as_str()).collect();
            format!("Delete {} runs with their events and checkpoints? ({})", several.len(), names.join(", "))
        }
    };
    let effect = Effect::Delete { runs: chosen.into_iter().map(|r| r.folder).collect() };
    m.confirm = Some(Confirm { question, effect });
}

/// A key while the search is typed. Enter keeps it, Esc drops it, arrows move in what it found.
pub fn typed(m: &mut Model, key: Key) -> Vec<Effect> {
    let start = &mut m.start;
    match key {
        Key::Enter => start.filter = start.search.take().map(|i| i.value().to_string()).unwrap_or_default(),
        Key::Esc => {
            start.search = None;
            start.filter.clear();
        }
        Key::Up => start.move_by(-1),
        Key::Down => start.move_by(1),
        _ => {
            if let (Some(input), Some(request)) = (&mut start.search, edit_request(key)) {
                input.handle(request);
                start.selected = None;
            }
        }
    }
    Vec::new()
}

/// What a key does to a line of text.
pub fn edit_request(key: Key) -> Option<InputRequest> {
    Some(match key {
        Key::Char(c) => InputRequest::InsertChar(c),
        Key::Backspace => InputRequest::DeletePrevChar,
        Key::Delete => InputRequest::DeleteNextChar,
        Key::Left => InputRequest::GoToPrevChar,
        Key::Right => InputRequest::GoToNextChar,
        Key::Home | Key::Ctrl('a') => InputRequest::GoToStart,
        Key::End | Key::Ctrl('e') => InputRequest::GoToEnd,
        Key::Ctrl('u') => InputRequest::DeleteLine,
        Key::Ctrl('w') => InputRequest::DeletePrevWord,
        Key::Ctrl('k') => InputRequest::DeleteTillEnd,
        _ => return None,
    })
}

/// A click or the wheel on the start page.
pub fn mouse(m: &mut Model, mouse: Mouse) -> Vec<Effect> {
    match mouse {
        Mouse::WheelUp { .. } => act(m, Action::Up),
        Mouse::WheelDown { .. } => act(m, Action::Down),
        Mouse::Click { column, row } => {
            let Some(item) = super::view::start::item_at(m, column, row) else { return Vec::new() };
            // A second click on what is selected opens it.
            if m.start.selected.as_ref() == Some(&item) {
                return act(m, Action::Open);
            }
            m.start.selected = Some(item);
            Vec::new()
        }
    }
}
