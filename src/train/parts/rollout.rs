//! Completions for GRPO: every prompt's group at once over a KV cache. The prompt is read once; a completion that has
//! ended leaves, and the others go on.
//!
//! A draw is a function of the weights, the seed, the step and the completion's place in it: the same again after a
//! resume.

use super::sampler;
use crate::Result;
use crate::model::engine::{Cache, Engine};
use crate::ops::random::Stream;
use crate::train::event::SampleSettings;

/// Completions that are decoded side by side.
const SIDE_BY_SIDE: usize = 64;
/// Tokens between two looks at whether a stop waits.
const LOOK_EVERY: usize = 8;

/// One completion.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Drawn {
    /// Its tokens, the end token included.
    pub ids: Vec<u32>,
    /// Cut off at the full length before it ended.
    pub truncated: bool,
}

/// Draw `group` completions of each of `prompts`, those of one prompt side by side in the answer. `settings` says how
/// and how long; `seed` and `step` are those of the run. `None` where `go_on` said no.
pub fn draw(
    model: &Engine,
    prompts: &[&[u32]],
    group: usize,
    settings: &SampleSettings,
    end_ids: &[u32],
    step: u64,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Option<Vec<Drawn>>> {
    let mut all = Vec::with_capacity(prompts.len() * group);
    for (first, prompts) in prompts.chunks((SIDE_BY_SIDE / group.max(1)).max(1)).scan(0, |at, chunk| {
        let first = *at;
        *at += chunk.len();
        Some((first, chunk))
    }) {
        match some(model, prompts, first * group, group, settings, end_ids, step, go_on)? {
            Some(drawn) => all.extend(drawn),
            None => return Ok(None),
        }
    }
    Ok(Some(all))
}

/// A completion that is being written.
struct Row<'a> {
    prompt: &'a [u32],
    /// Its place among all completions of the step.
    place: usize,
    cache: Cache,
    drawn: Drawn,
    most: usize,
}

#[allow(clippy::too_many_arguments)]
fn some(
    model: &Engine,
    prompts: &[&[u32]],
    first: usize,
    group: usize,
    settings: &SampleSettings,
    end_ids: &[u32],
    step: u64,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Option<Vec<Drawn>>> {
    let context = model.config().max_position_embeddings;
    let mut rows: Vec<Row> = Vec::with_capacity(prompts.len() * group);
    // The logits that follow each row's last token.
    let mut logits: Vec<Vec<f32>> = Vec::new();
    for (p, prompt) in prompts.iter().enumerate() {
        let most = (settings.max_new_tokens as usize).min(context.saturating_sub(prompt.len()));
        let mut read = model.new_cache(prompt.len())?;
        let next = model.decode(prompt, &mut read)?;
        for g in 0..group {
            let cache = model.fork_cache(&read, prompt.len() + most)?;
            rows.push(Row { prompt, place: first + p * group + g, cache, drawn: Drawn::default(), most });
            logits.push(next.clone());
        }
    }
    let mut writing: Vec<usize> = (0..rows.len()).collect();
    for n in 0.. {
        if n % LOOK_EVERY == 0 && !go_on() {
            return Ok(None);
        }
        let mut still = Vec::with_capacity(writing.len());
        for (&i, logits) in writing.iter().zip(&mut logits) {
            let row = &mut rows[i];
            if row.drawn.ids.len() >= row.most {
                row.drawn.truncated = true;
                continue;
            }
            let seen: Vec<u32> = match settings.repetition_penalty {
                1.0 => Vec::new(),
                _ => row.prompt.iter().chain(&row.drawn.ids).copied().collect(),
            };
            let id = sampler::pick(logits, &seen, settings, uniform(settings.seed, step, row.place as u32, n as u32));
            row.drawn.ids.push(id);
            if !end_ids.contains(&id) {
                still.push(i);
            }
        }
        // Those that are full have no use for the logits after their last token.
        still.retain(|&i| {
            let row = &mut rows[i];
            row.drawn.truncated = row.drawn.ids.len() >= row.most;
            !row.drawn.truncated
        });
        writing = still;
        if writing.is_empty() {
            break;
        }
        let ids: Vec<u32> = writing.iter().filter_map(|&i| rows[i].drawn.ids.last().copied()).collect();
        let mut caches: Vec<&mut Cache> = Vec::with_capacity(writing.len());
        let mut next = writing.iter().peekable();
        for (i, row) in rows.iter_mut().enumerate() {
            if next.peek() == Some(&&i) {
                next.next();
                caches.push(&mut row.cache);
            }
        }
        logits = model.decode_rows(&ids, &mut caches)?;
    }
    Ok(Some(rows.into_iter().map(|r| r.drawn).collect()))
}

/// The `n`-th number of a completion, uniform in 0..1 with 53 bits; its stream shares nothing with dropout's or samples'.
fn uniform(seed: u64, step: u64, place: u32, n: u32) -> f64 {
    const ROLLOUT: u32 = u32::from_le_bytes(*b"roll");
    let [a, b, ..] = Stream { seed, words: [ROLLOUT, step as u32, place] }.block(n);
    ((u64::from(a) << 21) ^ (u64::from(b) >> 11)) as f64 / (1u64 << 53) as f64
}
