//! Launches of `kernels/attention*.cu`: causal attention over packed sequences, both ways.
//!
//! There is a kernel a head size; on Hopper sizes 64 and 128 have one of their own.

use super::device::{Gpu, driver};
use super::elementwise::launch;
use super::gemm::Mat;
use crate::{Error, Result};
use cudarc::driver::sys;

/// Head sizes that there are kernels for.
pub const HEAD_SIZES: [usize; 5] = [64, 80, 96, 128, 256];

/// What of attention a model's shape and a card decide.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// A query sees this many keys, its own included; 0: all before it.
    pub window: usize,
    /// Scores are softly held below this; 0: not.
    pub cap: f64,
}

/// A batch, as attention sees it: lists of tiles on the card, each with its length.
#[derive(Debug, Clone, Copy)]
pub struct Packed {
    pub shape: Shape,
    pub tokens: usize,
    pub forward: (u64, usize),
    pub dq: (u64, usize),
    pub dkv: (u64, usize),
    /// f32 `[splits, tokens, 2 · kv_heads · D]`; not read where there is one split.
    pub partial: u64,
    pub splits: usize,
}

/// The kernels' parameter, as kernels/attention_math.cuh has it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Params {
    qkv: u64,
    out: u64,
    lse: u64,
    dout: u64,
    delta: u64,
    dqkv: u64,
    partial: u64,
    tiles: u64,
    qkv_row: i64,
    out_row: i64,
    dout_row: i64,
    dqkv_row: i64,
    tokens: i32,
    heads: i32,
    kv_heads: i32,
    n_tiles: i32,
    window: i32,
    splits: i32,
    scale: f32,
    softcap: f32,
}

/// The Hopper kernels': where queries, keys and values are, and the output's gradient, as the copy engine wants it.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct HopperParams {
    qkv: sys::CUtensorMap,
    dout: sys::CUtensorMap,
    params: Params,
}

/// Kernels by head size: which, and how many tokens their tiles have.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    hopper: bool,
    forward: usize,
    backward: usize,
}

/// Keys, queries and stages that the Hopper kernels are built with.
const HOPPER_KEYS: usize = 128;
const HOPPER_QUERIES: usize = 64;
const HOPPER_STAGES: (usize, usize) = (2, 3);

impl Shape {
    fn sizes(&self, gpu: &Gpu) -> Sizes {
        let hopper = gpu.is_hopper() && matches!(self.head_dim, 64 | 128);
        let forward = if self.head_dim == 256 { 64 } else { 128 };
        Sizes { hopper, forward, backward: if hopper { 128 } else { 64 } }
    }

    /// Into how many parts the query heads of a group are cut, so that keys' gradients fill the card.
    pub fn splits(&self, gpu: &Gpu, tokens: usize) -> usize {
        let items = self.kv_heads * tokens.div_ceil(self.sizes(gpu).backward);
        let group = self.heads / self.kv_heads.max(1);
        let enough = |s: &usize| group.is_multiple_of(*s) && items * s >= 2 * gpu.multiprocessors();
        (1..=group).find(enough).unwrap_or(group.max(1))
    }

    /// Lists of tiles for forward, dq and dkv: (sequence start, end, first token, 0), those with most work first.
    pub fn tiles(&self, gpu: &Gpu, cu_seqlens: &[u32], t: usize) -> Result<[Vec<[i32; 4]>; 3]> {
        let whole = cu_seqlens.first() == Some(&0) && cu_seqlens.last() == Some(&(t as u32));
        if !whole || cu_seqlens.windows(2).any(|w| w[0] > w[1]) {
            return Err(Error::new(format!("attention: {cu_seqlens:?} does not cut {t} tokens into sequences")));
        }
        let of = |size: usize, keys: bool| {
            let mut all: Vec<[i32; 4]> = cu_seqlens
                .windows(2)
                .flat_map(|w| (w[0]..w[1]).step_by(size).map(move |at| [w[0] as i32, w[1] as i32, at as i32, 0]))
                .collect();
            let most = if self.window > 0 { (self.window + size) as i32 } else { i32::MAX };
            all.sort_by_key(|[start, end, at, _]| {
                let seen = if keys { end - at } else { at + size as i32 - start };
                std::cmp::Reverse(seen.min(most))
            });
            all
        };
        let s = self.sizes(gpu);
        Ok([of(s.forward, false), of(s.backward, false), of(s.backward, true)])
    }

    /// Allow the kernels the shared memory that they take.
    pub fn prepare(&self, gpu: &Gpu) -> Result<()> {
        let (s, d) = (self.sizes(gpu), self.head_dim);
        let (names, sizes) = if s.hopper {
            (["fwd", "dq", "dkv"].map(|n| format!("attention_{n}_{d}_hopper")), hopper_shared(d))
        } else {
            (["fwd", "dq", "dkv"].map(|n| format!("attention_{n}_{d}")), shared(d))
        };
        for (name, bytes) in names.iter().zip(sizes) {
            gpu.allow_shared(gpu.kernel(name)?, bytes)?;
        }
        Ok(())
    }
}

/// Bytes of shared memory of forward, dq and dkv.
fn hopper_shared(d: usize) -> [usize; 3] {
    let (two, three) = HOPPER_STAGES;
    [
        (128 + 2 * two * HOPPER_KEYS) * d * 2 + 16 + 32 * two,
        (256 + 2 * two * HOPPER_KEYS) * d * 2 + 16 + 32 * two,
        (256 + 2 * three * HOPPER_QUERIES) * d * 2 + three * HOPPER_QUERIES * 8 + 16 + 16 * three,
    ]
}

fn shared(d: usize) -> [usize; 3] {
    let queries = match d {
        64 => 64,
        256 => 16,
        _ => 32,
    };
    let row = (d + 8) * 2;
    let tile = if d == 256 { 64 } else { 128 };
    [(tile + 128) * row, (128 + 2 * if d == 256 { 32 } else { 64 }) * row, (128 + 4 * queries) * row]
}

/// A bf16 matrix `[rows, columns]` for the copy engine, in swizzled boxes of 64 by 64.
fn tensor_map(m: Mat, rows: usize, columns: usize) -> Result<sys::CUtensorMap> {
    // SAFETY: plain numbers, for which zero is a value; the driver fills them.
    let mut map: sys::CUtensorMap = unsafe { std::mem::zeroed() };
    let (sizes, strides) = ([columns as u64, rows as u64], [2 * m.ld as u64]);
    let (tile, steps) = ([64u32, 64], [1u32, 1]);
    // SAFETY: the arrays have as many numbers as the rank asks for.
    unsafe {
        sys::cuTensorMapEncodeTiled(
            &raw mut map,
            sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            2,
            m.at as *mut std::ffi::c_void,
            sizes.as_ptr(),
            strides.as_ptr(),
            tile.as_ptr(),
            steps.as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
        .result()
    }
    .map_err(driver("describing a matrix to the copy engine"))?;
    Ok(map)
}

impl Packed {
    fn params(&self, qkv: Mat) -> Params {
        let s = self.shape;
        Params {
            qkv: qkv.at,
            out: 0,
            lse: 0,
            dout: 0,
            delta: 0,
            dqkv: 0,
            partial: self.partial,
            tiles: 0,
            qkv_row: qkv.ld as i64,
            out_row: 0,
            dout_row: 0,
            dqkv_row: 0,
            tokens: self.tokens as i32,
            heads: s.heads as i32,
            kv_heads: s.kv_heads as i32,
            n_tiles: 0,
            window: s.window as i32,
            splits: self.splits as i32,
            scale: 1.0 / (s.head_dim as f32).sqrt(),
            softcap: s.cap as f32,
        }
    }

    fn columns(&self) -> usize {
        (self.shape.heads + 2 * self.shape.kv_heads) * self.shape.head_dim
    }
}

/// One kernel over a list of tiles: Hopper's take work until there is none, the others have a block an item.
#[allow(clippy::too_many_arguments)]
fn over(
    gpu: &Gpu,
    kind: &str,
    p: &Packed,
    mut params: Params,
    list: (u64, usize),
    columns: usize,
    which: usize,
    maps: Option<(sys::CUtensorMap, sys::CUtensorMap)>,
) -> Result<()> {
    let d = p.shape.head_dim;
    (params.tiles, params.n_tiles) = (list.0, list.1 as i32);
    match maps {
        Some((qkv, dout)) => {
            let params = HopperParams { qkv, dout, params };
            let grid = (gpu.multiprocessors().min(columns * list.1), 1, 1);
            launch!(gpu, &format!("attention_{kind}_{d}_hopper"), grid, 384, hopper_shared(d)[which], params)
        }
        None => {
            let depth = if kind == "dkv" && d == 256 { 2 } else { 1 };
            let grid = (columns, list.1, depth);
            launch!(gpu, &format!("attention_{kind}_{d}"), grid, 128, shared(d)[which], params)
        }
    }
}

/// `qkv [T, (H + 2K)·D]` (queries and keys already turned) to `out [T, H·D]` and `lse [H, T]`, f32.
pub fn forward(gpu: &Gpu, p: &Packed, qkv: Mat, out: Mat, lse: u64) -> Result<()> {
    let mut params = p.params(qkv);
    (params.out, params.lse, params.out_row) = (out.at, lse, out.ld as i64);
    let maps = match p.shape.sizes(gpu).hopper {
        true => {
            let map = tensor_map(qkv, p.tokens, p.columns())?;
            Some((map, map))
        }
        false => None,
    };
    over(gpu, "fwd", p, params, p.forward, p.shape.heads, 0, maps)
}

/// The gradient `dqkv` of `qkv`, given `dout [T, H·D]` and what the forward pass took and gave. `delta`: room for
/// `[H, T]` f32.
#[allow(clippy::too_many_arguments)]
pub fn backward(gpu: &Gpu, p: &Packed, qkv: Mat, out: Mat, lse: u64, dout: Mat, delta: u64, dqkv: Mat) -> Result<()> {
    let (s, t) = (p.shape, p.tokens);
    let mut params = p.params(qkv);
    (params.out, params.out_row) = (out.at, out.ld as i64);
    (params.dout, params.dout_row) = (dout.at, dout.ld as i64);
    (params.dqkv, params.dqkv_row) = (dqkv.at, dqkv.ld as i64);
    (params.lse, params.delta) = (lse, delta);
    let name = |kind: &str| format!("attention_{kind}_{}", s.head_dim);
    launch!(gpu, &name("delta"), ((t * s.heads).div_ceil(16), 1, 1), 128, 0, params)?;
    let maps = match s.sizes(gpu).hopper {
        true => Some((tensor_map(qkv, t, p.columns())?, tensor_map(dout, t, s.heads * s.head_dim)?)),
        false => None,
    };
    over(gpu, "dq", p, params, p.dq, s.heads, 1, maps)?;
    over(gpu, "dkv", p, params, p.dkv, s.kv_heads * p.splits, 2, maps)?;
    if p.splits > 1 {
        launch!(gpu, &name("dkv_sum"), (t, 1, 1), 128, 0, params)?;
    }
    Ok(())
}
