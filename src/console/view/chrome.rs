//! What every page has: title rules, the footer, and the lines that a notice or a question takes.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::console::keymap::Action;
use crate::console::model::Model;
use crate::console::theme::Theme;

/// Rows that the footer takes: its rule and its keys.
pub const FOOTER: u16 = 2;
/// A footer names at most this many keys of the page or pane; the rest are in the help.
const FOOTER_KEYS: usize = 6;

/// Columns that `text` takes.
pub fn width(text: &str) -> u16 {
    text.width().try_into().unwrap_or(u16::MAX)
}

/// `text` cut to `columns`, with … where something is missing.
pub fn cut(text: &str, columns: u16) -> String {
    if width(text) <= columns {
        return text.to_string();
    }
    let mut out = String::new();
    let mut taken = 0;
    for c in text.chars() {
        let w = c.width().unwrap_or(0) as u16;
        if taken + w + 1 > columns {
            break;
        }
        out.push(c);
        taken += w;
    }
    if columns > 0 {
        out.push('…');
    }
    out
}

/// Writes `text` from `x`, never past `right` (exclusive), cut with …; returns the column after it.
pub fn put(buf: &mut Buffer, x: u16, y: u16, right: u16, text: &str, style: Style) -> u16 {
    if x >= right || y >= buf.area.bottom() {
        return x;
    }
    buf.set_stringn(x, y, cut(text, right - x), usize::from(right - x), style).0
}

/// Writes `text` so that it ends before `right`, not before `left`; returns its first column.
pub fn put_right(buf: &mut Buffer, left: u16, y: u16, right: u16, text: &str, style: Style) -> u16 {
    let x = right.saturating_sub(width(text)).max(left);
    put(buf, x, y, right, text, style);
    x
}

/// A rule from `x` to `right` (exclusive).
pub fn line(buf: &mut Buffer, x: u16, y: u16, right: u16, theme: &Theme) {
    for x in x..right {
        put(buf, x, y, right, "─", theme.dim);
    }
}

/// Empties a row of `area`.
pub fn blank(buf: &mut Buffer, area: Rect, y: u16) {
    for x in area.x..area.right() {
        if let Some(cell) = buf.cell_mut((x, y)) {
            cell.reset();
        }
    }
}

/// A title rule over `area`'s first row: `▌ runs ──────── 14 on this machine`.
pub fn rule(buf: &mut Buffer, area: Rect, title: &str, right: &str, focused: bool, theme: &Theme) {
    let (y, end) = (area.y, area.right());
    if focused {
        put(buf, area.x, y, end, "▌", theme.focus());
    }
    let style = if focused { theme.focus() } else { theme.strong() };
    let x = put(buf, area.x + 2, y, end, title, style) + 1;
    let room = end.saturating_sub(x);
    let shown = if width(right) + 4 <= room { right } else { "" };
    let stop = if shown.is_empty() { end } else { end - width(shown) - 2 };
    line(buf, x, y, stop, theme);
    if !shown.is_empty() {
        put(buf, stop + 1, y, end, shown, theme.dim);
    }
}

/// The footer's rule and keys: `left` of the page, then `: ? q` always at the right.
pub fn footer(buf: &mut Buffer, area: Rect, left: &[(String, &str)], right: &[(String, &str)], theme: &Theme) {
    if area.height < FOOTER {
        return;
    }
    line(buf, area.x, area.bottom() - 2, area.right(), theme);
    keys(buf, area, left, right, theme);
}

/// What stands at the right of every footer; `leave` is the word of the last.
pub fn always<'a>(m: &Model, leave: &'a str) -> [(String, &'a str); 3] {
    [(Action::Palette, "commands"), (Action::Keys, "keys"), (Action::Leave, leave)].map(|(a, w)| (m.keymap.key(a), w))
}

/// The keys on the last row of `area`.
pub fn keys(buf: &mut Buffer, area: Rect, left: &[(String, &str)], right: &[(String, &str)], theme: &Theme) {
    let y = area.bottom().saturating_sub(1);
    let mut stop = area.right().saturating_sub(1);
    for (i, (key, word)) in right.iter().rev().enumerate() {
        // On a narrow page only the way out keeps its word.
        let word = if i == 0 || area.width >= 60 { *word } else { "" };
        let start = stop.saturating_sub(width(key) + u16::from(!word.is_empty()) + width(word));
        if start < area.x + 1 {
            break;
        }
        put(buf, start, y, stop, key, theme.text);
        put(buf, start + width(key) + 1, y, stop, word, theme.dim);
        stop = start.saturating_sub(if i + 1 < right.len() { 3 } else { 2 });
    }
    let mut x = area.x + 1;
    for (keys, word) in left.iter().take(FOOTER_KEYS) {
        if x + width(keys) + 1 + width(word) > stop {
            break;
        }
        x = put(buf, x, y, stop, keys, theme.text) + 1;
        x = put(buf, x, y, stop, word, theme.dim) + 3;
    }
}

/// The question that waits, or the notice, over the lines above `bottom` (exclusive).
pub fn overlay(buf: &mut Buffer, area: Rect, bottom: u16, m: &Model) {
    let (glyph, text, style) = if let Some(confirm) = &m.confirm {
        ("?", format!("{}   y yes   any other key no", confirm.question), m.theme.focus())
    } else if let Some(notice) = &m.notice {
        if notice.error {
            ("✕", notice.text.clone(), m.theme.error)
        } else {
            ("›", notice.text.clone(), m.theme.accent)
        }
    } else {
        return;
    };
    let room = area.width.saturating_sub(5).max(1);
    let mut lines: Vec<String> = text.lines().flat_map(|line| wrap(line, room)).collect();
    let most = usize::from(area.height.saturating_sub(FOOTER + 2)).clamp(1, 6);
    lines.truncate(most);
    let top = bottom.saturating_sub(lines.len() as u16).max(area.y);
    for (i, line) in lines.iter().enumerate() {
        let y = top + i as u16;
        blank(buf, area, y);
        if i == 0 {
            put(buf, area.x + 1, y, area.right(), glyph, style);
        }
        put(buf, area.x + 3, y, area.right(), line, if m.confirm.is_some() { m.theme.strong() } else { m.theme.text });
    }
}

/// `text` in lines of at most `columns`, broken at spaces where there are any.
pub fn wrap(text: &str, columns: u16) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_inclusive(' ') {
        if !line.is_empty() && width(&line) + width(word.trim_end()) > columns {
            lines.push(std::mem::take(&mut line));
        }
        line.push_str(word);
        // A word longer than a line is cut.
        while width(line.trim_end()) > columns {
            let fits = line.char_indices().take_while(|(i, c)| width(&line[..i + c.len_utf8()]) <= columns);
            let at =
                fits.last().map_or(0, |(i, c)| i + c.len_utf8()).max(line.chars().next().map_or(1, char::len_utf8));
            let rest = line.split_off(at);
            lines.push(std::mem::replace(&mut line, rest));
        }
    }
    lines.push(line);
    lines.into_iter().map(|l| l.trim_end().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_too_long_ends_in_an_ellipsis_and_keeps_its_width() {
        assert_eq!(cut("qwen7b-support", 14), "qwen7b-support");
        assert_eq!(cut("qwen7b-support", 8), "qwen7b-…");
        assert_eq!(width(&cut("日本語のモデル", 8)), 7);
        assert_eq!(cut("a", 0), "");
    }

    #[test]
    fn lines_break_at_spaces_and_a_long_word_is_cut() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij k", 4), ["abcd", "efgh", "ij k"]);
        assert_eq!(wrap("", 4), [""]);
    }
}
