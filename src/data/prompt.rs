//! Prompts that a model answers in training (GRPO), each with what its reward functions are told of the row.

use super::batch::Example;
use super::examples::{Made, Options};
use super::format::turns_column;
use super::formatting::Formatting;
use super::mask::MaskMethod;
use super::read::Columns;
use super::rows::{self, Problem, messages, role};
use super::traits::ModelSide;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A prompt, and the row's columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prompt {
    /// A text (never through a chat template, as in TRL), or a list of messages.
    pub prompt: Value,
    pub tools: Option<Value>,
    /// All columns of the row, and `answer` where the row has it in another place.
    pub columns: Columns,
}

/// Read one row's columns. The prompt is
/// - what the recipe's `data.messages` make of the columns,
/// - `prompt`, a text or a list of messages,
/// - `messages` or `conversations`; a last turn of the assistant's is the answer,
/// - or `instruction` and `input`, whose answer is `output`.
pub fn parse(columns: &Columns, formatting: Option<&Formatting>) -> Result<Prompt, Problem> {
    let tools = rows::tools(columns)?;
    let mut columns = columns.clone();
    let prompt = if let Some(formatting) = formatting {
        Value::Array(answered(formatting.messages(&columns)?, &mut columns))
    } else if let Some(Value::Array(turns)) = columns.get("prompt") {
        Value::Array(messages(turns, "prompt")?)
    } else if columns.contains_key("prompt") {
        Value::String(rows::full(&columns, "prompt")?.to_string())
    } else if turns_column(&columns).is_some() {
        let turns = rows::conversation_before(&columns)?.unwrap_or_default();
        Value::Array(answered(turns, &mut columns))
    } else if columns.contains_key("instruction") {
        let asked = rows::asked(&columns)?;
        if let Some(output) = columns.get("output").cloned() {
            columns.entry("answer").or_insert(output);
        }
        Value::Array(asked)
    } else {
        rows::full(&columns, "prompt")?;
        Value::Null
    };
    if prompt.as_array().is_some_and(Vec::is_empty) {
        return Err("there is no prompt before the assistant's turn".to_string());
    }
    Ok(Prompt { prompt, tools, columns })
}

/// The turns before a last one of the assistant's, which becomes the column `answer` unless there is one.
fn answered(mut turns: Vec<Value>, columns: &mut Columns) -> Vec<Value> {
    if turns.last().is_some_and(|m| role(m) == "assistant")
        && let Some(answer) = turns.pop().and_then(|m| m.get("content").cloned())
    {
        columns.entry("answer").or_insert(answer);
    }
    turns
}

/// Tokenize a prompt up to where the model speaks. One that leaves no room for a completion gives no example.
pub fn make(row: &Prompt, number: u32, model: &ModelSide, options: &Options) -> Result<Made, Problem> {
    let (text, special) = match &row.prompt {
        Value::String(text) => (text.clone(), true),
        other => {
            let render = model.render.ok_or("the model has no chat template to render it with")?;
            let turns = other.as_array().map(Vec::as_slice).unwrap_or_default();
            let text = render
                .render(turns, row.tools.as_ref(), true)
                .map_err(|e| format!("the chat template refuses it: {}", e.what))?;
            (text, false)
        }
    };
    let ids = model.encode.encode(&text, special).map_err(|e| format!("it cannot be tokenized: {}", e.what))?.ids;
    if ids.is_empty() {
        return Err("the prompt has no token".to_string());
    }
    let columns = serde_json::to_string(row).map_err(|e| e.to_string())?;
    let fits = ids.len() <= options.max_seq_length;
    let example = Example { trained: vec![false; ids.len()].into(), ids: ids.into(), row: number, truncated: false };
    Ok(Made {
        examples: if fits { vec![example] } else { Vec::new() },
        method: MaskMethod::Prompt,
        truncated: false,
        masked_out: u32::from(!fits),
        columns,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn prompt(value: Value) -> Prompt {
        parse(value.as_object().unwrap(), None).unwrap()
    }

    #[test]
    fn prompts_and_answers_are_found_in_the_usual_columns() {
        let user = json!({"role": "user", "content": "2+2?"});
        for (value, want) in [
            (json!({"prompt": "2+2?", "answer": "4"}), json!("2+2?")),
            (json!({"prompt": [user], "answer": "4"}), json!([user])),
            (json!({"messages": [user, {"role": "assistant", "content": "4"}]}), json!([user])),
            (json!({"instruction": "2+2?", "output": "4"}), json!([user])),
        ] {
            let p = prompt(value.clone());
            assert_eq!((&p.prompt, p.columns.get("answer")), (&want, Some(&json!("4"))), "{value}");
        }
        // A row's own answer is kept.
        let p = prompt(json!({"messages": [user, {"role": "assistant", "content": "four"}], "answer": 4}));
        assert_eq!(p.columns["answer"], json!(4));
    }

    #[test]
    fn a_row_without_a_prompt_says_what_it_has() {
        let e = parse(json!({"question": "a"}).as_object().unwrap(), None).unwrap_err();
        assert!(e.contains("the column prompt is missing; this row has question"), "{e}");
        assert!(
            parse(json!({"messages": [{"role": "assistant", "content": "a"}]}).as_object().unwrap(), None).is_err()
        );
    }
}
