//! Models as llama.cpp stores them: one `.gguf` file with configuration, vocabulary and (quantized) weights.
//!
//! Weights come out under Hugging Face names, in Hugging Face layout, in f32 or as they are stored. Must not know how a tokenizer works.

mod metadata;
mod names;

pub use metadata::{Metadata, whole};
pub use names::{architecture, expert, gguf_name, is_interleaved, offset};

use crate::model::config::{Config, Hold, Llama3, RopeScaling, Weights};
use crate::model::convert::dequantize;
use crate::model::families;
use crate::model::families::gguf::Gguf;
pub use crate::model::families::gguf::{LONG, SHORT};
use crate::model::files::Bytes;
use crate::model::held;
use crate::ops::lent::Lent;
use crate::ops::matrix::Matrix;
use crate::ops::packed::Packed;
use crate::{Error, Result};
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A `.gguf` file, its header read: a model, or only a vocabulary.
pub struct GgufFile {
    pub path: PathBuf,
    bytes: Arc<Bytes>,
    content: Content,
}

impl GgufFile {
    /// Map the file and read its header (versions 1 to 3).
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = Arc::new(Bytes::map(path)?);
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

    /// All weights in f32: [`Self::held`] with [`Hold::Full`].
    pub fn weights(&self) -> Result<Weights> {
        self.held(Hold::Full)
    }

    /// All weights, held as `hold` says, read in parallel; packed matrices lend their bytes from the mapped file. q and k
    /// rows come in Hugging Face's order. Errors name the file and the tensor, and the expected and found shapes.
    pub fn held(&self, hold: Hold) -> Result<Weights> {
        let wanted = self.config.tensor_shapes();
        let named: Vec<(String, &String, &Vec<usize>)> =
            wanted.iter().map(|(name, shape)| (gguf_name(&self.config, name), name, shape)).collect();
        self.refuse_unknown(&named)?;
        let read = named
            .par_iter()
            .map(|(stored, name, shape)| {
                let place = || format!("{}: {stored}", self.file.path.display());
                let read = match shape.as_slice() {
                    &[rows, cols] => self.matrix(stored, name, rows, cols).and_then(|m| held::matrix(name, m, hold)),
                    _ => self.vector(stored, name, shape),
                };
                Ok(((*name).clone(), read.map_err(|e| e.at(place()))?))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(held::weights(&self.config, read))
    }

    /// Whether matrices are kept in blocks that share a scale.
    pub fn is_quantized(&self) -> bool {
        let infos = &self.file.content.tensor_infos;
        infos.values().any(|i| i.shape.dims().len() > 1 && i.ggml_dtype.block_size() > 1)
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        let infos = self.file.content.tensor_infos.values();
        infos.map(|i| (i.shape.elem_count() / i.ggml_dtype.block_size() * i.ggml_dtype.type_size()) as u64).sum()
    }

    /// A matrix as it is stored; of a stack of experts', one expert's.
    fn matrix(&self, stored: &str, name: &str, rows: usize, cols: usize) -> Result<Packed> {
        let (content, file) = (&self.file.content, &self.file.bytes);
        let (kind, bytes) = match (expert(name), self.config.traits.experts) {
            (Some((number, _)), Some(experts)) => {
                let (kind, all) = self::stored(content, file, stored, &[experts.count, rows, cols])?;
                let size = all.len() / experts.count;
                let own = all.get(number * size..(number + 1) * size);
                (kind, own.ok_or_else(|| Error::new(format!("there is no expert {number}")))?)
            }
            _ => self::stored(content, file, stored, &[rows, cols])?,
        };
        let start = bytes.as_ptr() as usize - file.as_ptr() as usize;
        let lent = Lent::of(file.clone(), start..start + bytes.len());
        let matrix = Packed::blocks(kind, rows, cols, lent.ok_or_else(|| Error::new("the file ends too early"))?)?;
        match is_interleaved(&self.config, name) {
            true => matrix.straightened(self.config.head_dim),
            false => Ok(matrix),
        }
    }

    /// A norm's weights or a bias, f32.
    fn vector(&self, stored: &str, name: &str, shape: &[usize]) -> Result<Matrix> {
        let mut values = tensor_values(&self.file.content, &self.file.bytes, stored, shape)?;
        let offset = offset(&self.config, name);
        if offset != 0.0 {
            values.iter_mut().for_each(|v| *v -= offset);
        }
        let vector = Tensor::from_vec(values, shape, &Device::Cpu)?;
        if !is_interleaved(&self.config, name) {
            return Ok(Matrix::Dense(vector));
        }
        // The bias of a matrix whose rows are interleaved.
        let rows = Packed::floats(&vector.reshape(((), 1))?)?.straightened(self.config.head_dim)?;
        Ok(Matrix::Dense(rows.to_tensor()?.reshape(shape)?))
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

#[cfg(test)]
mod tests {
    use super::*;

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
