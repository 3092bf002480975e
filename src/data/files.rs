//! Which files a recipe's paths mean. Knows nothing of what is in them.

use super::builtin;
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// How a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `.json`
    Json,
    /// `.jsonl`, `.ndjson`
    JsonLines,
    /// `.txt`, `.md`: one document a file.
    Text,
    /// `.csv`, `.tsv`
    Csv,
    /// `.parquet`
    Parquet,
}

impl Kind {
    /// By the ending of the name; `None` where finetop does not read it.
    pub fn of(path: &Path) -> Option<Self> {
        if builtin::contents(path).is_some() {
            return Some(Self::JsonLines);
        }
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "json" => Some(Self::Json),
            "jsonl" | "ndjson" => Some(Self::JsonLines),
            "txt" | "md" => Some(Self::Text),
            "csv" | "tsv" => Some(Self::Csv),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }
}

pub const READABLE: &str = ".json, .jsonl, .ndjson, .csv, .tsv, .parquet, .txt or .md";

/// The files behind a recipe's paths, in reading order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    pub files: Vec<PathBuf>,
    /// In a named folder, but of a kind that is not read.
    pub ignored: Vec<PathBuf>,
}

/// Files as named, folders as all readable files below them, sorted by path. Hidden files and folders are not entered.
///
/// # Errors
/// A path that does not exist or whose kind is not read; a folder with nothing to read; no file at all.
pub fn find(paths: &[PathBuf], key: &str) -> Result<Found> {
    let mut found = Found::default();
    for path in paths {
        if builtin::contents(path).is_some() {
            found.files.push(path.clone());
            continue;
        }
        let meta = std::fs::metadata(path).map_err(|e| {
            if path.to_str().is_some_and(builtin::is_named) {
                return Error::new(format!("{key}: there is no {}", path.display()))
                    .next(format!("built in are {}", builtin::NAMES.join(", ")));
            }
            let next = match path.parent().filter(|p| p.is_dir()).and_then(|p| nearest(p, path)) {
                Some(near) => format!("did you mean {}?", near.display()),
                None => format!("set {key} to a file ({READABLE}) or a folder of such files"),
            };
            let what = match e.kind() {
                std::io::ErrorKind::NotFound => format!("{key}: there is no file or folder {}", path.display()),
                _ => format!("{key}: {} cannot be read: {e}", path.display()),
            };
            Error::new(what).next(next)
        })?;
        if meta.is_dir() {
            let before = found.files.len();
            walk(path, &mut found)?;
            if found.files.len() == before {
                return Err(Error::new(format!("{key}: the folder {} holds no {READABLE} file", path.display()))
                    .next("name the files, or convert them (one JSON object a line is the simplest)"));
            }
        } else if Kind::of(path).is_some() {
            found.files.push(path.clone());
        } else {
            return Err(Error::new(format!("{key}: {} is not a kind that finetop reads", path.display()))
                .next(format!("it reads {READABLE} files, and folders of them")));
        }
    }
    if found.files.is_empty() {
        return Err(Error::new(format!("{key} names no file"))
            .next(format!("set {key} to a file ({READABLE}) or a folder of such files")));
    }
    Ok(found)
}

fn walk(folder: &Path, found: &mut Found) -> Result<()> {
    let at = |e: std::io::Error| Error::from(e).at(folder.display());
    let mut entries = std::fs::read_dir(folder).map_err(at)?.collect::<std::result::Result<Vec<_>, _>>().map_err(at)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        // A link to a folder is not followed: it may lead back up.
        let is_link = entry.file_type().map_err(at)?.is_symlink();
        if path.is_dir() {
            if !is_link {
                walk(&path, found)?;
            }
        } else if Kind::of(&path).is_some() {
            found.files.push(path);
        } else {
            found.ignored.push(path);
        }
    }
    Ok(())
}

/// The entry of `folder` whose name is closest to that of `path`.
fn nearest(folder: &Path, path: &Path) -> Option<PathBuf> {
    let wanted = path.file_name()?.to_str()?;
    std::fs::read_dir(folder)
        .ok()?
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .map(|name| (strsim::jaro_winkler(wanted, &name), name))
        .filter(|(score, _)| *score > 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| folder.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_its_readable_files_sorted_and_names_the_others() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.jsonl", "a.txt", "c.zip", ".hidden.json", "sub/z.md"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let found = find(&[dir.path().to_path_buf()], "data.train").unwrap();
        let names: Vec<_> = found.files.iter().map(|p| p.strip_prefix(dir.path()).unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.txt", "b.jsonl", "sub/z.md"]);
        assert_eq!(found.ignored, [dir.path().join("c.zip")]);
    }

    #[test]
    fn a_misspelt_file_is_answered_with_the_nearest_one() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("alpaca.jsonl"), "").unwrap();
        let e = find(&[dir.path().join("alpacca.jsonl")], "data.train").unwrap_err().to_string();
        assert!(e.contains("there is no file") && e.contains("alpaca.jsonl?"), "{e}");
    }

    #[test]
    fn a_file_of_another_kind_is_an_error_that_says_what_is_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.xlsx"), "").unwrap();
        let e = find(&[dir.path().join("a.xlsx")], "data.train").unwrap_err().to_string();
        assert!(e.contains(".jsonl"), "{e}");
    }
}
