//! A row into training examples: labels as the recipe asks, end-of-text token, cutting to length.
//!
//! Knows one row at a time; nothing of files, splits or batches.

use super::batch::Example;
use super::mask::{self, Labelled, Labels, MaskMethod, Masker};
use super::preference;
use super::prompt;
use super::rows::{Chat, Problem, Row};
use super::traits::ModelSide;
use crate::recipe::Method;
use serde_json::Value;

/// What of a recipe decides a row's tokens and labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Options {
    /// With cpt every token is a label, and long rows are cut into blocks with nothing dropped.
    pub method: Method,
    pub assistant_only_loss: bool,
    pub completion_only_loss: bool,
    pub max_seq_length: usize,
}

/// One row, tokenized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    pub examples: Vec<Example>,
    pub method: MaskMethod,
    /// Whether any of it was cut off at `max_seq_length`.
    pub truncated: bool,
    /// Examples with no label left: all of them were cut off.
    pub masked_out: u32,
    /// Of a prompt: what it is asked and judged by, as JSON; else empty.
    pub columns: String,
}

/// Tokenize one row.
///
/// # Errors
/// A problem of the row, in words.
pub fn make(row: &Row, number: u32, model: &ModelSide, options: &Options) -> Result<Made, Problem> {
    if let Row::Preference(pair) = row {
        return preference::make(pair, number, model, options);
    }
    if let Row::Prompt(prompt) = row {
        return prompt::make(prompt, number, model, options);
    }
    let (labelled, method) = label(row, model, options)?;
    let max = options.max_seq_length;
    let mut made = Made { examples: Vec::new(), method, truncated: false, masked_out: 0, columns: String::new() };
    for l in labelled {
        if options.method == Method::Cpt {
            made.examples.extend(blocks(&l.ids, max).map(|ids| Example {
                trained: vec![true; ids.len()].into(),
                ids: ids.to_vec().into(),
                row: number,
                truncated: false,
            }));
            continue;
        }
        let e = cut(l, number, max);
        made.truncated |= e.truncated;
        // The first token has nothing before it to be predicted from.
        if e.trained.iter().skip(1).any(|&t| t) {
            made.examples.push(e);
        } else {
            made.masked_out += 1;
        }
    }
    Ok(made)
}

fn label(row: &Row, model: &ModelSide, options: &Options) -> Result<(Vec<Labelled>, MaskMethod), Problem> {
    let closed = |text: &str| match model.eos_token {
        Some(eos) if !text.ends_with(eos) => format!("{text}{eos}"),
        _ => text.to_string(),
    };
    let only_the_completion = options.completion_only_loss || options.assistant_only_loss;
    match row {
        Row::Text(text) => {
            let ids = model
                .encode
                .encode(&closed(text), true)
                .map_err(|e| format!("it cannot be tokenized: {}", e.what))?
                .ids;
            Ok((vec![Labelled { trained: vec![true; ids.len()], ids }], MaskMethod::All))
        }
        Row::Pair { prompt, completion } => {
            let masked = only_the_completion && options.method != Method::Cpt;
            let l = mask::pair(model.encode, prompt, &closed(completion), masked)?;
            Ok((vec![l], if masked { MaskMethod::Completion } else { MaskMethod::All }))
        }
        Row::Chat(chat) => {
            let render = model.render.ok_or("the model has no chat template to render it with")?;
            let text = if render.calls_tools() { None } else { calls_as_text(chat) };
            let chat = text.as_ref().unwrap_or(chat);
            Masker { encode: model.encode, render }.chat(chat, labels(chat, options))
        }
        Row::Preference(_) | Row::Prompt(_) => Err("it has no one answer".to_string()),
    }
}

/// The chat with each call of a tool as the text of its turn, one JSON object a line; `None` where there is no call.
fn calls_as_text(chat: &Chat) -> Option<Chat> {
    let calls = |m: &Value| m.get("tool_calls").and_then(Value::as_array).filter(|c| !c.is_empty()).cloned();
    chat.messages.iter().find_map(calls)?;
    let mut chat = chat.clone();
    for m in &mut chat.messages {
        let Some(calls) = calls(m) else { continue };
        let said = m.get("content").and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_string);
        let calls = calls.iter().map(|c| c.get("function").unwrap_or(c).to_string());
        m["content"] = said.into_iter().chain(calls).collect::<Vec<_>>().join("\n").into();
        if let Some(map) = m.as_object_mut() {
            map.remove("tool_calls");
        }
    }
    Some(chat)
}

/// Which labels a chat gets.
fn labels(chat: &Chat, options: &Options) -> Labels {
    if options.method == Method::Cpt || !(options.assistant_only_loss || options.completion_only_loss) {
        return Labels::All;
    }
    match chat.prompt {
        // TRL intersects both masks: where the completion is one assistant message they are the same.
        Some(split) if options.assistant_only_loss && chat.messages.len() - split > 1 => Labels::Assistant,
        Some(_) => Labels::Completion,
        None if options.completion_only_loss => Labels::LastAssistant,
        None => Labels::Assistant,
    }
}

/// Keep the start (TRL's `truncation_mode = "keep_start"`).
fn cut(mut l: Labelled, row: u32, max: usize) -> Example {
    let truncated = l.ids.len() > max;
    l.ids.truncate(max);
    l.trained.truncate(max);
    Example { ids: l.ids.into(), trained: l.trained.into(), row, truncated }
}

/// Consecutive blocks of at most `max` tokens, nothing dropped. A last block of one token could predict nothing,
/// so the block before it then gives one up.
fn blocks(ids: &[u32], max: usize) -> impl Iterator<Item = &[u32]> {
    let max = max.max(1);
    let lone = max > 2 && ids.len() > max && ids.len() % max == 1;
    let mut rest = ids;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let n = if lone && rest.len() == max + 1 { max - 1 } else { max.min(rest.len()) };
        let (block, tail) = rest.split_at(n);
        rest = tail;
        Some(block)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::fakes::{CHATML, CharTokens, SPECIAL};
    use serde_json::json;

    const EOS: u32 = SPECIAL + 2;

    fn options(max_seq_length: usize) -> Options {
        Options { method: Method::Sft, assistant_only_loss: true, completion_only_loss: false, max_seq_length }
    }

    fn run(row: &Row, options: &Options) -> Made {
        let tokens = CharTokens::default();
        let model = ModelSide { encode: &tokens, render: Some(&CHATML), eos_token: Some("<|endoftext|>") };
        make(row, 7, &model, options).unwrap()
    }

    fn text(s: &str) -> Row {
        Row::Text(s.to_string())
    }

    #[test]
    fn a_text_is_closed_with_eos_once_and_all_of_it_is_trained() {
        for s in ["ab", "ab<|endoftext|>"] {
            let made = run(&text(s), &options(10));
            assert_eq!(made.examples[0].ids, [97, 98, EOS]);
            assert_eq!(made.examples[0].trained, [true; 3]);
            assert_eq!(made.examples[0].row, 7);
        }
    }

    #[test]
    fn an_eos_inside_a_label_stays_a_label() {
        let pair = Row::Pair { prompt: "a".into(), completion: "b<|endoftext|>c".into() };
        let made = run(&pair, &options(10));
        assert_eq!(made.examples[0].ids, [97, 98, EOS, 99, EOS]);
        assert_eq!(made.examples[0].trained, [false, true, true, true, true]);
    }

    #[test]
    fn too_long_rows_keep_their_start_and_say_so() {
        let made = run(&text("abcdef"), &options(4));
        assert_eq!(made.examples[0].ids, [97, 98, 99, 100]);
        assert!(made.examples[0].truncated);
        assert!(!run(&text("abc"), &options(4)).examples[0].truncated);
    }

    #[test]
    fn a_row_whose_labels_are_all_cut_off_is_counted_and_not_trained() {
        let pair = Row::Pair { prompt: "abcdef".into(), completion: "g".into() };
        let made = run(&pair, &options(6));
        assert_eq!((made.examples.len(), made.masked_out), (0, 1));
        assert_eq!(run(&pair, &options(7)).examples.len(), 1);
    }

    #[test]
    fn cpt_cuts_a_document_into_blocks_and_drops_nothing() {
        for n in 1..40 {
            let body: String = (0..n).map(|i| char::from(b'a' + (i % 26) as u8)).collect();
            let made = run(&text(&body), &Options { method: Method::Cpt, ..options(8) });
            let joined: Vec<u32> = made.examples.iter().flat_map(|e| e.ids.to_vec()).collect();
            let expected: Vec<u32> = body.chars().map(u32::from).chain([EOS]).collect();
            assert_eq!(joined, expected);
            assert!(made.examples.iter().all(|e| (2..=8).contains(&e.ids.len()) && !e.truncated));
            let full = made.examples.iter().filter(|e| e.ids.len() == 8).count();
            assert!(full + 2 >= made.examples.len());
        }
    }

    #[test]
    fn the_recipes_options_choose_the_labels() {
        let message = |r: &str, c: &str| json!({ "role": r, "content": c });
        let messages =
            vec![message("user", "a"), message("assistant", "b"), message("user", "c"), message("assistant", "d")];
        let chat = Chat { messages, ..Chat::default() };
        let pair = Chat { prompt: Some(3), ..chat.clone() };
        let long_pair = Chat { prompt: Some(1), ..chat.clone() };
        for (assistant, completion, c, p, l) in [
            (true, false, Labels::Assistant, Labels::Completion, Labels::Assistant),
            (false, true, Labels::LastAssistant, Labels::Completion, Labels::Completion),
            (true, true, Labels::LastAssistant, Labels::Completion, Labels::Assistant),
            (false, false, Labels::All, Labels::All, Labels::All),
        ] {
            let o = Options { assistant_only_loss: assistant, completion_only_loss: completion, ..options(8) };
            assert_eq!((labels(&chat, &o), labels(&pair, &o), labels(&long_pair, &o)), (c, p, l));
        }
    }

    #[test]
    fn a_chat_without_a_template_is_a_problem() {
        let tokens = CharTokens::default();
        let model = ModelSide { encode: &tokens, render: None, eos_token: None };
        let chat = Row::Chat(Chat { messages: vec![json!({"role":"user","content":"a"})], ..Chat::default() });
        assert!(make(&chat, 0, &model, &options(8)).unwrap_err().contains("no chat template"));
    }
}
