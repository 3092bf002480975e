//! A Modelfile for Ollama: FROM, ADAPTER, TEMPLATE, SYSTEM and PARAMETER lines, and back its TEMPLATE.
//!
//! Must not know recipes.

use super::template::Template;
use crate::{Error, Result};

/// Sampling settings under the recipe's names.
#[derive(Debug, Clone, Copy)]
pub struct Sampling {
    pub temperature: f64,
    pub top_p: f64,
    /// 0: no limit.
    pub top_k: u32,
    /// 0: none.
    pub min_p: f64,
    pub repetition_penalty: f64,
}

#[derive(Clone, Copy)]
pub struct Modelfile<'a> {
    pub name: &'a str,
    /// A path, seen from the Modelfile.
    pub from: &'a str,
    /// An adapter beside it.
    pub adapter: Option<&'a str>,
    /// A proven TEMPLATE, or why there is none.
    pub template: std::result::Result<&'a Template, &'a str>,
    pub system: Option<&'a str>,
    /// Texts that end a turn.
    pub stops: &'a [String],
    pub sampling: Option<Sampling>,
}

/// # Errors
/// When a text holds what a Modelfile cannot quote.
pub fn write(m: &Modelfile) -> Result<String> {
    let mut out = format!("# {}, written by finetop\n", line(m.name)?);
    out += &format!("FROM {}\n", line(m.from)?);
    if let Some(adapter) = m.adapter {
        out += &format!("ADAPTER {}\n", line(adapter)?);
    }
    match m.template {
        Ok(t) => {
            out += &format!(
                "# Renders {} chats as the training template does, to the byte; tools are not among them.\n",
                t.chats
            );
            for difference in &t.differs {
                out += &format!("# But: {difference}.\n");
            }
            out += &format!("TEMPLATE \"\"\"{}\"\"\"\n", t.text);
        }
        Err(why) => {
            out += &format!("# No TEMPLATE: {}.\n", why.replace(['\n', '\r'], " "));
            out +=
                "# Ollama takes the one of its own that is nearest to the GGUF's chat template, or none: look with\n";
            out += "# `ollama show --template` before you rely on it. llama.cpp renders the GGUF's own.\n";
        }
    }
    if let Some(system) = m.system {
        if system.contains("\"\"\"") {
            return Err(Error::new("a Modelfile cannot hold three quotation marks in a row").at("sample.system"));
        }
        out += &format!("SYSTEM \"\"\"{system}\"\"\"\n");
    }
    let mut seen: Vec<&str> = Vec::new();
    for stop in m.stops.iter().map(String::as_str).filter(|s| !s.is_empty()) {
        if !seen.contains(&stop) {
            out += &format!("PARAMETER stop \"{}\"\n", line(stop)?.replace('\\', "\\\\").replace('"', "\\\""));
            seen.push(stop);
        }
    }
    if let Some(s) = m.sampling {
        out += &format!("PARAMETER temperature {}\nPARAMETER top_p {}\n", s.temperature, s.top_p);
        // Ollama's own defaults are 40 and 0; 0 turns its limit off as ours does.
        out += &format!("PARAMETER top_k {}\nPARAMETER min_p {}\n", s.top_k, s.min_p);
        out += &format!("PARAMETER repeat_penalty {}\n", s.repetition_penalty);
    }
    Ok(out)
}

/// The TEMPLATE of a Modelfile that [`write`] wrote, and the stop texts.
pub fn read(text: &str) -> (Option<&str>, Vec<String>) {
    let template = text.split_once("\nTEMPLATE \"\"\"").and_then(|(_, rest)| rest.split_once("\"\"\"")).map(|(t, _)| t);
    let stops = text.lines().filter_map(|l| l.strip_prefix("PARAMETER stop \"")?.strip_suffix('"'));
    (template, stops.map(|s| s.replace("\\\"", "\"").replace("\\\\", "\\")).collect())
}

/// A text that stays on its line.
fn line(text: &str) -> Result<&str> {
    match text.contains(['\n', '\r']) {
        true => Err(Error::new(format!("a Modelfile cannot hold a line break here: {text:?}"))),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_stand_under_ollama_s_names_and_each_stop_once() {
        let sampling = Sampling { temperature: 0.7, top_p: 0.9, top_k: 0, min_p: 0.0, repetition_penalty: 1.1 };
        let stops = ["<|im_end|>".to_string(), "a \"b\"".to_string(), "<|im_end|>".to_string(), String::new()];
        let template = Template { text: "{{ .System }}\n".into(), chats: 8, differs: vec!["x is y"] };
        let m = Modelfile {
            name: "my-model",
            from: "./my-model.Q4_K_M.gguf",
            adapter: None,
            template: Ok(&template),
            system: Some("Be brief."),
            stops: &stops,
            sampling: Some(sampling),
        };
        let text = write(&m).unwrap();
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "FROM ./my-model.Q4_K_M.gguf",
                "# Renders 8 chats as the training template does, to the byte; tools are not among them.",
                "# But: x is y.",
                "TEMPLATE \"\"\"{{ .System }}",
                "\"\"\"",
                "SYSTEM \"\"\"Be brief.\"\"\"",
                "PARAMETER stop \"<|im_end|>\"",
                "PARAMETER stop \"a \\\"b\\\"\"",
                "PARAMETER temperature 0.7",
                "PARAMETER top_p 0.9",
                "PARAMETER top_k 0",
                "PARAMETER min_p 0",
                "PARAMETER repeat_penalty 1.1",
            ]
        );
        assert_eq!(read(&text), (Some("{{ .System }}\n"), vec!["<|im_end|>".to_string(), "a \"b\"".to_string()]));
        let none = write(&Modelfile { template: Err("it writes\nthe date"), adapter: Some("./a.gguf"), ..m }).unwrap();
        assert!(none.contains("ADAPTER ./a.gguf\n# No TEMPLATE: it writes the date.\n"), "{none}");
        assert_eq!(read(&none).0, None);
        assert!(write(&Modelfile { stops: &["a\nb".to_string()], ..m }).is_err());
        assert!(write(&Modelfile { stops: &[], system: Some("\"\"\""), ..m }).is_err());
    }
}
