//! The hub's cache on disk, as `huggingface_hub` lays it out: `blobs/ETAG` with the contents, `snapshots/COMMIT/FILE`
//! as links to them, `refs/REVISION` with the commit that a branch meant, `.locks/` for who is at work.

use super::Snapshot;
use super::repo::{Repo, is_commit, is_inside};
use crate::{Error, Result};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// One repository's part of the cache.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
    folder: PathBuf,
    name: String,
}

impl Cache {
    pub fn of(root: &Path, repo: &Repo) -> Self {
        let name = repo.folder();
        Self { root: root.to_path_buf(), folder: root.join(&name), name }
    }

    /// The whole cache's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    pub fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// The commit that the revision meant when it was last asked for; without one, the newest there is.
    pub fn newest(&self, repo: &Repo) -> Option<Snapshot> {
        let of = |commit: &str| {
            let folder = self.snapshot(commit);
            folder.is_dir().then(|| Snapshot { folder, commit: commit.to_string() })
        };
        if repo.is_pinned() {
            return of(repo.revision());
        }
        if let Ok(commit) = fs::read_to_string(self.folder.join("refs").join(repo.revision()))
            && is_commit(commit.trim())
            && let Some(found) = of(commit.trim())
        {
            return Some(found);
        }
        if repo.revision.is_some() {
            return None;
        }
        let entries = fs::read_dir(self.folder.join("snapshots")).ok()?.flatten();
        let dated = entries
            .filter(|e| e.path().is_dir())
            .filter_map(|e| Some((e.metadata().ok()?.modified().ok()?, e.file_name())));
        of(dated.max()?.1.to_str()?)
    }

    /// Remember what a branch or tag means now.
    pub fn refer(&self, revision: Option<&str>, commit: &str) -> Result<()> {
        let revision = revision.unwrap_or("main");
        if is_commit(revision) {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        write(&path, commit.as_bytes()).map_err(|e| Error::from(e).at(path.display()))
    }

    /// Let `file` of a commit lead to its blob. The link is relative, so that the cache can be moved.
    pub fn link(&self, commit: &str, file: &str, etag: &str) -> Result<()> {
        if !is_inside(file) {
            return Err(Error::new("the hub names a file outside of its repository").at(file));
        }
        let path = self.snapshot(commit).join(file);
        let up = "../".repeat(2 + file.matches('/').count());
        let target = format!("{up}blobs/{etag}");
        if fs::read_link(&path).is_ok_and(|t| t == Path::new(&target)) {
            return Ok(());
        }
        let at = |e: std::io::Error| Error::from(e).at(path.display());
        fs::create_dir_all(path.parent().unwrap_or(&self.folder)).map_err(at)?;
        let beside = path.with_file_name(format!(".{}.{}", etag, std::process::id()));
        let _ = fs::remove_file(&beside);
        std::os::unix::fs::symlink(&target, &beside).map_err(at)?;
        fs::rename(&beside, &path).map_err(at)
    }

    /// Wait for whoever downloads this blob (this program or `huggingface_hub`), then hold the place.
    pub fn lock(&self, etag: &str, waiting: &mut dyn FnMut()) -> Result<File> {
        use rustix::fs::{FlockOperation, flock};
        let path = self.root.join(".locks").join(&self.name).join(format!("{etag}.lock"));
        let at = |e: std::io::Error| Error::from(e).at(path.display());
        fs::create_dir_all(path.parent().unwrap_or(&self.root)).map_err(at)?;
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(at)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            waiting();
            // A file system without locks: two who download the same file check its hash in the end.
            let _ = flock(&file, FlockOperation::LockExclusive);
        }
        Ok(file)
    }
}

/// Write beside and rename in.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    let beside = path.with_extension(format!("{}.part", std::process::id()));
    fs::write(&beside, bytes)?;
    fs::rename(&beside, path)
}
