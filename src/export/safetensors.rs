//! Weights written as safetensors in Hugging Face's layout, in shards with an index where they are large.
//!
//! Must not know how a value came about: rows are asked for.

use super::pieces::{self, Fill, disk};
use super::quant::Kind;
use crate::{Error, Result};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// A tensor to write: its name, its shape (`[rows, columns]` or `[values]`).
pub struct Tensor {
    pub name: String,
    pub shape: Vec<usize>,
}

impl Tensor {
    fn rows(&self) -> (usize, usize) {
        match self.shape.as_slice() {
            [rows, columns] => (*rows, *columns),
            other => (1, other.iter().product()),
        }
    }

    fn bytes(&self, kind: Kind) -> u64 {
        let (rows, columns) = self.rows();
        (rows * kind.bytes(columns)) as u64
    }
}

/// safetensors' name of a type.
fn dtype(kind: Kind) -> Result<&'static str> {
    match kind {
        Kind::F32 => Ok("F32"),
        Kind::F16 => Ok("F16"),
        Kind::BF16 => Ok("BF16"),
        other => Err(Error::new(format!("safetensors has no {}", other.name()))),
    }
}

/// Which tensors go into which file: in order, none larger than `most` bytes unless one tensor is.
fn shards(tensors: &[Tensor], kind: Kind, most: u64) -> Vec<std::ops::Range<usize>> {
    let mut out: Vec<std::ops::Range<usize>> = Vec::new();
    let mut held = 0;
    for (i, t) in tensors.iter().enumerate() {
        let bytes = t.bytes(kind);
        match out.last_mut() {
            Some(last) if held + bytes <= most => {
                last.end = i + 1;
                held += bytes;
            }
            _ => {
                out.push(i..i + 1);
                held = bytes;
            }
        }
    }
    out
}

/// Write all tensors as `kind` (F32, F16 or BF16) into `folder`: `model.safetensors`, or shards of at most `most`
/// bytes with `model.safetensors.index.json`. `fill(tensor, first row, bytes)` makes whole rows; `done` hears how
/// many tensors are written. Files are written beside their places; all are renamed in at the end. Returns the bytes.
pub fn write(
    folder: &Path,
    tensors: &[Tensor],
    kind: Kind,
    most: u64,
    fill: &Fill,
    done: &mut dyn FnMut(usize),
) -> Result<u64> {
    let shards = shards(tensors, kind, most);
    let name = |n: usize| match shards.len() {
        1 => "model.safetensors".to_string(),
        all => format!("model-{:05}-of-{all:05}.safetensors", n + 1),
    };
    let beside = |n: usize| folder.join(format!(".{}.{}", name(n), std::process::id()));
    let write_all = |done: &mut dyn FnMut(usize)| -> Result<u64> {
        let mut total = 0;
        for (n, range) in shards.iter().enumerate() {
            let path = beside(n);
            let mut file = File::create(&path).map_err(|e| disk(e, &path))?;
            let head = header(&tensors[range.clone()], kind)?;
            file.write_all(&head).map_err(|e| disk(e, &path))?;
            total += head.len() as u64;
            for i in range.clone() {
                let (rows, columns) = tensors[i].rows();
                let shape = (rows, columns, kind.bytes(columns));
                pieces::write(&mut file, &path, shape, &|first, out| fill(i, first, out))
                    .map_err(|e| e.at(&tensors[i].name))?;
                total += tensors[i].bytes(kind);
                done(i + 1);
            }
            file.sync_all().map_err(|e| disk(e, &path))?;
        }
        for n in 0..shards.len() {
            std::fs::rename(beside(n), folder.join(name(n))).map_err(|e| disk(e, folder))?;
        }
        Ok(total)
    };
    let written = write_all(done);
    if written.is_err() {
        // The error that matters is the first one.
        (0..shards.len()).for_each(|n| drop(std::fs::remove_file(beside(n))));
    }
    let total = written?;
    if shards.len() > 1 {
        let mut map = Map::new();
        for (n, range) in shards.iter().enumerate() {
            map.extend(tensors[range.clone()].iter().map(|t| (t.name.clone(), json!(name(n)))));
        }
        let size: u64 = tensors.iter().map(|t| t.bytes(kind)).sum();
        let index = json!({"metadata": {"total_size": size}, "weight_map": map});
        let path = folder.join("model.safetensors.index.json");
        std::fs::write(&path, serde_json::to_vec_pretty(&index)?).map_err(|e| disk(e, &path))?;
    }
    Ok(total)
}

fn header(tensors: &[Tensor], kind: Kind) -> Result<Vec<u8>> {
    let mut map = Map::new();
    // `format` is how transformers tells a PyTorch file from others.
    map.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut at = 0u64;
    for t in tensors {
        let end = at + t.bytes(kind);
        map.insert(t.name.clone(), json!({"dtype": dtype(kind)?, "shape": t.shape, "data_offsets": [at, end]}));
        at = end;
    }
    let mut text = serde_json::to_vec(&Value::Object(map))?;
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut out = (text.len() as u64).to_le_bytes().to_vec();
    out.extend(text);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::safetensors::SafeTensors;

    #[test]
    fn large_weights_are_cut_into_shards_that_the_index_names() {
        let dir = tempfile::tempdir().unwrap();
        let t = |name: &str, shape: &[usize]| Tensor { name: name.into(), shape: shape.to_vec() };
        let tensors = [t("a", &[3, 2]), t("b", &[4]), t("c", &[5, 2])];
        let fill = |i: usize, first: usize, out: &mut [u8]| {
            out.fill((i * 16 + first) as u8);
            Ok(())
        };
        // 24 and 16 bytes go together, 40 stands alone.
        write(dir.path(), &tensors, Kind::F32, 40, &fill, &mut |_| {}).unwrap();
        let index: Value =
            serde_json::from_slice(&std::fs::read(dir.path().join("model.safetensors.index.json")).unwrap()).unwrap();
        assert_eq!(index["metadata"]["total_size"], 80);
        assert_eq!(index["weight_map"]["b"], "model-00001-of-00002.safetensors");
        let bytes = std::fs::read(dir.path().join("model-00002-of-00002.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.tensor("c").unwrap().shape(), [5, 2]);
        assert_eq!(file.tensor("c").unwrap().data(), [32; 40]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
        let error = write(dir.path(), &tensors, Kind::Q8_0, 40, &fill, &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("no Q8_0"), "{error}");
    }

    #[test]
    fn a_failure_leaves_no_half_written_file() {
        let dir = tempfile::tempdir().unwrap();
        let tensors = [Tensor { name: "a".into(), shape: vec![2, 2] }];
        let fill = |_: usize, _: usize, _: &mut [u8]| Err(Error::new("no"));
        let error = write(dir.path(), &tensors, Kind::BF16, 1 << 30, &fill, &mut |_| {}).unwrap_err();
        assert_eq!(error.to_string(), "a: no");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
