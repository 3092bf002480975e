//! What was exported, read again and held against what was trained.

use super::word::Word;
use super::{Tell, open};
use crate::export::proof::probe::chats;
use crate::export::proof::{Stage, Trained, prove, prove_modelfile};
use crate::run::artifact::Artifact;
use crate::train::speaker::Computes;
use crate::{Error, Result};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Beside an export: what was found of it.
const FILE: &str = "proof.json";

pub struct Proof {
    pub passed: bool,
    pub stages: Vec<Stage>,
    pub json: Value,
    /// The first check that failed, with its stage; empty where all passed.
    pub first: String,
}

impl Proof {
    /// # Errors
    /// When a check failed: the first, with its stage.
    pub fn verdict(&self, dir: &Path) -> Result<()> {
        match self.passed {
            true => Ok(()),
            false => Err(Error::new("this is not what was trained").at(dir.display()).next(self.first.clone())),
        }
    }
}

/// The models in an export's folder: every `.gguf`, the folder itself where it holds safetensors, and the merged one in it.
pub fn written(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).map_err(|e| Error::from(e).at(dir.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "gguf"));
    files.sort();
    for folder in [dir.join(super::MERGED), dir.to_path_buf()] {
        if folder.join("config.json").is_file() {
            files.insert(0, folder);
        }
    }
    match files.is_empty() {
        true => Err(Error::usage("there is neither a .gguf nor a model here").at(dir.display())),
        false => Ok(files),
    }
}

/// Compare each of `files` with the artifact; write `proof.json` into `dir`.
pub fn verify(artifact: &Artifact, dir: &Path, files: &[PathBuf], tell: &mut Tell) -> Result<Proof> {
    let subject = open(artifact, tell)?;
    tell(Word::Proving { file: String::new(), what: format!("proof against {}", artifact.title) });
    let trained = {
        // In f32: a card would round, and that is not what is to be measured.
        let speaker = artifact.load_on(Computes { device: "cpu", ..Computes::default() })?;
        let sample = artifact.recipe.as_ref().map(|r| &r.sample);
        let prompts: Vec<String> = sample.iter().flat_map(|s| s.prompts.iter().map(|p| p.text().to_string())).collect();
        let probes = chats(sample.and_then(|s| s.system.as_deref()), &prompts);
        Trained::of(&speaker.model, &speaker.tokenizer, speaker.template.as_ref(), &speaker.stop_ids, probes)?
    };
    let mut stages = Vec::new();
    for path in files {
        let file = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let mut about = |what: &str| tell(Word::Proving { file: file.clone(), what: what.to_string() });
        let stage = prove(&subject, &trained, path, &mut about);
        tell(Word::Proven { stage: Box::new(stage.clone()) });
        stages.push(stage);
    }
    let modelfile = dir.join("Modelfile");
    if modelfile.is_file()
        && let Some(stage) = prove_modelfile(&subject, &trained, &modelfile)
    {
        tell(Word::Proven { stage: Box::new(stage.clone()) });
        stages.push(stage);
    }
    let passed = stages.iter().all(|s| s.passed);
    let json = json!({
        "finetop": env!("CARGO_PKG_VERSION"), "against": artifact.title, "passed": passed, "stages": stages,
    });
    let path = dir.join(FILE);
    std::fs::write(&path, serde_json::to_vec_pretty(&json)?).map_err(|e| Error::from(e).at(path.display()))?;
    let first = stages.iter().flat_map(|s| s.checks.iter().map(move |c| (s, c))).find(|(_, c)| !c.passed);
    let first = first.map(|(s, c)| format!("{}, {}: {}", s.name(), c.name, c.detail)).unwrap_or_default();
    Ok(Proof { passed, stages, json, first })
}
