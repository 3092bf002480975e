//! The bottom of the page: a rule, the status line, and the keys of the focused pane.

use crate::console::format;
use crate::console::keymap::{Context, contexts};
use crate::console::model::Model;
use crate::console::run_page::RunPage;
use crate::console::view::pen::{Pen, fit};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use unicode_width::UnicodeWidthStr;

pub fn rule(m: &Model, area: Rect, row: u16, buf: &mut Buffer) {
    Pen::at(buf, area, row).fill('─', m.theme.dim, 0);
}

/// A question or an answer, if there is one; it takes the status line's place.
pub fn word(m: &Model, area: Rect, row: u16, buf: &mut Buffer) -> bool {
    let t = &m.theme;
    let mut pen = Pen::at(buf, area, row);
    let width = usize::from(area.width.saturating_sub(2));
    if let Some(c) = &m.confirm {
        let keys = "   y yes   any other key no";
        pen.gap(1).put(fit(&c.question, width.saturating_sub(keys.len())), t.strong()).put(keys, t.dim);
        return true;
    }
    if let Some(n) = &m.notice {
        let text = n.text.replace("\n  → ", "; ").replace('\n', " ");
        pen.gap(1);
        if n.error {
            pen.put("✕ ", t.error);
        }
        pen.put(fit(&text, width.saturating_sub(2)), t.text);
        return true;
    }
    false
}

/// The step under the cursor, or the last; and the newest checkpoint.
pub fn status(m: &Model, page: &RunPage, area: Rect, row: u16, buf: &mut Buffer) {
    if word(m, area, row, buf) {
        return;
    }
    let t = &m.theme;
    let mut pen = Pen::at(buf, area, row);
    if let Some(p) = page.run.point(page.cursor_step()) {
        let style = if page.chart.cursor.is_some() { t.focus() } else { t.text };
        pen.gap(1).put(format::thousands(p.step), style).gap(2);
        let d = &p.data;
        for (label, value) in [
            ("loss", format::loss(d.loss)),
            ("smoothed", format::loss(p.smooth)),
            ("grad", format::plain(d.grad_norm)),
            ("lr", format::rate(d.learning_rate)),
            ("epoch", format!("{:.2}", d.epoch)),
            ("rows", format::rows(&d.rows)),
        ] {
            let wide = area.width >= 120 || !matches!(label, "smoothed" | "lr" | "epoch");
            if wide && usize::from(pen.room()) > label.len() + value.width() + 2 {
                pen.put(label, t.dim).gap(1).put(value, t.text).gap(2);
            }
        }
    }
    if let Some(c) = page.run.checkpoints.last() {
        let ago = format::age(m.now - c.time);
        let long = format!("checkpoint-{} saved {ago} ago, {}", c.step, format::bytes(c.what.bytes));
        let short = format!("checkpoint-{} {ago} ago", c.step);
        let room = usize::from(pen.room());
        if room > long.width() + 3 {
            pen.right(&long, t.dim, 1);
        } else if room > short.width() + 3 {
            pen.right(&short, t.dim, 1);
        }
    }
}

/// At most six keys of the innermost context, then `: ? q`, always in the same place.
pub fn keys(m: &Model, page: &RunPage, area: Rect, row: u16, buf: &mut Buffer) {
    let t = &m.theme;
    if let Some(typing) = &page.input {
        let mut pen = Pen::at(buf, area, row);
        pen.gap(1);
        for (key, word) in [("enter", "apply"), ("esc", "drop")] {
            pen.put(key, t.text).gap(1).put(word, t.dim).gap(3);
        }
        if let Some(problem) = &typing.problem {
            let room = usize::from(pen.room().saturating_sub(2));
            pen.put("✕ ", t.error).put(fit(problem, room), t.text);
        }
        return;
    }
    let leave = match (page.run.start.demo, page.folder.is_some() && !super::header::over(page)) {
        (true, true) => "leave (ends the demo)",
        (false, true) => "leave (run goes on)",
        _ => "leave",
    };
    let mut tail = vec![(":", "commands"), ("?", "keys"), ("q", leave)];
    if area.width < 120 {
        tail[2].1 = "leave";
    }
    if area.width < 60 {
        tail = vec![(":", ""), ("?", "keys"), ("q", "leave")];
    }
    let width = |entries: &[(&str, &str)]| -> u16 {
        entries.iter().map(|(k, w)| (k.width() + w.width() + 1 + 3) as u16).sum::<u16>().saturating_sub(2)
    };
    let start = area.right().saturating_sub(width(&tail));
    let contexts = contexts(m);
    let mut entries: Vec<(String, &str)> = Vec::new();
    if page.folder.is_none() {
        entries.push(("space".into(), "start"));
    }
    for context in contexts.iter().rev().filter(|c| **c != Context::Any) {
        entries.extend(m.keymap.footer(*context));
    }
    let mut pen = Pen::at(buf, area, row);
    pen.gap(1);
    for (key, word) in entries.iter().take(6) {
        if pen.x + (key.width() + word.width() + 2) as u16 > start {
            break;
        }
        pen.put(key, t.text).gap(1).put(word, t.dim).gap(3);
    }
    pen.to(start);
    for (key, word) in tail {
        pen.put(key, t.text).gap(1).put(word, t.dim).gap(if word.is_empty() { 1 } else { 3 });
    }
}
