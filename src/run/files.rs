//! Writing so that a reader, or a crash, never meets half a file.

use crate::{Error, Result};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Turns an I/O error into the program's own: what was being done, and to what.
pub fn failed<'a>(doing: &'a str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + 'a {
    move |e| {
        let error = Error::new(format!("cannot {doing}: {}", reason(&e))).at(path.display());
        match e.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => error.next(
                "free some space; `finetop rm RUN` deletes a run, `train.save_total_limit` keeps fewer checkpoints",
            ),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                error.next("check who may write there, or choose another folder with `output_dir` or `--run-dir`")
            }
            _ => error,
        }
    }
}

/// The operating system's words without their error number.
fn reason(e: &io::Error) -> String {
    let text = e.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}

/// Writes `bytes` to a file beside `path`, syncs it, and renames it into place: whoever reads `path`
/// sees the old content or the new, whole.
pub fn write_beside_and_rename(path: &Path, bytes: &[u8]) -> Result<()> {
    let beside = beside(path);
    let write = || -> io::Result<()> {
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|e| {
        // The half-written one is of no use to anybody; the error that matters is the first.
        let _ = fs::remove_file(&beside);
        failed("write", path)(e)
    })?;
    if let Some(parent) = path.parent() {
        sync_folder(parent)?;
    }
    Ok(())
}

fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".tmp-{name}-{}", std::process::id()))
}

/// Bytes free for us on the disk of `path`, or of the nearest folder above it that is there.
pub fn free_space(path: &Path) -> Option<u64> {
    let path = std::path::absolute(path).ok()?;
    let there = path.ancestors().find(|p| p.exists())?;
    let fs = rustix::fs::statvfs(there).ok()?;
    fs.f_bavail.checked_mul(fs.f_frsize)
}

/// Makes a rename or a new name in `folder` survive a power cut.
pub fn sync_folder(folder: &Path) -> Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    match File::open(folder).and_then(|f| f.sync_all()) {
        // Some network file systems refuse to sync a folder; the rename stands all the same.
        Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        other => other.map_err(failed("sync", folder)),
    }
}

/// Syncs every file and folder below `folder`, itself included. Returns the bytes of all files.
pub fn sync_tree(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).map_err(failed("read", folder))? {
        let path = entry.map_err(failed("read", folder))?.path();
        if path.is_dir() {
            bytes += sync_tree(&path)?;
        } else {
            let file = File::open(&path).map_err(failed("open", &path))?;
            file.sync_all().map_err(failed("sync", &path))?;
            bytes += file.metadata().map_err(failed("read", &path))?.len();
        }
    }
    sync_folder(folder)?;
    Ok(bytes)
}

/// Bytes of all files below `folder`; what cannot be read counts as none.
pub fn tree_size(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => tree_size(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

/// The last `bytes` of a file, as text; for logs.
pub fn read_end(path: &Path, bytes: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(bytes);
    file.seek(SeekFrom::Start(start))?;
    let mut end = Vec::new();
    file.read_to_end(&mut end)?;
    Ok(String::from_utf8_lossy(&end).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rewritten_file_is_whole_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("worker.json");
        write_beside_and_rename(&path, b"first").unwrap();
        write_beside_and_rename(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_write_into_a_missing_folder_says_where_and_leaves_out_the_error_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gone").join("x");
        let error = write_beside_and_rename(&path, b"x").unwrap_err();
        assert!(error.to_string().contains("gone/x: cannot write: no such file or directory"), "{error}");
    }
}
