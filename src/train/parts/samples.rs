//! Samples at the recipe's prompts, with their scores.

use super::generate::{Stops, generate, repetition};
use crate::Result;
use crate::recipe::{Prompt, Recipe, SampleSection};
use crate::train::event::{Sample, SampleSettings};
use crate::train::speaker::Speaker;

/// The recipe's sampling values as settings.
pub fn settings(s: &SampleSection) -> SampleSettings {
    SampleSettings::from(s)
}

/// The recipe's prompts with their numbers.
pub fn numbered(prompts: &[Prompt]) -> Vec<(Option<u32>, Prompt)> {
    prompts.iter().enumerate().map(|(i, p)| (Some(i as u32), p.clone())).collect()
}

/// Draw one sample from the model as it stands. Its random stream is the prompt's number, so a prompt's text does not
/// depend on the others.
pub fn draw(
    speaker: &Speaker,
    recipe: &Recipe,
    index: Option<u32>,
    prompt: &Prompt,
    settings: &SampleSettings,
    on_demand: bool,
) -> Result<Sample> {
    let ids = speaker.prompt_ids(recipe.sample.system.as_deref(), prompt.text())?;
    let stops = Stops { ids: speaker.stop_ids.clone(), strings: recipe.sample.stop.clone() };
    let stream = index.map_or(u64::MAX, u64::from);
    let decode = &|ids: &[u32]| speaker.decode(ids);
    let done = generate(&speaker.model, &ids, settings, &stops, stream, decode, &mut |_| true)?;
    Ok(Sample {
        index,
        prompt: prompt.text().to_string(),
        score: prompt.expect().map(|e| score(&done.text, e)),
        expect: prompt.expect().map(str::to_string),
        repetition: repetition(&done.ids),
        tokens: done.ids.len() as u32,
        text: done.text,
        settings: settings.clone(),
        stop_reason: done.stop_reason.to_string(),
        on_demand,
    })
}

/// 1 where the text is what was expected: as JSON values where both are JSON (so that spacing and the order of keys do
/// not matter), else as trimmed text; 0 otherwise.
pub fn score(text: &str, expect: &str) -> f64 {
    let json = |s: &str| serde_json::from_str::<serde_json::Value>(s.trim()).ok();
    let same = match (json(text), json(expect)) {
        (Some(a), Some(b)) => a == b,
        _ => text.trim() == expect.trim(),
    };
    f64::from(u8::from(same))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_scored_as_values_and_text_as_trimmed_text() {
        assert_eq!(score(r#"{"b": 1, "a":"x"}"#, r#"{"a":"x","b":1}"#), 1.0);
        assert_eq!(score(r#"{"a":"x","b":2}"#, r#"{"a":"x","b":1}"#), 0.0);
        assert_eq!(score(" yes\n", "yes"), 1.0);
        assert_eq!(score("", "yes"), 0.0);
    }
}
