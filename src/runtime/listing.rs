//! What the start page lists: runs, recipes beside us, this machine. Reads files; call it off the screen's thread.

use std::path::{Path, PathBuf};

use crate::console::model::{Machine, RecipeRow, RunRow};
use crate::memory::{Card, Local, Telemetry as _};
use crate::recipe;
use crate::run::files::free_space;
use crate::run::index::Index;
use crate::run::summary::{Status, Summary};

/// Folders beside us in which recipes are looked for.
const RECIPE_FOLDERS: [&str; 2] = [".", "recipes"];
/// A file larger than this is no recipe.
const LARGEST_RECIPE: u64 = 1 << 20;

/// All runs seen on this machine. Runs under `runs/` here are found too where the index was lost.
pub fn runs() -> Vec<RunRow> {
    let index = Index::of_user();
    index.scan(Path::new("runs"));
    index.list().into_iter().map(row).collect()
}

fn row(s: Summary) -> RunRow {
    RunRow {
        note: note(&s),
        live: s.state.is_live(),
        state: s.state.word().into(),
        folder: s.dir,
        name: s.name,
        method: s.method,
        model: s.model,
        loss: s.losses,
        best_eval: s.eval_best,
        step: s.step,
        total_steps: s.total_steps,
        checkpoint: s.last_checkpoint,
        changed: s.updated,
    }
}

/// The line under a run that ended badly; others need none.
fn note(s: &Summary) -> String {
    match s.state {
        Status::Died | Status::Failed => s.why.lines().next().unwrap_or_default().to_string(),
        _ => String::new(),
    }
}

/// The recipes in the current folder and in `recipes/`, each read and checked.
pub fn recipes() -> Vec<RecipeRow> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for folder in RECIPE_FOLDERS {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        let mut here: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| may_be_recipe(p)).collect();
        here.sort();
        paths.extend(here.into_iter().map(|p| p.strip_prefix(".").map(Path::to_owned).unwrap_or(p)));
    }
    paths.into_iter().filter_map(|path| check(&path).map(|check| RecipeRow { path, check: Some(check) })).collect()
}

fn may_be_recipe(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "toml")
        && path.metadata().is_ok_and(|m| m.is_file() && m.len() <= LARGEST_RECIPE)
}

/// `None`: another program's file. The error is its first problem's line.
fn check(path: &Path) -> Option<Result<u32, String>> {
    let text = std::fs::read_to_string(path).ok()?;
    // Every recipe names its method; a broken one must be told from a `Cargo.toml` too.
    let names_method = text.lines().any(|l| l.split_once('=').is_some_and(|(key, _)| key.trim() == "method"));
    if !names_method {
        return None;
    }
    Some(match recipe::examine(&text, &path.to_string_lossy(), &[]) {
        Ok(loaded) => Ok(u32::try_from(loaded.notes.len()).unwrap_or(u32::MAX)),
        Err(problems) => Err(match problems.iter().find_map(recipe::Problem::line) {
            Some(line) => format!("line {line}"),
            None => problems.first().map_or_else(String::new, |p| p.what.clone()),
        }),
    })
}

/// What the header of the start page says of this machine.
pub fn machine() -> Machine {
    let mut local = Local::new();
    let reading = local.read();
    let card = reading.cards.first();
    let free = card.and_then(|c| Some(c.memory_total?.saturating_sub(c.memory_used?)));
    // `AMD EPYC · 2 cores`: the cores are said apart.
    let processor = local.device().split(" · ").next().unwrap_or_default().to_string();
    Machine {
        name: card.and_then(Card::short_name).unwrap_or(processor),
        gpu_free: free,
        cores: std::thread::available_parallelism().map_or(0, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
        memory_total: reading.total,
        disk_free: free_space(Path::new(".")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_that_names_a_method_is_taken_for_a_recipe() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        assert_eq!(check(&file("Cargo.toml", "[package]\nname = \"x\"\n")), None);
        let broken = check(&file("broken.toml", "method = \"sft\"\n[train]\nlearning_rat = 1\n")).unwrap();
        assert!(broken.unwrap_err().starts_with("line "));
    }
}
