//! Writing text into cells: a pen that moves right and stops at its end, cutting and wrapping by width.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Writes along one row, never beyond `end`.
pub struct Pen<'b> {
    buf: &'b mut Buffer,
    pub x: u16,
    y: u16,
    end: u16,
}

impl<'b> Pen<'b> {
    /// At the start of the area's row `row`; writes nothing where the area has no such row.
    pub fn at(buf: &'b mut Buffer, area: Rect, row: u16) -> Self {
        let area = area.intersection(buf.area);
        let end = if row < area.height { area.right() } else { area.x };
        Self { buf, x: area.x, y: area.y.saturating_add(row), end }
    }

    pub fn put(&mut self, text: impl AsRef<str>, style: Style) -> &mut Self {
        if self.x < self.end {
            let room = usize::from(self.end - self.x);
            let from = self.x;
            (self.x, _) = self.buf.set_stringn(from, self.y, clean(text.as_ref()), room, style);
            // What stood here before gives its style up too.
            for x in from..self.x {
                let cell = &mut self.buf[(x, self.y)];
                cell.set_style(Style::reset()).set_style(style);
            }
        }
        self
    }

    /// Moves right by `cells`.
    pub fn gap(&mut self, cells: u16) -> &mut Self {
        self.x = self.x.saturating_add(cells);
        self
    }

    /// Moves to a column counted from the area's left.
    pub fn to(&mut self, column: u16) -> &mut Self {
        self.x = column;
        self
    }

    /// Cells left on the row.
    pub fn room(&self) -> u16 {
        self.end.saturating_sub(self.x)
    }

    /// Writes so that the text ends at the row's end less `margin`, if it does not run into what is there.
    pub fn right(&mut self, text: &str, style: Style, margin: u16) -> &mut Self {
        let width = text.width() as u16;
        if self.room() >= width + margin {
            self.x = self.end - width - margin;
            self.put(text, style);
        }
        self
    }

    /// Fills the rest of the row, less `margin`, with one character.
    pub fn fill(&mut self, symbol: char, style: Style, margin: u16) -> &mut Self {
        let n = self.room().saturating_sub(margin);
        let text: String = std::iter::repeat_n(symbol, usize::from(n)).collect();
        self.put(text, style)
    }
}

/// Control characters would move the terminal's cursor: they become spaces.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// `text` in at most `width` columns, cut with … where it is longer.
pub fn fit(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_string();
    }
    let mut out = String::new();
    let mut used = 0;
    for c in text.chars() {
        let w = c.width().unwrap_or(0);
        if used + w + 1 > width {
            break;
        }
        used += w;
        out.push(c);
    }
    if width > 0 {
        out.push('…');
    }
    out
}

/// `text` broken at spaces into lines of at most `width` columns; at most `lines` of them, the last cut with ….
/// Line ends in the text become ⏎, so that what a model wrote is seen as it is.
pub fn wrap(text: &str, width: usize, lines: usize) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    if width == 0 || lines == 0 {
        return out;
    }
    let text = text.trim_end().replace("\r\n", "\n").replace('\n', " ⏎ ");
    let mut line = String::new();
    for word in text.split(' ').filter(|w| !w.is_empty()) {
        let mut word = word.to_string();
        loop {
            let space = usize::from(!line.is_empty());
            if line.width() + space + word.width() <= width {
                if space == 1 {
                    line.push(' ');
                }
                line.push_str(&word);
                break;
            }
            if line.is_empty() {
                let cut = word.char_indices().scan(0, |w, (i, c)| {
                    *w += c.width().unwrap_or(0);
                    Some((i + c.len_utf8(), *w))
                });
                let at = cut.take_while(|(_, w)| *w <= width).last().map_or(0, |(i, _)| i);
                if at == 0 {
                    break;
                }
                line = word[..at].to_string();
                word = word[at..].to_string();
            }
            out.push(std::mem::take(&mut line));
            if out.len() == lines {
                if let Some(last) = out.last_mut() {
                    *last = fit(&format!("{last} …"), width);
                    if !last.ends_with('…') {
                        *last = fit(&format!("{last}…"), width);
                    }
                }
                return out;
            }
        }
    }
    if !line.is_empty() {
        out.push(line);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_and_wrapped_by_columns_not_bytes() {
        assert_eq!(fit("abcdef", 4), "abc…");
        assert_eq!(fit("日本語", 4), "日…");
        assert_eq!(wrap("one two three four", 8, 9), ["one two", "three", "four"]);
        assert_eq!(wrap("one two three four", 9, 2), ["one two", "three …"]);
        assert_eq!(wrap("abcdefghij", 4, 9), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("a\nb", 9, 9), ["a ⏎ b"]);
        assert_eq!(wrap("日", 1, 2), Vec::<String>::new());
    }

    #[test]
    fn a_pen_stops_at_its_end_and_outside_its_area() {
        let area = Rect::new(0, 0, 4, 1);
        let mut buf = Buffer::empty(area);
        Pen::at(&mut buf, area, 0).put("abcdef", Style::new());
        Pen::at(&mut buf, area, 3).put("x", Style::new());
        assert_eq!(buf[(3, 0)].symbol(), "d");
    }
}
