//! What a client may ask, in the words of OpenAI's API, and how it is answered. What is not offered is refused by name.

use crate::train::event::SampleSettings;
use serde::Deserialize;
use serde_json::{Value, json};

/// A request for a completion, read and found good.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub prompt: Prompt,
    pub settings: SampleSettings,
    pub stop: Vec<String>,
    /// Whether the answer is sent piece by piece.
    pub stream: bool,
    /// Whether a streamed answer ends with its usage.
    pub usage: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    Chat(Vec<Value>),
    /// To be gone on from as it is.
    Text(String),
}

/// Why a request is refused: the HTTP status and what a client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    pub status: u16,
    pub message: String,
}

impl Wrong {
    pub fn bad(message: impl Into<String>) -> Self {
        Self { status: 400, message: message.into() }
    }

    pub fn body(&self) -> Value {
        let kind = if self.status < 500 { "invalid_request_error" } else { "server_error" };
        json!({"error": {"message": self.message, "type": kind, "param": null, "code": null}})
    }
}

/// The keys that are understood; clients send many more, most of them with the value that changes nothing.
#[derive(Debug, Deserialize)]
struct Body {
    messages: Option<Vec<Value>>,
    prompt: Option<Value>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<i64>,
    min_p: Option<f64>,
    repetition_penalty: Option<f64>,
    max_tokens: Option<i64>,
    max_completion_tokens: Option<i64>,
    seed: Option<i64>,
    stop: Option<Value>,
    n: Option<i64>,
    #[serde(default)]
    stream: bool,
    stream_options: Option<Value>,
    tools: Option<Value>,
    response_format: Option<Value>,
    logprobs: Option<Value>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
}

/// Read a request's body; `chat`: of `/v1/chat/completions`, else of `/v1/completions`. What it leaves open is as in
/// `usual`.
pub fn read(bytes: &[u8], chat: bool, usual: &SampleSettings) -> Result<Request, Wrong> {
    let body: Body = serde_json::from_slice(bytes).map_err(|e| Wrong::bad(format!("the body cannot be read: {e}")))?;
    let asked = |v: &Option<Value>| v.as_ref().is_some_and(|v| !matches!(v, Value::Null | Value::Bool(false)));
    let listed = |v: &Option<Value>| v.as_ref().and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if listed(&body.tools) {
        return Err(Wrong::bad("tools are not offered here; describe them in a message"));
    }
    if body.response_format.as_ref().and_then(|f| f["type"].as_str()).is_some_and(|t| t != "text") {
        return Err(Wrong::bad("response_format: only text is offered here"));
    }
    if asked(&body.logprobs) {
        return Err(Wrong::bad("logprobs are not offered here"));
    }
    for (name, v) in [("presence_penalty", body.presence_penalty), ("frequency_penalty", body.frequency_penalty)] {
        if v.is_some_and(|v| v != 0.0) {
            return Err(Wrong::bad(format!("{name} is not offered here; repetition_penalty is")));
        }
    }
    if body.n.is_some_and(|n| n != 1) {
        return Err(Wrong::bad("n: one answer a request"));
    }
    let prompt = match (chat, body.messages, body.prompt) {
        (true, Some(messages), _) => Prompt::Chat(messages.into_iter().map(message).collect::<Result<_, _>>()?),
        (true, None, _) => return Err(Wrong::bad("messages is missing")),
        (false, _, Some(Value::String(text))) => Prompt::Text(text),
        (false, _, Some(_)) => return Err(Wrong::bad("prompt: one text")),
        (false, _, None) => return Err(Wrong::bad("prompt is missing")),
    };
    if matches!(&prompt, Prompt::Chat(list) if list.is_empty()) {
        return Err(Wrong::bad("messages is empty"));
    }
    let mut settings = usual.clone();
    number(&mut settings.temperature, body.temperature, "temperature", 0.0, 10.0)?;
    number(&mut settings.top_p, body.top_p, "top_p", 0.0, 1.0)?;
    number(&mut settings.min_p, body.min_p, "min_p", 0.0, 1.0)?;
    number(&mut settings.repetition_penalty, body.repetition_penalty, "repetition_penalty", 0.01, 10.0)?;
    if let Some(k) = body.top_k {
        // -1 is off for vLLM's clients.
        settings.top_k = u32::try_from(k.max(0)).unwrap_or(0);
    }
    if let Some(most) = body.max_completion_tokens.or(body.max_tokens) {
        settings.max_new_tokens =
            u32::try_from(most).ok().filter(|n| *n > 0).ok_or_else(|| Wrong::bad("max_tokens: at least 1"))?;
    }
    if let Some(seed) = body.seed {
        settings.seed = seed.unsigned_abs();
    }
    let usage = body.stream_options.is_some_and(|o| o["include_usage"] == true);
    Ok(Request { prompt, settings, stop: stops(body.stop)?, stream: body.stream, usage })
}

fn number(to: &mut f64, given: Option<f64>, name: &str, min: f64, max: f64) -> Result<(), Wrong> {
    match given {
        Some(v) if (min..=max).contains(&v) => *to = v,
        Some(v) => return Err(Wrong::bad(format!("{name} = {v}: from {min} to {max}"))),
        None => {}
    }
    Ok(())
}

fn stops(given: Option<Value>) -> Result<Vec<String>, Wrong> {
    match given {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(s)) => Ok(vec![s]),
        Some(Value::Array(list)) => {
            let texts = list.into_iter().map(|v| v.as_str().map(str::to_string));
            texts.collect::<Option<_>>().ok_or_else(|| Wrong::bad("stop: a text, or a list of texts"))
        }
        Some(_) => Err(Wrong::bad("stop: a text, or a list of texts")),
    }
}

/// A message as templates know it: content as one text, where it may also come in parts.
fn message(mut m: Value) -> Result<Value, Wrong> {
    if m["role"].as_str().is_none() {
        return Err(Wrong::bad("a message has no role"));
    }
    if let Some(parts) = m["content"].as_array() {
        let text =
            parts.iter().map(|p| p["text"].as_str().ok_or_else(|| Wrong::bad("content: only text is offered here")));
        m["content"] = text.collect::<Result<Vec<_>, _>>()?.concat().into();
    }
    match m["content"].is_string() {
        true => Ok(m),
        false => Err(Wrong::bad("a message has no content")),
    }
}

/// How an answer is worded.
#[derive(Debug, Clone)]
pub struct Wording {
    pub id: String,
    pub model: String,
    /// Unix time, seconds.
    pub created: u64,
    pub chat: bool,
}

/// Tokens that a request took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    pub prompt: usize,
    pub completion: usize,
}

impl Usage {
    fn json(self) -> Value {
        json!({
            "prompt_tokens": self.prompt, "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        })
    }
}

/// OpenAI's word for why an answer ended.
pub fn finish(stop_reason: &str) -> &'static str {
    if stop_reason == "length" { "length" } else { "stop" }
}

impl Wording {
    fn frame(&self, object: &str, choice: Value) -> Value {
        json!({
            "id": self.id, "object": object, "created": self.created, "model": self.model,
            "choices": [choice],
        })
    }

    /// The whole answer at once.
    pub fn whole(&self, text: &str, finish: &str, usage: Usage) -> Value {
        let mut out = match self.chat {
            true => {
                let message = json!({"role": "assistant", "content": text});
                self.frame("chat.completion", json!({"index": 0, "message": message, "finish_reason": finish}))
            }
            false => self.frame("text_completion", json!({"index": 0, "text": text, "finish_reason": finish})),
        };
        out["usage"] = usage.json();
        out
    }

    /// The start of a streamed answer; a plain completion has none.
    pub fn first(&self) -> Option<Value> {
        self.chat.then(|| {
            let delta = json!({"role": "assistant", "content": ""});
            self.frame("chat.completion.chunk", json!({"index": 0, "delta": delta, "finish_reason": null}))
        })
    }

    /// A piece of it.
    pub fn piece(&self, text: &str) -> Value {
        match self.chat {
            true => self
                .frame("chat.completion.chunk", json!({"index": 0, "delta": {"content": text}, "finish_reason": null})),
            false => self.frame("text_completion", json!({"index": 0, "text": text, "finish_reason": null})),
        }
    }

    /// Its end.
    pub fn last(&self, finish: &str) -> Value {
        match self.chat {
            true => self.frame("chat.completion.chunk", json!({"index": 0, "delta": {}, "finish_reason": finish})),
            false => self.frame("text_completion", json!({"index": 0, "text": "", "finish_reason": finish})),
        }
    }

    /// What it took, after the end.
    pub fn usage(&self, usage: Usage) -> Value {
        let mut out = self.frame(if self.chat { "chat.completion.chunk" } else { "text_completion" }, Value::Null);
        out["choices"] = json!([]);
        out["usage"] = usage.json();
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(body: Value) -> Result<Request, Wrong> {
        read(body.to_string().as_bytes(), true, &SampleSettings::default())
    }

    #[test]
    fn what_a_client_leaves_open_is_as_the_run_has_it() {
        let r = chat(json!({"model": "x", "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
            "max_tokens": 5, "stop": "END", "temperature": 0}))
        .unwrap();
        assert_eq!(r.prompt, Prompt::Chat(vec![json!({"role": "user", "content": "hi"})]));
        assert_eq!((r.settings.temperature, r.settings.max_new_tokens), (0.0, 5));
        assert_eq!(r.settings.top_p, SampleSettings::default().top_p);
        assert_eq!((r.stop, r.stream), (vec!["END".to_string()], false));
    }

    #[test]
    fn what_is_not_offered_is_refused_by_name() {
        let with = |key: &str, value: Value| {
            let mut body = json!({"messages": [{"role": "user", "content": "hi"}]});
            body[key] = value;
            chat(body).map_err(|w| w.message)
        };
        for (key, value) in [
            ("tools", json!([{"type": "function"}])),
            ("response_format", json!({"type": "json_object"})),
            ("logprobs", json!(true)),
            ("frequency_penalty", json!(0.5)),
            ("n", json!(2)),
            ("temperature", json!(-1)),
            ("max_tokens", json!(0)),
            ("stop", json!(3)),
            ("messages", json!([])),
        ] {
            let word = if key == "frequency_penalty" { "repetition_penalty" } else { key };
            let why = with(key, value).unwrap_err();
            assert!(why.contains(word) || why.contains(key), "{key}: {why}");
        }
        // Values that change nothing are taken.
        for (key, value) in
            [("tools", json!([])), ("n", json!(1)), ("frequency_penalty", json!(0)), ("user", json!("me"))]
        {
            assert!(with(key, value).is_ok(), "{key}");
        }
    }
}
