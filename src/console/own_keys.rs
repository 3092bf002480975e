//! A person's own keys: `keys.toml` over the table of [`super::keymap`]. Must not know where the file lies.

use super::key::Key;
use super::keymap::{Context, Keymap};
use crate::recipe::problem::Locator;
use crate::{Error, Result};
use std::ops::Range;
use toml_edit::Item;

/// The table with a person's keys in place of its own. The file's tables are the contexts (`any`, `start`, `run`,
/// `loss`, `samples`, `memory`, `recipe`, `diagnostics`, `pager`), with the table's names for keys and a key, or a
/// list of them, for a value: `[run]`, `stop = "ctrl-x"`, `"next pane" = ["tab", "n"]`. An empty list: no key.
///
/// # Errors
/// `Kind::Usage`, with `file` and the line: no TOML, an unknown context, name or key, or one key for two things in a
/// context.
pub fn read(text: &str, file: &str) -> Result<Keymap> {
    let locator = Locator { file, text };
    let doc = locator.document()?;
    let mut map = Keymap::default();
    // Where each command got its keys, for a key that is given twice.
    let mut given: Vec<(Context, &str, Option<Range<usize>>)> = Vec::new();
    for (section, item) in doc.iter() {
        let at = || locator.place(doc.key(section).and_then(|k| k.span()));
        let context = Context::ALL.into_iter().find(|c| c.word() == section).ok_or_else(|| {
            Error::usage(format!("there is no context {section}"))
                .at(at())
                .next(format!("the contexts are {}", Context::ALL.map(Context::word).join(", ")))
        })?;
        let table = item.as_table_like().ok_or_else(|| {
            Error::usage(format!("{section} must be a table")).at(at()).next(format!("write [{section}]"))
        })?;
        for (name, value) in table.iter() {
            let span = table.key(name).and_then(|k| k.span());
            replace(&mut map, context, name, value).map_err(|e| e.at(locator.place(span.clone())))?;
            given.push((context, name, span));
        }
    }
    for (context, name, span) in given {
        let keys = map.of(context).find(|b| b.name == name).map(|b| b.keys.clone()).unwrap_or_default();
        if let Some(other) = map.of(context).find(|b| b.name != name && b.keys.iter().any(|k| keys.contains(k))) {
            let what = format!("{name} and {} share a key in {}", other.name, context.word());
            return Err(Error::usage(what).at(locator.place(span)).next("give one of them another key"));
        }
    }
    Ok(map)
}

fn replace(map: &mut Keymap, context: Context, name: &str, value: &Item) -> Result<()> {
    let binding = map.bindings.iter_mut().find(|b| b.context == context && b.name == name);
    let binding = binding.ok_or_else(|| {
        Error::usage(format!("there is no command {name} in {}", context.word())).next("? lists them, by context")
    })?;
    let wrong = || Error::usage(format!("{name} wants a key, or a list of keys"));
    let texts: Vec<&str> = match (value.as_str(), value.as_array()) {
        (Some(one), _) => vec![one],
        (_, Some(many)) => many.iter().map(|v| v.as_str().ok_or_else(wrong)).collect::<Result<_>>()?,
        _ => return Err(wrong()),
    };
    let read = |t: &&str| {
        Key::parse(t)
            .ok_or_else(|| Error::usage(format!("{t} is no key")).next("as q, S, ctrl-x, enter, space, s-tab, pgup"))
    };
    binding.keys = texts.iter().map(read).collect::<Result<_>>()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::keymap::Action;

    #[test]
    fn a_persons_keys_take_the_place_of_the_tables() {
        let text = "[run]\nstop = \"ctrl-x\"\n\"next pane\" = [\"tab\", \"n\"]\nzoom = []";
        let map = read(text, "keys.toml").unwrap();
        let at = |key| map.action(key, &[Context::Run]);
        assert_eq!(at(Key::Ctrl('x')), Some(Action::Stop));
        assert_eq!(at(Key::Char('S')), None);
        assert_eq!(at(Key::Char('n')), Some(Action::NextPane));
        assert_eq!(at(Key::Char('z')), None);
    }

    #[test]
    fn two_commands_may_exchange_their_keys() {
        let map = read("[run]\ncheckpoint = \"E\"\nevaluate = \"C\"", "keys.toml").unwrap();
        assert_eq!(map.action(Key::Char('C'), &[Context::Run]), Some(Action::Evaluate));
    }

    #[test]
    fn wrong_keys_say_what_is_wrong_and_on_which_line() {
        for (text, place, word) in [
            ("[rum]", "k.toml:1", "rum"),
            ("run = 3", "k.toml:1", "must be a table"),
            ("[run]\nstpo = \"x\"", "k.toml:2", "stpo"),
            ("[run]\nstop = \"hyper-x\"", "k.toml:2", "hyper-x"),
            ("[run]\n\nstop = 3", "k.toml:3", "wants a key"),
            ("[run]\nstop = [\"x\", 3]", "k.toml:2", "wants a key"),
            ("[run]\nstop = \"z\"", "k.toml:2", "share a key"),
            ("[any]\n[run", "k.toml:2", "not TOML"),
        ] {
            let error = read(text, "k.toml").unwrap_err().to_string();
            assert!(error.starts_with(place) && error.contains(word), "{error}");
        }
    }
}
