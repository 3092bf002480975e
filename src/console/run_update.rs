//! What keys and the mouse do on the run page.

use super::key::Key;
use super::keymap::Action;
use super::message::{Effect, Mouse};
use super::model::Model;
use super::run_page::Pane;

/// Carries out an action of the run page.
pub fn act(m: &mut Model, action: Action) -> Vec<Effect> {
    let Some(page) = &mut m.run else { return Vec::new() };
    match action {
        Action::PaneLoss => page.focus = Pane::Loss,
        Action::PaneSamples => page.focus = Pane::Samples,
        Action::PaneMemory => page.focus = Pane::Memory,
        Action::PaneRecipe => page.focus = Pane::Recipe,
        Action::PaneDiagnostics => page.focus = Pane::Diagnostics,
        Action::Zoom => page.zoomed = !page.zoomed,
        _ => {}
    }
    Vec::new()
}

/// A key while a field or a prompt is typed.
pub fn typed(m: &mut Model, key: Key) -> Vec<Effect> {
    if let (Some(page), Key::Esc) = (&mut m.run, key) {
        page.input = None;
    }
    Vec::new()
}

/// A click or the wheel on the run page.
pub fn mouse(_: &mut Model, _: Mouse) -> Vec<Effect> {
    Vec::new()
}
