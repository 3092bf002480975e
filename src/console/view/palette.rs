//! The command palette: over the end of the page it was opened on.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Modifier;

use super::chrome::{self, put};
use crate::console::model::Model;
use crate::console::palette;

/// Commands shown at once.
const ROWS: u16 = 10;

pub fn render(m: &Model, area: Rect, buf: &mut Buffer) {
    let t = &m.theme;
    let found = palette::matches(m);
    let rows = ROWS.min(area.height.saturating_sub(4)).max(1);
    let top = area.bottom().saturating_sub(rows + 3).max(area.y);
    for y in top..area.bottom() {
        chrome::blank(buf, area, y);
    }
    let right = area.right().saturating_sub(1);
    let count = format!("{} found   enter does it   esc back", found.len());
    chrome::rule(buf, Rect { y: top, height: 1, ..area }, "commands", &count, true, t);
    if found.is_empty() {
        put(buf, area.x + 4, top + 1, right, "no command has these letters", t.dim);
    }
    let first = m.palette.selected.saturating_sub(usize::from(rows) - 1);
    for (i, b) in found.iter().enumerate().skip(first).take(usize::from(rows)) {
        let y = top + 1 + (i - first) as u16;
        let selected = i == m.palette.selected;
        if selected {
            put(buf, area.x + 2, y, right, "▸", t.focus());
        }
        put(buf, area.x + 4, y, right, b.name, if selected { t.focus() } else { t.text });
        let keys: Vec<String> = b.keys.iter().map(ToString::to_string).collect();
        put(buf, area.x + 24, y, right, &keys.join(" "), t.accent);
        put(buf, area.x + 36, y, right, b.help, t.dim);
    }
    let y = area.bottom().saturating_sub(1);
    chrome::line(buf, area.x, y.saturating_sub(1), area.right(), t);
    let x = put(buf, area.x + 1, y, right, ":", t.focus()) + 1;
    let typed = m.palette.input.value();
    let cursor = m.palette.input.visual_cursor() as u16;
    put(buf, x, y, right, typed, t.text);
    if x + cursor < right {
        let under = typed.chars().nth(m.palette.input.cursor()).unwrap_or(' ').to_string();
        buf.set_stringn(x + cursor, y, under, 1, t.accent.add_modifier(Modifier::REVERSED));
    }
}
