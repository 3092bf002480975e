//! The page that begins a new run: rows, a goal that they serve, a model; a recipe is written from that.
//!
//! Every key is text or moves between the fields, so that a path can be typed without thinking of commands.

use super::key::Key;
use super::message::{Effect, Looked};
use super::model::{Model, Page};
use super::start::edit_request;
use super::update::show;
use tui_input::Input;

#[derive(Debug, Clone, Default)]
pub struct NewPage {
    pub field: Field,
    pub data: Input,
    pub model: Input,
    /// The index among the goals.
    pub goal: usize,
    /// What the rows are; none before they were looked at.
    pub looked: Option<Looked>,
    /// An answer is on its way: `reading the rows`.
    pub busy: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Field {
    #[default]
    Data,
    Goal,
    Model,
}

/// Put the page on top; what was typed before is still there.
pub fn open(m: &mut Model) {
    m.new.busy = None;
    show(m, Page::New);
}

/// The rows were looked at.
pub fn looked(m: &mut Model, found: Result<Looked, String>) {
    m.new.busy = None;
    match found {
        Err(e) => m.complain(e),
        Ok(found) => {
            let page = &mut m.new;
            page.goal = found.goals.iter().position(|g| g.serves).unwrap_or(0);
            if page.model.value().trim().is_empty() {
                page.model = Input::new(found.model.clone());
            }
            page.looked = Some(found);
            page.field = Field::Goal;
        }
    }
}

/// A key while the page is on top.
pub fn press(m: &mut Model, key: Key) -> Vec<Effect> {
    if key == Key::Esc {
        m.pages.pop();
        return Vec::new();
    }
    if m.new.busy.is_some() {
        return Vec::new();
    }
    let goals = m.new.looked.as_ref().map_or(0, |l| l.goals.len());
    match (m.new.field, key) {
        (_, Key::Enter) => return go_on(m),
        (Field::Goal, Key::Up) => m.new.goal = m.new.goal.saturating_sub(1),
        (Field::Goal, Key::Down) => m.new.goal = (m.new.goal + 1).min(goals.saturating_sub(1)),
        (field, Key::Tab | Key::Down) => m.new.field = next(field, goals > 0),
        (field, Key::BackTab | Key::Up) => m.new.field = previous(field, goals > 0),
        (Field::Goal, _) => {}
        (field, key) => {
            if let Some(request) = edit_request(key) {
                let input = if field == Field::Data { &mut m.new.data } else { &mut m.new.model };
                input.handle(request);
            }
        }
    }
    Vec::new()
}

/// Goals can only be chosen of rows that were looked at.
fn next(field: Field, goals: bool) -> Field {
    match field {
        Field::Data if goals => Field::Goal,
        Field::Data | Field::Goal => Field::Model,
        Field::Model => Field::Data,
    }
}

fn previous(field: Field, goals: bool) -> Field {
    match field {
        Field::Data => Field::Model,
        Field::Model if goals => Field::Goal,
        Field::Model | Field::Goal => Field::Data,
    }
}

/// Enter: look at the rows, take the goal, write the recipe.
fn go_on(m: &mut Model) -> Vec<Effect> {
    let page = &mut m.new;
    let data = page.data.value().trim().to_string();
    if data.is_empty() {
        page.field = Field::Data;
        m.complain("name the rows to learn from: a file, a folder, or hf:OWNER/NAME");
        return Vec::new();
    }
    // Rows that were typed anew are looked at anew.
    let Some(found) = page.looked.as_ref().filter(|l| l.data == data && page.field != Field::Data) else {
        page.busy = Some("reading the rows".into());
        return vec![Effect::LookAt { data }];
    };
    let Some(goal) = found.goals.get(page.goal).cloned() else { return Vec::new() };
    if !goal.serves {
        page.field = Field::Goal;
        m.complain(format!("these rows do not serve {}: {}", goal.name, goal.words));
        return Vec::new();
    }
    let model = page.model.value().trim().to_string();
    if page.field == Field::Goal || model.is_empty() {
        page.field = Field::Model;
        return Vec::new();
    }
    page.busy = Some("writing the recipe".into());
    vec![Effect::Draft { goal: goal.name, model, data }]
}

#[cfg(test)]
mod tests {
    use super::super::message::{Goal, Message};
    use super::super::theme::Theme;
    use super::super::update::update;
    use super::super::view::snapshot;
    use super::*;

    fn keys(m: &mut Model, pressed: &str) -> Vec<Effect> {
        pressed.split(' ').flat_map(|k| update(m, Message::Key(Key::parse(k).unwrap()))).collect()
    }

    fn found() -> Looked {
        let goal =
            |name: &str, serves| Goal { name: name.into(), good_for: "x".into(), words: "because".into(), serves };
        Looked {
            data: "ab".into(),
            about: "9 rows".into(),
            goals: vec![goal("cpt", false), goal("sft", true)],
            model: "o/m".into(),
        }
    }

    fn page() -> Model {
        let mut m = Model::new(Theme::ansi(), 120, 40, 0.0);
        keys(&mut m, "n");
        m
    }

    #[test]
    fn rows_are_looked_at_then_a_goal_and_a_model_make_a_recipe() {
        let mut m = page();
        assert!(m.typing());
        assert_eq!(keys(&mut m, "a b enter"), [Effect::LookAt { data: "ab".into() }]);
        assert!(snapshot(&m, 120, 40).contains("reading the rows"));
        assert!(keys(&mut m, "enter").is_empty(), "while it is busy nothing is asked again");
        update(&mut m, Message::Looked(Ok(found())));
        assert_eq!((m.new.field, m.new.goal), (Field::Goal, 1), "the first goal that the rows serve");
        let shown = snapshot(&m, 120, 40);
        insta::assert_snapshot!("new_120x40", shown);
        insta::assert_snapshot!("new_80x24", snapshot(&m, 80, 24));
        assert!(shown.contains("9 rows") && shown.contains("✕ cpt") && shown.contains("because"), "{shown}");
        assert!(keys(&mut m, "up enter").is_empty());
        assert!(m.notice.as_ref().is_some_and(|n| n.error && n.text.contains("do not serve cpt")));
        let draft = Effect::Draft { goal: "sft".into(), model: "o/m".into(), data: "ab".into() };
        assert_eq!(keys(&mut m, "down enter enter"), [draft]);
        let written = update(&mut m, Message::Drafted("sft-ab.toml".into()));
        assert_eq!(written, [Effect::OpenRecipe("sft-ab.toml".into())]);
        assert_eq!(m.page(), Page::Start, "esc from the recipe leads back to the start page");
    }

    #[test]
    fn other_rows_are_looked_at_again_and_what_fails_can_be_mended() {
        let mut m = page();
        keys(&mut m, "a b enter");
        update(&mut m, Message::Looked(Err("there is no file ab".into())));
        assert!(m.notice.as_ref().is_some_and(|n| n.error));
        keys(&mut m, "enter");
        update(&mut m, Message::Looked(Ok(found())));
        keys(&mut m, "s-tab c tab");
        assert_eq!(keys(&mut m, "enter"), [Effect::LookAt { data: "abc".into() }]);
        keys(&mut m, "esc");
        assert_eq!(m.page(), Page::Start);
        keys(&mut m, "n");
        assert_eq!(m.new.data.value(), "abc", "what was typed is still there");
    }

    #[test]
    fn a_letter_that_is_a_command_elsewhere_is_text_here() {
        let mut m = page();
        assert!(keys(&mut m, "q n : ? enter").contains(&Effect::LookAt { data: "qn:?".into() }));
    }
}
