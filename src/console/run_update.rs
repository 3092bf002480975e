//! What keys and the mouse do on the run page.

use super::key::Key;
use super::keymap::Action;
use super::message::{Effect, Mouse};
use super::model::{Confirm, Model, Page};
use super::remedy::{self, Offer, Remedy};
use super::run_page::{Pane, RunPage};
use super::start::edit_request;
use super::view;
use super::{chart_update, chat_page, export_page, recipe_update, samples_update};
use crate::run::command::Command;
use crate::run::event::RunState;
use ratatui::layout::Rect;

/// Carries out an action of the run page.
pub fn act(m: &mut Model, action: Action) -> Vec<Effect> {
    let Some(pane) = m.run.as_ref().map(|p| p.focus) else { return Vec::new() };
    act_on(m, pane, action)
}

/// Carries out an action as if `pane` had the focus.
fn act_on(m: &mut Model, pane: Pane, action: Action) -> Vec<Effect> {
    let Some(page) = &mut m.run else { return Vec::new() };
    match action {
        Action::PaneLoss => page.focus = Pane::Loss,
        Action::PaneSamples => page.focus = Pane::Samples,
        Action::PaneMemory => page.focus = Pane::Memory,
        Action::PaneRecipe => page.focus = Pane::Recipe,
        Action::PaneDiagnostics => page.focus = Pane::Diagnostics,
        Action::NextPane => page.focus = Pane::ALL[page.focus.number() % 5],
        Action::PreviousPane => page.focus = Pane::ALL[(page.focus.number() + 3) % 5],
        Action::Zoom => page.zoomed = !page.zoomed,
        Action::Checkpoint => return tell(m, Command::CheckpointNow, "a checkpoint follows after this step"),
        Action::Evaluate => return tell(m, Command::EvaluateNow, "an evaluation follows after this step"),
        Action::PauseOrResume => return pause(m),
        Action::Stop => return stop(m),
        Action::Branch => return branch(m),
        Action::SampleNow => return samples_update::now(m, None),
        Action::Fix => return fix(m),
        Action::OwnPrompt => match page.folder.clone().filter(|_| over(page)) {
            Some(run) => return chat_page::open(m, run, false),
            None => samples_update::own_prompt(m),
        },
        Action::CompareBase => return compare(m),
        Action::ExportRun => return export(m),
        Action::RowsOfStep => return rows(m),
        Action::Log => return page.folder.clone().map(|run| vec![Effect::ReadLog { run }]).unwrap_or_default(),
        Action::Copy => return copy(m),
        _ => match pane {
            Pane::Loss => return chart_update::act(m, action),
            Pane::Samples => samples_update::act(page, action),
            Pane::Recipe => return recipe_update::act(m, action),
            Pane::Diagnostics => diagnose(page, action),
            Pane::Memory => {}
        },
    }
    Vec::new()
}

fn diagnose(page: &mut RunPage, action: Action) {
    let last = page.run.open().len().saturating_sub(1);
    let d = &mut page.diagnostics;
    match action {
        Action::Up => d.selected = d.selected.min(last).saturating_sub(1),
        Action::Down => d.selected = (d.selected + 1).min(last),
        Action::Open => d.why = !d.why,
        _ => {}
    }
}

/// Esc: one level back within the page. `false`: there is none, the page itself is left.
pub fn back(page: &mut RunPage) -> bool {
    if page.diagnostics.why {
        page.diagnostics.why = false;
    } else if page.zoomed {
        page.zoomed = false;
    } else if page.recipe.diff {
        page.recipe.diff = false;
    } else if page.chart.mark.is_some() {
        page.chart.mark = None;
    } else if page.chart.cursor.is_some() || page.chart.zoom.is_some() {
        (page.chart.cursor, page.chart.zoom) = (None, None);
    } else if page.samples.step.is_some() {
        page.samples.step = None;
    } else {
        return false;
    }
    true
}

/// Whether a trainer is there to be told something.
pub fn reachable(page: &RunPage) -> bool {
    let ended = matches!(page.run.state, Some(RunState::Finished | RunState::Stopped | RunState::Failed));
    page.folder.is_some() && page.live && !ended
}

/// Whether the run has ended, and left a checkpoint: then its model can be talked to.
pub fn over(page: &RunPage) -> bool {
    page.folder.is_some() && !reachable(page) && !page.run.checkpoints.is_empty()
}

fn compare(m: &mut Model) -> Vec<Effect> {
    match m.run.as_ref().filter(|p| over(p)).and_then(|p| p.folder.clone()) {
        Some(run) => chat_page::open(m, run, true),
        None => {
            m.say(
                "once the run has ended, this talks to it beside its base; until then the samples compare with step 0",
            );
            Vec::new()
        }
    }
}

fn export(m: &mut Model) -> Vec<Effect> {
    match m.run.as_ref().filter(|p| !p.run.checkpoints.is_empty()).and_then(|p| p.folder.clone()) {
        Some(run) => export_page::open(m, run),
        None => {
            m.say("there is no checkpoint yet that could be exported");
            Vec::new()
        }
    }
}

/// Sends a command to the trainer and says what follows, or why it cannot be sent.
pub fn tell(m: &mut Model, command: Command, then: &str) -> Vec<Effect> {
    match &m.run {
        Some(page) if reachable(page) => {
            m.say(then);
            vec![Effect::Send(command)]
        }
        Some(page) => {
            let key = m.keymap.key(Action::PauseOrResume);
            let why = match (page.folder.is_none(), page.run.state) {
                (true, _) => format!("nothing trains yet: {key} starts the run"),
                (false, Some(RunState::Finished)) => "this run has finished".into(),
                (false, _) => format!("this run is over: {key} resumes it"),
            };
            m.complain(why);
            Vec::new()
        }
        None => Vec::new(),
    }
}

/// Space: start before a run, pause or go on in it, resume after it.
fn pause(m: &mut Model) -> Vec<Effect> {
    let Some(page) = &m.run else { return Vec::new() };
    let Some(run) = page.folder.clone() else {
        if let Some(problem) = page.recipe.problems.first() {
            let text = format!("the recipe cannot start: {problem}");
            m.complain(text);
            return Vec::new();
        }
        return vec![Effect::StartTraining { path: page.recipe_path.clone(), text: page.recipe.text.clone() }];
    };
    match page.run.state {
        Some(RunState::Finished) => {
            m.say("this run has finished; another recipe starts another run");
            Vec::new()
        }
        _ if !reachable(page) => {
            let question = format!("Resume {} from its last checkpoint?", page.name);
            m.confirm = Some(Confirm { question, effect: Effect::Resume { run, step: None } });
            Vec::new()
        }
        Some(RunState::Paused) => vec![Effect::Send(Command::Resume)],
        _ => {
            let key = m.keymap.key(Action::PauseOrResume);
            tell(m, Command::Pause, &format!("pauses after this step; {key} goes on"))
        }
    }
}

fn stop(m: &mut Model) -> Vec<Effect> {
    let Some(page) = m.run.as_ref().filter(|p| reachable(p)) else { return tell(m, Command::Stop, "") };
    let question = format!("Stop {} now, with a checkpoint to resume from?", page.name);
    m.confirm = Some(Confirm { question, effect: Effect::Send(Command::Stop) });
    Vec::new()
}

fn branch(m: &mut Model) -> Vec<Effect> {
    let Some(page) = &m.run else { return Vec::new() };
    let cursor = page.cursor_step();
    let before = remedy::kept(page).into_iter().rfind(|step| *step <= cursor);
    match (page.folder.clone(), before) {
        (Some(run), Some(step)) => {
            let question = format!("Start another run from checkpoint {step}?");
            m.confirm = Some(Confirm { question, effect: Effect::Branch { run, step, set: Vec::new() } });
        }
        _ => m.complain("no checkpoint at or before this step is left to branch from"),
    }
    Vec::new()
}

fn fix(m: &mut Model) -> Vec<Effect> {
    let Some(page) = &m.run else { return Vec::new() };
    let Some((finding, Offer { remedy, label })) = remedy::at_hand(page) else {
        m.say("no open finding has a fix to apply now");
        return Vec::new();
    };
    let by = finding.rule.clone();
    match remedy {
        Remedy::Edit(set) => recipe_update::set_all(m, &set),
        Remedy::RollBack { step, stop } => {
            let (now, demo) = (page.run.step_number(), page.run.start.demo);
            let effect = Effect::Send(Command::RollBack { step, stop, by });
            // It drops what was trained since, so it asks; the demo's model is there to be played with.
            if !demo {
                let question = format!("Go {label}? Steps {} to {now} are dropped.", step + 1);
                m.confirm = Some(Confirm { question, effect });
                return Vec::new();
            }
            m.say(format!("applied: {label}"));
            confirmed(m, effect)
        }
        Remedy::Branch { step, set } => {
            m.say(format!("applied: {label}"));
            page_folder(m).map(|run| vec![Effect::Branch { run, step, set }]).unwrap_or_default()
        }
        Remedy::Stop => stop(m),
        Remedy::Change(set) => {
            m.say(format!("applied: {label}"));
            set.into_iter().map(|(key, value)| Effect::Send(Command::Set { key, value, by: by.clone() })).collect()
        }
        Remedy::Copy(set) => {
            m.say(format!("for the next run, copied: {}", remedy::words(&set)));
            vec![Effect::Copy(set.iter().map(|(k, v)| format!("{k} = {v}")).collect::<Vec<_>>().join("\n"))]
        }
    }
}

/// The effects of a question answered with yes. Going back and on again takes the fix's live values along.
pub fn confirmed(m: &Model, effect: Effect) -> Vec<Effect> {
    let mut out = Vec::new();
    if let (Effect::Send(Command::RollBack { stop: false, by, .. }), Some(page)) = (&effect, &m.run) {
        let fix = page.run.findings.iter().find(|f| f.rule == *by).and_then(|f| f.fix.as_ref());
        let live = fix.iter().flat_map(|x| &x.set).filter(|(key, _)| remedy::is_live(key));
        let set =
            |(key, value): &(String, String)| Command::Set { key: key.clone(), value: value.clone(), by: by.clone() };
        out.extend(live.map(set).map(Effect::Send));
    }
    out.push(effect);
    out
}

fn page_folder(m: &Model) -> Option<std::path::PathBuf> {
    m.run.as_ref().and_then(|p| p.folder.clone())
}

fn rows(m: &mut Model) -> Vec<Effect> {
    let Some(page) = &m.run else { return Vec::new() };
    let rows = page.run.point(page.cursor_step()).map(|p| p.data.rows.clone()).unwrap_or_default();
    match page.folder.clone() {
        Some(run) if !rows.is_empty() => vec![Effect::Rows { run, rows }],
        _ => {
            m.say("no step yet whose rows could be shown");
            Vec::new()
        }
    }
}

fn copy(m: &mut Model) -> Vec<Effect> {
    let Some(page) = &m.run else { return Vec::new() };
    let area = Rect::new(0, 0, m.width, m.height);
    let places = view::run::places(page, area, view::run::form(m.width, m.height));
    let part = places.iter().find(|p| p.0 == page.focus).map_or(area, |p| p.1);
    let text = view::cut_out(m, m.width, m.height, part);
    m.say("copied");
    vec![Effect::Copy(text)]
}

/// Ctrl-C and q: how to leave, and how to end the training.
pub fn leave(page: &RunPage) -> Vec<Effect> {
    if !reachable(page) {
        return vec![Effect::Quit { line: None }];
    }
    if page.run.start.demo {
        return vec![Effect::Send(Command::Stop), Effect::Quit { line: None }];
    }
    vec![Effect::Quit { line: Some(format!("{} goes on · finetop attach · finetop stop", page.name)) }]
}

/// A key while a field or a prompt is typed.
pub fn typed(m: &mut Model, key: Key) -> Vec<Effect> {
    let Some(typing) = m.run.as_mut().and_then(|p| p.input.as_mut()) else { return Vec::new() };
    match key {
        Key::Enter => {
            let (goal, value) = (typing.goal.clone(), typing.input.value().to_string());
            return match goal {
                super::run_page::Goal::Prompt => samples_update::typed(m, value),
                super::run_page::Goal::Field(key) => recipe_update::typed(m, &key, &value),
            };
        }
        Key::Esc | Key::Ctrl('c') => {
            if let Some(page) = &mut m.run {
                page.input = None;
            }
        }
        _ => {
            if let Some(request) = edit_request(key) {
                typing.input.handle(request);
                typing.problem = None;
            }
        }
    }
    Vec::new()
}

/// A click focuses the pane under it; the wheel acts on that pane.
pub fn mouse(m: &mut Model, mouse: Mouse) -> Vec<Effect> {
    let (column, row) = match mouse {
        Mouse::Click { column, row } | Mouse::WheelUp { column, row } | Mouse::WheelDown { column, row } => {
            (column, row)
        }
    };
    let Some(page) = &mut m.run else { return Vec::new() };
    let form = view::run::form(m.width, m.height);
    let inside = |r: &Rect| (r.x..r.right()).contains(&column) && (r.y..r.bottom()).contains(&row);
    let places = view::run::places(page, Rect::new(0, 0, m.width, m.height), form);
    let pane = places.iter().find(|p| inside(&p.1)).map(|p| p.0);
    match (mouse, pane) {
        (Mouse::Click { .. }, _) if form == view::run::Form::Tabs && row == 2 => {
            if let Some(pane) = view::run::tab_at(page, column) {
                page.focus = pane;
            }
        }
        (Mouse::Click { .. }, Some(pane)) => page.focus = pane,
        (Mouse::WheelUp { .. }, Some(Pane::Loss)) => return act_on(m, Pane::Loss, Action::Left),
        (Mouse::WheelDown { .. }, Some(Pane::Loss)) => return act_on(m, Pane::Loss, Action::Right),
        (Mouse::WheelUp { .. }, Some(pane)) => return act_on(m, pane, Action::Up),
        (Mouse::WheelDown { .. }, Some(pane)) => return act_on(m, pane, Action::Down),
        _ => {}
    }
    Vec::new()
}

/// Esc on the run page: a level back, or to the page below.
pub fn escape(m: &mut Model) -> Vec<Effect> {
    if m.run.as_mut().is_some_and(back) || m.pages.len() < 2 {
        return Vec::new();
    }
    m.pages.retain(|p| *p != Page::Run);
    m.run = None;
    vec![Effect::CloseRun, Effect::ListRuns]
}
