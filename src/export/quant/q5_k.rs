//! Q5_K: as Q4_K with a fifth bit a value.
//! Stored: scale · minimum · 6-bit scales and minima in 12 bytes · fifth bits · four bits a value.

use super::q4_k::with_minima;
use super::search::{SUPER, Search};
use crate::ops::simd::vectorized;

const SEARCH: Search = Search { nmax: 31, rmin: -0.5, rdelta: 0.1, steps: 15, magnitudes: false };

vectorized! {
    pub(super) fn quantize(x: &[f32], out: &mut [u8]) {
        for (x, out) in x.as_chunks::<SUPER>().0.iter().zip(out.as_chunks_mut::<176>().0) {
            let (head, levels) = with_minima(x, &SEARCH);
            out[..16].copy_from_slice(&head);
            let (fifth, fours) = out[16..].split_at_mut(32);
            fifth.fill(0);
            for (n, (levels, out)) in levels.as_chunks::<64>().0.iter().zip(fours.chunks_exact_mut(32)).enumerate() {
                for (l, o) in out.iter_mut().enumerate() {
                    *o = (levels[l] & 15) | (levels[l + 32] << 4);
                    fifth[l] |= ((levels[l] >> 4) | ((levels[l + 32] >> 4) << 1)) << (2 * n);
                }
            }
        }
    }
}
