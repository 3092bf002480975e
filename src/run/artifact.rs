//! What a person means by X in `chat X` and `eval X`: a run, a checkpoint, an adapter or a model.

use super::events;
use super::folder::RunFolder;
use super::index;
use crate::export::adapter;
use crate::recipe::{self, Recipe};
use crate::train::event::Body;
use crate::Result;
use std::path::{Path, PathBuf};

/// Something that can talk.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// In words: `qwen-support, step 400 (best by eval)`.
    pub title: String,
    /// As `model.name_or_path` would name it.
    pub model: String,
    pub adapter: Option<PathBuf>,
    /// The run's own recipe, where X is a run.
    pub recipe: Option<Recipe>,
}

/// Find X: a path (run folder, checkpoint, adapter folder, model), `RUN@STEP`, a run's name, or a model's name.
///
/// # Errors
/// When nothing of that name is there, or a run has no checkpoint yet.
pub fn find(x: &str) -> Result<Artifact> {
    let path = Path::new(x);
    if path.join("adapter_config.json").is_file() {
        let model = adapter::read_config(path)?.base_model_name_or_path;
        return Ok(Artifact { title: x.to_string(), model, adapter: Some(path.to_path_buf()), recipe: None });
    }
    let (name, step) = match x.rsplit_once('@') {
        Some((name, step)) if step.parse::<u64>().is_ok() => (name, step.parse().ok()),
        _ => (x, None),
    };
    if Path::new(name).join("events.jsonl").is_file() {
        return of_run(Path::new(name), step);
    }
    if !path.exists() && x != "demo" {
        if let Ok(run) = index::find(Some(name)) {
            return of_run(&run, step);
        }
    }
    Ok(Artifact { title: x.to_string(), model: x.to_string(), adapter: None, recipe: None })
}

/// The run's best checkpoint by eval where it has one, else its latest; or the one of `step`.
fn of_run(dir: &Path, step: Option<u64>) -> Result<Artifact> {
    let folder = RunFolder::open(dir)?;
    let text = folder.read_recipe()?;
    let recipe = recipe::parse(&text, &folder.recipe().to_string_lossy(), &[])?.recipe;
    let best = best_step(&folder)?.filter(|s| folder.checkpoints().contains(s));
    let (chosen, path) = folder.find_checkpoint(step.or(best))?;
    let mark = if step.is_none() && best == Some(chosen) { " (best by eval)" } else { "" };
    let title = format!("{}, step {chosen}{mark}", folder.name());
    let full = path.join("model.safetensors").is_file();
    Ok(match full {
        true => Artifact { title, model: path.to_string_lossy().into_owned(), adapter: None, recipe: Some(recipe) },
        false => Artifact { title, model: recipe.model.name_or_path.clone(), adapter: Some(path), recipe: Some(recipe) },
    })
}

/// The step of the lowest eval loss that counts: after a roll back the later events win.
fn best_step(folder: &RunFolder) -> Result<Option<u64>> {
    let mut best: Option<(f64, u64)> = None;
    for event in events::read(&folder.events())? {
        if let Body::Eval(e) = &event.body {
            if event.step > 0 && best.is_none_or(|b| e.loss < b.0) {
                best = Some((e.loss, event.step));
            }
        }
    }
    Ok(best.map(|b| b.1))
}
