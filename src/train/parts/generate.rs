//! Draw a completion token by token over a KV cache, until an end token, a stop string or the length.

use super::sampler;
use crate::model::engine::Engine;
use crate::ops::random::Stream;
use crate::train::event::SampleSettings;
use crate::{Error, Result};

/// What ends a completion besides its length.
#[derive(Debug, Clone, Default)]
pub struct Stops {
    pub ids: Vec<u32>,
    pub strings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// Without the end token, and cut before a stop string.
    pub text: String,
    pub ids: Vec<u32>,
    pub stop_reason: &'static str,
}

/// Complete `prompt`. `stream` is the random stream of this draw (the index of the prompt): the same seed, stream and
/// settings give the same text. `decode` turns generated ids into text; `on_token` sees the ids after each new one and
/// ends the draw by returning false.
pub fn generate(
    model: &Engine,
    prompt: &[u32],
    settings: &SampleSettings,
    stops: &Stops,
    stream: u64,
    decode: &dyn Fn(&[u32]) -> Result<String>,
    on_token: &mut dyn FnMut(&[u32]) -> bool,
) -> Result<Completion> {
    if prompt.is_empty() {
        return Err(Error::new("the prompt is empty").next("give at least one token of prompt"));
    }
    let limit = model.config().max_position_embeddings;
    let room = limit.saturating_sub(prompt.len());
    if room == 0 {
        return Err(Error::new(format!("the prompt has {} tokens, the model's context {limit}", prompt.len()))
            .next("shorten the prompt"));
    }
    let most = (settings.max_new_tokens as usize).min(room);
    let mut cache = model.new_cache(prompt.len() + most)?;
    let mut context = prompt.to_vec();
    let mut logits = model.decode(prompt, &mut cache)?;
    for n in 0..most {
        let id = sampler::pick(&mut logits, &context, settings, uniform(settings.seed, stream, n as u32));
        if stops.ids.contains(&id) {
            return finish(&context[prompt.len()..], decode, "stop");
        }
        context.push(id);
        let new = &context[prompt.len()..];
        if !stops.strings.is_empty() {
            let text = decode(new)?;
            if let Some(at) = stops.strings.iter().filter(|s| !s.is_empty()).filter_map(|s| text.find(s.as_str())).min()
            {
                return Ok(Completion { text: text[..at].to_string(), ids: new.to_vec(), stop_reason: "stop_string" });
            }
        }
        if !on_token(new) {
            return finish(new, decode, "interrupted");
        }
        if n + 1 < most {
            logits = model.decode(&[id], &mut cache)?;
        }
    }
    finish(&context[prompt.len()..], decode, "length")
}

/// The `n`-th number of a draw, uniform in 0..1 with 53 bits. Its stream shares nothing with dropout's.
fn uniform(seed: u64, stream: u64, n: u32) -> f64 {
    const SAMPLING: u32 = u32::from_le_bytes(*b"draw");
    let [a, b, ..] = Stream { seed, words: [SAMPLING, stream as u32, (stream >> 32) as u32] }.block(n);
    ((u64::from(a) << 21) ^ (u64::from(b) >> 11)) as f64 / (1u64 << 53) as f64
}

fn finish(ids: &[u32], decode: &dyn Fn(&[u32]) -> Result<String>, stop_reason: &'static str) -> Result<Completion> {
    Ok(Completion { text: decode(ids)?, ids: ids.to_vec(), stop_reason })
}

/// Share of 4-grams of `ids` that stood there before: 0 where nothing repeats, near 1 in a loop.
pub fn repetition(ids: &[u32]) -> f64 {
    const N: usize = 4;
    if ids.len() < N + 1 {
        return 0.0;
    }
    let mut grams: Vec<&[u32]> = ids.windows(N).collect();
    let all = grams.len();
    grams.sort_unstable();
    grams.dedup();
    (all - grams.len()) as f64 / all as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetition_is_zero_for_distinct_tokens_and_near_one_in_a_loop() {
        assert_eq!(repetition(&[1, 2, 3, 4, 5, 6, 7, 8]), 0.0);
        assert!(repetition(&[7, 8].repeat(50)) > 0.95);
        assert_eq!(repetition(&[1, 1]), 0.0);
    }
}
