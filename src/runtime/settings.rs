//! What a person set for the program itself: `config.toml` in their folder, and the environment over it.
//!
//! Nothing here changes a training. That is the recipe's alone, so that a recipe means the same on every machine.

use std::fmt;
use std::path::{Path, PathBuf};
use toml_edit::Item;

use crate::console::theme::Glyphs;
use crate::recipe::problem::Locator;
use crate::{Error, Result};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Environment(&'static str),
    /// `config.toml`, as `file:line`.
    Config(String),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Config(place) => write!(f, "config {place}"),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// A value and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From<T> {
    pub value: T,
    pub origin: Origin,
}

/// The settings that hold, and what was wrong with those that do not.
#[derive(Debug)]
pub struct Settings {
    /// A theme's name or a file's path; none: the terminal's.
    pub theme: From<Option<String>>,
    /// None: the terminal's.
    pub glyphs: From<Option<Glyphs>>,
    /// Whether clicks and the wheel are the console's; off, they are the terminal's, to select text with.
    pub mouse: From<bool>,
    pub problems: Vec<Error>,
}

/// The keys of `config.toml`.
const KEYS: [&str; 3] = ["theme", "glyphs", "mouse"];

impl Settings {
    /// Reads `config.toml` below `home`, and the environment. What cannot be used is a problem, and the default holds.
    pub fn read(home: Option<&Path>, var: impl Fn(&str) -> Option<String>) -> Settings {
        let mut settings = Settings {
            theme: From { value: None, origin: Origin::Default },
            glyphs: From { value: None, origin: Origin::Default },
            mouse: From { value: true, origin: Origin::Default },
            problems: Vec::new(),
        };
        if let Some(path) = home.map(|h| h.join("config.toml")) {
            match text_of(&path) {
                Ok(Some(text)) => settings.take(&text, &path.to_string_lossy()),
                Ok(None) => {}
                Err(e) => settings.problems.push(e),
            }
        }
        if let Some(name) = var("FINETOP_THEME").filter(|v| !v.is_empty()) {
            settings.theme = From { value: Some(name), origin: Origin::Environment("FINETOP_THEME") };
        }
        if let Some(ascii) = var("FINETOP_ASCII").filter(|v| !v.is_empty() && v != "0") {
            let glyphs = if ascii == "dots" { Glyphs::Dots } else { Glyphs::Ascii };
            settings.glyphs = From { value: Some(glyphs), origin: Origin::Environment("FINETOP_ASCII") };
        }
        settings
    }

    fn take(&mut self, text: &str, file: &str) {
        let locator = Locator { file, text };
        let doc = match locator.document() {
            Ok(doc) => doc,
            Err(e) => return self.problems.push(e),
        };
        for (key, item) in doc.iter() {
            let place = locator.place(doc.key(key).and_then(|k| k.span()));
            if let Err(e) = self.set(key, item, Origin::Config(place.to_string())) {
                self.problems.push(e.at(place));
            }
        }
    }

    fn set(&mut self, key: &str, item: &Item, origin: Origin) -> Result<()> {
        let wrong = |next: &str| Error::usage(format!("{key} cannot be {}", item.to_string().trim())).next(next);
        match key {
            "theme" => {
                let name = item.as_str().ok_or_else(|| wrong("a theme's name in quotes, or a file's path"))?;
                self.theme = From { value: Some(name.to_string()), origin };
            }
            "glyphs" => {
                let glyphs = item.as_str().and_then(Glyphs::named);
                let glyphs = glyphs.ok_or_else(|| wrong("\"braille\", \"dots\" or \"ascii\""))?;
                self.glyphs = From { value: Some(glyphs), origin };
            }
            "mouse" => self.mouse = From { value: item.as_bool().ok_or_else(|| wrong("true or false"))?, origin },
            _ => {
                let near = KEYS
                    .into_iter()
                    .max_by(|a, b| strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key)));
                let next = match near.filter(|n| strsim::jaro_winkler(n, key) > 0.8) {
                    Some(near) => format!("did you mean {near}?"),
                    None => {
                        format!("the settings are {}; what concerns a training stands in its recipe", KEYS.join(", "))
                    }
                };
                return Err(Error::usage(format!("there is no setting {key}")).next(next));
            }
        }
        Ok(())
    }
}

/// A file's text; none where there is no file.
///
/// # Errors
/// It is there and cannot be read.
pub fn text_of(path: &PathBuf) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::usage(format!("cannot be read: {e}")).at(path.display()).next("mend it or remove it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: &str, vars: &'static [(&'static str, &'static str)]) -> Settings {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("config.toml"), config).unwrap();
        Settings::read(Some(home.path()), |n| vars.iter().find(|(k, _)| *k == n).map(|(_, v)| v.to_string()))
    }

    #[test]
    fn the_environment_wins_over_the_file_and_the_file_over_the_default() {
        let text = "theme = \"night\"\nglyphs = \"dots\"\n";
        let s = read(text, &[("FINETOP_THEME", "paper"), ("FINETOP_ASCII", "0")]);
        assert_eq!(s.theme.value.as_deref(), Some("paper"));
        assert_eq!(s.theme.origin, Origin::Environment("FINETOP_THEME"));
        assert_eq!(s.glyphs.value, Some(Glyphs::Dots));
        assert!(s.glyphs.origin.to_string().ends_with("config.toml:2:1"), "{}", s.glyphs.origin);
        assert_eq!((s.mouse.value, s.mouse.origin), (true, Origin::Default));
        assert!(s.problems.is_empty());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_the_rest_holds() {
        let s = read("theme = 3\nmous = false\nmouse = false\nlearning_rate = 1\n", &[]);
        let said: Vec<String> = s.problems.iter().map(ToString::to_string).collect();
        assert_eq!((s.theme.value, s.mouse.value), (None, false));
        assert!(said[0].contains("config.toml:1:1: theme cannot be 3"), "{said:?}");
        assert!(said[1].contains("config.toml:2:1") && said[1].contains("did you mean mouse?"), "{said:?}");
        assert!(said[2].contains("stands in its recipe"), "{said:?}");
        let torn = read("theme = \"nigh", &[]);
        assert!(torn.problems[0].to_string().contains("config.toml:1"), "{:?}", torn.problems);
    }

    #[test]
    fn without_a_file_the_defaults_hold_and_nothing_is_said() {
        let home = tempfile::tempdir().unwrap();
        let s = Settings::read(Some(home.path()), |_| None);
        assert!(s.problems.is_empty() && s.theme.value.is_none() && s.mouse.value);
    }
}
