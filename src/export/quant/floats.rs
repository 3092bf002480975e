//! f32, f16 and bf16: little-endian, rounded to nearest, ties to even.

use crate::ops::simd::vectorized;
use crate::{Error, Result};
use half::slice::HalfFloatSliceExt;

vectorized! {
    /// Whether every value is a finite number.
    pub(super) fn all_finite(x: &[f32]) -> bool {
        const EXPONENT: u32 = 0x7F80_0000;
        let mut bad = false;
        for v in x {
            bad |= v.to_bits() & EXPONENT == EXPONENT;
        }
        !bad
    }
}

pub(super) fn f32(x: &[f32], out: &mut [u8]) {
    for (o, v) in out.as_chunks_mut::<4>().0.iter_mut().zip(x) {
        *o = v.to_le_bytes();
    }
}

/// # Errors
/// When a value would become infinite.
pub(super) fn f16(x: &[f32], out: &mut [u8]) -> Result<()> {
    // The largest f16 is 65504; what lies half a step above it rounds up to infinity.
    if let Some(v) = x.iter().find(|v| v.abs() >= 65520.0) {
        return Err(Error::new(format!("{v} is too large for f16")).next("take bf16 or f32"));
    }
    let mut halves = [half::f16::ZERO; 1024];
    for (x, out) in x.chunks(1024).zip(out.chunks_mut(2048)) {
        let halves = &mut halves[..x.len()];
        halves.convert_from_f32_slice(x);
        for (o, h) in out.as_chunks_mut::<2>().0.iter_mut().zip(halves) {
            *o = h.to_le_bytes();
        }
    }
    Ok(())
}

vectorized! {
    pub(super) fn bf16(x: &[f32], out: &mut [u8]) {
        for (o, v) in out.as_chunks_mut::<2>().0.iter_mut().zip(x) {
            // Finite, so that the carry is the rounding.
            let bits = v.to_bits();
            let rounded = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16;
            *o = (rounded as u16).to_le_bytes();
        }
    }
}

/// A block's scale as it is stored.
#[inline(always)]
pub(super) fn half_bytes(v: f32) -> [u8; 2] {
    half::f16::from_f32(v).to_le_bytes()
}

/// A block's scale as it is read back.
#[inline(always)]
pub(super) fn as_half(v: f32) -> f32 {
    half::f16::from_f32(v).to_f32()
}
