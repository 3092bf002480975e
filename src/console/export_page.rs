//! The export page: what can be written of a run; then how it goes, and the proof as it fills in.

use super::keymap::Action;
use super::message::Effect;
use super::model::{Model, Page};
use super::start::edit_request;
use super::update::show;
use crate::console::key::Key;
use crate::run::shipping::{Offer, Wanted, Word};
use std::path::{Path, PathBuf};
use tui_input::Input;

#[derive(Debug, Clone, Default)]
pub struct ExportPage {
    pub run: PathBuf,
    /// `None`: the model is being looked at.
    pub offer: Option<Offer>,
    /// Why nothing can be written.
    pub wrong: Option<String>,
    /// Kinds to be written, in the offer's order.
    pub chosen: Vec<String>,
    pub selected: usize,
    pub name: Input,
    /// Whether the name is being typed, and what it was before.
    pub typing: Option<String>,
    /// What the export has said; empty: none was ordered.
    pub words: Vec<Word>,
    /// Whether its words are shown rather than the choices.
    pub following: bool,
    /// The first line of the proof that is shown.
    pub scroll: usize,
}

/// Opens the page of a run.
pub fn open(m: &mut Model, run: PathBuf) -> Vec<Effect> {
    m.export = ExportPage { run: run.clone(), ..ExportPage::default() };
    show(m, Page::Export);
    vec![Effect::LookAtExport { run }]
}

/// The model was looked at.
pub fn offered(m: &mut Model, run: &Path, found: Result<Offer, String>) {
    let page = &mut m.export;
    if page.run != run {
        return;
    }
    match found {
        Ok(offer) => {
            page.chosen = offer.choices.first().map(|c| c.kind.clone()).into_iter().collect();
            page.name = Input::new(offer.name.clone());
            page.offer = Some(offer);
        }
        Err(why) => page.wrong = Some(why),
    }
}

/// What the run's export has said so far: all of it.
pub fn said(m: &mut Model, run: &Path, words: Vec<Word>) {
    let page = &mut m.export;
    if page.run == run {
        // An export that was ordered before, or by the recipe, is what one comes to see.
        page.following |= page.words.is_empty() && !words.is_empty();
        page.words = words;
    }
}

impl ExportPage {
    /// Whether an export is at work.
    pub fn busy(&self) -> bool {
        self.following && !matches!(self.words.last(), Some(Word::Ended { .. } | Word::Failed { .. }))
    }

    /// The line that serves what was written, once it is proven.
    pub fn command(&self) -> Option<&str> {
        match self.words.last() {
            Some(Word::Ended { command, .. }) => command.as_deref(),
            _ => None,
        }
    }

    /// Bytes that the choice takes, as far as they are known.
    pub fn bytes(&self) -> u64 {
        let offer = self.offer.iter().flat_map(|o| &o.choices);
        offer.filter(|c| self.chosen.contains(&c.kind)).filter_map(|c| c.bytes).sum()
    }
}

/// Carries out an action of the page.
pub fn act(m: &mut Model, action: Action) -> Vec<Effect> {
    let page = &mut m.export;
    if page.following {
        return follow(m, action);
    }
    let Some(offer) = &page.offer else { return Vec::new() };
    let last = offer.choices.len().saturating_sub(1);
    match action {
        Action::Up => page.selected = page.selected.saturating_sub(1),
        Action::Down => page.selected = (page.selected + 1).min(last),
        Action::First => page.selected = 0,
        Action::Last => page.selected = last,
        Action::Mark => {
            if let Some(choice) = offer.choices.get(page.selected) {
                let kind = choice.kind.clone();
                match page.chosen.iter().position(|k| *k == kind) {
                    Some(i) => drop(page.chosen.remove(i)),
                    None => page.chosen.push(kind),
                }
                let place = |k: &String| offer.choices.iter().position(|c| c.kind == *k);
                page.chosen.sort_by_key(place);
            }
        }
        Action::Edit => page.typing = Some(page.name.value().to_string()),
        Action::Open => return begin(m),
        _ => {}
    }
    Vec::new()
}

/// While an export is at work, or its outcome shown.
fn follow(m: &mut Model, action: Action) -> Vec<Effect> {
    let page = &mut m.export;
    match action {
        Action::Up => page.scroll = page.scroll.saturating_sub(1),
        Action::Down => page.scroll += 1,
        Action::PageUp => page.scroll = page.scroll.saturating_sub(10),
        Action::PageDown => page.scroll += 10,
        Action::First => page.scroll = 0,
        Action::Open if !page.busy() => page.following = false,
        Action::Copy => match page.command().map(str::to_string) {
            Some(line) => return vec![Effect::Copy(line)],
            None => m.say("there is no line to copy yet"),
        },
        _ => {}
    }
    Vec::new()
}

/// Enter: write what is chosen.
fn begin(m: &mut Model) -> Vec<Effect> {
    let page = &mut m.export;
    let Some(offer) = &page.offer else { return Vec::new() };
    let name = page.name.value().trim().to_string();
    if page.chosen.is_empty() {
        m.complain("choose at least one, with space");
        return Vec::new();
    }
    if name.is_empty() {
        m.complain("it needs a name");
        return Vec::new();
    }
    if let Some(free) = offer.free.filter(|free| *free < page.bytes()) {
        let text =
            format!("these take {}, and {} are free", super::format::bytes(page.bytes()), super::format::bytes(free));
        m.complain(text);
        return Vec::new();
    }
    let wanted = Wanted { what: page.run.display().to_string(), kinds: page.chosen.clone(), name };
    let (run, out) = (page.run.clone(), offer.out.clone());
    (page.words, page.following, page.scroll) = (Vec::new(), true, 0);
    vec![Effect::Export { run, out, wanted }]
}

/// A key while the name is typed.
pub fn typed(m: &mut Model, key: Key) -> Vec<Effect> {
    let page = &mut m.export;
    match key {
        Key::Enter => page.typing = None,
        Key::Esc | Key::Ctrl('c') => {
            if let Some(before) = page.typing.take() {
                page.name = Input::new(before);
            }
        }
        key => {
            if let Some(request) = edit_request(key) {
                page.name.handle(request);
            }
        }
    }
    Vec::new()
}

/// Esc: from the outcome back to the choices is no way back; the page is left. What is at work goes on.
pub fn leave(m: &mut Model) -> Vec<Effect> {
    m.pages.retain(|p| *p != Page::Export);
    vec![Effect::CloseExport]
}

#[cfg(test)]
mod tests {
    use super::super::message::Message;
    use super::super::theme::Theme;
    use super::super::update::update;
    use super::super::view::snapshot;
    use super::*;
    use crate::run::shipping::Choice;

    fn choice(kind: &str, bytes: u64) -> Choice {
        Choice { kind: kind.into(), bytes: Some(bytes), words: format!("what {kind} is") }
    }

    fn page() -> Model {
        let mut m = Model::new(Theme::ansi(), 100, 30, 0.0);
        let asked = open(&mut m, "/runs/a".into());
        assert_eq!(asked, [Effect::LookAtExport { run: "/runs/a".into() }]);
        let offer = Offer {
            title: "a, step 9".into(),
            name: "a".into(),
            out: "/runs/a/export".into(),
            free: Some(2_000_000_000),
            choices: vec![choice("q4_k_m", 900_000_000), choice("f16", 1_800_000_000)],
        };
        update(&mut m, Message::Offered { run: "/runs/a".into(), found: Ok(offer) });
        m
    }

    fn keys(m: &mut Model, pressed: &str) -> Vec<Effect> {
        pressed.split(' ').flat_map(|k| update(m, Message::Key(Key::parse(k).unwrap()))).collect()
    }

    #[test]
    fn the_usual_type_is_chosen_and_enter_writes_it() {
        let mut m = page();
        let effects = keys(&mut m, "i b enter enter");
        let wanted = Wanted { what: "/runs/a".into(), kinds: vec!["q4_k_m".into()], name: "ab".into() };
        assert_eq!(effects, [Effect::Export { run: "/runs/a".into(), out: "/runs/a/export".into(), wanted }]);
        assert!(m.export.busy());
    }

    #[test]
    fn what_does_not_fit_on_the_disk_is_not_begun() {
        let mut m = page();
        assert!(keys(&mut m, "down space enter").is_empty());
        assert!(m.notice.as_ref().unwrap().error);
        assert!(snapshot(&m, 100, 30).contains("are free"));
    }

    #[test]
    fn the_outcome_is_shown_and_its_command_copied() {
        let mut m = page();
        keys(&mut m, "enter");
        let command = "ollama create a -f /runs/a/export/Modelfile && ollama run a".to_string();
        let words = vec![
            Word::Began { title: "a, step 9".into(), name: "a".into(), pid: 1, kinds: vec!["q4_k_m".into()] },
            Word::Writing { kind: "q4_k_m".into(), done: 3, total: 9 },
            Word::Ended { passed: Some(true), first: String::new(), command: Some(command.clone()) },
        ];
        update(&mut m, Message::Exported { run: "/runs/a".into(), words: words[..2].to_vec() });
        assert!(m.export.busy());
        assert!(snapshot(&m, 100, 30).contains("3 of 9"));
        update(&mut m, Message::Exported { run: "/runs/a".into(), words });
        assert!(!m.export.busy());
        assert!(snapshot(&m, 100, 30).contains("What is here is what was trained"));
        assert_eq!(keys(&mut m, "Y"), [Effect::Copy(command)]);
        assert_eq!(keys(&mut m, "esc"), [Effect::CloseExport]);
    }

    #[test]
    fn words_of_another_run_are_not_this_page_s() {
        let mut m = page();
        let words = vec![Word::Failed { why: "x".into() }];
        update(&mut m, Message::Exported { run: "/runs/b".into(), words });
        assert!(!m.export.following);
    }
}
