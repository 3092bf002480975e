//! The log page: what the trainer wrote to `run.log`, the newest at the end.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::chrome::wrap;
use super::help::pager;
use crate::console::model::Model;

pub fn render(m: &Model, area: Rect, buf: &mut Buffer) {
    pager(m, area, "log", "run.log", &lines(m, area.width), buf);
}

pub fn lines(m: &Model, columns: u16) -> Vec<Line<'static>> {
    if m.log.is_empty() {
        return vec![Line::from(Span::styled("  nothing was written to it", m.theme.dim))];
    }
    let room = columns.saturating_sub(3).max(1);
    let wrapped = m.log.iter().flat_map(|line| wrap(line, room));
    wrapped.map(|line| Line::from(Span::styled(format!("  {line}"), m.theme.text))).collect()
}
