//! The run page.

use crate::console::model::Model;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

pub fn render(m: &Model, area: Rect, buf: &mut Buffer) {
    let name = m.run.as_ref().map_or("", |r| &r.name);
    buf.set_stringn(area.x + 1, area.y, name, area.width.saturating_sub(1) as usize, m.theme.strong());
}
