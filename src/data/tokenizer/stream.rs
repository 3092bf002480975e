//! Text that grows token by token, for generation.

use super::Tokenizer;
use crate::Result;

/// Turns ids into text as they come. A character is held back until all its bytes are there.
#[derive(Debug, Clone, Default)]
pub struct TextStream {
    ids: Vec<u32>,
    /// Tokens from here on are decoded together, so that what depends on a neighbour (a leading space) is right.
    from: usize,
    /// Tokens before this have been given out.
    read: usize,
    skip_special_tokens: bool,
}

impl TextStream {
    pub fn new(skip_special_tokens: bool) -> Self {
        Self { skip_special_tokens, ..Self::default() }
    }

    /// Add a token; the text that it completes, which may be empty.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<String> {
        self.ids.push(id);
        let (old, new) = self.pair(tokenizer)?;
        // U+FFFD at the end: the bytes of a character that is not complete (or never will be: see `finish`).
        if new.ends_with('\u{FFFD}') || new.len() <= old.len() {
            return Ok(String::new());
        }
        (self.from, self.read) = (self.read, self.ids.len());
        Ok(new.get(old.len()..).unwrap_or_default().to_string())
    }

    /// What was held back, at the end of a generation.
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String> {
        let (old, new) = self.pair(tokenizer)?;
        (self.from, self.read) = (self.ids.len(), self.ids.len());
        Ok(new.get(old.len()..).unwrap_or_default().to_string())
    }

    fn pair(&self, tokenizer: &Tokenizer) -> Result<(String, String)> {
        let decode = |ids: &[u32]| tokenizer.decode(ids, self.skip_special_tokens);
        Ok((decode(&self.ids[self.from..self.read])?, decode(&self.ids[self.from..])?))
    }
}
