//! Pages that scroll: help, log, rows.

use super::keymap::Action;
use super::message::Effect;
use super::model::Model;

/// Carries out an action of a page that scrolls.
pub fn act(m: &mut Model, action: Action) -> Vec<Effect> {
    match action {
        Action::Up => m.scroll = m.scroll.saturating_sub(1),
        Action::Down => m.scroll = m.scroll.saturating_add(1),
        Action::First => m.scroll = 0,
        _ => {}
    }
    Vec::new()
}
