//! Weights in NF4 with double quantization, as QLoRA and bitsandbytes store them: 4.13 bits a weight.
//!
//! `kernels/nf4.cu` does the same on CUDA and reads the same arrays. Must not know which weights these are.

use super::quant8::{self, Code, absmax, reciprocal};
use crate::{Error, Result};
use rayon::prelude::*;
use std::ops::Range;

/// Weights that share a scale.
pub const BLOCK: usize = 64;

/// What the 16 codes stand for: quantiles of the normal distribution scaled to -1..=1, 0 among them
/// (Dettmers et al., QLoRA, 2023, appendix E).
pub const VALUES: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// A matrix `[rows, cols]`, flat in row order, in blocks of [`BLOCK`] weights.
#[derive(Debug, Clone)]
pub struct Nf4 {
    pub rows: usize,
    pub cols: usize,
    /// Two codes a byte, the first in the high nibble.
    pub packed: Vec<u8>,
    /// One a block: the code, in the signed dynamic map, of (max|w| − `offset`) / `nested`.
    pub absmax: Vec<u8>,
    /// One per 256 blocks: max of |max|w| − `offset`|.
    pub nested: Vec<f32>,
    /// The mean over all blocks of max|w|.
    pub offset: f32,
}

impl Nf4 {
    /// Quantize `rows · cols` weights. `cols` that is not a multiple of 64, or another number of weights, is an error.
    pub fn quantize(weights: &[f32], rows: usize, cols: usize) -> Result<Self> {
        if cols == 0 || !cols.is_multiple_of(BLOCK) {
            return Err(Error::new(format!("NF4 needs rows of a multiple of {BLOCK} weights, but they have {cols}"))
                .next("load this model without load_in_4bit"));
        }
        check("weights", weights.len(), rows * cols)?;
        let mut packed = vec![0; weights.len() / 2];
        let mut tops = vec![0f32; weights.len() / BLOCK];
        let blocks = weights.par_chunks(BLOCK).zip(packed.par_chunks_mut(BLOCK / 2));
        blocks.zip(&mut tops).for_each(|((w, packed), top)| {
            *top = absmax(w);
            let scale = reciprocal(*top);
            for (byte, w) in packed.iter_mut().zip(w.chunks_exact(2)) {
                *byte = nearest(w[0] * scale) << 4 | nearest(w[1] * scale);
            }
        });
        let sum: f64 = tops.iter().map(|&t| f64::from(t)).sum();
        let offset = (sum / tops.len().max(1) as f64) as f32;
        tops.par_iter_mut().for_each(|t| *t -= offset);
        let code = Code::dynamic(true);
        let mut absmax = vec![0; tops.len()];
        let mut nested = vec![0f32; tops.len().div_ceil(quant8::BLOCK)];
        let groups = tops.par_chunks(quant8::BLOCK).zip(absmax.par_chunks_mut(quant8::BLOCK));
        groups.zip(&mut nested).for_each(|((t, q), top)| *top = code.quantize(t, q));
        Ok(Self { rows, cols, packed, absmax, nested, offset })
    }

    /// The weights of `rows`, flat, into `out`, which holds as many. Rows that are not there and another length of
    /// `out` are errors.
    pub fn dequantize(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        if rows.start > rows.end || rows.end > self.rows {
            return Err(Error::new(format!("rows {rows:?} were asked of an NF4 matrix of {} rows", self.rows)));
        }
        check("outputs", out.len(), rows.len() * self.cols)?;
        check("bytes", self.packed.len(), self.rows * self.cols / 2)?;
        check("scales", self.absmax.len(), self.rows * self.cols / BLOCK)?;
        check("scales of scales", self.nested.len(), self.absmax.len().div_ceil(quant8::BLOCK))?;
        let code = Code::dynamic(true);
        let first = rows.start * self.cols / BLOCK;
        let packed = self.packed.get(first * BLOCK / 2..).unwrap_or_default();
        let absmax = self.absmax.get(first..).unwrap_or_default();
        let blocks = out.par_chunks_mut(BLOCK).zip(packed.par_chunks(BLOCK / 2)).zip(absmax).enumerate();
        blocks.with_min_len(64).for_each(|(i, ((out, packed), &q))| {
            let scale = code.values()[q as usize] * self.nested[(first + i) / quant8::BLOCK] + self.offset;
            let table = VALUES.map(|v| v * scale);
            for (out, byte) in out.chunks_exact_mut(2).zip(packed) {
                out[0] = table[usize::from(byte >> 4)];
                out[1] = table[usize::from(byte & 15)];
            }
        });
        Ok(())
    }
}

/// The code of the nearest value, the lower one on a tie; 0 for NaN.
#[inline]
fn nearest(x: f32) -> u8 {
    VALUES.windows(2).map(|v| u8::from(x > (v[0] + v[1]) / 2.0)).sum()
}

fn check(what: &str, found: usize, expected: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::new(format!("an NF4 matrix has {found} {what}, expected {expected}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::*;

    // The expected numbers are what tests/reference/quant.py prints.

    fn weights(rows: usize, cols: usize) -> Vec<f32> {
        let mut w = numbers(rows * cols, 1);
        w.iter_mut().enumerate().for_each(|(i, w)| *w *= (i / BLOCK % 7 + 1) as f32);
        w[..BLOCK].fill(0.0);
        w
    }

    #[test]
    fn a_matrix_is_stored_and_read_back_as_bitsandbytes_does_to_the_bit() {
        let (rows, cols) = (72, 256);
        let q = Nf4::quantize(&weights(rows, cols), rows, cols).unwrap();
        assert_eq!((digest(&q.packed), digest(&q.absmax)), (0x25cf_d640_c600_d1a3, 0x62eb_94f0_a798_99bd));
        assert_eq!((q.nested.as_slice(), q.offset), ([1.975_890_6, 1.522_593_5].as_slice(), 1.975_890_6));
        let mut out = vec![f32::NAN; rows * cols];
        q.dequantize(0..rows, &mut out).unwrap();
        let bytes: Vec<u8> = out.iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(digest(&bytes), 0x817b_79a5_6677_63f1);
        // Some rows are those rows of the whole.
        let mut some = vec![f32::NAN; 3 * cols];
        q.dequantize(65..68, &mut some).unwrap();
        assert_eq!(some, out[65 * cols..68 * cols]);
    }

    #[test]
    fn a_weight_is_off_by_half_the_widest_gap_at_most() {
        let (rows, cols) = (64, 320);
        let w = weights(rows, cols);
        let q = Nf4::quantize(&w, rows, cols).unwrap();
        let mut out = vec![0.0; w.len()];
        q.dequantize(0..rows, &mut out).unwrap();
        for (w, out) in w.chunks(BLOCK).zip(out.chunks(BLOCK)) {
            // Half the widest gap between codes is 0.152 of a block's absmax, which is itself off by 2 % of the
            // largest deviation at most.
            let bound = 0.153 * absmax(w) + 0.02 * q.nested[0];
            assert!(w.iter().zip(out).all(|(w, out)| (w - out).abs() <= bound));
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        assert!(Nf4::quantize(&[0.0; 96], 1, 96).is_err());
        assert!(Nf4::quantize(&[0.0; 64], 2, 64).is_err());
        let mut q = Nf4::quantize(&[0.5; 128], 2, 64).unwrap();
        assert!(q.dequantize(1..3, &mut [0.0; 128]).is_err());
        assert!(q.dequantize(0..1, &mut [0.0; 65]).is_err());
        q.nested.clear();
        assert!(q.dequantize(0..1, &mut [0.0; 64]).is_err());
    }
}
