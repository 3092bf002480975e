//! A Hugging Face tokenizer as a GGUF's `tokenizer.*` keys, as convert_hf_to_gguf.py writes them: byte-level BPE
//! (`gpt2`), and SentencePiece from its `tokenizer.model` (`llama`).
//!
//! Must not know weights.

use super::gguf::{Keys, Value};
use super::hyperparameters::is_llama;
use super::sentencepiece;
use crate::data::tokenizer::{Templates, Tokenizer, pre};
use crate::model::config::Config;
use crate::model::files::Files;
use crate::model::gguf::architecture;
use crate::{Error, Result};
use serde_json::Value as Json;

/// llama.cpp's `llama_token_type`.
pub(super) mod kind {
    pub const NORMAL: i32 = 1;
    pub const UNKNOWN: i32 = 2;
    pub const CONTROL: i32 = 3;
    pub const USER_DEFINED: i32 = 4;
    pub const UNUSED: i32 = 5;
    pub const BYTE: i32 = 6;
}

/// Tokens by id, with their kinds; scores for SentencePiece.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    pub texts: Vec<String>,
    pub kinds: Vec<i32>,
    pub scores: Vec<f32>,
}

/// Add everything that says how text becomes tokens, as the class of the model's family does.
///
/// # Errors
/// When llama.cpp has no such tokenizer, or the files lack what it needs; never a guess.
pub fn add(keys: &mut Keys, files: &Files, tokenizer: &Tokenizer, templates: &Templates, c: &Config) -> Result<()> {
    let vocab_size = c.vocab_size;
    let json: Json = serde_json::from_str(&tokenizer.to_json()?)?;
    let config = files.json("tokenizer_config.json")?.unwrap_or(Json::Null);
    if let Some(prefix) = config.get("add_prefix_space").and_then(Json::as_bool).filter(|_| is_llama(c)) {
        keys.flag("tokenizer.ggml.add_space_prefix", prefix);
    }
    let phi = architecture(c) == "phi3";
    // Phi-4 is told by its tokenizer's class.
    let byte_pairs = phi && config.get("tokenizer_class").and_then(Json::as_str) == Some("GPT2Tokenizer");
    let sentence_pieces = files.has("tokenizer.model") && !byte_pairs;
    let merges = match sentence_pieces {
        true => {
            let mut tokens = sentencepiece::tokens(files, &config, vocab_size, phi)?;
            if phi {
                sentencepiece::put_over(&mut tokens, &json);
            }
            keys.text("tokenizer.ggml.model", "llama");
            keys.text("tokenizer.ggml.pre", "default");
            keys.set("tokenizer.ggml.tokens", Value::Texts(tokens.texts));
            keys.set("tokenizer.ggml.scores", Value::F32s(tokens.scores));
            keys.set("tokenizer.ggml.token_type", Value::I32s(tokens.kinds));
            false
        }
        false => {
            let name = byte_level(&json).map_err(|e| e.at(files.label("tokenizer.json")))?;
            let tokens = tokens(&json, vocab_size).map_err(|e| e.at(files.label("tokenizer.json")))?;
            keys.text("tokenizer.ggml.model", "gpt2");
            keys.text("tokenizer.ggml.pre", name);
            keys.set("tokenizer.ggml.tokens", Value::Texts(tokens.texts));
            keys.set("tokenizer.ggml.token_type", Value::I32s(tokens.kinds));
            true
        }
    };
    if merges {
        keys.set("tokenizer.ggml.merges", Value::Texts(merge_texts(&json)));
    }
    special(keys, files, &json, &config)?;
    template(keys, templates);
    if sentence_pieces && architecture(c).starts_with("gemma") {
        keys.flag("tokenizer.ggml.add_space_prefix", false);
    }
    if vocab_size == 49152 && is_llama(c) {
        // The converter's rule for this size (Granite's and SmolLM2's).
        keys.flag("tokenizer.ggml.add_bos_token", false);
    }
    Ok(())
}

/// The tokens at which llama.cpp ends a generation by their text alone, whatever ids the keys name (llama-vocab.cpp).
const ENDS: [&str; 16] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "</s>",
];

/// Whether llama.cpp ends a generation at this token by its text alone.
pub fn ends_by_text(token: &str) -> bool {
    ENDS.contains(&token)
}

/// The ids of all such tokens that a tokenizer has.
pub fn ending_ids(tokenizer: &Tokenizer) -> Vec<u32> {
    ENDS.iter().filter_map(|text| tokenizer.token_to_id(text)).collect()
}

/// Write the chat template, in place of any that is there.
pub fn template(keys: &mut Keys, templates: &Templates) {
    if let Some(tool_use) = &templates.tool_use {
        keys.text("tokenizer.chat_template.tool_use", tool_use);
        keys.set("tokenizer.chat_templates", Value::Texts(vec!["tool_use".into()]));
    }
    if let Some(default) = &templates.default {
        keys.text("tokenizer.chat_template", default);
    }
}

fn entries<'a>(json: &'a Json, key: &str) -> impl Iterator<Item = &'a Json> {
    json.get(key).and_then(Json::as_array).into_iter().flatten()
}

fn kind_of(json: &Json) -> &str {
    json.get("type").and_then(Json::as_str).unwrap_or_default()
}

/// llama.cpp's name of this byte-level BPE.
fn byte_level(json: &Json) -> Result<&'static str> {
    let model = json.get("model").unwrap_or(&Json::Null);
    let flag = |key: &str| model.get(key).and_then(Json::as_bool).unwrap_or(false);
    if kind_of(model) != "BPE" || flag("byte_fallback") {
        return Err(Error::new(format!(
            "a {} tokenizer cannot be written to a GGUF from tokenizer.json",
            kind_of(model)
        ))
        .next("byte-level BPE can; SentencePiece needs its tokenizer.model beside it"));
    }
    let refused = |what: &str| {
        Err(Error::new(format!("llama.cpp has no tokenizer with {what}"))
            .next("export as safetensors (finetop merge), and serve it with a program that reads tokenizer.json"))
    };
    let nfc = match json.get("normalizer").filter(|n| !n.is_null()) {
        None => false,
        Some(n) if kind_of(n) == "NFC" => true,
        Some(n) => return refused(&format!("the normalizer {}", kind_of(n))),
    };
    let mut splits = Vec::new();
    let pre_tokenizer = json.get("pre_tokenizer").filter(|p| !p.is_null());
    let steps: Vec<&Json> = match pre_tokenizer {
        Some(p) if kind_of(p) == "Sequence" => entries(p, "pretokenizers").collect(),
        Some(p) => vec![p],
        None => return refused("no pre-tokenizer"),
    };
    for step in &steps {
        let is = |key: &str, default: bool| step.get(key).and_then(Json::as_bool).unwrap_or(default);
        match kind_of(step) {
            "Digits" if is("individual_digits", false) => splits.push(pre::EACH_DIGIT.to_string()),
            "ByteLevel" if is("add_prefix_space", true) => return refused("a space put before every text"),
            "ByteLevel" if is("use_regex", true) => splits.push(pre::USUAL.to_string()),
            "ByteLevel" => {}
            "Split" if !is("invert", false) => match step.pointer("/pattern/Regex").and_then(Json::as_str) {
                Some(pattern) => splits.push(pattern.to_string()),
                None => return refused("a split at a fixed text"),
            },
            other => return refused(&format!("the pre-tokenizer {other}")),
        }
    }
    if !steps.iter().any(|s| kind_of(s) == "ByteLevel") {
        return refused("this pre-tokenizer");
    }
    match pre::name_of(&splits, flag("ignore_merges"), nfc) {
        Some(name) => Ok(name),
        None => refused(&format!("this way of cutting text: {}", splits.join("  then  "))),
    }
}

/// Whether a token is markup whatever the file says of it (`does_token_look_special`).
pub(super) fn looks_special(token: &str) -> bool {
    let between = |start: &str, end: &str| token.starts_with(start) && token.ends_with(end);
    ["<pad>", "<mask>", "<2mass>", "[@BOS@]"].contains(&token)
        || between("<|", "|>")
        || between("<｜", "｜>")
        || between("<unused", ">")
}

fn tokens(json: &Json, vocab_size: usize) -> Result<Tokens> {
    let mut texts: Vec<Option<(String, i32)>> = vec![None; vocab_size];
    let mut place = |id: Option<u64>, token: &str, kind: i32| -> Result<()> {
        let slot = id.and_then(|id| texts.get_mut(usize::try_from(id).ok()?));
        let Some(slot) = slot else {
            return Err(Error::new(format!("token {token:?} lies outside the embedding's {vocab_size} rows")));
        };
        *slot = Some((token.to_string(), kind));
        Ok(())
    };
    for (token, id) in json.pointer("/model/vocab").and_then(Json::as_object).into_iter().flatten() {
        place(id.as_u64(), token, kind::NORMAL)?;
    }
    for added in entries(json, "added_tokens") {
        let Some(token) = added.get("content").and_then(Json::as_str) else { continue };
        let special = added.get("special").and_then(Json::as_bool).unwrap_or(false);
        let id = added.get("id").and_then(Json::as_u64);
        match special || looks_special(token) {
            true => place(id, token, kind::CONTROL)?,
            false => place(id, &token.replace('▁', " "), kind::USER_DEFINED)?,
        }
    }
    let mut out = Tokens::default();
    for (id, token) in texts.into_iter().enumerate() {
        let (text, kind) = token.unwrap_or_else(|| (format!("[PAD{id}]"), kind::UNUSED));
        out.texts.push(text);
        out.kinds.push(kind);
    }
    Ok(out)
}

fn merge_texts(json: &Json) -> Vec<String> {
    let merges = json.pointer("/model/merges").and_then(Json::as_array);
    let one = |merge: &Json| match merge {
        Json::String(text) => text.clone(),
        pair => {
            let half = |i: usize| pair.get(i).and_then(Json::as_str).unwrap_or_default();
            // A space inside a token is spelled as byte-level vocabularies spell it.
            format!("{} {}", half(0).replace(' ', "Ġ"), half(1).replace(' ', "Ġ"))
        }
    };
    merges.into_iter().flatten().map(one).collect()
}

/// Ids of the tokens with a role, and whether a BOS or EOS is put around plain text (gguf-py's `SpecialVocab`).
fn special(keys: &mut Keys, files: &Files, json: &Json, config: &Json) -> Result<()> {
    const ROLES: [(&str, &str); 7] = [
        ("bos", "bos"),
        ("eos", "eos"),
        ("unk", "unknown"),
        // gguf-py's spelling.
        ("sep", "seperator"),
        ("pad", "padding"),
        ("cls", "cls"),
        ("mask", "mask"),
    ];
    let model = files.json("config.json")?.unwrap_or(Json::Null);
    let text = |role: &str| {
        let entry = config.get(format!("{role}_token"))?;
        entry.as_str().or_else(|| entry.get("content")?.as_str())
    };
    let mut ids: Vec<(&str, usize)> = Vec::new();
    let mut take = |key: &'static str, id: Option<u64>| {
        if let Some(id) = id.and_then(|id| usize::try_from(id).ok())
            && !ids.iter().any(|(k, _)| *k == key)
        {
            ids.push((key, id));
        }
    };
    for (role, key) in ROLES {
        let found = text(role)
            .and_then(|t| entries(json, "added_tokens").find(|a| a.get("content").and_then(Json::as_str) == Some(t)));
        take(key, found.and_then(|a| a.get("id")?.as_u64()));
    }
    for (role, key) in ROLES {
        let id = model.get(format!("{role}_token_id"));
        take(key, id.and_then(Json::as_u64));
    }
    for (key, id) in ids {
        // gguf-py looks it up and has no key for it.
        if key != "cls" {
            keys.size(format!("tokenizer.ggml.{key}_token_id"), id)?;
        }
    }
    for (role, adds) in added_around(json, config, &text) {
        keys.flag(format!("tokenizer.ggml.add_{role}_token"), adds);
    }
    Ok(())
}

/// Whether a token stands between two texts; `None` where nothing does (gguf-py's `SpecialVocab`, on `pair`).
fn separated<'a>(step: &Json, text: &dyn Fn(&str) -> Option<&'a str>) -> Option<bool> {
    let special = |j: Option<&&Json>| j?.pointer("/SpecialToken/id")?.as_str().map(str::to_string);
    let is = |j: Option<&&Json>, name: &str| j.and_then(|j| j.pointer("/Sequence/id")?.as_str()) == Some(name);
    let (single, mut pair): (Vec<&Json>, Vec<&Json>) =
        (entries(step, "single").collect(), entries(step, "pair").collect());
    let several = single.len() > 1;
    let (first, last) = (special(single.first()).filter(|_| several), special(single.last()).filter(|_| several));
    if first.is_some() && special(pair.first()) == first {
        pair.remove(0);
    }
    if last.is_some() && special(pair.last()) == last {
        pair.pop();
    }
    if pair.len() < 3 || !is(pair.first(), "A") || !is(pair.last(), "B") {
        return None;
    }
    let ends = |j: Option<&&Json>| special(j).is_some_and(|s| [text("sep"), text("eos")].contains(&Some(s.as_str())));
    let inner = &pair[1..pair.len() - 1];
    Some(ends(inner.first()) && last.is_none() || inner.len() == 2 && ends(inner.get(1)))
}

/// Which roles' tokens are added around a plain text: the post-processor says, else `tokenizer_config.json`.
fn added_around<'a>(json: &Json, config: &Json, text: &dyn Fn(&str) -> Option<&'a str>) -> Vec<(&'static str, bool)> {
    let mut adds: Vec<(&'static str, bool)> = Vec::new();
    let put = |adds: &mut Vec<(&'static str, bool)>, role: &'static str, value: bool, over: bool| match adds
        .iter_mut()
        .find(|(r, _)| *r == role)
    {
        Some((_, old)) if over => *old = value,
        Some(_) => {}
        None => adds.push((role, value)),
    };
    if let Some(post) = json.get("post_processor").filter(|p| !p.is_null()) {
        let steps: Vec<&Json> = match kind_of(post) {
            "Sequence" => entries(post, "processors").collect(),
            _ => vec![post],
        };
        for step in steps {
            match kind_of(step) {
                "ByteLevel" => {
                    put(&mut adds, "bos", false, false);
                    put(&mut adds, "eos", false, false);
                }
                "TemplateProcessing" => {
                    let single: Vec<&Json> = entries(step, "single").collect();
                    let token = |j: Option<&&Json>| {
                        let id = j?.pointer("/SpecialToken/id")?.as_str()?;
                        // The template's own name of the token, or the token.
                        let named = step.pointer(&format!("/special_tokens/{id}/tokens/0")).and_then(Json::as_str);
                        Some(named.unwrap_or(id).to_string())
                    };
                    if single.len() > 1 {
                        if let Some(first) = token(single.first()) {
                            put(&mut adds, "bos", Some(first.as_str()) == text("bos"), true);
                        }
                        if let Some(last) = token(single.last()) {
                            put(&mut adds, "eos", Some(last.as_str()) == text("eos"), true);
                        }
                    }
                    if let Some(sep) = separated(step, text) {
                        put(&mut adds, "sep", sep, true);
                    }
                }
                _ => {}
            }
        }
    }
    for role in ["bos", "eos"] {
        if let Some(value) = config.get(format!("add_{role}_token")).and_then(Json::as_bool) {
            put(&mut adds, role, value, false);
        }
    }
    adds
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bpe(pre_tokenizer: Json, normalizer: Json, ignore_merges: bool) -> Json {
        json!({
            "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
            "model": {"type": "BPE", "ignore_merges": ignore_merges, "vocab": {"a": 0, "b": 1}, "merges": [["a", "b"]]},
        })
    }

    #[test]
    fn a_family_s_way_of_cutting_text_is_told_by_what_it_is() {
        let usual = json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": true});
        let digits = json!({"type": "Digits", "individual_digits": true});
        let both = json!({"type": "Sequence", "pretokenizers": [digits, usual]});
        assert_eq!(byte_level(&bpe(both, Json::Null, false)).unwrap(), "smollm");
        assert_eq!(byte_level(&bpe(usual.clone(), Json::Null, false)).unwrap(), "gpt-2");
        let llama3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        let split = |p: &str| {
            json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": false},
                {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})
        };
        assert_eq!(byte_level(&bpe(split(llama3), Json::Null, true)).unwrap(), "llama-bpe");
        let qwen2 = llama3.replace(r"\p{N}{1,3}", r"\p{N}");
        assert_eq!(byte_level(&bpe(split(&qwen2), json!({"type": "NFC"}), false)).unwrap(), "qwen2");
        // What llama.cpp does not have is refused, never called by a near name.
        assert!(byte_level(&bpe(split(r"\w+"), Json::Null, false)).is_err());
        assert!(byte_level(&bpe(usual.clone(), json!({"type": "Lowercase"}), false)).is_err());
        assert!(byte_level(&bpe(json!({"type": "ByteLevel", "add_prefix_space": true}), Json::Null, false)).is_err());
        assert!(byte_level(&json!({"model": {"type": "Unigram"}})).unwrap_err().to_string().contains("Unigram"));
    }

    #[test]
    fn rows_of_the_embedding_without_a_token_are_filled_and_tokens_without_a_row_refused() {
        let mut json = bpe(Json::Null, Json::Null, false);
        json["added_tokens"] = json!([
            {"id": 2, "content": "<|end|>", "special": false}, {"id": 3, "content": "▁▁", "special": false}]);
        let t = tokens(&json, 6).unwrap();
        assert_eq!(t.texts, ["a", "b", "<|end|>", "  ", "[PAD4]", "[PAD5]"]);
        assert_eq!(
            t.kinds,
            [kind::NORMAL, kind::NORMAL, kind::CONTROL, kind::USER_DEFINED, kind::UNUSED, kind::UNUSED]
        );
        assert!(tokens(&json, 3).unwrap_err().to_string().contains("outside the embedding's 3 rows"));
        assert_eq!(merge_texts(&json), ["a b"]);
    }

    #[test]
    fn a_bos_is_said_to_be_added_where_the_post_processor_adds_it() {
        let json = json!({"post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]}});
        let text = |role: &str| (role == "bos").then_some("<s>");
        assert_eq!(added_around(&json, &Json::Null, &text), [("bos", true)]);
        assert_eq!(added_around(&json!({}), &json!({"add_bos_token": false}), &text), [("bos", false)]);
    }
}
