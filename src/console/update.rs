//! `update`: a message changes the model and asks for effects. Pure: no I/O, no clock.

use super::key::Key;
use super::keymap::{self, Action};
use super::message::{Effect, Message, Mouse};
use super::model::{Model, Page};
use super::run_page::{Pane, RunPage};
use super::run_state::refusal;
use super::{chat_page, export_page, new_page, pager, palette, run_update, start};
use crate::run::event::{Body, Event};

/// Changes the model as the message says, and returns what the runtime is to do.
pub fn update(m: &mut Model, message: Message) -> Vec<Effect> {
    match message {
        Message::Key(key) => return press(m, key),
        Message::Resize { width, height } => (m.width, m.height) = (width, height),
        Message::Focus(focused) => m.focused = focused,
        Message::Tick { now } => {
            m.now = now;
            if m.notice.as_ref().is_some_and(|n| n.until <= now) {
                m.notice = None;
            }
        }
        Message::Machine(machine) => m.machine = machine,
        Message::Runs(runs) => (m.start.runs, m.start.listed) = (runs, true),
        Message::Recipes(recipes) => m.start.recipes = recipes,
        Message::Opened { run, name, recipe, live } => {
            // Back on the start page the cursor is on it, wherever it was opened from.
            m.start.selected = Some(start::Item::Run(run.clone()));
            m.run = Some(RunPage::new(Some(run), name, recipe, live));
            // `starting …` has come true; what went wrong stays to be read.
            m.notice = m.notice.take().filter(|n| n.error);
            show(m, Page::Run);
        }
        Message::RecipeOpened { path, text } => {
            let name = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
            let page = RunPage::new(None, name, text, false);
            // Before a run the recipe is what there is to see.
            m.run = Some(RunPage { recipe_path: Some(path), focus: Pane::Recipe, zoomed: true, ..page });
            show(m, Page::Run);
        }
        Message::Events { run, events } => return take(m, &run, &events),
        Message::Live { run, live } => {
            if let Some(page) = m.run.as_mut().filter(|p| p.folder.as_ref() == Some(&run)) {
                page.live = live;
            }
        }
        Message::Telemetry(reading) => {
            if let Some(page) = &mut m.run {
                page.saw(reading);
            }
        }
        Message::Watching(n) => {
            if let Some(page) = &mut m.run {
                page.watching = n;
            }
        }
        Message::Replied(Ok(text)) => m.say(text),
        Message::Replied(Err(text)) => m.complain(text),
        Message::Log(lines) => {
            let follow = m.page() != Page::Log || m.scroll >= pager::last(m);
            m.log = lines;
            show(m, Page::Log);
            if follow {
                m.scroll = pager::last(m);
            }
        }
        Message::Rows(rows) => {
            m.rows = rows;
            show(m, Page::Rows);
        }
        Message::Looked(found) => new_page::looked(m, found),
        Message::Drafted(path) => {
            (m.new.busy, m.new.looked) = (None, None);
            // The recipe takes this page's place.
            m.pages.retain(|p| *p != Page::New);
            return vec![Effect::OpenRecipe(path.to_string_lossy().into_owned())];
        }
        Message::NotDrafted(why) => {
            m.new.busy = None;
            m.complain(why);
        }
        Message::Offered { run, found } => export_page::offered(m, &run, found),
        Message::Exported { run, words } => export_page::said(m, &run, words),
        Message::TalkReady { title, before, settings } => chat_page::ready(m, title, before, settings),
        Message::Heard { who, piece, ended } => chat_page::heard(m, who, &piece, ended),
        Message::TalkFailed(why) => chat_page::failed(m, why),
        Message::Mouse(mouse) => match m.page() {
            Page::Start => return start::mouse(m, mouse),
            Page::Run => return run_update::mouse(m, mouse),
            Page::Chat | Page::Export => match mouse {
                Mouse::WheelUp { .. } => return press(m, Key::Up),
                Mouse::WheelDown { .. } => return press(m, Key::Down),
                Mouse::Click { .. } => {}
            },
            _ => {}
        },
        Message::Paste(text) => {
            if m.typing() {
                text.chars().filter(|c| !c.is_control()).for_each(|c| drop(press(m, Key::Char(c))));
            }
        }
    }
    Vec::new()
}

/// Events of a run: folded, and told of once where the terminal is not being looked at.
fn take(m: &mut Model, run: &std::path::Path, events: &[Event]) -> Vec<Effect> {
    let (now, focused) = (m.now, m.focused);
    let Some(page) = m.run.as_mut().filter(|p| p.folder.as_deref() == Some(run)) else { return Vec::new() };
    let mut out = Vec::new();
    let mut refused = None;
    for event in events {
        page.take(event);
        if let Body::Change(c) = &event.body {
            refused = refusal(c).map(|why| format!("{}: {why}", c.key)).filter(|_| event.time > now - 30.0).or(refused);
        }
        // What was read from the file when the run was opened is history, not news.
        if let Some(text) = page.news(event).filter(|_| !focused && event.time > now - 30.0) {
            out.extend([Effect::Bell, Effect::Notify(text)]);
        }
    }
    if let Some(text) = refused {
        m.complain(text);
    }
    out
}

/// Puts a page on top, once.
pub fn show(m: &mut Model, page: Page) {
    if m.page() != page {
        m.pages.push(page);
        m.scroll = 0;
    }
}

fn press(m: &mut Model, key: Key) -> Vec<Effect> {
    if let Some(confirm) = m.confirm.take() {
        return if key == Key::Char('y') { run_update::confirmed(m, confirm.effect) } else { Vec::new() };
    }
    m.notice = None;
    match m.page() {
        Page::Palette => return palette::press(m, key),
        Page::New => return new_page::press(m, key),
        Page::Chat => return chat_page::press(m, key),
        Page::Export if m.typing() => return export_page::typed(m, key),
        Page::Start if m.typing() => return start::typed(m, key),
        Page::Run if m.typing() => return run_update::typed(m, key),
        _ => {}
    }
    let Some(action) = m.keymap.action(key, &keymap::contexts(m)) else { return Vec::new() };
    act(m, action)
}

/// Carries out an action, whether it came from a key or from the palette.
pub fn act(m: &mut Model, action: Action) -> Vec<Effect> {
    match action {
        // A page to read is closed by the key that closes every pager.
        Action::Leave if matches!(m.page(), Page::Help | Page::Log | Page::Rows) => {
            m.pages.pop();
            Vec::new()
        }
        Action::Leave => match (&m.run, m.page()) {
            (Some(page), Page::Run) => run_update::leave(page),
            _ => vec![Effect::Quit { line: None }],
        },
        Action::Interrupt => {
            let (leave, stop) = (m.keymap.key(Action::Leave), m.keymap.key(Action::Stop));
            m.say(match (&m.run, m.page()) {
                (Some(page), Page::Run) if page.run.start.demo && run_update::reachable(page) => {
                    format!("{leave} leaves and ends the demo; {stop} stops it with a checkpoint")
                }
                (Some(page), Page::Run) if run_update::reachable(page) => {
                    format!("the training goes on: {leave} leaves it running, {stop} stops it with a checkpoint")
                }
                _ => format!("{leave} quits"),
            });
            Vec::new()
        }
        Action::Suspend => vec![Effect::Suspend],
        Action::Back if m.page() == Page::Run => run_update::escape(m),
        Action::Back if m.page() == Page::Export => export_page::leave(m),
        Action::Back => {
            if m.pages.len() > 1 {
                m.pages.pop();
                return Vec::new();
            }
            if m.page() == Page::Start { start::act(m, action) } else { Vec::new() }
        }
        Action::Palette => {
            palette::open(m);
            Vec::new()
        }
        Action::Keys => {
            show(m, Page::Help);
            Vec::new()
        }
        _ => match m.page() {
            Page::Start => start::act(m, action),
            Page::Run => run_update::act(m, action),
            Page::Help | Page::Log | Page::Rows => pager::act(m, action),
            Page::Export => export_page::act(m, action),
            Page::Palette | Page::New | Page::Chat => Vec::new(),
        },
    }
}
