//! A recipe's file while it is open in the console: read, and written back without ever losing a person's text.

use std::path::{Path, PathBuf};

use crate::run::files::write_beside_and_rename;
use crate::{Error, Result};

/// The recipe files that were read, and what stood in them.
#[derive(Debug, Default)]
pub struct RecipeFiles {
    known: Vec<(PathBuf, String)>,
}

impl RecipeFiles {
    /// The file's text.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&mut self, path: &Path) -> Result<String> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            Error::usage(format!("the recipe cannot be read: {e}")).at(path.display()).next("is the path right?")
        })?;
        self.remember(path, &text);
        Ok(text)
    }

    /// Writes `text`, whole or not at all. Where another program changed the file since it was read, that
    /// text stays and ours goes beside it. Returns where it was written.
    ///
    /// # Errors
    /// It cannot be written; the file is then as it was.
    pub fn save(&mut self, path: &Path, text: &str) -> Result<PathBuf> {
        let changed = match (std::fs::read_to_string(path), self.text(path)) {
            (Ok(there), Some(known)) => there != known && there != text,
            (Ok(there), None) => there != text,
            (Err(_), _) => false,
        };
        let target = if changed { free_name(path) } else { path.to_owned() };
        // A link goes on pointing where it did.
        let real = std::fs::canonicalize(&target).unwrap_or_else(|_| target.clone());
        write_beside_and_rename(&real, text.as_bytes())?;
        self.remember(&target, text);
        Ok(target)
    }

    fn text(&self, path: &Path) -> Option<&str> {
        self.known.iter().find(|(p, _)| p == path).map(|(_, text)| text.as_str())
    }

    fn remember(&mut self, path: &Path, text: &str) {
        self.known.retain(|(p, _)| p != path);
        self.known.push((path.to_owned(), text.to_owned()));
    }
}

/// `support-2.toml` beside `support.toml`: the first number that is free.
fn free_name(path: &Path) -> PathBuf {
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    (2u32..)
        .map(|n| path.with_file_name(format!("{stem}-{n}.toml")))
        .find(|p| !p.exists())
        .unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_written_back_where_it_was_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.toml");
        std::fs::write(&path, "method = \"sft\"\n").unwrap();
        let mut files = RecipeFiles::default();
        files.read(&path).unwrap();
        assert_eq!(files.save(&path, "method = \"cpt\"\n").unwrap(), path);
        assert_eq!(files.save(&path, "method = \"sft\"\n").unwrap(), path, "our own change is no other program's");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "method = \"sft\"\n");
    }

    #[test]
    fn what_another_program_wrote_meanwhile_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.toml");
        std::fs::write(&path, "one").unwrap();
        let mut files = RecipeFiles::default();
        files.read(&path).unwrap();
        std::fs::write(&path, "two, by an editor").unwrap();
        let beside = files.save(&path, "three, by us").unwrap();
        assert_eq!(beside, dir.path().join("a-2.toml"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two, by an editor");
        assert_eq!(std::fs::read_to_string(beside).unwrap(), "three, by us");
    }

    #[test]
    fn a_link_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real.toml"), dir.path().join("link.toml"));
        std::fs::write(&real, "one").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let mut files = RecipeFiles::default();
        files.read(&link).unwrap();
        files.save(&link, "two").unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(std::fs::read_to_string(&real).unwrap(), "two");
    }
}
