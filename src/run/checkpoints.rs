//! `checkpoints/step-N/`: written beside and renamed in, so that only whole ones have that name; pruned
//! by renaming away first, so that a half-deleted one loses it.

use std::fs;
use std::path::{Path, PathBuf};

use super::files::{failed, sync_folder, sync_tree};
use super::folder::RunFolder;
use crate::run::event::kept_checkpoints;
use crate::{Error, Result};

/// A checkpoint that was just written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub path: PathBuf,
    /// Relative to the run folder, as the event says it: `checkpoints/step-200`.
    pub relative: String,
    pub bytes: u64,
}

impl RunFolder {
    pub fn checkpoints_dir(&self) -> PathBuf {
        self.path().join("checkpoints")
    }

    pub fn checkpoint_path(&self, step: u64) -> PathBuf {
        self.checkpoints_dir().join(format!("step-{step}"))
    }

    /// The steps of all whole checkpoints, in ascending order.
    pub fn checkpoints(&self) -> Vec<u64> {
        let mut steps: Vec<u64> = self.names().iter().filter_map(|n| step_of(n)).collect();
        steps.sort_unstable();
        steps
    }

    /// The checkpoint of `step`, or the latest.
    ///
    /// # Errors
    /// When there is none; the error lists those there are.
    pub fn find_checkpoint(&self, step: Option<u64>) -> Result<(u64, PathBuf)> {
        let all = self.checkpoints();
        let found = match step {
            Some(step) => all.contains(&step).then_some(step),
            None => all.last().copied(),
        };
        found.map(|step| (step, self.checkpoint_path(step))).ok_or_else(|| {
            let list = all.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
            match step {
                _ if all.is_empty() => Error::new("this run has no checkpoint")
                    .next("start it anew; `train.save_steps` sets how often one is written"),
                Some(step) => Error::usage(format!("there is no checkpoint of step {step}"))
                    .next(format!("there are those of step {list}; without @STEP the latest is taken")),
                None => Error::new("this run has no checkpoint"),
            }
            .at(self.path().display())
        })
    }

    /// Writes the checkpoint of `step`: `fill` gets an empty folder to write its files into; when it
    /// returns, all is synced and renamed into place, in place of an earlier one of that step.
    pub fn write_checkpoint(&self, step: u64, fill: impl FnOnce(&Path) -> Result<()>) -> Result<Written> {
        let parent = self.checkpoints_dir();
        fs::create_dir_all(&parent).map_err(failed("make the folder", &parent))?;
        let beside = parent.join(format!(".tmp-step-{step}"));
        remove_tree(&beside)?;
        fs::create_dir(&beside).map_err(failed("make the folder", &beside))?;
        let path = self.checkpoint_path(step);
        let written = fill(&beside).and_then(|()| sync_tree(&beside)).and_then(|bytes| {
            rename_over(&beside, &path, &parent.join(format!(".old-step-{step}")))?;
            Ok(bytes)
        });
        match written {
            Ok(bytes) => {
                sync_folder(&parent)?;
                Ok(Written { path, relative: format!("checkpoints/step-{step}"), bytes })
            }
            Err(e) => {
                // The first error is the one to tell.
                let _ = remove_tree(&beside);
                Err(e)
            }
        }
    }

    /// Deletes the oldest checkpoints until `limit` are left (0: all are kept). The best and the last are
    /// never deleted, even where that leaves more than `limit`. Returns the steps deleted.
    pub fn prune_checkpoints(&self, limit: usize, best: Option<u64>, last: Option<u64>) -> Result<Vec<u64>> {
        let all = self.checkpoints();
        let keep = kept_checkpoints(&all, limit, best, last);
        let gone: Vec<u64> = all.into_iter().filter(|s| !keep.contains(s)).collect();
        gone.iter().try_for_each(|&step| self.remove_checkpoint(step))?;
        Ok(gone)
    }

    /// Deletes the checkpoints after `step`: those of a way that was left by rolling back, or by resuming
    /// from an earlier one. Newest first, so that a crash between leaves no gap.
    pub fn remove_checkpoints_after(&self, step: u64) -> Result<()> {
        self.checkpoints().into_iter().rev().filter(|&s| s > step).try_for_each(|s| self.remove_checkpoint(s))
    }

    fn remove_checkpoint(&self, step: u64) -> Result<()> {
        let path = self.checkpoint_path(step);
        let away = self.checkpoints_dir().join(format!(".del-step-{step}"));
        remove_tree(&away)?;
        fs::rename(&path, &away).map_err(failed("delete the checkpoint", &path))?;
        remove_tree(&away)
    }

    /// Clears what a killed writer left half done. Only for who holds the lock.
    pub fn clear_half_written(&self) -> Result<()> {
        let parent = self.checkpoints_dir();
        for name in self.names() {
            let path = parent.join(&name);
            if name.starts_with(".tmp-") || name.starts_with(".del-") {
                remove_tree(&path)?;
            } else if let Some(step) = name.strip_prefix(".old-").and_then(step_of) {
                let place = self.checkpoint_path(step);
                if place.exists() {
                    remove_tree(&path)?;
                } else {
                    fs::rename(&path, &place).map_err(failed("restore the checkpoint", &place))?;
                }
            }
        }
        Ok(())
    }

    fn names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.checkpoints_dir()) else { return Vec::new() };
        entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect()
    }
}

fn step_of(name: &str) -> Option<u64> {
    name.strip_prefix("step-")?.parse().ok()
}

fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed("delete", path)(e)),
        _ => Ok(()),
    }
}

/// Renames the folder `from` to `to`. A folder that has the name already is exchanged with it in one
/// step, or, where the file system cannot, put aside as `aside` first.
fn rename_over(from: &Path, to: &Path, aside: &Path) -> Result<()> {
    if !to.exists() {
        return fs::rename(from, to).map_err(failed("rename the checkpoint into place", to));
    }
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        if renameat_with(CWD, from, CWD, to, RenameFlags::EXCHANGE).is_ok() {
            return remove_tree(from);
        }
    }
    remove_tree(aside)?;
    fs::rename(to, aside).map_err(failed("put the older checkpoint aside", to))?;
    fs::rename(from, to).map_err(failed("rename the checkpoint into place", to))?;
    remove_tree(aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, RunFolder) {
        let out = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(out.path(), "r").unwrap();
        (out, folder)
    }

    fn write(folder: &RunFolder, step: u64) {
        folder.write_checkpoint(step, |dir| Ok(fs::write(dir.join("x"), step.to_string())?)).unwrap();
    }

    #[test]
    fn a_checkpoint_has_its_name_only_once_it_is_whole() {
        let (_out, folder) = folder();
        let written = folder
            .write_checkpoint(20, |dir| {
                fs::write(dir.join("adapter.safetensors"), [0; 1000])?;
                assert!(folder.checkpoints().is_empty(), "not listed while it is being written");
                Ok(())
            })
            .unwrap();
        assert_eq!((written.bytes, written.relative.as_str()), (1000, "checkpoints/step-20"));
        assert_eq!(folder.checkpoints(), [20]);

        folder.write_checkpoint(30, |_| Err(Error::new("no"))).unwrap_err();
        assert_eq!(folder.checkpoints(), [20]);
        assert_eq!(folder.names(), ["step-20"]);
    }

    #[test]
    fn a_step_written_again_takes_the_place_of_the_earlier() {
        let (_out, folder) = folder();
        for text in ["first", "second"] {
            folder.write_checkpoint(7, |dir| Ok(fs::write(dir.join(text), text)?)).unwrap();
        }
        assert_eq!(folder.names(), ["step-7"]);
        assert!(folder.checkpoint_path(7).join("second").exists());
        assert!(!folder.checkpoint_path(7).join("first").exists());
    }

    #[test]
    fn pruning_keeps_the_best_and_the_last() {
        let (_out, folder) = folder();
        (1..=5).for_each(|n| write(&folder, n * 10));
        assert_eq!(folder.prune_checkpoints(2, Some(20), Some(50)).unwrap(), [10, 30, 40]);
        assert_eq!(folder.checkpoints(), [20, 50]);
        assert_eq!(folder.prune_checkpoints(1, Some(20), Some(50)).unwrap(), Vec::<u64>::new());
        assert_eq!(folder.checkpoints(), [20, 50], "one is asked for, two are needed");
        assert!(folder.prune_checkpoints(0, None, None).unwrap().is_empty());
    }

    #[test]
    fn pruning_without_a_best_keeps_the_newest() {
        let (_out, folder) = folder();
        (1..=4).for_each(|n| write(&folder, n));
        folder.prune_checkpoints(3, None, None).unwrap();
        assert_eq!(folder.checkpoints(), [2, 3, 4]);
    }

    #[test]
    fn what_a_killed_writer_left_is_cleared_and_a_put_aside_checkpoint_comes_back() {
        let (_out, folder) = folder();
        write(&folder, 10);
        let dir = folder.checkpoints_dir();
        fs::create_dir(dir.join(".tmp-step-20")).unwrap();
        fs::create_dir(dir.join(".del-step-5")).unwrap();
        fs::rename(dir.join("step-10"), dir.join(".old-step-10")).unwrap();
        assert!(folder.checkpoints().is_empty());
        folder.clear_half_written().unwrap();
        assert_eq!(folder.names(), ["step-10"]);
    }

    #[test]
    fn a_missing_checkpoint_names_those_there_are() {
        let (_out, folder) = folder();
        assert!(folder.find_checkpoint(None).unwrap_err().to_string().contains("no checkpoint"));
        write(&folder, 10);
        write(&folder, 200);
        assert_eq!(folder.find_checkpoint(None).unwrap().0, 200);
        assert_eq!(folder.find_checkpoint(Some(10)).unwrap().0, 10);
        assert!(folder.find_checkpoint(Some(11)).unwrap_err().to_string().contains("10, 200"));
        folder.remove_checkpoints_after(10).unwrap();
        assert_eq!(folder.checkpoints(), [10]);
    }
}
