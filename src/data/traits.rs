//! What the data room needs of a model: its tokenizer, its chat template, its end-of-text token.
//!
//! Small traits, so that masks and formats are tested with templates written in the test, and so that this
//! room does not know where a tokenizer or a template comes from.

pub use super::tokenizer::Encoding;
use super::tokenizer::Tokenizer;
use crate::Result;
use serde_json::Value;
use std::ops::Range;

/// A tokenizer.
pub trait Encode: Sync {
    /// Tokenize `text`. `add_special_tokens` as in transformers: true for plain text (a model's own BOS is added),
    /// false for a rendered chat (the template writes it).
    fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Encoding>;

    /// One token as a person should see it: line breaks and other control characters written out (`\n`).
    fn display(&self, id: u32) -> String;

    /// A text that differs whenever the tokenizer may give other ids (a hash of `tokenizer.json`, say).
    fn identity(&self) -> Result<String>;
}

/// A rendered chat with the byte ranges that `{% generation %}` marks as written by the assistant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    pub text: String,
    pub spans: Vec<Range<usize>>,
}

/// A chat template.
pub trait Render: Sync {
    /// Render messages (`{role, content, …}` objects) as transformers' `apply_chat_template(tokenize=False)` does.
    /// An error carries what the template raised.
    fn render(&self, messages: &[Value], tools: Option<&Value>, add_generation_prompt: bool) -> Result<String>;

    /// The rendering with its `{% generation %}` marks; `None` where the template has none.
    fn render_marked(&self, messages: &[Value], tools: Option<&Value>) -> Result<Option<Marked>>;

    /// Whether the template writes an assistant's `tool_calls`; where it does not, they become the turn's text.
    fn calls_tools(&self) -> bool {
        true
    }

    /// A text that differs whenever the template may render otherwise (its source and its keyword arguments).
    fn identity(&self) -> String;
}

/// What `prepare` is told of the model.
#[derive(Clone, Copy)]
pub struct ModelSide<'a> {
    pub encode: &'a dyn Encode,
    /// `None`: the model has no chat template.
    pub render: Option<&'a dyn Render>,
    /// The tokenizer's `eos_token`, as text; closes plain text and completions.
    pub eos_token: Option<&'a str>,
}

impl Encode for Tokenizer {
    fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Encoding> {
        if add_special_tokens { self.encode_with_special(text) } else { Self::encode(self, text) }
    }

    fn display(&self, id: u32) -> String {
        Self::display(self, id)
    }

    fn identity(&self) -> Result<String> {
        self.fingerprint()
    }
}
