//! The resolved recipe as TOML: every key, its sentence beside it, nothing left to a default.

use super::Recipe;
use super::schema::{self, Entry, SECTIONS};
use serde_json::Value as Json;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Write a recipe so that [`super::parse`] gives it back equal, floats to the bit.
///
/// A path that is not UTF-8 cannot stand in TOML; its odd bytes are replaced. [`super::parse`] never makes one.
pub fn to_toml(recipe: &Recipe) -> String {
    let json = json(recipe);
    let mut out = String::from("# Written by finetop: every value of the run, defaults included.\n\n");
    for entry in schema::entries().filter(|e| e.section().is_empty()) {
        line(&mut out, entry, &json);
    }
    for section in SECTIONS {
        if *section == "lora" && recipe.lora.is_none() {
            out.push_str("\n# No [lora] table: full fine-tuning.\n");
            continue;
        }
        if schema::method_of(section).is_some_and(|m| m != recipe.method) {
            continue;
        }
        let _ = write!(out, "\n[{section}]\n");
        for entry in schema::entries().filter(|e| e.section() == *section) {
            line(&mut out, entry, &json);
        }
    }
    out
}

fn line(out: &mut String, entry: &Entry, json: &Json) {
    let unit = if entry.unit.is_empty() { String::new() } else { format!(" [{}]", entry.unit) };
    let _ = match lookup(json, entry.key) {
        Some(value) => writeln!(out, "# {}{unit}\n{} = {}", entry.help, entry.leaf(), toml(value)),
        None => writeln!(out, "# {}{unit}\n# {} is not set", entry.help, entry.leaf()),
    };
}

/// The recipe as JSON, which knows every key by its name.
pub(super) fn json(recipe: &Recipe) -> Json {
    let mut r = recipe.clone();
    let lossy = |p: &Path| PathBuf::from(p.to_string_lossy().into_owned());
    r.output_dir = lossy(&r.output_dir);
    for source in r.data.train.iter_mut().chain(r.data.eval.iter_mut().flatten()) {
        source.path = lossy(&source.path);
    }
    if let Some(lora) = &mut r.lora {
        lora.adapter_name_or_path = lora.adapter_name_or_path.as_deref().map(lossy);
    }
    // Serializing can only fail for a path that is not UTF-8 or a non-finite float inside a map; neither is left.
    serde_json::to_value(&r).unwrap_or_default()
}

pub(super) fn lookup<'a>(json: &'a Json, key: &str) -> Option<&'a Json> {
    key.split('.').try_fold(json, |at, part| at.get(part)).filter(|v| !v.is_null())
}

/// A value as TOML text, on one line; floats in the shortest form that reads back the same.
pub(super) fn toml(value: &Json) -> String {
    match value {
        Json::Null => "\"\"".into(),
        Json::Bool(b) => b.to_string(),
        Json::Number(n) => match n.as_f64() {
            Some(f) if n.is_f64() => float(f),
            _ => n.to_string(),
        },
        Json::String(s) => quoted(s),
        Json::Array(list) => format!("[{}]", list.iter().map(toml).collect::<Vec<_>>().join(", ")),
        Json::Object(map) if map.is_empty() => "{}".into(),
        Json::Object(map) => {
            let fields: Vec<_> = map.iter().map(|(k, v)| format!("{} = {}", key(k), toml(v))).collect();
            format!("{{ {} }}", fields.join(", "))
        }
    }
}

fn float(f: f64) -> String {
    if f != 0.0 && f.abs() < 1e-2 { format!("{f:e}") } else { format!("{f:?}") }
}

fn key(name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare { name.into() } else { quoted(name) }
}

/// A basic string; TOML's escapes are these, and `\u` for the other control characters.
fn quoted(s: &str) -> String {
    let mut out = String::with_capacity(s.len() + 2);
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
