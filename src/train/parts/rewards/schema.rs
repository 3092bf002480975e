//! JSON Schema, the part of it that describes plain objects, lists, texts and numbers. A keyword outside it is refused
//! when the run is prepared, so that nothing is scored by half a schema.

use crate::{Error, Result};
use regex::Regex;
use serde_json::Value;
use std::collections::HashMap;

/// Keywords that are looked at, and those that only describe.
const KNOWN: &[&str] = &[
    "type",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "enum",
    "const",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "anyOf",
    "allOf",
];
const WORDS: &[&str] = &["$schema", "$id", "title", "description", "default", "examples", "$comment"];
const TYPES: &[&str] = &["object", "array", "string", "number", "integer", "boolean", "null"];

#[derive(Debug)]
pub struct Schema {
    root: Value,
    patterns: HashMap<String, Regex>,
}

impl Schema {
    /// # Errors
    /// A keyword that is not among those known here, or a pattern that cannot be used.
    pub fn new(root: &Value) -> Result<Self> {
        let mut patterns = HashMap::new();
        examine(root, "schema", &mut patterns)?;
        Ok(Self { root: root.clone(), patterns })
    }

    /// Whether `text` is JSON (perhaps in a code fence) that the schema describes.
    pub fn fits(&self, text: &str) -> bool {
        serde_json::from_str::<Value>(bare(text)).is_ok_and(|v| self.holds(&self.root, &v))
    }

    fn holds(&self, schema: &Value, v: &Value) -> bool {
        let Some(map) = schema.as_object() else { return schema != &Value::Bool(false) };
        let number = |name: &str| map.get(name).and_then(Value::as_f64);
        let count = |n: usize, least: &str, most: &str| {
            number(least).is_none_or(|m| n as f64 >= m) && number(most).is_none_or(|m| n as f64 <= m)
        };
        let list = |name: &str| map.get(name).and_then(Value::as_array);
        let typed = match map.get("type") {
            Some(Value::String(t)) => is(v, t),
            Some(Value::Array(types)) => types.iter().filter_map(Value::as_str).any(|t| is(v, t)),
            _ => true,
        };
        let own = match v {
            Value::Object(object) => {
                let properties = map.get("properties").and_then(Value::as_object);
                let required = list("required")
                    .is_none_or(|names| names.iter().filter_map(Value::as_str).all(|n| object.contains_key(n)));
                required
                    && object.iter().all(|(name, value)| match properties.and_then(|p| p.get(name)) {
                        Some(schema) => self.holds(schema, value),
                        None => map.get("additionalProperties").is_none_or(|rest| self.holds(rest, value)),
                    })
            }
            Value::Array(items) => {
                count(items.len(), "minItems", "maxItems")
                    && map.get("items").is_none_or(|schema| items.iter().all(|i| self.holds(schema, i)))
            }
            Value::String(s) => {
                let pattern = map.get("pattern").and_then(Value::as_str).and_then(|p| self.patterns.get(p));
                count(s.chars().count(), "minLength", "maxLength") && pattern.is_none_or(|p| p.is_match(s))
            }
            Value::Number(n) => n.as_f64().is_none_or(|n| {
                number("minimum").is_none_or(|m| n >= m)
                    && number("maximum").is_none_or(|m| n <= m)
                    && number("exclusiveMinimum").is_none_or(|m| n > m)
                    && number("exclusiveMaximum").is_none_or(|m| n < m)
            }),
            Value::Bool(_) | Value::Null => true,
        };
        typed
            && own
            && list("enum").is_none_or(|all| all.contains(v))
            && map.get("const").is_none_or(|c| c == v)
            && list("anyOf").is_none_or(|all| all.iter().any(|s| self.holds(s, v)))
            && list("allOf").is_none_or(|all| all.iter().all(|s| self.holds(s, v)))
    }
}

fn is(v: &Value, name: &str) -> bool {
    match name {
        "object" => v.is_object(),
        "array" => v.is_array(),
        "string" => v.is_string(),
        "number" => v.is_number(),
        "integer" => v.as_f64().is_some_and(|n| n.fract() == 0.0),
        "boolean" => v.is_boolean(),
        _ => v.is_null(),
    }
}

fn examine(schema: &Value, at: &str, patterns: &mut HashMap<String, Regex>) -> Result<()> {
    let refuse = |what: String| Err(Error::usage(what).at(format!("grpo.reward_funcs, json_schema, {at}")));
    let map = match schema {
        Value::Object(map) => map,
        Value::Bool(_) => return Ok(()),
        other => return refuse(format!("a schema is a table, and here is {other}")),
    };
    for (key, value) in map {
        let below = format!("{at}.{key}");
        match key.as_str() {
            "properties" => {
                let Some(properties) = value.as_object() else { return refuse("properties is a table".into()) };
                for (name, schema) in properties {
                    examine(schema, &format!("{below}.{name}"), patterns)?;
                }
            }
            "items" | "additionalProperties" => examine(value, &below, patterns)?,
            "anyOf" | "allOf" => {
                let Some(all) = value.as_array() else { return refuse(format!("{key} is a list")) };
                all.iter().try_for_each(|schema| examine(schema, &below, patterns))?;
            }
            "type" => {
                let names: Vec<&Value> = value.as_array().map_or(vec![value], |list| list.iter().collect());
                if let Some(odd) = names.iter().find(|n| !n.as_str().is_some_and(|n| TYPES.contains(&n))) {
                    return refuse(format!("{odd} is not a type; there are {}", TYPES.join(", ")));
                }
            }
            "pattern" => {
                let Some(text) = value.as_str() else { return refuse("pattern is a text".into()) };
                match Regex::new(text) {
                    Ok(regex) => patterns.insert(text.to_string(), regex),
                    Err(e) => return refuse(format!("the pattern cannot be used: {e}")),
                };
            }
            key if KNOWN.contains(&key) || WORDS.contains(&key) => {}
            key => return refuse(format!("the keyword {key} is not among {}", KNOWN.join(", "))),
        }
    }
    Ok(())
}

/// The text without a thought before it and a code fence around it.
fn bare(text: &str) -> &str {
    let text = text.rsplit("</think>").next().unwrap_or(text).trim();
    match text.strip_prefix("```").and_then(|t| t.strip_suffix("```")) {
        Some(inside) => inside.strip_prefix("json").unwrap_or(inside).trim(),
        None => text,
    }
}
