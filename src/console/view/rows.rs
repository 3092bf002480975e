//! The rows page.

use crate::console::model::Model;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

pub fn render(m: &Model, area: Rect, buf: &mut Buffer) {
    buf.set_stringn(area.x + 1, area.y, "rows", area.width.saturating_sub(1) as usize, m.theme.strong());
}
