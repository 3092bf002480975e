//! Drawing: the model becomes cells. One file a page or pane; nothing here changes the model.

pub mod help;
pub mod log;
pub mod palette;
pub mod pen;
pub mod rows;
pub mod run;
pub mod start;

use super::model::{Model, Page};
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

/// Draws the page on top.
pub fn draw(frame: &mut Frame, m: &Model) {
    let area = frame.area();
    render(m, area, frame.buffer_mut());
}

/// Draws the page on top into a buffer.
pub fn render(m: &Model, area: Rect, buf: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    match m.page() {
        Page::Start => start::render(m, area, buf),
        Page::Run => run::render(m, area, buf),
        Page::Palette => palette::render(m, area, buf),
        Page::Help => help::render(m, area, buf),
        Page::Log => log::render(m, area, buf),
        Page::Rows => rows::render(m, area, buf),
    }
}

/// The page on top as plain text, `width` by `height`, without trailing spaces.
pub fn snapshot(m: &Model, width: u16, height: u16) -> String {
    let area = Rect::new(0, 0, width, height);
    let mut buf = Buffer::empty(area);
    render(m, area, &mut buf);
    let mut out = String::new();
    for y in 0..height {
        let mut line = String::new();
        let mut skip = 0;
        for x in 0..width {
            if skip > 0 {
                skip -= 1;
                continue;
            }
            let symbol = buf[(x, y)].symbol();
            skip = unicode_width::UnicodeWidthStr::width(symbol).saturating_sub(1);
            line.push_str(symbol);
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}
