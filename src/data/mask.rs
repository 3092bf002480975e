//! Which tokens are trained on: label spans of a chat, by rendering it through its own template.
//!
//! Of an assistant turn, the label is what the rendering holds after the generation prompt, to the end of the turn
//! (in ChatML the newline after `<|im_end|>` too): what the model has to write when it is served. The text is
//! tokenized once, and spans become tokens by their byte offsets, so a label never depends on an id: one that
//! equals pad or eos stays a label.

use super::rows::{Chat, Problem, role};
use super::traits::{Encode, Encoding, Render};
use serde_json::Value;
use std::ops::Range;

/// Which tokens of a chat are labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Labels {
    /// Every token (language modelling).
    All,
    /// Every assistant turn (`assistant_only_loss`).
    Assistant,
    /// The last assistant turn (`completion_only_loss` of a chat).
    LastAssistant,
    /// All that follows the prompt's messages (`completion_only_loss` of prompt and completion).
    Completion,
}

/// How the labels of a row were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaskMethod {
    /// All tokens are labels.
    All,
    /// The rendering up to a turn, with its generation prompt, is a prefix of the whole.
    Prefix,
    /// The template's `{% generation %}` marks.
    Marks,
    /// Each assistant turn is an example of its own.
    TurnByTurn,
    /// As `TurnByTurn` or as prompt and completion, but the generation prompt is no prefix even there:
    /// labels begin where the two renderings part (as in TRL).
    Parted,
    /// Prompt and completion: the tokens after those they share with the prompt alone (as in TRL).
    Completion,
    /// A prompt: no token is a label, what is drawn after it will be.
    Prompt,
}

/// Token ids with their labels.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Labelled {
    pub ids: Vec<u32>,
    pub trained: Vec<bool>,
}

/// A template and a tokenizer.
#[derive(Clone, Copy)]
pub struct Masker<'a> {
    pub encode: &'a dyn Encode,
    pub render: &'a dyn Render,
}

/// The label spans of one rendering.
struct Spans {
    text: String,
    spans: Vec<Range<usize>>,
}

impl Masker<'_> {
    /// Tokens and labels of a chat: one example, or one for each assistant turn.
    ///
    /// # Errors
    /// A problem of the row: nothing to train on, or what the template raised.
    pub fn chat(&self, chat: &Chat, labels: Labels) -> Result<(Vec<Labelled>, MaskMethod), Problem> {
        let full = self.text(chat, chat.messages.len(), false)?;
        if labels == Labels::All {
            let ids = self.encoding(&full)?.ids;
            return Ok((vec![Labelled { trained: vec![true; ids.len()], ids }], MaskMethod::All));
        }
        if labels == Labels::Completion {
            return self.completion(chat, &full);
        }
        let turns = wanted(chat, labels);
        if turns.is_empty() {
            return Err("there is no assistant turn, so there is nothing to train on".to_string());
        }
        if let Some(spans) = self.prefix_spans(chat, &full, &turns) {
            return Ok((vec![self.labelled(&Spans { text: full, spans })?], MaskMethod::Prefix));
        }
        if let Some(spans) = self.marked_spans(chat, &turns)? {
            return Ok((vec![self.labelled(&spans)?], MaskMethod::Marks));
        }
        let mut method = MaskMethod::TurnByTurn;
        let mut examples = Vec::new();
        for &turn in &turns {
            let (spans, parted) = self.one_turn(chat, turn)?;
            if parted {
                method = MaskMethod::Parted;
            }
            examples.push(self.labelled(&spans)?);
        }
        Ok((examples, method))
    }

    /// The first `n` messages as text.
    fn text(&self, chat: &Chat, n: usize, add_generation_prompt: bool) -> Result<String, Problem> {
        self.render
            .render(&chat.messages[..n], chat.tools.as_ref(), add_generation_prompt)
            .map_err(|e| format!("the chat template refuses it: {}", e.what))
    }

    fn encoding(&self, text: &str) -> Result<Encoding, Problem> {
        self.encode.encode(text, false).map_err(|e| format!("it cannot be tokenized: {}", e.what))
    }

    fn labelled(&self, spans: &Spans) -> Result<Labelled, Problem> {
        let encoding = self.encoding(&spans.text)?;
        let trained = encoding.covered(&spans.spans);
        Ok(Labelled { ids: encoding.ids, trained })
    }

    /// Spans of `turns` in the whole rendering; `None` as soon as one rendering is not a prefix of the next.
    fn prefix_spans(&self, chat: &Chat, full: &str, turns: &[usize]) -> Option<Vec<Range<usize>>> {
        let last = chat.messages.len() - 1;
        turns
            .iter()
            .map(|&turn| {
                let prompt = self.text(chat, turn, true).ok()?;
                let end = match turn == last {
                    true => full.len(),
                    false => {
                        let upto = self.text(chat, turn + 1, false).ok()?;
                        full.starts_with(&upto).then_some(upto.len())?
                    }
                };
                (full.starts_with(&prompt) && prompt.len() < end).then_some(prompt.len()..end)
            })
            .collect()
    }

    /// Spans of `turns` as the template marks them; `None` without marks, or where they are not one a turn.
    fn marked_spans(&self, chat: &Chat, turns: &[usize]) -> Result<Option<Spans>, Problem> {
        let marked = self
            .render
            .render_marked(&chat.messages, chat.tools.as_ref())
            .map_err(|e| format!("the chat template refuses it: {}", e.what))?;
        let Some(marked) = marked else { return Ok(None) };
        let all = wanted(&Chat { prompt: None, ..chat.clone() }, Labels::Assistant);
        if marked.spans.len() != all.len() {
            return Ok(None);
        }
        let spans = all.iter().zip(marked.spans).filter(|(turn, _)| turns.contains(turn)).map(|(_, s)| s).collect();
        Ok(Some(Spans { text: marked.text, spans }))
    }

    /// The chat up to and with one assistant turn, that turn its label; and whether the label had to begin where
    /// the rendering parts from the prompt's.
    fn one_turn(&self, chat: &Chat, turn: usize) -> Result<(Spans, bool), Problem> {
        let text = self.text(chat, turn + 1, false)?;
        let (start, parted) = if turn == 0 {
            // Nothing comes before it, so there is no prompt to render.
            (self.content_start(chat, turn, &text)?, false)
        } else {
            let prompt = self.text(chat, turn, true)?;
            let shared = common_prefix(&prompt, &text);
            if shared == prompt.len() {
                (shared, false)
            } else {
                // They must not part in an earlier turn, or that would become a label.
                let before = self.text(chat, turn, false)?;
                let in_this_turn = text.starts_with(&before) && shared >= before.len();
                (if in_this_turn { shared } else { self.content_start(chat, turn, &text)? }, true)
            }
        };
        if start >= text.len() {
            return Err(format!("the chat template writes nothing for the assistant turn (message {turn})"));
        }
        let spans = std::iter::once(start..text.len()).collect();
        Ok((Spans { text, spans }, parted))
    }

    /// Where the content of the last message begins: where two renderings part that differ in it only.
    fn content_start(&self, chat: &Chat, turn: usize, text: &str) -> Result<usize, Problem> {
        let mut other = Chat { messages: chat.messages[..=turn].to_vec(), ..chat.clone() };
        let content = &mut other.messages[turn]["content"];
        let first = content.as_str().and_then(|c| c.trim_start().chars().next());
        *content = Value::String(if first == Some('x') { "y" } else { "x" }.to_string());
        Ok(common_prefix(&self.text(&other, turn + 1, false)?, text))
    }

    /// Prompt and completion as messages: labels after the tokens shared with the prompt's own rendering.
    fn completion(&self, chat: &Chat, full: &str) -> Result<(Vec<Labelled>, MaskMethod), Problem> {
        let prompt = self.text(chat, chat.prompt.unwrap_or(0), true)?;
        let (prompt_ids, ids) = (self.encoding(&prompt)?.ids, self.encoding(full)?.ids);
        let shared = shared_tokens(&prompt_ids, &ids);
        let method = if full.starts_with(&prompt) { MaskMethod::Completion } else { MaskMethod::Parted };
        let trained = (0..ids.len()).map(|i| i >= shared).collect();
        Ok((vec![Labelled { ids, trained }], method))
    }
}

/// Plain prompt and completion, as TRL tokenizes them: each as text of its own with the tokenizer's special tokens,
/// the completion being what follows the tokens they share.
pub fn pair(encode: &dyn Encode, prompt: &str, completion: &str, completion_only: bool) -> Result<Labelled, Problem> {
    let encoding = |text: &str| match encode.encode(text, true) {
        Ok(e) => Ok(e.ids),
        Err(e) => Err(format!("it cannot be tokenized: {}", e.what)),
    };
    let ids = encoding(&format!("{prompt}{completion}"))?;
    let shared = if completion_only { shared_tokens(&encoding(prompt)?, &ids) } else { 0 };
    let trained = (0..ids.len()).map(|i| i >= shared).collect();
    Ok(Labelled { ids, trained })
}

/// Indices of the assistant turns to be trained.
fn wanted(chat: &Chat, labels: Labels) -> Vec<usize> {
    let from = chat.prompt.unwrap_or(0);
    let mut turns: Vec<_> = (from..chat.messages.len()).filter(|&i| role(&chat.messages[i]) == "assistant").collect();
    if labels == Labels::LastAssistant {
        turns.drain(..turns.len().saturating_sub(1));
    }
    turns
}

/// Tokens that both begin with (TRL 1.16, `common_prefix_length`).
fn shared_tokens(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

/// Bytes that both begin with, up to a character boundary.
fn common_prefix(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(x, y)| x == y).map(|(x, _)| x.len_utf8()).sum()
}

#[cfg(test)]
#[path = "mask_tests.rs"]
mod tests;
