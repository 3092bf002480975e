//! From a source of a recipe to its files: a path, or a data set of the hub; and of those the files of one split.
//!
//! Must not know what is in the files.

use super::files::{self, Found, Kind};
use crate::hub::{self, Cached, Info, Kind as Repository, Repo, Settings, Wanted};
use crate::recipe::DataSource;
use crate::{Error, Result};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};

/// The files of one source, in reading order. `key` is the recipe's, `data.train` or `data.eval`; `say` hears how a
/// download goes.
///
/// # Errors
/// A path that is not there; a data set that cannot be fetched; a split that no file belongs to.
pub fn locate(source: &DataSource, key: &str, say: hub::Say) -> Result<Found> {
    match source.path.to_str().filter(|t| t.starts_with("hf:") && !source.path.exists()) {
        Some(text) => of_hub(&Settings::of_environment(), text, source.split.as_deref(), key, say),
        None => of_path(source, key),
    }
}

fn of_path(source: &DataSource, key: &str) -> Result<Found> {
    let mut found = files::find(std::slice::from_ref(&source.path), key)?;
    let Some(split) = &source.split else { return Ok(found) };
    let wanted = normal(split);
    let name = |p: &Path| p.strip_prefix(&source.path).unwrap_or(p).to_string_lossy().into_owned();
    let splits: Vec<Option<String>> = found.files.iter().map(|p| split_of(&name(p))).collect();
    // A file that says nothing of splits is a train split, as datasets has it.
    if wanted == "train" && splits.iter().all(Option::is_none) {
        return Ok(found);
    }
    let mut keep = splits.iter().map(|s| s.as_deref() == Some(wanted.as_str()));
    let before = found.files.len();
    found.files.retain(|_| keep.next().unwrap_or(false));
    if found.files.is_empty() {
        return Err(no_split(split, splits.into_iter().flatten().collect(), before)
            .at(format!("{key}: {}", source.path.display())));
    }
    Ok(found)
}

fn no_split(split: &str, mut there: Vec<String>, files: usize) -> Error {
    there.sort();
    there.dedup();
    let next = match there.is_empty() {
        true => "splits are known by words in the files' names: train, validation, test".to_string(),
        false => format!("there are the splits {}", there.join(", ")),
    };
    Error::new(format!("none of {files} files belongs to the split {split}")).next(next)
}

/// What was located in this process already, so that preparing, checking and looking at rows ask the hub once.
type Located = HashMap<(String, Option<PathBuf>, String, Option<String>, bool), Found>;
static LOCATED: LazyLock<Mutex<Located>> = LazyLock::new(Mutex::default);

fn of_hub(settings: &Settings, text: &str, split: Option<&str>, key: &str, say: hub::Say) -> Result<Found> {
    let repo = Repo::parse(Repository::Dataset, text).map_err(|e| e.at(key))?;
    let held_out = key == "data.eval";
    let known =
        (settings.endpoint.clone(), settings.cache.clone(), text.to_string(), split.map(str::to_string), held_out);
    if let Some(found) = LOCATED.lock().ok().and_then(|m| m.get(&known).cloned())
        && found.files.iter().all(|f| f.is_file())
    {
        return Ok(found);
    }
    let pick = |names: &[String], card: &Value| {
        select(names, card, &repo, split, held_out).map_err(|e| e.at(format!("{key}: {repo}")))
    };
    let wanted = |info: &Info, _: &Cached| {
        let names: Vec<String> = info.files.iter().map(|f| f.path.clone()).collect();
        Ok(Wanted { files: pick(&names, &info.card)?, more: false })
    };
    let card = std::cell::RefCell::new(Value::Null);
    let noting = |info: &Info, here: &Cached| {
        card.replace(info.card.clone());
        wanted(info, here)
    };
    let snapshot = hub::fetch(settings, &repo, &noting, say)?;
    let mut names = Vec::new();
    walk(&snapshot.folder, "", &mut names);
    names.sort();
    let files = pick(&names, &card.take())?.into_iter().map(|n| snapshot.folder.join(n)).collect();
    let found = Found { files, ignored: Vec::new() };
    if let Ok(mut located) = LOCATED.lock() {
        located.insert(known, found.clone());
    }
    Ok(found)
}

/// The files below a folder, by their paths in it.
fn walk(folder: &Path, before: &str, names: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = entry.path();
        if path.is_dir() {
            walk(&path, &format!("{before}{name}/"), names);
        } else if path.is_file() {
            names.push(format!("{before}{name}"));
        }
    }
}

/// Which files of a data set are meant: its configuration (by its card, or a folder), then the split, then one kind of
/// file where the same rows are there in several.
fn select(names: &[String], card: &Value, repo: &Repo, split: Option<&str>, held_out: bool) -> Result<Vec<String>> {
    let rows = |n: &&String| Kind::of(Path::new(n)).is_some() && !is_about(n);
    let readable: Vec<&String> = names.iter().filter(rows).collect();
    if readable.is_empty() {
        return Err(Error::new(format!("the data set holds no {} file", files::READABLE))
            .next(format!("the hub keeps a Parquet copy of most data sets: hf:{}@refs/convert/parquet", repo.id)));
    }
    let configs = card.get("configs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let name_of = |c: &Value| c.get("config_name").and_then(Value::as_str).unwrap_or("default").to_string();
    let config = match &repo.path {
        Some(path) => configs.iter().find(|c| name_of(c) == *path),
        None => {
            let chosen = configs
                .iter()
                .find(|c| c["default"] == true)
                .or_else(|| configs.iter().find(|c| name_of(c) == "default"));
            match (chosen, configs) {
                (None, [one]) => Some(one),
                (None, [_, ..]) => {
                    let all: Vec<String> = configs.iter().map(name_of).collect();
                    return Err(Error::new(format!(
                        "the data set has {} configurations: {}",
                        all.len(),
                        all.join(", ")
                    ))
                    .next(format!("name one of them: hf:{}/{}", repo.id, all[0])));
                }
                (chosen, _) => chosen,
            }
        }
    };
    let declared = config.map(patterns).filter(|p| !p.is_empty());
    let of_split: Vec<(Option<String>, &String)> = match (&declared, &repo.path) {
        (Some(patterns), _) => readable
            .iter()
            .filter_map(|n| patterns.iter().find(|(_, p)| matches(p, n)).map(|(split, _)| (Some(split.clone()), *n)))
            .collect(),
        (None, Some(path)) => {
            let below = format!("{path}/");
            let inside: Vec<_> = readable
                .iter()
                .filter(|n| **n == path || n.starts_with(&below))
                .map(|n| (split_of(&n[path.len().min(n.len())..]), *n))
                .collect();
            if inside.is_empty() {
                let mut folders: Vec<&str> =
                    readable.iter().filter_map(|n| n.split_once('/').map(|(f, _)| f)).collect();
                folders.dedup();
                let configs: Vec<String> = configs.iter().map(name_of).collect();
                return Err(Error::new(format!("the data set has no configuration, folder or file {path}")).next(
                    format!(
                        "its folders are {}; its configurations {}",
                        or_none(&folders.join(", ")),
                        or_none(&configs.join(", "))
                    ),
                ));
            }
            // One file by its name is meant whole.
            if inside.iter().any(|(_, n)| *n == path) && split.is_none() {
                return Ok(vec![path.clone()]);
            }
            inside
        }
        (None, None) => readable.iter().map(|n| (split_of(n), *n)).collect(),
    };
    let is = |wanted: &str| of_split.iter().any(|(s, _)| s.as_deref() == Some(wanted));
    let unnamed = of_split.iter().all(|(s, _)| s.is_none());
    let wanted = match split {
        Some(s) => Some(normal(s)).filter(|s| !(unnamed && s == "train")),
        None if held_out => match ["validation", "test"].into_iter().find(|s| is(s)) {
            Some(s) => Some(s.to_string()),
            None => {
                return Err(no_split(
                    "validation",
                    of_split.into_iter().filter_map(|(s, _)| s).collect(),
                    readable.len(),
                ));
            }
        },
        None if is("train") => Some("train".to_string()),
        None => {
            let mut all: Vec<&str> = of_split.iter().filter_map(|(s, _)| s.as_deref()).collect();
            all.sort_unstable();
            all.dedup();
            match all.as_slice() {
                [] => None,
                [one] => Some(one.to_string()),
                many => {
                    return Err(Error::new(format!("the data set has the splits {}", many.join(", ")))
                        .next("say which: { path = \"…\", split = \"…\" }"));
                }
            }
        }
    };
    let chosen: Vec<&String> =
        of_split.iter().filter(|(s, _)| wanted.is_none() || *s == wanted).map(|(_, n)| *n).collect();
    if chosen.is_empty() {
        return Err(no_split(
            split.unwrap_or("train"),
            of_split.into_iter().filter_map(|(s, _)| s).collect(),
            readable.len(),
        ));
    }
    let kinds = [Kind::Parquet, Kind::JsonLines, Kind::Json, Kind::Csv, Kind::Text];
    let kind = kinds.into_iter().find(|k| chosen.iter().any(|n| Kind::of(Path::new(n)) == Some(*k)));
    let mut chosen: Vec<String> = chosen.into_iter().filter(|n| Kind::of(Path::new(n)) == kind).cloned().collect();
    chosen.sort();
    Ok(chosen)
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

/// Files that say something about a data set and are none of its rows.
fn is_about(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    let about = [
        "dataset_infos.json",
        "dataset_info.json",
        "dataset_dict.json",
        "state.json",
        "config.json",
        "requirements.txt",
    ];
    about.contains(&file.as_str())
        || file.ends_with(".md")
        || file.starts_with("license")
        || name.split('/').any(|p| p.starts_with('.'))
}

/// The splits that a card's configuration declares: (split, pattern of its files).
fn patterns(config: &Value) -> Vec<(String, String)> {
    let folder =
        config.get("data_dir").and_then(Value::as_str).map(|d| format!("{}/", d.trim_matches('/'))).unwrap_or_default();
    let texts = |v: &Value| -> Vec<String> {
        match v {
            Value::String(s) => vec![format!("{folder}{s}")],
            Value::Array(list) => list.iter().filter_map(Value::as_str).map(|s| format!("{folder}{s}")).collect(),
            _ => Vec::new(),
        }
    };
    match config.get("data_files") {
        Some(Value::Array(list)) if list.iter().any(Value::is_object) => list
            .iter()
            .flat_map(|entry| {
                let split = entry.get("split").and_then(Value::as_str).unwrap_or("train");
                let split = normal(split);
                texts(entry.get("path").unwrap_or(&Value::Null)).into_iter().map(move |p| (split.clone(), p))
            })
            .collect(),
        Some(files) => texts(files).into_iter().map(|p| ("train".to_string(), p)).collect(),
        None if !folder.is_empty() => vec![("train".to_string(), format!("{folder}**"))],
        None => Vec::new(),
    }
}

/// Whether a name matches a shell pattern: `*` and `?` within one part of a path, `**` across parts.
fn matches(pattern: &str, name: &str) -> bool {
    fn go(p: &[u8], n: &[u8]) -> bool {
        match p {
            [] => n.is_empty(),
            [b'*', b'*', rest @ ..] => {
                let rest = rest.strip_prefix(b"/").unwrap_or(rest);
                (0..=n.len()).any(|i| go(rest, &n[i..]))
            }
            [b'*', rest @ ..] => {
                let end = n.iter().position(|&b| b == b'/').unwrap_or(n.len());
                (0..=end).any(|i| go(rest, &n[i..]))
            }
            [b'?', rest @ ..] => n.first().is_some_and(|&b| b != b'/') && go(rest, &n[1..]),
            [c, rest @ ..] => n.first() == Some(c) && go(rest, &n[1..]),
        }
    }
    go(pattern.trim_start_matches("./").as_bytes(), name.as_bytes())
}

/// The split that a file's name or folder tells of, as `datasets` reads names; the file's own name first.
pub fn split_of(name: &str) -> Option<String> {
    let known = |part: &str| {
        let stem = part.rsplit_once('.').map_or(part, |(s, _)| s);
        stem.split(|c: char| !c.is_ascii_alphanumeric())
            .map(normal)
            .find(|w| ["train", "validation", "test"].contains(&w.as_str()))
    };
    name.rsplit('/').find_map(known)
}

/// The name of a split, whatever it is called.
fn normal(split: &str) -> String {
    match split.to_ascii_lowercase().as_str() {
        "train" | "training" => "train".into(),
        "validation" | "valid" | "val" | "dev" => "validation".into(),
        "test" | "testing" | "eval" | "evaluation" => "test".into(),
        other => other.into(),
    }
}

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;
