//! Reading a recipe: from text and `--set` to a [`Recipe`] with nothing left to a default, or every problem there is.
//!
//! Paths in the file are relative to the file's folder, those of `--set` to the current one, as a shell completes them.

use super::problem::{self, Locator, Place, Problem};
use super::schema::{self, Basis, Default, Entry};
use super::{Method, Recipe, check, cross, demo, unknown};
use crate::{Error, Result};
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml_edit::{Document, Item, TableLike};

/// A recipe and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    pub recipe: Recipe,
    /// The file as given, or `demo`.
    pub source: PathBuf,
    /// The file's text as it was read; `--set` is not in it.
    pub text: String,
    /// Where each value was written that was; the others are defaults.
    pub places: BTreeMap<&'static str, Place>,
    /// What is worth saying though nothing is wrong.
    pub notes: Vec<String>,
}

/// Values as read, by key; the keys that were written and where.
pub(super) struct Given {
    pub values: BTreeMap<&'static str, Json>,
    pub places: BTreeMap<&'static str, Place>,
    /// The `[lora]` table's place, if there is one.
    pub lora: Option<Place>,
    pub notes: Vec<String>,
    pub problems: Vec<Problem>,
}

/// Load the recipe at `path`, or the built-in one for the word `demo`, with `sets` (key, value) on top.
///
/// # Errors
/// `Kind::Usage`: the file cannot be read, or has problems: all of them, each with its place.
pub fn load(path: &str, sets: &[(String, String)]) -> Result<Loaded> {
    if path == "demo" {
        return parse(demo::TEXT, "demo", sets);
    }
    let text = std::fs::read_to_string(path).map_err(|e| {
        let next = "give the path of a recipe, or the word demo for the built-in one";
        Error::usage(format!("the recipe cannot be read: {e}")).at(path).next(next)
    })?;
    parse(&text, path, sets)
}

/// As [`load`], for a text that is at hand; `file` is its path (it need not exist), and its folder the base of paths.
///
/// # Errors
/// `Kind::Usage`, with every problem of the text.
pub fn parse(text: &str, file: &str, sets: &[(String, String)]) -> Result<Loaded> {
    examine(text, file, sets).map_err(|problems| problem::error(&problems))
}

/// As [`parse`], with the problems apart, for a screen that shows them beside their lines.
pub fn examine(text: &str, file: &str, sets: &[(String, String)]) -> std::result::Result<Loaded, Vec<Problem>> {
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    let folder = Path::new(file).parent().unwrap_or(Path::new(""));
    let base = here.join(folder);
    let locator = Locator { file, text };
    let mut given =
        Given { values: BTreeMap::new(), places: BTreeMap::new(), lora: None, notes: Vec::new(), problems: Vec::new() };

    let (clean, broken) = syntax(locator, &mut given.problems);
    if let Some(doc) = &clean {
        walk(doc.as_table(), "", &base, locator, &mut given);
    }
    for (key, value) in sets {
        set(key, value, &here, &mut given);
    }
    if given.values.keys().any(|k| k.starts_with("lora.")) && given.lora.is_none() {
        given.lora = given.places.iter().find(|(k, _)| k.starts_with("lora.")).map(|(_, p)| p.clone());
    }
    let stem = Path::new(file).file_stem().map_or("run".into(), |s| s.to_string_lossy().into_owned());
    let values = filled(&mut given, &stem, locator, broken);
    if !given.problems.is_empty() {
        return Err(given.problems);
    }
    let recipe = build(values).map_err(|e| {
        let place = locator.place(None);
        vec![Problem { place, key: String::new(), what: e.what, next: "please report this".into() }]
    })?;
    cross::check(&recipe, &mut given, locator);
    if given.problems.is_empty() {
        let (places, notes) = (given.places, given.notes);
        Ok(Loaded { recipe, source: file.into(), text: text.to_string(), places, notes })
    } else {
        Err(given.problems)
    }
}

/// Parse, and go on past broken lines that stand alone, so that the rest of the file is looked at too.
/// The second answer says whether anything was broken.
fn syntax(locator: Locator<'_>, problems: &mut Vec<Problem>) -> (Option<Document<String>>, bool) {
    let mut text = locator.text.to_string();
    for _ in 0..20 {
        let error = match Document::parse(text.clone()) {
            Ok(doc) => return (Some(doc), !problems.is_empty()),
            Err(e) => e,
        };
        let at = error.span().map_or(text.len(), |s| s.start).min(text.len());
        let start = text.get(..at).and_then(|t| t.rfind('\n')).map_or(0, |i| i + 1);
        let end = text.get(at..).and_then(|t| t.find('\n')).map_or(text.len(), |i| at + i);
        let line = text.get(start..end).unwrap_or("").to_string();
        let what = format!("this is not TOML: {}", error.message().trim());
        let next = if line.contains('=') {
            format!("the line is: {}", line.trim())
        } else {
            "a line is key = value, or a [table]; text stands in quotes".into()
        };
        problems.push(Problem { place: locator.place(error.span()), key: String::new(), what, next });
        let alone = !line.trim().is_empty()
            && !line.contains(['[', ']', '{', '}'])
            && !line.contains("\"\"\"")
            && !line.contains("'''");
        if !alone {
            return (None, true);
        }
        // Spaces of the same length: the places of everything else stay what they are.
        text.replace_range(start..end, &" ".repeat(end - start));
    }
    (None, true)
}

/// Take every value of a table, with its place; `section` is empty for the whole file.
fn walk(table: &dyn TableLike, section: &str, base: &Path, locator: Locator<'_>, given: &mut Given) {
    for (name, item) in table.iter() {
        let span = table.key(name).and_then(|k| k.span());
        let key = if section.is_empty() { name.to_string() } else { format!("{section}.{name}") };
        if let Some(entry) = schema::entry(&key) {
            take(entry, item, locator.place(span), locator, base, given);
        } else if section.is_empty() && schema::SECTIONS.contains(&name) {
            if name == "lora" && item.is_table_like() {
                given.lora = Some(locator.place(span.clone()));
            }
            match item.as_table_like() {
                Some(inner) => walk(inner, name, base, locator, given),
                None => given.problems.push(Problem {
                    place: locator.place(span),
                    what: format!("{name} is a table of a recipe, and here it is {}", item.type_name()),
                    next: match name {
                        "model" => "write [model] and below it name_or_path = \"…\"".into(),
                        _ => format!("write [{name}] and its keys below it"),
                    },
                    key,
                }),
            }
        } else {
            unknown_item(&key, item, locator.place(span), locator, given);
        }
    }
}

fn unknown_item(key: &str, item: &Item, place: Place, locator: Locator<'_>, given: &mut Given) {
    let Some(inner) = item.as_table_like().filter(|_| !key.contains('.')) else {
        let value = item.to_string();
        if unknown::asks_for_nothing(key, &value) {
            given.notes.push(format!("{place}: {key} = {} asks for what happens anyway", value.trim()));
            return;
        }
        let next = unknown::key(key);
        given.problems.push(Problem { place, key: key.into(), what: format!("there is no key {key}"), next });
        return;
    };
    if let Some(next) = unknown::table(key) {
        given.problems.push(Problem { place, key: key.into(), what: format!("there is no table [{key}]"), next });
        return;
    }
    let what = format!("there is no table [{key}]");
    given.problems.push(Problem { place, key: key.into(), what, next: unknown::tables() });
    for (name, _) in inner.iter() {
        let next = unknown::key(name);
        if next.starts_with("here it is") {
            let place = locator.place(inner.key(name).and_then(|k| k.span()));
            let key = format!("{key}.{name}");
            given.problems.push(Problem { place, what: format!("there is no key {key}"), key, next });
        }
    }
}

fn take(entry: &'static Entry, item: &Item, place: Place, locator: Locator<'_>, base: &Path, given: &mut Given) {
    given.places.insert(entry.key, place.clone());
    let checked = match item.clone().into_value() {
        Ok(value) => check::value(entry, &value, base),
        Err(_) => return,
    };
    match checked {
        Ok(json) => {
            given.values.insert(entry.key, json);
        }
        Err(wrong) => {
            let place = wrong.span.map_or(place, |s| locator.place(Some(s)));
            given.problems.push(Problem { place, key: entry.key.into(), what: wrong.what, next: wrong.next });
        }
    }
}

/// One `--set key=value`.
fn set(key: &str, text: &str, base: &Path, given: &mut Given) {
    let place = Place::Set(format!("--set {key}={text}"));
    let key = key.trim();
    let Some(entry) = schema::entry(key) else {
        if unknown::asks_for_nothing(key, text) {
            given.notes.push(format!("{place} asks for what happens anyway"));
            return;
        }
        let (what, next) = if schema::SECTIONS.contains(&key) {
            (format!("{key} is a table"), format!("name one of its keys: {}", unknown::key(&format!("{key}.?")).trim()))
        } else {
            (format!("there is no key {key}"), unknown::key(key))
        };
        given.problems.push(Problem { place, key: key.into(), what, next });
        return;
    };
    match check::read(entry, text).and_then(|v| check::value(entry, &v, base)) {
        Ok(json) => {
            given.values.insert(entry.key, json);
            given.places.insert(entry.key, place);
        }
        Err(wrong) => given.problems.push(Problem { place, key: key.into(), what: wrong.what, next: wrong.next }),
    }
}

/// What was given, with the defaults; a missing required key is a problem unless part of the file was unreadable.
fn filled(given: &mut Given, stem: &str, locator: Locator<'_>, broken: bool) -> BTreeMap<&'static str, Json> {
    let method = given.values.get("method").and_then(|m| serde_json::from_value(m.clone()).ok());
    let basis = Basis { method: method.unwrap_or(Method::Sft), lora: given.lora.is_some() };
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    let base = here.join(Path::new(locator.file).parent().unwrap_or(Path::new("")));
    let mut values = given.values.clone();
    for entry in schema::entries() {
        if schema::method_of(entry.section()).is_some_and(|m| m != basis.method) {
            if let Some(place) = values.remove(entry.key).and_then(|_| given.places.get(entry.key)) {
                let (section, method) = (entry.section(), basis.method.name());
                given.problems.push(Problem {
                    place: place.clone(),
                    key: entry.key.into(),
                    what: format!("{} belongs to method = \"{section}\", and method is {method}", entry.key),
                    next: format!("remove it, or take method = \"{section}\""),
                });
            }
            continue;
        }
        if values.contains_key(entry.key) || (entry.section() == "lora" && !basis.lora) {
            continue;
        }
        match entry.default {
            Default::Absent => {}
            Default::FileStem => {
                values.insert(entry.key, stem.into());
            }
            Default::Required => {
                if !broken && !given.places.contains_key(entry.key) {
                    given.problems.push(Problem {
                        place: locator.place(None),
                        key: entry.key.into(),
                        what: format!("{} is missing; allowed: {}", entry.key, entry.ty.allowed()),
                        next: format!("add under [{}]: {} = \"…\". {}", entry.section(), entry.leaf(), entry.help),
                    });
                }
            }
            Default::Is(_) | Default::By(_) => {
                let text = entry.default.toml(basis).unwrap_or("");
                if let Ok(json) = check::read(entry, text).and_then(|v| check::value(entry, &v, &base)) {
                    values.insert(entry.key, json);
                }
            }
        }
    }
    values
}

/// Put values by dotted key into a [`Recipe`].
pub(super) fn build(values: BTreeMap<&'static str, Json>) -> Result<Recipe> {
    let mut root = Map::new();
    for section in schema::SECTIONS.iter().filter(|s| **s != "lora" && schema::method_of(s).is_none()) {
        root.insert((*section).to_string(), Json::Object(Map::new()));
    }
    for (key, value) in values {
        match key.split_once('.') {
            None => {
                root.insert(key.to_string(), value);
            }
            Some((section, leaf)) => {
                let table = root.entry(section).or_insert_with(|| Json::Object(Map::new()));
                if let Json::Object(map) = table {
                    map.insert(leaf.to_string(), value);
                }
            }
        }
    }
    serde_json::from_value(Json::Object(root))
        .map_err(|e| Error::usage(format!("the recipe does not fit its schema: {e}")))
}
