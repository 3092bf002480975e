//! `{% generation %}` blocks: transformers' way for a template to say which text the assistant wrote.
//!
//! minijinja has no such tag. The tags become a `call` block, which has the same scope and the same whitespace rules
//! as transformers' own, of a function that puts marks around its body; the marks are taken out of the rendering.

use crate::data::traits::Marked;
use crate::{Error, Result};
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, State};

/// Unicode noncharacters: no text that is interchanged has them.
const START: char = '\u{FDD0}';
const END: char = '\u{FDD1}';

/// The function that a block calls.
const FUNCTION: &str = "__generation";

pub(super) fn add_to(env: &mut Environment<'static>) {
    env.add_function(FUNCTION, |state: &State<'_, '_>, kwargs: Kwargs| {
        let body = kwargs.get::<Value>("caller")?.call(state, &[])?;
        Ok::<_, minijinja::Error>(Value::from(format!("{START}{body}{END}")))
    });
}

/// The template with its tags replaced, and whether it had any. Line breaks become `\n`, as Jinja reads them.
pub(super) fn rewrite(source: &str) -> (String, bool) {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let (mut out, mut rest, mut found) = (String::with_capacity(source.len()), source.as_str(), false);
    while let Some(open) = rest.find("{%") {
        let Some(length) = rest[open + 2..].find("%}") else { break };
        let inner = &rest[open + 2..open + 2 + length];
        // The `-` and `+` of whitespace control stay where they are.
        let word = inner.trim_matches(['-', '+']).trim();
        let replacement = match word {
            "generation" => format!("call {FUNCTION}()"),
            "endgeneration" => "endcall".to_string(),
            _ => {
                // One step only: a `%}` may lie in a string, where the tag's end is elsewhere.
                out.push_str(&rest[..open + 2]);
                rest = &rest[open + 2..];
                continue;
            }
        };
        found = true;
        out.push_str(&rest[..open + 2]);
        out.push_str(&inner.replacen(word, &format!(" {replacement} "), 1));
        out.push_str("%}");
        rest = &rest[open + 2 + length + 2..];
    }
    out.push_str(rest);
    (out, found)
}

/// The rendering without its marks, and where they were. A mark that came with a message is refused.
pub(super) fn take_out(text: &str) -> Result<Marked> {
    let mut out = Marked { text: String::with_capacity(text.len()), spans: Vec::new() };
    let mut open = None;
    for c in text.chars() {
        match (c, open) {
            (START, None) => open = Some(out.text.len()),
            (END, Some(start)) => {
                out.spans.push(start..out.text.len());
                open = None;
            }
            (START | END, _) => {
                return Err(Error::new("a message holds U+FDD0 or U+FDD1, which are no characters")
                    .next("take them out of the data"));
            }
            (c, _) => out.text.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_replaced_with_their_whitespace_control() {
        let (text, found) = rewrite("a{%- generation -%}b{% endgeneration %}c{% if x %}generation{% endif %}");
        assert!(found);
        assert_eq!(
            text,
            "a{%- call __generation() -%}b{% endcall %}c{% if x %}generation{% endif %}"
                .replace("{%- call __generation() -%}", "{%-  call __generation()  -%}")
                .replace("{% endcall %}", "{%  endcall  %}")
        );
        assert!(!rewrite("{% if add_generation_prompt %}x{% endif %}").1);
    }

    #[test]
    fn marks_become_byte_ranges() {
        let marked = take_out("é\u{FDD0}ab\u{FDD1}c\u{FDD0}\u{FDD1}").unwrap();
        assert_eq!((marked.text.as_str(), marked.spans), ("éabc", vec![2..4, 5..5]));
        assert!(take_out("a\u{FDD1}").is_err());
    }
}
