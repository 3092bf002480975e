//! Chat templates: messages to text, to the byte as transformers' `apply_chat_template` renders them.
//!
//! A template is Jinja text that comes with a model. This is minijinja, made to behave as the Python it was
//! written for. Must not know tokens, masks or where a template was found.

mod builtin;
mod clock;
mod json;
mod marks;
mod methods;
mod overrides;
mod python;
mod rewrite;

pub use builtin::{NAMES, named};

use super::tokenizer::{SpecialTokens, Templates};
use super::traits::{Marked, Render};
use crate::{Error, Result};
use minijinja::value::Value as Jinja;
use minijinja::{AutoEscape, Environment};
use serde_json::{Map, Value};
use std::path::Path;
use std::time::SystemTime;

/// A compiled chat template with what is the same in every rendering.
pub struct ChatTemplate {
    env: Environment<'static>,
    /// Special tokens and keyword arguments, in that order: arguments win.
    globals: Vec<(String, Jinja)>,
    /// Whether it has `{% generation %}` blocks.
    marked: bool,
    /// Whether there is a template of its own for conversations with tools.
    tool_use: bool,
    /// Whether a template speaks of `tool_calls`.
    calls_tools: bool,
    identity: String,
}

const DEFAULT: &str = "default";
const TOOL_USE: &str = "tool_use";

impl ChatTemplate {
    /// Compile a template. `kwargs` are `model.chat_template_kwargs` (`enable_thinking` …).
    ///
    /// `strftime_now` gives the time of this call, in UTC, for every rendering: rows of one run have one date,
    /// and what is trained does not depend on the machine's time zone.
    pub fn new(templates: &Templates, special: &SpecialTokens, kwargs: &Map<String, Value>) -> Result<Self> {
        Self::at_time(templates, special, kwargs, SystemTime::now())
    }

    fn at_time(
        templates: &Templates,
        special: &SpecialTokens,
        kwargs: &Map<String, Value>,
        now: SystemTime,
    ) -> Result<Self> {
        let Some(source) = &templates.default else {
            return Err(Error::new("the model has no chat template")
                .next(format!("set model.chat_template to a Jinja file or to one of: {}", NAMES.join(", "))));
        };
        let mut env = Environment::new();
        // transformers: ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        env.set_trim_blocks(true);
        env.set_lstrip_blocks(true);
        env.set_auto_escape_callback(|_| AutoEscape::None);
        env.set_unknown_method_callback(methods::call);
        env.set_formatter(|out, _, value| out.write_str(&python::text(value)).map_err(minijinja::Error::from));
        overrides::add_to(&mut env);
        clock::add_to(&mut env, now);
        marks::add_to(&mut env);
        rewrite::add_to(&mut env);
        let (source, marked) = marks::rewrite(source);
        compile(&mut env, DEFAULT, source)?;
        if let Some(source) = &templates.tool_use {
            compile(&mut env, TOOL_USE, marks::rewrite(source).0)?;
        }
        let mut globals: Map<String, Value> = special.to_map();
        globals.extend(kwargs.clone());
        let identity = serde_json::json!([templates.default, templates.tool_use, globals]).to_string();
        Ok(Self {
            env,
            globals: globals.iter().map(|(k, v)| (k.clone(), python::from_json(v))).collect(),
            marked,
            tool_use: templates.tool_use.is_some(),
            calls_tools: [&templates.default, &templates.tool_use]
                .into_iter()
                .flatten()
                .any(|t| t.contains("tool_calls")),
            identity: blake3::hash(identity.as_bytes()).to_hex().to_string(),
        })
    }

    /// Render with the byte ranges of `{% generation %}` blocks.
    fn run(&self, messages: &[Value], tools: Option<&Value>, add_generation_prompt: bool) -> Result<Marked> {
        let tools = tools.filter(|t| !t.is_null());
        let name = if tools.is_some() && self.tool_use { TOOL_USE } else { DEFAULT };
        let messages: Vec<Jinja> = messages.iter().map(|m| python::from_json(&with_reasoning(m))).collect();
        let mut context: Vec<(String, Jinja)> = vec![
            ("messages".into(), Jinja::from(messages)),
            ("tools".into(), tools.map_or_else(|| Jinja::from(()), python::from_json)),
            ("documents".into(), Jinja::from(())),
            ("add_generation_prompt".into(), Jinja::from(add_generation_prompt)),
        ];
        context.extend(self.globals.iter().cloned());
        let template = self.env.get_template(name).map_err(explain)?;
        let text = template.render(context.into_iter().collect::<Jinja>()).map_err(explain)?;
        if !self.marked {
            return Ok(Marked { text, spans: Vec::new() });
        }
        marks::take_out(&text)
    }
}

impl Render for ChatTemplate {
    fn render(&self, messages: &[Value], tools: Option<&Value>, add_generation_prompt: bool) -> Result<String> {
        Ok(self.run(messages, tools, add_generation_prompt)?.text)
    }

    fn render_marked(&self, messages: &[Value], tools: Option<&Value>) -> Result<Option<Marked>> {
        match self.marked {
            true => self.run(messages, tools, false).map(Some),
            false => Ok(None),
        }
    }

    fn calls_tools(&self) -> bool {
        self.calls_tools
    }

    fn identity(&self) -> String {
        self.identity.clone()
    }
}

/// What `model.chat_template` asks for: a name of ours, a file, or Jinja text itself.
pub fn choose(setting: &str) -> Result<String> {
    if let Some(text) = named(setting.trim()) {
        return Ok(text.to_string());
    }
    if setting.contains("{{") || setting.contains("{%") {
        return Ok(setting.to_string());
    }
    if Path::new(setting).is_file() {
        return std::fs::read_to_string(setting).map_err(|e| Error::from(e).at(setting));
    }
    Err(Error::new(format!("chat_template \"{setting}\" is no file, no Jinja text and no known name"))
        .next(format!("names: {}", NAMES.join(", "))))
}

fn compile(env: &mut Environment<'static>, name: &'static str, source: String) -> Result<()> {
    env.add_template_owned(name, rewrite::rewrite(&source)).map_err(|e| {
        let error = explain(e);
        Error { what: format!("the chat template is not valid Jinja: {}", error.what), ..error }
    })
}

/// transformers 5 gives reasoning under the names that templates read: `reasoning_content`, and `thinking` for
/// gpt-oss, whichever of `reasoning_content`, `thinking` and `reasoning` a message has.
fn with_reasoning(message: &Value) -> Value {
    let Value::Object(map) = message else { return message.clone() };
    let fields = ["reasoning_content", "thinking", "reasoning"];
    let Some(reasoning) = fields.iter().find_map(|f| map.get(*f).filter(|v| !v.is_null())) else {
        return message.clone();
    };
    let mut out = Map::new();
    out.insert("thinking".into(), reasoning.clone());
    out.extend(map.clone());
    out.insert("reasoning_content".into(), reasoning.clone());
    Value::Object(out)
}

/// minijinja's error as ours: the innermost reason, and the line of the template.
fn explain(error: minijinja::Error) -> Error {
    let mut inner = &error;
    while let Some(next) = std::error::Error::source(inner).and_then(|s| s.downcast_ref::<minijinja::Error>()) {
        inner = next;
    }
    let what = match inner.detail() {
        Some(detail) if overrides::was_raised(inner) => detail.to_string(),
        Some(detail) => format!("{}: {detail}", inner.kind()),
        None => inner.kind().to_string(),
    };
    match inner.line().or_else(|| error.line()) {
        Some(line) => Error::new(what).at(format!("chat template, line {line}")),
        None => Error::new(what).at("chat template"),
    }
}

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod tests;
