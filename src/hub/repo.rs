//! How a recipe names a repository of the hub.

use crate::{Error, Result};
use std::fmt;

/// What kind of thing a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Model,
    Dataset,
}

impl Kind {
    /// The first part of its path in the hub's API, and of its folder's name in the cache.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
        }
    }
}

/// A repository, at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repo {
    pub kind: Kind,
    /// `OWNER/NAME`.
    pub id: String,
    /// A branch, tag or commit; `None`: `main`.
    pub revision: Option<String>,
    /// A file or folder in it.
    pub path: Option<String>,
}

impl Repo {
    /// `OWNER/NAME[/PATH][@REVISION]`, with or without `hf:` before it.
    ///
    /// # Errors
    /// It is not such a name.
    pub fn parse(kind: Kind, text: &str) -> Result<Self> {
        let bare = text.strip_prefix("hf:").unwrap_or(text);
        let wrong = |why: &str| {
            Error::new(format!("{bare} is not a hub id{why}"))
                .next("a hub id is OWNER/NAME, OWNER/NAME@REVISION or OWNER/NAME/FILE")
        };
        let (name, revision) = match bare.split_once('@') {
            Some((name, revision)) => (name, Some(revision)),
            None => (bare, None),
        };
        let mut parts = name.splitn(3, '/');
        let (Some(owner), Some(own)) = (parts.next(), parts.next()) else { return Err(wrong("")) };
        let id = format!("{owner}/{own}");
        if !is_id(&id) {
            return Err(wrong(""));
        }
        let path = parts.next().map(|p| p.trim_end_matches('/').to_string()).filter(|p| !p.is_empty());
        if path.as_deref().is_some_and(|p| !is_inside(p)) {
            return Err(wrong(": its path leads out of the repository"));
        }
        let revision = match revision {
            Some(r) if !is_revision(r) => return Err(wrong(": its revision is not a branch, tag or commit")),
            other => other.map(str::to_string),
        };
        Ok(Self { kind, id, revision, path })
    }

    /// The revision that is asked for.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }

    /// Whether the revision is a commit: what it means can then never change.
    pub fn is_pinned(&self) -> bool {
        self.revision.as_deref().is_some_and(is_commit)
    }

    /// Without its owner, for titles.
    pub fn short_name(&self) -> &str {
        self.id.rsplit('/').next().unwrap_or(&self.id)
    }

    /// `models--OWNER--NAME`, its folder in the cache.
    pub fn folder(&self) -> String {
        format!("{}--{}", self.kind.plural(), self.id.replace('/', "--"))
    }
}

impl fmt::Display for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf:{}", self.id)?;
        if let Some(path) = &self.path {
            write!(f, "/{path}")?;
        }
        match &self.revision {
            Some(revision) => write!(f, "@{revision}"),
            None => Ok(()),
        }
    }
}

/// `OWNER/NAME`, of the characters that the hub allows.
pub fn is_id(name: &str) -> bool {
    let part = |p: &str| {
        !p.is_empty()
            && p.len() <= 96
            && p.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && !p.starts_with(['.', '-'])
            && !p.ends_with(['.', '-'])
            && !p.contains("..")
            && !p.contains("--")
    };
    name.split('/').count() == 2 && name.split('/').all(part)
}

/// 40 hexadecimal digits.
pub fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A relative path that stays below where it starts.
pub fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && !path.contains(['\\', '\0'])
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

fn is_revision(text: &str) -> bool {
    is_inside(text) && !text.contains(|c: char| c.is_whitespace() || c.is_control() || "?#%~^:".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_carry_a_path_and_a_revision() {
        for (text, id, path, revision) in [
            ("hf:Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-7B", None, None),
            ("Qwen/Qwen2.5-7B@v1", "Qwen/Qwen2.5-7B", None, Some("v1")),
            ("hf:openai/gsm8k/main", "openai/gsm8k", Some("main"), None),
            ("hf:o/n/a/b.gguf@refs/pr/1", "o/n", Some("a/b.gguf"), Some("refs/pr/1")),
        ] {
            let repo = Repo::parse(Kind::Model, text).unwrap();
            assert_eq!(
                (repo.id.as_str(), repo.path.as_deref(), repo.revision.as_deref()),
                (id, path, revision),
                "{text}"
            );
        }
        let repo = Repo::parse(Kind::Dataset, "hf:o/n/sub@v2").unwrap();
        assert_eq!(repo.to_string(), "hf:o/n/sub@v2");
        assert_eq!(repo.folder(), "datasets--o--n");
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        for bad in [
            "hf:not an id",
            "hf:one",
            "hf:../x",
            "hf:a/..",
            "hf:a/b/../../c",
            "hf:a/b@../main",
            "hf:a/b@x?y",
            "hf:a/b@",
        ] {
            assert!(Repo::parse(Kind::Model, bad).is_err(), "{bad}");
        }
    }
}
