//! Pane 5: what is wrong, on what evidence, likely why, and the fix one key away; and what was found well.

use super::{severity, title};
use crate::console::format;
use crate::console::keymap::Action;
use crate::console::model::Model;
use crate::console::remedy::{self, Remedy};
use crate::console::run_page::{Pane, RunPage};
use crate::console::view::pen::{Pen, fit, wrap};
use crate::run::event::{Finding, Severity};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use unicode_width::UnicodeWidthStr;

pub fn render(m: &Model, page: &RunPage, area: Rect, buf: &mut Buffer) {
    let t = &m.theme;
    let (open, passed) = (page.run.open(), page.run.passed());
    let words = format!("{} open · {} passed", open.len(), passed.len());
    title(m, page, Pane::Diagnostics, Pane::Diagnostics.name(), &[(words, t.dim)], area, buf);
    let body = Rect { y: area.y + 1, height: area.height.saturating_sub(1), width: area.width.min(100), ..area };
    let selected = page.diagnostics.selected.min(open.len().saturating_sub(1));
    let mut row = 0;
    let why = page.diagnostics.why && page.focus == Pane::Diagnostics;
    // What was found well keeps a few rows where there is room.
    let reserve = (passed.len() as u16 + 1).min(4).min(body.height / 3);
    for (i, f) in open.iter().enumerate().skip(if why { selected } else { 0 }) {
        if why && i > selected {
            break;
        }
        if row + 2 > body.height.saturating_sub(if why { 0 } else { reserve }) && row > 0 {
            Pen::at(buf, body, row).gap(4).put(format!("… and {} more", open.len() - i), t.dim);
            row += 1;
            break;
        }
        let marked = page.focus == Pane::Diagnostics && i == selected && open.len() > 1;
        row =
            finding(m, page, f, marked, why, body, row, body.height.saturating_sub(if why { 0 } else { reserve }), buf);
        row += 1;
    }
    if open.is_empty() && passed.is_empty() {
        Pen::at(buf, body, row).gap(2).put("nothing found so far", t.dim);
        return;
    }
    if why {
        return;
    }
    for (title, evidence) in passed {
        if row >= body.height {
            break;
        }
        let room = usize::from(body.width.saturating_sub(4));
        let gap = room.saturating_sub(title.width() + evidence.width());
        let mut pen = Pen::at(buf, body, row);
        pen.gap(2).put("✓", t.pass).gap(1).put(fit(&title, room), t.text);
        if gap >= 2 && !evidence.is_empty() {
            pen.right(evidence, t.dim, 0);
        }
        row += 1;
    }
}

#[allow(clippy::too_many_arguments)] // A finding, its place, and how much of it is told.
fn finding(
    m: &Model,
    page: &RunPage,
    f: &Finding,
    marked: bool,
    why: bool,
    body: Rect,
    top: u16,
    bottom: u16,
    buf: &mut Buffer,
) -> u16 {
    let t = &m.theme;
    let (sign, style) = severity(f.severity, t);
    let since =
        if f.since > 0 { format!("since step {}", format::thousands(f.since)) } else { "before the run".into() };
    let mut pen = Pen::at(buf, body, top);
    pen.gap(1).put(if marked { "▸" } else { " " }, t.accent).put(sign, style).gap(1);
    let room = usize::from(pen.room());
    let with_since = f.title.width() + since.width() + 3 <= room;
    pen.put(fit(&f.title, room), t.strong());
    if with_since {
        pen.right(&since, t.dim, 0);
    }
    let mut row = top + 1;
    let width = usize::from(body.width.saturating_sub(5));
    let offer = remedy::offer(page, f);
    let fix_rows = if offer.is_some() { 2 } else { 0 };
    let mut tell = |text: String, style, row: &mut u16| {
        let room =
            usize::from(bottom.saturating_sub(*row + fix_rows)).max(usize::from(*row == top + 1 && *row < bottom));
        for line in wrap(&text, width, room.min(if why { 20 } else { 3 })) {
            Pen::at(buf, body, *row).gap(4).put(line, style);
            *row += 1;
        }
    };
    tell(f.evidence.clone(), t.text, &mut row);
    if !f.cause.is_empty() {
        tell(format!("Likely: {}", f.cause), t.text, &mut row);
    }
    if why && !f.source.is_empty() {
        tell(format!("Rule {}; {}", f.rule, f.source), t.dim, &mut row);
    }
    if let Some(offer) = offer {
        if row + 1 < bottom {
            row += 1;
        }
        let set = match offer.remedy {
            Remedy::RollBack { .. } => f.fix.as_ref().map_or(String::new(), |x| remedy::words(&x.set)),
            Remedy::Branch { set, .. } | Remedy::Copy(set) => remedy::words(&set),
            // The label says it already.
            Remedy::Edit(_) | Remedy::Change(_) | Remedy::Stop => String::new(),
        };
        let mut pen = Pen::at(buf, body, row);
        pen.gap(4).put("Fix", t.dim).gap(2);
        let key = m.keymap.key(Action::Fix);
        let beside = set.width() + key.width() + offer.label.width() + 6 <= usize::from(pen.room());
        if beside && !set.is_empty() {
            pen.put(&set, t.text).gap(4);
        }
        pen.put(&key, t.focus()).gap(2).put(&offer.label, t.text);
        if !beside {
            row += 1;
            Pen::at(buf, body, row).gap(9).put(fit(&set, width.saturating_sub(5)), t.dim);
        }
        row += 1;
    }
    row
}

/// The worst finding in one line, for pages without the pane.
pub fn line(m: &Model, page: &RunPage, area: Rect, row: u16, buf: &mut Buffer) {
    let t = &m.theme;
    let mut pen = Pen::at(buf, area, row);
    let open = page.run.open();
    let Some(f) = open.first().filter(|f| f.severity > Severity::Passed) else {
        pen.gap(1).put("✓", t.pass).gap(1).put("nothing found so far", t.dim);
        return;
    };
    let (sign, style) = severity(f.severity, t);
    let key = if area.width >= 60 { "enter why" } else { "" };
    let place = if f.since > 0 { format!(", step {}", format::thousands(f.since)) } else { String::new() };
    let cause = if f.cause.is_empty() { &f.evidence } else { &f.cause };
    let words = format!("{}{place}: {cause}", f.title);
    pen.gap(1).put(sign, style).gap(1);
    let room = usize::from(pen.room()).saturating_sub(key.len() + 3);
    pen.put(fit(&words, room), t.text).right(key, t.dim, 1);
}
