//! Text to token ids and back, whichever file the vocabulary came from.
//!
//! Must not know chat templates, masks or models' weights.

mod gguf;
mod hf;
pub mod pre;
mod stream;

pub use stream::TextStream;

use crate::model::gguf::GgufFile;
use crate::model::loading::Opened;
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::ops::Range;
use tokenizers::DecoderWrapper;

/// The tokens with a role, as text, under transformers' names (`bos_token` …). A chat template sees all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    pub bos_token: Option<String>,
    pub eos_token: Option<String>,
    pub unk_token: Option<String>,
    pub pad_token: Option<String>,
    /// Further ones that `tokenizer_config.json` names (`sep_token`, `cls_token`, `additional_special_tokens` …).
    pub others: Map<String, Value>,
}

impl SpecialTokens {
    /// What transformers hands to a chat template (`**special_tokens_map`): absent tokens are left out.
    pub fn to_map(&self) -> Map<String, Value> {
        let mut map = Map::new();
        let named = [
            ("bos_token", &self.bos_token),
            ("eos_token", &self.eos_token),
            ("unk_token", &self.unk_token),
            ("pad_token", &self.pad_token),
        ];
        for (name, token) in named {
            if let Some(text) = token {
                map.insert(name.to_string(), Value::String(text.clone()));
            }
        }
        map.extend(self.others.clone());
        map
    }
}

/// A text's tokens and where in the text each one came from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Encoding {
    pub ids: Vec<u32>,
    /// Byte ranges of the text (UTF-8, always at character boundaries), same length as `ids`. Tokens that are only
    /// a part of one character all carry that whole character's range. A leading space belongs to its token.
    /// Tokens that were added (a BOS) have an empty range at 0.
    pub offsets: Vec<Range<usize>>,
}

impl Encoding {
    /// Which tokens hold any of the text in `spans` (byte ranges), which is how transformers marks assistant
    /// tokens: from the token of a span's first character to the token of its last one.
    pub fn covered(&self, spans: &[Range<usize>]) -> Vec<bool> {
        let touches = |t: &Range<usize>| spans.iter().any(|s| t.start < s.end && t.end > s.start);
        self.offsets.iter().map(touches).collect()
    }
}

/// A tokenizer, as its model was trained with it.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    pub special: SpecialTokens,
    /// Whether the vocabulary spells bytes as printable characters (GPT-2's byte-level BPE).
    byte_level: bool,
}

/// A model's chat templates, as Jinja text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Templates {
    /// The one to use.
    pub default: Option<String>,
    /// The one to use where a conversation comes with tools, if the model has one of its own for that.
    pub tool_use: Option<String>,
}

impl Tokenizer {
    /// Build the tokenizer of an opened model, and find its chat templates.
    pub fn of(model: &Opened) -> Result<(Self, Templates)> {
        match model {
            Opened::Hf(m) => hf::read(&m.files),
            Opened::Gguf(m) => Self::of_gguf(&m.file),
        }
    }

    /// Build the tokenizer of a `.gguf`, which may be only a vocabulary.
    pub fn of_gguf(file: &GgufFile) -> Result<(Self, Templates)> {
        gguf::read(file.metadata()).map_err(|e| e.at(file.path.display()))
    }

    fn new(mut inner: tokenizers::Tokenizer, special: SpecialTokens) -> Result<Self> {
        inner.with_padding(None);
        inner.with_truncation(None).map_err(failed)?;
        keep_leading_spaces(&mut inner)?;
        let byte_level = match inner.get_decoder() {
            Some(DecoderWrapper::ByteLevel(_)) => true,
            Some(DecoderWrapper::Sequence(s)) => {
                s.get_decoders().iter().any(|d| matches!(d, DecoderWrapper::ByteLevel(_)))
            }
            _ => false,
        };
        Ok(Self { inner, special, byte_level })
    }

    /// Tokens of a text. Special tokens *in* the text are recognised (`<|im_start|>` is one token); none are added.
    pub fn encode(&self, text: &str) -> Result<Encoding> {
        self.run(text, false)
    }

    /// As [`Self::encode`], with what the tokenizer adds around a plain text (a BOS, where the model has that habit).
    pub fn encode_with_special(&self, text: &str) -> Result<Encoding> {
        self.run(text, true)
    }

    /// Tokens of many texts, in parallel, in order.
    pub fn encode_batch(&self, texts: &[&str]) -> Result<Vec<Encoding>> {
        use rayon::prelude::*;
        texts.par_iter().map(|t| self.encode(t)).collect()
    }

    fn run(&self, text: &str, add_special_tokens: bool) -> Result<Encoding> {
        let e = self.inner.encode(text, add_special_tokens).map_err(failed)?;
        let offsets = e.get_offsets().iter().map(|&(a, b)| a..b).collect();
        Ok(Encoding { ids: e.get_ids().to_vec(), offsets })
    }

    /// The text of tokens. Bytes that are no whole character come out as U+FFFD.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        self.inner.decode(ids, skip_special_tokens).map_err(failed)
    }

    /// The id of a text that is one token of the vocabulary (`<|im_end|>`), spelled as the vocabulary spells it.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The id of a text, if the whole of it is encoded as exactly one token.
    pub fn single_id(&self, text: &str) -> Option<u32> {
        match self.encode(text).ok()?.ids.as_slice() {
            [id] => Some(*id),
            _ => None,
        }
    }

    pub fn eos_id(&self) -> Option<u32> {
        self.special.eos_token.as_deref().and_then(|t| self.token_to_id(t))
    }

    pub fn bos_id(&self) -> Option<u32> {
        self.special.bos_token.as_deref().and_then(|t| self.token_to_id(t))
    }

    /// Whether a token is markup rather than text (it is left out by `skip_special_tokens`).
    pub fn is_special(&self, id: u32) -> bool {
        let token = self.inner.id_to_token(id);
        token.is_some_and(|t| self.inner.get_added_vocabulary().is_special_token(&t))
    }

    /// Tokens in the vocabulary, added ones included. The embedding may have more rows than that.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// One token as a person should see it: its text with line breaks, tabs and other control characters written
    /// out (`\n`), bytes that are only a part of a character as `<E2 96>`, an id outside the vocabulary as `#id`.
    pub fn display(&self, id: u32) -> String {
        let Some(token) = self.inner.id_to_token(id) else { return format!("#{id}") };
        if self.inner.get_added_vocabulary().is_special_token(&token) {
            return token;
        }
        let bytes = self.bytes_of(&token);
        let Ok(text) = std::str::from_utf8(&bytes) else {
            let hex: Vec<String> = bytes.iter().map(|b| format!("{b:02X}")).collect();
            return format!("<{}>", hex.join(" "));
        };
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            match c {
                c if c.is_control() => out.extend(c.escape_default()),
                c => out.push(c),
            }
        }
        out
    }

    /// A vocabulary entry's bytes.
    fn bytes_of(&self, token: &str) -> Vec<u8> {
        if self.byte_level {
            let bytes: Option<Vec<u8>> = token.chars().map(pre::byte_of).collect();
            // An added token is plain text even in a byte-level vocabulary.
            return bytes.unwrap_or_else(|| token.as_bytes().to_vec());
        }
        let hex = token.strip_prefix("<0x").and_then(|t| t.strip_suffix('>')).filter(|h| h.len() == 2);
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(byte) => vec![byte],
            None => token.replace('▁', " ").into_bytes(),
        }
    }

    /// The whole tokenizer as a `tokenizer.json`.
    pub fn to_json(&self) -> Result<String> {
        self.inner.to_string(true).map_err(failed)
    }

    /// A digest of everything that decides ids: two tokenizers with the same one encode alike.
    pub fn fingerprint(&self) -> Result<String> {
        let text = self.inner.to_string(false).map_err(failed)?;
        Ok(blake3::hash(text.as_bytes()).to_hex().to_string())
    }
}

/// Byte-level post-processors trim spaces off the offsets, to nothing for a token that is all spaces, and then
/// no span of text finds it. Turned off; ids are the same.
fn keep_leading_spaces(inner: &mut tokenizers::Tokenizer) -> Result<()> {
    fn untrim(value: &mut Value) {
        match value {
            Value::Object(map) => {
                for (key, value) in map.iter_mut() {
                    match key.as_str() {
                        "trim_offsets" => *value = Value::Bool(false),
                        _ => untrim(value),
                    }
                }
            }
            Value::Array(list) => list.iter_mut().for_each(untrim),
            _ => {}
        }
    }
    let Some(post) = inner.get_post_processor() else { return Ok(()) };
    let mut value = serde_json::to_value(post)?;
    untrim(&mut value);
    let post: tokenizers::PostProcessorWrapper = serde_json::from_value(value)?;
    inner.with_post_processor(Some(post));
    Ok(())
}

/// An error of the tokenizers library.
fn failed(e: tokenizers::Error) -> Error {
    Error::new(format!("tokenizer: {e}"))
}

#[cfg(test)]
mod tests;
