//! Which files of a hub repository make a model, and whether a snapshot has them all.
//!
//! Must not know how they are fetched, nor what they contain.

use crate::hub::{self, Cached, Info, Kind, Repo, Settings, Snapshot, Wanted};
use crate::{Error, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// How much of a model is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Configuration and tokenizer: enough to plan memory and to count tokens.
    Description,
    /// The weights too.
    Everything,
}

const INDEX: &str = "model.safetensors.index.json";

/// The folder, or the `.gguf` file, of a hub model, and its commit; downloaded as far as it is missing.
///
/// Without a revision, or at a commit, a snapshot that has all that is needed is taken as it is and the hub is not
/// asked: a start is quick, works without a network, and means the same model tomorrow. A branch or tag is asked for.
pub fn model(name: &str, need: Need, say: hub::Say) -> Result<(PathBuf, Repo, String)> {
    let repo = Repo::parse(Kind::Model, name)?;
    let settings = Settings::of_environment();
    model_at(&settings, repo, need, say)
}

fn model_at(settings: &Settings, repo: Repo, need: Need, say: hub::Say) -> Result<(PathBuf, Repo, String)> {
    let here = settings.cached(&repo).filter(|s| is_whole(&s.folder, &repo, need));
    let settled = repo.revision.is_none() || repo.is_pinned() || settings.offline;
    let snapshot = match here {
        Some(found) if settled => found,
        _ => fetched(settings, &repo, need, say)?,
    };
    let path = match &repo.path {
        Some(file) => snapshot.folder.join(file),
        None => snapshot.folder,
    };
    Ok((path, repo, snapshot.commit))
}

fn fetched(settings: &Settings, repo: &Repo, need: Need, say: hub::Say) -> Result<Snapshot> {
    let snapshot =
        hub::fetch(settings, repo, &|info, here| wanted(repo, info, here, need).map_err(|e| e.at(repo)), say)?;
    if !is_whole(&snapshot.folder, repo, need) {
        let why =
            if settings.offline { "HF_HUB_OFFLINE forbids to fetch the rest" } else { "the rest could not be fetched" };
        return Err(Error::new(format!(
            "only a part of it is in the cache ({}), and {why}",
            snapshot.folder.display()
        ))
        .at(repo)
        .next("try again with a network and without HF_HUB_OFFLINE"));
    }
    Ok(snapshot)
}

/// The small files that describe a model, by name.
fn describes(name: &str) -> bool {
    let fixed = [
        "config.json",
        "generation_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
    ];
    fixed.contains(&name) || name.starts_with("tokenizer") || name.starts_with("chat_template")
}

/// What to fetch of a repository: descriptions first, so that weights are never there without them.
fn wanted(repo: &Repo, info: &Info, here: &Cached, need: Need) -> Result<Wanted> {
    if let Some(path) = &repo.path {
        return Ok(Wanted { files: vec![path.clone()], more: false });
    }
    let names: Vec<&str> = info.files.iter().map(|f| f.path.as_str()).filter(|n| !n.contains('/')).collect();
    let has = |name: &str| names.contains(&name);
    let ending =
        |end: &str| -> Vec<String> { names.iter().filter(|n| n.ends_with(end)).map(|n| n.to_string()).collect() };
    let weights: Vec<String> = ending(".safetensors")
        .into_iter()
        .filter(|n| !n.starts_with("consolidated") && !n.starts_with("adapter_"))
        .collect();
    let mut files: Vec<String> = names.iter().filter(|n| describes(n)).map(|n| n.to_string()).collect();
    if has("config.json") && !weights.is_empty() {
        if need == Need::Description {
            return Ok(Wanted { files, more: false });
        }
        if has("model.safetensors") {
            files.push("model.safetensors".into());
        } else if has(INDEX) {
            files.push(INDEX.into());
            let Some(text) = here.text(INDEX) else { return Ok(Wanted { files, more: true }) };
            files.extend(shards(&text).ok_or_else(|| Error::new("not an index of shards").at(INDEX))?);
        } else {
            files.extend(weights);
        }
        return Ok(Wanted { files, more: false });
    }
    let ggufs = ending(".gguf");
    match ggufs.as_slice() {
        [one] => Ok(Wanted { files: vec![one.clone()], more: false }),
        [] if has("adapter_config.json") => Err(Error::new("the repository is an adapter, not a model")
            .next("name its base as the model; download the adapter and name its folder as lora.adapter_name_or_path")),
        [] if names.iter().any(|n| n.ends_with(".bin") || n.ends_with(".pth")) => {
            Err(Error::new("the repository has its weights in PyTorch's pickle format only, which is not read: loading one can run code")
                .next("look for a conversion to safetensors, often at @refs/pr/1"))
        }
        [] => Err(Error::new("the repository holds no model: no config.json with safetensors, and no .gguf file")),
        many => Err(Error::new(format!("the repository holds {} .gguf files: {}", many.len(), many.join(", ")))
            .next(format!("name one of them: hf:{}/{}", repo.id, many[0]))),
    }
}

/// The files that an index names, sorted.
fn shards(text: &str) -> Option<Vec<String>> {
    let value: Value = serde_json::from_str(text).ok()?;
    let mut names: Vec<String> =
        value.get("weight_map")?.as_object()?.values().filter_map(Value::as_str).map(str::to_string).collect();
    names.sort();
    names.dedup();
    Some(names)
}

/// Whether a snapshot has all that is needed.
fn is_whole(folder: &Path, repo: &Repo, need: Need) -> bool {
    if let Some(file) = &repo.path {
        return folder.join(file).is_file();
    }
    let names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
        .collect();
    // A link whose blob is gone is no file.
    let is = |name: &str| folder.join(name).is_file();
    if !is("config.json") {
        return names.iter().any(|n| n.ends_with(".gguf") && is(n));
    }
    let tokenizer = ["tokenizer.json", "tokenizer.model", "vocab.json"].iter().any(|n| is(n));
    let weights = match std::fs::read_to_string(folder.join(INDEX)) {
        _ if is("model.safetensors") => true,
        Ok(index) => shards(&index).is_some_and(|s| s.iter().all(|n| is(n))),
        Err(_) => names.iter().any(|n| n.ends_with(".safetensors") && is(n)),
    };
    tokenizer && (need == Need::Description || weights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::server::{COMMIT, Held, Hub};

    fn held(files: &[(&str, &str)]) -> Held {
        Held { files: files.iter().map(|(n, t)| (n.to_string(), t.as_bytes().to_vec())).collect(), ..Held::default() }
    }

    fn get(settings: &Settings, name: &str, need: Need) -> Result<(PathBuf, Repo, String)> {
        model_at(settings, Repo::parse(Kind::Model, name)?, need, &mut |_| ())
    }

    const SHARDED: &[(&str, &str)] = &[
        ("config.json", "{}"),
        ("tokenizer.json", "{}"),
        ("chat_template.jinja", "x"),
        (
            "model.safetensors.index.json",
            r#"{"weight_map":{"a":"model-1-of-2.safetensors","b":"model-2-of-2.safetensors"}}"#,
        ),
        ("model-1-of-2.safetensors", "1"),
        ("model-2-of-2.safetensors", "2"),
        ("consolidated.safetensors", "twice"),
        ("pytorch_model.bin", "pickle"),
        ("README.md", "readme"),
        ("onnx/model.onnx", "onnx"),
    ];

    #[test]
    fn only_what_makes_the_model_is_fetched_and_the_second_start_asks_nothing() {
        let (hub, dir) = (Hub::start([("models/o/n", held(SHARDED))]), tempfile::tempdir().unwrap());
        let settings = hub.settings(dir.path());
        let (folder, _, commit) = get(&settings, "o/n", Need::Description).unwrap();
        assert!(!folder.join("model-1-of-2.safetensors").exists() && folder.join("chat_template.jinja").exists());
        get(&settings, "o/n", Need::Everything).unwrap();
        let mut names: Vec<_> =
            std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        let expected: Vec<_> = [
            "chat_template.jinja",
            "config.json",
            "model-1-of-2.safetensors",
            "model-2-of-2.safetensors",
            "model.safetensors.index.json",
            "tokenizer.json",
        ]
        .into();
        assert_eq!((names, commit.as_str()), (expected.iter().map(|s| s.to_string()).collect(), COMMIT));
        let before = hub.requests().len();
        get(&settings, "o/n", Need::Everything).unwrap();
        get(&settings, &format!("o/n@{COMMIT}"), Need::Everything).unwrap();
        assert_eq!(hub.requests().len(), before);
        get(&settings, "o/n@main", Need::Everything).unwrap();
        assert_eq!(hub.requests().len(), before + 1, "a branch is asked for");
    }

    #[test]
    fn a_snapshot_with_a_part_missing_is_not_taken_for_whole() {
        let (hub, dir) = (Hub::start([("models/o/n", held(SHARDED))]), tempfile::tempdir().unwrap());
        let mut settings = hub.settings(dir.path());
        get(&settings, "o/n", Need::Description).unwrap();
        settings.offline = true;
        get(&settings, "o/n", Need::Description).unwrap();
        let e = get(&settings, "o/n", Need::Everything).unwrap_err().to_string();
        assert!(e.contains("only a part") && e.contains("HF_HUB_OFFLINE"), "{e}");
    }

    #[test]
    fn a_repository_that_is_no_model_says_what_it_is() {
        let many = held(&[("a-Q4_0.gguf", "a"), ("b-Q8_0.gguf", "b")]);
        let hub = Hub::start([
            ("models/o/many", many),
            ("models/o/one", held(&[("x.gguf", "GGUF")])),
            ("models/o/adapter", held(&[("adapter_config.json", "{}"), ("adapter_model.safetensors", "")])),
            ("models/o/pickle", held(&[("config.json", "{}"), ("pytorch_model.bin", "")])),
            ("models/o/none", held(&[("README.md", "")])),
        ]);
        let dir = tempfile::tempdir().unwrap();
        let settings = hub.settings(dir.path());
        for (name, words) in [
            ("o/many", "hf:o/many/a-Q4_0.gguf"),
            ("o/adapter", "adapter_name_or_path"),
            ("o/pickle", "can run code"),
            ("o/none", "no model"),
        ] {
            let e = get(&settings, name, Need::Everything).unwrap_err().to_string();
            assert!(e.contains(words), "{name}: {e}");
        }
        assert!(get(&settings, "o/many/b-Q8_0.gguf", Need::Everything).unwrap().0.ends_with("b-Q8_0.gguf"));
        get(&settings, "o/one", Need::Everything).unwrap();
    }
}
