//! Go's `text/template`, as far as Ollama's templates use it, evaluated over JSON data.
//!
//! Tested against outputs of Go itself (tests/reference/go_templates.go). What is outside the subset is an error.

use super::go_parse::{Expr, Node, parse};
use crate::{Error, Result};
use serde_json::{Value, json};

/// A template that was read.
#[derive(Debug)]
pub struct GoTemplate(Vec<Node>);

impl GoTemplate {
    /// # Errors
    /// When the text is outside the subset, or not well formed.
    pub fn new(source: &str) -> Result<Self> {
        parse(source).map(Self)
    }

    /// Render over an object.
    pub fn render(&self, data: &Value) -> Result<String> {
        let mut scope = Scope { root: data, variables: Vec::new() };
        let mut out = String::new();
        scope.run(&self.0, data, &mut out)?;
        Ok(out)
    }

    /// Render chat messages as Ollama does: neighbours of one role joined with a blank line, the system messages also
    /// by themselves.
    pub fn render_chat(&self, messages: &[Value]) -> Result<String> {
        let text = |m: &Value, key: &str| m.get(key).and_then(Value::as_str).unwrap_or_default().to_string();
        let mut system: Vec<String> = Vec::new();
        let mut collated: Vec<(String, String)> = Vec::new();
        for m in messages {
            let (role, content) = (text(m, "role"), text(m, "content"));
            if role == "system" {
                system.push(content.clone());
            }
            match collated.last_mut() {
                Some((last, joined)) if *last == role && role != "tool" => {
                    joined.push_str("\n\n");
                    joined.push_str(&content);
                }
                _ => collated.push((role, content)),
            }
        }
        let messages: Vec<Value> =
            collated.into_iter().map(|(role, content)| json!({"Role": role, "Content": content})).collect();
        self.render(&json!({"System": system.join("\n\n"), "Messages": messages, "Tools": [], "Response": ""}))
    }
}

struct Scope<'a> {
    root: &'a Value,
    variables: Vec<(String, Value)>,
}

/// Go's idea of truth: not false, not 0, not nil, not empty.
fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(a) => !a.is_empty(),
        Value::Object(o) => !o.is_empty(),
    }
}

impl Scope<'_> {
    fn run(&mut self, nodes: &[Node], dot: &Value, out: &mut String) -> Result<()> {
        let before = self.variables.len();
        for node in nodes {
            match node {
                Node::Text(text) => out.push_str(text),
                Node::Print(e) => match self.value(e, dot)? {
                    Value::String(s) => out.push_str(&s),
                    Value::Null => out.push_str("<no value>"),
                    v @ (Value::Number(_) | Value::Bool(_)) => out.push_str(&v.to_string()),
                    _ => return Err(Error::new("a list or an object cannot be printed here")),
                },
                Node::Set { name, value, declares } => {
                    let value = self.value(value, dot)?;
                    match self.variables.iter_mut().rev().find(|(n, _)| n == name) {
                        Some((_, old)) if !declares => *old = value,
                        None if !declares => return Err(Error::new(format!("${name} is not declared"))),
                        _ => self.variables.push((name.clone(), value)),
                    }
                }
                Node::If { arms, otherwise } => {
                    let mut chosen = otherwise;
                    for (condition, body) in arms {
                        if truth(&self.value(condition, dot)?) {
                            chosen = body;
                            break;
                        }
                    }
                    self.run(chosen, dot, out)?;
                }
                Node::Range { variables, over, body, otherwise } => {
                    let Value::Array(items) = self.value(over, dot)? else {
                        return Err(Error::new("only a list can be ranged over"));
                    };
                    if items.is_empty() {
                        self.run(otherwise, dot, out)?;
                    }
                    for (i, item) in items.iter().enumerate() {
                        let outer = self.variables.len();
                        match variables.as_slice() {
                            [index, value] => {
                                self.variables.push((index.clone(), json!(i)));
                                self.variables.push((value.clone(), item.clone()));
                            }
                            [value] => self.variables.push((value.clone(), item.clone())),
                            _ => {}
                        }
                        self.run(body, item, out)?;
                        self.variables.truncate(outer);
                    }
                }
            }
        }
        self.variables.truncate(before);
        Ok(())
    }

    fn value(&self, e: &Expr, dot: &Value) -> Result<Value> {
        let path = |mut at: &Value, names: &[String]| -> Result<Value> {
            for name in names {
                let Value::Object(map) = at else { return Err(Error::new(format!(".{name} of what has no fields"))) };
                at = map.get(name).unwrap_or(&Value::Null);
            }
            Ok(at.clone())
        };
        match e {
            Expr::Fields(names) => path(dot, names),
            Expr::Variable(name, names) if name.is_empty() => path(self.root, names),
            Expr::Variable(name, names) => match self.variables.iter().rev().find(|(n, _)| n == name) {
                Some((_, value)) => path(value, names),
                None => Err(Error::new(format!("${name} is not declared"))),
            },
            Expr::Text(text) => Ok(json!(text)),
            Expr::Number(n) => Ok(json!(n)),
            Expr::Bool(b) => Ok(json!(b)),
            Expr::Call(name, arguments) => self.call(name, arguments, dot),
        }
    }

    fn call(&self, name: &str, arguments: &[Expr], dot: &Value) -> Result<Value> {
        // These two look at no more than they must.
        if let ("and" | "or", [_, ..]) = (name, arguments) {
            let mut last = Value::Null;
            for a in arguments {
                last = self.value(a, dot)?;
                if truth(&last) == (name == "or") {
                    break;
                }
            }
            return Ok(last);
        }
        let values = arguments.iter().map(|a| self.value(a, dot)).collect::<Result<Vec<_>>>()?;
        let whole = |v: &Value| {
            v.as_i64().and_then(|n| usize::try_from(n).ok()).ok_or_else(|| Error::new(format!("{v} is no index")))
        };
        Ok(match (name, values.as_slice()) {
            ("not", [v]) => json!(!truth(v)),
            ("eq", [first, rest @ ..]) if !rest.is_empty() => {
                let mut any = false;
                for v in rest {
                    any |= same(first, v)?;
                }
                json!(any)
            }
            ("ne", [a, b]) => json!(!same(a, b)?),
            ("lt" | "le" | "gt" | "ge", [Value::Number(a), Value::Number(b)]) => {
                let (a, b) = (a.as_i64(), b.as_i64());
                json!(match name {
                    "lt" => a < b,
                    "le" => a <= b,
                    "gt" => a > b,
                    _ => a >= b,
                })
            }
            ("len", [Value::Array(list)]) => json!(list.len()),
            ("len", [Value::String(text)]) => json!(text.len()),
            ("index", [Value::Array(list), i]) => {
                list.get(whole(i)?).cloned().ok_or_else(|| Error::new(format!("index {i} is out of range")))?
            }
            ("slice", [Value::Array(list), bounds @ ..]) if bounds.len() <= 2 => {
                let start = bounds.first().map_or(Ok(0), whole)?;
                let end = bounds.get(1).map_or(Ok(list.len()), whole)?;
                let part = list.get(start..end).ok_or_else(|| Error::new("a slice is out of range"))?;
                json!(part)
            }
            _ => return Err(Error::new(format!("{name} with {} arguments is not supported", values.len()))),
        })
    }
}

/// Equality of basic values of one type, as Go has it.
fn same(a: &Value, b: &Value) -> Result<bool> {
    match (a, b) {
        (Value::String(_), Value::String(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::Bool(_), Value::Bool(_)) => Ok(a == b),
        _ => Err(Error::new("values of two types are compared")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_render_as_go_renders_them() {
        let fixture: Value = serde_json::from_str(include_str!("../../../tests/fixtures/go_templates.json")).unwrap();
        let (mut rendered, mut refused) = (0, 0);
        for case in fixture["cases"].as_array().unwrap() {
            let source = case["template"].as_str().unwrap();
            let got = GoTemplate::new(source).and_then(|t| t.render(&case["data"]));
            match case["output"].as_str() {
                Some(expected) => {
                    assert_eq!(got.unwrap(), expected, "{source}");
                    rendered += 1;
                }
                None => {
                    assert!(got.is_err(), "Go refuses {source}: {got:?}");
                    refused += 1;
                }
            }
        }
        assert!(rendered >= 60 && refused >= 5, "{rendered} {refused}");
    }

    #[test]
    fn what_is_outside_the_subset_is_refused() {
        for source in
            ["{{ with .A }}{{ end }}", "{{ .A | len }}", "{{ template \"x\" }}", "{{ printf \"%s\" .A }}", "{{ .A"]
        {
            let error = GoTemplate::new(source).and_then(|t| t.render(&json!({"A": "x"})));
            assert!(error.is_err(), "{source}: {error:?}");
        }
    }

    #[test]
    fn neighbours_of_one_role_are_joined_as_ollama_joins_them() {
        let t = GoTemplate::new("{{ .System }}|{{ range .Messages }}[{{ .Role }}:{{ .Content }}]{{ end }}").unwrap();
        let m = |role: &str, content: &str| json!({"role": role, "content": content});
        let chat = [m("system", "a"), m("user", "b"), m("user", "c"), m("assistant", "d"), m("system", "e")];
        assert_eq!(t.render_chat(&chat).unwrap(), "a\n\ne|[system:a][user:b\n\nc][assistant:d][system:e]");
    }
}
