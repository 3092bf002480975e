//! What an export says as it goes: one JSON object a line in `export.jsonl` beside what it writes, so that any viewer
//! can follow it, and come back to it later.

use crate::export::proof::Stage;
use crate::run::files::failed;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// In the export's folder.
pub const FILE: &str = "export.jsonl";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Word {
    /// What is exported, and all that will be written: `q4_k_m`, `lora`, `merged`.
    Began {
        title: String,
        name: String,
        pid: u32,
        kinds: Vec<String>,
    },
    Note {
        text: String,
    },
    /// What a file will hold: `210 Q4_K, 61 F32`.
    Planned {
        kind: String,
        words: String,
        bytes: u64,
    },
    Writing {
        kind: String,
        done: u64,
        total: u64,
    },
    Written {
        kind: String,
        path: PathBuf,
        bytes: u64,
        seconds: f64,
    },
    /// Which file is being proven, and what about it.
    Proving {
        file: String,
        what: String,
    },
    Proven {
        stage: Box<Stage>,
    },
    /// The end. `passed`: what the proof said, where there was one; `first`: the check that failed first; `command`: how
    /// to serve it.
    Ended {
        passed: Option<bool>,
        first: String,
        command: Option<String>,
    },
    Failed {
        why: String,
    },
}

/// Writes words into an export's folder.
pub struct Writer {
    file: File,
    path: PathBuf,
}

impl Writer {
    /// Begins anew: an earlier export into the same folder is history.
    pub fn create(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let file = File::create(&path).map_err(failed("write what the export does", &path))?;
        Ok(Self { file, path })
    }

    /// After what was said already.
    pub fn append(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let file = File::options().append(true).open(&path).map_err(failed("write what the export does", &path))?;
        Ok(Self { file, path })
    }

    pub fn write(&mut self, word: &Word) -> Result<()> {
        let mut line = serde_json::to_vec(word)?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(failed("write what the export does", &self.path))
    }
}

/// All that the export in `dir` has said; empty where there is none. A torn last line is not yet said.
///
/// # Errors
/// When the file cannot be read, or a whole line is no word of ours.
pub fn read(dir: &Path) -> Result<Vec<Word>> {
    let path = dir.join(FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed("read what the export did", &path)(e)),
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let word = |(n, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|e| Error::from(e).at(format!("{} line {}", path.display(), n + 1)))
    };
    whole.lines().enumerate().map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_read_again_but_for_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), []);
        let mut out = Writer::create(dir.path()).unwrap();
        let said = [
            Word::Began { title: "a, step 3".into(), name: "a".into(), pid: 7, kinds: vec!["q8_0".into()] },
            Word::Writing { kind: "q8_0".into(), done: 3, total: 9 },
            Word::Ended { passed: Some(true), first: String::new(), command: None },
        ];
        for word in &said {
            out.write(word).unwrap();
        }
        out.file.write_all(b"{\"type\":\"no").unwrap();
        assert_eq!(read(dir.path()).unwrap(), said);
        out.file.write_all(b"ne\"}\n").unwrap();
        assert!(read(dir.path()).unwrap_err().to_string().contains("export.jsonl line 4"));
    }
}
