//! `data.messages`: a person's own formatting function, as templates over the row's columns.

use super::format::Census;
use super::json;
use super::read::Columns;
use super::rows::{Problem, ROLES};
use crate::recipe::MessageTemplate;
use crate::{Error, Result};
use minijinja::{Environment, UndefinedBehavior, context};
use serde_json::{Value, json};

/// Compiled templates, one a message.
#[derive(Debug)]
pub struct Formatting {
    env: Environment<'static>,
    roles: Vec<String>,
    /// Columns that each template names.
    columns: Vec<Vec<String>>,
}

impl Formatting {
    /// Compile the templates.
    ///
    /// # Errors
    /// An unknown role; a template that does not parse; no assistant message.
    pub fn new(templates: &[MessageTemplate]) -> Result<Self> {
        let formatting = Self::of_prompts(templates)?;
        if !formatting.roles.iter().any(|r| r == "assistant") {
            return Err(Error::usage("data.messages has no assistant message: there would be nothing to learn")
                .next("add { role = \"assistant\", content = \"{{ COLUMN }}\" }"));
        }
        Ok(formatting)
    }

    /// As [`Formatting::new`], for prompts, which need no assistant message.
    ///
    /// # Errors
    /// An unknown role; a template that does not parse.
    pub fn of_prompts(templates: &[MessageTemplate]) -> Result<Self> {
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        // The text is taken as written, its last newline included.
        env.set_keep_trailing_newline(true);
        env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        let (mut roles, mut columns) = (Vec::new(), Vec::new());
        for (i, t) in templates.iter().enumerate() {
            let at = format!("data.messages[{i}]");
            if !ROLES.contains(&t.role.as_str()) {
                return Err(Error::usage(format!("{at}: unknown role {}; expected {}", t.role, ROLES.join(", "))));
            }
            env.add_template_owned(i.to_string(), t.content.clone())
                .map_err(|e| Error::usage(format!("{at}: the template does not parse: {e}")))?;
            let template = env.get_template(&i.to_string()).map_err(|e| Error::usage(format!("{at}: {e}")))?;
            let globals: Vec<_> = env.globals().map(|(name, _)| name.to_string()).collect();
            let mut named: Vec<_> =
                template.undeclared_variables(false).into_iter().filter(|n| !globals.contains(n)).collect();
            named.sort();
            roles.push(t.role.clone());
            columns.push(named);
        }
        Ok(Self { env, roles, columns })
    }

    /// An error if a template names a column that no row has.
    pub fn check(&self, census: &Census) -> Result<()> {
        for (i, named) in self.columns.iter().enumerate() {
            if let Some(name) = named.iter().find(|n| !census.has(n)) {
                return Err(Error::usage(format!(
                    "data.messages[{i}] names the column {name}, which no row has; the columns are {}",
                    census.names()
                ))
                .next(match nearest(name, census) {
                    Some(near) => format!("did you mean {{{{ {near} }}}}?"),
                    None => "name one of these columns".to_string(),
                }));
            }
        }
        Ok(())
    }

    /// Columns that some template names.
    pub fn columns(&self) -> Vec<&str> {
        self.columns.iter().flatten().map(String::as_str).collect()
    }

    /// The row's messages. A null column reads as empty text; a system message that comes out empty is left out.
    pub fn messages(&self, columns: &Columns) -> std::result::Result<Vec<Value>, Problem> {
        let mut row = columns.clone();
        row.values_mut().filter(|v| v.is_null()).for_each(|v| *v = Value::String(String::new()));
        let row = minijinja::Value::from_serialize(&row);
        let mut messages = Vec::new();
        for (i, role) in self.roles.iter().enumerate() {
            if let Some(name) = self.columns[i].iter().find(|n| !columns.contains_key(n.as_str())) {
                let there: Vec<_> = columns.keys().map(String::as_str).collect();
                return Err(format!("the column {name} is missing; this row has {}", there.join(", ")));
            }
            let content = self
                .env
                .get_template(&i.to_string())
                .and_then(|t| t.render(context! { ..row.clone() }))
                .map_err(|e| format!("data.messages[{i}] cannot be filled in: {e}"))?;
            if content.trim().is_empty() {
                if role == "system" {
                    continue;
                }
                let what =
                    self.columns[i].iter().map(|c| format!("{c} is {}", kind(columns.get(c)))).collect::<Vec<_>>();
                return Err(format!("the {role} message comes out empty ({})", what.join(", ")));
            }
            messages.push(json!({ "role": role, "content": content }));
        }
        Ok(messages)
    }
}

fn kind(value: Option<&Value>) -> &'static str {
    match value {
        None => "missing",
        Some(Value::String(s)) if s.trim().is_empty() => "empty",
        Some(other) => json::name(other),
    }
}

fn nearest<'a>(name: &str, census: &'a Census) -> Option<&'a str> {
    census
        .columns
        .iter()
        .map(|(c, _)| (strsim::jaro_winkler(name, c), c.as_str()))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, c)| c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::read;
    use std::path::Path;

    fn formatting(parts: &[(&str, &str)]) -> Result<Formatting> {
        let templates: Vec<_> =
            parts.iter().map(|(r, c)| MessageTemplate { role: (*r).into(), content: (*c).into() }).collect();
        Formatting::new(&templates)
    }

    fn columns(line: &str) -> Columns {
        serde_json::from_str(line).unwrap()
    }

    #[test]
    fn columns_fill_the_templates() {
        let f = formatting(&[("user", "{{ q.strip() }}\n{{ n }}"), ("assistant", "{{ a }}\n")]).unwrap();
        assert_eq!(
            f.messages(&columns(r#"{"q":" why ","n":3,"a":"so"}"#)).unwrap(),
            [json!({"role":"user","content":"why\n3"}), json!({"role":"assistant","content":"so\n"})]
        );
    }

    #[test]
    fn an_empty_system_message_is_left_out_and_an_empty_answer_is_a_bad_row() {
        let f = formatting(&[("system", "{{ s }}"), ("user", "{{ q }}"), ("assistant", "{{ a }}")]).unwrap();
        assert_eq!(f.messages(&columns(r#"{"s":null,"q":"x","a":"y"}"#)).unwrap().len(), 2);
        let e = f.messages(&columns(r#"{"s":"","q":"x","a":""}"#)).unwrap_err();
        assert!(e.contains("the assistant message comes out empty (a is empty)"), "{e}");
        let e = f.messages(&columns(r#"{"s":"","q":"x"}"#)).unwrap_err();
        assert!(e.contains("the column a is missing; this row has s, q"), "{e}");
    }

    #[test]
    fn an_unknown_column_is_an_error_that_names_the_columns() {
        let f = formatting(&[("user", "{{ instructon }}"), ("assistant", "{{ output }}")]).unwrap();
        let rows = read::rows(Path::new("a.jsonl"), br#"{"instruction":"a","output":"b"}"#, 0).unwrap();
        let e = f.check(&Census::of(&rows)).unwrap_err().to_string();
        assert!(e.contains("data.messages[0] names the column instructon"), "{e}");
        assert!(e.contains("the columns are instruction, output") && e.contains("{{ instruction }}?"), "{e}");
    }

    #[test]
    fn a_bad_template_an_unknown_role_and_no_assistant_are_errors_before_any_row() {
        assert!(
            formatting(&[("user", "{{ q"), ("assistant", "a")]).unwrap_err().to_string().contains("does not parse")
        );
        assert!(formatting(&[("bot", "a")]).unwrap_err().to_string().contains("unknown role bot"));
        assert!(formatting(&[("user", "a")]).unwrap_err().to_string().contains("no assistant"));
    }

    #[test]
    fn names_that_a_template_sets_itself_are_no_columns() {
        let f =
            formatting(&[("user", "{% for x in range(2) %}{{ x }}{{ q }}{% endfor %}"), ("assistant", "a")]).unwrap();
        assert_eq!(f.columns(), ["q"]);
    }
}
