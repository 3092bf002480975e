//! GRPO's newest completions of one prompt, each with its reward: part of pane 2.

use crate::console::format;
use crate::console::run_page::RunPage;
use crate::console::run_state::At;
use crate::console::theme::Theme;
use crate::console::view::pen::{Pen, fit};
use crate::run::event::{Completions, Scored};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

/// Draws the group of the step that samples are looked at, one line a completion, and what each function gives on
/// average; returns the lines used.
pub fn render(t: &Theme, page: &RunPage, area: Rect, buf: &mut Buffer) -> u16 {
    let Some(At { step, what, .. }) = shown(page) else { return 0 };
    if area.height < 3 {
        return 0;
    }
    let mut pen = Pen::at(buf, area, 0);
    pen.gap(2).put("› ", t.dim);
    let answer = what.answer.as_deref().map_or(String::new(), |a| format!("  answer {}", fit(&one_line(a), 24)));
    let tail = format!("{answer}   drawn in step {}", format::thousands(*step));
    let room = usize::from(pen.room()).saturating_sub(tail.chars().count() + 1);
    pen.put(fit(&one_line(&what.prompt), room), t.strong()).put(&tail, t.dim);
    let lines = usize::from(area.height - 2).min(what.list.len());
    for (i, c) in what.list.iter().take(lines).enumerate() {
        line(t, c, area, 1 + i as u16, buf);
    }
    let mut pen = Pen::at(buf, area, 1 + lines as u16);
    pen.gap(4).put(functions(page, what), t.dim);
    2 + lines as u16
}

/// The group at, or the last one before, the step that samples are looked at.
pub fn shown(page: &RunPage) -> Option<&At<Completions>> {
    let all = &page.run.completions;
    match page.samples.step {
        Some(step) => all.iter().rev().find(|c| c.step <= step).or(all.first()),
        None => all.last(),
    }
}

fn line(t: &Theme, c: &Scored, area: Rect, row: u16, buf: &mut Buffer) {
    let reward = c.reward.map_or(format!("{:>6}", "–"), |r| format!("{r:>6.2}"));
    let style = if c.advantage > 0.0 { t.strong() } else { t.text };
    let mut pen = Pen::at(buf, area, row);
    pen.gap(2).put(reward, style).put(format!("{:>7}", format!("{:+.2}", c.advantage)), t.dim).gap(2);
    let tail = if c.truncated { format!("  cut, {}", c.tokens) } else { format!("  {}", c.tokens) };
    let room = usize::from(pen.room()).saturating_sub(tail.chars().count());
    pen.put(fit(&one_line(&c.text), room), if c.advantage > 0.0 { t.text } else { t.dim });
    pen.right(&tail, t.dim, 0);
}

/// `numeric_answer 0.31 ± 0.46`, by function, over all of the step's completions.
fn functions(page: &RunPage, what: &Completions) -> String {
    let Some(last) = page.run.last() else { return String::new() };
    let of = |name: &String| {
        let value = |which: &str| last.metrics.get(&format!("rewards/{name}/{which}"));
        match (value("mean"), value("std")) {
            (Some(mean), Some(std)) => Some(format!("{name} {mean:.2} ± {std:.2}")),
            (Some(mean), None) => Some(format!("{name} {mean:.2}")),
            _ => None,
        }
    };
    what.functions.iter().filter_map(of).collect::<Vec<_>>().join("   ")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
