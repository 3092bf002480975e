//! Root-mean-square normalisation (Zhang and Sennrich, 2019): `y = x / √(mean(x²) + eps) · (w + plus)`, row by row.
//! `plus` is 0, or 1 where a model keeps its norm weights around zero (Gemma); the gradient of `w` is the same.

use super::host;
use super::simd::{sum, vectorized};
use crate::{Error, Result};
use candle_core::Tensor;
use rayon::prelude::*;

const OP: &str = "rms_norm";
/// Rows a task takes; also the fixed pieces over which the weight's gradient is summed.
const ROWS: usize = 16;

vectorized! {
    pub(super) fn forward(x: &[f32], w: &[f32], plus: f32, eps: f32, y: &mut [f32]) -> f32 {
        let rstd = 1.0 / (sum(x.len(), |i| x[i] * x[i]) / x.len() as f32 + eps).sqrt();
        for ((y, &x), &w) in y.iter_mut().zip(x).zip(w) {
            *y = x * rstd * (w + plus);
        }
        rstd
    }
}

vectorized! {
    fn backward(dy: &[f32], x: &[f32], w: &[f32], plus: f32, rstd: f32, dx: &mut [f32]) {
        let n = dx.len();
        let (dy, x, w) = (&dy[..n], &x[..n], &w[..n]);
        let mean = sum(n, |i| dy[i] * (w[i] + plus) * x[i]) / n as f32;
        let c = rstd * rstd * rstd * mean;
        for i in 0..n {
            dx[i] += dy[i] * (w[i] + plus) * rstd - x[i] * c;
        }
    }
}

vectorized! {
    pub(super) fn weight_gradient(dy: &[f32], x: &[f32], rstd: f32, dw: &mut [f32]) {
        for ((dw, &dy), &x) in dw.iter_mut().zip(dy).zip(x) {
            *dw += dy * x * rstd;
        }
    }
}

fn shapes(x: &Tensor, w: &Tensor) -> Result<(usize, usize)> {
    let (t, n) = host::dims2(x, OP)?;
    host::same(OP, "the weight", w.dims(), &[n])?;
    if n == 0 { Err(Error::new("rms_norm over no numbers")) } else { Ok((t, n)) }
}

/// `x [T, n]`, `w [n]` to `(y [T, n], rstd [T])`, f32; `rstd` is what the backward pass needs besides `x`.
pub fn rms_norm(x: &Tensor, w: &Tensor, plus: f32, eps: f64) -> Result<(Tensor, Tensor)> {
    let (t, n) = shapes(x, w)?;
    let (x, w) = (host::read(x, OP)?, host::read(w, OP)?);
    let (x, w): (&[f32], &[f32]) = (&x, &w);
    let (mut y, mut rstd) = (host::room(t * n), host::room(t));
    let pieces = y.par_chunks_mut(ROWS * n).zip(x.par_chunks(ROWS * n)).zip(rstd.par_chunks_mut(ROWS));
    pieces.for_each(|((y, x), rstd)| {
        for ((y, x), rstd) in y.chunks_exact_mut(n).zip(x.chunks_exact(n)).zip(rstd) {
            *rstd = forward(x, w, plus, eps as f32, y);
        }
    });
    Ok((host::tensor(y, &[t, n])?, host::tensor(rstd, &[t])?))
}

/// Adds the gradient into `dx [T, n]` (which already holds what the residual stream brought), and into `dw [n]` where
/// the weight trains. `dy [T, n]`; `x`, `w` as in the forward pass, `rstd` from it.
#[allow(clippy::too_many_arguments)]
pub fn rms_norm_backward(
    dy: &Tensor,
    x: &Tensor,
    w: &Tensor,
    plus: f32,
    rstd: &Tensor,
    dx: &Tensor,
    dw: Option<&Tensor>,
) -> Result<()> {
    let (t, n) = shapes(x, w)?;
    host::same(OP, "dy", dy.dims(), &[t, n])?;
    host::same(OP, "dx", dx.dims(), &[t, n])?;
    host::same(OP, "rstd", rstd.dims(), &[t])?;
    let (dy, x, w, rstd) = (host::read(dy, OP)?, host::read(x, OP)?, host::read(w, OP)?, host::read(rstd, OP)?);
    let (dy, x, w, rstd): (&[f32], &[f32], &[f32], &[f32]) = (&dy, &x, &w, &rstd);
    host::write(dx, OP, |dx| {
        dx.par_chunks_mut(ROWS * n).enumerate().for_each(|(piece, dx)| {
            for (r, dx) in dx.chunks_exact_mut(n).enumerate() {
                let i = piece * ROWS + r;
                backward(&dy[i * n..][..n], &x[i * n..][..n], w, plus, rstd[i], dx);
            }
        });
        Ok(())
    })?;
    let Some(dw) = dw else { return Ok(()) };
    host::same(OP, "dw", dw.dims(), &[n])?;
    let pieces: Vec<Vec<f32>> = (0..t.div_ceil(ROWS))
        .into_par_iter()
        .map(|piece| {
            let mut sum = vec![0f32; n];
            for i in piece * ROWS..((piece + 1) * ROWS).min(t) {
                weight_gradient(&dy[i * n..][..n], &x[i * n..][..n], rstd[i], &mut sum);
            }
            sum
        })
        .collect();
    host::write(dw, OP, |dw| {
        for piece in &pieces {
            for (dw, p) in dw.iter_mut().zip(piece) {
                *dw += p;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::*;

    fn reference(x: &[f64], w: &[f64], eps: f64) -> Vec<f64> {
        let n = w.len();
        let row = |x: &[f64]| {
            let rstd = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / n as f64 + eps).sqrt();
            x.iter().zip(w).map(|(x, w)| x * rstd * w).collect::<Vec<_>>()
        };
        x.chunks(n).flat_map(row).collect()
    }

    #[test]
    fn it_agrees_with_f64_and_finite_differences() {
        let (t, n) = (37, 21);
        let (x, w, dy) = (random(&[t, n], 1), random(&[n], 2), random(&[t, n], 3));
        for plus in [0.0, 1.0] {
            let reference =
                |x: &[f64], w: &[f64]| reference(x, &w.iter().map(|w| w + f64::from(plus)).collect::<Vec<_>>(), 1e-5);
            let (y, rstd) = rms_norm(&x, &w, plus, 1e-5).unwrap();
            close(&f64s(&y), &reference(&f64s(&x), &f64s(&w)), 1e-6);
            let (dx, dw) = (tensor(&vec![1.0; t * n], &[t, n]), tensor(&vec![0.0; n], &[n]));
            rms_norm_backward(&dy, &x, &w, plus, &rstd, &dx, Some(&dw)).unwrap();
            let want = differences(&f64s(&x), |x| inner(&reference(x, &f64s(&w)), &f64s(&dy)));
            close(&f64s(&dx), &want.iter().map(|d| d + 1.0).collect::<Vec<_>>(), 2e-6);
            close(&f64s(&dw), &differences(&f64s(&w), |w| inner(&reference(&f64s(&x), w), &f64s(&dy))), 2e-6);
        }
    }

    #[test]
    fn it_agrees_with_pytorch() {
        // seq: sin(a·(i+1)+b). x=seq((2,5),0.37,0); w=seq((5,),0.5,1.0); dy=seq((2,5),0.9,2.0)
        // y=x*torch.rsqrt(x.pow(2).mean(-1,keepdim=True)+1e-5)*w; y.backward(dy)
        let (x, w, dy) = (wave(&[2, 5], 0.37, 0.0), wave(&[5], 0.5, 1.0), wave(&[2, 5], 0.9, 2.0));
        let (y, rstd) = rms_norm(&x, &w, 0.0, 1e-5).unwrap();
        let want_y = [
            0.44376183,
            0.7542991,
            0.65947467,
            0.17289731,
            -0.41483831,
            1.5843251,
            0.9501366,
            0.21550868,
            -0.052701876,
            0.37058896,
        ];
        let want_dx = [
            0.42639306,
            -0.436845,
            -0.40728804,
            0.25611767,
            0.26017031,
            0.52612007,
            0.80588979,
            -0.01999566,
            0.12069564,
            1.5384293,
        ];
        close(&f64s(&y), &want_y, 1e-6);
        let (dx, dw) = (tensor(&[0.0; 10], &[2, 5]), tensor(&[0.0; 5], &[5]));
        rms_norm_backward(&dy, &x, &w, 0.0, &rstd, &dx, Some(&dw)).unwrap();
        close(&f64s(&dx), &want_dx, 1e-6);
        close(&f64s(&dw), &[1.5338578, 0.43513006, -1.0215836, -0.53997952, 1.3108532], 1e-6);
    }
}
