//! What a person means by X in `chat X` and `eval X`: a run, a checkpoint, an adapter or a model.

use super::events;
use super::folder::RunFolder;
use super::index::Index;
use crate::Result;
use crate::export::adapter::{self, AdapterConfig};
use crate::recipe::{self, Recipe};
use crate::train::event::Body;
use crate::train::speaker::{Computes, Speaker, TemplateChoice};
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
/// When a run has no such checkpoint; a name that is neither a run's nor a model's fails when it is loaded.
pub fn find(x: &str) -> Result<Artifact> {
    let path = Path::new(x);
    if path.join(adapter::CONFIG).is_file() {
        let model = AdapterConfig::read(path)?.base();
        return Ok(Artifact { title: x.to_string(), model, adapter: Some(path.to_path_buf()), recipe: None });
    }
    let model = Artifact { title: x.to_string(), model: x.to_string(), adapter: None, recipe: None };
    let is_run = path.join("events.jsonl").is_file();
    if x == "demo" || (path.exists() && !is_run) {
        return Ok(model);
    }
    match Index::of_user().find_with_step(x) {
        Ok((folder, step)) => of_run(&folder, step),
        Err(e) if is_run => Err(e),
        Err(_) => Ok(model),
    }
}

/// The folder of the run that `x` names, if it names one.
pub fn run_of(x: &str) -> Option<PathBuf> {
    let path = Path::new(x);
    if x == "demo" || path.join(adapter::CONFIG).is_file() || (path.exists() && !path.join("events.jsonl").is_file()) {
        return None;
    }
    Index::of_user().find_with_step(x).ok().map(|(folder, _)| folder.path().to_owned())
}

/// The run's best checkpoint by eval where it has one, else its latest; or the one of `step`.
fn of_run(folder: &RunFolder, step: Option<u64>) -> Result<Artifact> {
    let text = folder.read_recipe()?;
    let recipe = recipe::parse(&text, &folder.recipe().to_string_lossy(), &[])?.recipe;
    let there = folder.checkpoints();
    let best = best_step(folder)?.filter(|s| there.contains(s));
    let (chosen, path) = folder.find_checkpoint(step.or(best))?;
    let mark = if best == Some(chosen) { " (best by eval)" } else { "" };
    let title = format!("{}, step {chosen}{mark}", folder.name());
    let (model, adapter) = match path.join(adapter::CONFIG).is_file() {
        true => (recipe.model.name_or_path.clone(), Some(path)),
        false => (path.to_string_lossy().into_owned(), None),
    };
    Ok(Artifact { title, model, adapter, recipe: Some(recipe) })
}

/// The step of the lowest eval loss; step 0 is the base, of which there is no checkpoint.
fn best_step(folder: &RunFolder) -> Result<Option<u64>> {
    let mut best: Option<(f64, u64)> = None;
    for event in events::read_all(&folder.events())? {
        if let Body::Eval(e) = &event.body
            && event.step > 0
            && best.is_none_or(|b| e.loss < b.0)
        {
            best = Some((e.loss, event.step));
        }
    }
    Ok(best.map(|b| b.1))
}

impl Artifact {
    /// What this was before its run trained it: the model, with the adapter that the run was given, if any. `None`: it is
    /// no run's.
    pub fn before(&self) -> Option<Artifact> {
        let recipe = self.recipe.as_ref()?;
        let adapter = recipe.lora.as_ref().and_then(|l| l.adapter_name_or_path.clone());
        let model = recipe.model.name_or_path.clone();
        let title = adapter.as_ref().map_or_else(|| model.clone(), |a| a.display().to_string());
        Some(Artifact { title, model, adapter, recipe: self.recipe.clone() })
    }

    /// Read weights, adapter, tokenizer and template.
    pub fn load(&self) -> Result<Speaker> {
        self.load_on(Computes::default())
    }

    /// As [`Artifact::load`], computed where `on` says.
    pub fn load_on(&self, on: Computes) -> Result<Speaker> {
        let model = self.recipe.as_ref().map(|r| &r.model);
        let choice = TemplateChoice {
            template: model.and_then(|m| m.chat_template.as_deref()),
            kwargs: model.and_then(|m| m.chat_template_kwargs.as_ref()),
        };
        Speaker::load_on(&self.model, self.adapter.as_deref(), choice, on)
    }

    /// The recipe to evaluate by: the run's own, or one over `data`. `None` where there is neither.
    pub fn recipe_for(&self, data: Option<&Path>) -> Result<Option<Recipe>> {
        let Some(data) = data else { return Ok(self.recipe.clone()) };
        let mut recipe = match &self.recipe {
            Some(recipe) => recipe.clone(),
            None => recipe::load("demo", &[])?.recipe,
        };
        if self.recipe.is_none() {
            recipe.sample.prompts.clear();
            recipe.model.max_seq_length = 2048;
            recipe.data.format = "auto".into();
        }
        recipe.data.train = vec![data.into()];
        recipe.data.eval = Some(vec![data.into()]);
        Ok(Some(recipe))
    }
}
