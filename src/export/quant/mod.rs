//! Rows of f32 to ggml's storage types, byte for byte as llama.cpp's `quantize_row_*_ref` stores them.
//!
//! The order of every f32 sum is llama.cpp's, and nothing is fused. Speed comes from working on a block's groups side
//! by side: each lane does one group's sums in their own order. Must not know tensors' names, files or threads.

mod floats;
mod legacy;
mod q2_k;
mod q3_k;
mod q4_k;
mod q5_k;
mod q6_k;
mod search;
#[cfg(test)]
mod tests;

use crate::{Error, Result};

/// How a tensor's values are stored. Names and numbers are ggml's (`ggml_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

/// Kind, ggml's number, name, values in a block, bytes of a block (ggml-common.h).
const TABLE: [(Kind, u32, &str, usize, usize); 13] = [
    (Kind::F32, 0, "F32", 1, 4),
    (Kind::F16, 1, "F16", 1, 2),
    (Kind::BF16, 30, "BF16", 1, 2),
    (Kind::Q4_0, 2, "Q4_0", 32, 18),
    (Kind::Q4_1, 3, "Q4_1", 32, 20),
    (Kind::Q5_0, 6, "Q5_0", 32, 22),
    (Kind::Q5_1, 7, "Q5_1", 32, 24),
    (Kind::Q8_0, 8, "Q8_0", 32, 34),
    (Kind::Q2K, 10, "Q2_K", 256, 84),
    (Kind::Q3K, 11, "Q3_K", 256, 110),
    (Kind::Q4K, 12, "Q4_K", 256, 144),
    (Kind::Q5K, 13, "Q5_K", 256, 176),
    (Kind::Q6K, 14, "Q6_K", 256, 210),
];

impl Kind {
    fn row(self) -> &'static (Kind, u32, &'static str, usize, usize) {
        // The table is in the order of the declaration, which a test holds to.
        &TABLE[self as usize]
    }

    /// ggml's number of the type, as a GGUF stores it.
    pub fn id(self) -> u32 {
        self.row().1
    }

    /// The kind with ggml's number.
    pub fn of_id(id: u32) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == id).map(|row| row.0)
    }

    /// As llama.cpp spells it: `Q4_K`.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// Values in a block; a row holds whole blocks.
    pub fn block(self) -> usize {
        self.row().3
    }

    /// Bytes of `values` values, which are whole blocks.
    pub fn bytes(self, values: usize) -> usize {
        values / self.block() * self.row().4
    }

    /// Whether values share a scale.
    pub fn is_quantized(self) -> bool {
        self.block() > 1
    }
}

/// Store `x` (whole blocks) in `out` (`kind.bytes(x.len())` bytes).
///
/// # Errors
/// When sizes do not fit, a value is not a number or infinite, or too large for f16.
pub fn quantize(kind: Kind, x: &[f32], out: &mut [u8]) -> Result<()> {
    if !x.len().is_multiple_of(kind.block()) || out.len() != kind.bytes(x.len()) {
        return Err(Error::new(format!(
            "{} values are no whole {} blocks of {} bytes",
            x.len(),
            kind.name(),
            out.len()
        )));
    }
    if !floats::all_finite(x) {
        return Err(
            Error::new("a value is not a number, or infinite").next("the training diverged, or the file is damaged")
        );
    }
    match kind {
        Kind::F32 => floats::f32(x, out),
        Kind::F16 => return floats::f16(x, out),
        Kind::BF16 => floats::bf16(x, out),
        Kind::Q4_0 => legacy::q4_0(x, out),
        Kind::Q4_1 => legacy::q4_1(x, out),
        Kind::Q5_0 => legacy::q5_0(x, out),
        Kind::Q5_1 => legacy::q5_1(x, out),
        Kind::Q8_0 => legacy::q8_0(x, out),
        Kind::Q2K => q2_k::quantize(x, out),
        Kind::Q3K => q3_k::quantize(x, out),
        Kind::Q4K => q4_k::quantize(x, out),
        Kind::Q5K => q5_k::quantize(x, out),
        Kind::Q6K => q6_k::quantize(x, out),
    }
    Ok(())
}
