//! For tests: a tokenizer and chat templates that need no files.

use super::traits::{Encode, Encoding, Marked, Render};
use crate::{Error, Result};
use serde_json::Value;

/// One token a character (its code point), special tokens `<|…|>` and `<…>` of the templates below one token each;
/// `bos` adds one at the front where special tokens are asked for.
#[derive(Default)]
pub struct CharTokens {
    pub bos: bool,
}

/// Special tokens, in the order of their ids from [`SPECIAL`] on.
pub const NAMES: [&str; 9] = [
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
];
pub const SPECIAL: u32 = 0x20_0000;
pub const BOS: u32 = SPECIAL + 3;

impl Encode for CharTokens {
    fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Encoding> {
        let mut out = Encoding::default();
        if self.bos && add_special_tokens {
            out.ids.push(BOS);
            out.offsets.push(0..0);
        }
        let mut at = 0;
        while let Some(c) = text[at..].chars().next() {
            let special = NAMES.iter().position(|n| text[at..].starts_with(n));
            let (id, len) = match special {
                Some(i) => (SPECIAL + i as u32, NAMES[i].len()),
                None => (u32::from(c), c.len_utf8()),
            };
            out.ids.push(id);
            out.offsets.push(at..at + len);
            at += len;
        }
        Ok(out)
    }

    fn display(&self, id: u32) -> String {
        match id.checked_sub(SPECIAL) {
            Some(i) => NAMES[i as usize].to_string(),
            None => char::from_u32(id).unwrap_or('?').to_string(),
        }
    }

    fn identity(&self) -> Result<String> {
        Ok(format!("characters, bos {}", self.bos))
    }
}

/// A template in Jinja, with `{% generation %}` marks where it has them.
pub struct Jinja(pub &'static str);

const OPEN: &str = "\u{E000}";
const CLOSE: &str = "\u{E001}";

impl Jinja {
    fn run(&self, messages: &[Value], tools: Option<&Value>, prompt: bool, open: &str, close: &str) -> Result<String> {
        let source = self.0.replace("{% generation %}", open).replace("{% endgeneration %}", close);
        let mut env = minijinja::Environment::new();
        env.set_trim_blocks(true);
        env.set_lstrip_blocks(true);
        env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        env.add_function("raise_exception", |m: String| -> std::result::Result<String, minijinja::Error> {
            Err(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, m))
        });
        env.render_str(&source, minijinja::context! { messages, tools, add_generation_prompt => prompt })
            .map_err(|e| Error::new(e.to_string()))
    }
}

impl Render for Jinja {
    fn render(&self, messages: &[Value], tools: Option<&Value>, add_generation_prompt: bool) -> Result<String> {
        self.run(messages, tools, add_generation_prompt, "", "")
    }

    fn render_marked(&self, messages: &[Value], tools: Option<&Value>) -> Result<Option<Marked>> {
        if !self.0.contains("{% generation %}") {
            return Ok(None);
        }
        let marked = self.run(messages, tools, false, OPEN, CLOSE)?;
        let (mut text, mut spans, mut start) = (String::new(), Vec::new(), 0);
        for c in marked.chars() {
            match c {
                '\u{E000}' => start = text.len(),
                '\u{E001}' => spans.push(start..text.len()),
                c => text.push(c),
            }
        }
        Ok(Some(Marked { text, spans }))
    }

    fn identity(&self) -> String {
        self.0.to_string()
    }
}

/// ChatML with a default system message, as SmolLM2 has it.
pub const CHATML: Jinja = Jinja(
    "{% for m in messages %}\
     {% if loop.first and m.role != 'system' %}{{ '<|im_start|>system\nBe good.<|im_end|>\n' }}{% endif %}\
     {{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}\
     {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
);

/// Llama 3: contents are trimmed, a turn ends with `<|eot_id|>` and nothing else.
pub const LLAMA3: Jinja = Jinja(
    "{{ '<|begin_of_text|>' }}{% for m in messages %}\
     {{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}\
     {% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
);

/// Gemma: the assistant is `model`, roles must alternate, there is no system message.
pub const GEMMA: Jinja = Jinja(
    "{% for m in messages %}\
     {% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}\
     {{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + m.content | trim + '<end_of_turn>\n' }}\
     {% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
);

/// Qwen3: an empty thought is written in the last turn and dropped from those before it.
pub const QWEN3: Jinja = Jinja(
    "{% for m in messages %}\
     {% if m.role == 'assistant' and loop.last %}\
     {{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' + m.content + '<|im_end|>\n' }}\
     {% else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}\
     {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
);

/// As [`QWEN3`], with `{% generation %}` marks.
pub const QWEN3_MARKED: Jinja = Jinja(
    "{% for m in messages %}\
     {% if m.role == 'assistant' %}{{ '<|im_start|>assistant\n' }}\
     {% generation %}{% if loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}\
     {% else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}\
     {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
);
