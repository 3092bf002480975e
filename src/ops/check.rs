//! What the tests of operations share: random tensors, f64 copies, closeness, finite differences.

use candle_core::{Device, Tensor};

/// Numbers of unit scale, the same for the same seed.
pub fn random(shape: &[usize], seed: u64) -> Tensor {
    let n = shape.iter().product();
    let mut v = vec![0f32; n];
    super::random::Stream { seed, words: [9, 9, 9] }.fill_uniform(1.7, &mut v);
    Tensor::from_vec(v, shape, &Device::Cpu).unwrap()
}

pub fn tensor(v: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_vec(v.to_vec(), shape, &Device::Cpu).unwrap()
}

/// -0.5..0.5, exact in f32: `numbers` in tests/reference/quant.py.
pub fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let number = |i: u64| ((i * 2_654_435_761 % (1 << 32)) >> 8) as f32 / (1 << 24) as f32 - 0.5;
    (1..=n as u64).map(|i| number(i + seed * 1000)).collect()
}

/// The 64-bit FNV-1a hash, for results too long to write down.
pub fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

/// sin(a·(i+1)+b) over i: numbers that the PyTorch snippets can make too.
pub fn wave(shape: &[usize], a: f64, b: f64) -> Tensor {
    let n: usize = shape.iter().product();
    let v = (0..n).map(|i| (a * (i + 1) as f64 + b).sin() as f32).collect();
    Tensor::from_vec(v, shape, &Device::Cpu).unwrap()
}

pub fn f32s(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1::<f32>().unwrap()
}

pub fn f64s(t: &Tensor) -> Vec<f64> {
    f32s(t).into_iter().map(f64::from).collect()
}

/// max|a−b| ≤ e · max|b|.
#[track_caller]
pub fn close(found: &[f64], expected: &[f64], e: f64) {
    assert_eq!(found.len(), expected.len());
    let top = expected.iter().fold(0f64, |m, x| m.max(x.abs()));
    for (i, (f, x)) in found.iter().zip(expected).enumerate() {
        assert!((f - x).abs() <= e * top.max(1e-30), "at {i}: {f} is not {x} within {e} of {top}");
    }
}

/// The gradient of `f` at `x` by central differences, in f64.
pub fn differences(x: &[f64], mut f: impl FnMut(&[f64]) -> f64) -> Vec<f64> {
    let h = 1e-5;
    let mut x = x.to_vec();
    (0..x.len())
        .map(|i| {
            let kept = x[i];
            x[i] = kept + h;
            let up = f(&x);
            x[i] = kept - h;
            let down = f(&x);
            x[i] = kept;
            (up - down) / (2.0 * h)
        })
        .collect()
}

/// Σ a·b: the scalar whose gradient with respect to `a` is `b`.
pub fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
