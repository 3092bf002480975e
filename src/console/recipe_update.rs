//! What keys do to the recipe pane: fields edited before a run, and those that can change while it goes on.

use super::fields;
use super::keymap::Action;
use super::message::Effect;
use super::model::Model;
use super::run_page::{Goal, RunPage, Typing};
use super::run_update::reachable;
use crate::recipe;
use crate::run::command::Command;
use tui_input::Input;

/// Carries out an action of the recipe pane.
pub fn act(m: &mut Model, action: Action) -> Vec<Effect> {
    let Some(page) = &mut m.run else { return Vec::new() };
    let fields = fields::shown(page);
    let last = fields.len().saturating_sub(1);
    let at = page.recipe.selected.min(last);
    match action {
        Action::Up => page.recipe.selected = at.saturating_sub(1),
        Action::Down => page.recipe.selected = (at + 1).min(last),
        Action::First => page.recipe.selected = 0,
        Action::Last => page.recipe.selected = last,
        Action::Diff => {
            page.recipe.diff = !page.recipe.diff;
            page.recipe.selected = 0;
        }
        Action::Undo => return undo(m),
        Action::Editor => {
            // What was edited here is in the file already.
            match (&page.folder, page.recipe_path.clone()) {
                (None, Some(path)) => return vec![Effect::EditExternally { path }],
                _ => m.complain("the recipe's file is edited before a run; here fields marked ● can change"),
            }
        }
        Action::Edit => {
            let Some(field) = fields.get(at) else { return Vec::new() };
            if page.folder.is_some() && !reachable(page) {
                m.complain("this run is over: its recipe cannot change");
            } else if page.folder.is_some() && !field.live {
                let text = format!("{} cannot change while the run goes on; fields marked ● can", field.label);
                m.complain(text);
            } else {
                let value = current(page, &field.key).unwrap_or_default();
                let goal = Goal::Field(field.key.clone());
                page.input = Some(Typing { goal, input: Input::new(value), problem: None });
            }
        }
        _ => {}
    }
    Vec::new()
}

/// The value of a key as TOML text: as written, else its default.
fn current(page: &RunPage, key: &str) -> Option<String> {
    let written = page.recipe.written.get(key).cloned();
    written.or_else(|| page.recipe.texts.get(key).cloned())
}

/// Enter in a field: the value is checked, then set in the text, or sent to the trainer.
pub fn typed(m: &mut Model, key: &str, value: &str) -> Vec<Effect> {
    let Some(page) = &mut m.run else { return Vec::new() };
    let before = match page.folder {
        Some(_) => current(page, key),
        None => page.recipe.written.get(key).cloned(),
    };
    if current(page, key).as_deref() == Some(value) {
        page.input = None;
        return Vec::new();
    }
    let text = match recipe::set(&page.recipe.text, key, value) {
        Ok(text) => text,
        Err(e) => {
            if let Some(typing) = &mut page.input {
                typing.problem = Some(e.what);
            }
            return Vec::new();
        }
    };
    page.input = None;
    let effect = if page.folder.is_some() {
        Effect::Send(Command::Set { key: key.into(), value: value.into(), by: "you".into() })
    } else {
        match replace(page, text) {
            Some(effect) => effect,
            None => return remember(page, key, before),
        }
    };
    remember(page, key, before);
    vec![effect]
}

fn remember(page: &mut RunPage, key: &str, before: Option<String>) -> Vec<Effect> {
    page.recipe.undo.push((key.to_string(), before));
    Vec::new()
}

/// Puts a new text in place; the effect that saves it, where it has a file.
fn replace(page: &mut RunPage, text: String) -> Option<Effect> {
    page.recipe.text = text;
    page.recipe.read();
    let path = page.recipe_path.clone().filter(|p| p.as_os_str() != "demo")?;
    Some(Effect::SaveRecipe { path, text: page.recipe.text.clone() })
}

fn undo(m: &mut Model) -> Vec<Effect> {
    let Some(page) = &mut m.run else { return Vec::new() };
    let Some((key, before)) = page.recipe.undo.pop() else {
        m.say("nothing to undo");
        return Vec::new();
    };
    if page.folder.is_some() {
        let Some(value) = before.filter(|_| reachable(page)) else { return Vec::new() };
        return vec![Effect::Send(Command::Set { key, value, by: "you".into() })];
    }
    let text = match &before {
        Some(value) => recipe::set(&page.recipe.text, &key, value),
        None => recipe::unset(&page.recipe.text, &key),
    };
    match text {
        Ok(text) => replace(page, text).into_iter().collect(),
        Err(e) => {
            m.complain(e.what);
            Vec::new()
        }
    }
}

/// Sets several values in the text of a recipe that does not run yet: a finding's fix.
pub fn set_all(m: &mut Model, set: &[(String, String)]) -> Vec<Effect> {
    let mut out = Vec::new();
    for (key, value) in set {
        out = typed(m, key, value);
    }
    out
}
