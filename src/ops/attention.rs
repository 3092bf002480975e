//! Causal attention over packed sequences, with grouped queries.
//!
//! Scores exist for one block of queries at a time; the backward pass computes them again from the saved
//! log-sum-exp (Dao et al., "FlashAttention", 2022, without the tiling over keys).

use super::host::{self, Shared, Strided};
use super::matmul::block;
use super::simd::{dot, exp, max, sum, vectorized};
use crate::{Error, Result};
use candle_core::Tensor;
use gemm::Parallelism;
use rayon::prelude::*;

const OP: &str = "attention";
/// Queries whose scores exist at a time.
const QUERIES: usize = 64;

/// How a row of `qkv` is laid out: `heads` queries, then `kv_heads` keys, then as many values, each `head_dim` wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
}

impl Heads {
    /// Numbers in a row of queries, keys and values.
    pub fn row(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    fn check(&self, row: usize) -> Result<()> {
        if self.kv_heads == 0 || self.head_dim == 0 || !self.heads.is_multiple_of(self.kv_heads) || row != self.row() {
            return Err(Error::new(format!("attention: {self:?} does not describe rows of {row}")));
        }
        Ok(())
    }
}

fn sequences(cu_seqlens: &[u32], t: usize) -> Result<Vec<(usize, usize)>> {
    let ends: Vec<usize> = cu_seqlens.iter().map(|&c| c as usize).collect();
    if ends.first() != Some(&0) || ends.last() != Some(&t) || ends.windows(2).any(|w| w[0] > w[1]) {
        return Err(Error::new(format!("attention: {cu_seqlens:?} does not cut {t} tokens into sequences")));
    }
    Ok(ends.windows(2).map(|w| (w[0], w[1])).filter(|(a, b)| a < b).collect())
}

vectorized! {
    /// Scaled scores of one query to probabilities, in place; returns the log-sum-exp.
    fn softmax(s: &mut [f32]) -> f32 {
        let top = max(s);
        for s in s.iter_mut() {
            *s = exp(*s - top);
        }
        let total = sum(s.len(), |i| s[i]);
        let part = 1.0 / total;
        for s in s.iter_mut() {
            *s *= part;
        }
        top + total.ln()
    }
}

vectorized! {
    /// Scaled scores to probabilities, given the log-sum-exp; d(probabilities) to d(scores) without the scale.
    fn softmax_backward(s: &mut [f32], ds: &mut [f32], lse: f32, dout: &[f32], out: &[f32]) {
        let delta = dot(dout, out);
        for (s, ds) in s.iter_mut().zip(ds) {
            *s = exp(*s - lse);
            *ds = *s * (*ds - delta);
        }
    }
}

/// Rows of one head somewhere in memory.
#[derive(Clone, Copy)]
struct Rows {
    at: *const f32,
    row: usize,
}

fn lay(rows: usize, cols: usize, row: usize) -> Strided {
    Strided { rows, cols, row, col: 1 }
}

fn across(l: Strided) -> Strided {
    Strided { rows: l.cols, cols: l.rows, row: l.col, col: l.row }
}

/// One block: `n` queries, of which the first may see keys `0..=first`, the next one more, and so on.
///
/// # Safety
/// `q` has `n` rows, `k` and `v` have `first + n`, `o` has `n` rows of stride `o_row`, and nothing else touches those of `o`.
#[allow(clippy::too_many_arguments)]
unsafe fn forward_block(
    h: &Heads,
    n: usize,
    first: usize,
    q: Rows,
    k: Rows,
    v: Rows,
    o: (*mut f32, usize),
    lse: &mut [f32],
) {
    let (d, keys) = (h.head_dim, first + n);
    let mut s = host::room(n * keys);
    let ls = lay(n, keys, keys);
    // SAFETY: `s` is local and as large as its layout, the rest is promised by the caller.
    unsafe {
        let kt = across(lay(keys, d, k.row));
        block(s.as_mut_ptr(), ls, false, h.scale(), (q.at, lay(n, d, q.row)), (k.at, kt), Parallelism::None);
        for (i, (s, lse)) in s.chunks_exact_mut(keys).zip(lse.iter_mut()).enumerate() {
            let (seen, unseen) = s.split_at_mut(first + i + 1);
            *lse = softmax(seen);
            unseen.fill(0.0);
        }
        block(o.0, lay(n, d, o.1), false, 1.0, (s.as_ptr(), ls), (v.at, lay(keys, d, v.row)), Parallelism::None);
    }
}

/// `qkv [T, (H + 2K)·D]` (queries and keys already turned) to `(out [T, H·D], lse [H, T])`, f32. Query i of a sequence
/// sees its keys 0..=i; scores are divided by √D. `out` and `lse` are what the backward pass needs besides `qkv`.
pub fn attention(qkv: &Tensor, h: Heads, cu_seqlens: &[u32]) -> Result<(Tensor, Tensor)> {
    let (t, row) = host::dims2(qkv, OP)?;
    h.check(row)?;
    let d = h.head_dim;
    let tasks: Vec<_> = sequences(cu_seqlens, t)?
        .into_iter()
        .flat_map(|(a, b)| (a..b).step_by(QUERIES).map(move |q| (a, q, (q + QUERIES).min(b))))
        .flat_map(|(a, q, end)| (0..h.heads).map(move |head| (a, q, end, head)))
        .collect();
    let qkv = host::read(qkv, OP)?;
    let x: &[f32] = &qkv;
    let (mut out, mut lse) = (host::room(t * h.heads * d), host::room(h.heads * t));
    let (to, tl) = (Shared::new(&mut out), Shared::new(&mut lse));
    tasks.into_par_iter().for_each(|(a, q, end, head)| {
        let rows = |token: usize, head: usize| Rows { at: x[token * row + head * d..].as_ptr(), row };
        let kv = h.heads + head / h.group();
        // SAFETY: rows up to `end` exist, and this task alone has these queries of this head.
        unsafe {
            let lse = tl.slice(head * t + q, end - q);
            let o = (to.at((q * h.heads + head) * d), h.heads * d);
            forward_block(&h, end - q, q - a, rows(q, head), rows(a, kv), rows(a, kv + h.kv_heads), o, lse);
        }
    });
    Ok((host::tensor(out, &[t, h.heads * d])?, host::tensor(lse, &[h.heads, t])?))
}

/// The gradient of `qkv` (same shape), given `dout [T, H·D]` and what the forward pass took and gave.
pub fn attention_backward(
    dout: &Tensor,
    qkv: &Tensor,
    out: &Tensor,
    lse: &Tensor,
    h: Heads,
    cu_seqlens: &[u32],
) -> Result<Tensor> {
    let (t, row) = host::dims2(qkv, OP)?;
    h.check(row)?;
    let (d, wide) = (h.head_dim, h.heads * h.head_dim);
    host::same(OP, "dout", dout.dims(), &[t, wide])?;
    host::same(OP, "out", out.dims(), &[t, wide])?;
    host::same(OP, "lse", lse.dims(), &[h.heads, t])?;
    // A key's gradient sums over the queries of its group, so one task has a whole key head of a sequence.
    let tasks: Vec<_> =
        sequences(cu_seqlens, t)?.into_iter().flat_map(|(a, b)| (0..h.kv_heads).map(move |kv| (a, b, kv))).collect();
    let (dout, qkv, out, lse) =
        (host::read(dout, OP)?, host::read(qkv, OP)?, host::read(out, OP)?, host::read(lse, OP)?);
    let (dout, x, out, lse): (&[f32], &[f32], &[f32], &[f32]) = (&dout, &qkv, &out, &lse);
    let mut dx = host::room(t * row);
    let shared = Shared::new(&mut dx);
    tasks.into_par_iter().for_each(|(a, b, kv)| {
        let column = |head: usize| head * d;
        let (k, v) = (column(h.heads + kv), column(h.heads + h.kv_heads + kv));
        let (mut s, mut ds) = (host::room(QUERIES * (b - a)), host::room(QUERIES * (b - a)));
        let none = Parallelism::None;
        // The last block of the first head sees every key: it sets their gradients, the others add to them.
        let mut add = false;
        for head in kv * h.group()..(kv + 1) * h.group() {
            for q in (a..b).step_by(QUERIES).rev() {
                let end = (q + QUERIES).min(b);
                let (n, keys) = (end - q, end - a);
                let (ls, lk, lq) = (lay(n, keys, keys), lay(keys, d, row), lay(n, d, row));
                let (ld, scale) = (lay(n, d, wide), h.scale());
                let at = |token: usize, column: usize| x[token * row + column..].as_ptr();
                let go = dout[q * wide + column(head)..].as_ptr();
                let dat = |token: usize, column: usize| shared.at(token * row + column);
                // SAFETY: all rows lie within their slices; of `dx` this task alone has this key head and its queries.
                unsafe {
                    block(s.as_mut_ptr(), ls, false, scale, (at(q, column(head)), lq), (at(a, k), across(lk)), none);
                    block(ds.as_mut_ptr(), ls, false, 1.0, (go, ld), (at(a, v), across(lk)), none);
                    for i in 0..n {
                        let seen = q - a + i + 1;
                        let (s, ds) = (&mut s[i * keys..][..keys], &mut ds[i * keys..][..keys]);
                        let o = (q + i) * wide + column(head);
                        let lse = lse[head * t + q + i];
                        softmax_backward(&mut s[..seen], &mut ds[..seen], lse, &dout[o..o + d], &out[o..o + d]);
                        s[seen..].fill(0.0);
                        ds[seen..].fill(0.0);
                    }
                    let (sp, dsp) = (s.as_ptr(), ds.as_ptr());
                    block(dat(q, column(head)), lq, false, scale, (dsp, ls), (at(a, k), lk), none);
                    block(dat(a, k), lk, add, scale, (dsp, across(ls)), (at(q, column(head)), lq), none);
                    block(dat(a, v), lk, add, 1.0, (sp, across(ls)), (go, ld), none);
                }
                add = true;
            }
        }
    });
    host::tensor(dx, &[t, row])
}

/// Attention of T new tokens over `past` earlier ones: puts the new keys and values into the rows `past..past + T` of
/// `keys` and `values [capacity, K·D]`, then lets each new query see all before it and itself. `[T, H·D]`.
pub fn attention_cached(qkv: &Tensor, h: Heads, keys: &Tensor, values: &Tensor, past: usize) -> Result<Tensor> {
    let (t, row) = host::dims2(qkv, OP)?;
    h.check(row)?;
    let (d, narrow) = (h.head_dim, h.kv_heads * h.head_dim);
    let qkv = host::read(qkv, OP)?;
    let x: &[f32] = &qkv;
    for (cache, column) in [(keys, h.heads * d), (values, h.heads * d + narrow)] {
        let (capacity, width) = host::dims2(cache, OP)?;
        if width != narrow || past + t > capacity {
            return Err(Error::new(format!("{} tokens do not fit in a cache of {capacity}", past + t))
                .next("ask for fewer new tokens, or raise max_seq_length"));
        }
        host::write(cache, OP, |cache| {
            for i in 0..t {
                cache[(past + i) * narrow..][..narrow].copy_from_slice(&x[i * row + column..][..narrow]);
            }
            Ok(())
        })?;
    }
    let (keys, values) = (host::read(keys, OP)?, host::read(values, OP)?);
    let (keys, values): (&[f32], &[f32]) = (&keys, &values);
    let (mut out, mut lse) = (host::room(t * h.heads * d), host::room(h.heads * t));
    let (to, tl) = (Shared::new(&mut out), Shared::new(&mut lse));
    let tasks: Vec<_> = (0..t).step_by(QUERIES).flat_map(|q| (0..h.heads).map(move |head| (q, head))).collect();
    tasks.into_par_iter().for_each(|(q, head)| {
        let n = QUERIES.min(t - q);
        let kv = head / h.group() * d;
        let (k, v) = (Rows { at: keys[kv..].as_ptr(), row: narrow }, Rows { at: values[kv..].as_ptr(), row: narrow });
        let queries = Rows { at: x[q * row + head * d..].as_ptr(), row };
        // SAFETY: the caches hold `past + t` rows, and this task alone has these queries of this head.
        unsafe {
            let o = (to.at((q * h.heads + head) * d), h.heads * d);
            forward_block(&h, n, past + q, queries, k, v, o, tl.slice(head * t + q, n));
        }
    });
    host::tensor(out, &[t, h.heads * d])
}

#[cfg(test)]
#[path = "attention_tests.rs"]
mod tests;
