//! Two things that minijinja does otherwise than Jinja2 and that nothing can be hooked into, put into terms it has:
//!
//! - `a ~ b` writes true, none and 0.00001 where Python writes True, None and 1e-05: it becomes `__cat(a, b)`.
//! - `for x in none` is an empty loop where Python raises: what is looped over goes through the filter `__each`.

use super::python::text;
use minijinja::value::{Rest, Value};
use minijinja::{Environment, Error, ErrorKind};

pub(super) fn add_to(env: &mut Environment<'static>) {
    env.add_function("__cat", |parts: Rest<Value>| parts.iter().map(text).collect::<String>());
    env.add_filter("__each", |value: Value| match value.is_none() {
        true => Err(Error::new(ErrorKind::InvalidOperation, "None is not iterable")),
        false => Ok(value),
    });
}

/// The template in these terms. What cannot be read here is left for minijinja to complain about.
pub(super) fn rewrite(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(open) = rest.find("{").filter(|_| !rest.is_empty()) {
        let (before, tag) = rest.split_at(open);
        out.push_str(before);
        let end = match tag.as_bytes().get(1) {
            Some(b'#') => tag.find("#}").map(|at| (at + 2, None)),
            Some(b'{') => expression(tag, "}}"),
            Some(b'%') => expression(tag, "%}"),
            _ => Some((1, None)),
        };
        let Some((length, inner)) = end else {
            out.push_str(tag);
            return out;
        };
        let raw = inner.as_deref().is_some_and(|i| i.trim_matches(['-', '+', ' ']) == "raw");
        match inner {
            Some(inner) if !raw => {
                out.push_str(&tag[..2]);
                out.push_str(&inner);
                out.push_str(&tag[length - 2..length]);
            }
            _ => out.push_str(&tag[..length]),
        }
        rest = &tag[length..];
        if raw {
            let end = rest.find("endraw").unwrap_or(rest.len());
            out.push_str(&rest[..end]);
            rest = &rest[end..];
        }
    }
    out.push_str(rest);
    out
}

/// A tag's length, and what it holds, rewritten (`None` where nothing changes).
fn expression(tag: &str, close: &str) -> Option<(usize, Option<String>)> {
    let mut reader = Reader { text: tag, at: 2 };
    // The `-` and `+` of whitespace control.
    let control = tag[2..].starts_with(['-', '+']);
    reader.at += usize::from(control);
    let items = reader.group(Some(close))?;
    let length = reader.at;
    Some((length, Some(format!("{}{}", &tag[2..2 + usize::from(control)], statement(&items)))))
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Word,
    /// A string, or brackets with what is in them.
    Value,
    Operator,
}

/// A piece of an expression, with the white space before it.
#[derive(Debug, Clone)]
struct Item {
    kind: Kind,
    text: String,
    space: String,
}

impl Item {
    fn is(&self, words: &[&str]) -> bool {
        self.kind != Kind::Value && words.contains(&self.text.as_str())
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    /// Items up to the end of the tag, or, without `close`, to a closing bracket, which is taken too.
    fn group(&mut self, close: Option<&str>) -> Option<Vec<Item>> {
        let mut items = Vec::new();
        loop {
            let rest = &self.text[self.at..];
            let trimmed = rest.trim_start();
            let space = rest[..rest.len() - trimmed.len()].to_string();
            self.at += space.len();
            let c = trimmed.chars().next()?;
            if let Some(close) = close {
                let signed = trimmed.starts_with(['-', '+']) && trimmed[1..].starts_with(close);
                if signed || trimmed.starts_with(close) {
                    let sign = if signed { &trimmed[..1] } else { "" };
                    self.at += sign.len() + close.len();
                    items.push(Item { kind: Kind::Operator, text: sign.to_string(), space });
                    return Some(items);
                }
            }
            let start = self.at;
            match c {
                '\'' | '"' => {
                    self.at += string_length(trimmed)?;
                    items.push(Item { kind: Kind::Value, text: self.text[start..self.at].to_string(), space });
                }
                '(' | '[' | '{' => {
                    self.at += 1;
                    let inner = self.group(None)?;
                    let close = &self.text[self.at - 1..self.at];
                    items.push(Item { kind: Kind::Value, text: format!("{c}{}{close}", joined(&inner)), space });
                }
                ')' | ']' | '}' => {
                    self.at += 1;
                    items.push(Item { kind: Kind::Operator, text: String::new(), space });
                    return close.is_none().then_some(items);
                }
                c if c.is_alphanumeric() || c == '_' => {
                    let length = trimmed.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(trimmed.len());
                    self.at += length;
                    items.push(Item { kind: Kind::Word, text: trimmed[..length].to_string(), space });
                }
                _ => {
                    let two = ["**", "//", "==", "!=", "<=", ">="].iter().any(|o| trimmed.starts_with(o));
                    self.at += if two { 2 } else { c.len_utf8() };
                    items.push(Item { kind: Kind::Operator, text: self.text[start..self.at].to_string(), space });
                }
            }
        }
    }
}

/// Length of the string literal that a text begins with.
fn string_length(text: &str) -> Option<usize> {
    let quote = text.chars().next()?;
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

fn plain(items: &[Item]) -> String {
    items.iter().map(|i| format!("{}{}", i.space, i.text)).collect()
}

/// A whole tag: a `for` has its sequence checked.
fn statement(items: &[Item]) -> String {
    let is_for = items.first().is_some_and(|i| i.is(&["for"]));
    let Some(start) = items.iter().position(|i| i.is(&["in"])).filter(|_| is_for) else { return joined(items) };
    let after = &items[start + 1..];
    let length = after.iter().position(|i| i.is(&["if", "recursive"])).unwrap_or(after.len().saturating_sub(1));
    let (sequence, rest) = after.split_at(length);
    format!("{} ({}) | __each{}", plain(&items[..=start]), joined(sequence).trim(), joined(rest))
}

/// What ends an operand of `~`, which binds tighter than `+`.
const ENDS: &[&str] = &[
    "and",
    "or",
    "not",
    "if",
    "elif",
    "else",
    "in",
    "is",
    "recursive",
    "do",
    ",",
    ":",
    "=",
    "==",
    "!=",
    "<",
    ">",
    "<=",
    ">=",
];

/// One level of an expression, each run of `~` as a call.
fn joined(items: &[Item]) -> String {
    let mut out = String::new();
    let mut from = 0;
    for at in 0..=items.len() {
        let item = items.get(at);
        let after_operand = at > from && items[at - 1].kind != Kind::Operator;
        let ends = match item {
            None => true,
            Some(i) if i.is(&["+", "-"]) => after_operand,
            Some(i) => i.is(ENDS) || i.text.is_empty(),
        };
        if !ends {
            continue;
        }
        let run = &items[from..at];
        // `a ~ b is defined` asks about b alone: left as it is.
        let operands: Vec<&[Item]> = run.split(|i| i.is(&["~"])).collect();
        let whole = operands.len() > 1 && operands.iter().all(|o| !o.is_empty());
        if whole && !item.is_some_and(|i| i.is(&["is"])) {
            let parts: Vec<String> = operands.iter().map(|o| plain(o).trim().to_string()).collect();
            out.push_str(&format!("{}__cat({})", run[0].space, parts.join(", ")));
        } else {
            out.push_str(&plain(run));
        }
        if let Some(i) = item {
            out.push_str(&i.space);
            out.push_str(&i.text);
        }
        from = at + 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_become_calls_and_all_else_stays() {
        for (source, expected) in [
            ("{{- a ~ 'b~' ~ c.d[0](x ~ y) | trim -}}", "{{- __cat(a, 'b~', c.d[0](__cat(x, y)) | trim) -}}"),
            ("{% set x = a ~ b if c ~ d else -1 ~ e %}", "{% set x = __cat(a, b) if __cat(c, d) else __cat(-1, e) %}"),
            ("{{ a ~ b + c ~ d - 1 }}", "{{ __cat(a, b) + __cat(c, d) - 1 }}"),
            ("{{ {'k': a ~ b, 'l': {'m': 1}} }}", "{{ {'k': __cat(a, b), 'l': {'m': 1}} }}"),
            ("{{ a ~ b is defined }}{# a ~ b #}~ {x}", "{{ a ~ b is defined }}{# a ~ b #}~ {x}"),
            ("{%- elif a ~ b == c -%}", "{%- elif __cat(a, b) == c -%}"),
            ("{% raw %}{{ a ~ b }}{% endraw %}{{ a ~ b }}", "{% raw %}{{ a ~ b }}{% endraw %}{{ __cat(a, b) }}"),
            ("{{ 'it\\'s }}' ~ x }}", "{{ __cat('it\\'s }}', x) }}"),
            ("{{ a\n ~ b }}{{ unclosed ~ ", "{{ __cat(a, b) }}{{ unclosed ~ "),
        ] {
            assert_eq!(rewrite(source), expected);
        }
    }

    #[test]
    fn a_loop_s_sequence_is_checked_and_its_condition_is_not() {
        for (source, expected) in [
            ("{%- for a, b in x.items() if b in c -%}", "{%- for a, b in (x.items()) | __each if b in c -%}"),
            ("{% for x in y recursive %}", "{% for x in (y) | __each recursive %}"),
            ("{% for x in tools %}", "{% for x in (tools) | __each %}"),
            ("{% if x in y %}", "{% if x in y %}"),
        ] {
            assert_eq!(rewrite(source), expected);
        }
    }
}
