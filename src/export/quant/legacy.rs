//! Blocks of 32 values with one scale (`_0`), or a scale and a minimum (`_1`).
//!
//! A block's low nibbles are its first 16 values, the high nibbles its last 16; fifth bits stand in a 32-bit mask.

use super::floats::half_bytes;
use crate::ops::simd::vectorized;

const BLOCK: usize = 32;

/// What x86's `cvttss2si` followed by a cut to eight bits gives, which C leaves undefined outside of i8: values there
/// come only from blocks so small that their scale is stored as 0.
#[inline(always)]
fn truncate(v: f32) -> i8 {
    let i = v as i32;
    if i == i32::MAX { 0 } else { i as i8 }
}

/// Least and greatest value, eight side by side: neither depends on the order, but for the sign of a zero.
#[inline(always)]
fn range(x: &[f32; BLOCK]) -> (f32, f32) {
    const LANES: usize = 8;
    let (mut least, mut greatest) = ([f32::MAX; LANES], [f32::MIN; LANES]);
    for x in x.as_chunks::<LANES>().0 {
        for l in 0..LANES {
            least[l] = if x[l] < least[l] { x[l] } else { least[l] };
            greatest[l] = if x[l] > greatest[l] { x[l] } else { greatest[l] };
        }
    }
    let (mut low, mut high) = (least[0], greatest[0]);
    for l in 1..LANES {
        low = if least[l] < low { least[l] } else { low };
        high = if greatest[l] > high { greatest[l] } else { high };
    }
    (low, high)
}

/// The value of largest magnitude; the first of equals.
#[inline(always)]
fn extreme(x: &[f32; BLOCK]) -> f32 {
    let (low, high) = range(x);
    if high > -low {
        high
    } else if high < -low {
        low
    } else {
        x.iter().copied().find(|v| v.abs() == high && high != 0.0).unwrap_or(0.0)
    }
}

/// Least and greatest value; of zeros with different signs, the first.
#[inline(always)]
fn bounds(x: &[f32; BLOCK]) -> (f32, f32) {
    let (low, high) = range(x);
    let low = if low == 0.0 { x.iter().copied().find(|v| *v == 0.0).unwrap_or(0.0) } else { low };
    (low, high)
}

#[inline(always)]
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

#[inline(always)]
fn nibbles(levels: &[u8; BLOCK], out: &mut [u8]) {
    for (j, o) in out.iter_mut().enumerate().take(BLOCK / 2) {
        *o = (levels[j] & 15) | ((levels[j + BLOCK / 2] & 15) << 4);
    }
}

#[inline(always)]
fn fifth_bits(levels: &[u8; BLOCK]) -> [u8; 4] {
    let mut bits = 0u32;
    for (j, l) in levels.iter().enumerate() {
        bits |= (u32::from(*l >> 4) & 1) << j;
    }
    bits.to_le_bytes()
}

/// Scale such that the extreme value is `-half`, and levels `0 ..= 2·half - 1` around `half`.
#[inline(always)]
fn symmetric(x: &[f32; BLOCK], half: i8) -> (f32, [u8; BLOCK]) {
    let d = extreme(x) / -f32::from(half);
    let id = inverse(d);
    let mut levels = [0u8; BLOCK];
    for (l, v) in levels.iter_mut().zip(x) {
        *l = truncate(v * id + (f32::from(half) + 0.5)).min(2 * half - 1) as u8;
    }
    (d, levels)
}

/// Scale, minimum and levels `0 ..= most`.
#[inline(always)]
fn affine(x: &[f32; BLOCK], most: i8, clamp: bool) -> (f32, f32, [u8; BLOCK]) {
    let (least, greatest) = bounds(x);
    let d = (greatest - least) / f32::from(most);
    let id = inverse(d);
    let mut levels = [0u8; BLOCK];
    for (l, v) in levels.iter_mut().zip(x) {
        let level = truncate((v - least) * id + 0.5);
        *l = if clamp { level.min(most) } else { level } as u8;
    }
    (d, least, levels)
}

vectorized! {
    pub(super) fn q4_0(x: &[f32], out: &mut [u8]) {
        for (x, out) in x.as_chunks::<BLOCK>().0.iter().zip(out.as_chunks_mut::<18>().0) {
            let (d, levels) = symmetric(x, 8);
            out[..2].copy_from_slice(&half_bytes(d));
            nibbles(&levels, &mut out[2..]);
        }
    }
}

vectorized! {
    pub(super) fn q4_1(x: &[f32], out: &mut [u8]) {
        for (x, out) in x.as_chunks::<BLOCK>().0.iter().zip(out.as_chunks_mut::<20>().0) {
            let (d, least, levels) = affine(x, 15, true);
            out[..2].copy_from_slice(&half_bytes(d));
            out[2..4].copy_from_slice(&half_bytes(least));
            nibbles(&levels, &mut out[4..]);
        }
    }
}

vectorized! {
    pub(super) fn q5_0(x: &[f32], out: &mut [u8]) {
        for (x, out) in x.as_chunks::<BLOCK>().0.iter().zip(out.as_chunks_mut::<22>().0) {
            let (d, levels) = symmetric(x, 16);
            out[..2].copy_from_slice(&half_bytes(d));
            out[2..6].copy_from_slice(&fifth_bits(&levels));
            nibbles(&levels, &mut out[6..]);
        }
    }
}

vectorized! {
    pub(super) fn q5_1(x: &[f32], out: &mut [u8]) {
        for (x, out) in x.as_chunks::<BLOCK>().0.iter().zip(out.as_chunks_mut::<24>().0) {
            let (d, least, levels) = affine(x, 31, false);
            out[..2].copy_from_slice(&half_bytes(d));
            out[2..4].copy_from_slice(&half_bytes(least));
            out[4..8].copy_from_slice(&fifth_bits(&levels));
            nibbles(&levels, &mut out[8..]);
        }
    }
}

vectorized! {
    pub(super) fn q8_0(x: &[f32], out: &mut [u8]) {
        for (x, out) in x.as_chunks::<BLOCK>().0.iter().zip(out.as_chunks_mut::<34>().0) {
            let d = extreme(x).abs() / 127.0;
            let id = inverse(d);
            out[..2].copy_from_slice(&half_bytes(d));
            for (o, v) in out[2..].iter_mut().zip(x) {
                // C's roundf: halves away from zero. What is out of range comes from a scale stored as 0, and is 0.
                let scaled = v * id;
                let whole = scaled as i32;
                let rest = scaled - whole as f32;
                let rounded = whole.wrapping_add(i32::from(rest >= 0.5)).wrapping_sub(i32::from(rest <= -0.5));
                *o = if whole == i32::MAX || whole == i32::MIN { 0 } else { rounded as i8 as u8 };
            }
        }
    }
}
