//! What could be written of a run or a model, and how large each would be: nothing is written.

use super::{MERGED, Tell, name_of, open};
use crate::Result;
use crate::export::convert::Plan;
use crate::export::metadata::About;
use crate::export::mixture::Mixture;
use crate::run::artifact;
use crate::run::files::free_space;
use std::path::{Path, PathBuf};

/// Worth offering first, best known first; the others follow in the command line's help.
const TYPES: [(Mixture, &str); 8] = [
    (Mixture::Q4KM, "the usual one: small, close to the original"),
    (Mixture::Q5KM, "a little larger, a little closer"),
    (Mixture::Q6K, "hardly to be told from 16 bits"),
    (Mixture::Q8_0, "as good as 16 bits, half the size"),
    (Mixture::Q4_0, "small and quick on plain CPUs"),
    (Mixture::Q3KM, "for little memory; a small model suffers"),
    (Mixture::F16, "16 bits"),
    (Mixture::BF16, "16 bits, as most models are trained"),
];

/// One thing that can be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// As `--gguf` takes it, or `lora`, or `merged`.
    pub kind: String,
    /// `None`: not known before it is written.
    pub bytes: Option<u64>,
    pub words: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// In words: `support, step 400 (best by eval)`.
    pub title: String,
    pub name: String,
    pub out: PathBuf,
    pub free: Option<u64>,
    pub choices: Vec<Choice>,
}

/// Look at `what` and say what can be written of it into `out`.
///
/// # Errors
/// When it cannot be read, or llama.cpp has no such model.
pub fn offer(what: &str, out: &Path, tell: &mut Tell) -> Result<Offer> {
    let artifact = artifact::find(what)?;
    let subject = open(&artifact, tell)?;
    let name = name_of(&artifact, &subject);
    let about = About { name: Some(&name), tokenizer: &subject.tokenizer, templates: &subject.templates };
    let weights = subject.weights()?;
    let mut choices = Vec::new();
    for (mixture, words) in TYPES {
        let plan = Plan::new(&subject.opened, &weights, &about, mixture)?;
        choices.push(Choice { kind: mixture.name().into(), bytes: Some(plan.size()), words: words.into() });
    }
    let values: usize = weights.config.tensor_shapes().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    let words = "a 16-bit folder for transformers and vLLM".to_string();
    choices.push(Choice { kind: MERGED.into(), bytes: Some(2 * values as u64), words });
    if subject.adapter.is_some() {
        let words = "the adapter alone, for llama.cpp's --lora".to_string();
        choices.push(Choice { kind: "lora".into(), bytes: None, words });
    }
    Ok(Offer { title: artifact.title, name, out: out.to_path_buf(), free: free_space(out), choices })
}
