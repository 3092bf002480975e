//! `export.json`: what an export's folder was made from, so that it can be proven later.

use crate::run::artifact::{self, Artifact};
use crate::{Error, Result};
use serde_json::{Value, json};
use std::path::Path;

const FILE: &str = "export.json";

/// Say in `dir` what it was made from, with what was written.
pub fn write(dir: &Path, what: &str, artifact: &Artifact, written: &Value) -> Result<()> {
    let value = json!({"of": name(what, artifact), "title": artifact.title, "written": written});
    let path = dir.join(FILE);
    std::fs::write(&path, serde_json::to_vec_pretty(&value)?).map_err(|e| Error::from(e).at(path.display()))
}

/// What `dir` was made from.
pub fn read(dir: &Path) -> Result<Artifact> {
    let path = dir.join(FILE);
    let text = std::fs::read_to_string(&path).map_err(|e| {
        Error::usage(format!("what this was made from is not known: {e}"))
            .at(path.display())
            .next("name it: --against X, a run, an adapter or a model")
    })?;
    let value: Value = serde_json::from_str(&text).map_err(|e| Error::from(e).at(path.display()))?;
    match value.get("of").and_then(Value::as_str) {
        Some(of) => artifact::find(of),
        None => Err(Error::new("`of` is missing").at(path.display())),
    }
}

/// A name that means the same from anywhere and later: a run with its step, a path made absolute, else as it was given.
fn name(what: &str, artifact: &Artifact) -> String {
    let checkpoint = artifact.adapter.clone().unwrap_or_else(|| artifact.model.clone().into());
    let absolute = |p: &Path| std::path::absolute(p).unwrap_or_else(|_| p.to_path_buf()).display().to_string();
    if artifact.recipe.is_some()
        && let Some(step) = checkpoint.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_prefix("step-"))
        && let Some(run) = checkpoint.parent().and_then(Path::parent)
    {
        return format!("{}@{step}", absolute(run));
    }
    match Path::new(what).exists() {
        true => absolute(Path::new(what)),
        false => what.to_string(),
    }
}
