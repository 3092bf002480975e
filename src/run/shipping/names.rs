//! What an export and its files are called.

use crate::export::mixture::Mixture;
use crate::export::subject::Subject;
use crate::run::artifact::Artifact;
use std::path::Path;

/// Ends the name of an adapter's file.
pub const LORA: &str = ".LoRA.gguf";

/// What an export is called: after the run where there is one, else after the adapter's folder or the model.
pub fn name_of(artifact: &Artifact, subject: &Subject) -> String {
    let folder = || artifact.adapter.as_deref().and_then(Path::file_name).map(|n| n.to_string_lossy().into_owned());
    let name = match &artifact.recipe {
        Some(recipe) => recipe.run_name.clone(),
        None => folder().unwrap_or_else(|| subject.name.clone()),
    };
    // `SmolLM2.Q4_1` as a source is still SmolLM2.
    match name.rsplit_once('.') {
        Some((stem, kind)) if !stem.is_empty() && Mixture::parse(kind).is_ok() => stem.to_string(),
        _ => name,
    }
}

/// `NAME.Q4_K_M.gguf`
pub fn gguf(name: &str, mixture: Mixture) -> String {
    format!("{}.{}.gguf", safe(name), mixture.name().to_uppercase())
}

/// `NAME.LoRA.gguf`
pub fn lora(name: &str) -> String {
    format!("{}{LORA}", safe(name))
}

fn safe(name: &str) -> String {
    name.chars().map(|c| if c == '/' || c.is_control() { '-' } else { c }).collect()
}

/// As Ollama names models: lower case, with letters, digits and a few signs.
pub fn ollama(name: &str) -> String {
    let sign = |c: char| c.is_ascii_alphanumeric() || "-_.:/".contains(c);
    name.to_lowercase().chars().map(|c| if sign(c) { c } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_suit_files_and_ollama() {
        assert_eq!(gguf("a/b", Mixture::Q4KM), "a-b.Q4_K_M.gguf");
        assert_eq!(lora("support"), "support.LoRA.gguf");
        assert_eq!(ollama("Qwen 7B support"), "qwen-7b-support");
        assert_eq!(ollama("me/support:q4"), "me/support:q4");
    }
}
