//! Launches of `kernels/elementwise.cu`. Shapes are row-major; `ld` is a row's stride in elements, a multiple of 8.

use super::device::Gpu;
use super::gemm::Mat;
use crate::Result;

/// Launch a kernel by name: grid, threads, then its parameters in order, each of the exact type that the kernel has.
macro_rules! launch {
    ($gpu:expr, $name:expr, $grid:expr, $threads:expr, $shared:expr, $($argument:expr),* $(,)?) => {{
        let gpu: &$crate::ops::cuda::device::Gpu = $gpu;
        let kernel = gpu.kernel($name)?;
        // SAFETY: the parameters are those of the kernel, in order; who calls this vouches for the memory behind them.
        unsafe {
            gpu.launch(kernel, $grid, $threads, $shared, &mut [$((&raw const $argument).cast_mut().cast()),*])
        }
    }};
}
pub(super) use launch;

/// The gated activation of an MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    Silu,
    GeluTanh,
}

impl Gate {
    fn kind(self) -> i32 {
        match self {
            Gate::Silu => 0,
            Gate::GeluTanh => 1,
        }
    }
}

/// Threads for a row of `n` numbers, eight each, and the rounds that they take: a power of 2.
fn row(n: usize) -> (usize, usize) {
    let eights = n.div_ceil(8);
    let rounds = eights.div_ceil(512).next_power_of_two();
    (eights.div_ceil(rounds).next_multiple_of(32), rounds)
}

/// Widest row of the norms: 8 rounds of 512 threads.
pub const WIDEST: usize = 32_768;

/// Rows `ids [t]` of `table [V, n]`, times `scale`, into `out [t, n]`.
pub fn embed(gpu: &Gpu, table: u64, ids: u64, out: Mat, (t, n): (usize, usize), scale: f32) -> Result<()> {
    let (n32, ld) = (n as i32, out.ld as i64);
    launch!(gpu, "embed", (t, 1, 1), 128, 0, table, ids, out.at, n32, ld, scale)
}

/// `y [t, n] = x / rms(x) · w`; with `rows` (addresses of u32, 0 for none) row i reads row `rows[i]` of `x`.
pub fn rms_norm(gpu: &Gpu, x: Mat, w: u64, y: Mat, (t, n): (usize, usize), eps: f64, rows: u64) -> Result<()> {
    let (x_ld, y_ld, n32, eps) = (x.ld as i64, y.ld as i64, n as i32, eps as f32);
    let (threads, rounds) = row(n);
    let name = format!("rms_norm_{rounds}");
    launch!(gpu, &name, (t, 1, 1), threads, 0, x.at, x_ld, w, y.at, y_ld, n32, eps, rows)
}

/// Adds the gradient of `x` into `d [·, n]`, given `dy [t, n]`; `rows` as in [`rms_norm`], for `x` and `d`.
#[allow(clippy::too_many_arguments)]
pub fn rms_norm_backward(
    gpu: &Gpu,
    dy: Mat,
    x: Mat,
    w: u64,
    d: Mat,
    (t, n): (usize, usize),
    eps: f64,
    rows: u64,
) -> Result<()> {
    let (dy_ld, x_ld, d_ld, n32, eps) = (dy.ld as i64, x.ld as i64, d.ld as i64, n as i32, eps as f32);
    let (threads, rounds) = row(n);
    let name = format!("rms_norm_backward_{rounds}");
    launch!(gpu, &name, (t, 1, 1), threads, 0, dy.at, dy_ld, x.at, x_ld, w, d.at, d_ld, n32, eps, rows)
}

/// Turn the first `heads` heads of width `d` of `x [t, ·]` in place, back where `back`. `angles` holds cosine and sine,
/// f32, `d / 2` pairs a position.
#[allow(clippy::too_many_arguments)]
pub fn rope(
    gpu: &Gpu,
    x: Mat,
    positions: u64,
    angles: u64,
    t: usize,
    heads: usize,
    d: usize,
    back: bool,
) -> Result<()> {
    let (ld, heads32, d32, sign) = (x.ld as i64, heads as i32, d as i32, if back { -1f32 } else { 1f32 });
    let threads = (heads * d / 16).next_multiple_of(32).clamp(32, 256);
    launch!(gpu, "rope", (t, 1, 1), threads, 0, x.at, ld, positions, angles, heads32, d32, sign)
}

/// `act [t, f] = gate(gu[.., ..f]) · gu[.., f..]`.
pub fn swiglu(gpu: &Gpu, gu: Mat, act: Mat, (t, f): (usize, usize), gate: Gate) -> Result<()> {
    let (gu_ld, act_ld, f32_, kind) = (gu.ld as i64, act.ld as i64, f as i32, gate.kind());
    launch!(gpu, "swiglu", (f.div_ceil(4096), t, 1), 256, 0, gu.at, gu_ld, act.at, act_ld, f32_, kind)
}

/// `gu [t, 2f]` becomes its gradient, given `dact [t, f]`; `act [t, f]` is written on the way.
pub fn swiglu_backward(gpu: &Gpu, gu: Mat, dact: Mat, act: Mat, (t, f): (usize, usize), gate: Gate) -> Result<()> {
    let (gu_ld, dact_ld, act_ld, f32_, kind) = (gu.ld as i64, dact.ld as i64, act.ld as i64, f as i32, gate.kind());
    let grid = (f.div_ceil(4096), t, 1);
    launch!(gpu, "swiglu_backward", grid, 256, 0, gu.at, gu_ld, dact.at, dact_ld, act.at, act_ld, f32_, kind)
}

/// `nll [t]` of the u32 `labels` under `logits [t, v]`, which become `scale` · their gradient unless `scale` is 0: times
/// `weights` (f32 `[t]` at this address) where that is not 0. `cap` is that of [`softcap`], which they went through; 0: none.
#[allow(clippy::too_many_arguments)]
pub fn cross_entropy(
    gpu: &Gpu,
    logits: Mat,
    labels: u64,
    nll: u64,
    (t, v): (usize, usize),
    scale: f64,
    cap: f32,
    weights: u64,
) -> Result<()> {
    let (ld, v32, scale) = (logits.ld as i64, v as i32, scale as f32);
    launch!(gpu, "cross_entropy", (t, 1, 1), 1024, 0, logits.at, ld, labels, nll, v32, scale, cap, weights)
}

/// `logits [t, v]` to `cap · tanh(logits / cap)`, in place; a cap of 0 leaves them.
pub fn softcap(gpu: &Gpu, logits: Mat, (t, v): (usize, usize), cap: f32) -> Result<()> {
    if cap == 0.0 {
        return Ok(());
    }
    let (ld, v32) = (logits.ld as i64, v as i32);
    launch!(gpu, "softcap", (v.div_ceil(2048), t, 1), 256, 0, logits.at, ld, v32, cap)
}

/// The entropy in nats of each row of `logits [t, v]` to f32 `out [t]`.
pub fn entropy(gpu: &Gpu, logits: Mat, (t, v): (usize, usize), out: u64) -> Result<()> {
    let (ld, v32) = (logits.ld as i64, v as i32);
    launch!(gpu, "entropy", (t, 1, 1), 1024, 0, logits.at, ld, v32, out)
}

/// `y [t, n] = a + b`.
pub fn add(gpu: &Gpu, a: Mat, b: Mat, y: Mat, (t, n): (usize, usize)) -> Result<()> {
    let (a_ld, b_ld, y_ld, n32) = (a.ld as i64, b.ld as i64, y.ld as i64, n as i32);
    launch!(gpu, "add", (t, 1, 1), 128, 0, a.at, a_ld, b.at, b_ld, y.at, y_ld, n32)
}

/// Norms over the heads of queries and keys: f32 weights `[d]` of each, and how many of each there are.
#[derive(Debug, Clone, Copy)]
pub struct HeadNorm {
    pub weights: [u64; 2],
    pub heads: [usize; 2],
    pub d: usize,
}

/// Normalise the heads of `x [t, ·]` in place; 1/rms to f32 `rstd [t, heads]`.
pub fn head_norm(gpu: &Gpu, x: Mat, n: &HeadNorm, rstd: u64, t: usize, eps: f64) -> Result<()> {
    let ([wq, wk], [heads, kv]) = (n.weights, n.heads.map(|h| h as i32));
    let (ld, d, eps) = (x.ld as i64, n.d as i32, eps as f32);
    launch!(gpu, "head_norm", (t, 1, 1), 256, 0, x.at, ld, wq, wk, rstd, heads, kv, d, eps)
}

/// `dx [t, ·]`, the gradient by what [`head_norm`] gave (`y`), becomes that by what it took.
pub fn head_norm_backward(gpu: &Gpu, dx: Mat, y: Mat, n: &HeadNorm, rstd: u64, t: usize) -> Result<()> {
    let ([wq, wk], [heads, kv]) = (n.weights, n.heads.map(|h| h as i32));
    let (dx_ld, y_ld, d) = (dx.ld as i64, y.ld as i64, n.d as i32);
    launch!(gpu, "head_norm_backward", (t, 1, 1), 256, 0, dx.at, dx_ld, y.at, y_ld, wq, wk, rstd, heads, kv, d)
}

/// `total += Σ v [n]`, f32 into f64, in a fixed order.
pub fn add_up(gpu: &Gpu, v: u64, n: usize, total: u64) -> Result<()> {
    let n32 = n as i32;
    launch!(gpu, "add_up", (1, 1, 1), 1024, 0, v, n32, total)
}

/// A matrix `[rows, cols]` of the f32 arena (from number `from` on) and the bf16 place that it is copied to.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    pub from: i64,
    pub rows: i32,
    pub cols: i32,
    pub to: u64,
    pub ld: i64,
}

/// Copy `count` matrices (an array of [`Spread`] on the card) from the arena to their places.
pub fn spread(gpu: &Gpu, arena: u64, entries: u64, count: usize) -> Result<()> {
    launch!(gpu, "spread", (96, count, 1), 256, 0, arena, entries)
}

/// Columns `from..to` of `x [rows, ·]` to 0, the first of them to `first`.
pub fn tails(gpu: &Gpu, x: Mat, rows: usize, (from, to): (usize, usize), first: f32) -> Result<()> {
    let (ld, rows32, from, to) = (x.ld as i64, rows as i32, from as i32, to as i32);
    launch!(gpu, "tails", (rows.div_ceil(256), 1, 1), 256, 0, x.at, ld, rows32, from, to, first)
}

/// `x [rows, cols]` uniform on ±bound, from stream `word` of `seed`; `cols` a multiple of 4.
pub fn fill_uniform(gpu: &Gpu, x: Mat, (rows, cols): (usize, usize), bound: f32, seed: u64, word: u32) -> Result<()> {
    let (ld, rows64, cols32) = (x.ld as i64, rows as i64, cols as i32);
    let grid = (rows * cols / 1024).clamp(1, 4096);
    launch!(gpu, "fill_uniform", (grid, 1, 1), 256, 0, x.at, ld, rows64, cols32, bound, seed, word)
}

/// The next token of each of `b` sequences from `logits [b, v]` into `ids`: temperature 0 takes the likeliest.
#[allow(clippy::too_many_arguments)]
pub fn pick(
    gpu: &Gpu,
    logits: Mat,
    (b, v): (usize, usize),
    temperature: f64,
    seed: u64,
    lengths: u64,
    ids: u64,
) -> Result<()> {
    let inverse = if temperature > 0.0 { (1.0 / temperature) as f32 } else { 0.0 };
    let (ld, v32) = (logits.ld as i64, v as i32);
    launch!(gpu, "pick", (b, 1, 1), 1024, 0, logits.at, ld, v32, inverse, seed, lengths, ids)
}

/// Lengths and positions of `b` sequences one further.
pub fn advance(gpu: &Gpu, lengths: u64, positions: u64, b: usize) -> Result<()> {
    let n = b as i32;
    launch!(gpu, "advance", (1, 1, 1), b.next_multiple_of(32), 0, lengths, positions, n)
}

/// The block `[rows, cols]` at `x` to 0.
pub fn clear_block(gpu: &Gpu, x: Mat, rows: usize, cols: usize) -> Result<()> {
    let (ld, rows32, cols32) = (x.ld as i64, rows as i32, cols as i32);
    launch!(gpu, "clear_block", (rows.div_ceil(8), 1, 1), 256, 0, x.at, ld, rows32, cols32)
}

/// A bf16 vector into a column of a matrix.
pub fn copy_column(gpu: &Gpu, from: u64, to: Mat, rows: usize) -> Result<()> {
    let (ld, rows32) = (to.ld as i64, rows as i32);
    launch!(gpu, "copy_column", (rows.div_ceil(256), 1, 1), 256, 0, from, to.at, ld, rows32)
}

/// Bytes at an address to 0, in stream order.
pub fn clear(gpu: &Gpu, at: u64, bytes: usize) -> Result<()> {
    super::adamw::zero(gpu, at, bytes)
}

/// The block `[rows, cols]` at `from` to `to`.
pub fn copy_block(gpu: &Gpu, from: Mat, to: Mat, (rows, cols): (usize, usize)) -> Result<()> {
    let (from_ld, to_ld, rows32, cols32) = (from.ld as i64, to.ld as i64, rows as i32, cols as i32);
    let grid = ((rows * cols).div_ceil(256), 1, 1);
    launch!(gpu, "copy_block", grid, 256, 0, from.at, from_ld, to.at, to_ld, rows32, cols32)
}
