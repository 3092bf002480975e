//! Q2_K: 16 groups of 16, each with a 4-bit scale and a 4-bit minimum of the super-block's own.
//! Stored: scales (low nibble) and minima (high) · two bits a value · scale · minimum.

use super::floats::{as_half, half_bytes};
use super::search::{SUPER, Search, affine, in_order, nearest, pairs_of_bits, transposed};
use crate::ops::simd::vectorized;

const SEARCH: Search = Search { nmax: 3, rmin: -0.5, rdelta: 0.1, steps: 15, magnitudes: true };
const STEPS: f32 = 15.0;

/// Nibbles that divide `values` among 15 steps of the greatest, and that step.
#[inline(always)]
fn nibbles(values: &[f32; 16]) -> ([u8; 16], f32) {
    let mut greatest = 0f32;
    for v in values {
        greatest = if *v > greatest { *v } else { greatest };
    }
    let mut out = [0u8; 16];
    if greatest <= 0.0 {
        return (out, 0.0);
    }
    let inverse = STEPS / greatest;
    for (o, v) in out.iter_mut().zip(values) {
        *o = nearest(inverse * v) as u8;
    }
    (out, greatest / STEPS)
}

vectorized! {
    pub(super) fn quantize(x: &[f32], out: &mut [u8]) {
        for (x, out) in x.as_chunks::<SUPER>().0.iter().zip(out.as_chunks_mut::<84>().0) {
            let x = transposed::<16, 16>(x);
            let mut weights = x;
            for row in &mut weights {
                for w in row {
                    *w = w.abs();
                }
            }
            let found = affine(&x, &weights, &SEARCH);
            let ((scales, d), (mins, dmin)) = (nibbles(&found.scale), nibbles(&found.min));
            let (mut ds, mut dms) = ([0f32; 16], [0f32; 16]);
            for l in 0..16 {
                // As one byte: a minimum is not negative, so neither nibble spills.
                out[l] = scales[l] | (mins[l] << 4);
                ds[l] = as_half(d) * f32::from(out[l] & 15);
                dms[l] = as_half(dmin) * f32::from(out[l] >> 4);
            }
            let levels = in_order(&found.levels(&x, &ds, &dms, SEARCH.nmax));
            pairs_of_bits(&levels, &mut out[16..80]);
            out[80..82].copy_from_slice(&half_bytes(d));
            out[82..84].copy_from_slice(&half_bytes(dmin));
        }
    }
}
