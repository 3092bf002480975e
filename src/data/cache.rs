//! Tokens kept between runs, in one file a data set under `$XDG_CACHE_HOME/finetop/tokens/`.
//!
//! A cache, never a truth: what is missing, torn, of another version or not writable is made anew, without a word.
//!
//! The file: magic, BLAKE3 of the rest, then little-endian sections: the head as JSON, a place and a fingerprint a
//! row, of prompts their columns, and the examples (row, length, cut, ids, label bits).

use super::batch::Example;
use super::dataset::{Head, Tokenized};
use super::read::Place;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Raise this whenever the same rows and options may give other tokens or labels, or the file another layout.
pub const VERSION: u32 = 2;

const MAGIC: &[u8; 8] = b"FTTOKEN\n";
const ENDING: &str = "tokens";

/// Oldest files go when all of them together exceed this: 2 GiB.
pub const DEFAULT_CAP: u64 = 2 << 30;

/// A folder of tokenized data sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    pub folder: PathBuf,
    /// Bytes.
    pub cap: u64,
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
        let bytes = fs::read(&path).ok()?;
        let tokenized = decode(&bytes)?;
        // So that the oldest is the one longest unused.
        if let Ok(file) = fs::File::options().append(true).open(&path) {
            let _ = file.set_modified(SystemTime::now());
        }
        Some(tokenized)
    }

    /// Store, written beside and renamed in, then make room. A full disk or a read-only home is no failure.
    pub fn store(&self, key: &blake3::Hash, tokenized: &Tokenized) {
        let Some(bytes) = encode(tokenized) else { return };
        if bytes.len() as u64 > self.cap || fs::create_dir_all(&self.folder).is_err() {
            return;
        }
        let beside = self.folder.join(format!("{key}.{}.part", std::process::id()));
        let written = fs::File::create(&beside).and_then(|mut f| f.write_all(&bytes));
        if written.and_then(|()| fs::rename(&beside, self.path(key))).is_err() {
            let _ = fs::remove_file(&beside);
        }
        self.make_room();
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

    fn make_room(&self) {
        let files = self.files();
        let mut total: u64 = files.iter().map(|f| f.1).sum();
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

fn encode(t: &Tokenized) -> Option<Vec<u8>> {
    let head = serde_json::to_vec(&t.head).ok()?;
    let tokens: usize = t.examples.iter().map(|e| e.ids.len()).sum();
    let mut body = Vec::with_capacity(head.len() + 32 * t.places.len() + 16 * t.examples.len() + 5 * tokens);
    let put = |body: &mut Vec<u8>, n: usize| body.extend((n as u64).to_le_bytes());
    put(&mut body, head.len());
    body.extend(&head);
    put(&mut body, t.places.len());
    for (p, f) in t.places.iter().zip(&t.fingerprints) {
        body.extend(p.file.to_le_bytes());
        body.extend(p.line.to_le_bytes());
        body.extend(p.offset.to_le_bytes());
        body.extend(p.len.to_le_bytes());
        body.extend(f.to_le_bytes());
    }
    put(&mut body, t.columns.len());
    for c in &t.columns {
        put(&mut body, c.len());
        body.extend(c.as_bytes());
    }
    put(&mut body, t.examples.len());
    for e in &t.examples {
        body.extend(e.row.to_le_bytes());
        body.push(u8::from(e.truncated));
        put(&mut body, e.ids.len());
        for id in &e.ids {
            body.extend(id.to_le_bytes());
        }
        for eight in e.trained.chunks(8) {
            body.push(eight.iter().enumerate().fold(0, |byte, (i, &t)| byte | u8::from(t) << i));
        }
    }
    let mut out = MAGIC.to_vec();
    out.extend(blake3::hash(&body).as_bytes());
    out.extend(body);
    Some(out)
}

fn decode(bytes: &[u8]) -> Option<Tokenized> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (hash, body) = rest.split_at_checked(32)?;
    if blake3::hash(body).as_bytes() != hash {
        return None;
    }
    let mut at = Cursor(body);
    let n = at.count(1)?;
    let head: Head = serde_json::from_slice(at.take(n)?).ok()?;
    let n = at.count(32)?;
    let (mut places, mut fingerprints) = (Vec::with_capacity(n), Vec::with_capacity(n));
    for _ in 0..n {
        places.push(Place { file: at.u32()?, line: at.u32()?, offset: at.u64()?, len: at.u64()? });
        fingerprints.push(at.u64()?);
    }
    let n = at.count(8)?;
    let mut columns = Vec::with_capacity(n);
    for _ in 0..n {
        let len = at.count(1)?;
        columns.push(String::from_utf8(at.take(len)?.to_vec()).ok()?);
    }
    let n = at.count(13)?;
    let mut examples = Vec::with_capacity(n);
    for _ in 0..n {
        let row = at.u32()?;
        let truncated = at.take(1)?[0] != 0;
        let len = at.count(4)?;
        let ids = at.take(4 * len)?.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let bits = at.take(len.div_ceil(8))?;
        let trained = (0..len).map(|i| bits[i / 8] >> (i % 8) & 1 == 1).collect();
        examples.push(Example { ids, trained, row, truncated });
    }
    at.0.is_empty().then_some(Tokenized { head, places, fingerprints, examples, columns })
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    /// A count of things that take at least `each` bytes: more than there is room for is no count.
    fn count(&mut self, each: usize) -> Option<usize> {
        let n = usize::try_from(self.u64()?).ok()?;
        (n <= self.0.len() / each).then_some(n)
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
