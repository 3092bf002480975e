//! The start page's state and what its keys do.

use super::key::Key;
use super::keymap::Action;
use super::message::{Effect, Mouse};
use super::model::{Model, RecipeRow, RunRow};
use std::path::PathBuf;
use tui_input::Input;

#[derive(Debug, Clone, Default)]
pub struct StartPage {
    pub runs: Vec<RunRow>,
    pub recipes: Vec<RecipeRow>,
    pub selected: usize,
    pub marked: Vec<PathBuf>,
    /// The search being typed.
    pub search: Option<Input>,
}

/// Carries out a command of the start page.
pub fn act(m: &mut Model, command: Action) -> Vec<Effect> {
    match command {
        Action::Up => m.start.selected = m.start.selected.saturating_sub(1),
        Action::Down => m.start.selected = (m.start.selected + 1).min(m.start.runs.len().saturating_sub(1)),
        Action::Open => {
            return m
                .start
                .runs
                .get(m.start.selected)
                .map(|r| vec![Effect::OpenRun(r.folder.clone())])
                .unwrap_or_default();
        }
        _ => {}
    }
    Vec::new()
}

/// A key while the search is typed.
pub fn typed(m: &mut Model, key: Key) -> Vec<Effect> {
    if matches!(key, Key::Esc | Key::Enter) {
        m.start.search = None;
    }
    Vec::new()
}

/// A click or the wheel on the start page.
pub fn mouse(m: &mut Model, mouse: Mouse) -> Vec<Effect> {
    match mouse {
        Mouse::WheelUp { .. } => act(m, Action::Up),
        Mouse::WheelDown { .. } => act(m, Action::Down),
        Mouse::Click { .. } => Vec::new(),
    }
}
