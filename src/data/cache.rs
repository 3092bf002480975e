//! Tokens kept between runs, in one file a data set under `$XDG_CACHE_HOME/finetop/tokens/`.
//!
//! A cache, never a truth: what is missing, torn, of another version or not writable is made anew, without a word.

use super::batch::Example;
use super::dataset::Tokenized;
use super::read::Place;
use super::store::{self, Store, Writer};
use crate::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Raise this whenever the same rows and options may give other tokens or labels, or the file another layout.
pub const VERSION: u32 = 3;

const ENDING: &str = "tokens";

/// Oldest files go when all of them together exceed this: 2 GiB. The newest stays, however large it is.
pub const DEFAULT_CAP: u64 = 2 << 30;

/// A folder of tokenized data sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    pub folder: PathBuf,
    /// Bytes.
    pub cap: u64,
}

/// A file of tokens being written.
pub struct Slot {
    writer: Option<Writer>,
    /// Where it is and where it goes; `None`: it is kept nowhere.
    names: Option<(PathBuf, PathBuf)>,
}

impl Cache {
    /// `$XDG_CACHE_HOME/finetop/tokens`, else `~/.cache/finetop/tokens`; `None` where neither is known.
    pub fn of_user() -> Option<Self> {
        let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let root = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
        Some(Self { folder: root.join("finetop").join("tokens"), cap: DEFAULT_CAP })
    }

    fn path(&self, key: &blake3::Hash) -> PathBuf {
        self.folder.join(format!("{key}.{ENDING}"))
    }

    /// What was stored under `key`, if it is whole.
    pub fn load(&self, key: &blake3::Hash) -> Option<Tokenized> {
        let path = self.path(key);
        let tokenized = Tokenized::of(Store::read(&path)?)?;
        // So that the oldest is the one longest unused.
        if let Ok(file) = fs::File::options().append(true).open(&path) {
            let _ = file.set_modified(SystemTime::now());
        }
        Some(tokenized)
    }

    /// The stored files: (path, bytes, last use), oldest first.
    pub fn files(&self) -> Vec<(PathBuf, u64, SystemTime)> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let mut files: Vec<_> = entries
            .filter_map(|e| {
                let e = e.ok()?;
                let meta = e.metadata().ok()?;
                let ours = Path::new(&e.file_name()).extension().is_some_and(|x| x == ENDING);
                ours.then_some((e.path(), meta.len(), meta.modified().ok()?))
            })
            .collect();
        files.sort_by(|a, b| a.2.cmp(&b.2).then_with(|| a.0.cmp(&b.0)));
        files
    }

    /// All but `newest` may go, the one longest unused first.
    fn make_room(&self, newest: &Path) {
        let mut files = self.files();
        let mut total: u64 = files.iter().map(|f| f.1).sum();
        // Its time may be the same as another's: a clock of files ticks a few times a second.
        files.retain(|f| f.0 != newest);
        for (path, bytes, _) in files {
            if total <= self.cap {
                break;
            }
            if fs::remove_file(path).is_ok() {
                total -= bytes;
            }
        }
    }
}

/// A file to write tokens to: in the cache, or, where there is none or it cannot be written, one without a name.
///
/// # Errors
/// Neither can be made.
pub fn slot(cache: Option<&Cache>, key: &blake3::Hash) -> Result<Slot> {
    if let Some(cache) = cache
        && fs::create_dir_all(&cache.folder).is_ok()
    {
        let beside = cache.folder.join(format!("{key}.{}.part", std::process::id()));
        if let Ok(file) = fs::File::options().read(true).write(true).create(true).truncate(true).open(&beside) {
            return Ok(Slot { writer: Some(Writer::new(file)?), names: Some((beside, cache.path(key))) });
        }
    }
    Ok(Slot { writer: Some(Writer::new(store::nameless()?)?), names: None })
}

impl Slot {
    /// Append an example.
    pub fn example(&mut self, e: &Example) -> Result<()> {
        self.writer.as_mut().map_or(Ok(()), |w| w.example(e))
    }

    /// Append a row: where it stands, and what near-duplicates of it have in common.
    pub fn row(&mut self, place: &Place, fingerprint: u64) {
        if let Some(w) = &mut self.writer {
            w.row(place, fingerprint);
        }
    }

    /// Close the file and map it; in the cache it gets its name, and makes room.
    pub fn finish(mut self, head: &[u8], cache: Option<&Cache>) -> Result<Tokenized> {
        let lost = || Error::new("the tokens that were just written cannot be read again");
        let file = self.writer.take().ok_or_else(lost)?.finish(head)?;
        let contents = store::mapped(&file)?;
        if let (Some((beside, place)), Some(cache)) = (&self.names, cache) {
            // Mapped already: a name that cannot be given costs only that the next start tokenizes again.
            let _ = fs::rename(beside, place);
            cache.make_room(place);
        }
        Tokenized::of(contents).ok_or_else(lost)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Where it was finished it has this name no more.
        if let Some((beside, _)) = &self.names {
            let _ = fs::remove_file(beside);
        }
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
