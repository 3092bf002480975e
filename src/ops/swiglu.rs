//! The gated activation of an MLP: `act(gate) · up` (Shazeer, "GLU variants improve Transformer", 2020), with SiLU in most
//! families and GELU in Gemma.

use super::host;
use super::simd::{exp, vectorized};
use crate::{Error, Result};
use candle_core::Tensor;
use rayon::prelude::*;

const OP: &str = "swiglu";
const ROWS: usize = 8;

vectorized! {
    fn forward(gate: &[f32], up: &[f32], y: &mut [f32]) {
        for ((y, &g), &u) in y.iter_mut().zip(gate).zip(up) {
            *y = g / (1.0 + exp(-g)) * u;
        }
    }
}

vectorized! {
    fn backward(dy: &[f32], gate: &mut [f32], up: &mut [f32]) {
        for ((&dy, g), u) in dy.iter().zip(gate).zip(up) {
            let s = 1.0 / (1.0 + exp(-*g));
            let silu = *g * s;
            let d = dy * *u * (s + silu * (1.0 - s));
            *u = dy * silu;
            *g = d;
        }
    }
}

/// 2·√(2/π), and the cubic term of GELU's tanh approximation (Hendrycks and Gimpel, 2016), taken as
/// `g · σ(2·√(2/π)·(g + cube·g³))`, which is the same and loses nothing where tanh is near ±1.
const SLOPE: f32 = 2.0 * 0.797_884_6;
const CUBE: f32 = 0.044_715;

vectorized! {
    fn gelu_forward(gate: &[f32], up: &[f32], y: &mut [f32]) {
        for ((y, &g), &u) in y.iter_mut().zip(gate).zip(up) {
            *y = g / (1.0 + exp(-SLOPE * (g + CUBE * g * g * g))) * u;
        }
    }
}

vectorized! {
    fn gelu_backward(dy: &[f32], gate: &mut [f32], up: &mut [f32]) {
        for ((&dy, g), u) in dy.iter().zip(gate).zip(up) {
            let s = 1.0 / (1.0 + exp(-SLOPE * (*g + CUBE * *g * *g * *g)));
            let slope = SLOPE * (1.0 + 3.0 * CUBE * *g * *g);
            let d = dy * *u * (s + *g * s * (1.0 - s) * slope);
            *u = dy * *g * s;
            *g = d;
        }
    }
}

vectorized! {
    fn clamped_forward(gate: &[f32], up: &[f32], y: &mut [f32], alpha: f32, limit: f32) {
        for ((y, &g), &u) in y.iter_mut().zip(gate).zip(up) {
            let (g, u) = (if g > limit { limit } else { g }, u.clamp(-limit, limit));
            *y = g / (1.0 + exp(-alpha * g)) * (u + 1.0);
        }
    }
}

vectorized! {
    fn clamped_backward(dy: &[f32], gate: &mut [f32], up: &mut [f32], alpha: f32, limit: f32) {
        for ((&dy, gate), up) in dy.iter().zip(gate).zip(up) {
            let (g, u) = (if *gate > limit { limit } else { *gate }, up.clamp(-limit, limit));
            let s = 1.0 / (1.0 + exp(-alpha * g));
            let d = dy * (u + 1.0) * s * (1.0 + alpha * g * (1.0 - s));
            *up = if up.abs() <= limit { dy * g * s } else { 0.0 };
            *gate = if *gate <= limit { d } else { 0.0 };
        }
    }
}

/// What the gate goes through, as `hidden_act` in `config.json` names it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Activation {
    /// `silu`
    #[default]
    Silu,
    /// `gelu_pytorch_tanh`
    GeluTanh,
    /// gpt-oss: `(up + 1) · gate · σ(alpha · gate)`, gate at most `limit`, up within ±`limit` (`swiglu_alpha`, `swiglu_limit`).
    Clamped { alpha: f32, limit: f32 },
}

fn half(t: usize, both: usize) -> Result<usize> {
    if both == 0 || !both.is_multiple_of(2) {
        return Err(Error::new(format!("swiglu needs gate and up side by side, but was given [{t}, {both}]")));
    }
    Ok(both / 2)
}

/// `gate_up [T, 2F]` (gate in the first F columns, up in the others) to `[T, F]`, f32.
pub fn swiglu(gate_up: &Tensor, act: Activation) -> Result<Tensor> {
    let (t, both) = host::dims2(gate_up, OP)?;
    let f = half(t, both)?;
    let gu = host::read(gate_up, OP)?;
    let gu: &[f32] = &gu;
    let mut y = host::room(t * f);
    y.par_chunks_mut(ROWS * f).zip(gu.par_chunks(ROWS * both)).for_each(|(y, gu)| {
        for (y, gu) in y.chunks_exact_mut(f).zip(gu.chunks_exact(both)) {
            let (g, u) = gu.split_at(f);
            match act {
                Activation::Silu => forward(g, u, y),
                Activation::GeluTanh => gelu_forward(g, u, y),
                Activation::Clamped { alpha, limit } => clamped_forward(g, u, y, alpha, limit),
            }
        }
    });
    host::tensor(y, &[t, f])
}

/// Turns `gate_up [T, 2F]` into its own gradient, in place, given `dy [T, F]`: the forward values are not needed after.
pub fn swiglu_backward_(gate_up: &Tensor, dy: &Tensor, act: Activation) -> Result<()> {
    let (t, both) = host::dims2(gate_up, OP)?;
    let f = half(t, both)?;
    host::same(OP, "dy", dy.dims(), &[t, f])?;
    let dy = host::read(dy, OP)?;
    let dy: &[f32] = &dy;
    host::write(gate_up, OP, |gu| {
        gu.par_chunks_mut(ROWS * both).zip(dy.par_chunks(ROWS * f)).for_each(|(gu, dy)| {
            for (gu, dy) in gu.chunks_exact_mut(both).zip(dy.chunks_exact(f)) {
                let (g, u) = gu.split_at_mut(f);
                match act {
                    Activation::Silu => backward(dy, g, u),
                    Activation::GeluTanh => gelu_backward(dy, g, u),
                    Activation::Clamped { alpha, limit } => clamped_backward(dy, g, u, alpha, limit),
                }
            }
        });
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::*;

    fn reference(gu: &[f64], f: usize, act: Activation) -> Vec<f64> {
        let act = |g: f64, u: f64| match act {
            Activation::Silu => g / (1.0 + (-g).exp()) * u,
            Activation::GeluTanh => {
                0.5 * g * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (g + 0.044715 * g.powi(3))).tanh()) * u
            }
            Activation::Clamped { alpha, limit } => {
                let (alpha, limit) = (f64::from(alpha), f64::from(limit));
                let g = g.min(limit);
                g / (1.0 + (-alpha * g).exp()) * (u.clamp(-limit, limit) + 1.0)
            }
        };
        gu.chunks(2 * f).flat_map(|r| (0..f).map(|i| act(r[i], r[f + i])).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn it_agrees_with_f64_and_finite_differences() {
        let (t, f) = (19, 23);
        for act in [Activation::Silu, Activation::GeluTanh, Activation::Clamped { alpha: 1.702, limit: 3.0 }] {
            let (gu, dy) = ((random(&[t, 2 * f], 1) * 4.0).unwrap(), random(&[t, f], 2));
            let x = f64s(&gu);
            close(&f64s(&swiglu(&gu, act).unwrap()), &reference(&x, f, act), 1e-6);
            swiglu_backward_(&gu, &dy, act).unwrap();
            close(&f64s(&gu), &differences(&x, |x| inner(&reference(x, f, act), &f64s(&dy))), 2e-6);
        }
    }

    #[test]
    fn it_agrees_with_pytorch() {
        // seq: sin(a·(i+1)+b). gu=seq((2,6),0.8,0); g,u=gu.chunk(2,-1); y=F.silu(g)*u; y.backward(seq((2,3),0.9,2.0))
        let gu = wave(&[2, 6], 0.8, 0.0);
        let y = swiglu(&gu, Activation::Silu).unwrap();
        let want = [-0.028141059, -0.55296761, -0.44592971, -0.21685798, 0.036069907, -0.095275551];
        close(&f64s(&y), &want, 1e-6);
        swiglu_backward_(&gu, &wave(&[2, 3], 0.9, 2.0), Activation::Silu).unwrap();
        let want = [
            -0.011593648,
            0.42950332,
            0.81052208,
            0.11533753,
            -0.44706196,
            -0.44761223,
            -0.12749597,
            0.070229657,
            -0.13454708,
            0.13836768,
            0.013265738,
            0.49117476,
        ];
        close(&f64s(&gu), &want, 1e-6);
    }

    #[test]
    fn large_gates_stay_finite_and_a_nan_stays_one() {
        let y = f32s(&swiglu(&tensor(&[200.0, -200.0, f32::NAN, 1.0, 1.0, 1.0], &[1, 6]), Activation::Silu).unwrap());
        assert_eq!(y[..2], [200.0, 0.0]);
        assert!(y[2].is_nan());
        let y = f32s(&swiglu(&tensor(&[200.0, -200.0, 1.0, 1.0], &[1, 4]), Activation::GeluTanh).unwrap());
        assert!((y[0] - 200.0).abs() < 1e-3 && y[1].abs() < 1e-3, "{y:?}");
    }
}
