//! The pre-tokenizers of byte-level BPE vocabularies in a `.gguf`, by the names `tokenizer.ggml.pre` gives them.
//!
//! The regular expressions are the models' own, from their `tokenizer.json`; which name means which of them is
//! llama.cpp's `llama-vocab.cpp`.

use crate::{Error, Result};

/// How a text is cut before BPE.
pub(super) struct PreTokenizer {
    /// Applied one after another; matches and what lies between them become pieces.
    pub splits: &'static [&'static str],
    /// Whether a piece that is itself in the vocabulary is that token, whatever the merges say.
    pub ignore_merges: bool,
    /// Whether a text begins with BOS unless `tokenizer.ggml.add_bos_token` says otherwise.
    pub add_bos: bool,
    /// Whether text is put into Unicode's NFC first. A `.gguf` does not say; Qwen2's
    /// `tokenizer.json` does.
    pub nfc: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;

const DIGIT: &str = r"\p{N}";
const DIGITS_3: &str = r"\p{N}{1,3}";
const DIGITS_ALL: &str = r"\p{N}+";
const THREE_ASCII_DIGITS: &str = "[0-9][0-9][0-9]";
/// Falcon's, and llama.cpp's for `default`: punctuation and some symbols on their own.
const FALCON_PUNCTUATION: &str = r"[\p{P}\$\+<=>\^~\|`]+";
const DEFAULT_PUNCTUATION: &str = r"[\p{P}\$\+<=>\^~\|]+";
const CJK_KANA: &str = "[一-龥\u{3040}-ゟ゠-ヿ]+";

/// Every name that [`of`] knows, for its error.
const NAMES: &str = "command-r, deepseek-r1-qwen, deepseek-v3, default, exaone4, falcon, falcon3, gpt-2, gpt-4o, \
    llama-bpe, llama3, llama-v3, llama4, megrez, mistral's tekken, mpt, olmo, phi-2, pixtral, qwen2, qwen35, refact, \
    smaug-bpe, smollm, stablelm2, starcoder";

/// The pre-tokenizer that `tokenizer.ggml.pre` names. An unknown one is refused: a wrong guess would train on
/// tokens the model has never seen in that place.
pub(super) fn of(name: &str) -> Result<PreTokenizer> {
    let plain = |splits| PreTokenizer { splits, ignore_merges: false, add_bos: false, nfc: false };
    Ok(match name {
        "default" => plain(&[DEFAULT_PUNCTUATION, GPT2, DIGITS_ALL, THREE_ASCII_DIGITS]),
        "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "pixtral" => {
            PreTokenizer { ignore_merges: true, add_bos: true, ..plain(&[LLAMA3]) }
        }
        "smaug-bpe" => plain(&[LLAMA3]),
        "smollm" | "starcoder" | "refact" | "command-r" => plain(&[DIGIT, GPT2]),
        "gpt-2" | "phi-2" | "mpt" | "olmo" | "exaone4" => plain(&[GPT2]),
        "qwen2" => PreTokenizer { nfc: true, ..plain(&[QWEN2]) },
        "deepseek-r1-qwen" | "megrez" | "stablelm2" => plain(&[QWEN2]),
        "qwen35" => plain(&[QWEN35]),
        "tekken" => PreTokenizer { ignore_merges: true, add_bos: true, ..plain(&[TEKKEN]) },
        "gpt-4o" | "llama4" => plain(&[GPT4O]),
        "deepseek-v3" => plain(&[DIGITS_3, CJK_KANA, DEEPSEEK3]),
        "falcon" => plain(&[FALCON_PUNCTUATION, GPT2, THREE_ASCII_DIGITS]),
        other => {
            return Err(Error::new(format!(
                "the vocabulary's pre-tokenizer \"{other}\" (tokenizer.ggml.pre) is not known"
            ))
            .next(format!("use the model's Hugging Face folder, whose tokenizer.json says how; known: {NAMES}")));
        }
    })
}

/// The name that llama.cpp knows a way of cutting by: the regular expressions in order, whether a piece that is in the
/// vocabulary is that token, and whether text is put into NFC first.
pub fn name_of(splits: &[String], ignore_merges: bool, nfc: bool) -> Option<&'static str> {
    // Of names that mean the same, the one of the family that has it.
    const FAMILIES: [&str; 10] =
        ["smollm", "gpt-2", "llama-bpe", "smaug-bpe", "qwen2", "qwen35", "tekken", "gpt-4o", "deepseek-v3", "falcon"];
    FAMILIES.into_iter().find(|name| {
        of(name).is_ok_and(|p| {
            // llama.cpp has no NFC step of its own: it is part of what the name stands for.
            p.ignore_merges == ignore_merges && p.nfc == nfc && p.splits.iter().eq(splits.iter())
        })
    })
}

/// What a byte-level pre-tokenizer cuts by when it says no more than "the usual" (GPT-2's expression), and what
/// `Digits` with `individual_digits` does.
pub const USUAL: &str = GPT2;
pub const EACH_DIGIT: &str = DIGIT;

/// The byte that GPT-2's alphabet spells as this character: printable Latin-1 as itself, the other 68 bytes as
/// U+0100 and on, in order.
pub(super) fn byte_of(c: char) -> Option<u8> {
    let printable = |b: u32| matches!(b, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let code = c as u32;
    if code < 0x100 {
        return if printable(code) { u8::try_from(code).ok() } else { None };
    }
    let nth = usize::try_from(code - 0x100).ok()?;
    (0..=0xFFu32).filter(|&b| !printable(b)).nth(nth).and_then(|b| u8::try_from(b).ok())
}
