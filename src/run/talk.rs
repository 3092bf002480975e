//! A conversation with a run, an adapter or a model: what the command line's chat and the console's page both hold.

use super::artifact::Artifact;
use crate::Result;
use crate::train::event::SampleSettings;
use crate::train::parts::generate::{Stops, generate};
use crate::train::parts::samples;
use crate::train::speaker::Speaker;
use serde_json::{Value, json};

/// An answer is cut here, unless the recipe's samples are longer.
const LONGEST: u32 = 512;

/// Somebody to talk to.
pub struct Talk {
    speaker: Speaker,
    stops: Stops,
    opening: Vec<Value>,
    messages: Vec<Value>,
    turn: u64,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub text: String,
    pub tokens: usize,
    /// `stop`, `stop_string`, `length`, `interrupted`.
    pub stop_reason: &'static str,
}

impl Talk {
    /// Reads the model.
    pub fn open(artifact: &Artifact) -> Result<Self> {
        let speaker = artifact.load()?;
        let sample = artifact.recipe.as_ref().map(|r| &r.sample);
        let stops =
            Stops { ids: speaker.stop_ids.clone(), strings: sample.map(|s| s.stop.clone()).unwrap_or_default() };
        let system = sample.and_then(|s| s.system.as_deref());
        let opening: Vec<Value> = system.map(|s| json!({"role": "system", "content": s})).into_iter().collect();
        Ok(Self { speaker, stops, messages: opening.clone(), opening, turn: 0 })
    }

    /// How it draws unless told otherwise: as the run's samples are drawn, and longer.
    pub fn settings(artifact: &Artifact) -> SampleSettings {
        let recipe = artifact.recipe.as_ref();
        let mut settings = recipe.map_or_else(SampleSettings::default, |r| samples::settings(&r.sample));
        settings.max_new_tokens = settings.max_new_tokens.max(LONGEST);
        settings
    }

    /// Forgets what was said.
    pub fn begin_anew(&mut self) {
        self.messages.clone_from(&self.opening);
    }

    /// Says `text`, and lets the model answer. `hear` gets each piece of the answer as it comes, whole characters only,
    /// and ends it by returning false.
    pub fn say(&mut self, text: &str, settings: &SampleSettings, hear: &mut dyn FnMut(&str) -> bool) -> Result<Answer> {
        self.messages.push(json!({"role": "user", "content": text}));
        let speaker = &self.speaker;
        let answered = speaker.conversation_ids(&self.messages).and_then(|ids| {
            let mut pieces = Pieces::default();
            let decode = |ids: &[u32]| speaker.decode(ids);
            let done = generate(&speaker.model, &ids, settings, &self.stops, self.turn, &decode, &mut |new| {
                let text = speaker.decode(new).unwrap_or_default();
                pieces.new_in(&text).is_none_or(&mut *hear)
            })?;
            if let Some(rest) = pieces.rest_of(&done.text) {
                hear(rest);
            }
            Ok(Answer { text: done.text, tokens: done.ids.len(), stop_reason: done.stop_reason })
        });
        match &answered {
            Ok(answer) => self.messages.push(json!({"role": "assistant", "content": answer.text})),
            // What could not be answered is not part of the conversation.
            Err(_) => drop(self.messages.pop()),
        }
        self.turn += 1;
        answered
    }
}

/// A text that grows, in pieces: what is decoded grows by whole characters only, and a token can be a part of one.
#[derive(Debug, Default)]
pub struct Pieces {
    shown: usize,
}

impl Pieces {
    /// What is new in `text`, up to its last whole character.
    pub fn new_in<'t>(&mut self, text: &'t str) -> Option<&'t str> {
        self.rest_of(text.trim_end_matches('\u{fffd}'))
    }

    /// All that is new in `text`.
    pub fn rest_of<'t>(&mut self, text: &'t str) -> Option<&'t str> {
        let new = text.get(self.shown..).filter(|new| !new.is_empty())?;
        self.shown = text.len();
        Some(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_shown_once_it_is_whole() {
        let mut pieces = Pieces::default();
        assert_eq!(pieces.new_in("a\u{fffd}"), Some("a"));
        assert_eq!(pieces.new_in("aé"), Some("é"));
        assert_eq!(pieces.new_in("aé"), None);
        // A stop string may cut what was shown already.
        assert_eq!(pieces.rest_of("a"), None);
    }
}
