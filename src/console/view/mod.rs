//! Drawing: the model becomes cells. One file a page or pane; nothing here changes the model.

mod ascii;
pub mod chat;
pub mod chrome;
pub mod export;
pub mod help;
pub mod log;
pub mod new;
pub mod palette;
pub mod pen;
pub mod rows;
pub mod run;
pub mod start;

use super::model::{Model, Page};
use super::theme::Glyphs;
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
    let below = m.pages.len().checked_sub(2).map(|i| m.pages[i]);
    if let (Page::Palette, Some(below)) = (m.page(), below) {
        page(m, below, area, buf);
    }
    page(m, m.page(), area, buf);
    let footer = match m.page() {
        Page::Run => run::footer_rows(area),
        _ if area.height > chrome::FOOTER => chrome::FOOTER,
        _ => 0,
    };
    chrome::overlay(buf, area, area.bottom().saturating_sub(footer), m);
    if m.theme.glyphs == Glyphs::Ascii {
        ascii::degrade(buf, area);
    }
}

fn page(m: &Model, page: Page, area: Rect, buf: &mut Buffer) {
    match page {
        Page::Start => start::render(m, area, buf),
        Page::New => new::render(m, area, buf),
        Page::Run => run::render(m, area, buf),
        Page::Export => export::render(m, area, buf),
        Page::Chat => chat::render(m, area, buf),
        Page::Palette => palette::render(m, area, buf),
        Page::Help => help::render(m, area, buf),
        Page::Log => log::render(m, area, buf),
        Page::Rows => rows::render(m, area, buf),
    }
}

/// Lines of the page that scrolls, if one is on top.
pub fn pager_lines(m: &Model) -> usize {
    match m.page() {
        Page::Help => help::lines(m, m.width).len(),
        Page::Log => log::lines(m, m.width).len(),
        Page::Rows => rows::lines(m, m.width).len(),
        _ => 0,
    }
}

/// The page on top as plain text, `width` by `height`, without trailing spaces.
pub fn snapshot(m: &Model, width: u16, height: u16) -> String {
    cut_out(m, width, height, Rect::new(0, 0, width, height))
}

/// The part of that text which lies in `part`.
pub fn cut_out(m: &Model, width: u16, height: u16, part: Rect) -> String {
    let area = Rect::new(0, 0, width, height);
    let mut buf = Buffer::empty(area);
    render(m, area, &mut buf);
    let part = part.intersection(area);
    let mut out = String::new();
    for y in part.y..part.bottom() {
        let mut line = String::new();
        let mut skip = 0;
        for x in part.x..part.right() {
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
