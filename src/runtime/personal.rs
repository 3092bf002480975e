//! What a person made their own in the console: theme and keys, from their folder
//! (`$XDG_CONFIG_HOME/finetop/{config.toml,keys.toml,themes/}`).
//!
//! Whatever is wrong there is said, never fatal: the console then looks and works as it does without.

use std::path::{Path, PathBuf};

use super::settings::{Settings, text_of};
use crate::console::keymap::Keymap;
use crate::console::own_keys;
use crate::console::theme::Theme;
use crate::run::places::config_home;
use crate::{Error, Result};

/// The console of one person.
pub struct Personal {
    pub settings: Settings,
    /// The theme where none is named.
    pub default_theme: &'static str,
    /// As this terminal can show it.
    pub theme: Theme,
    pub keymap: Keymap,
}

impl Personal {
    /// Of the user whose environment this is.
    pub fn of_user() -> Personal {
        Self::read(config_home().as_deref(), |name| std::env::var(name).ok())
    }

    /// From the folder `home`, in the environment that `var` tells. What was wrong is among the settings' problems.
    pub fn read(home: Option<&Path>, var: impl Fn(&str) -> Option<String>) -> Personal {
        let mut settings = Settings::read(home, &var);
        let named = settings.theme.value.clone();
        let default_theme = Theme::default_name(&var);
        let theme = theme(named.as_deref().unwrap_or(default_theme), home).unwrap_or_else(|e| {
            settings.problems.push(e);
            Theme::ansi()
        });
        let mut theme = theme.on_terminal(&var);
        theme.glyphs = settings.glyphs.value.unwrap_or(theme.glyphs);
        let keymap = keys(home).unwrap_or_else(|e| {
            settings.problems.push(e);
            Keymap::default()
        });
        Personal { settings, default_theme, theme, keymap }
    }

    /// What was wrong, for the message line; none where nothing was.
    pub fn complaint(&self) -> Option<String> {
        let said: Vec<String> = self.settings.problems.iter().map(ToString::to_string).collect();
        (!said.is_empty()).then(|| said.join("\n"))
    }
}

/// Where a person's keys stand.
pub fn keys_file(home: &Path) -> PathBuf {
    home.join("keys.toml")
}

fn keys(home: Option<&Path>) -> Result<Keymap> {
    let Some(path) = home.map(keys_file) else { return Ok(Keymap::default()) };
    match text_of(&path)? {
        Some(text) => own_keys::read(&text, &path.to_string_lossy()),
        None => Ok(Keymap::default()),
    }
}

/// The theme of this name: a person's own, else a built-in one; or a file's path.
fn theme(name: &str, home: Option<&Path>) -> Result<Theme> {
    let folder = home.map(|h| h.join("themes"));
    let is_path = name.contains('/') || name.ends_with(".toml");
    let own = if is_path { Some(PathBuf::from(name)) } else { folder.as_ref().map(|f| f.join(format!("{name}.toml"))) };
    if let Some(path) = own
        && let Some(text) = text_of(&path)?
    {
        return Theme::parse(&text, &path.to_string_lossy());
    }
    match Theme::built_in(name) {
        Some(text) => Theme::parse(text, name),
        None => {
            Err(Error::usage(format!("there is no theme {name}")).next(format!("the themes are {}", known(folder))))
        }
    }
}

/// The names of all themes, a person's own among them.
fn known(folder: Option<PathBuf>) -> String {
    let own = folder.and_then(|f| std::fs::read_dir(f).ok()).into_iter().flatten().flatten().filter_map(|e| {
        let name = e.file_name().into_string().ok()?;
        name.strip_suffix(".toml").map(str::to_string)
    });
    let mut names: Vec<String> = Theme::names().map(str::to_string).into_iter().chain(own).collect();
    names.sort();
    names.dedup();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::key::Key;
    use crate::console::keymap::{Action, Context};
    use crate::console::theme::Glyphs;
    use ratatui::style::Color;

    struct Home(tempfile::TempDir);

    impl Home {
        fn with(files: &[(&str, &str)]) -> Home {
            let home = tempfile::tempdir().unwrap();
            std::fs::create_dir(home.path().join("themes")).unwrap();
            for (name, text) in files {
                std::fs::write(home.path().join(name), text).unwrap();
            }
            Home(home)
        }

        fn read(&self, vars: &'static [(&'static str, &'static str)]) -> Personal {
            let var = move |n: &str| vars.iter().find(|(k, _)| *k == n).map(|(_, v)| v.to_string());
            Personal::read(Some(self.0.path()), var)
        }
    }

    const TRUE: (&str, &str) = ("COLORTERM", "truecolor");

    #[test]
    fn a_persons_theme_is_found_by_name_and_wins_over_a_built_in_one() {
        let home = Home::with(&[
            ("config.toml", "theme = \"mine\"\nglyphs = \"ascii\""),
            ("themes/mine.toml", "accent = \"#010203\""),
            ("themes/night.toml", "accent = \"#040506\""),
            ("themes/ansi.toml", "accent = \"magenta\""),
        ]);
        let p = home.read(&[TRUE]);
        assert_eq!((p.theme.accent.fg, p.theme.glyphs), (Some(Color::Rgb(1, 2, 3)), Glyphs::Ascii));
        assert_eq!(home.read(&[TRUE, ("FINETOP_THEME", "night")]).theme.accent.fg, Some(Color::Rgb(4, 5, 6)));
        assert!(matches!(home.read(&[TRUE, ("FINETOP_THEME", "paper")]).theme.accent.fg, Some(Color::Rgb(0, 112, _))));
        // The default theme is one like the others.
        let plain = Home::with(&[("themes/ansi.toml", "accent = \"magenta\"")]);
        assert_eq!(plain.read(&[]).theme.accent.fg, Some(Color::Magenta));
    }

    #[test]
    fn a_persons_keys_hold() {
        let home = Home::with(&[("keys.toml", "[any]\nleave = \"ctrl-q\"")]);
        let p = home.read(&[]);
        assert_eq!(p.keymap.action(Key::Ctrl('q'), &[Context::Any]), Some(Action::Leave));
        assert_eq!(p.keymap.action(Key::Char('q'), &[Context::Any]), None);
        assert_eq!(p.complaint(), None);
    }

    #[test]
    fn wrong_files_are_said_with_file_and_line_and_the_defaults_hold() {
        let home = Home::with(&[
            ("config.toml", "theme = \"mine\""),
            ("keys.toml", "[any]\nleeve = \"ctrl-q\""),
            ("themes/mine.toml", "text = \"default\"\naccent = \"cyanish\""),
        ]);
        let p = home.read(&[]);
        let said = p.complaint().unwrap();
        assert!(said.contains("themes/mine.toml:2:1: accent: cyanish is no colour"), "{said}");
        assert!(said.contains("keys.toml:2:1: there is no command leeve in any"), "{said}");
        assert_eq!(p.theme, Theme::ansi());
        assert_eq!(p.keymap.action(Key::Char('q'), &[Context::Any]), Some(Action::Leave));
        let none = home.read(&[("FINETOP_THEME", "solar")]).complaint().unwrap();
        assert!(none.contains("no theme solar") && none.contains("ansi, mine, night, paper"), "{none}");
    }

    #[test]
    fn an_unreadable_file_is_said() {
        let home = Home::with(&[]);
        std::fs::create_dir(home.0.path().join("keys.toml")).unwrap();
        let said = home.read(&[]).complaint().unwrap();
        assert!(said.contains("keys.toml: cannot be read"), "{said}");
    }
}
