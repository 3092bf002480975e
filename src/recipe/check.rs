//! From a written value to a checked one: type, range, and paths made absolute.
//!
//! Must not know where the value was written: it answers with what is wrong, the caller says where.

use super::modules;
use super::schema::{Entry, Type, short};
use serde_json::{Map, Value as Json};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use toml_edit::Value;

/// What is wrong with a value: the sentence, what to do, and where within the text.
#[derive(Debug, Clone, PartialEq)]
pub struct Wrong {
    pub what: String,
    pub next: String,
    pub span: Option<Range<usize>>,
}

/// Check a value against its entry; relative paths are taken from `base`. The answer is the value as [`super::Recipe`]
/// holds it.
pub fn value(entry: &Entry, value: &Value, base: &Path) -> Result<Json, Wrong> {
    typed(entry.ty, value, base).map_err(|found| {
        let next = hint(entry, value).unwrap_or_else(|| format!("{}: {}", entry.key, entry.help));
        let allowed = match entry.unit {
            "" => entry.ty.allowed(),
            unit => format!("{} ({unit})", entry.ty.allowed()),
        };
        let span = found.span.or_else(|| value.span());
        let why = if found.why.is_empty() { String::new() } else { format!(": {}", found.why) };
        Wrong { what: format!("{} = {} is not allowed{why}; allowed: {allowed}", entry.key, shown(value)), next, span }
    })
}

/// Read the text of a value as `--set` and the editor take it: TOML, or for what is text in the end the bare words.
pub fn read(entry: &Entry, text: &str) -> Result<Value, Wrong> {
    let text = text.trim();
    let is_text = matches!(
        entry.ty,
        Type::Text
            | Type::Name
            | Type::Choice(_)
            | Type::Path
            | Type::Sources
            | Type::Model
            | Type::Template
            | Type::Texts
            | Type::Choices(_)
            | Type::Rewards
            | Type::Modules(_)
            | Type::Parts(_)
    );
    let looks_toml = (text.starts_with(['"', '\'', '[']) || (text.starts_with('{') && entry.ty == Type::Sources))
        && !(text.starts_with('[') && matches!(entry.ty, Type::Text | Type::Name | Type::Template));
    if is_text && !looks_toml {
        return Ok(Value::from(text));
    }
    text.parse::<Value>().map_err(|e| Wrong {
        what: format!("{} = {text}: allowed: {}; as TOML: {}", entry.key, entry.ty.allowed(), e.message()),
        next: format!("{}: {}", entry.key, entry.help),
        span: None,
    })
}

struct Found {
    why: String,
    span: Option<Range<usize>>,
}

fn no(why: impl Into<String>) -> Found {
    Found { why: why.into(), span: None }
}

fn text(v: &Value) -> Result<&str, Found> {
    v.as_str().ok_or_else(|| no(format!("it is {}", kind(v))))
}

fn typed(ty: Type, v: &Value, base: &Path) -> Result<Json, Found> {
    match ty {
        Type::Text => text(v).map(Json::from),
        Type::Name => match text(v)? {
            s if s.is_empty() || s.starts_with('.') || s.contains(['/', '\\']) || s.contains(char::is_control) => {
                Err(no(""))
            }
            s => Ok(s.into()),
        },
        Type::Choice(words) => match text(v)? {
            s if words.contains(&s) => Ok(s.into()),
            _ => Err(no("")),
        },
        Type::Path => path(text(v)?, base),
        Type::Sources => many(v, |v| source(v, base)),
        Type::Model => model(text(v)?, base),
        Type::Template => template(text(v)?, base),
        Type::Integer(min, max) => match v.as_integer() {
            Some(i) if (min..=max).contains(&i) => Ok(i.into()),
            Some(_) => Err(no("")),
            None => Err(no(format!("it is {}", kind(v)))),
        },
        Type::Float(bounds) => match v.as_float().or(v.as_integer().map(|i| i as f64)) {
            Some(f) if bounds.holds(f) => Ok(f.into()),
            Some(_) => Err(no("")),
            None => Err(no(format!("it is {}", kind(v)))),
        },
        Type::Bool => v.as_bool().map(Json::from).ok_or_else(|| no(format!("it is {}", kind(v)))),
        Type::Modules(_) => target_modules(v),
        Type::Choices(words) => many(v, |v| match text(v)? {
            s if words.contains(&s) => Ok(s.into()),
            _ => Err(no("")),
        }),
        Type::Parts(names) => filled(many(v, |v| match text(v)? {
            s if names.contains(&s) => Ok(s.into()),
            _ => Err(no("")),
        })?),
        Type::Layers => filled(many(v, |v| match v.as_integer() {
            Some(i) if (0..10_000).contains(&i) => Ok(i.into()),
            _ => Err(no("")),
        })?),
        Type::Texts => many(v, |v| text(v).map(Json::from)),
        Type::Prompts => each(v, |v| match v.as_str() {
            Some(s) => Ok(s.into()),
            None => fields(v, &["prompt", "expect"]),
        }),
        Type::Messages => each(v, |v| fields(v, &["role", "content"])),
        Type::Rewards => {
            let list = many(v, |v| {
                let func = super::rewards::read(&json(v).ok_or_else(|| no("it has a date in it"))?).map_err(no)?;
                serde_json::to_value(func).map_err(|e| no(e.to_string()))
            })?;
            filled(list)
        }
        Type::Table => match json(v) {
            Some(Json::Object(map)) => Ok(Json::Object(map)),
            _ => Err(no(format!("it is {}", kind(v)))),
        },
    }
}

/// One value or a list of them, as a list.
fn many(v: &Value, one: impl Fn(&Value) -> Result<Json, Found>) -> Result<Json, Found> {
    if v.is_array() { each(v, one) } else { Ok(Json::Array(vec![one(v)?])) }
}

fn each(v: &Value, one: impl Fn(&Value) -> Result<Json, Found>) -> Result<Json, Found> {
    let list = v.as_array().ok_or_else(|| no(format!("it is {}", kind(v))))?;
    let checked = list.iter().enumerate().map(|(i, v)| {
        one(v).map_err(|f| {
            let why = if f.why.is_empty() { String::new() } else { format!(", {}", f.why) };
            Found { why: format!("entry {} is {}{why}", i + 1, shown(v)), span: f.span.or_else(|| v.span()) }
        })
    });
    checked.collect::<Result<Vec<_>, _>>().map(Json::Array)
}

/// A table of exactly these texts.
fn fields(v: &Value, names: &[&str]) -> Result<Json, Found> {
    let table = v.as_inline_table().ok_or_else(|| no(format!("it is {}", kind(v))))?;
    if let Some((name, _)) = table.iter().find(|(name, _)| !names.contains(name)) {
        return Err(no(format!("{name} is not among {}", names.join(", "))));
    }
    let mut map = Map::new();
    for name in names {
        let value = table.get(name).ok_or_else(|| no(format!("{name} is missing")))?;
        map.insert((*name).to_string(), text(value)?.into());
    }
    Ok(Json::Object(map))
}

fn target_modules(v: &Value) -> Result<Json, Found> {
    if let Some(word) = v.as_str() {
        return match modules::whole(word) {
            _ if word == modules::ALL_LINEAR => Ok(word.into()),
            Ok(_) if modules::is_pattern(word) => Ok(word.into()),
            Err(e) if modules::is_pattern(word) => {
                let why = e.to_string();
                Err(no(format!("as a regular expression: {}", why.lines().last().unwrap_or_default().trim())))
            }
            _ => Err(no("")),
        };
    }
    filled(each(v, |v| match text(v)? {
        s if modules::is_ending(s) => Ok(s.into()),
        _ => Err(no("")),
    })?)
}

fn filled(list: Json) -> Result<Json, Found> {
    if list.as_array().is_some_and(Vec::is_empty) { Err(no("the list is empty")) } else { Ok(list) }
}

/// Whether `text` names a path by its looks alone.
fn looks_like_path(text: &str) -> bool {
    text.starts_with(['/', '.', '~'])
}

/// `~` is the home folder, relative paths start at `base`; `.` components are dropped, `..` is kept (links).
fn absolute(text: &str, base: &Path) -> PathBuf {
    let path = match text.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => match std::env::var_os("HOME") {
            Some(home) => Path::new(&home).join(rest.trim_start_matches('/')),
            None => PathBuf::from(text),
        },
        _ => base.join(text),
    };
    path.components().filter(|c| !matches!(c, Component::CurDir)).collect()
}

fn path(text: &str, base: &Path) -> Result<Json, Found> {
    if text.is_empty() {
        return Err(no("it is empty"));
    }
    let path = absolute(text, base);
    path.to_str().map(Json::from).ok_or_else(|| no("the folder's path is not UTF-8"))
}

/// A path, or a table with one.
fn source(v: &Value, base: &Path) -> Result<Json, Found> {
    let Some(table) = v.as_inline_table() else { return data_path(text(v)?, base) };
    let known = ["path", "split", "weight", "format"];
    if let Some((name, _)) = table.iter().find(|(name, _)| !known.contains(name)) {
        return Err(no(format!("{name} is not among {}", known.join(", "))));
    }
    let path = table.get("path").ok_or_else(|| no("path is missing"))?;
    let mut map = Map::new();
    map.insert("path".into(), data_path(text(path)?, base)?);
    if let Some(v) = table.get("split") {
        let split = Some(text(v)?).filter(|s| !s.trim().is_empty()).ok_or_else(|| no("split is empty"))?;
        map.insert("split".into(), split.into());
    }
    if let Some(v) = table.get("weight") {
        let weight = v.as_float().or(v.as_integer().map(|i| i as f64)).filter(|w| w.is_finite() && *w > 0.0);
        map.insert("weight".into(), weight.ok_or_else(|| no("weight is a number above 0"))?.into());
    }
    if let Some(v) = table.get("format") {
        let format = text(v)?;
        match super::schema::entry("data.format").map(|e| e.ty) {
            Some(Type::Choice(words)) if !words.contains(&format) => {
                return Err(no(format!("format is one of {}", words.join(", "))));
            }
            _ => map.insert("format".into(), format.into()),
        };
    }
    Ok(Json::Object(map))
}

/// `demo` and `demo:PART` are built in, `hf:OWNER/NAME` is a data set of the hub, and so is `OWNER/NAME` where nothing
/// here has that name; an existing path wins.
fn data_path(text: &str, base: &Path) -> Result<Json, Found> {
    let there = absolute(text, base).exists();
    let built_in = text == "demo" || text.starts_with("demo:");
    if (built_in || text.starts_with("hf:")) && !there {
        return Ok(text.into());
    }
    let bare = text.split('@').next().unwrap_or(text);
    let owner = bare.split('/').next().unwrap_or(bare);
    // A path whose folder is here is a path with a slip in it.
    let of_hub = crate::hub::is_id(bare)
        && !absolute(owner, base).exists()
        && Path::new(bare).extension().is_none_or(|e| !DATA.contains(&e.to_str().unwrap_or_default()));
    if !there && of_hub { Ok(format!("hf:{text}").into()) } else { path(text, base) }
}

/// Endings of files, which no data set's name has.
const DATA: [&str; 12] = ["json", "jsonl", "ndjson", "csv", "tsv", "parquet", "txt", "md", "gz", "zst", "zip", "arrow"];

fn model(text: &str, base: &Path) -> Result<Json, Found> {
    if text.is_empty() {
        return Err(no("it is empty"));
    }
    let is_path = looks_like_path(text) || text.ends_with(".gguf") || absolute(text, base).exists();
    let named = text.contains(':') && !absolute(text, base).exists();
    if is_path && !named { path(text, base) } else { Ok(text.into()) }
}

fn template(text: &str, base: &Path) -> Result<Json, Found> {
    if text.contains("{{") || text.contains("{%") || text.contains('\n') {
        return Ok(text.into());
    }
    let is_path = looks_like_path(text) || text.ends_with(".jinja") || absolute(text, base).is_file();
    if is_path { path(text, base) } else { Ok(text.into()) }
}

/// Any TOML value as JSON; dates have no counterpart.
fn json(v: &Value) -> Option<Json> {
    Some(match v {
        Value::String(s) => s.value().as_str().into(),
        Value::Integer(i) => (*i.value()).into(),
        Value::Float(f) => Json::Number(serde_json::Number::from_f64(*f.value())?),
        Value::Boolean(b) => (*b.value()).into(),
        Value::Datetime(_) => return None,
        Value::Array(a) => Json::Array(a.iter().map(json).collect::<Option<_>>()?),
        Value::InlineTable(t) => {
            Json::Object(t.iter().map(|(k, v)| Some((k.to_string(), json(v)?))).collect::<Option<_>>()?)
        }
    })
}

fn kind(v: &Value) -> &'static str {
    match v {
        Value::String(_) => "text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number with a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::InlineTable(_) => "a table",
    }
}

/// The value as written, cut where it is long.
pub(super) fn shown(v: &Value) -> String {
    let text = v.to_string();
    let text = text.trim();
    if text.chars().count() <= 60 {
        return text.to_string();
    }
    format!("{}…", text.chars().take(59).collect::<String>())
}

/// A better next step than the entry's sentence, where the slip is a known one.
fn hint(entry: &Entry, v: &Value) -> Option<String> {
    let number = v.as_float().or(v.as_integer().map(|i| i as f64));
    match (entry.ty, v) {
        (Type::Choice(_), Value::Boolean(b)) if entry.key == "train.gradient_checkpointing" => {
            Some(format!("here it is \"{}\"", if *b.value() { "full" } else { "off" }))
        }
        (Type::Choice(words), Value::String(s)) => super::unknown::value(entry.key, s.value()).or_else(|| {
            super::unknown::nearest(s.value(), words.iter().copied()).map(|near| format!("the nearest is \"{near}\""))
        }),
        (Type::Modules(names), Value::String(s)) if names.contains(&s.value().as_str()) => {
            Some(format!("here it is a list: [\"{}\"]", s.value()))
        }
        (Type::Integer(min, max), Value::Float(f))
            if f.value().fract() == 0.0 && (min as f64..=max as f64).contains(f.value()) =>
        {
            Some(format!("write it without a fraction: {}", *f.value() as i64))
        }
        (Type::Float(_), Value::String(s)) if s.value().trim().parse::<f64>().is_ok() => {
            Some(format!("write it without quotes: {}", s.value().trim()))
        }
        (Type::Integer(..), Value::String(s)) if s.value().trim().parse::<i64>().is_ok() => {
            Some(format!("write it without quotes: {}", s.value().trim()))
        }
        (Type::Bool, Value::String(s)) if matches!(s.value().as_str(), "true" | "false") => {
            Some(format!("write it without quotes: {}", s.value()))
        }
        (Type::Float(b), _)
            if entry.unit == "share" && number.is_some_and(|n| (1.0..=100.0).contains(&n) && b.holds(n / 100.0)) =>
        {
            Some(format!("it is a share from 0 to 1: {} percent is {}", short(number?), short(number? / 100.0)))
        }
        _ => None,
    }
}
