//! What both sides are asked, and what the trained model answers.

use crate::Result;
use crate::data::batch::Batch;
use crate::data::template::ChatTemplate;
use crate::data::tokenizer::Tokenizer;
use crate::data::traits::Render;
use crate::model::engine::Engine;
use serde_json::{Value, json};

/// Tokens after which a completion counts as one that does not stop.
pub const MOST: usize = 96;

/// Texts that tokenizers disagree about: digits, spaces, line ends, other scripts, markup.
const TEXTS: [&str; 8] = [
    "The quick brown fox jumps over 13 lazy dogs, twice.",
    "  two spaces, a\ttab,\n\na blank line and 1234567890 3.14 1,000",
    "def f(x):\n    return x ** 2  # squared\n",
    "Zażółć gęślą jaźń — «quotes», naïve café, 北京 東京 서울 🙂👩‍👩‍👧",
    "I'm, you're, he'll, WE'VE, o'clock '99",
    "https://example.org/path?query=1&other=two#part",
    "{\"name\": \"value\", \"list\": [1, 2, 3], \"empty\": null}",
    "",
];

/// Plain English that no chat is, for a perplexity.
pub const PASSAGE: &str = "A river does not hurry to the sea. It goes around what it cannot move, wears down what it can, \
and carries the rest along. On its way it feeds the fields, turns the wheels of mills, and gives towns a reason to \
stand where they stand. In dry summers people remember how much of their life depends on it; in wet springs they build \
their walls a little higher. The old maps show its bed in other places, and the older ones in others again, so that a \
person who follows the river follows a line that was never drawn twice in the same way. What stays is the direction: \
from the hills, where three brooks meet under alders, down to the flat land, where it is wide and slow and brown, and \
where the first gulls tell that the coast is near.";

/// A chat to render, up to where the model speaks.
pub struct Probe {
    pub messages: Vec<Value>,
}

/// Chats that show what templates differ in: a system prompt, several turns, none of either.
pub fn chats(system: Option<&str>, prompts: &[String]) -> Vec<Probe> {
    let user = |text: &str| json!({"role": "user", "content": text});
    let opening: Vec<Value> = system.iter().map(|s| json!({"role": "system", "content": s})).collect();
    let with = |messages: &[Value]| Probe { messages: [opening.as_slice(), messages].concat() };
    let mut all: Vec<Probe> = prompts.iter().take(4).map(|p| with(&[user(p)])).collect();
    if all.is_empty() {
        all.push(with(&[user("Write one sentence about the sea.")]));
        all.push(with(&[user("What is the capital of France?")]));
    }
    all.push(Probe {
        messages: vec![
            json!({"role": "system", "content": "Answer in one word."}),
            user("Which is larger, 7 or 12?"),
            json!({"role": "assistant", "content": "12"}),
            user("And of 30 and 8?"),
        ],
    });
    all
}

/// A chat as the trained model sees and answers it.
pub struct Answer {
    pub messages: Vec<Value>,
    /// The rendered chat.
    pub prompt: Vec<u32>,
    /// Greedy, without the end token.
    pub completion: Vec<u32>,
    pub stops: bool,
    /// How likely the end is after the completion.
    pub ending: f64,
}

/// The trained model's side: everything that a stage is compared with.
pub struct Trained {
    pub answers: Vec<Answer>,
    /// A text and its ids.
    pub texts: Vec<(String, Vec<u32>)>,
    /// Sequences that logits are compared over.
    pub sequences: Vec<Vec<u32>>,
    /// Log-probabilities `[T · V]` of each.
    pub log_probabilities: Vec<Vec<f32>>,
    pub vocab_size: usize,
    pub stop_ids: Vec<u32>,
}

impl Trained {
    /// Ask the trained model. A chat that the template refuses (no system role) is left out; without a template the
    /// last message is plain text.
    pub fn of(
        model: &Engine,
        tokenizer: &Tokenizer,
        template: Option<&ChatTemplate>,
        stop_ids: &[u32],
        probes: Vec<Probe>,
    ) -> Result<Self> {
        let mut answers = Vec::new();
        for probe in probes {
            let Ok(prompt) = render(tokenizer, template, &probe.messages) else { continue };
            let (completion, stops) = greedy(model, &prompt, stop_ids)?;
            let words = [prompt.as_slice(), &completion].concat();
            let ending = ending(&log_probabilities(model, &words)?, model.config().vocab_size, stop_ids);
            answers.push(Answer { messages: probe.messages, prompt, completion, stops, ending });
        }
        let mut texts = Vec::new();
        for text in TEXTS {
            texts.push((text.to_string(), tokenizer.encode_with_special(text)?.ids));
        }
        let limit = model.config().max_position_embeddings;
        let mut sequences: Vec<Vec<u32>> =
            answers.iter().map(|a| [a.prompt.as_slice(), &a.completion].concat()).collect();
        sequences.push(tokenizer.encode_with_special(PASSAGE)?.ids);
        sequences.iter_mut().for_each(|s| s.truncate(limit.min(512)));
        let log_probabilities = sequences.iter().map(|s| log_probabilities(model, s)).collect::<Result<_>>()?;
        let vocab_size = model.config().vocab_size;
        Ok(Self { answers, texts, sequences, log_probabilities, vocab_size, stop_ids: stop_ids.to_vec() })
    }
}

/// The ids of a chat up to where the model speaks.
pub fn render(tokenizer: &Tokenizer, template: Option<&ChatTemplate>, messages: &[Value]) -> Result<Vec<u32>> {
    match template {
        Some(template) => Ok(tokenizer.encode(&template.render(messages, None, true)?)?.ids),
        None => {
            let text = messages.last().and_then(|m| m["content"].as_str()).unwrap_or_default();
            Ok(tokenizer.encode_with_special(text)?.ids)
        }
    }
}

/// The likeliest token again and again: what comes, and whether an end token came before [`MOST`].
pub fn greedy(model: &Engine, prompt: &[u32], stop_ids: &[u32]) -> Result<(Vec<u32>, bool)> {
    let most = MOST.min(model.config().max_position_embeddings.saturating_sub(prompt.len()));
    let mut out = Vec::new();
    if prompt.is_empty() || most == 0 {
        return Ok((out, false));
    }
    let mut cache = model.new_cache(prompt.len() + most)?;
    let mut logits = model.decode(prompt, &mut cache)?;
    for _ in 0..most {
        let id = argmax(&logits) as u32;
        if stop_ids.contains(&id) {
            return Ok((out, true));
        }
        out.push(id);
        if out.len() < most {
            logits = model.decode(&[id], &mut cache)?;
        }
    }
    Ok((out, false))
}

/// The first of the largest.
pub fn argmax(values: &[f32]) -> usize {
    let mut best = 0;
    for (i, v) in values.iter().enumerate() {
        if *v > values[best] {
            best = i;
        }
    }
    best
}

/// The probability of an end token after the last position of `log_probabilities [T · V]`.
pub fn ending(log_probabilities: &[f32], vocab_size: usize, stop_ids: &[u32]) -> f64 {
    let last = log_probabilities.chunks_exact(vocab_size).next_back();
    let of = |id: &u32| last.and_then(|row| row.get(*id as usize)).map_or(0.0, |l| f64::from(*l).exp());
    stop_ids.iter().map(of).sum()
}

/// Log-probabilities of every next token, `[T · V]`.
pub fn log_probabilities(model: &Engine, ids: &[u32]) -> Result<Vec<f32>> {
    use rayon::prelude::*;
    let n = ids.len();
    let batch = Batch {
        ids: ids.to_vec(),
        positions: (0..n as u32).collect(),
        labels: vec![crate::data::batch::IGNORE; n],
        cu_seqlens: vec![0, n as u32],
        rows: vec![0],
    };
    let mut values: Vec<f32> = model.logits(&batch)?.flatten_all()?.to_vec1()?;
    values.par_chunks_mut(model.config().vocab_size).for_each(|row| {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|v| f64::from(v - max).exp()).sum();
        let log = max + sum.ln() as f32;
        row.iter_mut().for_each(|v| *v -= log);
    });
    Ok(values)
}
