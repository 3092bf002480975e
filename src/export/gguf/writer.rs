//! A GGUF file written tensor by tensor, in pieces that all cores make.
//!
//! Must not know what the tensors are.

use super::keys::{Keys, text};
use crate::Result;
use crate::export::pieces::{self, Fill, disk};
use crate::export::quant::Kind;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Every tensor's data begins at a multiple of this (`GGUF_DEFAULT_ALIGNMENT`).
const ALIGNMENT: u64 = 32;
/// A tensor to write. `rows · columns` values, in ggml's order: a row's columns lie together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    pub name: String,
    pub rows: usize,
    pub columns: usize,
    /// 1 for a vector (of one row), 2 for a matrix, 3 for a stack.
    pub dimensions: usize,
    /// Matrices, one after another, that the rows are those of: more than one in a stack of experts.
    pub matrices: usize,
    pub kind: Kind,
}

impl Tensor {
    pub fn bytes(&self) -> usize {
        self.rows * self.kind.bytes(self.columns)
    }
}

/// The header: keys, then each tensor's name, shape, type and place.
pub fn header(keys: &Keys, tensors: &[Tensor]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((keys.len() as u64).to_le_bytes());
    keys.encode(&mut out);
    let mut offset = 0u64;
    for t in tensors {
        text(&t.name, &mut out);
        out.extend((t.dimensions as u32).to_le_bytes());
        out.extend((t.columns as u64).to_le_bytes());
        if t.dimensions > 1 {
            out.extend(((t.rows / t.matrices) as u64).to_le_bytes());
        }
        if t.dimensions > 2 {
            out.extend((t.matrices as u64).to_le_bytes());
        }
        out.extend(t.kind.id().to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset = (offset + t.bytes() as u64).next_multiple_of(ALIGNMENT);
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT as usize), 0);
    out
}

/// Bytes of the whole file.
pub fn size(keys: &Keys, tensors: &[Tensor]) -> u64 {
    let data: u64 = tensors.iter().map(|t| (t.bytes() as u64).next_multiple_of(ALIGNMENT)).sum();
    header(keys, tensors).len() as u64 + data
}

/// Write the file beside `path` and rename it in. `fill(tensor, first row, rows' bytes)` makes whole rows, called from
/// many threads; `done(tensor)` hears of every finished tensor, in order. Returns the file's bytes.
///
/// # Errors
/// What `fill` returns, with the tensor's name; or the disk's. Nothing is left behind then.
pub fn write(path: &Path, keys: &Keys, tensors: &[Tensor], fill: &Fill, done: &mut dyn FnMut(usize)) -> Result<u64> {
    let beside = beside(path);
    let written = File::create(&beside).map_err(|e| disk(e, path)).and_then(|mut file| {
        let bytes = data(&mut file, path, keys, tensors, fill, done)?;
        file.sync_all().and_then(|()| std::fs::rename(&beside, path)).map_err(|e| disk(e, path))?;
        Ok(bytes)
    });
    if written.is_err() {
        // The error that matters is the first one.
        let _ = std::fs::remove_file(&beside);
    }
    written
}

fn data(
    file: &mut File,
    path: &Path,
    keys: &Keys,
    tensors: &[Tensor],
    fill: &Fill,
    done: &mut dyn FnMut(usize),
) -> Result<u64> {
    let head = header(keys, tensors);
    file.write_all(&head).map_err(|e| disk(e, path))?;
    let mut total = head.len() as u64;
    for (index, t) in tensors.iter().enumerate() {
        let shape = (t.rows, t.columns, t.kind.bytes(t.columns));
        pieces::write(file, path, shape, &|first, out| fill(index, first, out)).map_err(|e| e.at(&t.name))?;
        let padding = t.bytes().next_multiple_of(ALIGNMENT as usize) - t.bytes();
        file.write_all(&[0; ALIGNMENT as usize][..padding]).map_err(|e| disk(e, path))?;
        total += (t.bytes() + padding) as u64;
        done(index);
    }
    Ok(total)
}

fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".{name}.{}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use candle_core::quantized::gguf_file::Content;

    fn tensors() -> Vec<Tensor> {
        let t = |name: &str, rows, columns, dimensions, kind| {
            let matrices = if dimensions == 3 { 2 } else { 1 };
            Tensor { name: name.into(), rows, columns, dimensions, matrices, kind }
        };
        vec![
            t("norm", 1, 5, 1, Kind::F32),
            t("a", 3, 64, 2, Kind::Q8_0),
            t("b", 2, 3, 2, Kind::F16),
            t("c", 6, 32, 3, Kind::F32),
        ]
    }

    #[test]
    fn another_reader_finds_every_tensor_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.gguf");
        let mut keys = Keys::default();
        keys.text("general.architecture", "llama");
        let mut names = Vec::new();
        let bytes = write(
            &path,
            &keys,
            &tensors(),
            &|tensor, first, out| {
                let row = tensors()[tensor].kind.bytes(tensors()[tensor].columns);
                for (n, out) in out.chunks_exact_mut(row).enumerate() {
                    out.fill((tensor * 16 + first + n) as u8);
                }
                Ok(())
            },
            &mut |t| names.push(t),
        )
        .unwrap();
        assert_eq!((bytes, names), (std::fs::metadata(&path).unwrap().len(), vec![0, 1, 2, 3]));
        assert_eq!(bytes, size(&keys, &tensors()));
        let file = std::fs::read(&path).unwrap();
        let content = Content::read(&mut std::io::Cursor::new(&file)).unwrap();
        assert_eq!(content.tensor_data_offset % 32, 0);
        let a = &content.tensor_infos["a"];
        assert_eq!(a.shape.dims(), [3, 64]);
        let start = (content.tensor_data_offset + a.offset) as usize;
        assert_eq!(file[start..start + 3 * 68], [[16u8; 68].as_slice(), &[17; 68], &[18; 68]].concat()[..]);
        assert_eq!(content.tensor_infos["norm"].shape.dims(), [5]);
        assert_eq!(content.tensor_infos["c"].shape.dims(), [2, 3, 32]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_fails_leaves_nothing_and_names_the_tensor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.gguf");
        let fill = |tensor: usize, _: usize, _: &mut [u8]| match tensor {
            1 => Err(Error::new("no")),
            _ => Ok(()),
        };
        let error = write(&path, &Keys::default(), &tensors(), &fill, &mut |_| {}).unwrap_err();
        assert_eq!(error.to_string(), "a: no");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
