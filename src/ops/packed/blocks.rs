//! A row of a GGUF tensor to f32, block by block: the formulas of ggml's `dequantize_row_*`, in loops that become vector code.
//!
//! Must not know names, files or threads.

use crate::ops::simd::vectorized;
use candle_core::quantized::GgmlDType as Kind;
use half::{bf16, f16};

/// Whether [`row`] reads this type.
pub(super) fn reads(kind: Kind) -> bool {
    !matches!(kind, Kind::Q8_1 | Kind::Q8K)
}

vectorized! {
    /// Dequantize whole blocks: `out` holds as many numbers as `bytes` does. A type that is not [`reads`] leaves it alone.
    pub(super) fn row(kind: Kind, bytes: &[u8], out: &mut [f32]) {
        match kind {
            Kind::F32 => floats::<4>(bytes, out, f32::from_le_bytes),
            Kind::F16 => halves(bytes, out),
            Kind::BF16 => floats::<2>(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
            Kind::Q4_0 => each::<18, 32>(bytes, out, q4_0),
            Kind::Q4_1 => each::<20, 32>(bytes, out, q4_1),
            Kind::Q5_0 => each::<22, 32>(bytes, out, q5_0),
            Kind::Q5_1 => each::<24, 32>(bytes, out, q5_1),
            Kind::Q8_0 => each::<34, 32>(bytes, out, q8_0),
            Kind::Q2K => each::<84, 256>(bytes, out, q2_k),
            Kind::Q3K => each::<110, 256>(bytes, out, q3_k),
            Kind::Q4K => each::<144, 256>(bytes, out, q4_k),
            Kind::Q5K => each::<176, 256>(bytes, out, q5_k),
            Kind::Q6K => each::<210, 256>(bytes, out, q6_k),
            Kind::Q8_1 | Kind::Q8K => {}
        }
    }
}

#[inline(always)]
fn each<const BYTES: usize, const N: usize>(
    bytes: &[u8],
    out: &mut [f32],
    block: impl Fn(&[u8; BYTES], &mut [f32; N]),
) {
    for (bytes, out) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        block(bytes, out);
    }
}

#[inline(always)]
fn floats<const BYTES: usize>(bytes: &[u8], out: &mut [f32], read: impl Fn([u8; BYTES]) -> f32) {
    for (bytes, out) in bytes.as_chunks().0.iter().zip(out) {
        *out = read(*bytes);
    }
}

/// By groups, which half converts with the processor's own instruction where there is one.
#[inline(always)]
fn halves(bytes: &[u8], out: &mut [f32]) {
    use half::slice::HalfFloatSliceExt;
    let mut group = [f16::ZERO; 64];
    for (out, bytes) in out.chunks_mut(64).zip(bytes.chunks(128)) {
        for (h, b) in group.iter_mut().zip(bytes.as_chunks().0) {
            *h = f16::from_le_bytes(*b);
        }
        group[..out.len()].convert_to_f32_slice(out);
    }
}

#[inline(always)]
fn half(b: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([b[at], b[at + 1]]).to_f32()
}

#[inline(always)]
fn q4_0(b: &[u8; 18], out: &mut [f32; 32]) {
    let d = half(b, 0);
    for j in 0..16 {
        let q = i32::from(b[2 + j]);
        out[j] = ((q & 15) - 8) as f32 * d;
        out[j + 16] = ((q >> 4) - 8) as f32 * d;
    }
}

#[inline(always)]
fn q4_1(b: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (half(b, 0), half(b, 2));
    for j in 0..16 {
        let q = i32::from(b[4 + j]);
        out[j] = (q & 15) as f32 * d + m;
        out[j + 16] = (q >> 4) as f32 * d + m;
    }
}

/// The fifth bits of 32 numbers.
#[inline(always)]
fn fifths(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

#[inline(always)]
fn q5_0(b: &[u8; 22], out: &mut [f32; 32]) {
    let (d, high) = (half(b, 0), fifths(b, 2));
    for j in 0..16 {
        let q = u32::from(b[6 + j]);
        let (low, up) = (q & 15 | (high >> j & 1) << 4, q >> 4 | (high >> (j + 16) & 1) << 4);
        out[j] = (low as i32 - 16) as f32 * d;
        out[j + 16] = (up as i32 - 16) as f32 * d;
    }
}

#[inline(always)]
fn q5_1(b: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m, high) = (half(b, 0), half(b, 2), fifths(b, 4));
    for j in 0..16 {
        let q = u32::from(b[8 + j]);
        let (low, up) = (q & 15 | (high >> j & 1) << 4, q >> 4 | (high >> (j + 16) & 1) << 4);
        out[j] = low as i32 as f32 * d + m;
        out[j + 16] = up as i32 as f32 * d + m;
    }
}

#[inline(always)]
fn q8_0(b: &[u8; 34], out: &mut [f32; 32]) {
    let d = half(b, 0);
    for j in 0..32 {
        out[j] = f32::from(b[2 + j] as i8) * d;
    }
}

#[inline(always)]
fn q2_k(b: &[u8; 84], out: &mut [f32; 256]) {
    let (d, min) = (half(b, 80), half(b, 82));
    for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        // 128 numbers take 32 bytes, two bits of each at a time.
        let (part, shift) = (group / 8, 2 * (group % 8 / 2));
        let q = &b[16 + 32 * part + 16 * (group % 2)..][..16];
        let (dl, ml) = (d * f32::from(b[group] & 15), min * f32::from(b[group] >> 4));
        for (out, q) in out.iter_mut().zip(q) {
            *out = dl * i32::from(q >> shift & 3) as f32 - ml;
        }
    }
}

#[inline(always)]
fn q3_k(b: &[u8; 110], out: &mut [f32; 256]) {
    let (d, scales) = (half(b, 108), &b[96..108]);
    for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let (part, pair) = (group / 8, group % 8 / 2);
        let low = scales[group % 8] >> (4 * (group / 8)) & 15;
        let high = scales[8 + group % 4] >> (2 * (group / 4)) & 3;
        let dl = d * (i32::from(low | high << 4) - 32) as f32;
        let q = &b[32 + 32 * part + 16 * (group % 2)..][..16];
        let mask = &b[16 * (group % 2)..][..16];
        for ((out, q), m) in out.iter_mut().zip(q).zip(mask) {
            let third = i32::from(m >> (4 * part + pair) & 1);
            *out = dl * (i32::from(q >> (2 * pair) & 3) + 4 * third - 4) as f32;
        }
    }
}

/// Scale and minimum of group `j` of 8, six bits each, in the twelve bytes of Q4_K and Q5_K.
#[inline(always)]
fn scale_min(b: &[u8], j: usize) -> (f32, f32) {
    let (scale, min) = match j {
        0..4 => (b[j] & 63, b[j + 4] & 63),
        _ => (b[j + 4] & 15 | b[j - 4] >> 6 << 4, b[j + 4] >> 4 | b[j] >> 6 << 4),
    };
    (f32::from(scale), f32::from(min))
}

#[inline(always)]
fn q4_k(b: &[u8; 144], out: &mut [f32; 256]) {
    let (d, min) = (half(b, 0), half(b, 2));
    for (j, out) in out.as_chunks_mut::<64>().0.iter_mut().enumerate() {
        let q = &b[16 + 32 * j..][..32];
        let ((s1, m1), (s2, m2)) = (scale_min(&b[4..16], 2 * j), scale_min(&b[4..16], 2 * j + 1));
        let (d1, m1, d2, m2) = (d * s1, min * m1, d * s2, min * m2);
        for l in 0..32 {
            let q = i32::from(q[l]);
            out[l] = d1 * (q & 15) as f32 - m1;
            out[l + 32] = d2 * (q >> 4) as f32 - m2;
        }
    }
}

#[inline(always)]
fn q5_k(b: &[u8; 176], out: &mut [f32; 256]) {
    let (d, min) = (half(b, 0), half(b, 2));
    for (j, out) in out.as_chunks_mut::<64>().0.iter_mut().enumerate() {
        let (q, high) = (&b[48 + 32 * j..][..32], &b[16..48]);
        let ((s1, m1), (s2, m2)) = (scale_min(&b[4..16], 2 * j), scale_min(&b[4..16], 2 * j + 1));
        let (d1, m1, d2, m2) = (d * s1, min * m1, d * s2, min * m2);
        for l in 0..32 {
            let (q, h) = (i32::from(q[l]), i32::from(high[l]) >> (2 * j));
            out[l] = d1 * (q & 15 | (h & 1) << 4) as f32 - m1;
            out[l + 32] = d2 * (q >> 4 | (h & 2) << 3) as f32 - m2;
        }
    }
}

#[inline(always)]
fn q6_k(b: &[u8; 210], out: &mut [f32; 256]) {
    let d = half(b, 208);
    for (n, out) in out.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        let (ql, qh) = (&b[64 * n..][..64], &b[128 + 32 * n..][..32]);
        let scale = |i: usize| d * f32::from(b[192 + 8 * n + i] as i8);
        for side in 0..2 {
            let s = [scale(side), scale(side + 2), scale(side + 4), scale(side + 6)];
            for l in 16 * side..16 * side + 16 {
                let (low, up, h) = (i32::from(ql[l]), i32::from(ql[l + 32]), i32::from(qh[l]));
                out[l] = s[0] * ((low & 15 | (h & 3) << 4) - 32) as f32;
                out[l + 32] = s[1] * ((up & 15 | (h & 12) << 2) - 32) as f32;
                out[l + 64] = s[2] * ((low >> 4 | h & 48) - 32) as f32;
                out[l + 96] = s[3] * ((up >> 4 | (h & 192) >> 2) - 32) as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::quantized::QTensor;
    use candle_core::{Device, Tensor};

    #[test]
    fn every_type_gives_the_numbers_that_candle_gives() {
        use Kind::*;
        let values: Vec<f32> = (0..3 * 256).map(|i| (i as f32 * 0.37).sin() * (1.0 + (i % 11) as f32)).collect();
        let source = Tensor::from_vec(values, 768, &Device::Cpu).unwrap();
        for kind in [F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2K, Q3K, Q4K, Q5K, Q6K] {
            let q = QTensor::quantize(&source, kind).unwrap();
            let want = q.dequantize(&Device::Cpu).unwrap().to_vec1::<f32>().unwrap();
            let mut out = vec![f32::NAN; 768];
            row(kind, &q.data().unwrap(), &mut out);
            let worst = out.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(reads(kind) && out == want, "{kind:?}: off by {worst}");
        }
        assert!(!reads(Q8_1) && !reads(Q8K));
    }
}
