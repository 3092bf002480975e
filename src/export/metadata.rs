//! A GGUF's keys besides the vocabulary: those that convert_hf_to_gguf.py writes for a model in Hugging Face's layout,
//! or those of the GGUF that the model came from, as llama-quantize hands them on.
//!
//! Must not know tensors' values.

use super::convert::rope_values;
use super::gguf::{Keys, Value};
use super::mixture::Mixture;
use super::{hyperparameters, vocabulary};
use crate::data::tokenizer::{Templates, Tokenizer};
use crate::model::config::Config;
use crate::model::files::Files;
use crate::model::gguf::{GgufModel, architecture, expert};
use crate::model::hf::HfModel;
use crate::model::loading::Opened;
use crate::{Error, Result};
use serde_json::Value as Json;

/// `GGML_QNT_VERSION`
const QUANTIZATION_VERSION: u32 = 2;

/// What the model is to be called and how it is to be spoken to.
pub struct About<'a> {
    /// `general.name`; a GGUF that is only quantized keeps its own where this is `None`.
    pub name: Option<&'a str>,
    pub tokenizer: &'a Tokenizer,
    pub templates: &'a Templates,
}

/// All keys for a file of this mixture.
pub fn keys(model: &Opened, about: &About, mixture: Mixture) -> Result<Keys> {
    match model {
        Opened::Hf(m) => of_hf(m, about, mixture),
        Opened::Gguf(m) => of_gguf(m, about, mixture),
    }
}

fn of_gguf(model: &GgufModel, about: &About, mixture: Mixture) -> Result<Keys> {
    let mut keys = Keys::of_file(model.file.bytes()).map_err(|e| e.at(model.file.path.display()))?;
    for key in ["split.no", "split.count", "split.tensors.count"] {
        keys.remove(key);
    }
    // Our writer's alignment is the usual one.
    keys.remove("general.alignment");
    if let Some(name) = about.name {
        keys.text("general.name", name);
    }
    let own = Tokenizer::of_gguf(&model.file)?.1;
    if own != *about.templates {
        vocabulary::template(&mut keys, about.templates);
    }
    // Set anew, so that they stand last, as llama-quantize leaves them.
    for (key, value) in
        [("general.quantization_version", QUANTIZATION_VERSION), ("general.file_type", mixture.file_type())]
    {
        keys.remove(key);
        keys.set(key, Value::U32(value));
    }
    Ok(keys)
}

fn of_hf(model: &HfModel, about: &About, mixture: Mixture) -> Result<Keys> {
    let (files, c) = (&model.files, &model.config);
    let json = files.json("config.json")?.unwrap_or(Json::Null);
    let mut keys = Keys::default();
    keys.text("general.architecture", architecture(c));
    keys.text("general.type", "model");
    sampling(&mut keys, files)?;
    if let Some(name) = about.name {
        keys.text("general.name", name);
    }
    keys.text("general.size_label", label(c));
    hyperparameters::add(&mut keys, &json, c, mixture.file_type())?;
    keys.set("general.quantization_version", Value::U32(QUANTIZATION_VERSION));
    vocabulary::add(&mut keys, files, about.tokenizer, about.templates, c)?;
    // Further ids that end a turn, where llama.cpp would not know them by their text.
    let known =
        |id: u32| Some(id) == about.tokenizer.eos_id() || vocabulary::ends_by_text(&about.tokenizer.display(id));
    let ends = c.eos_token_ids.iter().copied().filter(|id| !known(*id));
    for (key, id) in ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"].iter().zip(ends) {
        keys.set(*key, Value::U32(id));
    }
    Ok(keys)
}

/// What `generation_config.json` recommends (`general.sampling.*`).
fn sampling(keys: &mut Keys, files: &Files) -> Result<()> {
    let Some(json) = files.json("generation_config.json")? else { return Ok(()) };
    let number = |key: &str| json.get(key).and_then(Json::as_f64);
    if let Some(k) = json.get("top_k").and_then(Json::as_i64) {
        let k = i32::try_from(k).map_err(|_| Error::new(format!("top_k = {k} is too large for a GGUF")))?;
        keys.set("general.sampling.top_k", Value::I32(k));
    }
    for (key, from) in [
        ("top_p", number("top_p")),
        ("min_p", number("min_p")),
        ("temp", number("temperature")),
        ("penalty_repeat", number("repetition_penalty")),
    ] {
        if let Some(v) = from {
            keys.float(format!("general.sampling.{key}"), v);
        }
    }
    Ok(())
}

/// The model's size: of a mixture of experts, their number and what one of each layer and all the rest come to.
fn label(c: &Config) -> String {
    let shapes = c.tensor_shapes();
    // The converter counts these vectors too.
    let turned: usize = rope_values(c).iter().map(|(_, values)| values.len()).sum();
    let (experts, rest): (Vec<_>, Vec<_>) = shapes.iter().partition(|(name, _)| expert(name).is_some());
    let count =
        |list: &[&(String, Vec<usize>)]| -> usize { list.iter().map(|(_, s)| s.iter().product::<usize>()).sum() };
    match c.traits.experts {
        Some(e) => format!("{}x{}", e.count, size_label(turned + count(&rest) + count(&experts) / e.count)),
        None => size_label(turned + count(&rest)),
    }
}

/// `135M`, `1.1B`: two digits at least (gguf-py's `size_label`).
pub fn size_label(parameters: usize) -> String {
    let n = parameters as f64;
    let (scaled, suffix) = match n {
        n if n > 1e12 => (n * 1e-12, "T"),
        n if n > 1e9 => (n * 1e-9, "B"),
        n if n > 1e6 => (n * 1e-6, "M"),
        n => (n * 1e-3, "K"),
    };
    let digits = format!("{:.0}", scaled).trim_start_matches('0').len();
    format!("{scaled:.*}{suffix}", 2usize.saturating_sub(digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_with_two_digits_at_least() {
        for (n, label) in
            [(134_515_008, "135M"), (1_100_048_384, "1.1B"), (8_030_261_248, "8.0B"), (39_072, "39K"), (300, "0.30K")]
        {
            assert_eq!(size_label(n), label);
        }
    }
}
