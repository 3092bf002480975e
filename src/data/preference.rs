//! Preference rows: a prompt with a better and a worse answer, as TRL's DPOTrainer reads and tokenizes them, and as
//! LLaMA-Factory writes them.
//!
//! A row becomes two examples, chosen then rejected, over the same prompt tokens.

use super::batch::Example;
use super::examples::{Made, Options};
use super::mask::MaskMethod;
use super::read::Columns;
use super::rows::{self, Problem, message, messages, role};
use super::traits::ModelSide;
use serde_json::Value;

/// A prompt and two answers to it.
#[derive(Debug, Clone, PartialEq)]
pub enum Preference {
    /// Plain texts: never through a chat template (as in TRL).
    Text { prompt: String, chosen: String, rejected: String },
    /// Messages: the answers go on where the prompt ends.
    Chat { prompt: Vec<Value>, chosen: Vec<Value>, rejected: Vec<Value>, tools: Option<Value> },
}

/// Read one row's columns: `chosen` and `rejected`, and a prompt that is
/// - `prompt`, a text or a list of messages;
/// - `conversations` or `messages` (LLaMA-Factory's ShareGPT form, whose answers are one message each);
/// - `instruction` and `input` (LLaMA-Factory's Alpaca form);
/// - or what both answers begin with.
pub fn parse(columns: &Columns) -> Result<Preference, Problem> {
    let chosen = answer(columns, "chosen")?;
    let rejected = answer(columns, "rejected")?;
    let tools = rows::tools(columns)?;
    let (chosen, rejected) = match (chosen, rejected) {
        (Answer::Messages(c), Answer::Messages(r)) => (c, r),
        (Answer::Text(c), Answer::Text(r)) => return texts(columns, c, r, tools),
        _ => return Err("chosen and rejected must both be texts, or both messages".to_string()),
    };
    let prompt = match columns.get("prompt") {
        Some(Value::Array(turns)) => messages(turns, "prompt")?,
        // Beside answers that hold the whole conversation, a prompt as text only repeats its first message.
        Some(Value::String(_)) if role(&chosen[0]) != "assistant" => return implicit(chosen, rejected, tools),
        Some(Value::String(text)) => vec![message("user", text)],
        _ => match rows::conversation_before(columns)? {
            Some(prompt) => prompt,
            None => return implicit(chosen, rejected, tools),
        },
    };
    chat(prompt, chosen, rejected, tools)
}

enum Answer {
    Text(String),
    Messages(Vec<Value>),
}

fn answer(columns: &Columns, name: &str) -> Result<Answer, Problem> {
    match columns.get(name) {
        Some(Value::Array(turns)) => messages(turns, name).map(Answer::Messages),
        Some(one @ Value::Object(_)) => messages(std::slice::from_ref(one), name).map(Answer::Messages),
        _ => rows::full(columns, name).map(|t| Answer::Text(t.to_string())),
    }
}

fn texts(columns: &Columns, chosen: String, rejected: String, tools: Option<Value>) -> Result<Preference, Problem> {
    let answered = |text: &str| vec![message("assistant", text)];
    match columns.get("prompt") {
        Some(Value::Array(turns)) => {
            return chat(messages(turns, "prompt")?, answered(&chosen), answered(&rejected), tools);
        }
        Some(Value::String(prompt)) => {
            return Ok(Preference::Text { prompt: prompt.clone(), chosen, rejected });
        }
        _ => {}
    }
    if let Some(prompt) = rows::conversation_before(columns)? {
        return chat(prompt, answered(&chosen), answered(&rejected), tools);
    }
    if columns.contains_key("instruction") {
        return chat(rows::asked(columns)?, answered(&chosen), answered(&rejected), tools);
    }
    // As TRL's `extract_prompt`: what both begin with, without the space before the first difference.
    let (c, r): (Vec<char>, Vec<char>) = (chosen.chars().collect(), rejected.chars().collect());
    let mut at = split(&c, &r)?;
    if at > 0 && c[at] != r[at] && c[at - 1] == ' ' {
        at -= 1;
    }
    let text = |all: &[char]| all.iter().collect::<String>();
    Ok(Preference::Text { prompt: text(&c[..at]), chosen: text(&c[at..]), rejected: text(&r[at..]) })
}

/// The first place where two answers differ; where one is the beginning of the other, its last element.
fn split<T: PartialEq>(a: &[T], b: &[T]) -> Result<usize, Problem> {
    let shared = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    match shared {
        n if n == a.len() && n == b.len() => Err("chosen and rejected are the same".to_string()),
        n => Ok(n.min(a.len().min(b.len()) - 1)),
    }
}

fn implicit(chosen: Vec<Value>, rejected: Vec<Value>, tools: Option<Value>) -> Result<Preference, Problem> {
    let at = split(&chosen, &rejected)?;
    if at == 0 {
        return Err(
            "there is no prompt: no prompt or conversations column, and chosen and rejected begin with different messages"
                .to_string(),
        );
    }
    let prompt = chosen[..at].to_vec();
    chat(prompt, chosen[at..].to_vec(), rejected[at..].to_vec(), tools)
}

fn chat(
    prompt: Vec<Value>,
    chosen: Vec<Value>,
    rejected: Vec<Value>,
    tools: Option<Value>,
) -> Result<Preference, Problem> {
    for (name, answer) in [("chosen", &chosen), ("rejected", &rejected)] {
        if !answer.iter().any(|m| role(m) == "assistant") {
            return Err(format!("{name} has no assistant message: there is nothing to learn"));
        }
    }
    if chosen == rejected {
        return Err("chosen and rejected are the same".to_string());
    }
    Ok(Preference::Chat { prompt, chosen, rejected, tools })
}

/// Tokenize a pair as TRL does: the answers begin where the tokens of prompt and prompt with answer part, at the
/// earlier of both places; plain answers are closed with the end-of-text token; too long ones keep their start. A pair
/// whose prompt alone fills `max_seq_length` gives no examples.
pub fn make(row: &Preference, number: u32, model: &ModelSide, options: &Options) -> Result<Made, Problem> {
    let encode = |text: &str, special: bool| {
        model.encode.encode(text, special).map(|e| e.ids).map_err(|e| format!("it cannot be tokenized: {}", e.what))
    };
    let (prompt, chosen, rejected, parted) = match row {
        Preference::Text { prompt, chosen, rejected } => {
            let closed = |text: &str| match model.eos_token {
                Some(eos) if !text.ends_with(eos) => format!("{prompt}{text}{eos}"),
                _ => format!("{prompt}{text}"),
            };
            (encode(prompt, true)?, encode(&closed(chosen), true)?, encode(&closed(rejected), true)?, false)
        }
        Preference::Chat { prompt, chosen, rejected, tools } => {
            let render = model.render.ok_or("the model has no chat template to render it with")?;
            let text = |answer: &[Value], ask: bool| {
                let all: Vec<Value> = prompt.iter().chain(answer).cloned().collect();
                render
                    .render(&all, tools.as_ref(), ask)
                    .map_err(|e| format!("the chat template refuses it: {}", e.what))
            };
            let (asked, better, worse) = (text(&[], true)?, text(chosen, false)?, text(rejected, false)?);
            let parted = !better.starts_with(&asked) || !worse.starts_with(&asked);
            (encode(&asked, false)?, encode(&better, false)?, encode(&worse, false)?, parted)
        }
    };
    let shared = |ids: &[u32]| prompt.iter().zip(ids).take_while(|(a, b)| a == b).count();
    let start = shared(&chosen).min(shared(&rejected));
    let method = if parted { MaskMethod::Parted } else { MaskMethod::Completion };
    let max = options.max_seq_length;
    let mut made = Made { examples: Vec::new(), method, truncated: false, masked_out: 0, columns: String::new() };
    // TRL drops what has no token of an answer left; the first token of a sequence is predicted from nothing.
    if start >= max || chosen.len().min(rejected.len()) <= start.max(1) {
        made.masked_out = 1;
        return Ok(made);
    }
    for mut ids in [chosen, rejected] {
        let truncated = ids.len() > max;
        ids.truncate(max);
        made.truncated |= truncated;
        let trained: Vec<bool> = (0..ids.len()).map(|i| i >= start).collect();
        made.examples.push(Example { ids: ids.into(), trained: trained.into(), row: number, truncated });
    }
    Ok(made)
}

#[cfg(test)]
#[path = "preference_tests.rs"]
mod tests;
