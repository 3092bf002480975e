//! Causal attention over packed sequences, with grouped queries; over a sliding window, with soft-capped scores and with
//! sinks where a model has them.
//!
//! Scores exist for one block of queries at a time; the backward pass computes them again from the saved
//! log-sum-exp (Dao et al., "FlashAttention", 2022, without the tiling over keys).

use super::host::{self, Shared, Strided};
use super::matmul::block;
use super::simd::{dot, exp, max, sum, tanh, vectorized};
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

    /// Scores divided by √D, every earlier key seen.
    pub fn plain(self) -> Attention {
        let scale = 1.0 / (self.head_dim as f32).sqrt();
        Attention { heads: self, scale, softcap: None, window: None, sinks: None }
    }

    fn check(&self, row: usize) -> Result<()> {
        if self.kv_heads == 0 || self.head_dim == 0 || !self.heads.is_multiple_of(self.kv_heads) || row != self.row() {
            return Err(Error::new(format!("attention: {self:?} does not describe rows of {row}")));
        }
        Ok(())
    }
}

/// How scores are made and which keys are seen.
#[derive(Debug, Clone)]
pub struct Attention {
    pub heads: Heads,
    /// What a query times a key is multiplied by.
    pub scale: f32,
    /// Scores become `c · tanh(score / c)` (Gemma 2).
    pub softcap: Option<f32>,
    /// A query sees the last `w` keys, its own among them; all where there is none.
    pub window: Option<usize>,
    /// `[H]`: one more score a head, of a key without a value (gpt-oss).
    pub sinks: Option<Tensor>,
}

impl Attention {
    /// The first key that the query at `query` of its sequence sees.
    fn from(&self, query: usize) -> usize {
        self.window.map_or(0, |w| (query + 1).saturating_sub(w))
    }

    /// A score a head; −∞ where there are no sinks.
    fn sinks(&self) -> Result<Vec<f32>> {
        let Some(sinks) = &self.sinks else { return Ok(vec![f32::NEG_INFINITY; self.heads.heads]) };
        host::same(OP, "sinks", sinks.dims(), &[self.heads.heads])?;
        Ok(host::read(sinks, OP)?.to_vec())
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
    /// Scaled scores of one query to probabilities, in place; returns the log-sum-exp. `sink` is one more score (or −∞).
    fn softmax(s: &mut [f32], sink: f32) -> f32 {
        let top = max(s).max(sink);
        for s in s.iter_mut() {
            *s = exp(*s - top);
        }
        let total = sum(s.len(), |i| s[i]) + exp(sink - top);
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

vectorized! {
    fn cap(s: &mut [f32], softcap: f32) {
        for s in s {
            *s = softcap * tanh(*s / softcap);
        }
    }
}

vectorized! {
    /// d(capped scores) to d(scores), given the scores before the cap.
    fn cap_backward(s: &[f32], ds: &mut [f32], softcap: f32) {
        for (&s, ds) in s.iter().zip(ds) {
            let t = tanh(s / softcap);
            *ds *= 1.0 - t * t;
        }
    }
}

/// Rows of one head somewhere in memory.
#[derive(Clone, Copy)]
struct Rows {
    at: *const f32,
    row: usize,
}

impl Rows {
    /// Without the first `n`.
    fn after(self, n: usize) -> Self {
        Self { at: self.at.wrapping_add(n * self.row), ..self }
    }
}

fn lay(rows: usize, cols: usize, row: usize) -> Strided {
    Strided { rows, cols, row, col: 1 }
}

fn across(l: Strided) -> Strided {
    Strided { rows: l.cols, cols: l.rows, row: l.col, col: l.row }
}

/// One block: `n` queries, of which the first may see keys `0..=first`, the next one more, and so on, as far as the
/// window lets them.
///
/// # Safety
/// `q` has `n` rows, `k` and `v` have `first + n`, `o` has `n` rows of stride `o_row`, and nothing else touches those of `o`.
#[allow(clippy::too_many_arguments)]
unsafe fn forward_block(
    a: &Attention,
    n: usize,
    first: usize,
    q: Rows,
    (k, v): (Rows, Rows),
    sink: f32,
    o: (*mut f32, usize),
    lse: &mut [f32],
) {
    let (d, low) = (a.heads.head_dim, a.from(first));
    let (k, v, keys) = (k.after(low), v.after(low), first + n - low);
    let mut s = host::room(n * keys);
    let ls = lay(n, keys, keys);
    // SAFETY: `s` is local and as large as its layout, the rest is promised by the caller.
    unsafe {
        let kt = across(lay(keys, d, k.row));
        block(s.as_mut_ptr(), ls, false, a.scale, (q.at, lay(n, d, q.row)), (k.at, kt), Parallelism::None);
        for (i, (s, lse)) in s.chunks_exact_mut(keys).zip(lse.iter_mut()).enumerate() {
            let (before, s) = s.split_at_mut(a.from(first + i) - low);
            let (seen, unseen) = s.split_at_mut(first + i + 1 - low - before.len());
            if let Some(c) = a.softcap {
                cap(seen, c);
            }
            *lse = softmax(seen, sink);
            before.fill(0.0);
            unseen.fill(0.0);
        }
        block(o.0, lay(n, d, o.1), false, 1.0, (s.as_ptr(), ls), (v.at, lay(keys, d, v.row)), Parallelism::None);
    }
}

/// `qkv [T, (H + 2K)·D]` (queries and keys already turned) to `(out [T, H·D], lse [H, T])`, f32. Query i of a sequence
/// sees its keys 0..=i within the window. `out` and `lse` are what the backward pass needs besides `qkv`.
pub fn attention(qkv: &Tensor, a: &Attention, cu_seqlens: &[u32]) -> Result<(Tensor, Tensor)> {
    let (t, row) = host::dims2(qkv, OP)?;
    let (h, sinks) = (a.heads, a.sinks()?);
    h.check(row)?;
    let d = h.head_dim;
    let tasks: Vec<_> = sequences(cu_seqlens, t)?
        .into_iter()
        .flat_map(|(start, b)| (start..b).step_by(QUERIES).map(move |q| (start, q, (q + QUERIES).min(b))))
        .flat_map(|(start, q, end)| (0..h.heads).map(move |head| (start, q, end, head)))
        .collect();
    let qkv = host::read(qkv, OP)?;
    let x: &[f32] = &qkv;
    let (mut out, mut lse) = (host::room(t * h.heads * d), host::room(h.heads * t));
    let (to, tl) = (Shared::new(&mut out), Shared::new(&mut lse));
    tasks.into_par_iter().for_each(|(start, q, end, head)| {
        let rows = |token: usize, head: usize| Rows { at: x[token * row + head * d..].as_ptr(), row };
        let kv = h.heads + head / h.group();
        // SAFETY: rows up to `end` exist, and this task alone has these queries of this head.
        unsafe {
            let lse = tl.slice(head * t + q, end - q);
            let o = (to.at((q * h.heads + head) * d), h.heads * d);
            let kv = (rows(start, kv), rows(start, kv + h.kv_heads));
            forward_block(a, end - q, q - start, rows(q, head), kv, sinks[head], o, lse);
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
    a: &Attention,
    cu_seqlens: &[u32],
) -> Result<Tensor> {
    let (t, row) = host::dims2(qkv, OP)?;
    let h = a.heads;
    h.check(row)?;
    let (d, wide) = (h.head_dim, h.heads * h.head_dim);
    host::same(OP, "dout", dout.dims(), &[t, wide])?;
    host::same(OP, "out", out.dims(), &[t, wide])?;
    host::same(OP, "lse", lse.dims(), &[h.heads, t])?;
    // A key's gradient sums over the queries of its group, so one task has a whole key head of a sequence.
    let tasks: Vec<_> = sequences(cu_seqlens, t)?
        .into_iter()
        .flat_map(|(start, b)| (0..h.kv_heads).map(move |kv| (start, b, kv)))
        .collect();
    let (dout, qkv, out, lse) =
        (host::read(dout, OP)?, host::read(qkv, OP)?, host::read(out, OP)?, host::read(lse, OP)?);
    let (dout, x, out, lse): (&[f32], &[f32], &[f32], &[f32]) = (&dout, &qkv, &out, &lse);
    let mut dx = host::room(t * row);
    let shared = Shared::new(&mut dx);
    tasks.into_par_iter().for_each(|(start, b, kv)| {
        let column = |head: usize| head * d;
        let (k, v) = (column(h.heads + kv), column(h.heads + h.kv_heads + kv));
        let none = Parallelism::None;
        let dat = |token: usize, column: usize| shared.at(token * row + column);
        // Keys that a block of queries can see.
        let most = a.window.map_or(b - start, |w| (b - start).min(w.saturating_add(QUERIES)));
        let (mut s, mut ds) = (host::room(QUERIES * most), host::room(QUERIES * most));
        let mut raw = host::room(if a.softcap.is_some() { most } else { 0 });
        // The last block of the first head sees every key: it sets their gradients, the others add to them. Under a
        // window no block need see them all.
        let mut add = a.window.is_some_and(|w| w < b - start);
        if add {
            for token in start..b {
                for column in [k, v] {
                    // SAFETY: of `dx` this task alone has this key head's columns.
                    unsafe { shared.slice(token * row + column, d) }.fill(0.0);
                }
            }
        }
        for head in kv * h.group()..(kv + 1) * h.group() {
            for q in (start..b).step_by(QUERIES).rev() {
                let end = (q + QUERIES).min(b);
                let low = start + a.from(q - start);
                let (n, keys) = (end - q, end - low);
                let (ls, lk, lq) = (lay(n, keys, keys), lay(keys, d, row), lay(n, d, row));
                let (ld, scale) = (lay(n, d, wide), a.scale);
                let at = |token: usize, column: usize| x[token * row + column..].as_ptr();
                let go = dout[q * wide + column(head)..].as_ptr();
                // SAFETY: all rows lie within their slices; of `dx` this task alone has this key head and its queries.
                unsafe {
                    block(s.as_mut_ptr(), ls, false, scale, (at(q, column(head)), lq), (at(low, k), across(lk)), none);
                    block(ds.as_mut_ptr(), ls, false, 1.0, (go, ld), (at(low, v), across(lk)), none);
                    for i in 0..n {
                        let (s, ds) = (&mut s[i * keys..][..keys], &mut ds[i * keys..][..keys]);
                        let (from, to) = (start + a.from(q + i - start) - low, q + i + 1 - low);
                        let o = (q + i) * wide + column(head);
                        let lse = lse[head * t + q + i];
                        let (seen, dseen) = (&mut s[from..to], &mut ds[from..to]);
                        if let Some(c) = a.softcap {
                            raw[..seen.len()].copy_from_slice(seen);
                            cap(seen, c);
                        }
                        softmax_backward(seen, dseen, lse, &dout[o..o + d], &out[o..o + d]);
                        if let Some(c) = a.softcap {
                            cap_backward(&raw[..dseen.len()], dseen, c);
                        }
                        for unseen in [&mut s[..from], &mut ds[..from]] {
                            unseen.fill(0.0);
                        }
                        s[to..].fill(0.0);
                        ds[to..].fill(0.0);
                    }
                    let (sp, dsp) = (s.as_ptr(), ds.as_ptr());
                    block(dat(q, column(head)), lq, false, scale, (dsp, ls), (at(low, k), lk), none);
                    block(dat(low, k), lk, add, scale, (dsp, across(ls)), (at(q, column(head)), lq), none);
                    block(dat(low, v), lk, add, 1.0, (sp, across(ls)), (go, ld), none);
                }
                add = true;
            }
        }
    });
    host::tensor(dx, &[t, row])
}

/// Adds the gradient of the sinks into `dsinks [H]`; `dout`, `out` and `lse` as in [`attention_backward`].
pub fn sinks_backward(dout: &Tensor, out: &Tensor, lse: &Tensor, a: &Attention, dsinks: &Tensor) -> Result<()> {
    let (t, wide) = host::dims2(out, OP)?;
    let (h, sinks) = (a.heads, a.sinks()?);
    host::same(OP, "out", &[wide], &[h.heads * h.head_dim])?;
    host::same(OP, "dout", dout.dims(), &[t, wide])?;
    host::same(OP, "lse", lse.dims(), &[h.heads, t])?;
    host::same(OP, "dsinks", dsinks.dims(), &[h.heads])?;
    let (dout, out, lse) = (host::read(dout, OP)?, host::read(out, OP)?, host::read(lse, OP)?);
    let (dout, out, lse): (&[f32], &[f32], &[f32]) = (&dout, &out, &lse);
    host::write(dsinks, OP, |dsinks| {
        dsinks.par_iter_mut().enumerate().for_each(|(head, ds)| {
            for i in 0..t {
                let o = i * wide + head * h.head_dim;
                let delta = dot(&dout[o..o + h.head_dim], &out[o..o + h.head_dim]);
                *ds -= exp(sinks[head] - lse[head * t + i]) * delta;
            }
        });
        Ok(())
    })
}

/// Attention of T new tokens over `past` earlier ones: puts the new keys and values into the rows `past..past + T` of
/// `keys` and `values [capacity, K·D]`, then lets each new query see all before it and itself. `[T, H·D]`.
pub fn attention_cached(qkv: &Tensor, a: &Attention, keys: &Tensor, values: &Tensor, past: usize) -> Result<Tensor> {
    let (t, row) = host::dims2(qkv, OP)?;
    let (h, sinks) = (a.heads, a.sinks()?);
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
            forward_block(a, n, past + q, queries, (k, v), sinks[head], o, tl.slice(head * t + q, n));
        }
    });
    host::tensor(out, &[t, h.heads * d])
}

#[cfg(test)]
#[path = "attention_tests.rs"]
mod tests;
