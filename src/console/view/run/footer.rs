//! The bottom of the page: a rule, the status line, and the keys of the focused pane.

use crate::console::format;
use crate::console::keymap::{Action, Context, contexts_of};
use crate::console::model::{Model, Page};
use crate::console::remedy;
use crate::console::run_page::RunPage;
use crate::console::view::chrome;
use crate::console::view::pen::{Pen, fit};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use unicode_width::UnicodeWidthStr;

pub fn rule(m: &Model, area: Rect, row: u16, buf: &mut Buffer) {
    Pen::at(buf, area, row).fill('─', m.theme.dim, 0);
}

/// The step under the cursor, or the last; and the newest checkpoint.
pub fn status(m: &Model, page: &RunPage, area: Rect, row: u16, buf: &mut Buffer) {
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

/// At most six keys of the pane, then `: ? q`, always in the same place.
pub fn keys(m: &Model, page: &RunPage, area: Rect, row: u16, buf: &mut Buffer) {
    let t = &m.theme;
    let bottom = Rect { height: row + 1, ..area };
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
        _ if area.width < 120 => "leave",
        (true, true) => "leave (ends the demo)",
        (false, true) => "leave (run goes on)",
        _ => "leave",
    };
    let mut entries: Vec<(String, &str)> = Vec::new();
    if page.folder.is_none() {
        entries.push((m.keymap.key(Action::PauseOrResume), "start"));
    }
    let zooms = super::form(area.width, area.height) >= super::Form::Rail;
    let mends = remedy::at_hand(page).is_some();
    let found = !page.run.open().is_empty();
    for context in contexts_of(m, Page::Run).iter().rev().filter(|c| **c != Context::Any) {
        let offered = |e: &(String, &str)| match e.1 {
            "zoom" => zooms,
            "apply fix" => mends,
            "why" | "finding" => found,
            _ => true,
        };
        entries.extend(m.keymap.footer(*context).into_iter().filter(offered));
    }
    chrome::keys(buf, bottom, &entries, &chrome::always(m, leave), t);
}
