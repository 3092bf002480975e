//! The command palette: what is typed there, and what it chooses.

use super::key::Key;
use super::keymap::{self, Action, Binding, Context};
use super::message::Effect;
use super::model::{Model, Page, Palette};
use super::start::edit_request;
use super::update::act;
use tui_input::Input;

/// Opens the palette over the page on top, with the commands that hold there.
pub fn open(m: &mut Model) {
    if m.page() == Page::Palette {
        return;
    }
    m.palette = Palette { input: Input::default(), selected: 0, contexts: keymap::contexts(m) };
    m.pages.push(Page::Palette);
}

/// The commands that match what is typed, the best first.
pub fn matches(m: &Model) -> Vec<&Binding> {
    let mut seen: Vec<Action> = Vec::new();
    let mut found: Vec<(i32, &Binding)> = Vec::new();
    for (depth, &context) in m.palette.contexts.iter().enumerate() {
        for b in m.keymap.of(context).filter(|b| worth_naming(b)) {
            if seen.contains(&b.action) {
                continue;
            }
            seen.push(b.action);
            if let Some(score) = score(m.palette.input.value(), b) {
                found.push((score - depth as i32, b));
            }
        }
    }
    // Stable: among equals the table's order stays.
    found.sort_by_key(|(score, _)| -score);
    found.into_iter().map(|(_, b)| b).collect()
}

/// Moves of the cursor are keys, not commands that a person looks for.
fn worth_naming(b: &Binding) -> bool {
    use Action::*;
    !matches!(b.action, Palette | Up | Down | Left | Right | PageUp | PageDown | Back | Interrupt)
        || b.context == Context::Loss && matches!(b.action, Left | Right)
}

/// How well `typed` names a command; `None` where its letters do not occur in order.
fn score(typed: &str, b: &Binding) -> Option<i32> {
    let typed = typed.trim().to_lowercase();
    if typed.is_empty() {
        return Some(0);
    }
    let name = b.name.to_lowercase();
    if name.starts_with(&typed) {
        return Some(1000 - name.len() as i32);
    }
    if name.contains(&typed) {
        return Some(800 - name.len() as i32);
    }
    if let Some(gaps) = gaps(&typed, &name) {
        return Some(500 - gaps);
    }
    b.help.to_lowercase().contains(&typed).then_some(200)
}

/// Letters passed over where those of `typed` occur in `name` in order.
fn gaps(typed: &str, name: &str) -> Option<i32> {
    let mut rest = name.chars();
    let mut gaps = 0;
    for c in typed.chars().filter(|c| !c.is_whitespace()) {
        gaps += rest.position(|x| x == c)? as i32;
    }
    Some(gaps)
}

/// A key while the palette is open: text, a choice, or Esc.
pub fn press(m: &mut Model, key: Key) -> Vec<Effect> {
    let last = matches(m).len().saturating_sub(1);
    match key {
        Key::Esc | Key::Ctrl('c') => drop(m.pages.pop()),
        Key::Up | Key::Ctrl('p') | Key::BackTab => m.palette.selected = m.palette.selected.saturating_sub(1),
        Key::Down | Key::Ctrl('n') | Key::Tab => m.palette.selected = (m.palette.selected + 1).min(last),
        Key::Enter => {
            let chosen = matches(m).get(m.palette.selected).map(|b| b.action);
            m.pages.pop();
            return chosen.map(|action| act(m, action)).unwrap_or_default();
        }
        _ => {
            if let Some(request) = edit_request(key) {
                m.palette.input.handle(request);
                m.palette.selected = 0;
            }
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::theme::Theme;

    fn typed(text: &str) -> Vec<&'static str> {
        let mut m = Model::new(Theme::ansi(), 80, 24, 0.0);
        open(&mut m);
        text.chars().for_each(|c| drop(press(&mut m, Key::Char(c))));
        matches(&m).iter().map(|b| b.name).collect()
    }

    #[test]
    fn the_name_that_begins_as_typed_comes_first() {
        assert_eq!(typed("de")[0], "delete");
        assert_eq!(typed("sea")[0], "search");
    }

    #[test]
    fn letters_in_order_are_enough_and_others_find_nothing() {
        assert!(typed("dlt").contains(&"delete"));
        assert!(typed("rsmrn").contains(&"resume run"));
        assert!(typed("zzzz").is_empty());
    }

    #[test]
    fn a_word_of_the_help_finds_its_command() {
        assert!(typed("checkpoint").contains(&"resume run"));
    }

    #[test]
    fn enter_does_the_selected_command_on_the_page_below() {
        let mut m = Model::new(Theme::ansi(), 80, 24, 0.0);
        open(&mut m);
        "sear".chars().for_each(|c| drop(press(&mut m, Key::Char(c))));
        assert!(press(&mut m, Key::Enter).is_empty());
        assert_eq!(m.page(), Page::Start);
        assert!(m.start.search.is_some());
    }
}
