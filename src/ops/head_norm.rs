//! Root-mean-square normalisation of each query and key head by itself (Qwen3, Gemma 3), before they are turned.

use super::attention::Heads;
use super::host;
use super::rms_norm::{forward, weight_gradient};
use super::simd::{sum, vectorized};
use crate::Result;
use candle_core::Tensor;
use rayon::prelude::*;

const OP: &str = "head_norm";
/// Rows a task takes; also the fixed pieces over which the weights' gradients are summed.
const ROWS: usize = 16;

vectorized! {
    /// `dy` to `dx`, in place.
    fn backward(dy: &mut [f32], x: &[f32], w: &[f32], plus: f32, rstd: f32) {
        let n = dy.len();
        let (x, w) = (&x[..n], &w[..n]);
        let mean = sum(n, |i| dy[i] * (w[i] + plus) * x[i]) / n as f32;
        let c = rstd * rstd * rstd * mean;
        for i in 0..n {
            dy[i] = dy[i] * (w[i] + plus) * rstd - x[i] * c;
        }
    }
}

/// The weights of queries and of keys, `[D]` each, and what is added to them (0, or 1 in Gemma).
#[derive(Debug, Clone, Copy)]
pub struct HeadNorm<'a> {
    pub q: &'a Tensor,
    pub k: &'a Tensor,
    pub plus: f32,
    pub eps: f64,
}

fn check(qkv: &Tensor, h: Heads, n: &HeadNorm) -> Result<(usize, usize)> {
    let (t, row) = host::dims2(qkv, OP)?;
    host::same(OP, "a row", &[row], &[h.row()])?;
    for w in [n.q, n.k] {
        host::same(OP, "a weight", w.dims(), &[h.head_dim])?;
    }
    Ok((t, row))
}

/// `qkv [T, (H + 2K)·D]` to the same with its queries and keys normalised, and `rstd [T, H + K]`, which the backward
/// pass needs besides `qkv`.
pub fn head_norm(qkv: &Tensor, h: Heads, n: HeadNorm) -> Result<(Tensor, Tensor)> {
    let (t, row) = check(qkv, h, &n)?;
    let (d, normed) = (h.head_dim, h.heads + h.kv_heads);
    let (x, q, k) = (host::read(qkv, OP)?, host::read(n.q, OP)?, host::read(n.k, OP)?);
    let (x, q, k): (&[f32], &[f32], &[f32]) = (&x, &q, &k);
    let (mut y, mut rstd) = (host::room(t * row), host::room(t * normed));
    let pieces = y.par_chunks_mut(ROWS * row).zip(x.par_chunks(ROWS * row)).zip(rstd.par_chunks_mut(ROWS * normed));
    pieces.for_each(|((y, x), rstd)| {
        for ((y, x), rstd) in y.chunks_exact_mut(row).zip(x.chunks_exact(row)).zip(rstd.chunks_exact_mut(normed)) {
            for (head, rstd) in rstd.iter_mut().enumerate() {
                let w = if head < h.heads { q } else { k };
                let at = head * d..(head + 1) * d;
                *rstd = forward(&x[at.clone()], w, n.plus, n.eps as f32, &mut y[at]);
            }
            y[normed * d..].copy_from_slice(&x[normed * d..]);
        }
    });
    Ok((host::tensor(y, &[t, row])?, host::tensor(rstd, &[t, normed])?))
}

/// Turns `dqkv [T, (H + 2K)·D]` into the gradient of what [`head_norm`] took, in place; adds the weights' own into
/// `dw` (of queries, of keys; `[D]` each) where they train.
pub fn head_norm_backward_(
    dqkv: &Tensor,
    qkv: &Tensor,
    rstd: &Tensor,
    h: Heads,
    n: HeadNorm,
    dw: Option<(&Tensor, &Tensor)>,
) -> Result<()> {
    let (t, row) = check(qkv, h, &n)?;
    let (d, normed) = (h.head_dim, h.heads + h.kv_heads);
    host::same(OP, "dqkv", dqkv.dims(), &[t, row])?;
    host::same(OP, "rstd", rstd.dims(), &[t, normed])?;
    let (x, rstd, q, k) = (host::read(qkv, OP)?, host::read(rstd, OP)?, host::read(n.q, OP)?, host::read(n.k, OP)?);
    let (x, rstd, q, k): (&[f32], &[f32], &[f32], &[f32]) = (&x, &rstd, &q, &k);
    let pieces: Vec<Vec<f32>> = host::write(dqkv, OP, |dy| {
        Ok(dy
            .par_chunks_mut(ROWS * row)
            .enumerate()
            .map(|(piece, dy)| {
                let mut sums = vec![0f32; if dw.is_some() { 2 * d } else { 0 }];
                for (r, dy) in dy.chunks_exact_mut(row).enumerate() {
                    let i = piece * ROWS + r;
                    for (head, dy) in dy[..normed * d].chunks_exact_mut(d).enumerate() {
                        let (x, rstd) = (&x[i * row + head * d..][..d], rstd[i * normed + head]);
                        let (w, at) = if head < h.heads { (q, 0) } else { (k, d) };
                        if let Some(sums) = sums.get_mut(at..at + d) {
                            weight_gradient(dy, x, rstd, sums);
                        }
                        backward(dy, x, w, n.plus, rstd);
                    }
                }
                sums
            })
            .collect())
    })?;
    let Some((dq, dk)) = dw else { return Ok(()) };
    for (dw, at) in [(dq, 0), (dk, d)] {
        host::same(OP, "dw", dw.dims(), &[d])?;
        host::write(dw, OP, |dw| {
            for piece in &pieces {
                for (dw, p) in dw.iter_mut().zip(&piece[at..at + d]) {
                    *dw += p;
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::*;

    const H: Heads = Heads { heads: 4, kv_heads: 2, head_dim: 6 };

    fn reference(x: &[f64], q: &[f64], k: &[f64], plus: f64, eps: f64) -> Vec<f64> {
        let d = H.head_dim;
        let head = |(i, x): (usize, &[f64])| {
            let w = match i % (H.row() / d) {
                i if i < H.heads => q,
                i if i < H.heads + H.kv_heads => k,
                _ => return x.to_vec(),
            };
            let rstd = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / d as f64 + eps).sqrt();
            x.iter().zip(w).map(|(x, w)| x * rstd * (w + plus)).collect::<Vec<_>>()
        };
        x.chunks(d).enumerate().flat_map(head).collect()
    }

    #[test]
    fn it_agrees_with_f64_and_finite_differences_and_leaves_the_values_alone() {
        let (t, d) = (19, H.head_dim);
        let (x, q, k, dy) = (random(&[t, H.row()], 1), random(&[d], 2), random(&[d], 3), random(&[t, H.row()], 4));
        for plus in [0.0, 1.0] {
            let n = HeadNorm { q: &q, k: &k, plus, eps: 1e-5 };
            let of = |x: &[f64], q: &[f64], k: &[f64]| reference(x, q, k, f64::from(plus), 1e-5);
            let (xs, qs, ks, dys) = (f64s(&x), f64s(&q), f64s(&k), f64s(&dy));
            let (y, rstd) = head_norm(&x, H, n).unwrap();
            close(&f64s(&y), &of(&xs, &qs, &ks), 1e-6);
            let dx = dy.copy().unwrap();
            let (dq, dk) = (tensor(&[0.0; 6], &[d]), tensor(&[0.0; 6], &[d]));
            head_norm_backward_(&dx, &x, &rstd, H, n, Some((&dq, &dk))).unwrap();
            close(&f64s(&dx), &differences(&xs, |x| inner(&of(x, &qs, &ks), &dys)), 2e-6);
            close(&f64s(&dq), &differences(&qs, |q| inner(&of(&xs, q, &ks), &dys)), 2e-6);
            close(&f64s(&dk), &differences(&ks, |k| inner(&of(&xs, &qs, k), &dys)), 2e-6);
        }
    }
}
