//! The Modelfile of an export, and handing it to Ollama where Ollama is.

use super::Tell;
use super::names::LORA;
use super::word::Word;
use crate::data::template::ChatTemplate;
use crate::export::ollama::modelfile::{self, Modelfile, Sampling};
use crate::export::ollama::template::{Template, template};
use crate::export::subject::Subject;
use crate::run::artifact::Artifact;
use crate::{Error, Result};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A Modelfile for the first of `files`. `None`: that is an adapter alone, and its base is no file that FROM could name.
pub fn text(artifact: &Artifact, subject: &Subject, name: &str, files: &[PathBuf]) -> Result<Option<String>> {
    let sample = artifact.recipe.as_ref().map(|r| &r.sample);
    let mut stops: Vec<String> = sample.map(|s| s.stop.clone()).unwrap_or_default();
    stops.extend(subject.tokenizer.special.eos_token.clone());
    let sampling = sample.map(|s| Sampling {
        temperature: s.temperature,
        top_p: s.top_p,
        top_k: s.top_k,
        min_p: s.min_p,
        repetition_penalty: s.repetition_penalty,
    });
    let beside = |f: &PathBuf| f.file_name().map(|n| format!("./{}", n.to_string_lossy())).unwrap_or_default();
    let base = std::path::absolute(&artifact.model).map(|p| p.display().to_string()).unwrap_or_default();
    let (from, adapter) = match files.first() {
        Some(first) if first.to_string_lossy().ends_with(LORA) => match Path::new(&base).exists() {
            true => (base, Some(beside(first))),
            false => return Ok(None),
        },
        Some(first) => (beside(first), None),
        None => return Ok(None),
    };
    let template = proven(subject);
    modelfile::write(&Modelfile {
        name,
        from: &from,
        adapter: adapter.as_deref(),
        template: template.as_ref().map_err(String::as_str),
        system: sample.and_then(|s| s.system.as_deref()),
        stops: &stops,
        sampling,
    })
    .map(Some)
}

/// A TEMPLATE that renders as the training template does, or why there is none.
fn proven(subject: &Subject) -> std::result::Result<Template, String> {
    let Some(source) = &subject.templates.default else { return Err("the model has no chat template".into()) };
    let made = ChatTemplate::new(&subject.templates, &subject.tokenizer.special, &serde_json::Map::new());
    made.and_then(|jinja| template(&jinja, source, &subject.tokenizer)).map_err(|e| e.what)
}

/// The line that makes a model of Ollama's of it and runs it.
pub fn command(name: &str, modelfile: &Path) -> String {
    format!("ollama create {name} -f {} && ollama run {name}", quoted(&modelfile.display().to_string()))
}

/// As a shell takes it for one word.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:=@%,".contains(c);
    match word.chars().all(plain) {
        true => word.to_string(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// Runs `ollama create`. `false`: there is no `ollama` on this machine.
///
/// # Errors
/// When it failed, with the last that it said.
pub fn create(name: &str, modelfile: &Path, tell: &mut Tell) -> Result<bool> {
    let mut create = Command::new("ollama");
    create.arg("create").arg(name).arg("-f").arg(modelfile);
    let child = create.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(Error::from(e).at("ollama")),
    };
    tell(Word::Note { text: format!("ollama create {name}") });
    let mut last = String::new();
    if let Some(said) = child.stderr.take() {
        for line in BufReader::new(said).lines().map_while(std::result::Result::ok) {
            // Its progress bars move the cursor; what they say is after the last return.
            let line: String =
                line.rsplit('\r').next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
            if !line.trim().is_empty() {
                last = line.trim().to_string();
            }
        }
    }
    match child.wait()? {
        status if status.success() => Ok(true),
        status => Err(Error::new(format!("ollama create ended with {status}: {last}"))
            .at(modelfile.display())
            .next("`ollama serve` must be running; the files are whole, so the command can be given again")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_a_space_is_one_word_for_the_shell() {
        let line = command("a", Path::new("/models/my run/Modelfile"));
        assert_eq!(line, "ollama create a -f '/models/my run/Modelfile' && ollama run a");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
