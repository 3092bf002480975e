//! A first look at rows that nobody has described yet: their columns, how many there are, and which methods they serve.
//!
//! Must not know a model: nothing is tokenized.

use super::format::{self, Census, Detected};
use super::preference::Preference;
use super::read::{self, Raw};
use super::rows::{self, Row};
use super::sources;
use crate::recipe::{DataSource, Method, guidance, schema};
use crate::{Error, Result};

/// Rows looked at.
const LOOKED_AT: usize = 2_000;

/// What was seen.
#[derive(Debug, Clone)]
pub struct Survey {
    /// Rows, as far as they were counted.
    pub rows: u64,
    /// Whether all were counted.
    pub counted: bool,
    pub census: Census,
    pub files: usize,
    /// For each method of a recipe: how it would read these rows, or why it cannot.
    pub methods: Vec<(Method, std::result::Result<Detected, String>)>,
    /// Columns that look like question and answer, where no format fits.
    pub question_and_answer: Option<(String, String)>,
    /// What the user says in the first row, to be sampled while training.
    pub prompt: Option<String>,
}

impl Survey {
    /// Look at the rows of `source`; `say` hears how a download goes.
    ///
    /// # Errors
    /// There are none, or they cannot be read.
    pub fn of(source: &DataSource, say: crate::hub::Say) -> Result<Self> {
        let found = sources::locate(source, "data.train", say)?;
        let (mut looked, mut rows) = (Vec::new(), 0u64);
        // Counting goes on past what is looked at, within reason: a hint is what is wanted, not the truth.
        let bytes: u64 = found.files.iter().filter_map(|f| std::fs::metadata(f).ok()).map(|m| m.len()).sum();
        let mut counted = true;
        for (i, file) in found.files.iter().enumerate() {
            let ended = read::stream(file, i as u32, &mut |piece| {
                rows += piece.len() as u64;
                looked.extend(piece.into_iter().take(LOOKED_AT.saturating_sub(looked.len())));
                if bytes > (1 << 30) && looked.len() >= LOOKED_AT { Err(Error::new(ENOUGH)) } else { Ok(()) }
            });
            match ended {
                Err(e) if e.what == ENOUGH => {
                    counted = false;
                    break;
                }
                other => other?,
            }
        }
        Self::look(&looked, rows, counted, found.files.len())
    }

    fn look(looked: &[Raw], rows: u64, counted: bool, files: usize) -> Result<Self> {
        if rows == 0 {
            return Err(Error::new("there are no rows").next("name a file or a folder with rows"));
        }
        let census = Census::of(looked);
        let methods: Vec<_> = methods().into_iter().map(|m| (m, serves(m, looked))).collect();
        let question_and_answer =
            methods.iter().all(|(_, served)| served.is_err()).then(|| format::question_and_answer(&census)).flatten();
        let prompt = methods.iter().find_map(|(_, served)| first_prompt(looked, served.as_ref().ok()?));
        Ok(Self { rows, counted, census, files, methods, question_and_answer, prompt })
    }

    /// `999 rows in 1 file; columns: instruction, input, output`.
    pub fn about(&self) -> String {
        let of = |n: u64, what: &str| format!("{} {what}{}", guidance::thousands(n), if n == 1 { "" } else { "s" });
        let more = if self.counted { "" } else { "more than " };
        format!("{more}{} in {}; columns: {}", of(self.rows, "row"), of(self.files as u64, "file"), self.census.names())
    }

    /// Whether these rows serve `method`, as they are or through `data.messages`.
    pub fn can(&self, method: Method) -> std::result::Result<(), &str> {
        match self.methods.iter().find(|(m, _)| *m == method) {
            Some((_, Ok(_))) => Ok(()),
            Some((Method::Sft, Err(_))) if self.question_and_answer.is_some() => Ok(()),
            Some((_, Err(why))) => Err(why),
            None => Err("this version has no such method"),
        }
    }
}

const ENOUGH: &str = "enough rows";

/// The methods that a recipe may name.
pub fn methods() -> Vec<Method> {
    let words = match schema::entry("method").map(|e| e.ty) {
        Some(schema::Type::Choice(words)) => words,
        _ => &[],
    };
    words.iter().filter_map(|w| serde_json::from_value((*w).into()).ok()).collect()
}

fn serves(method: Method, rows: &[Raw]) -> std::result::Result<Detected, String> {
    let detected = format::detect(rows, "auto", method).map_err(|_| {
        let needs = guidance::GOALS.iter().find(|g| g.method == method.name()).map_or("other columns", |g| g.data);
        format!("needs {needs}; their columns are {}", Census::of(rows).names())
    })?;
    if method == Method::Cpt && detected.format != format::Format::Text {
        return Err(format!("it learns from plain text, and these rows are {}", detected.format.needs()));
    }
    if method == Method::Sft && rows.iter().all(|r| r.document) {
        return Err("it learns from pairs and chats, and these are text files".into());
    }
    Ok(detected)
}

/// What the user says first.
fn said(messages: &[serde_json::Value]) -> Option<String> {
    let first = messages.iter().find(|m| rows::role(m) == "user")?;
    first.get("content").and_then(|c| c.as_str()).map(str::to_string)
}

/// What the user says in the first row that says something.
fn first_prompt(rows: &[Raw], detected: &Detected) -> Option<String> {
    let text = rows.iter().take(20).find_map(|r| {
        match rows::parse(r.columns.as_ref().ok()?, detected.format, None).ok()? {
            Row::Chat(chat) => {
                let said = chat.messages.iter().find(|m| rows::role(m) == "user")?;
                said.get("content").and_then(|c| c.as_str()).map(str::to_string)
            }
            Row::Pair { prompt, .. } | Row::Preference(Preference::Text { prompt, .. }) => Some(prompt),
            Row::Preference(Preference::Chat { prompt, .. }) => said(&prompt),
            Row::Prompt(p) => match p.prompt {
                serde_json::Value::String(text) => Some(text),
                serde_json::Value::Array(messages) => said(&messages),
                _ => None,
            },
            Row::Text(text) => Some(text.split_whitespace().take(8).collect::<Vec<_>>().join(" ")),
        }
    })?;
    (text.chars().count() <= 400 && !text.trim().is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn look(text: &str) -> Survey {
        let rows = read::rows(Path::new("a.jsonl"), text.as_bytes(), 0).unwrap();
        Survey::look(&rows, rows.len() as u64, true, 1).unwrap()
    }

    #[test]
    fn rows_say_which_methods_they_serve_and_why_not_the_others() {
        let s = look(r#"{"instruction":"Say hello.","output":"Hello."}"#);
        assert!(s.can(Method::Sft).is_ok());
        assert!(s.can(Method::Cpt).unwrap_err().contains("plain text"));
        assert_eq!(s.prompt.as_deref(), Some("Say hello."));
        let s = look(r#"{"text":"once upon a time there was"}"#);
        assert!(s.can(Method::Cpt).is_ok());
        let s = look(r#"{"question":"a","answer":"b"}"#);
        assert!(s.can(Method::Sft).is_ok() && s.can(Method::Cpt).is_err());
        assert_eq!(s.question_and_answer, Some(("question".into(), "answer".into())));
        let s = look(r#"{"x":1}"#);
        assert!(s.can(Method::Sft).unwrap_err().contains("their columns are x"));
    }

    #[test]
    fn the_methods_are_those_of_the_schema() {
        assert!(methods().contains(&Method::Sft) && methods().contains(&Method::Cpt));
    }
}
