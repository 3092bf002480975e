//! Models as llama.cpp stores them: one `.gguf` file with configuration, vocabulary and (quantized) weights.
//!
//! Weights come out under Hugging Face names, in Hugging Face layout, f32. Must not know how a tokenizer works.

mod metadata;
mod names;

pub use metadata::{Metadata, whole};
pub use names::{architecture, expert, gguf_name, is_interleaved, offset};

use crate::model::config::{Config, Llama3, RopeScaling, Weights};
use crate::model::convert::dequantize;
use crate::model::families;
use crate::model::families::gguf::Gguf;
pub use crate::model::families::gguf::{LONG, SHORT};
use crate::model::files::Bytes;
use crate::{Error, Result};
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A `.gguf` file, its header read: a model, or only a vocabulary.
pub struct GgufFile {
    pub path: PathBuf,
    bytes: Bytes,
    content: Content,
}

impl GgufFile {
    /// Map the file and read its header (versions 1 to 3).
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = Bytes::map(path)?;
        let content = read_header(&bytes).map_err(|e| e.at(path.display()))?;
        Ok(Self { path: path.to_path_buf(), bytes, content })
    }

    pub fn metadata(&self) -> Metadata<'_> {
        Metadata::of(&self.content)
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A tensor as it is stored: its type and its bytes. Bounds and shape (rows first) are checked.
    pub fn stored(&self, name: &str, shape: &[usize]) -> Result<(GgmlDType, &[u8])> {
        stored(&self.content, &self.bytes, name, shape).map_err(|e| e.at(format!("{}: {name}", self.path.display())))
    }
}

/// A model in a `.gguf` file, its configuration read.
pub struct GgufModel {
    pub file: GgufFile,
    pub config: Config,
}

impl GgufModel {
    /// Read the file's header and the configuration in it.
    pub fn open(path: &Path) -> Result<Self> {
        let file = GgufFile::open(path)?;
        let config = read_config(&file.content, &file.bytes).map_err(|e| e.at(path.display()))?;
        Ok(Self { file, config })
    }

    /// All weights, dequantized to f32 on the CPU, in parallel. q and k rows are put back into Hugging Face's
    /// order. Errors name the file and the tensor, and the expected and found shapes.
    pub fn weights(&self) -> Result<Weights> {
        let wanted = self.config.tensor_shapes();
        let named: Vec<(String, &String, &Vec<usize>)> =
            wanted.iter().map(|(name, shape)| (gguf_name(&self.config, name), name, shape)).collect();
        self.refuse_unknown(&named)?;
        let tensors = named
            .par_iter()
            .map(|(stored, name, shape)| {
                let place = || format!("{}: {stored}", self.file.path.display());
                let mut values = self.values(stored, name, shape).map_err(|e| e.at(place()))?;
                if is_interleaved(&self.config, name) {
                    values = unpermute(&values, shape[0] / self.config.head_dim, values.len() / shape[0]);
                }
                let offset = offset(&self.config, name);
                if offset != 0.0 {
                    values.iter_mut().for_each(|v| *v -= offset);
                }
                let tensor =
                    Tensor::from_vec(values, shape.as_slice(), &Device::Cpu).map_err(|e| Error::from(e).at(place()))?;
                Ok(((*name).clone(), tensor))
            })
            .collect::<Result<HashMap<String, Tensor>>>()?;
        Ok(Weights { config: self.config.clone(), tensors })
    }

    /// A weight's numbers, in the file's order of rows; of a stack of experts', one expert's.
    fn values(&self, stored: &str, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let (content, bytes) = (&self.file.content, &self.file.bytes);
        let (Some((number, _)), Some(experts)) = (expert(name), self.config.traits.experts) else {
            return tensor_values(content, bytes, stored, shape);
        };
        let (kind, data) = self::stored(content, bytes, stored, &[&[experts.count], shape].concat())?;
        let size = data.len() / experts.count;
        let own = data.get(number * size..(number + 1) * size);
        dequantize(own.ok_or_else(|| Error::new(format!("there is no expert {number}")))?, kind, shape.iter().product())
    }

    /// Refuses tensors that the architecture has no place for.
    pub fn refuse_strangers(&self) -> Result<()> {
        let wanted = self.config.tensor_shapes();
        let named: Vec<_> = wanted.iter().map(|(name, shape)| (gguf_name(&self.config, name), name, shape)).collect();
        self.refuse_unknown(&named)
    }

    fn refuse_unknown(&self, named: &[(String, &String, &Vec<usize>)]) -> Result<()> {
        let known: std::collections::HashSet<&str> = named.iter().map(|(n, ..)| n.as_str()).collect();
        let known = |n: &str| known.contains(n) || [ROPE_FREQS, LONG, SHORT].contains(&n);
        let mut unknown: Vec<&String> = self.file.content.tensor_infos.keys().filter(|n| !known(n)).collect();
        unknown.sort();
        match unknown.first() {
            None => Ok(()),
            Some(name) => Err(Error::new(format!(
                "{} tensors that this {} model has no place for, first {name}",
                unknown.len(),
                self.config.model_type
            ))
            .at(self.file.path.display())
            .next("use the model's Hugging Face folder")),
        }
    }
}

/// The tensor of what Llama 3's rotary frequencies are divided by.
pub const ROPE_FREQS: &str = "rope_freqs.weight";

fn read_header(bytes: &[u8]) -> Result<Content> {
    if !bytes.starts_with(b"GGUF") {
        return Err(Error::new("not a GGUF file").next("name a .gguf file, or a folder with config.json"));
    }
    if zero_alignment(bytes) {
        return Err(Error::new("general.alignment is 0").next("convert the model again"));
    }
    Content::read(&mut std::io::Cursor::new(bytes)).map_err(|e| {
        Error::new(format!("the GGUF header cannot be read: {e}"))
            .next("supported tensor types: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K")
    })
}

/// Whether the file says that tensors are aligned to 0 bytes, which candle 0.11 would divide by. The key is one of
/// the first that writers put down.
fn zero_alignment(bytes: &[u8]) -> bool {
    const KEY: &[u8] = b"general.alignment";
    let head = &bytes[..bytes.len().min(1 << 20)];
    let Some(at) = head.windows(KEY.len()).position(|w| w == KEY) else { return false };
    // After the key: the type, four bytes, then the value, whose first byte is 0 in every type for 0, 256, 512 …
    let value = at + KEY.len() + 4;
    head.get(value..value + 4).is_some_and(|v| v == [0; 4])
}

/// The configuration in the header of a file that is about to be written; `values` gives the numbers of a vector.
pub fn config_of_header(header: &[u8], values: &dyn Fn(&str, usize) -> Result<Vec<f32>>) -> Result<Config> {
    config_of(&read_header(header)?, values)
}

fn read_config(content: &Content, bytes: &[u8]) -> Result<Config> {
    config_of(content, &|name, n| tensor_values(content, bytes, name, &[n]).map_err(|e| e.at(name)))
}

/// The configuration, under llama.cpp's keys (`llama.*`, `tokenizer.ggml.*`).
fn config_of(content: &Content, values: &dyn Fn(&str, usize) -> Result<Vec<f32>>) -> Result<Config> {
    let meta = Metadata::of(content);
    let embeddings = content.tensor_infos.get("token_embd.weight").and_then(|e| e.shape.dims().first());
    let keys = Gguf {
        architecture: meta.text("general.architecture")?.unwrap_or("(none named)"),
        meta,
        vocab_size: embeddings.copied(),
        has: &|name| content.tensor_infos.contains_key(name),
        values,
    };
    let mut config = families::from_gguf(&keys)?;
    if config.rope_scaling.is_none() && content.tensor_infos.contains_key(ROPE_FREQS) {
        let divisors = (keys.values)(ROPE_FREQS, config.head_dim / 2)?;
        config.rope_scaling = llama3_scaling(&divisors, config.head_dim, config.rope_theta)?;
    }
    Ok(config)
}

/// The scaling whose divisors these are. llama.cpp stores what each frequency is divided by, not the
/// parameters it came from; Llama 3.1 to 3.3 differ only in `factor` (8 or 32), which is the largest divisor.
fn llama3_scaling(divisors: &[f32], head_dim: usize, rope_theta: f64) -> Result<Option<RopeScaling>> {
    if divisors.iter().all(|&d| d == 1.0) {
        return Ok(None);
    }
    let factor = f64::from(divisors.iter().copied().fold(1.0, f32::max));
    let scaling =
        Llama3 { factor, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max_position_embeddings: 8192 };
    let expected = scaling.divisors(head_dim, rope_theta);
    let same = expected.iter().zip(divisors).all(|(e, d)| (e - f64::from(*d)).abs() <= 1e-4 * e);
    match same {
        true => Ok(Some(RopeScaling::Llama3(scaling))),
        false => Err(Error::new("rope_freqs.weight is not Llama 3's scaling of the rotary frequencies")
            .next("use the model's Hugging Face folder")),
    }
}

/// One tensor's values as f32, bounds and shape checked.
fn tensor_values(content: &Content, bytes: &[u8], name: &str, shape: &[usize]) -> Result<Vec<f32>> {
    let (kind, data) = stored(content, bytes, name, shape)?;
    dequantize(data, kind, shape.iter().product())
}

/// One tensor's type and bytes, bounds and shape checked.
fn stored<'a>(content: &Content, bytes: &'a [u8], name: &str, shape: &[usize]) -> Result<(GgmlDType, &'a [u8])> {
    let Some(info) = content.tensor_infos.get(name) else {
        return Err(Error::new(format!("tensor is missing, expected {shape:?}")));
    };
    if info.shape.dims() != shape {
        return Err(Error::new(format!("shape {:?}, but the metadata asks for {shape:?}", info.shape.dims())));
    }
    let count: usize = shape.iter().product();
    let (block, size) = (info.ggml_dtype.block_size(), info.ggml_dtype.type_size());
    if !count.is_multiple_of(block) {
        return Err(Error::new(format!("{count} values are no whole {:?} blocks", info.ggml_dtype)));
    }
    let start = content.tensor_data_offset.checked_add(info.offset).and_then(|n| usize::try_from(n).ok());
    let range = start.and_then(|start| Some(start..start.checked_add(count / block * size)?));
    let Some(data) = range.and_then(|r| bytes.get(r)) else {
        return Err(Error::new("the file ends before this tensor does").next("copy or download the file again"));
    };
    Ok((info.ggml_dtype, data))
}

/// Undo llama.cpp's row order of q and k (`permute` in convert_hf_to_gguf.py): inside a head it interleaves the
/// two halves that the rotary embedding pairs, Hugging Face keeps them one after the other.
fn unpermute(values: &[f32], heads: usize, columns: usize) -> Vec<f32> {
    let head_dim = values.len() / columns / heads;
    let mut out = vec![0f32; values.len()];
    for (row, target) in out.chunks_exact_mut(columns).enumerate() {
        let (head, within) = (row / head_dim, row % head_dim);
        let (half, pair) = (within / (head_dim / 2), within % (head_dim / 2));
        let source = (head * head_dim + 2 * pair + half) * columns;
        target.copy_from_slice(&values[source..source + columns]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `convert_hf_to_gguf.py`, `LlamaModel.permute`:
    /// `w.reshape(n_head, 2, w.shape[0] // n_head // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)`
    fn permute(values: &[f32], heads: usize, columns: usize) -> Vec<f32> {
        let half = values.len() / columns / heads / 2;
        let mut out = Vec::new();
        for h in 0..heads {
            for j in 0..half {
                for s in 0..2 {
                    let row = (h * 2 + s) * half + j;
                    out.extend_from_slice(&values[row * columns..(row + 1) * columns]);
                }
            }
        }
        out
    }

    #[test]
    fn the_row_order_of_llama_cpp_is_undone_exactly() {
        let values: Vec<f32> = (0..3 * 8 * 5).map(|i| i as f32).collect();
        let stored = permute(&values, 3, 5);
        assert_ne!(stored, values);
        assert_eq!(unpermute(&stored, 3, 5), values);
    }

    #[test]
    fn llama_3_scaling_is_recovered_from_its_divisors() {
        let truth = Llama3 {
            factor: 32.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        let divisors: Vec<f32> = truth.divisors(64, 500_000.0).iter().map(|&d| d as f32).collect();
        assert_eq!(llama3_scaling(&divisors, 64, 500_000.0).unwrap(), Some(RopeScaling::Llama3(truth)));
        assert_eq!(llama3_scaling(&[1.0; 32], 64, 500_000.0).unwrap(), None);
        let mut other = divisors;
        other[20] *= 1.01;
        assert!(llama3_scaling(&other, 64, 500_000.0).is_err());
    }

    #[test]
    fn a_file_that_is_no_gguf_is_refused_without_a_panic() {
        let dir = tempfile::tempdir().unwrap();
        // One key, general.alignment = 0 (u32).
        let mut zero = b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x11\0\0\0\0\0\0\0general.alignment".to_vec();
        zero.extend([4, 0, 0, 0, 0, 0, 0, 0]);
        let cut = b"GGUF\x03\0\0\0\x05";
        for (name, bytes) in [("empty", &b""[..]), ("text", b"hello"), ("cut", cut), ("unaligned", &zero)] {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let error = GgufModel::open(&path).err().unwrap().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
