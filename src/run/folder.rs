//! The run folder: making, naming and opening it, and the small files in it.

use std::fs;
use std::path::{Path, PathBuf};

use super::files::{failed, write_beside_and_rename};
use crate::{Error, Result};

/// A run folder. Holding one claims nothing: that is [`super::lock`]'s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFolder {
    dir: PathBuf,
}

impl RunFolder {
    /// Makes `output_dir/run_name`; where that is taken `run_name-2`, `run_name-3` …
    pub fn create(output_dir: &Path, run_name: &str) -> Result<Self> {
        check_name(run_name)?;
        fs::create_dir_all(output_dir).map_err(failed("make the folder", output_dir))?;
        for n in 1.. {
            let name = if n == 1 { run_name.to_owned() } else { format!("{run_name}-{n}") };
            let dir = output_dir.join(name);
            match fs::create_dir(&dir) {
                Ok(()) => return Self::at(&dir),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(failed("make the run folder", &dir)(e)),
            }
        }
        Err(Error::new("every name for the run folder is taken").at(output_dir.display()))
    }

    /// `--run-dir DIR`: that folder itself, made if needed.
    ///
    /// # Errors
    /// When a run has begun there already, or it is somebody's folder of other things.
    pub fn create_at(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).map_err(failed("make the run folder", dir))?;
        let folder = Self::at(dir)?;
        if folder.has_begun() {
            return Err(Error::usage("a run has begun in this folder already").at(dir.display()).next(format!(
                "go on with it: `finetop train --resume {}`; or choose another --run-dir",
                dir.display()
            )));
        }
        // `run.log` and `worker.json` are there when a trainer is being started in it.
        let stranger = fs::read_dir(dir).map_err(failed("read", dir))?.flatten().map(|e| e.file_name()).find(|name| {
            let name = name.to_string_lossy();
            !matches!(&*name, "run.log" | "worker.json" | "lock" | "recipe.toml") && !name.starts_with(".tmp-")
        });
        if let Some(name) = stranger {
            return Err(Error::usage(format!("this folder holds other things ({})", name.to_string_lossy()))
                .at(dir.display())
                .next("choose a folder that is empty or not there yet"));
        }
        Ok(folder)
    }

    /// Opens a folder in which a run has begun.
    pub fn open(dir: &Path) -> Result<Self> {
        if !dir.join("events.jsonl").is_file() {
            let what = if dir.is_dir() { "not a run folder: there is no events.jsonl" } else { "no such run folder" };
            return Err(Error::usage(what).at(dir.display()).next("`finetop runs` lists the runs on this machine"));
        }
        Self::at(dir)
    }

    fn at(dir: &Path) -> Result<Self> {
        // Absolute and without links, so that it is the same folder from anywhere.
        Ok(Self { dir: fs::canonicalize(dir).map_err(failed("open", dir))? })
    }

    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The folder's own name.
    pub fn name(&self) -> String {
        self.dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
    }

    pub fn events(&self) -> PathBuf {
        self.dir.join("events.jsonl")
    }

    pub fn recipe(&self) -> PathBuf {
        self.dir.join("recipe.toml")
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join("run.log")
    }

    pub fn has_begun(&self) -> bool {
        self.events().is_file()
    }

    /// Writes the resolved recipe's text.
    pub fn write_recipe(&self, text: &str) -> Result<()> {
        write_beside_and_rename(&self.recipe(), text.as_bytes())
    }

    pub fn read_recipe(&self) -> Result<String> {
        let path = self.recipe();
        fs::read_to_string(&path).map_err(failed("read the run's recipe", &path))
    }
}

/// A run's name is one folder's name.
fn check_name(name: &str) -> Result<()> {
    let bad = name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) || name.contains('@');
    if bad {
        return Err(Error::usage(format!("run_name {name:?} cannot be a folder's name"))
            .next("use letters, digits, - and _; it may not start with a dot, nor hold / or @"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_name_gets_the_next_number() {
        let out = tempfile::tempdir().unwrap();
        let names: Vec<_> = (0..3).map(|_| RunFolder::create(out.path(), "demo").unwrap().name()).collect();
        assert_eq!(names, ["demo", "demo-2", "demo-3"]);
    }

    #[test]
    fn a_run_dir_is_the_folder_itself_and_is_not_taken_twice() {
        let out = tempfile::tempdir().unwrap();
        let dir = out.path().join("a/b");
        let folder = RunFolder::create_at(&dir).unwrap();
        assert_eq!(folder.path(), fs::canonicalize(&dir).unwrap());
        RunFolder::create_at(&dir).unwrap();
        fs::write(folder.events(), "").unwrap();
        let error = RunFolder::create_at(&dir).unwrap_err();
        assert_eq!(error.kind, crate::Kind::Usage);
        assert!(error.to_string().contains("--resume"), "{error}");
    }

    #[test]
    fn a_folder_of_other_things_is_not_made_a_run() {
        let out = tempfile::tempdir().unwrap();
        fs::write(out.path().join("thesis.tex"), "").unwrap();
        assert!(RunFolder::create_at(out.path()).unwrap_err().to_string().contains("thesis.tex"));
    }

    #[test]
    fn a_name_that_is_no_folder_name_is_refused() {
        let out = tempfile::tempdir().unwrap();
        for name in ["", "..", "a/b", ".hidden", "a@3"] {
            assert!(RunFolder::create(out.path(), name).is_err(), "{name}");
        }
    }

    #[test]
    fn the_recipe_comes_back_as_written() {
        let out = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(out.path(), "r").unwrap();
        folder.write_recipe("method = \"sft\"\n").unwrap();
        assert_eq!(folder.read_recipe().unwrap(), "method = \"sft\"\n");
    }
}
