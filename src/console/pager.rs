//! Pages that scroll: help, log, rows.

use super::keymap::Action;
use super::message::Effect;
use super::model::Model;
use super::view::{self, chrome};

/// Lines of such a page that are seen at once: without its title, the line under it, and the footer.
fn seen(m: &Model) -> usize {
    usize::from(m.height.saturating_sub(2 + chrome::FOOTER)).max(1)
}

/// The scroll position that shows the end.
pub fn last(m: &Model) -> usize {
    view::pager_lines(m).saturating_sub(seen(m))
}

/// Carries out an action of a page that scrolls.
pub fn act(m: &mut Model, action: Action) -> Vec<Effect> {
    let last = last(m);
    let to = match action {
        Action::Up => m.scroll.saturating_sub(1),
        Action::Down => m.scroll + 1,
        Action::PageUp => m.scroll.saturating_sub(seen(m)),
        Action::PageDown => m.scroll + seen(m),
        Action::First => 0,
        Action::Last => last,
        _ => m.scroll,
    };
    m.scroll = to.min(last);
    Vec::new()
}
