//! Colours by role. One accent; yellow, red and green mean warning, error and passed and never stand
//! without ▲ ✕ ✓; secondary text is dim. ANSI 8 is never used: Solarized paints it as the background.

use crate::recipe::problem::Locator;
use crate::{Error, Result};
use ratatui::style::{Color, Modifier, Style};
use std::str::FromStr;

/// What a chart is drawn with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Glyphs {
    Braille,
    /// For fonts without braille, as the Linux console's.
    Dots,
    Ascii,
}

impl Glyphs {
    /// By its name in `config.toml`.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Braille, Self::Dots, Self::Ascii].into_iter().find(|g| g.word() == name)
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Braille => "braille",
            Self::Dots => "dots",
            Self::Ascii => "ascii",
        }
    }
}

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
    pub glyphs: Glyphs,
}

/// The themes that come with the program, by name.
const BUILT_IN: [(&str, &str); 3] = [
    ("ansi", include_str!("../../themes/ansi.toml")),
    ("night", include_str!("../../themes/night.toml")),
    ("paper", include_str!("../../themes/paper.toml")),
];

impl Theme {
    /// ANSI colours on the terminal's own background: the default.
    pub fn ansi() -> Self {
        let fg = |c| Style::new().fg(c);
        Self {
            text: Style::new(),
            dim: Style::new().add_modifier(Modifier::DIM),
            accent: fg(Color::Cyan),
            warn: fg(Color::Yellow),
            error: fg(Color::Red),
            pass: fg(Color::Green),
            glyphs: Glyphs::Braille,
        }
    }

    /// No colour at all (`NO_COLOR`): bold and dim carry the difference, the signs the meaning.
    pub fn plain() -> Self {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        Self { accent: bold, warn: bold, error: bold, pass: Style::new(), ..Self::ansi() }
    }

    /// The names of the built-in themes.
    pub fn names() -> [&'static str; 3] {
        BUILT_IN.map(|(name, _)| name)
    }

    /// A built-in theme's text.
    pub fn built_in(name: &str) -> Option<&'static str> {
        BUILT_IN.iter().find(|(n, _)| *n == name).map(|(_, text)| *text)
    }

    /// Reads a theme: a `[palette]` of named colours, and roles that name one of them, an ANSI colour or
    /// `#rrggbb`. A role that is absent keeps the default's.
    ///
    /// # Errors
    /// `Kind::Usage`: which entry is wrong, with `file` and the line.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        let locator = Locator { file, text };
        let doc = locator.document()?;
        let mut theme = Self::ansi();
        let palette = doc.get("palette").and_then(|p| p.as_table_like());
        for (role, item) in doc.iter().filter(|(k, _)| *k != "palette") {
            let at = locator.place(doc.key(role).and_then(|k| k.span()));
            let slot = match role {
                "text" => &mut theme.text,
                "dim" => &mut theme.dim,
                "accent" => &mut theme.accent,
                "warn" => &mut theme.warn,
                "error" => &mut theme.error,
                "pass" => &mut theme.pass,
                _ => {
                    let roles = "the roles are text, dim, accent, warn, error, pass";
                    return Err(Error::usage(format!("there is no role {role} in a theme")).at(at).next(roles));
                }
            };
            let name = item.as_str().ok_or_else(|| {
                Error::usage(format!("{role} must be a text")).at(&at).next("a colour's name in quotes, or \"#rrggbb\"")
            })?;
            let value = palette.and_then(|p| p.get(name)).and_then(|v| v.as_str()).unwrap_or(name);
            *slot = match value {
                "dim" => Style::new().add_modifier(Modifier::DIM),
                "default" => Style::new(),
                _ => Style::new().fg(Color::from_str(value).map_err(|_| {
                    Error::usage(format!("{role}: {value} is no colour"))
                        .at(&at)
                        .next("a name such as cyan, or #rrggbb")
                })?),
            };
        }
        Ok(theme)
    }

    /// The built-in theme for a terminal whose person named none: ANSI colours, or the light theme where `COLORFGBG`
    /// calls the background light and there is true colour, since ANSI yellow is faint on white.
    pub fn default_name(var: impl Fn(&str) -> Option<String>) -> &'static str {
        // rxvt's and others' `fg;bg`: 7 and 15 are the light backgrounds.
        let light = var("COLORFGBG").is_some_and(|v| matches!(v.rsplit(';').next(), Some("7" | "15")));
        if light && true_colour(&var) { "paper" } else { "ansi" }
    }

    /// This theme as the environment's terminal can show it. `NO_COLOR` leaves no colour; true colours step down to
    /// 256 unless `COLORTERM` promises them, to 16 where `TERM` has no more; `FINETOP_ASCII`, or a `TERM` without
    /// braille, choose the glyphs.
    pub fn on_terminal(self, var: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| var(name).is_some_and(|v| !v.is_empty() && v != "0");
        let mut out = if set("NO_COLOR") { Self::plain() } else { self };
        let term = var("TERM").unwrap_or_default();
        if !true_colour(&var) {
            let deep = term.contains("256") || term.contains("direct");
            out = if deep { out.with_colours(to_256) } else { out.with_colours(|c| to_16(to_256(c))) };
        }
        out.glyphs = match var("FINETOP_ASCII").as_deref() {
            Some("dots") => Glyphs::Dots,
            _ if set("FINETOP_ASCII") => Glyphs::Ascii,
            _ if term == "linux" => Glyphs::Dots,
            _ => out.glyphs,
        };
        out
    }

    fn with_colours(mut self, f: impl Fn(Color) -> Color) -> Self {
        for style in [&mut self.text, &mut self.dim, &mut self.accent, &mut self.warn, &mut self.error, &mut self.pass]
        {
            style.fg = style.fg.map(&f);
        }
        self
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

fn true_colour(var: impl Fn(&str) -> Option<String>) -> bool {
    var("COLORTERM").is_some_and(|v| v == "truecolor" || v == "24bit")
}

/// The nearest of the 6 × 6 × 6 cube or the grey ramp that 256-colour terminals share.
fn to_256(c: Color) -> Color {
    let Color::Rgb(r, g, b) = c else { return c };
    const LEVELS: [i32; 6] = [0, 95, 135, 175, 215, 255];
    let near = |v: u8| (0..6).min_by_key(|&i| (LEVELS[i] - i32::from(v)).abs()).unwrap_or(0);
    let distance = |p: [i32; 3]| [r, g, b].iter().zip(p).map(|(a, b)| (i32::from(*a) - b).pow(2)).sum::<i32>();
    let (i, j, k) = (near(r), near(g), near(b));
    let grey = ((i32::from(r) + i32::from(g) + i32::from(b)) / 3 - 8).clamp(0, 230) / 10;
    let (cube, ramp) = ([LEVELS[i], LEVELS[j], LEVELS[k]], [8 + grey * 10; 3]);
    if distance(ramp) < distance(cube) {
        Color::Indexed(232 + grey as u8)
    } else {
        Color::Indexed((16 + 36 * i + 6 * j + k) as u8)
    }
}

/// The ANSI colour nearest in hue to one of the 256; greys become the default foreground.
fn to_16(c: Color) -> Color {
    let Color::Indexed(n) = c else { return c };
    if !(16..232).contains(&n) {
        return Color::Reset;
    }
    let n = n - 16;
    let (r, g, b) = (n / 36, n / 6 % 6, n % 6);
    let top = r.max(g).max(b);
    match (r * 2 > top, g * 2 > top, b * 2 > top) {
        _ if top == r.min(g).min(b) => Color::Reset,
        (true, true, true) => Color::Reset,
        (true, true, false) if g * 3 > r * 2 => Color::Yellow,
        (true, _, true) => Color::Magenta,
        (false, true, true) => Color::Cyan,
        (true, ..) => Color::Red,
        (_, true, _) => Color::Green,
        _ => Color::Blue,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built_in(name: &str) -> Theme {
        Theme::parse(Theme::built_in(name).unwrap(), name).unwrap_or_else(|e| panic!("{e}"))
    }

    fn env(vars: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<String> {
        move |n| vars.iter().find(|(k, _)| *k == n).map(|(_, v)| v.to_string())
    }

    #[test]
    fn every_built_in_theme_parses() {
        for name in Theme::names() {
            let theme = built_in(name);
            assert_ne!(theme.accent, theme.text, "{name}");
        }
        assert_eq!(built_in("ansi"), Theme::ansi());
    }

    #[test]
    fn no_theme_uses_ansi_8_for_text() {
        for name in Theme::names() {
            let t = built_in(name);
            for style in [t.text, t.dim, t.accent, t.warn, t.error, t.pass] {
                assert!(style.fg != Some(Color::DarkGray) && style.fg != Some(Color::Indexed(8)), "{name}");
            }
        }
    }

    #[test]
    fn a_wrong_theme_says_what_is_wrong_and_on_which_line() {
        for (text, place, word) in [
            ("accnt = \"cyan\"", "t.toml:1", "accnt"),
            ("text = \"default\"\naccent = \"cyanish\"", "t.toml:2", "cyanish"),
            ("\naccent = 3", "t.toml:2", "must be a text"),
            ("accent = cyan", "t.toml:1", "not TOML"),
        ] {
            let error = Theme::parse(text, "t.toml").unwrap_err().to_string();
            assert!(error.starts_with(place) && error.contains(word), "{error}");
        }
    }

    #[test]
    fn no_color_leaves_no_colour_and_few_colours_step_down() {
        let with = |vars| built_in("night").on_terminal(env(vars));
        assert_eq!(with(&[("NO_COLOR", "1")]).accent.fg, None);
        assert!(matches!(with(&[("COLORTERM", "truecolor")]).accent.fg, Some(Color::Rgb(..))));
        assert!(matches!(with(&[("TERM", "xterm-256color")]).accent.fg, Some(Color::Indexed(16..))));
        assert_eq!(with(&[("TERM", "xterm")]).warn.fg, Some(Color::Yellow));
        assert_eq!(with(&[("TERM", "linux")]).glyphs, Glyphs::Dots);
        assert_eq!(with(&[("FINETOP_ASCII", "1")]).glyphs, Glyphs::Ascii);
        assert_eq!(with(&[("FINETOP_ASCII", "0")]).glyphs, Glyphs::Braille);
    }

    #[test]
    fn a_light_background_gets_the_light_theme_where_there_is_true_colour() {
        assert_eq!(Theme::default_name(env(&[("COLORFGBG", "0;15"), ("COLORTERM", "truecolor")])), "paper");
        assert_eq!(Theme::default_name(env(&[("COLORFGBG", "15;0"), ("COLORTERM", "truecolor")])), "ansi");
        assert_eq!(Theme::default_name(env(&[("COLORFGBG", "0;15")])), "ansi");
        assert_eq!(Theme::default_name(env(&[])), "ansi");
    }
}
