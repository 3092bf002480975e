//! The chat page: a run that has ended is talked to, alone or beside what it was before it was trained.

use super::key::Key;
use super::message::{Effect, Who};
use super::model::{Model, Page};
use super::start::edit_request;
use super::update::show;
use crate::run::event::SampleSettings;
use std::path::PathBuf;
use tui_input::Input;

/// What may be typed in place of a message, as in `finetop chat`.
pub const HELP: &str = "/new begins anew · /temp 0.7 sets the temperature";

#[derive(Debug, Clone, Default)]
pub struct ChatPage {
    pub run: PathBuf,
    /// Who is talked to: `support, step 400 (best by eval)`; empty while the model is read.
    pub title: String,
    /// What it was before, where that is asked too.
    pub before: Option<String>,
    pub turns: Vec<Turn>,
    pub input: Input,
    pub settings: SampleSettings,
    /// What is waited for.
    pub busy: Option<String>,
    /// Lines scrolled up from the end.
    pub up: usize,
}

/// A message and its answers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Turn {
    pub text: String,
    pub answers: Vec<Answer>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub who: Who,
    pub text: String,
    /// Once it has ended: `stop ✓, 31 tokens, 24 tok/s`.
    pub ended: Option<String>,
}

/// Opens the page and begins to read the model; `compare`: its base too.
pub fn open(m: &mut Model, run: PathBuf, compare: bool) -> Vec<Effect> {
    m.chat = ChatPage {
        run: run.clone(),
        before: compare.then(String::new),
        busy: Some("reading the model".into()),
        ..ChatPage::default()
    };
    show(m, Page::Chat);
    vec![Effect::Talk { run, compare }]
}

/// The model has been read.
pub fn ready(m: &mut Model, title: String, before: Option<String>, settings: SampleSettings) {
    let page = &mut m.chat;
    (page.title, page.settings, page.busy) = (title, settings, None);
    page.before = before;
}

/// A piece of an answer; `ended` with its last.
pub fn heard(m: &mut Model, who: Who, piece: &str, ended: Option<String>) {
    let page = &mut m.chat;
    let Some(turn) = page.turns.last_mut() else { return };
    if !turn.answers.iter().any(|a| a.who == who) {
        turn.answers.push(Answer { who, text: String::new(), ended: None });
    }
    if let Some(answer) = turn.answers.iter_mut().find(|a| a.who == who) {
        answer.text.push_str(piece);
        answer.ended = ended.or(answer.ended.take());
    }
    let asked = 1 + usize::from(page.before.is_some());
    if turn.answers.iter().filter(|a| a.ended.is_some()).count() == asked {
        page.busy = None;
    }
}

/// It could not be: the model read, or the answer given.
pub fn failed(m: &mut Model, why: String) {
    m.chat.busy = None;
    m.complain(why);
}

/// A key while the page is on top.
pub fn press(m: &mut Model, key: Key) -> Vec<Effect> {
    let page = &mut m.chat;
    match key {
        // One level back: first the answer ends, then the page.
        Key::Esc | Key::Ctrl('c') if page.busy.is_some() && !page.title.is_empty() => return vec![Effect::Hush],
        Key::Esc | Key::Ctrl('c') => {
            m.pages.retain(|p| *p != Page::Chat);
            return vec![Effect::EndTalk];
        }
        Key::PageUp => page.up += 10,
        Key::PageDown => page.up = page.up.saturating_sub(10),
        Key::Up => page.up += 1,
        Key::Down => page.up = page.up.saturating_sub(1),
        Key::Enter => return say(m),
        key => {
            if let Some(request) = edit_request(key) {
                page.input.handle(request);
            }
        }
    }
    Vec::new()
}

fn say(m: &mut Model) -> Vec<Effect> {
    let page = &mut m.chat;
    let text = page.input.value().trim().to_string();
    if text.is_empty() || page.busy.is_some() {
        return Vec::new();
    }
    if text == "/new" {
        (page.turns, page.up, page.input) = (Vec::new(), 0, Input::default());
        return vec![Effect::BeginAnew];
    }
    if let Some(number) = text.strip_prefix("/temp") {
        match number.trim().parse::<f64>() {
            Ok(t) if (0.0..=5.0).contains(&t) => {
                page.settings.temperature = t;
                page.input = Input::default();
            }
            _ => m.complain("write /temp and a number from 0 to 5"),
        }
        return Vec::new();
    }
    if text.starts_with('/') {
        m.complain(HELP);
        return Vec::new();
    }
    page.input = Input::default();
    page.up = 0;
    page.busy = Some("answering".into());
    page.turns.push(Turn { text: text.clone(), answers: Vec::new() });
    vec![Effect::Say { text, settings: page.settings.clone() }]
}

#[cfg(test)]
mod tests {
    use super::super::message::Message;
    use super::super::theme::Theme;
    use super::super::update::update;
    use super::super::view::snapshot;
    use super::*;

    fn page(compare: bool) -> Model {
        let mut m = Model::new(Theme::ansi(), 100, 30, 0.0);
        open(&mut m, "/runs/a".into(), compare);
        assert!(snapshot(&m, 100, 30).contains("reading the model"));
        let before = compare.then(|| "demo".to_string());
        update(&mut m, Message::TalkReady { title: "a, step 9".into(), before, settings: SampleSettings::default() });
        m
    }

    fn typed(m: &mut Model, text: &str) -> Vec<Effect> {
        update(m, Message::Paste(text.into()));
        update(m, Message::Key(Key::Enter))
    }

    #[test]
    fn a_message_is_sent_and_its_answer_grows_until_it_ends() {
        let mut m = page(false);
        let sent = typed(&mut m, "hello");
        assert!(matches!(&sent[..], [Effect::Say { text, .. }] if text == "hello"), "{sent:?}");
        // Nothing is sent while an answer is on its way; esc ends it.
        assert!(typed(&mut m, "again").is_empty());
        assert_eq!(update(&mut m, Message::Key(Key::Esc)), [Effect::Hush]);
        for (piece, ended) in [("Good ", None), ("day.", Some("stop ✓, 3 tokens"))] {
            update(&mut m, Message::Heard { who: Who::Trained, piece: piece.into(), ended: ended.map(String::from) });
        }
        let shown = snapshot(&m, 100, 30);
        assert!(shown.contains("› hello") && shown.contains("Good day.") && shown.contains("3 tokens"), "{shown}");
        assert_eq!(update(&mut m, Message::Key(Key::Esc)), [Effect::EndTalk]);
        assert_eq!(m.page(), Page::Start);
    }

    #[test]
    fn with_its_base_both_answers_are_waited_for() {
        let mut m = page(true);
        typed(&mut m, "hello");
        let heard = |who| Message::Heard { who, piece: "x".into(), ended: Some("stop ✓".into()) };
        update(&mut m, heard(Who::Trained));
        assert!(m.chat.busy.is_some());
        update(&mut m, heard(Who::Before));
        assert!(m.chat.busy.is_none());
        let shown = snapshot(&m, 100, 30);
        assert!(shown.contains("trained") && shown.contains("base"), "{shown}");
    }

    #[test]
    fn a_temperature_is_set_and_a_wrong_one_refused() {
        let mut m = page(false);
        typed(&mut m, "/temp 0");
        assert_eq!(m.chat.settings.temperature, 0.0);
        typed(&mut m, "/temp hot");
        assert!(m.notice.as_ref().unwrap().error);
        assert_eq!(m.chat.settings.temperature, 0.0);
    }
}
