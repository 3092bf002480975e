//! The rows page: rows of a step as the model sees them. What it is trained to say is bright, the rest dim;
//! every second token is underlined, so that one sees where tokens begin.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthChar;

use super::help::pager;
use crate::console::format;
use crate::console::model::{Model, RowToken};
use crate::console::theme::Theme;

pub fn render(m: &Model, area: Rect, buf: &mut Buffer) {
    pager(m, area, "rows", "bright: trained   dim: read only", &lines(m, area.width), buf);
}

pub fn lines(m: &Model, columns: u16) -> Vec<Line<'static>> {
    let mut out = Vec::new();
    for row in &m.rows {
        let trained = row.tokens.iter().filter(|t| t.trained).count();
        let place = if row.place.is_empty() { String::new() } else { format!("   {}", row.place) };
        let counts = format!(
            "{place}   {} tokens, {} trained",
            format::thousands(row.tokens.len() as u64),
            format::thousands(trained as u64)
        );
        let title = Span::styled(format!("  row {}", row.row), m.theme.strong());
        out.push(Line::from(vec![title, Span::styled(counts, m.theme.dim)]));
        flow(&row.tokens, usize::from(columns.saturating_sub(6)).max(1), &m.theme, &mut out);
        out.push(Line::default());
    }
    out
}

/// The tokens in lines of `room` columns; a line break in the text is shown and ends the line.
fn flow(tokens: &[RowToken], room: usize, theme: &Theme, out: &mut Vec<Line<'static>>) {
    let margin = || Span::styled("    ", Style::new());
    let mut line = vec![margin()];
    let mut taken = 0;
    for (i, token) in tokens.iter().enumerate() {
        let base = if token.trained { theme.accent } else { theme.dim };
        let style = if i % 2 == 1 { base.add_modifier(Modifier::UNDERLINED) } else { base };
        let mut piece = String::new();
        for c in token.text.chars() {
            let (shown, ends) = match c {
                '\n' => ('↵', true),
                '\t' => ('→', false),
                c if c.is_control() => ('·', false),
                c => (c, false),
            };
            let wide = shown.width().unwrap_or(0);
            if taken + wide > room {
                line.push(Span::styled(std::mem::take(&mut piece), style));
                out.push(Line::from(std::mem::replace(&mut line, vec![margin()])));
                taken = 0;
            }
            piece.push(shown);
            taken += wide;
            if ends {
                line.push(Span::styled(std::mem::take(&mut piece), style));
                out.push(Line::from(std::mem::replace(&mut line, vec![margin()])));
                taken = 0;
            }
        }
        if !piece.is_empty() {
            line.push(Span::styled(piece, style));
        }
    }
    if line.len() > 1 {
        out.push(Line::from(line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str, trained: bool) -> RowToken {
        RowToken { text: text.into(), trained, ..RowToken::default() }
    }

    #[test]
    fn tokens_flow_over_lines_and_a_line_break_is_seen() {
        let mut out = Vec::new();
        let tokens = [token("user", false), token("\n", false), token("hello", true), token(" there", true)];
        flow(&tokens, 8, &Theme::ansi(), &mut out);
        let text: Vec<String> = out.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["    user↵", "    hello th", "    ere"]);
    }

    #[test]
    fn only_trained_tokens_have_the_accent() {
        let mut out = Vec::new();
        flow(&[token("a", false), token("b", true)], 8, &Theme::ansi(), &mut out);
        let spans = &out[0].spans;
        assert_eq!(spans[1].style.fg, None);
        assert_eq!(spans[2].style.fg, Theme::ansi().accent.fg);
    }
}
