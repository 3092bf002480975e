//! One dim line: in the demo what is happening, and which key is worth pressing now; in other runs, once they have ended,
//! what can be done with the model.

use crate::console::format;
use crate::console::keymap::Action;
use crate::console::model::Model;
use crate::console::remedy::{self, Remedy};
use crate::console::run_page::{Pane, RunPage};
use crate::console::run_update;
use crate::console::view::pen::Pen;
use crate::run::event::{RunState, Severity};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use unicode_width::UnicodeWidthStr;

pub fn render(m: &Model, page: &RunPage, area: Rect, row: u16, buf: &mut Buffer) {
    if !page.run.start.demo && !run_update::over(page) {
        return;
    }
    let t = &m.theme;
    let mut pen = Pen::at(buf, area, row);
    pen.gap(1);
    // The long form where all of it fits: its end says which key to press.
    let words = |short| if page.run.start.demo { words(m, page, short) } else { offers(m, page) };
    let long = words(false);
    let room = usize::from(pen.room());
    let text = if long.replace('`', "").width() <= room { long } else { words(true) };
    // Keys stand between backquotes: they are not dim.
    for (i, part) in text.split('`').enumerate() {
        pen.put(part, if i % 2 == 1 { t.strong() } else { t.dim });
    }
}

/// What can be done with the model of a run that has ended, in the order of the way to its users.
fn offers(m: &Model, page: &RunPage) -> String {
    if !run_update::over(page) {
        return String::new();
    }
    let key = |action| format!("`{}`", m.keymap.key(action));
    let (chat, compare, export) = (key(Action::OwnPrompt), key(Action::CompareBase), key(Action::ExportRun));
    format!("{chat} chat   {compare} compare with base   {export} export")
}

/// The line for where the run is now; the short form fits 80 columns.
fn words(m: &Model, page: &RunPage, short: bool) -> String {
    let run = &page.run;
    let key = |action| format!("`{}`", m.keymap.key(action));
    let (leave, samples) = (key(Action::Leave), key(Action::PaneSamples));
    let now = run.score(u64::MAX);
    let first = run.sample_steps().first().and_then(|s| run.score(*s));
    let score = now.map_or(String::new(), |(k, n)| format!("{k} of {n} right"));
    let say = |long: String, brief: String| if short { brief } else { long };
    if let Some(r) = run.rolled_back {
        let eval = run.evals.last().map(|e| e.data.loss).zip(r.eval_before);
        let eval = eval.map_or(String::new(), |(after, before)| {
            format!(", eval {} → {}", format::loss(before), format::loss(after))
        });
        let score = if score.is_empty() { score } else { format!(", {score}") };
        let mended = format!("mended: step {} → {}{eval}{score}", r.from, r.to);
        return say(
            format!("{mended}. {leave} leaves; finetop RECIPE.toml trains on rows of your own"),
            format!("{mended}. {leave} leaves"),
        );
    }
    let back = remedy::at_hand(page)
        .is_some_and(|(f, offer)| matches!(offer.remedy, Remedy::RollBack { .. }) && f.severity >= Severity::Warning);
    if back {
        let (pane, fix) = (key(Action::PaneDiagnostics), key(Action::Fix));
        let press =
            if page.focus == Pane::Diagnostics { format!("press {fix}") } else { format!("press {pane} then {fix}") };
        let turned = "eval loss turned up while train loss still falls: the model learns the rows by heart";
        return say(
            format!("{turned}. {press} to go back to the best checkpoint"),
            format!("overfitting: eval turned up while train falls. {press}"),
        );
    }
    match run.state {
        Some(RunState::Finished | RunState::Stopped) => {
            format!("finished, {score}. {}", offers(m, page))
        }
        Some(RunState::Failed) => format!("the demo failed; {} shows its log", key(Action::Log)),
        _ if run.steps.is_empty() => {
            "a small chat model is about to learn: a sentence in, a tool call in JSON out".into()
        }
        _ => match (first, now) {
            (Some((k0, _)), Some((k, n))) if k > k0 && k * 2 >= n => say(
                format!(
                    "the samples turned: {score}, {k0} at first. This recipe trains on, too long on purpose; watch ◆ eval"
                ),
                format!("the samples turned: {score}. It trains on, too long; watch ◆ eval"),
            ),
            (_, Some(_)) => say(
                format!(
                    "learning tool calls: a sentence in, JSON out; {score} so far. {samples} shows the samples, watch them turn"
                ),
                format!("learning tool calls: {score} so far. {samples} shows the samples"),
            ),
            _ => format!("learning tool calls: a sentence in, JSON out. {samples} shows the samples"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::theme::Theme;

    #[test]
    fn short_hints_fit_eighty_columns() {
        let mut page = RunPage::new(None, "demo".into(), String::new(), true);
        page.run.start.demo = true;
        let m = Model::new(Theme::ansi(), 80, 24, 0.0);
        assert!(words(&m, &page, true).width() < 80);
    }
}
