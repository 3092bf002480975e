//! The chat page: what was said, the newest at the end, and the line that is typed.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::chrome::{self, put, put_right, width};
use super::pen::Pen;
use crate::console::chat_page::{ChatPage, HELP};
use crate::console::message::Who;
use crate::console::model::Model;
use crate::console::theme::Theme;

/// Where the text of an answer begins where two are shown, each under its name.
const NAMED: u16 = 10;

pub fn render(m: &Model, area: Rect, buf: &mut Buffer) {
    let (t, page) = (&m.theme, &m.chat);
    let right = area.right().saturating_sub(1);
    put(buf, area.x + 1, area.y, right, if page.before.is_some() { "compare" } else { "chat" }, t.dim);
    let x = put(buf, area.x + 10, area.y, right, &page.title, t.strong());
    if let Some(before) = page.before.as_ref().filter(|b| !b.is_empty()) {
        put(buf, x + 1, area.y, right, &format!("and its base, {before}"), t.dim);
    }
    let s = &page.settings;
    let settings = format!("temp {}  top_p {}  rep {}", s.temperature, s.top_p, s.repetition_penalty);
    let input = area.bottom().saturating_sub(chrome::FOOTER + 1);
    if area.height < 6 {
        return;
    }
    let lines = lines(page, t, area.width);
    let room = usize::from(input.saturating_sub(area.y + 3));
    let up = page.up.min(lines.len().saturating_sub(room));
    let end = lines.len() - up;
    for (i, line) in lines[end.saturating_sub(room)..end].iter().enumerate() {
        line.draw(buf, area, area.y + 2 + i as u16);
    }
    if lines.is_empty() {
        let text = if page.title.is_empty() { "reading the model …" } else { HELP };
        put(buf, area.x + 2, area.y + 2, right, text, t.dim);
    }
    put(buf, area.x, input, right, "▌", t.focus());
    put(buf, area.x + 2, input, right, "›", t.accent);
    let mut pen = Pen::at(buf, Rect { x: area.x + 4, width: area.width.saturating_sub(5), ..area }, input - area.y);
    super::run::typed(&mut pen, &page.input, t);
    chrome::footer(buf, area, &keys(page), &[("esc".to_string(), "back")], t);
    if !page.title.is_empty() && width(&page.title) + width(&settings) + 40 < area.width {
        put_right(buf, area.x + 10, area.y, right, &settings, t.dim);
    }
}

fn keys(page: &ChatPage) -> Vec<(String, &'static str)> {
    match page.busy.is_some() && !page.title.is_empty() {
        true => vec![("esc".into(), "end the answer")],
        false => vec![("enter".into(), "send"), ("↑↓".into(), "scroll")],
    }
}

struct Line {
    name: &'static str,
    name_style: Style,
    at: u16,
    text: String,
    style: Style,
}

impl Line {
    fn draw(&self, buf: &mut Buffer, area: Rect, y: u16) {
        let right = area.right().saturating_sub(1);
        put(buf, area.x + 2, y, right, self.name, self.name_style);
        put(buf, area.x + self.at, y, right, &self.text, self.style);
    }
}

fn lines(page: &ChatPage, t: &Theme, columns: u16) -> Vec<Line> {
    let mut out: Vec<Line> = Vec::new();
    let at = if page.before.is_some() { NAMED + 2 } else { 4 };
    for turn in &page.turns {
        if !out.is_empty() {
            out.push(Line { name: "", name_style: t.dim, at, text: String::new(), style: t.text });
        }
        flow(&mut out, ("›", t.accent), 4, &turn.text, t.strong(), columns);
        for answer in &turn.answers {
            let name = match (page.before.is_some(), answer.who) {
                (false, _) => "",
                (true, Who::Trained) => "trained",
                (true, Who::Before) => "base",
            };
            let style = if answer.who == Who::Before { t.dim } else { t.text };
            let text = if answer.text.is_empty() { "…" } else { &answer.text };
            flow(&mut out, (name, t.dim), at, text, style, columns);
            if let Some(ended) = &answer.ended {
                out.push(Line { name: "", name_style: t.dim, at, text: ended.clone(), style: t.dim });
            }
        }
        if turn.answers.is_empty() {
            out.push(Line { name: "", name_style: t.dim, at, text: "…".into(), style: t.dim });
        }
    }
    out
}

/// Text as it was written, line by line, each broken where it is too long; `name` stands before the first.
fn flow(out: &mut Vec<Line>, name: (&'static str, Style), at: u16, text: &str, style: Style, columns: u16) {
    let room = columns.saturating_sub(at + 2).max(1);
    let wrapped = text.trim_end().lines().flat_map(|line| chrome::wrap(&line.replace('\t', "    "), room));
    for (i, text) in wrapped.enumerate() {
        let (name, name_style) = if i == 0 { name } else { ("", style) };
        out.push(Line { name, name_style, at, text, style });
    }
}
