//! Models in Ollama's own store: `ollama:NAME[:TAG]`, found by manifest, read where they lie.
//!
//! The store: `manifests/HOST/NAMESPACE/NAME/TAG`, JSON that lists layers by media type and digest, and
//! `blobs/sha256-…`, of which the layer `…image.model` is a GGUF file. Must not know what that holds.

use crate::{Error, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A model as Ollama keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub gguf: PathBuf,
    /// `NAME:TAG`, as `ollama list` prints it.
    pub name: String,
    /// Go's template language.
    pub template: Option<String>,
    pub system: Option<String>,
    /// `stop "<|im_end|>"`, as a Modelfile spells it.
    pub parameters: Vec<String>,
}

/// Find `NAME[:TAG]` in the stores of this machine.
///
/// # Errors
/// It is not there: says what is. Its layers are none that can be trained over.
pub fn find(name: &str) -> Result<Kept> {
    find_in(name, &stores())
}

/// `OLLAMA_MODELS`, else the user's own store and that of the system's service.
fn stores() -> Vec<PathBuf> {
    if let Some(dir) = std::env::var_os("OLLAMA_MODELS").filter(|v| !v.is_empty()) {
        return vec![dir.into()];
    }
    let home = std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".ollama").join("models"));
    home.into_iter().chain(["/usr/share/ollama/.ollama/models".into()]).collect()
}

fn find_in(name: &str, stores: &[PathBuf]) -> Result<Kept> {
    let place = || format!("ollama:{name}");
    let wanted = Name::parse(name).ok_or_else(|| {
        Error::new("not a name of a model")
            .at(place())
            .next("write ollama:NAME or ollama:NAME:TAG, as ollama list prints it")
    })?;
    for store in stores {
        let path = store.join("manifests").join(&wanted.path);
        if let Ok(text) = std::fs::read_to_string(&path) {
            return read(&text, store, &wanted.shown).map_err(|e| e.at(path.display()));
        }
    }
    let there: Vec<String> = stores.iter().flat_map(|s| list(s)).collect();
    let at: Vec<String> = stores.iter().map(|s| s.display().to_string()).collect();
    let next = if there.is_empty() {
        format!(
            "no model of Ollama's is in {}; pull one with `ollama pull {name}`, or set OLLAMA_MODELS",
            at.join(" or ")
        )
    } else {
        format!("there are {}; or pull it with `ollama pull {name}`", there.join(", "))
    };
    Err(Error::new("no such model in Ollama's store").at(place()).next(next))
}

/// A name as Ollama resolves it.
struct Name {
    path: PathBuf,
    shown: String,
}

impl Name {
    fn parse(text: &str) -> Option<Self> {
        let (name, tag) = match text.rsplit_once(':') {
            // A colon before a slash belongs to the host's port.
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (text, "latest"),
        };
        let parts: Vec<&str> = name.split('/').collect();
        let clean = |s: &&str| {
            !s.is_empty() && !s.starts_with('.') && s.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c))
        };
        if !parts.iter().all(|p| clean(p)) || !clean(&tag) {
            return None;
        }
        let (host, space, own) = match parts.as_slice() {
            [own] => ("registry.ollama.ai", "library", *own),
            [space, own] => ("registry.ollama.ai", *space, *own),
            [host, space, own] => (*host, *space, *own),
            _ => return None,
        };
        Some(Self { path: [host, space, own, tag].iter().collect(), shown: format!("{name}:{tag}") })
    }
}

fn read(manifest: &str, store: &Path, name: &str) -> Result<Kept> {
    let value: Value = serde_json::from_str(manifest).map_err(|e| Error::new(format!("not valid JSON: {e}")))?;
    let layers = value.get("layers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let blob = |kind: &str| {
        let of =
            |l: &&Value| l["mediaType"].as_str().is_some_and(|m| m == format!("application/vnd.ollama.image.{kind}"));
        let digest = layers.iter().find(of)?.get("digest")?.as_str()?;
        let hex =
            digest.strip_prefix("sha256:").filter(|h| h.len() == 64 && h.bytes().all(|b| b.is_ascii_hexdigit()))?;
        Some(store.join("blobs").join(format!("sha256-{hex}")))
    };
    let text = |kind: &str| std::fs::read_to_string(blob(kind)?).ok();
    if blob("adapter").is_some() {
        return Err(Error::new("the model is a base with an adapter, which is not trained over")
            .next("name its base, or merge the adapter first"));
    }
    let gguf = blob("model").ok_or_else(|| {
        Error::new("the model has no GGUF layer").next("only models that Ollama keeps as GGUF can be tuned")
    })?;
    if !gguf.is_file() {
        return Err(Error::new(format!("its file {} is missing", gguf.display()))
            .next(format!("`ollama pull {name}` fetches it again")));
    }
    let parameters: Value = text("params").and_then(|t| serde_json::from_str(&t).ok()).unwrap_or_default();
    let mut lines = Vec::new();
    for (key, value) in parameters.as_object().into_iter().flatten() {
        match value {
            Value::Array(list) => lines.extend(list.iter().map(|v| format!("{key} {v}"))),
            one => lines.push(format!("{key} {one}")),
        }
    }
    Ok(Kept { gguf, name: name.to_string(), template: text("template"), system: text("system"), parameters: lines })
}

/// The models of a store, as `ollama list` names them, sorted.
fn list(store: &Path) -> Vec<String> {
    let sub = |p: &Path| -> Vec<(String, PathBuf)> {
        let entries = std::fs::read_dir(p).into_iter().flatten().flatten();
        entries
            .filter_map(|e| Some((e.file_name().into_string().ok()?, e.path())))
            .filter(|(n, _)| !n.starts_with('.'))
            .collect()
    };
    let mut names = Vec::new();
    for (host, path) in sub(&store.join("manifests")) {
        for (space, path) in sub(&path) {
            for (own, path) in sub(&path) {
                for (tag, _) in sub(&path) {
                    names.push(match (host.as_str(), space.as_str()) {
                        ("registry.ollama.ai", "library") => format!("{own}:{tag}"),
                        ("registry.ollama.ai", space) => format!("{space}/{own}:{tag}"),
                        (host, space) => format!("{host}/{space}/{own}:{tag}"),
                    });
                }
            }
        }
    }
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(c: char) -> String {
        c.to_string().repeat(64)
    }

    fn store() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let layer = |kind: &str, c: char| {
            format!(r#"{{"mediaType":"application/vnd.ollama.image.{kind}","digest":"sha256:{}"}}"#, digest(c))
        };
        let manifest = |layers: &[String]| format!(r#"{{"schemaVersion":2,"layers":[{}]}}"#, layers.join(","));
        let whole = manifest(&[layer("model", 'a'), layer("template", 'b'), layer("params", 'c')]);
        put("manifests/registry.ollama.ai/library/tiny/latest", &whole);
        put("manifests/registry.ollama.ai/library/tiny/1b", &whole);
        put("manifests/hf.co/o/n/Q4_0", &manifest(&[layer("model", 'a')]));
        put("manifests/registry.ollama.ai/me/tuned/latest", &manifest(&[layer("model", 'a'), layer("adapter", 'b')]));
        put("manifests/registry.ollama.ai/library/gone/latest", &manifest(&[layer("model", 'e')]));
        put(&format!("blobs/sha256-{}", digest('a')), "GGUF");
        put(&format!("blobs/sha256-{}", digest('b')), "{{ .Prompt }}");
        put(&format!("blobs/sha256-{}", digest('c')), r#"{"stop":["<|im_end|>","</s>"],"temperature":0.7}"#);
        dir
    }

    #[test]
    fn a_model_is_found_by_name_and_tag_with_its_template_and_parameters() {
        let dir = store();
        let stores = [dir.path().to_path_buf()];
        for (name, shown) in [("tiny", "tiny:latest"), ("tiny:1b", "tiny:1b"), ("hf.co/o/n:Q4_0", "hf.co/o/n:Q4_0")] {
            let kept = find_in(name, &stores).unwrap();
            assert_eq!(kept.name, shown);
            assert_eq!(std::fs::read_to_string(kept.gguf).unwrap(), "GGUF");
        }
        let kept = find_in("tiny", &stores).unwrap();
        assert_eq!(kept.template.as_deref(), Some("{{ .Prompt }}"));
        assert_eq!(kept.parameters, ["stop \"<|im_end|>\"", "stop \"</s>\"", "temperature 0.7"]);
    }

    #[test]
    fn a_model_that_is_not_there_is_answered_with_those_that_are() {
        let dir = store();
        let stores = [dir.path().to_path_buf()];
        let error = |name: &str| find_in(name, &stores).unwrap_err().to_string();
        let e = error("llama3");
        assert!(e.contains("gone:latest, hf.co/o/n:Q4_0, me/tuned:latest, tiny:1b, tiny:latest"), "{e}");
        assert!(error("me/tuned").contains("adapter"));
        assert!(error("gone").contains("ollama pull gone"));
        assert!(error("../x").contains("not a name"));
        let e = find_in("llama3", &[dir.path().join("none")]).unwrap_err().to_string();
        assert!(e.contains("OLLAMA_MODELS"), "{e}");
    }
}
