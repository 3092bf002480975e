//! Pages that scroll: help, log, rows.

use super::keymap::Action;
use super::message::Effect;
use super::model::Model;
use super::view::pager_lines;

/// Carries out an action of a page that scrolls.
pub fn act(m: &mut Model, action: Action) -> Vec<Effect> {
    let page = usize::from(m.height.saturating_sub(4)).max(1);
    let last = pager_lines(m).saturating_sub(page);
    m.scroll = match action {
        Action::Up => m.scroll.saturating_sub(1),
        Action::Down => m.scroll + 1,
        Action::PageUp => m.scroll.saturating_sub(page),
        Action::PageDown => m.scroll + page,
        Action::First => 0,
        Action::Last => last,
        _ => m.scroll,
    }
    .min(last);
    Vec::new()
}
