//! Q4_K: 8 groups of 32, each with a 6-bit scale and a 6-bit minimum of the super-block's own.
//! Stored: scale · minimum · 6-bit scales and minima in 12 bytes · four bits a value.

use super::floats::{as_half, half_bytes};
use super::search::{Group, SUPER, Search, affine, in_order, nearest, transposed};
use crate::ops::simd::vectorized;

const SEARCH: Search = Search { nmax: 15, rmin: -1.0, rdelta: 0.1, steps: 20, magnitudes: false };

/// A value weighs its magnitude plus its group's root mean square.
#[inline(always)]
fn weights(x: &Group<32, 8>) -> Group<32, 8> {
    let mut squares = [0f32; 8];
    for row in x {
        for l in 0..8 {
            squares[l] += row[l] * row[l];
        }
    }
    let mut weights = *x;
    for row in &mut weights {
        for l in 0..8 {
            row[l] = (squares[l] / 32.0).sqrt() + row[l].abs();
        }
    }
    weights
}

/// 6-bit shares of the greatest of `values`, and the unit they count in.
#[inline(always)]
fn shares(values: &[f32; 8]) -> ([u8; 8], f32) {
    let mut greatest = 0f32;
    for v in values {
        greatest = if *v > greatest { *v } else { greatest };
    }
    let inverse = if greatest > 0.0 { 63.0 / greatest } else { 0.0 };
    let mut out = [0u8; 8];
    for (o, v) in out.iter_mut().zip(values) {
        *o = (nearest(inverse * v) as u8).min(63);
    }
    (out, greatest / 63.0)
}

/// A super-block's head (16 bytes: scale, minimum, packed 6-bit shares), and its levels in order. Q5_K's too.
#[inline(always)]
pub(super) fn with_minima(x: &[f32; SUPER], search: &Search) -> ([u8; 16], [u8; SUPER]) {
    let x = transposed::<32, 8>(x);
    let found = affine(&x, &weights(&x), search);
    let ((scales, d), (mins, dmin)) = (shares(&found.scale), shares(&found.min));
    let mut head = [0u8; 16];
    head[..2].copy_from_slice(&half_bytes(d));
    head[2..4].copy_from_slice(&half_bytes(dmin));
    let (mut ds, mut dms) = ([0f32; 8], [0f32; 8]);
    let packed = &mut head[4..];
    for j in 0..8 {
        if j < 4 {
            packed[j] |= scales[j];
            packed[j + 4] |= mins[j];
        } else {
            packed[j + 4] = (scales[j] & 15) | ((mins[j] & 15) << 4);
            packed[j - 4] |= (scales[j] >> 4) << 6;
            packed[j] |= (mins[j] >> 4) << 6;
        }
        ds[j] = as_half(d) * f32::from(scales[j]);
        dms[j] = as_half(dmin) * f32::from(mins[j]);
    }
    let levels = found.levels(&x, &ds, &dms, search.nmax);
    (head, in_order(&levels))
}

vectorized! {
    pub(super) fn quantize(x: &[f32], out: &mut [u8]) {
        for (x, out) in x.as_chunks::<SUPER>().0.iter().zip(out.as_chunks_mut::<144>().0) {
            let (head, levels) = with_minima(x, &SEARCH);
            out[..16].copy_from_slice(&head);
            for (levels, out) in levels.as_chunks::<64>().0.iter().zip(out[16..].chunks_exact_mut(32)) {
                for (l, o) in out.iter_mut().enumerate() {
                    *o = levels[l] | (levels[l + 32] << 4);
                }
            }
        }
    }
}
