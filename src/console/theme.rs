//! Colours by role. One accent; yellow, red and green mean warning, error and passed and never stand
//! without ▲ ✕ ✓; secondary text is dim. ANSI 8 is never used: Solarized paints it as the background.

use ratatui::style::{Color, Modifier, Style};

#[derive(Debug, Clone, PartialEq)]
pub struct Theme {
    pub text: Style,
    /// Secondary text, rules, the train dots.
    pub dim: Style,
    /// Focus, the smoothed line, the progress bar, the selected row.
    pub accent: Style,
    pub warn: Style,
    pub error: Style,
    pub pass: Style,
    /// Only ASCII on the screen (`FINETOP_ASCII`).
    pub ascii: bool,
}

impl Theme {
    /// ANSI colours on the terminal's own background.
    pub fn ansi() -> Self {
        let fg = |c| Style::new().fg(c);
        Self {
            text: Style::new(),
            dim: Style::new().add_modifier(Modifier::DIM),
            accent: fg(Color::Cyan),
            warn: fg(Color::Yellow),
            error: fg(Color::Red),
            pass: fg(Color::Green),
            ascii: false,
        }
    }

    /// No colour at all (`NO_COLOR`): bold and dim carry the difference.
    pub fn plain() -> Self {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        Self { accent: bold, warn: bold, error: bold, pass: Style::new(), ..Self::ansi() }
    }

    /// Bold text.
    pub fn strong(&self) -> Style {
        self.text.add_modifier(Modifier::BOLD)
    }

    /// The focused title: bold and accent.
    pub fn focus(&self) -> Style {
        self.accent.add_modifier(Modifier::BOLD)
    }
}
