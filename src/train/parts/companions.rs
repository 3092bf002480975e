//! The files beside a fully tuned model's weights, so that transformers and this program open the folder.

use crate::Result;
use crate::data::tokenizer::Templates;
use crate::export::companions as files;
use crate::model::source;
use crate::train::speaker::Speaker;

/// The base's own files where it has them; configuration and tokenizer written anew where it is a GGUF. Checkpoints
/// are f32, whatever the base was stored as.
pub fn companions(name_or_path: &str, speaker: &Speaker) -> Result<Vec<(String, Vec<u8>)>> {
    let base = source::resolve(name_or_path)?.place.files();
    let own = Templates { default: speaker.own_template.clone(), tool_use: None };
    let template = if base.is_none() { Some(&own) } else { None };
    files::companions(base.as_ref(), speaker.model.config(), &speaker.tokenizer, template, "float32")
}
