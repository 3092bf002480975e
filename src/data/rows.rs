//! A row's columns into what is to be learned from it: a chat, a prompt with its completion, or a text.
//!
//! Knows formats, not tokens. Every problem is said in words, with what was expected.

use super::format::{Format, turns_column};
use super::formatting::Formatting;
use super::json;
use super::preference::{self, Preference};
use super::prompt::{self, Prompt};
use super::read::Columns;
use serde_json::{Map, Value, json};

/// What one row says.
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    Text(String),
    /// Two answers to one prompt.
    Preference(Preference),
    /// A question that the model answers in training.
    Prompt(Prompt),
    /// Plain prompt and completion: one text, never through a chat template (as in TRL).
    Pair {
        prompt: String,
        completion: String,
    },
    Chat(Chat),
}

/// Messages as a chat template takes them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Chat {
    /// `{role, content, …}`; whatever else a message carries (`tool_calls`, `name`, …) is kept.
    pub messages: Vec<Value>,
    pub tools: Option<Value>,
    /// Messages up to here are a prompt, the rest is its completion; `None` for an ordinary conversation.
    pub prompt: Option<usize>,
}

/// What is wrong with a row, and what was expected.
pub type Problem = String;

/// Roles that a message may have.
pub const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

/// `{role: …}` of a message.
pub fn role(message: &Value) -> &str {
    message.get("role").and_then(Value::as_str).unwrap_or_default()
}

/// Read one row's columns.
pub fn parse(columns: &Columns, format: Format, formatting: Option<&Formatting>) -> Result<Row, Problem> {
    match format {
        Format::Text => Ok(Row::Text(full(columns, "text")?.to_string())),
        Format::PromptCompletion => prompt_completion(columns),
        Format::Alpaca => alpaca(columns),
        Format::Messages | Format::Sharegpt => conversation(columns),
        Format::Prompt => prompt::parse(columns, formatting).map(Row::Prompt),
        Format::Preference => preference::parse(columns).map(Row::Preference),
        Format::Template => match formatting {
            Some(f) => Ok(Row::Chat(Chat { messages: f.messages(columns)?, ..Chat::default() })),
            None => Err("data.messages is not set".to_string()),
        },
    }
}

/// A column with text in it.
pub(super) fn full<'a>(columns: &'a Columns, name: &str) -> Result<&'a str, Problem> {
    match columns.get(name) {
        None => Err(format!("the column {name} is missing; this row has {}", names(columns))),
        Some(Value::Null) => Err(format!("{name} is null; expected text")),
        Some(Value::String(s)) if s.trim().is_empty() => Err(format!("{name} is empty; expected text")),
        Some(Value::String(s)) => Ok(s),
        Some(other) => Err(format!("{name} is {}; expected text", json::name(other))),
    }
}

/// A column that may be missing, null or empty.
fn optional<'a>(columns: &'a Columns, name: &str) -> Result<Option<&'a str>, Problem> {
    match columns.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(s)) => Ok((!s.is_empty()).then_some(s.as_str())),
        Some(other) => Err(format!("{name} is {}; expected text", json::name(other))),
    }
}

fn names(columns: &Columns) -> String {
    if columns.is_empty() { "no columns".to_string() } else { columns.keys().cloned().collect::<Vec<_>>().join(", ") }
}

/// `tools`: a list, or the same as JSON text (how TRL's datasets store it).
pub(super) fn tools(columns: &Columns) -> Result<Option<Value>, Problem> {
    let expected = "expected a list of tools, or one as JSON text";
    match columns.get("tools") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(list)) if list.is_empty() => Ok(None),
        Some(list @ Value::Array(_)) => Ok(Some(list.clone())),
        Some(Value::String(s)) if s.trim().is_empty() => Ok(None),
        Some(Value::String(s)) => match serde_json::from_str::<Value>(s) {
            Ok(Value::Array(list)) => Ok((!list.is_empty()).then_some(Value::Array(list))),
            Ok(other) => Err(format!("tools holds {}; {expected}", json::name(&other))),
            Err(e) => Err(format!("tools is not valid JSON ({e}); {expected}")),
        },
        Some(other) => Err(format!("tools is {}; {expected}", json::name(other))),
    }
}

pub(super) fn message(role: &str, content: &str) -> Value {
    json!({ "role": role, "content": content })
}

/// Alpaca: system, history, and what the user says.
fn alpaca(columns: &Columns) -> Result<Row, Problem> {
    let mut messages = asked(columns)?;
    messages.push(message("assistant", full(columns, "output")?));
    Ok(Row::Chat(Chat { messages, tools: tools(columns)?, prompt: None }))
}

/// What comes before the answer of an Alpaca row: the user says `instruction`, then `input` on a new line where it is not empty (as LLaMA-Factory joins them).
pub(super) fn asked(columns: &Columns) -> Result<Vec<Value>, Problem> {
    let mut messages = Vec::new();
    if let Some(system) = optional(columns, "system")? {
        messages.push(message("system", system));
    }
    match columns.get("history") {
        None | Some(Value::Null) => {}
        Some(Value::Array(turns)) => {
            for (i, turn) in turns.iter().enumerate() {
                match turn.as_array().map(Vec::as_slice) {
                    Some([Value::String(asked), Value::String(answered)]) => {
                        messages.push(message("user", asked));
                        messages.push(message("assistant", answered));
                    }
                    _ => return Err(format!("history[{i}] is not a pair of texts; expected [[asked, answered], …]")),
                }
            }
        }
        Some(other) => return Err(format!("history is {}; expected [[asked, answered], …]", json::name(other))),
    }
    let mut asked = full(columns, "instruction")?.to_string();
    if let Some(input) = optional(columns, "input")? {
        asked.push('\n');
        asked.push_str(input);
    }
    messages.push(message("user", &asked));
    Ok(messages)
}

fn prompt_completion(columns: &Columns) -> Result<Row, Problem> {
    match (columns.get("prompt"), columns.get("completion")) {
        (Some(Value::Array(prompt)), Some(Value::Array(completion))) => {
            let mut messages = messages(prompt, "prompt")?;
            let split = messages.len();
            messages.extend(self::messages(completion, "completion")?);
            if !messages[split..].iter().any(|m| role(m) == "assistant") {
                return Err("completion has no assistant message: there is nothing to learn".to_string());
            }
            Ok(Row::Chat(Chat { messages, tools: tools(columns)?, prompt: Some(split) }))
        }
        (Some(Value::Array(_)), Some(_)) | (Some(_), Some(Value::Array(_))) => {
            Err("prompt and completion must both be texts, or both lists of messages".to_string())
        }
        _ => Ok(Row::Pair {
            prompt: full(columns, "prompt")?.to_string(),
            completion: full(columns, "completion")?.to_string(),
        }),
    }
}

fn conversation(columns: &Columns) -> Result<Row, Problem> {
    match conversation_before(columns)? {
        Some(messages) => Ok(Row::Chat(Chat { messages, tools: tools(columns)?, prompt: None })),
        None => Err(format!("neither messages nor conversations is there; this row has {}", names(columns))),
    }
}

/// The messages of a row's `messages` or `conversations`, its system column first; `None` where it has neither.
pub(super) fn conversation_before(columns: &Columns) -> Result<Option<Vec<Value>>, Problem> {
    let Some(name) = turns_column(columns) else { return Ok(None) };
    let Some(turns) = columns[name].as_array() else {
        return Err(format!("{name} is {}; expected a list of messages", json::name(&columns[name])));
    };
    let mut messages = messages(turns, name)?;
    if let Some(system) = optional(columns, "system")? {
        if messages.iter().any(|m| role(m) == "system") {
            return Err(format!("there is a system column and a system message in {name}; expected one of them"));
        }
        messages.insert(0, message("system", system));
    }
    Ok(Some(messages))
}

/// Messages in ChatML spelling (`role`, `content`) or ShareGPT's (`from`, `value`).
pub(super) fn messages(turns: &[Value], column: &str) -> Result<Vec<Value>, Problem> {
    if turns.is_empty() {
        return Err(format!("{column} is empty; expected at least one message"));
    }
    turns
        .iter()
        .enumerate()
        .map(|(i, turn)| {
            let at = format!("{column}[{i}]");
            match turn {
                Value::Object(map) => one_message(map, &at),
                other => Err(format!("{at} is {}; expected {{role, content}}", json::name(other))),
            }
        })
        .collect()
}

fn one_message(map: &Map<String, Value>, at: &str) -> Result<Value, Problem> {
    let spelt = match map.get("role").or_else(|| map.get("from")) {
        Some(Value::String(s)) => s.as_str(),
        Some(other) => return Err(format!("{at}: the role is {}; expected text", json::name(other))),
        None => {
            return Err(format!(
                "{at} has no role; expected {{role, content}} or {{from, value}}, found {}",
                names(map)
            ));
        }
    };
    if spelt == "function_call" {
        return function_call(map, at);
    }
    let role = known_role(spelt).ok_or_else(|| {
        format!("{at}: unknown role {spelt}; expected {}, human, gpt, function_call or observation", ROLES.join(", "))
    })?;
    let calls = map.get("tool_calls").is_some_and(|v| v.as_array().is_some_and(|a| !a.is_empty()));
    let content = match map.get("content").or_else(|| map.get("value")) {
        None | Some(Value::Null) if calls => Value::Null,
        None => return Err(format!("{at} ({role}) has no content; it has {}", names(map))),
        Some(Value::Null) => return Err(format!("{at} ({role}): content is null; expected text")),
        Some(Value::String(s)) if s.trim().is_empty() && !calls && role != "tool" => {
            return Err(format!("{at} ({role}): content is empty; expected text"));
        }
        Some(Value::String(s)) => Value::String(s.clone()),
        Some(Value::Array(parts)) => Value::String(text_parts(parts, at)?),
        Some(other) => return Err(format!("{at} ({role}): content is {}; expected text", json::name(other))),
    };
    let mut out = Map::new();
    out.insert("role".to_string(), Value::String(role.to_string()));
    out.insert("content".to_string(), content);
    // Whatever else is there (tool_calls, name, reasoning_content, …) is the template's to use.
    for (key, value) in map {
        if !["role", "content", "from", "value"].contains(&key.as_str()) {
            out.insert(key.clone(), value.clone());
        }
    }
    Ok(Value::Object(out))
}

/// LLaMA-Factory's `function_call`: one call or a list of them, as JSON text or as it is; the assistant makes them.
fn function_call(map: &Map<String, Value>, at: &str) -> Result<Value, Problem> {
    let expected = "expected {name, arguments}, or a list of these, or one as JSON text";
    let value = map
        .get("value")
        .or_else(|| map.get("content"))
        .ok_or_else(|| format!("{at} (function_call) has no value; {expected}"))?;
    let value = match value {
        Value::String(s) => {
            serde_json::from_str(s).map_err(|e| format!("{at} (function_call) is not valid JSON ({e}); {expected}"))?
        }
        other => other.clone(),
    };
    let calls = match value {
        Value::Array(list) => list,
        one => vec![one],
    };
    let mut out = Vec::new();
    for call in calls {
        // OpenAI's form has it one level deeper.
        let call = call.get("function").cloned().unwrap_or(call);
        match (call.get("name").and_then(Value::as_str), call.get("arguments").or_else(|| call.get("parameters"))) {
            (Some(name), arguments) => {
                let arguments = arguments.cloned().unwrap_or_else(|| json!({}));
                out.push(json!({"type": "function", "function": {"name": name, "arguments": arguments}}));
            }
            (None, _) => return Err(format!("{at} (function_call): a call has no name; {expected}")),
        }
    }
    if out.is_empty() {
        Err(format!("{at} (function_call) is empty; {expected}"))
    } else {
        Ok(json!({"role": "assistant", "content": "", "tool_calls": out}))
    }
}

fn known_role(spelt: &str) -> Option<&'static str> {
    match spelt {
        "human" => Some("user"),
        "gpt" => Some("assistant"),
        "observation" => Some("tool"),
        other => ROLES.into_iter().find(|r| *r == other),
    }
}

/// `[{type: "text", text: …}, …]` as one text.
fn text_parts(parts: &[Value], at: &str) -> Result<String, Problem> {
    let texts: Option<Vec<&str>> = parts
        .iter()
        .map(|p| match p.get("type").and_then(Value::as_str) {
            Some("text") => p.get("text").and_then(Value::as_str),
            _ => None,
        })
        .collect();
    match texts {
        Some(texts) if !texts.concat().trim().is_empty() => Ok(texts.concat()),
        Some(_) => Err(format!("{at}: content is empty; expected text")),
        None => Err(format!("{at}: content has a part that is not text; only text is trained on")),
    }
}

/// A message's words.
fn one(m: &Value, feed: &mut dyn FnMut(&str)) {
    feed(role(m));
    feed(m.get("content").and_then(Value::as_str).unwrap_or_default());
    if let Some(calls) = m.get("tool_calls") {
        feed(&calls.to_string());
    }
}

/// A row's words in a form where near-duplicates are equal: lower case, punctuation and spacing set aside.
pub fn fingerprint(row: &Row) -> u64 {
    let mut hasher = blake3::Hasher::new();
    let mut feed = |text: &str| {
        for word in text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()) {
            hasher.update(word.to_lowercase().as_bytes());
            hasher.update(b" ");
        }
        hasher.update(b"\0");
    };
    match row {
        Row::Text(text) => feed(text),
        Row::Pair { prompt, completion } => {
            feed(prompt);
            feed(completion);
        }
        Row::Preference(Preference::Text { prompt, chosen, rejected }) => {
            [prompt, chosen, rejected].into_iter().for_each(|text| feed(text));
        }
        Row::Preference(Preference::Chat { prompt, chosen, rejected, .. }) => {
            prompt.iter().chain(chosen).chain(rejected).for_each(|m| one(m, &mut feed));
        }
        Row::Prompt(Prompt { prompt, .. }) => match prompt {
            Value::Array(turns) => turns.iter().for_each(|m| one(m, &mut feed)),
            other => feed(other.as_str().unwrap_or_default()),
        },
        Row::Chat(chat) => chat.messages.iter().for_each(|m| one(m, &mut feed)),
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
