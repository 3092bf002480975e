//! Q6_K: 16 groups of 16, each with an 8-bit scale of the super-block's own.
//! Stored: low four bits · high two bits · scales · scale.

use super::floats::{as_half, half_bytes};
use super::search::{SUPER, TINY, divided, in_order, nearest, symmetric, symmetric_levels, transposed};
use crate::ops::simd::vectorized;

vectorized! {
    pub(super) fn quantize(x: &[f32], out: &mut [u8]) {
        for (x, out) in x.as_chunks::<SUPER>().0.iter().zip(out.as_chunks_mut::<210>().0) {
            let x = transposed::<16, 16>(x);
            let (scales, inverse) = symmetric(&x, 32);
            let (mut amax, mut max) = (0f32, 0f32);
            for s in &scales {
                if s.abs() > amax {
                    (amax, max) = (s.abs(), *s);
                }
            }
            if amax < TINY {
                out.fill(0);
                continue;
            }
            let iscale = -128.0 / max;
            let d = 1.0 / iscale;
            let mut ds = [0f32; 16];
            for (l, s) in scales.iter().enumerate() {
                let share = nearest(iscale * s).min(127) as i8;
                out[192 + l] = share as u8;
                ds[l] = as_half(d) * f32::from(share);
            }
            let levels = in_order(&divided(&x, &ds, (-32, 31), || symmetric_levels(&x, &inverse, 32)));
            let (low, high) = out.split_at_mut(128);
            for (n, levels) in levels.as_chunks::<128>().0.iter().enumerate() {
                for l in 0..32 {
                    let q = [levels[l], levels[l + 32], levels[l + 64], levels[l + 96]];
                    low[64 * n + l] = (q[0] & 15) | ((q[2] & 15) << 4);
                    low[64 * n + 32 + l] = (q[1] & 15) | ((q[3] & 15) << 4);
                    high[32 * n + l] = (q[0] >> 4) | ((q[1] >> 4) << 2) | ((q[2] >> 4) << 4) | ((q[3] >> 4) << 6);
                }
            }
            out[208..210].copy_from_slice(&half_bytes(d));
        }
    }
}
