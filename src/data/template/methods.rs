//! Methods of Python's strings, lists and dictionaries that templates call.
//!
//! Most are minijinja-contrib's; here are those it lacks, and those where it differs from Python.

use super::python::{pairs, text};
use minijinja::value::{Rest, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};

pub(super) fn call(state: &State<'_, '_>, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let own = match value.kind() {
        ValueKind::String => string(value.as_str().unwrap_or_default(), method, args)?,
        ValueKind::Map => dict(value, method, args)?,
        ValueKind::Seq => list(value, method, args)?,
        _ => None,
    };
    match own {
        Some(result) => Ok(result),
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
    }
}

fn dict(value: &Value, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let list = |items: Vec<Value>| Some(Value::from(items));
    Ok(match method {
        "items" => list(pairs(value).map(|(k, v)| Value::from(vec![k, v])).collect()),
        "keys" => list(pairs(value).map(|(k, _)| k).collect()),
        "values" => list(pairs(value).map(|(_, v)| v).collect()),
        "copy" => Some(value.clone()),
        "get" => {
            let (key, default): (Value, Option<Value>) = from_args(args)?;
            let found = pairs(value).find(|(k, _)| *k == key).map(|(_, v)| v);
            Some(found.or(default).unwrap_or_else(|| Value::from(())))
        }
        _ => None,
    })
}

fn list(value: &Value, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    match method {
        "index" => {
            let (wanted,): (Value,) = from_args(args)?;
            match value.try_iter()?.position(|v| v == wanted) {
                Some(at) => Ok(Some(Value::from(at))),
                None => Err(Error::new(ErrorKind::InvalidOperation, format!("{} is not in list", text(&wanted)))),
            }
        }
        "copy" => Ok(Some(value.clone())),
        // transformers renders in an immutable sandbox.
        "append" | "extend" | "insert" | "pop" | "remove" | "clear" | "reverse" | "sort" => {
            Err(Error::new(ErrorKind::InvalidOperation, format!("a template may not change a list ({method})")))
        }
        _ => Ok(None),
    }
}

fn string(s: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let all = |test: fn(char) -> bool| Ok(Some(Value::from(!s.is_empty() && s.chars().all(test))));
    match method {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(Some(Value::from(s.strip_prefix(prefix).unwrap_or(s))))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(Some(Value::from(s.strip_suffix(suffix).unwrap_or(s))))
        }
        "partition" | "rpartition" => {
            let (sep,): (&str,) = from_args(args)?;
            let found = if method == "partition" { s.split_once(sep) } else { s.rsplit_once(sep) };
            let parts = match (found, method) {
                (Some((a, b)), _) => [a, sep, b],
                (None, "partition") => [s, "", ""],
                (None, _) => ["", "", s],
            };
            Ok(Some(Value::from(parts.map(Value::from).to_vec())))
        }
        "rsplit" => {
            let (sep, most): (Option<&str>, Option<i64>) = from_args(args)?;
            let most = most.and_then(|n| usize::try_from(n).ok());
            let mut parts: Vec<&str> = match (sep, most) {
                (Some(sep), Some(n)) => s.rsplitn(n + 1, sep).collect(),
                (Some(sep), None) => s.rsplit(sep).collect(),
                (None, None) => s.split_whitespace().rev().collect(),
                (None, Some(_)) => return Ok(None),
            };
            parts.reverse();
            Ok(Some(parts.into_iter().map(Value::from).collect()))
        }
        "join" => {
            let (items,): (Value,) = from_args(args)?;
            let items: Vec<String> = items.try_iter()?.map(|v| text(&v)).collect();
            Ok(Some(Value::from(items.join(s))))
        }
        // Python's are false for an empty string; minijinja-contrib's are true.
        "isspace" => all(char::is_whitespace),
        "isdigit" | "isnumeric" | "isdecimal" => all(char::is_numeric),
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(char::is_alphanumeric),
        "islower" => Ok(Some(Value::from(s.chars().any(char::is_lowercase) && !s.chars().any(char::is_uppercase)))),
        "isupper" => Ok(Some(Value::from(s.chars().any(char::is_uppercase) && !s.chars().any(char::is_lowercase)))),
        // An empty needle lies between all characters; minijinja-contrib would look for it forever.
        "count" => {
            let (needle,): (&str,) = from_args(args)?;
            let n = if needle.is_empty() { s.chars().count() + 1 } else { s.matches(needle).count() };
            Ok(Some(Value::from(n)))
        }
        // Positions are in characters, not bytes.
        "find" | "rfind" | "index" => {
            let (needle, from): (&str, Rest<Value>) = from_args(args)?;
            if !from.is_empty() {
                return Ok(None);
            }
            let at = if method == "rfind" { s.rfind(needle) } else { s.find(needle) };
            match at {
                Some(at) => Ok(Some(Value::from(s[..at].chars().count()))),
                None if method == "index" => Err(Error::new(ErrorKind::InvalidOperation, "substring not found")),
                None => Ok(Some(Value::from(-1))),
            }
        }
        "zfill" | "ljust" | "rjust" => {
            let (width, fill): (usize, Option<&str>) = from_args(args)?;
            let fill = if method == "zfill" { "0" } else { fill.unwrap_or(" ") };
            // No template needs more; a width out of thin air must not fill the memory.
            let padding = fill.repeat(width.min(10_000).saturating_sub(s.chars().count()));
            Ok(Some(Value::from(if method == "ljust" { format!("{s}{padding}") } else { format!("{padding}{s}") })))
        }
        _ => Ok(None),
    }
}
