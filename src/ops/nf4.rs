//! Weights in NF4 with double quantization, as QLoRA and bitsandbytes store them: 4.13 bits a weight.
//!
//! `kernels/nf4.cu` does the same on CUDA and reads the same arrays. Must not know which weights these are.

use super::lent::Lent;
use super::quant8::{self, Code, absmax, reciprocal};
use super::simd::vectorized;
use crate::{Error, Result};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::OnceLock;

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

/// A matrix `[rows, cols]`, flat in row order, in blocks of weights that share a scale.
#[derive(Debug, Clone)]
pub struct Nf4 {
    rows: usize,
    cols: usize,
    /// Weights of a block.
    block: usize,
    /// Two codes a byte, the first in the high nibble.
    packed: Lent,
    scales: Scales,
}

/// The largest magnitude of each block: the scale that its values are multiplied by.
#[derive(Debug, Clone)]
pub enum Scales {
    /// f32, one a block.
    Plain(Vec<f32>),
    /// Double quantization.
    Nested {
        /// One a block: the code, in the signed dynamic map, of (max|w| − `offset`) / `nested`.
        absmax: Vec<u8>,
        /// One per 256 blocks: max of |max|w| − `offset`|.
        nested: Vec<f32>,
        /// The mean over all blocks of max|w|.
        offset: f32,
    },
}

impl Scales {
    fn len(&self) -> usize {
        match self {
            Scales::Plain(scales) => scales.len(),
            Scales::Nested { absmax, .. } => absmax.len(),
        }
    }

    fn at(&self, block: usize) -> f32 {
        match self {
            Scales::Plain(scales) => scales[block],
            Scales::Nested { absmax, nested, offset } => {
                code().values()[usize::from(absmax[block])] * nested[block / quant8::BLOCK] + offset
            }
        }
    }
}

/// The map of doubly quantized scales.
fn code() -> &'static Code {
    static CODE: OnceLock<Code> = OnceLock::new();
    CODE.get_or_init(|| Code::dynamic(true))
}

/// Writes rows in f32 into a slice that holds as many.
pub type Read<'a> = dyn FnMut(Range<usize>, &mut [f32]) -> Result<()> + 'a;

/// Rows that [`Nf4::quantize_rows`] asks for at a time: whole blocks, whatever the width.
const PIECE: usize = 4 * BLOCK;

impl Nf4 {
    /// Quantize `rows · cols` weights. Another number of weights is an error.
    pub fn quantize(weights: &[f32], rows: usize, cols: usize) -> Result<Self> {
        check("weights", weights.len(), rows * cols)?;
        Self::quantize_rows(rows, cols, &mut |rows, out| {
            out.copy_from_slice(&weights[rows.start * cols..rows.end * cols]);
            Ok(())
        })
    }

    /// Quantize a matrix whose rows `read` writes in f32 into the slice it is given, some at a time: it need not exist whole.
    pub fn quantize_rows(rows: usize, cols: usize, read: &mut Read) -> Result<Self> {
        let (packed, scales) = first_level(rows, cols, read)?;
        Self::of(rows, cols, BLOCK, packed.into(), nest(scales))
    }

    /// A matrix that was quantized elsewhere, in blocks of `block` weights.
    ///
    /// # Errors
    /// Parts whose sizes do not fit.
    pub fn of(rows: usize, cols: usize, block: usize, packed: Lent, scales: Scales) -> Result<Self> {
        let count = rows * cols;
        if count == 0 || block == 0 || !block.is_multiple_of(2) {
            return Err(Error::new(format!("{rows} × {cols} weights in blocks of {block} are no NF4 matrix")));
        }
        check("bytes", packed.len(), count.div_ceil(2))?;
        check("scales", scales.len(), count.div_ceil(block))?;
        if let Scales::Nested { nested, .. } = &scales {
            check("scales of scales", nested.len(), scales.len().div_ceil(quant8::BLOCK))?;
        }
        Ok(Self { rows, cols, block, packed, scales })
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Two codes a byte, flat in row order.
    pub fn packed(&self) -> &[u8] {
        &self.packed
    }

    pub fn scales(&self) -> &Scales {
        &self.scales
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> u64 {
        let scales = match &self.scales {
            Scales::Plain(scales) => 4 * scales.len(),
            Scales::Nested { absmax, nested, .. } => absmax.len() + 4 * nested.len(),
        };
        (self.packed.len() + scales) as u64
    }

    /// The weights of row `row`, which there is, into `out`, which holds `cols` numbers; on this thread.
    pub fn row(&self, row: usize, mut out: &mut [f32]) {
        let mut at = row * self.cols;
        while !out.is_empty() {
            let (now, rest) = out.split_at_mut((self.block - at % self.block).min(out.len()));
            let end = at + now.len();
            widen(&self.packed[at / 2..end.div_ceil(2)], at % 2 == 1, self.scales.at(at / self.block), now);
            (at, out) = (end, rest);
        }
    }

    /// The weights of `rows`, flat, into `out`, which holds as many. Rows that are not there and another length of
    /// `out` are errors.
    pub fn dequantize(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        if rows.start > rows.end || rows.end > self.rows {
            return Err(Error::new(format!("rows {rows:?} were asked of an NF4 matrix of {} rows", self.rows)));
        }
        check("outputs", out.len(), rows.len() * self.cols)?;
        out.par_chunks_mut(self.cols).enumerate().for_each(|(i, out)| self.row(rows.start + i, out));
        Ok(())
    }
}

/// Codes, and the largest magnitude of each block.
fn first_level(rows: usize, cols: usize, read: &mut Read) -> Result<(Vec<u8>, Vec<f32>)> {
    let count = rows * cols;
    let mut packed = vec![0; count.div_ceil(2)];
    let mut tops = vec![0f32; count.div_ceil(BLOCK)];
    let mut piece = vec![0f32; PIECE.min(rows) * cols];
    for start in (0..rows).step_by(PIECE) {
        let these = start..(start + PIECE).min(rows);
        let weights = &mut piece[..these.len() * cols];
        read(these, weights)?;
        let first = start * cols;
        let blocks = weights.par_chunks(BLOCK).zip(packed[first / 2..].par_chunks_mut(BLOCK / 2));
        blocks.zip(&mut tops[first / BLOCK..]).for_each(|((w, packed), top)| {
            *top = absmax(w);
            let scale = reciprocal(*top);
            for (byte, w) in packed.iter_mut().zip(w.chunks(2)) {
                let second = w.get(1).map_or(0.0, |w| w * scale);
                *byte = nearest(w[0] * scale) << 4 | nearest(second);
            }
        });
    }
    Ok((packed, tops))
}

/// Double quantization of the blocks' largest magnitudes.
fn nest(mut tops: Vec<f32>) -> Scales {
    let offset = sum(&tops) / tops.len().max(1) as f32;
    tops.par_iter_mut().for_each(|t| *t -= offset);
    let mut absmax = vec![0; tops.len()];
    let mut nested = vec![0f32; tops.len().div_ceil(quant8::BLOCK)];
    let groups = tops.par_chunks(quant8::BLOCK).zip(absmax.par_chunks_mut(quant8::BLOCK));
    groups.zip(&mut nested).for_each(|((t, q), top)| *top = code().quantize(t, q));
    Scales::Nested { absmax, nested, offset }
}

/// Lanes of a vector, and vectors side by side, in [`sum`].
const LANES: usize = 8;
const SIDE: usize = 4;

/// A sum in f32 in the order in which torch takes it on a processor with AVX2 (`cascade_sum` in ATen's SumKernel.cpp, one
/// thread): its mean is bitsandbytes' offset, and the mean rounded once would be a few units off it.
fn sum(values: &[f32]) -> f32 {
    let (vectors, rest) = values.as_chunks::<LANES>();
    let (rows, left) = vectors.as_chunks::<SIDE>();
    let mut sums = cascade(rows);
    let add = |to: &mut [f32; LANES], v: &[f32; LANES]| to.iter_mut().zip(v).for_each(|(t, v)| *t += v);
    let [first, others @ ..] = &mut sums;
    left.iter().for_each(|v| add(first, v));
    others.iter().for_each(|v| add(first, v));
    let rest = rest.iter().fold(0.0, |sum, v| sum + v);
    first.iter().fold(rest, |sum, v| sum + v)
}

/// The sum of `rows`, each place for itself: partial sums of a power of two of rows are added up level by level.
fn cascade(rows: &[[[f32; LANES]; SIDE]]) -> [[f32; LANES]; SIDE] {
    const LEVELS: usize = 4;
    let power = (rows.len().next_power_of_two().trailing_zeros() / LEVELS as u32).max(4);
    let step = 1 << power;
    let add = |to: &mut [[f32; LANES]; SIDE], from: &[[f32; LANES]; SIDE]| {
        to.as_flattened_mut().iter_mut().zip(from.as_flattened()).for_each(|(t, v)| *t += v);
    };
    let mut levels = [[[0f32; LANES]; SIDE]; LEVELS];
    let (whole, left) = rows.split_at(rows.len() / step * step);
    for (i, rows) in whole.chunks_exact(step).enumerate() {
        rows.iter().for_each(|row| add(&mut levels[0], row));
        let done = (i + 1) * step;
        for level in 1..LEVELS {
            let below = std::mem::take(&mut levels[level - 1]);
            add(&mut levels[level], &below);
            if done & ((step - 1) << (level as u32 * power)) != 0 {
                break;
            }
        }
    }
    left.iter().for_each(|row| add(&mut levels[0], row));
    let [mut all, upper @ ..] = levels;
    upper.iter().for_each(|level| add(&mut all, level));
    all
}

/// What the two codes of a byte stand for.
const PAIRS: [[f32; 2]; 256] = {
    let mut pairs = [[0.0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [VALUES[byte >> 4], VALUES[byte & 15]];
        byte += 1;
    }
    pairs
};

vectorized! {
    /// Codes of one block to weights, from the low nibble of the first byte where `odd`.
    fn widen(codes: &[u8], odd: bool, scale: f32, out: &mut [f32]) {
        let (mut codes, mut out) = (codes, out);
        if odd {
            let (Some((byte, rest)), Some((first, others))) = (codes.split_first(), out.split_first_mut()) else { return };
            *first = PAIRS[usize::from(*byte)][1] * scale;
            (codes, out) = (rest, others);
        }
        let (pairs, last) = out.as_chunks_mut::<2>();
        for (out, byte) in pairs.iter_mut().zip(codes) {
            let [a, b] = PAIRS[usize::from(*byte)];
            *out = [a * scale, b * scale];
        }
        if let ([last], Some(byte)) = (last, codes.last()) {
            *last = PAIRS[usize::from(*byte)][0] * scale;
        }
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
        let Scales::Nested { absmax, nested, offset } = q.scales() else { panic!("plain scales") };
        assert_eq!((digest(q.packed()), digest(absmax)), (0x25cf_d640_c600_d1a3, 0x62eb_94f0_a798_99bd));
        assert_eq!((nested.as_slice(), *offset), ([1.975_890_6, 1.522_593_5].as_slice(), 1.975_890_6));
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
    fn matrices_of_any_shape_have_the_codes_scales_and_offset_of_bitsandbytes() {
        // tests/reference/bnb.py
        let text = include_str!("../../tests/fixtures/nf4.json");
        let reference: serde_json::Value = serde_json::from_str(text).unwrap();
        let shapes = reference["shapes"].as_array().unwrap();
        assert!(shapes.len() > 4);
        for shape in shapes {
            let [rows, cols] = ["rows", "cols"].map(|key| shape[key].as_u64().unwrap() as usize);
            let w: Vec<f32> = numbers(rows * cols, 7).iter().map(|w| w * w * w).collect();
            let read = &mut |rows: Range<usize>, out: &mut [f32]| {
                out.copy_from_slice(&w[rows.start * cols..rows.end * cols]);
                Ok(())
            };
            let (codes, tops) = first_level(rows, cols, read).unwrap();
            assert_eq!(format!("{:016x}", digest(&codes)), shape["codes"].as_str().unwrap(), "{shape}");
            let bytes: Vec<u8> = tops.iter().flat_map(|t| t.to_le_bytes()).collect();
            assert_eq!(format!("{:016x}", digest(&bytes)), shape["absmax"].as_str().unwrap(), "{shape}");
            let Scales::Nested { offset, .. } = nest(tops) else { panic!("plain scales") };
            let theirs = shape["offset"].as_f64().unwrap() as f32;
            assert!(offset.to_bits().abs_diff(theirs.to_bits()) <= 1, "{offset} for {theirs}");
        }
    }

    #[test]
    fn a_weight_is_off_by_half_the_widest_gap_at_most() {
        let (rows, cols) = (64, 320);
        let w = weights(rows, cols);
        let q = Nf4::quantize(&w, rows, cols).unwrap();
        let mut out = vec![0.0; w.len()];
        q.dequantize(0..rows, &mut out).unwrap();
        let Scales::Nested { nested, .. } = q.scales() else { panic!("plain scales") };
        for (w, out) in w.chunks(BLOCK).zip(out.chunks(BLOCK)) {
            // Half the widest gap between codes is 0.152 of a block's absmax, which is itself off by 2 % of the
            // largest deviation at most.
            let bound = 0.153 * absmax(w) + 0.02 * nested[0];
            assert!(w.iter().zip(out).all(|(w, out)| (w - out).abs() <= bound));
        }
    }

    #[test]
    fn rows_that_are_no_whole_blocks_run_on_into_the_next_as_in_bitsandbytes() {
        let (rows, cols) = (71, 37);
        let w = numbers(rows * cols, 3);
        let q = Nf4::quantize(&w, rows, cols).unwrap();
        // The same numbers as one long row, which has whole blocks but for its end.
        let flat = Nf4::quantize(&w, 1, rows * cols).unwrap();
        let (mut whole, mut row) = (vec![f32::NAN; w.len()], vec![f32::NAN; cols]);
        flat.dequantize(0..1, &mut whole).unwrap();
        for (i, want) in whole.chunks(cols).enumerate() {
            q.row(i, &mut row);
            assert_eq!(row, want, "row {i}");
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        assert!(Nf4::quantize(&[0.0; 64], 2, 64).is_err());
        let q = Nf4::quantize(&[0.5; 128], 2, 64).unwrap();
        assert!(q.dequantize(1..3, &mut [0.0; 128]).is_err());
        assert!(q.dequantize(0..1, &mut [0.0; 65]).is_err());
        let of = |bytes, scales| Nf4::of(2, 64, BLOCK, vec![0; bytes].into(), scales);
        assert!(of(64, Scales::Plain(vec![1.0; 2])).is_ok());
        assert!(of(63, Scales::Plain(vec![1.0; 2])).is_err() && of(64, Scales::Plain(vec![1.0])).is_err());
        assert!(of(64, Scales::Nested { absmax: vec![0; 2], nested: vec![], offset: 0.0 }).is_err());
        assert!(Nf4::quantize(&[], 0, 64).is_err());
    }
}
