//! The vocabulary in a SentencePiece `tokenizer.model`: a protobuf of pieces, each with a text, a score and a kind.
//!
//! Must not know how text is cut.

use super::vocabulary::{Tokens, kind, looks_special};
use crate::model::files::Files;
use crate::{Error, Result};
use serde_json::Value as Json;

/// Pieces, then what `added_tokens.json` and `tokenizer_config.json` put over them (convert_hf_to_gguf.py's
/// `_create_vocab_sentencepiece`). Rows of the embedding without a piece are `[PADn]`.
///
/// Phi-3's class goes by what the files say of a token alone, whatever it looks like (`as_said`).
pub(super) fn tokens(files: &Files, config: &Json, vocab_size: usize, as_said: bool) -> Result<Tokens> {
    let place = files.label("tokenizer.model");
    let bytes = files.bytes("tokenizer.model")?;
    let pieces = pieces(&bytes).ok_or_else(|| Error::new("not a SentencePiece model").at(&place))?;
    if pieces.is_empty() {
        return Err(Error::new("a SentencePiece model without pieces").at(place));
    }
    let mut out = Tokens {
        texts: (0..vocab_size).map(|i| format!("[PAD{i}]")).collect(),
        scores: vec![-10_000.0; vocab_size],
        kinds: vec![kind::UNUSED; vocab_size],
    };
    for (id, (text, score, kind)) in pieces.into_iter().enumerate().take(vocab_size) {
        out.put(id, text, score, kind);
    }
    if let Some(added) = files.json("added_tokens.json")? {
        for (token, id) in added.as_object().into_iter().flatten() {
            if let Some(id) = index(id.as_u64(), vocab_size) {
                out.put(id, token.clone(), -1000.0, kind::USER_DEFINED);
            }
        }
    }
    for (id, token) in config.get("added_tokens_decoder").and_then(Json::as_object).into_iter().flatten() {
        let content = token.get("content").and_then(Json::as_str);
        let (Some(id), Some(text)) = (index(id.parse().ok(), vocab_size), content) else { continue };
        let special = token.get("special").and_then(Json::as_bool).unwrap_or(false);
        match special || (!as_said && looks_special(text)) {
            true => out.put(id, text.to_string(), -1000.0, kind::CONTROL),
            false if as_said => out.put(id, text.to_string(), -1000.0, kind::USER_DEFINED),
            false => out.put(id, text.replace('▁', " "), -1000.0, kind::USER_DEFINED),
        }
    }
    Ok(out)
}

/// What `tokenizer.json` adds, put over the pieces (Phi-3's class).
pub(super) fn put_over(tokens: &mut Tokens, json: &Json) {
    for token in json.get("added_tokens").and_then(Json::as_array).into_iter().flatten() {
        let content = token.get("content").and_then(Json::as_str);
        let id = index(token.get("id").and_then(Json::as_u64), tokens.texts.len());
        let (Some(id), Some(text)) = (id, content) else { continue };
        let special = token.get("special").and_then(Json::as_bool).unwrap_or(false);
        tokens.put(id, text.to_string(), -1000.0, if special { kind::CONTROL } else { kind::USER_DEFINED });
    }
}

fn index(id: Option<u64>, vocab_size: usize) -> Option<usize> {
    id.and_then(|id| usize::try_from(id).ok()).filter(|id| *id < vocab_size)
}

impl Tokens {
    fn put(&mut self, id: usize, text: String, score: f32, kind: i32) {
        self.texts[id] = text;
        self.scores[id] = score;
        self.kinds[id] = kind;
    }
}

/// Field 1 of the model, repeated: {1: text, 2: score (f32), 3: kind (1 if absent)}. `None`: no protobuf.
fn pieces(mut bytes: &[u8]) -> Option<Vec<(String, f32, i32)>> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let (field, value) = field(&mut bytes)?;
        if let (1, Field::Bytes(mut piece)) = (field, value) {
            let (mut text, mut score, mut kind) = (String::new(), 0.0, kind::NORMAL);
            while !piece.is_empty() {
                match self::field(&mut piece)? {
                    (1, Field::Bytes(b)) => text = String::from_utf8(b.to_vec()).ok()?,
                    (2, Field::Four(b)) => score = f32::from_le_bytes(b),
                    (3, Field::Number(n)) => kind = kind_of(n)?,
                    _ => {}
                }
            }
            out.push((text, score, kind));
        }
    }
    Some(out)
}

/// sentencepiece_model.proto's `Type`: normal 1, unknown 2, control 3, user defined 4, unused 5, byte 6. The converter
/// asks for each but user defined, which therefore counts as normal.
fn kind_of(number: u64) -> Option<i32> {
    match number {
        1 | 4 => Some(kind::NORMAL),
        2 => Some(kind::UNKNOWN),
        3 => Some(kind::CONTROL),
        5 => Some(kind::UNUSED),
        6 => Some(kind::BYTE),
        _ => None,
    }
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Four([u8; 4]),
    Eight,
}

/// The next field's number and value (protobuf's wire format).
fn field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Field<'a>)> {
    let tag = varint(bytes)?;
    let value = match tag & 7 {
        0 => Field::Number(varint(bytes)?),
        1 => {
            *bytes = bytes.get(8..)?;
            Field::Eight
        }
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            let (head, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            Field::Bytes(head)
        }
        5 => {
            let (head, rest) = bytes.split_first_chunk::<4>()?;
            *bytes = rest;
            Field::Four(*head)
        }
        _ => return None,
    };
    Some((tag >> 3, value))
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn piece(text: &str, score: f32, kind: u8) -> Vec<u8> {
        let mut inner = vec![0x0A, text.len() as u8];
        inner.extend(text.as_bytes());
        inner.push(0x15);
        inner.extend(score.to_le_bytes());
        if kind != 1 {
            inner.extend([0x18, kind]);
        }
        let mut out = vec![0x0A, inner.len() as u8];
        out.extend(inner);
        out
    }

    #[test]
    fn pieces_and_what_is_put_over_them_become_tokens() {
        let dir = tempfile::tempdir().unwrap();
        let mut model =
            [piece("<unk>", 0.0, 2), piece("<s>", 0.0, 3), piece("<0x0A>", 0.0, 6), piece("▁t", -1.5, 1)].concat();
        // trainer_spec, which is passed over.
        model.extend([0x12, 2, 0x18, 0x01]);
        std::fs::write(dir.path().join("tokenizer.model"), &model).unwrap();
        std::fs::write(dir.path().join("added_tokens.json"), r#"{"<tool>": 4}"#).unwrap();
        let config = json!({"added_tokens_decoder": {"5": {"content": "<|im_end|>", "special": false}}});
        let files = Files::Folder(dir.path().to_path_buf());
        let t = tokens(&files, &config, 7, false).unwrap();
        assert_eq!(t.texts, ["<unk>", "<s>", "<0x0A>", "▁t", "<tool>", "<|im_end|>", "[PAD6]"]);
        assert_eq!(t.kinds, [2, 3, 6, 1, 4, 3, 5]);
        assert_eq!(t.scores, [0.0, 0.0, 0.0, -1.5, -1000.0, -1000.0, -10_000.0]);
        std::fs::write(dir.path().join("tokenizer.model"), b"\xFFnot").unwrap();
        assert!(tokens(&files, &config, 7, false).unwrap_err().to_string().contains("tokenizer.model"));
    }
}
