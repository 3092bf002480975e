//! The export page: the choices with their sizes; then files, proof and verdict as they come.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use std::path::Path;

use super::chrome::{self, put, put_right, width};
use super::run::bar;
use crate::console::export_page::ExportPage;
use crate::console::format;
use crate::console::keymap::{Action, Context};
use crate::console::model::Model;
use crate::console::theme::Theme;
use crate::run::shipping::{Offer, Word};

/// Columns of a progress bar, and where it begins.
const BAR: u16 = 30;
const BAR_AT: u16 = 12;
/// Where a check's words begin.
const DETAIL: u16 = 18;

pub fn render(m: &Model, area: Rect, buf: &mut Buffer) {
    let (t, page) = (&m.theme, &m.export);
    let right = area.right().saturating_sub(1);
    let title = page.offer.as_ref().map_or_else(|| name(&page.run), |o| o.title.clone());
    put(buf, area.x + 1, area.y, right, "export", t.dim);
    put(buf, area.x + 10, area.y, right, &title, t.strong());
    if let Some(free) = page.offer.as_ref().and_then(|o| o.free) {
        let text = format!("{} free on the disk", format::bytes(free));
        if width(&title) + 14 + width(&text) < area.width {
            put_right(buf, area.x + 12, area.y, right, &text, t.dim);
        }
    }
    let body = Rect { y: area.y + 2, height: area.height.saturating_sub(2 + chrome::FOOTER), ..area };
    match (&page.offer, &page.wrong) {
        _ if page.following => progress(m, page, body, buf),
        (Some(offer), _) => choices(m, page, offer, body, buf),
        (None, Some(why)) => {
            for (i, line) in chrome::wrap(why, right.saturating_sub(area.x + 6)).iter().enumerate() {
                put(buf, area.x + 2, body.y + i as u16, right, if i == 0 { "✕" } else { "" }, t.error);
                put(buf, area.x + 4, body.y + i as u16, right, line, t.text);
            }
        }
        (None, None) => drop(put(buf, area.x + 2, body.y, right, "looking at the model …", t.dim)),
    }
    chrome::footer(buf, area, &keys(m, page), &chrome::always(m, "leave"), t);
}

/// The keys that do something now.
fn keys<'a>(m: &'a Model, page: &ExportPage) -> Vec<(String, &'a str)> {
    if page.typing.is_some() {
        return vec![("enter".into(), "take"), ("esc".into(), "drop")];
    }
    let back = (m.keymap.key(Action::Back), "back");
    let mut out: Vec<(String, &str)> = m.keymap.footer(Context::Export);
    out.retain(|(_, word)| match *word {
        "copy" => page.command().is_some(),
        _ => !page.following && page.offer.is_some(),
    });
    if page.following && !page.busy() {
        out.push((m.keymap.key(Action::Open), "choose again"));
    }
    out.push(back);
    out
}

fn name(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

fn choices(m: &Model, page: &ExportPage, offer: &Offer, area: Rect, buf: &mut Buffer) {
    let t = &m.theme;
    let (left, right) = (area.x + 4, area.right().saturating_sub(1));
    let total = format!("{} chosen, {}", page.chosen.len(), format::bytes(page.bytes()));
    chrome::rule(buf, Rect { height: 1, ..area }, "what to write", &total, page.typing.is_none(), t);
    let mut y = area.y + 1;
    for (i, choice) in offer.choices.iter().enumerate() {
        if y + 4 > area.bottom() {
            break;
        }
        let selected = i == page.selected && page.typing.is_none();
        let chosen = page.chosen.contains(&choice.kind);
        if selected {
            put(buf, area.x + 2, y, right, "▸", t.focus());
        }
        put(buf, left, y, right, if chosen { "●" } else { "○" }, if chosen { t.accent } else { t.dim });
        let style = if selected { t.focus() } else { t.text };
        put(buf, left + 2, y, right, &choice.kind, style);
        let size = choice.bytes.map_or("–".into(), format::bytes);
        put_right(buf, left + 10, y, (left + 20).min(right), &size, t.text);
        put(buf, left + 23, y, right, &choice.words, t.dim);
        y += 1;
    }
    y += 1;
    let typing = page.typing.is_some();
    put(buf, left, y, right, "name", if typing { t.focus() } else { t.dim });
    if typing {
        super::run::typed(&mut super::pen::Pen::at(buf, Rect { x: left + 8, ..area }, y - area.y), &page.name, t);
    } else {
        put(buf, left + 8, y, right, page.name.value(), t.text);
    }
    put(buf, left, y + 1, right, "into", t.dim);
    put(buf, left + 8, y + 1, right, &offer.out.display().to_string(), t.text);
}

/// What became of one kind.
struct Row<'a> {
    kind: &'a str,
    done: u64,
    total: u64,
    /// Bytes and seconds, once it is written.
    written: Option<(u64, f64)>,
}

fn rows(words: &[Word]) -> Vec<Row<'_>> {
    let mut rows: Vec<Row> = Vec::new();
    for word in words {
        match word {
            Word::Began { kinds, .. } => {
                rows = kinds.iter().map(|kind| Row { kind, done: 0, total: 0, written: None }).collect();
            }
            Word::Writing { kind, done, total } => {
                if let Some(row) = rows.iter_mut().find(|r| r.kind == kind) {
                    (row.done, row.total) = (*done, *total);
                }
            }
            Word::Written { kind, bytes, seconds, .. } => {
                if let Some(row) = rows.iter_mut().find(|r| r.kind == kind) {
                    row.written = Some((*bytes, *seconds));
                }
            }
            _ => {}
        }
    }
    rows
}

fn progress(m: &Model, page: &ExportPage, area: Rect, buf: &mut Buffer) {
    let t = &m.theme;
    let right = area.right().saturating_sub(1);
    let into = page.offer.as_ref().map(|o| o.out.display().to_string()).unwrap_or_default();
    chrome::rule(buf, Rect { height: 1, ..area }, "files", &into, false, t);
    let mut y = area.y + 1;
    for row in rows(&page.words) {
        let (sign, style) = if row.written.is_some() { ("✓", t.pass) } else { ("·", t.dim) };
        put(buf, area.x + 2, y, right, sign, style);
        put(buf, area.x + 4, y, right, row.kind, t.text);
        let share = match (row.written, row.total) {
            (Some(_), _) => 1.0,
            (None, 0) => 0.0,
            (None, total) => row.done as f64 / total as f64,
        };
        let bar_width = BAR.min(area.width / 3);
        let (full, rest) = bar(share, usize::from(bar_width));
        let x = put(buf, area.x + BAR_AT, y, right, &full, t.accent);
        put(buf, x, y, right, &rest, t.dim);
        let x = area.x + BAR_AT + bar_width + 2;
        match row.written {
            Some((bytes, seconds)) => {
                let x = put(buf, x, y, right, &format!("{:>9}", format::bytes(bytes)), t.text);
                put(buf, x + 2, y, right, &format!("{seconds:.1} s"), t.dim);
            }
            None if row.total > 0 => {
                put(buf, x, y, right, &format!("tensor {} of {}", row.done, row.total), t.dim);
            }
            None => {}
        }
        y += 1;
    }
    if page.words.is_empty() {
        put(buf, area.x + 4, y, right, "starting …", t.dim);
        y += 1;
    }
    for text in page.words.iter().filter_map(|w| if let Word::Note { text } = w { Some(text) } else { None }) {
        for line in chrome::wrap(text, right.saturating_sub(area.x + 4)) {
            put(buf, area.x + 4, y, right, &line, t.dim);
            y += 1;
        }
    }
    y += 1;
    let now = page.words.last().and_then(|w| match w {
        Word::Proving { file, what } if file.is_empty() => Some(what.clone()),
        Word::Proving { file, what } => Some(format!("{file}: {what} …")),
        _ => None,
    });
    let columns = right.saturating_sub(area.x + 4);
    let end: Vec<Line> = end(page, t)
        .into_iter()
        .flat_map(|line| {
            let parts = chrome::wrap(&line.text, columns).into_iter().enumerate();
            let sign = move |i| if i == 0 { line.sign } else { ("", line.sign.1) };
            parts.map(move |(i, text)| Line { text, sign: sign(i), detail: String::new(), ..line }).collect::<Vec<_>>()
        })
        .collect();
    let below = end.len() as u16;
    let room = area.bottom().saturating_sub(y + 1 + below + u16::from(below > 0));
    if y + 1 < area.bottom() {
        let at = Rect { y, height: 1, ..area };
        chrome::rule(buf, at, "proof", now.as_deref().unwrap_or_default(), false, t);
        y += 1;
    }
    let lines = proof(page, t);
    let from = page.scroll.min(lines.len().saturating_sub(usize::from(room)));
    for line in lines.iter().skip(from).take(usize::from(room)) {
        line.draw(buf, area, y);
        y += 1;
    }
    y += 1;
    for line in end {
        if y < area.bottom() {
            line.draw(buf, area, y);
            y += 1;
        }
    }
}

/// A line of the proof: a sign, a word, what was found.
#[derive(Debug, Clone)]
struct Line {
    sign: (&'static str, Style),
    indent: u16,
    text: String,
    style: Style,
    detail: String,
    dim: Style,
}

impl Line {
    fn draw(&self, buf: &mut Buffer, area: Rect, y: u16) {
        let right = area.right().saturating_sub(1);
        let x = area.x + 2 + self.indent;
        put(buf, x, y, right, self.sign.0, self.sign.1);
        let after = put(buf, x + 2, y, right, &self.text, self.style);
        if !self.detail.is_empty() {
            let at = if self.indent > 0 { area.x + DETAIL } else { after + 3 };
            put(buf, at.max(after + 1), y, right, &self.detail, self.dim);
        }
    }
}

/// Every stage with its checks; those of a stage that passed are dim.
fn proof(page: &ExportPage, t: &Theme) -> Vec<Line> {
    let mut out = Vec::new();
    let sign = |passed: bool| if passed { ("✓", t.pass) } else { ("✕", t.error) };
    for word in &page.words {
        let Word::Proven { stage } = word else { continue };
        out.push(Line {
            sign: sign(stage.passed),
            indent: 0,
            text: stage.name(),
            style: t.strong(),
            detail: stage.kind.clone(),
            dim: t.text,
        });
        for check in &stage.checks {
            out.push(Line {
                sign: sign(check.passed),
                indent: 2,
                text: check.name.clone(),
                style: t.text,
                detail: check.detail.clone(),
                dim: if check.passed { t.dim } else { t.text },
            });
        }
    }
    out
}

/// The verdict, and the line that serves it.
fn end(page: &ExportPage, t: &Theme) -> Vec<Line> {
    let line = |sign, text: String, style| Line { sign, indent: 0, text, style, detail: String::new(), dim: t.dim };
    match page.words.last() {
        Some(Word::Failed { why }) => vec![line(("✕", t.error), why.clone(), t.text)],
        Some(Word::Ended { passed, first, command }) => {
            let verdict = match passed {
                Some(true) => line(("✓", t.pass), "What is here is what was trained.".into(), t.strong()),
                Some(false) => line(("✕", t.error), format!("This is not what was trained: {first}"), t.strong()),
                None => line(("·", t.dim), "Written; not proven.".into(), t.strong()),
            };
            let command = command.as_ref().map(|c| line(("›", t.accent), c.clone(), t.text));
            [verdict].into_iter().chain(command).collect()
        }
        _ => Vec::new(),
    }
}
