//! What keys do to the samples pane: which step, which settings, a prompt of one's own.

use super::keymap::Action;
use super::message::Effect;
use super::model::Model;
use super::run_page::{Goal, Pane, RunPage, Typing};
use super::run_update::{reachable, tell};
use crate::run::command::Command;
use tui_input::Input;

/// Carries out an action of the samples pane.
pub fn act(page: &mut RunPage, action: Action) {
    let steps = page.run.sample_steps();
    let now = page.sample_step();
    let last = page.run.prompts.len().saturating_sub(1);
    match action {
        Action::Left => page.samples.step = steps.iter().rev().find(|s| Some(**s) < now).copied().or(now),
        Action::Right => {
            let next = steps.iter().find(|s| Some(**s) > now).copied();
            page.samples.step = next.filter(|s| Some(s) != steps.last());
        }
        Action::First => page.samples.step = steps.first().copied(),
        Action::Last => page.samples.step = None,
        Action::Up => page.samples.first = page.samples.first.min(last).saturating_sub(1),
        Action::Down => page.samples.first = (page.samples.first + 1).min(last),
        _ => settings(page, action),
    }
}

fn settings(page: &mut RunPage, action: Action) {
    let mut s = page.settings();
    // Rounded, so that twenty steps up and down end where they began.
    let by = |v: f64, d: f64, low: f64, high: f64| ((v + d).clamp(low, high) * 100.0).round() / 100.0;
    match action {
        Action::TemperatureDown => s.temperature = by(s.temperature, -0.1, 0.0, 2.0),
        Action::TemperatureUp => s.temperature = by(s.temperature, 0.1, 0.0, 2.0),
        Action::TopPDown => s.top_p = by(s.top_p, -0.05, 0.05, 1.0),
        Action::TopPUp => s.top_p = by(s.top_p, 0.05, 0.05, 1.0),
        Action::RepetitionDown => s.repetition_penalty = by(s.repetition_penalty, -0.05, 1.0, 2.0),
        Action::RepetitionUp => s.repetition_penalty = by(s.repetition_penalty, 0.05, 1.0, 2.0),
        _ => return,
    }
    page.samples.settings = s;
    page.samples.changed = true;
}

/// `s`: draws at the recipe's prompts, or at `prompt`, with the settings as they stand.
pub fn now(m: &mut Model, prompt: Option<String>) -> Vec<Effect> {
    let Some(page) = &mut m.run else { return Vec::new() };
    let settings = page.settings();
    if reachable(page) {
        page.samples.step = None;
        if prompt.is_some() {
            page.samples.first = 0;
        }
    }
    tell(m, Command::SampleNow { prompt, settings }, "samples follow after this step")
}

/// `p`: asks for a prompt.
pub fn own_prompt(m: &mut Model) {
    let Some(page) = &mut m.run else { return };
    if !reachable(page) {
        tell(m, Command::EvaluateNow, "");
        return;
    }
    page.focus = Pane::Samples;
    page.input = Some(Typing { goal: Goal::Prompt, input: Input::default(), problem: None });
}

/// Enter in the prompt.
pub fn typed(m: &mut Model, value: String) -> Vec<Effect> {
    if let Some(page) = &mut m.run {
        page.input = None;
    }
    let prompt = value.trim();
    if prompt.is_empty() { Vec::new() } else { now(m, Some(prompt.to_string())) }
}
