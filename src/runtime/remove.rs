//! Deleting runs: never one at work, and never a file that a run did not make.

use std::path::{Path, PathBuf};

use super::effects::Note;
use crate::run::folder::RunFolder;
use crate::run::index::Index;
use crate::run::lock::RunLock;
use crate::{Error, Result};

/// What a run puts into its folder.
const OURS: [&str; 6] = ["events.jsonl", "recipe.toml", "worker.json", "run.log", "checkpoints", "lock"];

/// Deletes the runs in `dirs`, and says what became of them.
///
/// # Errors
/// The first that could not be deleted; those before it are gone.
pub fn runs(dirs: &[PathBuf]) -> Result<Note> {
    dirs.iter().try_for_each(|dir| remove(dir, &Index::of_user()))?;
    Ok(Note::List)
}

/// Deletes one run.
///
/// # Errors
/// It is at work, or is no run; other files in its folder keep the folder.
pub fn remove(dir: &Path, index: &Index) -> Result<()> {
    let folder = RunFolder::open(dir)?;
    // Nobody can begin to train in it while we hold this.
    let lock = RunLock::acquire(folder.path())?;
    for name in OURS {
        let path = folder.path().join(name);
        let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        match removed {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::new(format!("not deleted: {e}")).at(path.display()));
            }
            _ => {}
        }
    }
    drop(lock);
    index.forget(folder.path());
    std::fs::remove_dir(folder.path()).map_err(|_| {
        Error::new("the run is deleted; its folder holds other files and stays").at(folder.path().display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::session::Session;

    fn place() -> (tempfile::TempDir, Index, RunFolder) {
        let out = tempfile::tempdir().unwrap();
        let index = Index::at(&out.path().join("state"));
        let folder = RunFolder::create(&out.path().join("runs"), "a").unwrap();
        (out, index, folder)
    }

    #[test]
    fn a_run_at_work_is_not_deleted() {
        let (_out, index, folder) = place();
        let session = Session::open_quietly(folder.clone()).unwrap();
        assert!(remove(folder.path(), &index).is_err());
        assert!(folder.events().is_file());
        drop(session);
        remove(folder.path(), &index).unwrap();
        assert!(!folder.path().exists());
    }

    #[test]
    fn a_file_that_no_run_made_stays() {
        let (_out, index, folder) = place();
        drop(Session::open_quietly(folder.clone()).unwrap());
        std::fs::write(folder.path().join("thesis.tex"), "mine").unwrap();
        assert!(remove(folder.path(), &index).unwrap_err().to_string().contains("other files"));
        assert!(folder.path().join("thesis.tex").is_file() && !folder.events().exists());
    }
}
