//! The help page: the keymap's table, what holds here first. Also what the three pages that scroll share.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::chrome::{self, cut, width};
use crate::console::keymap::{self, Context};
use crate::console::model::{Model, Page};

pub fn render(m: &Model, area: Rect, buf: &mut Buffer) {
    pager(m, area, "keys", "", &lines(m, area.width), buf);
}

/// The contexts in the order of the help: those of the page below first, innermost first.
fn order(m: &Model) -> Vec<Context> {
    use Context::*;
    let below = m
        .pages
        .iter()
        .rev()
        .copied()
        .find(|p| matches!(p, Page::Start | Page::Run | Page::Export))
        .unwrap_or(Page::Start);
    let mut all = keymap::contexts_of(m, below);
    all.extend([Any, Start, Run, Loss, Samples, Memory, Recipe, Diagnostics, Export, Pager]);
    let mut order: Vec<Context> = Vec::new();
    all.into_iter().filter(|c| m.keymap.of(*c).next().is_some()).for_each(|c| {
        if !order.contains(&c) {
            order.push(c);
        }
    });
    order
}

/// The help as lines of `columns`; two sections side by side where there is room.
pub fn lines(m: &Model, columns: u16) -> Vec<Line<'static>> {
    let t = &m.theme;
    let two = columns >= 120;
    let room = if two { columns / 2 - 2 } else { columns };
    let mut blocks: Vec<Vec<Line<'static>>> = Vec::new();
    for context in order(m) {
        let mut block = vec![Line::from(Span::styled(format!("  {}", context.title()), t.strong()))];
        for b in m.keymap.of(context) {
            let keys: Vec<String> = b.keys.iter().map(ToString::to_string).collect();
            let keys = format!("    {:<12}", keys.join(" "));
            let help = cut(b.help, room.saturating_sub(width(&keys) + 1));
            block.push(Line::from(vec![Span::styled(keys, t.accent), Span::styled(help, t.text)]));
        }
        block.push(Line::default());
        blocks.push(block);
    }
    if !two {
        return blocks.concat();
    }
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for block in blocks {
        let side: &mut Vec<Line> = if left.len() <= right.len() { &mut left } else { &mut right };
        side.extend(block);
    }
    let rows = left.len().max(right.len());
    left.resize(rows, Line::default());
    right.resize(rows, Line::default());
    left.into_iter()
        .zip(right)
        .map(|(mut l, r)| {
            let pad = usize::from(columns / 2).saturating_sub(l.width());
            l.spans.push(Span::styled(" ".repeat(pad), Style::new()));
            l.spans.extend(r.spans);
            l
        })
        .collect()
}

/// A page of lines that scrolls: title rule, the lines from the scroll position, footer.
pub fn pager(m: &Model, area: Rect, title: &str, right: &str, lines: &[Line], buf: &mut Buffer) {
    let rows = usize::from(area.height.saturating_sub(2 + chrome::FOOTER)).max(1);
    let first = m.scroll.min(lines.len().saturating_sub(rows));
    let end = (first + rows).min(lines.len());
    let place = if lines.len() > rows { format!("{}–{} of {}", first + 1, end, lines.len()) } else { String::new() };
    let right = [right, &place].into_iter().filter(|s| !s.is_empty()).collect::<Vec<_>>().join("   ");
    chrome::rule(buf, area, title, &right, true, &m.theme);
    for (i, line) in lines[first..end].iter().enumerate() {
        let y = area.y + 1 + u16::from(area.height >= 12) + i as u16;
        if y + chrome::FOOTER < area.bottom() {
            buf.set_line(area.x, y, line, area.width);
        }
    }
    let keys = m.keymap.footer(Context::Pager);
    chrome::footer(buf, area, &keys, &chrome::always(m, "back"), &m.theme);
}
