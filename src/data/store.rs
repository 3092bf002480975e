//! Tokens on disk, written as they are made and mapped when they are read: a data set may be larger than memory.
//!
//! A file: magic, then the ids (`u32`) and label flags (one byte each) of one example after another; then three tables
//! (examples, rows, the head as JSON), and at the end a footer with their places and the BLAKE3 hash of all before it.
//! Knows nothing of where such files are kept.

use super::batch::Example;
use super::read::Place;
use crate::{Error, Result};
use memmap2::Mmap;
use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"FTTOKEN\n";
/// magic; examples, rows, bytes of head; where each of the three begins; hash.
const FOOTER: usize = 8 + 3 * 8 + 3 * 8 + 32;
const EXAMPLE: usize = 24;
const ROW: usize = 32;

/// A mapped file of tokens.
pub struct Store {
    map: Mmap,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store of {} bytes", self.map.len())
    }
}

/// Values of an example: owned, or lent by a [`Store`].
#[derive(Clone)]
pub enum Run<T> {
    Own(Vec<T>),
    Lent { store: Arc<Store>, at: usize, len: u32 },
}

/// What may be read out of a mapped file.
///
/// # Safety
/// Every value of the bytes that a [`Store`] has checked must be a value of the type.
pub unsafe trait Plain: Copy {}
// SAFETY: every four bytes are a u32.
unsafe impl Plain for u32 {}
// SAFETY: a store's flags are checked to be 0 or 1 when it is opened.
unsafe impl Plain for bool {}

impl<T: Plain> Deref for Run<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Run::Own(values) => values,
            Run::Lent { store, at, len } => {
                // SAFETY: `Store::read` makes these, after checking that the range lies in the map, begins where a T
                // may, and (for flags) holds only 0 and 1. The map is read-only and lives as long as the store; the file
                // is never written again once it is whole (it was renamed in, or has no name at all).
                unsafe { std::slice::from_raw_parts(store.map.as_ptr().add(*at).cast::<T>(), *len as usize) }
            }
        }
    }
}

impl<T: Plain> Run<T> {
    /// To change them; values that are lent are copied first.
    pub fn to_mut(&mut self) -> &mut Vec<T> {
        if let Run::Lent { .. } = self {
            *self = Run::Own(self.to_vec());
        }
        match self {
            Run::Own(values) => values,
            // Made owned above.
            Run::Lent { .. } => unreachable!(),
        }
    }
}

impl<T> Default for Run<T> {
    fn default() -> Self {
        Run::Own(Vec::new())
    }
}

impl<T> From<Vec<T>> for Run<T> {
    fn from(values: Vec<T>) -> Self {
        Run::Own(values)
    }
}

impl<T> FromIterator<T> for Run<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Run::Own(values.into_iter().collect())
    }
}

impl<'a, T: Plain> IntoIterator for &'a Run<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: Plain + PartialEq> PartialEq for Run<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Plain + Eq> Eq for Run<T> {}

impl<T: Plain + PartialEq> PartialEq<Vec<T>> for Run<T> {
    fn eq(&self, other: &Vec<T>) -> bool {
        **self == **other
    }
}

impl<T: Plain + PartialEq, const N: usize> PartialEq<[T; N]> for Run<T> {
    fn eq(&self, other: &[T; N]) -> bool {
        **self == *other
    }
}

impl<T: Plain + fmt::Debug> fmt::Debug for Run<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// What a file of tokens holds.
#[derive(Debug, PartialEq)]
pub struct Contents {
    pub head: Vec<u8>,
    pub places: Vec<Place>,
    pub fingerprints: Vec<u64>,
    pub examples: Vec<Example>,
}

impl Store {
    /// Map a file and find what is in it; `None` where it is torn, altered or not such a file.
    pub fn read(path: &Path) -> Option<Contents> {
        Self::of(&File::open(path).ok()?)
    }

    fn of(file: &File) -> Option<Contents> {
        if cfg!(target_endian = "big") || file.metadata().ok()?.len() < (MAGIC.len() + FOOTER) as u64 {
            return None;
        }
        // SAFETY: read-only; files of tokens are renamed in whole and never written again. Someone who cuts one
        // short by hand while it is read ends this process, as with mapped weights.
        let map = unsafe { Mmap::map(file) }.ok()?;
        let store = Arc::new(Store { map });
        let bytes: &[u8] = &store.map;
        let (body, footer) = bytes.split_at(bytes.len() - FOOTER);
        let (numbers, hash) = footer.split_at(FOOTER - 32);
        if !body.starts_with(MAGIC) || !numbers.starts_with(MAGIC) || hashed(&[body, numbers]).as_bytes() != hash {
            return None;
        }
        let number = |i: usize| usize::try_from(u64_at(numbers, 8 + 8 * i)?).ok();
        let (examples, rows, head) = (number(0)?, number(1)?, number(2)?);
        let (examples_at, rows_at, head_at) = (number(3)?, number(4)?, number(5)?);
        let part = |at: usize, n: usize, each: usize| body.get(at..at.checked_add(n.checked_mul(each)?)?);
        let (table, rows) = (part(examples_at, examples, EXAMPLE)?, part(rows_at, rows, ROW)?);
        let head = part(head_at, head, 1)?.to_vec();
        let mut contents = Contents { head, places: Vec::new(), fingerprints: Vec::new(), examples: Vec::new() };
        contents.examples.reserve_exact(examples);
        for entry in table.chunks_exact(EXAMPLE) {
            let at = usize::try_from(u64_at(entry, 0)?).ok()?;
            let (len, row, cut) = (u32_at(entry, 8)?, u32_at(entry, 12)?, u32_at(entry, 16)?);
            let flags = at.checked_add(4 * len as usize)?;
            if at % 4 != 0 || body.get(flags..flags.checked_add(len as usize)?)?.iter().any(|&b| b > 1) {
                return None;
            }
            contents.examples.push(Example {
                ids: Run::Lent { store: Arc::clone(&store), at, len },
                trained: Run::Lent { store: Arc::clone(&store), at: flags, len },
                row,
                truncated: cut != 0,
            });
        }
        contents.places.reserve_exact(rows.len() / ROW);
        contents.fingerprints.reserve_exact(rows.len() / ROW);
        for r in rows.chunks_exact(ROW) {
            contents.places.push(Place {
                file: u32_at(r, 0)?,
                line: u32_at(r, 4)?,
                offset: u64_at(r, 8)?,
                len: u64_at(r, 16)?,
            });
            contents.fingerprints.push(u64_at(r, 24)?);
        }
        Some(contents)
    }
}

fn hashed(parts: &[&[u8]]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

/// Writes a file of tokens, holding only what its tables need.
pub struct Writer {
    out: BufWriter<File>,
    hasher: blake3::Hasher,
    at: u64,
    examples: Vec<u8>,
    rows: Vec<u8>,
}

impl Writer {
    /// Into a file that is open for reading and writing, and empty.
    pub fn new(file: File) -> Result<Self> {
        let out = BufWriter::with_capacity(1 << 20, file);
        let mut w = Self { out, hasher: blake3::Hasher::new(), at: 0, examples: Vec::new(), rows: Vec::new() };
        w.put(MAGIC)?;
        Ok(w)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.at += bytes.len() as u64;
        self.out.write_all(bytes).map_err(|e| {
            Error::new(format!("tokens cannot be written: {e}"))
                .next("make room on that disk, or set XDG_CACHE_HOME to a folder on a larger one")
        })
    }

    /// Bytes up to where a number of eight bytes may begin.
    fn align(&mut self) -> Result<()> {
        let pad = (8 - self.at % 8) % 8;
        self.put(&[0; 8][..pad as usize])
    }

    pub fn example(&mut self, e: &Example) -> Result<()> {
        self.align()?;
        self.examples.extend(self.at.to_le_bytes());
        for n in [e.ids.len() as u32, e.row, u32::from(e.truncated), 0] {
            self.examples.extend(n.to_le_bytes());
        }
        let mut bytes = Vec::with_capacity(5 * e.ids.len());
        bytes.extend(e.ids.iter().flat_map(|id| id.to_le_bytes()));
        bytes.extend(e.trained.iter().map(|&t| u8::from(t)));
        self.put(&bytes)
    }

    pub fn row(&mut self, place: &Place, fingerprint: u64) {
        self.rows.extend(place.file.to_le_bytes());
        self.rows.extend(place.line.to_le_bytes());
        self.rows.extend(place.offset.to_le_bytes());
        self.rows.extend(place.len.to_le_bytes());
        self.rows.extend(fingerprint.to_le_bytes());
    }

    /// Tables and footer; the file is whole then.
    pub fn finish(mut self, head: &[u8]) -> Result<File> {
        let (examples, rows) = (std::mem::take(&mut self.examples), std::mem::take(&mut self.rows));
        let mut numbers = [examples.len() / EXAMPLE, rows.len() / ROW, head.len(), 0, 0, 0].map(|n| n as u64);
        for (i, table) in [&examples, &rows, head].into_iter().enumerate() {
            self.align()?;
            numbers[3 + i] = self.at;
            self.put(table)?;
        }
        let mut footer = MAGIC.to_vec();
        footer.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
        self.put(&footer)?;
        let hash = self.hasher.finalize();
        self.put(hash.as_bytes())?;
        self.out.into_inner().map_err(|e| Error::from(e.into_error()))
    }
}

/// A file without a name, for tokens that are kept nowhere.
pub fn nameless() -> Result<File> {
    let folder = std::env::temp_dir();
    let at = |e: std::io::Error| {
        Error::from(e).at(folder.display()).next("set XDG_CACHE_HOME or TMPDIR to a folder that can be written")
    };
    for n in 0..1000u32 {
        let path = folder.join(format!(".finetop-{}-{n}-{:x}", std::process::id(), fastrand::u64(..)));
        match File::options().read(true).write(true).create_new(true).open(&path) {
            Ok(file) => {
                std::fs::remove_file(&path).map_err(at)?;
                return Ok(file);
            }
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(at(e)),
        }
    }
    Err(Error::new("no name is free for a temporary file").at(folder.display()))
}

/// What was written to a file, mapped.
pub fn mapped(file: &File) -> Result<Contents> {
    Store::of(file).ok_or_else(|| Error::new("the tokens that were just written cannot be read again"))
}
