//! Stored bytes to f32, in parallel. Must not know names or files.

use candle_core::quantized::GgmlDType;
use candle_core::quantized::ggml_file::qtensor_from_ggml;
use candle_core::{CpuStorage, Device};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use crate::{Error, Result};

/// A float format weights are stored in, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Float {
    F32,
    F16,
    BF16,
}

impl Float {
    /// Bytes a value.
    pub fn size(self) -> usize {
        match self {
            Float::F32 => 4,
            Float::F16 | Float::BF16 => 2,
        }
    }
}

/// Values a task; big enough that scheduling costs nothing.
const CHUNK: usize = 1 << 16;

/// Widen stored floats to f32 (exact for all three formats). `bytes` holds whole values.
pub fn floats(bytes: &[u8], kind: Float) -> Vec<f32> {
    let mut out = vec![0f32; bytes.len() / kind.size()];
    out.par_chunks_mut(CHUNK)
        .zip(bytes.par_chunks(CHUNK * kind.size()))
        .for_each(|(out, bytes)| widen(bytes, kind, out));
    out
}

/// As [`floats`], on this thread, into `out` (as many values as `bytes` holds).
pub fn widen(bytes: &[u8], kind: Float, out: &mut [f32]) {
    match kind {
        Float::F32 => {
            for (o, b) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *o = f32::from_le_bytes(*b);
            }
        }
        Float::F16 => {
            let mut halves = [f16::ZERO; 256];
            for (out, bytes) in out.chunks_mut(halves.len()).zip(bytes.chunks(2 * halves.len())) {
                for (h, b) in halves.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *h = f16::from_le_bytes(*b);
                }
                halves[..out.len()].convert_to_f32_slice(out);
            }
        }
        Float::BF16 => {
            for (o, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *o = bf16::from_le_bytes(*b).to_f32();
            }
        }
    }
}

/// Dequantize `count` values of a GGUF tensor to f32. `bytes` must hold exactly these values.
///
/// Blocks are independent, so any split at a block gives the same numbers.
pub fn dequantize(bytes: &[u8], kind: GgmlDType, count: usize) -> Result<Vec<f32>> {
    match kind {
        GgmlDType::F32 => return Ok(floats(bytes, Float::F32)),
        GgmlDType::F16 => return Ok(floats(bytes, Float::F16)),
        GgmlDType::BF16 => return Ok(floats(bytes, Float::BF16)),
        _ => {}
    }
    let (block, size) = (kind.block_size(), kind.type_size());
    if !count.is_multiple_of(block) || bytes.len() != count / block * size {
        return Err(Error::new(format!("{count} values in {} bytes are no whole {kind:?} blocks", bytes.len())));
    }
    let blocks = (CHUNK / block).max(1);
    let mut out = vec![0f32; count];
    out.par_chunks_mut(blocks * block).zip(bytes.par_chunks(blocks * size)).try_for_each(|(out, bytes)| {
        // candle reads blocks of 16-bit fields in place, so they must lie at an even address.
        let copy: Vec<u8>;
        let aligned = if (bytes.as_ptr() as usize).is_multiple_of(4) {
            bytes
        } else {
            copy = bytes.to_vec();
            &copy
        };
        let tensor = qtensor_from_ggml(kind, aligned, vec![out.len()], &Device::Cpu)?.dequantize(&Device::Cpu)?;
        let (storage, _) = tensor.storage_and_layout();
        match &*storage {
            candle_core::Storage::Cpu(CpuStorage::F32(values)) if values.len() == out.len() => {
                out.copy_from_slice(values);
                Ok(())
            }
            _ => Err(Error::new(format!("{kind:?} was not dequantized to f32"))),
        }
    })?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_and_bfloats_widen_exactly_across_chunks() {
        let n = CHUNK + 3;
        let values: Vec<f32> = (0..n).map(|i| (i % 251) as f32 - 125.0).collect();
        let halves: Vec<u8> = values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
        let bfloats: Vec<u8> = values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect();
        let singles: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(floats(&halves, Float::F16), values);
        assert_eq!(floats(&bfloats, Float::BF16), values);
        assert_eq!(floats(&singles, Float::F32), values);
    }

    #[test]
    fn a_split_tensor_dequantizes_as_a_whole_one() {
        let n = 32 * 5000;
        let values: Vec<f32> = (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) / 17.0).collect();
        let source = candle_core::Tensor::from_vec(values, n, &Device::Cpu).unwrap();
        let whole = candle_core::quantized::QTensor::quantize(&source, GgmlDType::Q4_1).unwrap();
        let expected = whole.dequantize(&Device::Cpu).unwrap().to_vec1::<f32>().unwrap();
        let bytes = whole.data().unwrap();
        assert_eq!(dequantize(&bytes, GgmlDType::Q4_1, n).unwrap(), expected);
        // The same bytes at an odd address.
        let mut shifted = vec![0u8];
        shifted.extend_from_slice(&bytes);
        assert_eq!(dequantize(&shifted[1..], GgmlDType::Q4_1, n).unwrap(), expected);
        assert!(dequantize(&bytes[1..], GgmlDType::Q4_1, n).is_err());
    }
}
