//! A chat template that is not this model's: markers that are not tokens, or a text begun twice.

use crate::diagnose::{
    finding,
    preflight::{Preflight, share},
};
use crate::recipe::Method;
use crate::recipe::guidance::row;
use crate::train::event::{Finding, Severity};

pub const NAME: &str = "template_mismatch";

/// Rows whose text is searched for the template's markers: branches of a template that no row takes do not matter.
const ROWS: usize = 20;
/// Markers without the usual bars.
const PLAIN: &[&str] = &["[INST]", "[/INST]", "<start_of_turn>", "<end_of_turn>", "<s>", "</s>", "<bos>", "<eos>"];

pub fn look(p: &Preflight<'_>) -> Vec<Finding> {
    if p.recipe.method == Method::Cpt {
        return Vec::new();
    }
    let Some(template) = p.template else { return Vec::new() };
    let mut found = Vec::new();
    let text: String = p.examples.iter().take(ROWS).map(|e| (p.decode)(&e.ids)).collect();
    let split: Vec<_> = markers(template)
        .into_iter()
        .filter(|m| text.contains(m.as_str()))
        .map(|m| ((p.encode)(&m).len(), m))
        .filter(|(n, _)| *n != 1)
        .collect();
    let own = p.own_template.is_none_or(|own| own.trim() == template.trim());
    if !split.is_empty() {
        // Where the model has a template of its own, another family's is a mistake; a base model has nothing better.
        let severity = if own { Severity::Warning } else { Severity::Error };
        let mut f = finding(NAME, severity, "turn markers are not tokens of this model", row::TEMPLATE);
        let list: Vec<_> = split.iter().map(|(n, m)| format!("{m} is {n} tokens")).collect();
        f.evidence = format!("{}.", list.join(", "));
        f.cause = "The template is another family's. The tokenizer's own: remove model.chat_template.".into();
        found.push(f);
    } else if !own {
        let mut f = finding(NAME, Severity::Warning, "template differs from the model's own", row::TEMPLATE);
        f.evidence = "model.chat_template replaces the tokenizer's; its markers are single tokens.".into();
        f.cause = "Serve it with this same template: others will use the model's own.".into();
        found.push(f);
    }
    if let Some(bos) = p.bos_id {
        let twice = p.examples.iter().filter(|e| e.ids.len() > 1 && e.ids[0] == bos && e.ids[1] == bos).count();
        if twice > 0 {
            let mut f = finding(NAME, Severity::Warning, "texts begin twice", row::TEMPLATE);
            f.evidence = format!("two begin tokens in {}.", share(twice, p.examples.len(), "rows"));
            f.cause = "The template writes the token that the tokenizer adds as well.".into();
            found.push(f);
        }
    }
    if found.is_empty() {
        let title =
            if p.own_template.is_some() { "template is the model's own" } else { "template fits the tokenizer" };
        let mut f = finding(NAME, Severity::Passed, title, row::TEMPLATE);
        f.evidence = "every turn marker is one token".into();
        found.push(f);
    }
    found
}

/// Turn markers written out in a template: `<|…|>` and the known plain ones.
fn markers(template: &str) -> Vec<String> {
    let mut list: Vec<String> = PLAIN.iter().filter(|m| template.contains(**m)).map(|m| (*m).to_string()).collect();
    let mut rest = template;
    while let Some(at) = rest.find("<|") {
        rest = &rest[at..];
        let Some(end) = rest.find("|>") else { break };
        let marker = &rest[..end + 2];
        if marker.len() < 40 && !marker.contains(char::is_whitespace) && !list.iter().any(|m| m == marker) {
            list.push(marker.to_string());
        }
        rest = &rest[2..];
    }
    list
}

#[cfg(test)]
mod tests {
    #[test]
    fn markers_are_found_where_they_are_written_out() {
        let chatml = "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' }}{% if a <| b %}";
        assert_eq!(super::markers(chatml), ["<|im_start|>", "<|im_end|>"]);
        assert_eq!(super::markers("[INST] {{ x }} [/INST] y </s>"), ["[INST]", "[/INST]", "</s>"]);
    }
}
