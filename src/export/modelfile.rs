//! A Modelfile for Ollama: FROM, SYSTEM and PARAMETER lines.
//!
//! No TEMPLATE is written: Ollama renders by the template in the GGUF, which is the one that was trained with. Must not
//! know recipes.

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

pub struct Modelfile<'a> {
    pub name: &'a str,
    /// A file beside the Modelfile.
    pub from: &'a str,
    pub system: Option<&'a str>,
    /// Texts that end a turn.
    pub stops: &'a [String],
    pub sampling: Option<Sampling>,
}

/// # Errors
/// When a text holds what a Modelfile cannot quote.
pub fn write(m: &Modelfile) -> Result<String> {
    let mut out = format!("# {}, written by finetop. The chat template is the GGUF's own, as it was trained with.\n", line(m.name)?);
    out += &format!("FROM ./{}\n", line(m.from)?);
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
        let sampling =
            Sampling { temperature: 0.7, top_p: 0.9, top_k: 0, min_p: 0.0, repetition_penalty: 1.1 };
        let stops = ["<|im_end|>".to_string(), "a \"b\"".to_string(), "<|im_end|>".to_string(), String::new()];
        let m = Modelfile { name: "my-model", from: "my-model.Q4_K_M.gguf", system: Some("Be brief."), stops: &stops, sampling: Some(sampling) };
        let text = write(&m).unwrap();
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "FROM ./my-model.Q4_K_M.gguf",
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
        assert!(write(&Modelfile { stops: &["a\nb".to_string()], ..m }).is_err());
        assert!(write(&Modelfile { stops: &[], system: Some("\"\"\""), ..m }).is_err());
    }
}
