//! `finetop verify`: what was exported, read again and held against what was trained.

use super::args::VerifyArgs;
use super::export::open;
use super::manifest;
use super::output;
use crate::export::proof::probe::chats;
use crate::export::proof::{Stage, Trained, prove, prove_modelfile};
use crate::run::artifact::{self, Artifact};
use crate::train::speaker::Computes;
use crate::{Error, Result};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Beside an export: what was found of it.
const PROOF: &str = "proof.json";

pub fn run(args: &VerifyArgs) -> Result<()> {
    let artifact = match &args.against {
        Some(x) => artifact::find(x)?,
        None => manifest::read(&args.dir)?,
    };
    let files = written(&args.dir)?;
    let proof = verify(&artifact, &args.dir, &files)?;
    match args.json {
        true => output::print_json(&proof.json)?,
        false => output::print(&proof.table)?,
    }
    proof.verdict(&args.dir)
}

pub struct Proof {
    pub passed: bool,
    pub table: String,
    pub json: Value,
    /// The first check that failed, with its stage.
    first: String,
}

impl Proof {
    /// # Errors
    /// When a check failed: the first, with its stage.
    pub fn verdict(self, dir: &Path) -> Result<()> {
        match self.passed {
            true => Ok(()),
            false => Err(Error::new("this is not what was trained").at(dir.display()).next(self.first)),
        }
    }
}

/// The models in an export's folder: every `.gguf`, and the folder itself where it holds safetensors.
fn written(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).map_err(|e| Error::from(e).at(dir.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "gguf"));
    files.sort();
    if dir.join("config.json").is_file() {
        files.insert(0, dir.to_path_buf());
    }
    match files.is_empty() {
        true => Err(Error::usage("there is neither a .gguf nor a model here").at(dir.display())),
        false => Ok(files),
    }
}

/// Compare each of `files` with the artifact; write `proof.json` into `dir`.
pub fn verify(artifact: &Artifact, dir: &Path, files: &[PathBuf]) -> Result<Proof> {
    let subject = open(artifact)?;
    output::progress(&format!("proof against {}", artifact.title));
    let trained = {
        // In f32: a card would round, and that is not what is to be measured.
        let speaker = artifact.load_on(Computes { device: "cpu", ..Computes::default() })?;
        let sample = artifact.recipe.as_ref().map(|r| &r.sample);
        let prompts: Vec<String> = sample.iter().flat_map(|s| s.prompts.iter().map(|p| p.text().to_string())).collect();
        let probes = chats(sample.and_then(|s| s.system.as_deref()), &prompts);
        Trained::of(&speaker.model, &speaker.tokenizer, speaker.template.as_ref(), &speaker.stop_ids, probes)?
    };
    let mut stages = Vec::new();
    for file in files {
        let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        stages.push(prove(&subject, &trained, file, &mut |what| output::progress(&format!("  {name}: {what}"))));
    }
    let modelfile = dir.join("Modelfile");
    if modelfile.is_file() {
        stages.extend(prove_modelfile(&subject, &trained, &modelfile));
    }
    let passed = stages.iter().all(|s| s.passed);
    let json = json!({
        "finetop": env!("CARGO_PKG_VERSION"), "against": artifact.title, "passed": passed, "stages": stages,
    });
    let path = dir.join(PROOF);
    std::fs::write(&path, serde_json::to_vec_pretty(&json)?).map_err(|e| Error::from(e).at(path.display()))?;
    let first = stages.iter().flat_map(|s| s.checks.iter().map(move |c| (s, c))).find(|(_, c)| !c.passed);
    let first = first.map(|(s, c)| format!("{}, {}: {}", name(s), c.name, c.detail)).unwrap_or_default();
    Ok(Proof { passed, table: table(&stages), json, first })
}

fn name(stage: &Stage) -> String {
    stage.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

fn table(stages: &[Stage]) -> String {
    let mut out = String::new();
    let (yes, no) = if output::ascii() { ("ok", "FAILED") } else { ("✓", "✕") };
    for stage in stages {
        out += &format!("{}  {}\n", name(stage), stage.kind);
        for check in &stage.checks {
            out += &format!("  {} {:<10}  {}\n", if check.passed { yes } else { no }, check.name, check.detail);
        }
    }
    let passed = stages.iter().all(|s| s.passed);
    out + if passed { "What is here is what was trained." } else { "This is not what was trained." }
}
