//! A tokenizer from Hugging Face's files: `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json`,
//! and chat templates from wherever they may lie.

use super::{SpecialTokens, Templates, Tokenizer};
use crate::model::files::Files;
use crate::{Error, Result};
use serde_json::{Map, Value};
use tokenizers::AddedToken;

pub(super) fn read(files: &Files) -> Result<(Tokenizer, Templates)> {
    let place = files.label("tokenizer.json");
    if !files.has("tokenizer.json") {
        return Err(Error::new("not found").at(place).next(
            "only fast tokenizers are read: save_pretrained of a fast tokenizer in transformers writes tokenizer.json",
        ));
    }
    let mut inner = tokenizers::Tokenizer::from_bytes(&*files.bytes("tokenizer.json")?)
        .map_err(|e| Error::new(format!("not a tokenizer: {e}")).at(&place))?;
    let config = files.json("tokenizer_config.json")?.unwrap_or(Value::Null);
    let map = files.json("special_tokens_map.json")?.unwrap_or(Value::Null);
    add_tokens(&mut inner, &config).map_err(|e| e.at(files.label("tokenizer_config.json")))?;
    let tokenizer = Tokenizer::new(inner, special_tokens(&config, &map)).map_err(|e| e.at(place))?;
    Ok((tokenizer, templates(files, &config)?))
}

/// Tokens of `added_tokens_decoder` that `tokenizer.json` lacks, as transformers adds them on loading.
fn add_tokens(inner: &mut tokenizers::Tokenizer, config: &Value) -> Result<()> {
    let Some(added) = config.get("added_tokens_decoder").and_then(Value::as_object) else { return Ok(()) };
    let mut missing = Vec::new();
    for (id, token) in added {
        let content = token.get("content").and_then(Value::as_str);
        let (Ok(id), Some(content)) = (id.parse::<u32>(), content) else {
            return Err(Error::new(format!("added_tokens_decoder: {id} is not a token")));
        };
        if inner.token_to_id(content).is_none() {
            missing.push((id, content, token));
        }
    }
    missing.sort_by_key(|m| m.0);
    for (id, content, token) in missing {
        let flag = |key: &str| token.get(key).and_then(Value::as_bool).unwrap_or(false);
        let token = AddedToken::from(content, flag("special"))
            .single_word(flag("single_word"))
            .lstrip(flag("lstrip"))
            .rstrip(flag("rstrip"))
            .normalized(flag("normalized"));
        inner.add_tokens([token]).map_err(super::failed)?;
        if inner.token_to_id(content) != Some(id) {
            return Err(Error::new(format!("added token {content} should have id {id}, which is taken"))
                .next("tokenizer.json and tokenizer_config.json must belong together"));
        }
    }
    Ok(())
}

fn special_tokens(config: &Value, map: &Value) -> SpecialTokens {
    let text = |key: &str| -> Option<String> {
        config.get(key).and_then(token_text).or_else(|| map.get(key).and_then(token_text))
    };
    let mut others = Map::new();
    for key in ["sep_token", "cls_token", "mask_token"] {
        if let Some(token) = text(key) {
            others.insert(key.to_string(), Value::String(token));
        }
    }
    let additional = ["additional_special_tokens", "extra_special_tokens"]
        .iter()
        .find_map(|key| config.get(*key).or_else(|| map.get(*key)))
        .cloned();
    match additional {
        Some(Value::Array(list)) if !list.is_empty() => {
            let list = list.iter().filter_map(token_text).map(Value::String).collect();
            others.insert("additional_special_tokens".to_string(), Value::Array(list));
        }
        // A model's own named tokens (`image_token` …).
        Some(Value::Object(named)) => {
            for (key, value) in named {
                if let Some(token) = token_text(&value) {
                    others.insert(key, Value::String(token));
                }
            }
        }
        _ => {}
    }
    SpecialTokens {
        bos_token: text("bos_token"),
        eos_token: text("eos_token"),
        unk_token: text("unk_token"),
        pad_token: text("pad_token"),
        others,
    }
}

/// A token is written as its text, or as an object with `content`.
fn token_text(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_string)
}

/// `chat_template.jinja` wins over `tokenizer_config.json` (a text, or a list of named ones), which wins over
/// `chat_template.json` of older multimodal models.
fn templates(files: &Files, config: &Value) -> Result<Templates> {
    let mut found = Templates { default: files.text("chat_template.jinja")?, tool_use: None };
    found.tool_use = files.text("additional_chat_templates/tool_use.jinja")?;
    match config.get("chat_template") {
        Some(Value::String(text)) => {
            found.default.get_or_insert_with(|| text.clone());
        }
        Some(Value::Array(list)) => {
            for entry in list {
                let field = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_string);
                let slot = match field("name").as_deref() {
                    Some("default") => &mut found.default,
                    Some("tool_use") => &mut found.tool_use,
                    _ => continue,
                };
                *slot = slot.take().or_else(|| field("template"));
            }
        }
        _ => {}
    }
    if found.default.is_none()
        && let Some(json) = files.json("chat_template.json")?
    {
        found.default = json.get("chat_template").and_then(Value::as_str).map(str::to_string);
    }
    Ok(found)
}
