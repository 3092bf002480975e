//! The Hugging Face hub: models and data sets by name, in the hub's own cache.
//!
//! A name and a revision in, a folder on disk out. What is in the cache already is not asked for again; what is missing
//! is downloaded, resumed where it was cut, checked by its hash, and stored as `huggingface_hub` stores it, so that
//! either program finds what the other fetched. Must not know what the files mean: the caller says which it wants.

mod cache;
mod client;
mod download;
mod repo;
#[cfg(test)]
pub(crate) mod server;
mod settings;
#[cfg(test)]
mod tests;

pub use cache::Cache;
pub use client::{Info, Sibling};
pub use repo::{Kind, Repo, is_id};
pub use settings::Settings;

use crate::{Error, Result};
use client::Client;
use std::path::PathBuf;

/// Told, in words, how a download goes; a few times a second at most.
pub type Say<'a> = &'a mut dyn FnMut(&str);

/// Files of one commit on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// `…/models--OWNER--NAME/snapshots/COMMIT`.
    pub folder: PathBuf,
    /// The commit, 40 hexadecimal digits.
    pub commit: String,
}

/// Fetch what `wanted` picks from a repository's files: called with what there is, it answers with the paths to have,
/// in the order to fetch them, or with why there is nothing to want. It is called again when it asked for an index
/// (`more` of [`Wanted`]) that names the rest.
///
/// # Errors
/// No such repository, revision or file; no access; no network and not in the cache; a disk that is full; a file whose
/// hash is not what the hub says.
pub fn fetch(
    settings: &Settings,
    repo: &Repo,
    wanted: &dyn Fn(&Info, &Cached) -> Result<Wanted>,
    say: Say,
) -> Result<Snapshot> {
    let cache = settings.cache(repo)?;
    if settings.offline {
        return cache.newest(repo).ok_or_else(|| settings.offline_error(repo, &cache));
    }
    let client = Client::new(settings)?;
    let info = match client.info(repo) {
        Ok(info) => info,
        // The network is down: what is there is better than nothing, and it is said.
        Err(client::Failure::Unreachable(e)) => {
            return match cache.newest(repo) {
                Some(found) => {
                    say(&format!(
                        "the hub cannot be reached: {repo} is taken from the cache, commit {}",
                        short(&found.commit)
                    ));
                    Ok(found)
                }
                None => Err(e),
            };
        }
        Err(client::Failure::Other(e)) => return Err(e),
    };
    let snapshot = Snapshot { folder: cache.snapshot(&info.commit), commit: info.commit.clone() };
    let here = Cached { folder: snapshot.folder.clone() };
    loop {
        let wanted = wanted(&info, &here)?;
        download::all(&client, settings, &cache, repo, &info, &wanted.files, say)?;
        if !wanted.more {
            break;
        }
    }
    cache.refer(repo.revision.as_deref(), &info.commit)?;
    Ok(snapshot)
}

/// What a caller wants of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    pub files: Vec<String>,
    /// Ask again once these are here.
    pub more: bool,
}

/// What of the commit is on disk already.
pub struct Cached {
    folder: PathBuf,
}

impl Cached {
    /// A file's text, if it is here.
    pub fn text(&self, file: &str) -> Option<String> {
        std::fs::read_to_string(self.folder.join(file)).ok()
    }
}

/// The first ten digits of a commit, as they are shown.
pub fn short(commit: &str) -> &str {
    commit.get(..10).unwrap_or(commit)
}

impl Settings {
    fn cache(&self, repo: &Repo) -> Result<Cache> {
        let root = self.cache.as_ref().ok_or_else(|| {
            Error::new("no cache folder of the hub is known").at(repo).next("set HF_HOME, HF_HUB_CACHE or HOME")
        })?;
        Ok(Cache::of(root, repo))
    }

    fn offline_error(&self, repo: &Repo, cache: &Cache) -> Error {
        Error::new(format!(
            "not in the hub's cache ({}), and HF_HUB_OFFLINE forbids to fetch it",
            cache.root().display()
        ))
        .at(repo)
        .next("unset HF_HUB_OFFLINE, or fetch it on a machine with a network and copy the cache folder here")
    }

    /// The commit of a repository that is in the cache, without asking the hub.
    pub fn cached(&self, repo: &Repo) -> Option<Snapshot> {
        self.cache(repo).ok()?.newest(repo)
    }
}
