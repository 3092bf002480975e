//! Q3_K: 16 groups of 16, each with a 6-bit scale of the super-block's own.
//! Stored: third bits · two bits a value · scales in 12 bytes · scale.

use super::floats::{as_half, half_bytes};
use super::search::{SUPER, divided, in_order, nearest, pairs_of_bits, stepwise, transposed};
use crate::ops::simd::vectorized;

vectorized! {
    pub(super) fn quantize(x: &[f32], out: &mut [u8]) {
        for (x, out) in x.as_chunks::<SUPER>().0.iter().zip(out.as_chunks_mut::<110>().0) {
            let x = transposed::<16, 16>(x);
            let (scales, searched) = stepwise(&x, 4);
            let (mut amax, mut max) = (0f32, 0f32);
            for s in &scales {
                if s.abs() > amax {
                    (amax, max) = (s.abs(), *s);
                }
            }
            let (bits, rest) = out.split_at_mut(32);
            let (pairs, rest) = rest.split_at_mut(64);
            let (packed, stored) = rest.split_at_mut(12);
            packed.fill(0);
            let mut ds = [0f32; 16];
            let mut d = 0f32;
            if max != 0.0 {
                let iscale = -32.0 / max;
                d = 1.0 / iscale;
                for (j, s) in scales.iter().enumerate() {
                    let level = (nearest(iscale * s) as i8).clamp(-32, 31) + 32;
                    ds[j] = as_half(d) * f32::from(level - 32);
                    let level = level as u8;
                    packed[j % 8] |= (level & 15) << (4 * (j / 8));
                    packed[8 + j % 4] |= (level >> 4) << (2 * (j / 4));
                }
            }
            let mut levels = in_order(&divided(&x, &ds, (-4, 3), || searched));
            bits.fill(0);
            for (j, l) in levels.iter_mut().enumerate() {
                bits[j % 32] |= (*l >> 2) << (j / 32);
                *l &= 3;
            }
            pairs_of_bits(&levels, pairs);
            stored.copy_from_slice(&half_bytes(d));
        }
    }
}
