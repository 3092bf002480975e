//! Changing a recipe: its text with comments kept, its values while a run goes on, and what differs between two.
//!
//! Undo is the caller's: it keeps the texts.

use super::problem::{self, Place, Problem};
use super::schema::{self, Entry};
use super::{Recipe, check, load, unknown, write};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml_edit::{DocumentMut, Item, Table, Value};

fn known(key: &str) -> Result<&'static Entry> {
    schema::entry(key).ok_or_else(|| Error::usage(format!("there is no key {key}")).next(unknown::key(key)))
}

fn refused(key: &str, text: &str, wrong: check::Wrong) -> Error {
    let place = Place::Set(format!("{key} = {}", text.trim()));
    problem::error(&[Problem { place, key: key.into(), what: wrong.what, next: wrong.next }])
}

fn document(text: &str) -> Result<DocumentMut> {
    text.parse::<DocumentMut>().map_err(|e| {
        Error::usage(format!("the recipe is not TOML: {}", e.message())).next("mend it in an editor first")
    })
}

/// Put `value` (TOML text; bare words where the key takes text) for `key` into a recipe's text. Comments, order and
/// spacing stay; a missing table is added at the end.
///
/// # Errors
/// `Kind::Usage`: an unknown key, a value that is not allowed, or a text that is not TOML.
pub fn set(text: &str, key: &str, value: &str) -> Result<String> {
    let entry = known(key)?;
    let read = check::read(entry, value).map_err(|w| refused(key, value, w))?;
    check::value(entry, &read, Path::new("")).map_err(|w| refused(key, value, w))?;
    let mut doc = document(text)?;
    let leaf = entry.leaf();
    let table = match entry.section() {
        "" => doc.as_table_mut() as &mut dyn toml_edit::TableLike,
        section => {
            let item = doc.entry(section).or_insert_with(|| {
                let mut table = Table::new();
                table.decor_mut().set_prefix("\n");
                Item::Table(table)
            });
            let kind = item.type_name();
            item.as_table_like_mut().ok_or_else(|| Error::usage(format!("{section} is {kind}, not a table")))?
        }
    };
    match table.get_mut(leaf).and_then(Item::as_value_mut) {
        Some(old) => {
            let decor = old.decor().clone();
            *old = clean(read);
            *old.decor_mut() = decor;
        }
        None => {
            table.insert(leaf, Item::Value(clean(read)));
        }
    }
    Ok(doc.to_string())
}

/// A value without the spacing it was read with.
fn clean(mut value: Value) -> Value {
    value.decor_mut().clear();
    value
}

/// Take `key` out of a recipe's text, so that its default holds; `lora` takes out the whole table.
///
/// # Errors
/// `Kind::Usage`: an unknown key, one that is required, or a text that is not TOML.
pub fn unset(text: &str, key: &str) -> Result<String> {
    let mut doc = document(text)?;
    if key == "lora" {
        doc.remove(key);
        return Ok(doc.to_string());
    }
    let entry = known(key)?;
    if matches!(entry.default, schema::Default::Required) {
        return Err(Error::usage(format!("{key} has no default")).next("give it another value instead"));
    }
    match entry.section() {
        "" => {
            doc.remove(entry.leaf());
        }
        section => {
            if let Some(table) = doc.get_mut(section).and_then(Item::as_table_like_mut) {
                table.remove(entry.leaf());
            }
        }
    }
    Ok(doc.to_string())
}

/// The recipe with `key` at `value` (TOML text, or bare words for text): what a live change and a finding's fix need.
/// Paths are relative to the current folder.
///
/// # Errors
/// `Kind::Usage`: an unknown key, or a value that is not allowed.
pub fn with(recipe: &Recipe, key: &str, value: &str) -> Result<Recipe> {
    let entry = known(key)?;
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    let new =
        check::read(entry, value).and_then(|v| check::value(entry, &v, &here)).map_err(|w| refused(key, value, w))?;
    if entry.section() == "lora" && recipe.lora.is_none() {
        return Err(Error::usage(format!("{key} cannot be set: this recipe has no [lora] table")).next("add [lora]"));
    }
    if schema::method_of(entry.section()).is_some_and(|m| m != recipe.method) {
        return Err(Error::usage(format!("{key} cannot be set: method is {}", recipe.method.name()))
            .next(format!("another run with method = \"{}\" has it", entry.section())));
    }
    let json = write::json(recipe);
    let mut values: BTreeMap<_, _> =
        schema::entries().filter_map(|e| write::lookup(&json, e.key).map(|v| (e.key, v.clone()))).collect();
    values.insert(entry.key, new);
    load::build(values)
}

/// The value of `key` as TOML text; nothing where it is not set.
pub fn get(recipe: &Recipe, key: &str) -> Option<String> {
    write::lookup(&write::json(recipe), key).map(write::toml)
}

/// The value of every key that is set, as TOML text: for who wants many of them, again and again.
pub fn all(recipe: &Recipe) -> BTreeMap<&'static str, String> {
    let json = write::json(recipe);
    schema::entries().filter_map(|e| Some((e.key, write::toml(write::lookup(&json, e.key)?)))).collect()
}

/// The keys in which two recipes differ, in the schema's order, with both values as TOML text, `–` where not set.
pub fn diff(a: &Recipe, b: &Recipe) -> Vec<(&'static str, String, String)> {
    let (a, b) = (write::json(a), write::json(b));
    let text = |json, key| write::lookup(json, key).map_or("–".to_string(), write::toml);
    schema::entries().map(|e| (e.key, text(&a, e.key), text(&b, e.key))).filter(|(_, a, b)| a != b).collect()
}
