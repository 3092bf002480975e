//! Pane 2: the fixed prompts through time, what the model said at first and what it says now.

use super::completions;
use super::title;
use crate::console::format;
use crate::console::keymap::Action;
use crate::console::model::Model;
use crate::console::run_page::{Goal, Pane, RunPage};
use crate::console::run_state::{At, PromptHistory};
use crate::console::theme::Theme;
use crate::console::view::pen::{Pen, fit, wrap};
use crate::run::event::Sample;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use unicode_width::UnicodeWidthStr;

/// The whole pane.
pub fn render(m: &Model, page: &RunPage, area: Rect, buf: &mut Buffer) {
    let t = &m.theme;
    let s = page.settings();
    let settings = format!("temp {:.1}  top_p {:.2}  rep {:.2}", s.temperature, s.top_p, s.repetition_penalty);
    let changed = if page.samples.changed { t.accent } else { t.dim };
    let mut words = vec![(settings, changed)];
    if area.width >= 90 {
        words.push((format!("  seed {}", s.seed), t.dim));
    }
    if let Some(step) = page.sample_step() {
        words.push((format!("   step {} ◂ ▸", format::thousands(step)), t.text));
    }
    title(m, page, Pane::Samples, Pane::Samples.name(), &words, area, buf);
    let mut body = Rect { y: area.y + 1, height: area.height.saturating_sub(1), ..area };
    // Beside the tabs there is no room for the settings.
    if area.y == super::TAB_ROW && area.width < 120 && body.height > 4 {
        Pen::at(buf, body, 0).gap(2).put(&words[0].0, words[0].1);
        body = Rect { y: body.y + 1, height: body.height - 1, ..body };
    }
    let typing = page.input.as_ref().filter(|i| i.goal == Goal::Prompt);
    let foot = u16::from(body.height >= 4);
    let mut row = 0;
    if let Some(typing) = typing {
        let mut pen = Pen::at(buf, body, 0);
        pen.gap(2).put("› ", t.accent);
        super::typed(&mut pen, &typing.input, t);
        row = 2;
    }
    if completions::shown(page).is_some() {
        // Where there are samples too, they keep a good part of the room.
        let left = body.height.saturating_sub(row);
        let height = if page.run.prompts.is_empty() { left } else { left * 3 / 5 };
        let place = Rect { y: body.y + row, height, ..body };
        row += completions::render(t, page, place, buf) + 1;
        if page.run.prompts.is_empty() {
            return;
        }
    }
    if page.run.prompts.is_empty() {
        if typing.is_none() {
            let words = if page.folder.is_none() {
                "what the recipe's prompts say appears here while it trains"
            } else {
                "no samples yet"
            };
            Pen::at(buf, body, row).gap(2).put(words, t.dim);
        }
        return;
    }
    let room = body.height.saturating_sub(foot + u16::from(body.height >= 7));
    prompts(t, page, body, row, room, buf);
    if foot == 1 {
        footer(m, page, body, buf);
    }
}

/// Prompts from the first shown, until the room is used up.
fn prompts(t: &Theme, page: &RunPage, body: Rect, mut row: u16, room: u16, buf: &mut Buffer) {
    let later = page.sample_step().unwrap_or(0);
    let first = page.samples.first.min(page.run.prompts.len() - 1);
    // Each prompt takes its line and one line an answer; what room is left lets the first answers be longer.
    let mut shown: Vec<(&PromptHistory, Vec<&At<Sample>>)> = Vec::new();
    let mut used = row;
    for history in &page.run.prompts[first..] {
        let last = history.at(later).or(history.draws.first());
        let before = history.draws.first().filter(|f| last.is_some_and(|l| l.step != f.step));
        let draws: Vec<_> = before.into_iter().chain(last).collect();
        let need = 1 + draws.len() as u16;
        if used + need > room {
            break;
        }
        used += need + 1;
        shown.push((history, draws));
    }
    let mut spare = (room + 1).saturating_sub(used);
    // The later answer is what a person looks for: it is given room first.
    let mut lines: Vec<Vec<u16>> = shown.iter().map(|(_, draws)| vec![1; draws.len()]).collect();
    for (i, (_, draws)) in shown.iter().enumerate() {
        for (j, draw) in draws.iter().enumerate().rev() {
            let more = (needed(draw, t, body) - 1).min(spare).min(3);
            lines[i][j] += more;
            spare -= more;
        }
    }
    for ((history, draws), lines) in shown.into_iter().zip(lines) {
        let width = usize::from(body.width.saturating_sub(5));
        Pen::at(buf, body, row).gap(2).put("› ", t.dim).put(fit(&history.prompt, width), t.strong());
        row += 1;
        for (i, draw) in draws.iter().enumerate() {
            row += answer(t, draw, i + 1 < draws.len(), body, row, usize::from(lines[i]), buf);
        }
        row += 1;
    }
}

/// How a completion ended: `right ✓  stop ✓, 31 tokens`. On a narrow page what was right needs no more words: the
/// answer itself is what one came to read.
fn ending(s: &Sample, t: &Theme, width: u16) -> Vec<(String, Style)> {
    let brief = width < 100 && s.score.is_some() && s.stop_reason != "length";
    let gap = if brief { "" } else { "  " };
    let mut out = Vec::new();
    match s.score {
        Some(v) if v >= 0.5 => out.push((format!("right ✓{gap}"), t.pass)),
        Some(_) => out.push((format!("wrong ✕{gap}"), t.error)),
        None => {}
    }
    match s.stop_reason.as_str() {
        _ if brief => {}
        "length" => out.push((format!("no stop, {} tokens", s.tokens), t.dim)),
        _ => {
            out.push(("stop ".into(), t.dim));
            out.push(("✓".into(), t.pass));
            out.push((format!(", {} tokens", s.tokens), t.dim));
        }
    }
    out
}

/// Columns that an answer's text starts at.
fn indent(body: Rect) -> u16 {
    if body.width >= 60 { 14 } else { 4 }
}

/// Lines that the whole answer and its ending would take.
fn needed(draw: &At<Sample>, t: &Theme, body: Rect) -> u16 {
    let tail: usize = ending(&draw.what, t, body.width).iter().map(|w| w.0.width()).sum();
    let width = usize::from(body.width.saturating_sub(indent(body)));
    let text = wrap(&draw.what.text, width, 9);
    let shares = text.last().is_none_or(|l| l.width() + tail + 3 <= width);
    text.len().max(1) as u16 + u16::from(!shares)
}

/// One answer in at most `lines` lines; its ending at the right of the last. Returns the lines used.
fn answer(t: &Theme, draw: &At<Sample>, old: bool, body: Rect, row: u16, lines: usize, buf: &mut Buffer) -> u16 {
    let tail = ending(&draw.what, t, body.width);
    let tail_width: usize = tail.iter().map(|w| w.0.width()).sum();
    let indent = indent(body);
    let width = usize::from(body.width.saturating_sub(indent));
    let style = if old { t.dim } else { t.text };
    let mut text = wrap(&draw.what.text, width, lines);
    // The last line shares its row with the ending.
    let room = width.saturating_sub(tail_width + 3);
    if text.last().is_some_and(|l| l.width() > room) {
        if text.len() < lines {
            text.push(String::new());
        } else if let Some(last) = text.last_mut() {
            *last = fit(last, room);
        }
    }
    if text.is_empty() {
        text.push("(nothing)".into());
    }
    for (i, line) in text.iter().enumerate() {
        let mut pen = Pen::at(buf, body, row + i as u16);
        if indent == 14 && i == 0 {
            pen.gap(4).put(format!("step {:<5}", format::thousands(draw.step)), t.dim);
        } else {
            pen.gap(indent);
        }
        let left = body.x + indent;
        pen.to(left).put(line, style);
    }
    if room > 0 {
        let mut pen = Pen::at(buf, body, row + text.len() as u16 - 1);
        pen.to(body.right().saturating_sub(tail_width as u16));
        for (word, style) in tail {
            pen.put(word, style);
        }
    }
    text.len() as u16
}

/// The pane's last line: repetition, stops, length, score.
fn footer(m: &Model, page: &RunPage, body: Rect, buf: &mut Buffer) {
    let t = &m.theme;
    let later = page.sample_step().unwrap_or(0);
    let draws: Vec<&Sample> = page.run.prompts.iter().filter_map(|h| h.at(later)).map(|d| &d.what).collect();
    if draws.is_empty() {
        return;
    }
    let n = draws.len();
    let mean = |f: fn(&Sample) -> f64| draws.iter().map(|s| f(s)).sum::<f64>() / n as f64;
    let stopped = draws.iter().filter(|s| s.stop_reason != "length").count();
    let mut pen = Pen::at(buf, body, body.height - 1);
    pen.gap(2);
    if let Some((k, of)) = page.run.score(later) {
        pen.put("score ", t.dim).put(format!("{k} of {of}"), t.strong());
        if let Some((k0, _)) = page.run.sample_steps().first().and_then(|s| page.run.score(*s)) {
            pen.put(format!(", {k0} at first"), t.dim);
        }
        pen.gap(3);
    }
    pen.put("repetition ", t.dim).put(format!("{:.2}", mean(|s| s.repetition)), t.text).gap(3);
    pen.put("stopped ", t.dim).put(format!("{stopped}/{n}"), t.text).gap(3);
    if pen.room() > 20 {
        pen.put("mean ", t.dim).put(format!("{:.0}", mean(|s| f64::from(s.tokens))), t.text).put(" tokens", t.dim);
    }
    if pen.room() > 24 {
        pen.right(&format!("{}  your own prompt", m.keymap.key(Action::OwnPrompt)), t.dim, 0);
    }
}

/// The newest answers, for a page that has a few lines to spare below its chart.
pub fn peek(m: &Model, page: &RunPage, area: Rect, buf: &mut Buffer) {
    let t = &m.theme;
    let s = page.settings();
    let mut words =
        vec![(format!("temp {:.1}  top_p {:.1}  rep {:.2}", s.temperature, s.top_p, s.repetition_penalty), t.dim)];
    if let Some(step) = page.sample_step() {
        words.push((format!(" @{step}"), t.dim));
    }
    title(m, page, Pane::Samples, Pane::Samples.name(), &words, area, buf);
    let body = Rect { y: area.y + 1, height: area.height.saturating_sub(1), ..area };
    let later = page.sample_step().unwrap_or(0);
    let mut row = 0;
    let histories: Vec<&PromptHistory> = page.run.prompts.iter().collect();
    for h in histories {
        let Some(draw) = h.at(later) else { continue };
        if row + 2 > body.height {
            break;
        }
        Pen::at(buf, body, row)
            .gap(2)
            .put("› ", t.dim)
            .put(fit(&h.prompt, usize::from(body.width.saturating_sub(5))), t.strong());
        let narrow = Rect { x: body.x, width: body.width.min(body.width), ..body };
        row += 1 + peek_answer(t, draw, narrow, row + 1, usize::from(body.height - row - 1).min(2), buf);
    }
}

fn peek_answer(t: &Theme, draw: &At<Sample>, body: Rect, row: u16, lines: usize, buf: &mut Buffer) -> u16 {
    let tail = ending(&draw.what, t, body.width);
    let tail_width: usize = tail.iter().map(|w| w.0.width()).sum();
    let width = usize::from(body.width.saturating_sub(5));
    let room = width.saturating_sub(tail_width + 2);
    let mut text = wrap(&draw.what.text, width, lines);
    if text.last().is_some_and(|l| l.width() > room) {
        if text.len() < lines {
            text.push(String::new());
        } else if let Some(last) = text.last_mut() {
            *last = fit(last, room);
        }
    }
    for (i, line) in text.iter().enumerate() {
        Pen::at(buf, body, row + i as u16).gap(4).put(line, t.text);
    }
    let mut pen = Pen::at(buf, body, row + (text.len() as u16).saturating_sub(1));
    pen.to(body.right().saturating_sub(tail_width as u16 + 1));
    for (word, style) in tail {
        pen.put(word, style);
    }
    text.len() as u16
}
