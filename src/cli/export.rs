//! `finetop export`: a run, an adapter or a model as GGUF files.

use super::args::ExportArgs;
use super::{manifest, output, verify};
use crate::data::template::ChatTemplate;
use crate::export::convert::Plan;
use crate::export::lora_gguf;
use crate::export::metadata::About;
use crate::export::mixture::Mixture;
use crate::export::ollama::modelfile::{self, Modelfile, Sampling};
use crate::export::ollama::template::{Template, template};
use crate::export::subject::Subject;
use crate::run::artifact::{self, Artifact};
use crate::{Error, Result};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Instant;

const LORA: &str = ".LoRA.gguf";

pub fn run(args: &ExportArgs) -> Result<()> {
    let mixtures = args.gguf.iter().map(|name| Mixture::parse(name)).collect::<Result<Vec<_>>>()?;
    let artifact = artifact::find(&args.what)?;
    let subject = open(&artifact)?;
    let name = args.name.clone().unwrap_or_else(|| name_of(&artifact, &subject));
    let about = About {
        // A model that is only quantized keeps the name it has.
        name: (args.name.is_some() || subject.adapter.is_some() || subject.files().is_ok()).then_some(name.as_str()),
        tokenizer: &subject.tokenizer,
        templates: &subject.templates,
    };
    let weights = subject.weights()?;
    std::fs::create_dir_all(&args.out).map_err(|e| Error::from(e).at(args.out.display()))?;
    output::progress(&artifact.title);
    let (mut written, mut files) = (Vec::new(), Vec::new());
    for mixture in mixtures {
        let plan = Plan::new(&subject.opened, &weights, &about, mixture)?;
        let path = args.out.join(file_name(&name, mixture));
        let twice = plan.requantized();
        if twice > 0 {
            output::progress(&format!(
                "note: {twice} tensors were quantized before; what that lost is not won back (take the original where there is one)"
            ));
        }
        for lost in &plan.lost {
            output::progress(&format!("note: {lost}"));
        }
        let counts = plan.counts().iter().map(|(kind, n)| format!("{n} {kind}")).collect::<Vec<_>>().join(", ");
        output::progress(&format!("{}  {counts}", mixture.name()));
        let (began, total) = (Instant::now(), plan.tensors.len());
        let mut shown = Instant::now();
        let bytes = plan.write(&path, &mut |done| {
            if shown.elapsed().as_secs() >= 2 && done < total {
                shown = Instant::now();
                output::progress(&format!("{}  tensor {done} of {total}", mixture.name()));
            }
        })?;
        let seconds = began.elapsed().as_secs_f64();
        let mib = bytes as f64 / 1_048_576.0;
        output::progress(&format!("{}  {mib:.1} MiB in {seconds:.1} s  {}", mixture.name(), path.display()));
        written.push(json!({
            "type": mixture.name(), "path": path, "bytes": bytes, "seconds": seconds, "tensors": plan.counts(),
            "requantized": twice, "lost": plan.lost,
        }));
        files.push(path);
    }
    if args.lora {
        let Some(adapter) = &subject.adapter else {
            return Err(Error::usage(format!("{} is no adapter", artifact.title)).next("leave --lora out"));
        };
        let path = args.out.join(format!("{}{LORA}", safe(&name)));
        let bytes = lora_gguf::write(adapter, subject.opened.config(), &name, &path)?;
        output::progress(&format!("adapter  {:.1} MiB  {}", bytes as f64 / 1_048_576.0, path.display()));
        written.push(json!({"type": "lora", "path": path, "bytes": bytes}));
        files.push(path);
    }
    let path = args.out.join("Modelfile");
    let modelfile = modelfile(&artifact, &subject, &name, &files)?;
    if let Some(text) = &modelfile {
        std::fs::write(&path, text).map_err(|e| Error::from(e).at(path.display()))?;
    }
    let mut summary = json!({"name": name, "files": written, "modelfile": modelfile.as_ref().map(|_| &path)});
    manifest::write(&args.out, &args.what, &artifact, &summary)?;
    let proof = match args.no_verify {
        true => None,
        false => Some(verify::verify(&artifact, &args.out, &files)?),
    };
    if let Some(proof) = &proof {
        summary["proof"] = proof.json.clone();
    }
    match (args.json, &proof) {
        (true, _) => output::print_json(&summary)?,
        (false, Some(proof)) => output::print(&proof.table)?,
        (false, None) => output::print(&args.out.display().to_string())?,
    }
    if let Some(proof) = proof {
        proof.verdict(&args.out)?;
    }
    if modelfile.is_some() {
        let (name, path) = (ollama_name(&name), path.display());
        output::progress(&format!("with Ollama: ollama create {name} -f {path} && ollama run {name}"));
    }
    Ok(())
}

/// Ollama's names are lower case.
fn ollama_name(name: &str) -> String {
    name.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect()
}

/// A Modelfile for the first of `files`. `None`: that is an adapter alone, and its base is no file that FROM could name.
fn modelfile(artifact: &Artifact, subject: &Subject, name: &str, files: &[PathBuf]) -> Result<Option<String>> {
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
        None => return Err(Error::new("nothing was written")),
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

/// The model that an artifact is, with the template that its recipe names.
pub fn open(artifact: &Artifact) -> Result<Subject> {
    if artifact.recipe.as_ref().is_some_and(|r| r.model.load_in_4bit) && artifact.adapter.is_some() {
        output::progress("note: trained over the base in 4 bits; exported over the base as it is stored");
    }
    output::fetch(&artifact.model)?;
    let template = artifact.recipe.as_ref().and_then(|r| r.model.chat_template.as_deref());
    Subject::open(&artifact.model, artifact.adapter.as_deref(), template)
}

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
fn file_name(name: &str, mixture: Mixture) -> String {
    format!("{}.{}.gguf", safe(name), mixture.name().to_uppercase())
}

fn safe(name: &str) -> String {
    name.chars().map(|c| if c == '/' || c.is_control() { '-' } else { c }).collect()
}
