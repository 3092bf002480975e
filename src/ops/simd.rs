//! Functions that the compiler can turn into vector code, compiled a second time for AVX2 and FMA
//! and chosen at run time: the program itself asks only for the baseline x86-64.

/// Declare `fn name(args) { body }` so that on x86-64 with AVX2 and FMA it runs compiled for those.
///
/// The bodies are the same source and use no fused multiply-add, so both give the same bits.
macro_rules! vectorized {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn portable($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    portable($($arg),*)
                }
                if $crate::ops::simd::has_avx2() {
                    // SAFETY: the processor has the features.
                    return unsafe { avx2($($arg),*) };
                }
            }
            portable($($arg),*)
        }
    };
}
pub(crate) use vectorized;

/// Whether this processor has AVX2 and FMA (looked up once, cached by the standard library).
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
}

/// e^x in f32, within 2 units in the last place over the normal range; NaN stays NaN, +inf gives +inf,
/// and anything below -87.3 gives 0.
///
/// x = n·ln 2 + r with |r| ≤ ln 2 / 2, then a polynomial of degree 6 (Cephes' `expf`), then 2^n through the exponent's bits.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 · 2^23: adding it rounds to an integer
    let clamped = if x < -87.3 { -87.3 } else { x };
    let clamped = if clamped > 88.7 { 88.7 } else { clamped };
    let shifted = clamped * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let r = clamped - n * 0.693_359_4;
    let r = r + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5.000_000_3e-1;
    let p = p * (r * r) + r + 1.0;
    // The low bits of `shifted` hold n; halves keep the exponent in range at n = 128.
    let bits = shifted.to_bits().wrapping_sub(MAGIC.to_bits()) as i32;
    let half = bits >> 1;
    let a = f32::from_bits(((half + 127) as u32) << 23);
    let b = f32::from_bits(((bits - half + 127) as u32) << 23);
    let y = p * a * b;
    let y = if x < -87.3 { 0.0 } else { y };
    if x > 88.7 { f32::INFINITY * x } else { y }
}

/// tanh(x) in f32, within 5e-7 of its value; a rational minimax approximation on ±7.905, beyond which f32's tanh is ±1
/// (the coefficients are Eigen's `ptanh`).
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    const EDGE: f32 = 7.905_311;
    let c = if x < -EDGE { -EDGE } else { x };
    let c = if c > EDGE { EDGE } else { c };
    let x2 = c * c;
    let mut p = -2.760_768_5e-16;
    p = p * x2 + 2.000_188e-13;
    p = p * x2 + -8.604_672e-11;
    p = p * x2 + 5.122_297_1e-8;
    p = p * x2 + 1.485_722_4e-5;
    p = p * x2 + 6.372_619_3e-4;
    p = p * x2 + 4.893_524_6e-3;
    let mut q = 1.198_258_4e-6;
    q = q * x2 + 1.185_347_1e-4;
    q = q * x2 + 2.268_434_6e-3;
    q = q * x2 + 4.893_525e-3;
    c * p / q
}

/// The number of sums that reductions keep side by side.
pub(crate) const LANES: usize = 16;

/// Σ f(i) over 0..n in a fixed order: lane `i % 16`, then the lanes in order.
#[inline(always)]
pub(crate) fn sum(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let whole = n / LANES * LANES;
    let mut i = 0;
    while i < whole {
        for (l, lane) in lanes.iter_mut().enumerate() {
            *lane += f(i + l);
        }
        i += LANES;
    }
    for (l, lane) in lanes.iter_mut().enumerate().take(n - whole) {
        *lane += f(whole + l);
    }
    lanes.iter().sum()
}

/// Σ a·b.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let n = a.len().min(b.len());
    let (a, b) = (&a[..n], &b[..n]);
    sum(n, |i| a[i] * b[i])
}

/// The largest of `v` (-inf for none); whether a NaN shows is not promised.
#[inline(always)]
pub(crate) fn max(v: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut pieces = v.chunks_exact(LANES);
    for piece in &mut pieces {
        for (lane, &x) in lanes.iter_mut().zip(piece) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    let rest = pieces.remainder().iter().copied();
    lanes.iter().copied().chain(rest).fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_agrees_with_f64_within_three_units_in_the_last_place() {
        let mut worst = 0f64;
        for i in -870_000..=880_000 {
            let x = i as f32 * 1e-4;
            let want = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - want).abs() / want);
        }
        assert!(worst < 3.0 * f64::from(f32::EPSILON), "{worst:e}");
    }

    #[test]
    fn exp_keeps_what_is_not_finite() {
        assert!(exp(f32::NAN).is_nan());
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(100.0), f32::INFINITY);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-100.0), 0.0);
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn tanh_agrees_with_f64_keeps_a_nan_and_ends_at_one() {
        let mut worst = 0f64;
        for i in -120_000..=120_000 {
            let x = i as f32 * 1e-4 + 1e-6;
            let want = f64::from(x).tanh();
            worst = worst.max((f64::from(tanh(x)) - want).abs() / want.abs());
        }
        assert!(worst < 5e-7, "{worst:e}");
        assert!(tanh(f32::NAN).is_nan());
        assert!((tanh(f32::INFINITY) - 1.0).abs() < 5e-7 && (tanh(-1e30) + 1.0).abs() < 5e-7);
        assert_eq!(tanh(0.0), 0.0);
    }

    vectorized! {
        fn dot_vectorized(a: &[f32], b: &[f32]) -> f32 { dot(a, b) }
    }

    #[test]
    fn vector_code_gives_the_bits_of_the_portable_code() {
        let a: Vec<f32> = (0..1003).map(|i| (i as f32 * 0.37).sin()).collect();
        let b: Vec<f32> = (0..1003).map(|i| (i as f32 * 0.71).cos()).collect();
        assert_eq!(dot(&a, &b).to_bits(), dot_vectorized(&a, &b).to_bits());
        assert_eq!(max(&a), a.iter().copied().fold(f32::MIN, f32::max));
    }
}
