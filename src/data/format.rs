//! Which format the rows are in, found from their columns, and why, in words a person is shown.

use super::read::{Columns, Raw};
use crate::recipe::Method;
use crate::{Error, Result};
use serde_json::Value;
use std::fmt;

/// A row format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// `messages` (or `conversations`) with `role` and `content`, as ChatML has them.
    Messages,
    /// `conversations` (or `messages`) with `from` and `value`.
    Sharegpt,
    /// `prompt` and `completion`: two texts, or two lists of messages.
    PromptCompletion,
    /// `instruction`, `output`; also `input`, `system`, `history`.
    Alpaca,
    /// `text`; also a whole text file.
    Text,
    /// `chosen` and `rejected`, with or without a prompt of their own.
    Preference,
    /// A prompt to be answered in training: `prompt`, `messages`, or `instruction`.
    Prompt,
    /// `data.messages` of the recipe.
    Template,
}

impl Format {
    /// As `data.format` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Sharegpt => "sharegpt",
            Self::PromptCompletion => "prompt_completion",
            Self::Alpaca => "alpaca",
            Self::Text => "text",
            Self::Preference => "preference",
            Self::Prompt => "prompt",
            Self::Template => "data.messages",
        }
    }

    /// Columns that it reads, the needed ones first.
    pub fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Messages | Self::Sharegpt => &["messages", "conversations", "system", "tools"],
            Self::PromptCompletion => &["prompt", "completion", "tools"],
            Self::Alpaca => &["instruction", "output", "input", "system", "history", "tools"],
            Self::Text => &["text"],
            Self::Preference => &[
                "chosen",
                "rejected",
                "prompt",
                "messages",
                "conversations",
                "instruction",
                "input",
                "system",
                "history",
                "tools",
            ],
            // Whatever else a row has is the reward functions' to read.
            Self::Prompt => &["prompt", "messages", "conversations", "instruction", "input", "system", "tools"],
            Self::Template => &[],
        }
    }

    /// What rows of this format have, in words.
    pub fn needs(self) -> &'static str {
        match self {
            Self::Messages => "messages (a list of {role, content})",
            Self::Sharegpt => "conversations (a list of {from, value})",
            Self::PromptCompletion => "prompt and completion",
            Self::Alpaca => "instruction and output",
            Self::Text => "text",
            Self::Preference => "chosen and rejected, with a prompt or beginning with one",
            Self::Prompt => "prompt (a text or messages), messages, or instruction",
            Self::Template => "the columns that data.messages names",
        }
    }

    /// Whether a row has the columns this format needs.
    fn fits(self, columns: &Columns) -> bool {
        let has = |name: &str| columns.get(name).is_some_and(|v| !v.is_null());
        match self {
            Self::Messages => turns(columns).is_some_and(|t| t.iter().any(|m| m.get("role").is_some())),
            Self::Sharegpt => turns(columns).is_some_and(|t| t.iter().any(|m| m.get("from").is_some())),
            Self::PromptCompletion => has("prompt") && has("completion"),
            Self::Alpaca => has("instruction") && has("output"),
            Self::Text => has("text"),
            Self::Preference => has("chosen") && has("rejected"),
            Self::Prompt => has("prompt") || turns(columns).is_some() || has("instruction"),
            Self::Template => false,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The list of turns of a chat row, under either name.
pub fn turns(columns: &Columns) -> Option<&Vec<Value>> {
    turns_column(columns).and_then(|name| columns[name].as_array())
}

/// `messages` or `conversations`, whichever is there.
pub fn turns_column(columns: &Columns) -> Option<&'static str> {
    ["messages", "conversations"].into_iter().find(|c| columns.get(*c).is_some_and(|v| !v.is_null()))
}

/// What was found, and why.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Detected {
    pub format: Format,
    /// `columns instruction and output in 999 of 999 rows`.
    pub why: String,
    /// Columns that are there and not read.
    pub unused: Vec<String>,
}

/// Which columns there are, in the order met, and in how many rows each has a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    pub columns: Vec<(String, usize)>,
    pub rows: usize,
}

impl Census {
    pub fn of(rows: &[Raw]) -> Self {
        let mut census = Self::default();
        let mut at = std::collections::HashMap::new();
        for columns in rows.iter().filter_map(|r| r.columns.as_ref().ok()) {
            census.rows += 1;
            for (name, value) in columns {
                let i = *at.entry(name.clone()).or_insert_with(|| {
                    census.columns.push((name.clone(), 0));
                    census.columns.len() - 1
                });
                census.columns[i].1 += usize::from(!value.is_null());
            }
        }
        census
    }

    pub fn has(&self, name: &str) -> bool {
        self.columns.iter().any(|(n, _)| n == name)
    }

    /// `instruction, input, output`.
    pub fn names(&self) -> String {
        self.columns.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// The automatic order of preference: conversations say most about what is meant, a bare `text` least.
const ORDER: [Format; 5] = [Format::Messages, Format::Sharegpt, Format::PromptCompletion, Format::Alpaca, Format::Text];

/// The formats that a method can be served from, in its order of preference: for continued pre-training a `text` column
/// goes before the others, DPO needs two answers.
fn order(method: Method) -> &'static [Format] {
    const TEXT_FIRST: [Format; 5] =
        [Format::Text, Format::Messages, Format::Sharegpt, Format::PromptCompletion, Format::Alpaca];
    match method {
        Method::Sft => &ORDER,
        Method::Cpt => &TEXT_FIRST,
        Method::Dpo => &[Format::Preference],
        Method::Grpo => &[Format::Prompt],
    }
}

/// Find the format of `rows` for `method`, or check the one asked for (`asked`: `data.format`).
///
/// # Errors
/// No format fits most rows: names the columns there are, and offers `data.messages` where two of them look like
/// question and answer. A format asked for whose columns are in no row.
pub fn detect(rows: &[Raw], asked: &str, method: Method) -> Result<Detected> {
    let census = Census::of(rows);
    if census.rows == 0 {
        return Err(Error::new("there is no row that can be read"));
    }
    let count = |f: Format| rows.iter().filter(|r| r.columns.as_ref().is_ok_and(|c| f.fits(c))).count();
    let (format, fitting) = if asked == "auto" {
        match order(method).iter().map(|&f| (f, count(f))).find(|(_, n)| 2 * n >= census.rows) {
            Some(found) => found,
            None => return Err(unknown(&census, method)),
        }
    } else {
        let Some(&format) = order(method).iter().find(|f| f.name() == asked) else {
            let names: Vec<_> = order(method).iter().map(|f| f.name()).collect();
            let method = method.name();
            return Err(Error::usage(format!(
                "data.format = \"{asked}\" is not a format of {method}; there are auto, {}",
                names.join(", ")
            )));
        };
        let fitting = count(format);
        if fitting == 0 {
            return Err(Error::new(format!(
                "data.format is \"{asked}\", which needs {}, but no row has that; the columns are {}",
                format.needs(),
                census.names()
            ))
            .next("leave data.format at \"auto\", or describe the rows with data.messages"));
        }
        (format, fitting)
    };
    let documents = rows.iter().filter(|r| r.document).count();
    let why = if documents == rows.len() {
        format!("{documents} text {}, one document each", if documents == 1 { "file" } else { "files" })
    } else {
        let set = if asked == "auto" { "" } else { "data.format says so; " };
        format!("{set}{} in {fitting} of {} rows", has_words(format, &census), census.rows)
    };
    let read = format.columns();
    let unused = match format {
        Format::Prompt => Vec::new(),
        _ => census.columns.iter().map(|(n, _)| n.clone()).filter(|n| !read.contains(&n.as_str())).collect(),
    };
    Ok(Detected { format, why, unused })
}

/// `columns instruction, output, input`: those of the format that are there.
fn has_words(format: Format, census: &Census) -> String {
    let there: Vec<_> = format.columns().iter().copied().filter(|c| census.has(c)).collect();
    let noun = if there.len() == 1 { "column" } else { "columns" };
    let spelling = match format {
        Format::Messages => " with role and content",
        Format::Sharegpt => " with from and value",
        _ => "",
    };
    format!("{noun} {}{spelling}", there.join(", "))
}

/// Columns that people use for what is asked and for what is answered.
const ASKED: [&str; 9] = ["question", "query", "prompt", "instruction", "problem", "input", "source", "user", "human"];
const ANSWERED: [&str; 9] =
    ["answer", "response", "completion", "output", "solution", "target", "reply", "assistant", "label"];

/// The columns that look like what is asked and what is answered.
pub fn question_and_answer(census: &Census) -> Option<(String, String)> {
    Some((first(census, &ASKED)?, first(census, &ANSWERED)?))
}

/// The first of `names` that is a column, however it is cased.
fn first(census: &Census, names: &[&str]) -> Option<String> {
    names.iter().find_map(|n| census.columns.iter().map(|(c, _)| c).find(|c| c.eq_ignore_ascii_case(n)).cloned())
}

fn unknown(census: &Census, method: Method) -> Error {
    let needs: Vec<_> = order(method).iter().map(|f| f.needs()).collect();
    let error = Error::new(format!(
        "the format of the rows is not known: their columns are {}; expected {}",
        census.names(),
        needs.join("; or ")
    ));
    if method == Method::Dpo {
        return error.next("DPO learns from two answers to one prompt; rows with one answer are for method = \"sft\"");
    }
    if census.has("chosen") && census.has("rejected") {
        return error.next("rows with chosen and rejected are for method = \"dpo\"; SFT needs one answer a row");
    }
    if method == Method::Grpo {
        return match first(census, &ASKED) {
            Some(q) => error.next(format!(
                "if {q} is asked, say so: [data] messages = [{{ role = \"user\", content = \"{{{{ {q} }}}}\" }}]"
            )),
            None => error
                .next("describe the prompts with [data] messages = [{ role = \"user\", content = \"{{ COLUMN }}\" }]"),
        };
    }
    match question_and_answer(census) {
        Some((q, a)) => error.next(format!(
            "if {q} is asked and {a} is answered, say so: [data] messages = [{{ role = \"user\", content = \"{{{{ {q} }}}}\" }}, \
             {{ role = \"assistant\", content = \"{{{{ {a} }}}}\" }}]"
        )),
        _ => error.next("describe the rows with [data] messages = [{ role = \"user\", content = \"{{ COLUMN }}\" }, …]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::read;
    use std::path::Path;

    fn rows(lines: &str) -> Vec<Raw> {
        read::rows(Path::new("a.jsonl"), lines.as_bytes(), 0).unwrap()
    }

    fn found(lines: &str) -> Detected {
        detect(&rows(lines), "auto", Method::Sft).unwrap()
    }

    #[test]
    fn each_format_is_found_from_its_columns_and_says_why() {
        for (line, format, why) in [
            (
                r#"{"instruction":"a","input":"","output":"b"}"#,
                Format::Alpaca,
                "columns instruction, output, input in 1 of 1 rows",
            ),
            (
                r#"{"prompt":"a","completion":"b"}"#,
                Format::PromptCompletion,
                "columns prompt, completion in 1 of 1 rows",
            ),
            (
                r#"{"messages":[{"role":"user","content":"a"}]}"#,
                Format::Messages,
                "column messages with role and content in 1 of 1 rows",
            ),
            (
                r#"{"conversations":[{"role":"user","content":"a"}]}"#,
                Format::Messages,
                "column conversations with role and content in 1 of 1 rows",
            ),
            (
                r#"{"conversations":[{"from":"human","value":"a"}]}"#,
                Format::Sharegpt,
                "column conversations with from and value in 1 of 1 rows",
            ),
            (r#"{"text":"a"}"#, Format::Text, "column text in 1 of 1 rows"),
        ] {
            let d = found(line);
            assert_eq!((d.format, d.why.as_str()), (format, why));
        }
    }

    #[test]
    fn preferences_are_found_for_dpo_and_named_as_such_for_other_methods() {
        let rows = rows(r#"{"prompt":"a","chosen":"b","rejected":"c","source":"d"}"#);
        let d = detect(&rows, "auto", Method::Dpo).unwrap();
        assert_eq!((d.format, d.why.as_str()), (Format::Preference, "columns chosen, rejected, prompt in 1 of 1 rows"));
        assert_eq!(d.unused, ["source"]);
        let e = detect(&rows, "auto", Method::Sft).unwrap_err().to_string();
        assert!(e.contains("method = \"dpo\""), "{e}");
        let one = super::tests::rows(r#"{"instruction":"a","output":"b"}"#);
        let e = detect(&one, "auto", Method::Dpo).unwrap_err().to_string();
        assert!(e.contains("chosen and rejected") && e.contains("method = \"sft\""), "{e}");
    }

    #[test]
    fn columns_that_are_not_read_are_named() {
        let d = found(r#"{"id":1,"instruction":"a","output":"b","text":"Below is"}"#);
        assert_eq!(d.format, Format::Alpaca);
        assert_eq!(d.unused, ["id", "text"]);
    }

    #[test]
    fn continued_pretraining_prefers_the_text_column() {
        let rows = rows(r#"{"instruction":"a","output":"b","text":"Below is"}"#);
        assert_eq!(detect(&rows, "auto", Method::Cpt).unwrap().format, Format::Text);
    }

    #[test]
    fn one_odd_row_does_not_change_the_format() {
        assert_eq!(found("{\"text\":\"a\"}\n{\"text\":\"b\"}\n{\"txt\":\"c\"}").format, Format::Text);
    }

    #[test]
    fn a_question_and_answer_pair_is_offered_and_not_guessed() {
        let e = detect(&rows(r#"{"id":1,"question":"a","answer":"b"}"#), "auto", Method::Sft).unwrap_err().to_string();
        assert!(e.contains("columns are id, question, answer"), "{e}");
        assert!(
            e.contains(r#"messages = [{ role = "user", content = "{{ question }}" }, { role = "assistant", content = "{{ answer }}" }]"#),
            "{e}"
        );
    }

    #[test]
    fn a_format_asked_for_must_fit_and_must_exist() {
        let rows = rows(r#"{"text":"a"}"#);
        assert!(detect(&rows, "alpaca", Method::Sft).unwrap_err().to_string().contains("the columns are text"));
        assert!(detect(&rows, "alpacca", Method::Sft).unwrap_err().to_string().contains("is not a format"));
        assert!(detect(&rows, "text", Method::Sft).unwrap().why.starts_with("data.format says so"));
    }

    #[test]
    fn text_files_are_documents() {
        let rows = read::rows(Path::new("a.txt"), b"once upon a time", 0).unwrap();
        assert_eq!(detect(&rows, "auto", Method::Cpt).unwrap().why, "1 text file, one document each");
    }
}
