//! Where a model's files are read from: a folder on disk, or bytes embedded in the program.
//!
//! Must not know what the files mean.

use crate::{Error, Result};
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// One file carried inside the program (`include_bytes!`).
#[derive(Debug, Clone, Copy)]
pub struct EmbeddedFile {
    pub name: &'static str,
    pub bytes: &'static [u8],
}

/// A flat set of named files.
#[derive(Debug, Clone)]
pub enum Files {
    Folder(PathBuf),
    Embedded(&'static [EmbeddedFile]),
}

/// A file's content: mapped from disk, or static.
pub enum Bytes {
    Mapped(memmap2::Mmap),
    Static(&'static [u8]),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(m) => m,
            Bytes::Static(b) => b,
        }
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Bytes {
    /// Map a file into memory, read-only. An empty file is an empty slice (it cannot be mapped).
    pub fn map(path: &Path) -> Result<Self> {
        let place = || path.display().to_string();
        let file = std::fs::File::open(path).map_err(|e| Error::from(e).at(place()))?;
        if file.metadata().map_err(|e| Error::from(e).at(place()))?.len() == 0 {
            return Ok(Bytes::Static(&[]));
        }
        // SAFETY: the mapping is read-only and private to this process. As with every reader of mapped weights,
        // another process that shortens the file while it is read can make the read fault; weights are not
        // rewritten in place by the tools that produce them (they rename a new file in).
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::from(e).at(place()))?;
        Ok(Bytes::Mapped(map))
    }
}

impl Files {
    /// How errors call a file of this set.
    pub fn label(&self, name: &str) -> String {
        match self {
            Files::Folder(dir) => dir.join(name).display().to_string(),
            Files::Embedded(_) => format!("built-in {name}"),
        }
    }

    /// The names of all files, sorted. Files in sub-folders are not listed.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = match self {
            Files::Folder(dir) => {
                let entries = std::fs::read_dir(dir).map_err(|e| Error::from(e).at(dir.display()))?;
                entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect()
            }
            Files::Embedded(files) => files.iter().map(|f| f.name.to_string()).collect::<Vec<_>>(),
        };
        names.sort();
        Ok(names)
    }

    pub fn has(&self, name: &str) -> bool {
        match self {
            Files::Folder(dir) => dir.join(name).is_file(),
            Files::Embedded(files) => files.iter().any(|f| f.name == name),
        }
    }

    /// A file's content, mapped where it lies on disk.
    pub fn bytes(&self, name: &str) -> Result<Bytes> {
        match self {
            Files::Folder(dir) => Bytes::map(&dir.join(name)),
            Files::Embedded(files) => match files.iter().find(|f| f.name == name) {
                Some(f) => Ok(Bytes::Static(f.bytes)),
                None => Err(Error::new("no such file").at(self.label(name))),
            },
        }
    }

    /// A text file, or `None` where there is none.
    pub fn text(&self, name: &str) -> Result<Option<String>> {
        if !self.has(name) {
            return Ok(None);
        }
        let bytes = self.bytes(name)?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(Some(text.to_string())),
            Err(e) => Err(Error::new(format!("not UTF-8: {e}")).at(self.label(name))),
        }
    }

    /// A JSON file, or `None` where there is none. Errors name the file, the line and the column.
    pub fn json(&self, name: &str) -> Result<Option<serde_json::Value>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match serde_json::from_str(&text) {
            Ok(value) => Ok(Some(value)),
            Err(e) => Err(Error::new(format!("not valid JSON: {e}")).at(self.label(name))),
        }
    }
}
