//! What is exported: a model's files, an adapter or none, and the chat template that it was trained with.
//!
//! Must not know runs: who asks has found model and adapter already.

use super::adapter::{self, Adapter};
use super::weights::Weights;
use crate::data::template;
use crate::data::tokenizer::{Templates, Tokenizer};
use crate::model::loading::Opened;
use crate::model::source;
use crate::{Error, Result};
use std::path::Path;

pub struct Subject {
    pub opened: Opened,
    pub adapter: Option<Adapter>,
    pub tokenizer: Tokenizer,
    /// As trained, `{% generation %}` marks put into plain Jinja.
    pub templates: Templates,
    /// Whether they are not the model's own.
    pub replaced: bool,
    /// Short, for titles and file names.
    pub name: String,
}

impl Subject {
    /// `template` is what a recipe puts in place of the model's own (`model.chat_template`).
    pub fn open(name_or_path: &str, adapter: Option<&Path>, template: Option<&str>) -> Result<Self> {
        let source = source::resolve(name_or_path)?;
        let opened = Opened::open(&source)?;
        let adapter = adapter.map(adapter::read).transpose()?;
        let (tokenizer, own) = Tokenizer::of(&opened)?;
        let mut templates = match template {
            Some(setting) => Templates { default: Some(template::choose(setting)?), tool_use: None },
            None => own,
        };
        templates.default = templates.default.as_deref().map(plain);
        templates.tool_use = templates.tool_use.as_deref().map(plain);
        Ok(Self { opened, adapter, tokenizer, templates, replaced: template.is_some(), name: source.name })
    }

    /// Its weights, read from disk as they are asked for.
    pub fn weights(&self) -> Result<Weights<'_>> {
        Weights::open(&self.opened, self.adapter.as_ref())
    }

    /// Whether the base's weights were quantized.
    pub fn is_quantized(&self) -> Result<bool> {
        let weights = self.weights()?;
        let kind = weights.matrix("model.layers.0.mlp.down_proj.weight")?.kind();
        Ok(kind.is_none_or(super::quant::Kind::is_quantized))
    }

    /// The files of a Hugging Face layout.
    ///
    /// # Errors
    /// When the model is a `.gguf`.
    pub fn files(&self) -> Result<&crate::model::files::Files> {
        match &self.opened {
            Opened::Hf(m) => Ok(&m.files),
            Opened::Gguf(m) => Err(Error::new("a .gguf has no such files").at(m.file.path.display())),
        }
    }
}

/// A template without transformers' own `{% generation %}` marks, which other renderers do not know: a block that
/// always runs takes their place, so that white space around them is treated as before.
fn plain(template: &str) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(start) = rest.find("{%") {
        let Some(end) = rest[start..].find("%}").map(|n| start + n) else { break };
        let (inner, dashes) = (&rest[start + 2..end], |c: char| c == '-' || c == '+');
        let word = inner.trim_matches(dashes).trim();
        out.push_str(&rest[..start + 2]);
        match word {
            "generation" => out.push_str(&inner.replacen("generation", "if true", 1)),
            "endgeneration" => out.push_str(&inner.replacen("endgeneration", "endif", 1)),
            _ => out.push_str(inner),
        }
        out.push_str("%}");
        rest = &rest[end + 2..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_marks_become_blocks_that_every_renderer_knows() {
        let marked = "a {%- generation %}b{{ x }}{%- endgeneration -%} {% if generation %}c{% endif %}";
        assert_eq!(plain(marked), "a {%- if true %}b{{ x }}{%- endif -%} {% if generation %}c{% endif %}");
        for name in template::NAMES {
            let own = template::named(name).unwrap();
            assert!(!plain(own).contains("generation %}"), "{name}");
        }
        assert_eq!(plain("{% never closed"), "{% never closed");
    }
}
