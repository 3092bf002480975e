//! Launches of `kernels/attention*.cu`: causal attention over packed sequences, both ways.
//!
//! There is a kernel a head size; on Hopper sizes 64 and 128 have one of their own.

use super::device::{Gpu, driver};
use super::elementwise::launch;
use super::gemm::Mat;
use crate::{Error, Result};
use cudarc::driver::sys;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

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
    /// What scores are multiplied by.
    pub scale: f32,
}

/// What a kernel does, on the card: its tiles, how many, and by how many blocks where these share them out.
#[derive(Debug, Clone, Copy)]
pub struct List {
    pub at: u64,
    pub len: usize,
    pub blocks: usize,
}

/// The same, before it is sent.
#[derive(Debug, Clone)]
pub struct Work {
    /// (Sequence start, end, first token, column), see the kernels.
    pub tiles: Vec<[i32; 4]>,
    pub blocks: usize,
}

/// A batch, as attention sees it.
#[derive(Debug, Clone, Copy)]
pub struct Packed {
    pub shape: Shape,
    pub tokens: usize,
    pub forward: List,
    pub dq: List,
    pub dkv: List,
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

/// The Hopper kernels': where queries, keys and values are, the output and its gradient, as the copy engine wants it.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct HopperParams {
    qkv: sys::CUtensorMap,
    dout: sys::CUtensorMap,
    out: sys::CUtensorMap,
    params: Params,
}

/// How a kernel is launched: whether it is Hopper's, tokens of a tile, threads, bytes of shared memory.
#[derive(Debug, Clone, Copy)]
struct Launch {
    hopper: bool,
    tile: usize,
    threads: usize,
    shared: usize,
}

/// Forward, dq and dkv of a head size.
type Launches = [Launch; 3];

/// As kernels/attention_hopper.cu, attention_dq_hopper.cu and attention_dkv_hopper.cu are built: (warpgroups, keys at a time, stages of
/// keys and values, of queries) forward and for dq, (warpgroups, queries at a time, stages) for dkv. There is no backward
/// of size 256.
fn hopper(d: usize) -> [Option<Launch>; 3] {
    let forward = match d {
        64 => (3, 128, 3, 2),
        256 => (2, 64, 2, 1),
        _ => (2, 128, 2, 2),
    };
    let dq = (2, 128, 2, if d == 64 { 2 } else { 1 });
    let dkv = if d == 64 { (2, 128, 3) } else { (2, 64, 3) };
    let bytes = d.next_multiple_of(64) * 2;
    let of =
        |groups: usize, shared| Some(Launch { hopper: true, tile: 64 * groups, threads: 128 * (groups + 1), shared });
    let ((groups, keys, stages, more), size) = (forward, 64 * forward.0);
    let first = of(groups, (more * size + 2 * stages * keys) * bytes + 16 * more + 32 * stages);
    if d == 256 {
        return [first, None, None];
    }
    let ((groups, keys, stages, more), size) = (dq, 64 * dq.0);
    let second = of(groups, (3 * size * more + 2 * keys * stages) * bytes + 16 * more + 32 * stages);
    let ((groups, queries, stages), size) = (dkv, 64 * dkv.0);
    let third = of(groups, 2 * (size + stages * queries) * bytes + stages * queries * 8 + 16 + 16 * stages);
    [first, second, third]
}

/// As kernels/attention.cu and attention_backward.cu are built.
fn plain(d: usize) -> Launches {
    let queries = match d {
        64 => 64,
        256 => 16,
        _ => 32,
    };
    let row = (d + 8) * 2;
    let of = |tile, rows: usize| Launch { hopper: false, tile, threads: 128, shared: rows * row };
    let tile = if d == 256 { 64 } else { 128 };
    let keys = if d == 256 { 32 } else { 64 };
    [of(tile, tile + 128), of(64, 128 + 2 * keys), of(64, 128 + 4 * queries)]
}

impl Shape {
    fn launches(&self, gpu: &Gpu) -> Launches {
        let mut all = plain(self.head_dim);
        if gpu.is_hopper() {
            for (launch, better) in all.iter_mut().zip(hopper(self.head_dim)) {
                *launch = better.unwrap_or(*launch);
            }
        }
        all
    }

    /// Into how many parts the query heads of a group are cut, so that keys' gradients fill the card.
    pub fn splits(&self, gpu: &Gpu, tokens: usize) -> usize {
        let items = self.kv_heads * tokens.div_ceil(self.launches(gpu)[2].tile);
        let group = self.heads / self.kv_heads.max(1);
        // Nearly two rounds of items even out what the heaviest take longer.
        let enough = |s: &usize| 10 * items * s >= 19 * gpu.multiprocessors();
        (1..=group).find(enough).unwrap_or(group.max(1))
    }

    /// The work of forward, dq and dkv over packed sequences.
    pub fn work(&self, gpu: &Gpu, cu_seqlens: &[u32], t: usize, splits: usize) -> Result<[Work; 3]> {
        let whole = cu_seqlens.first() == Some(&0) && cu_seqlens.last() == Some(&(t as u32));
        if !whole || cu_seqlens.windows(2).any(|w| w[0] > w[1]) {
            return Err(Error::new(format!("attention: {cu_seqlens:?} does not cut {t} tokens into sequences")));
        }
        let launches = self.launches(gpu);
        let most = |size: usize| if self.window > 0 { self.window + size } else { usize::MAX };
        let mut at = 0;
        let works = launches.map(|l| {
            let keys = at == 2;
            at += 1;
            // Tokens that a tile of queries sees, or that see a tile of keys.
            let seen = |tile: &[i32; 4]| {
                let [start, end, first, _] = *tile;
                let n = if keys { end - first } else { (first + l.tile as i32).min(end) - start };
                (n as usize).min(most(l.tile))
            };
            let tiles: Vec<[i32; 4]> = cu_seqlens
                .windows(2)
                .flat_map(|w| (w[0]..w[1]).step_by(l.tile).map(move |at| [w[0] as i32, w[1] as i32, at as i32, 0]))
                .collect();
            if !l.hopper {
                let mut tiles = tiles;
                tiles.sort_by_key(|t| std::cmp::Reverse(seen(t)));
                return Work { tiles, blocks: 0 };
            }
            let columns = if keys { self.kv_heads * splits } else { self.heads };
            let group = self.heads / self.kv_heads;
            let heads = |column: usize| {
                let each = group.div_ceil(splits);
                let first = (column % splits * each).min(group);
                (first + each).min(group) - first
            };
            // What an item costs, in steps over tokens, its beginning and end included.
            let cost = |tile: &[i32; 4], column: usize| {
                if keys { seen(tile) * heads(column) + 256 } else { seen(tile) + 128 }
            };
            share_out(&tiles, columns, cost, gpu.multiprocessors())
        });
        Ok(works)
    }

    /// Allow the kernels the shared memory that they take.
    pub fn prepare(&self, gpu: &Gpu) -> Result<()> {
        let d = self.head_dim;
        for (kind, launch) in ["fwd", "dq", "dkv"].iter().zip(self.launches(gpu)) {
            let suffix = if launch.hopper { "_hopper" } else { "" };
            gpu.allow_shared(gpu.kernel(&format!("attention_{kind}_{d}{suffix}"))?, launch.shared)?;
        }
        gpu.allow_shared(gpu.kernel(&format!("attention_decode_{d}"))?, decode_shared(d, MOST_SPLITS))
    }
}

/// Give every tile of every column to a block, the heaviest left to the one with the least so far: block b's are at b,
/// b + blocks …, column -1 where it has no more.
fn share_out(tiles: &[[i32; 4]], columns: usize, cost: impl Fn(&[i32; 4], usize) -> usize, most: usize) -> Work {
    let mut items: Vec<(usize, [i32; 4])> = tiles
        .iter()
        .flat_map(|t| (0..columns).map(move |c| (*t, c)))
        .map(|(t, c)| (cost(&t, c), [t[0], t[1], t[2], c as i32]))
        .collect();
    items.sort_by_key(|i| std::cmp::Reverse(i.0));
    let blocks = most.min(items.len()).max(1);
    let mut load: BinaryHeap<Reverse<(usize, usize)>> = (0..blocks).map(|b| Reverse((0, b))).collect();
    let mut lists: Vec<Vec<[i32; 4]>> = vec![Vec::new(); blocks];
    for (work, item) in items {
        let Some(Reverse((least, b))) = load.pop() else { break };
        load.push(Reverse((least + work, b)));
        lists[b].push(item);
    }
    let rounds = lists.iter().map(Vec::len).max().unwrap_or(0);
    let none = [0, 0, 0, -1];
    let tiles = (0..rounds).flat_map(|r| lists.iter().map(move |l| l.get(r).copied().unwrap_or(none))).collect();
    Work { tiles, blocks }
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
            scale: s.scale,
            softcap: s.cap as f32,
        }
    }

    fn columns(&self) -> usize {
        (self.shape.heads + 2 * self.shape.kv_heads) * self.shape.head_dim
    }
}

/// One kernel over its list: Hopper's blocks go through their own shares, the others have a block an item.
fn over(
    gpu: &Gpu,
    which: usize,
    p: &Packed,
    mut params: Params,
    list: List,
    columns: usize,
    maps: Option<[sys::CUtensorMap; 3]>,
) -> Result<()> {
    let d = p.shape.head_dim;
    let kind = ["fwd", "dq", "dkv"][which];
    let launch = p.shape.launches(gpu)[which];
    (params.tiles, params.n_tiles) = (list.at, list.len as i32);
    match maps.filter(|_| launch.hopper) {
        Some([qkv, dout, out]) => {
            let params = HopperParams { qkv, dout, out, params };
            let name = format!("attention_{kind}_{d}_hopper");
            launch!(gpu, &name, (list.blocks, 1, 1), launch.threads, launch.shared, params)
        }
        None => {
            let depth = if which == 2 && d == 256 { 2 } else { 1 };
            let grid = (columns, list.len, depth);
            launch!(gpu, &format!("attention_{kind}_{d}"), grid, launch.threads, launch.shared, params)
        }
    }
}

/// `qkv [T, (H + 2K)·D]` (queries and keys already turned) to `out [T, H·D]` and `lse [H, T]`, f32.
pub fn forward(gpu: &Gpu, p: &Packed, qkv: Mat, out: Mat, lse: u64) -> Result<()> {
    let mut params = p.params(qkv);
    (params.out, params.lse, params.out_row) = (out.at, lse, out.ld as i64);
    let maps = match gpu.is_hopper() {
        true => Some([tensor_map(qkv, p.tokens, p.columns())?; 3]),
        false => None,
    };
    over(gpu, 0, p, params, p.forward, p.shape.heads, maps)
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
    let wide = s.heads * s.head_dim;
    let maps = match gpu.is_hopper() {
        true => Some([tensor_map(qkv, t, p.columns())?, tensor_map(dout, t, wide)?, tensor_map(out, t, wide)?]),
        false => None,
    };
    over(gpu, 1, p, params, p.dq, s.heads, maps)?;
    over(gpu, 2, p, params, p.dkv, s.kv_heads * p.splits, maps)?;
    if p.splits > 1 {
        launch!(gpu, &format!("attention_dkv_sum_{}", s.head_dim), (t, 1, 1), 128, 0, params)?;
    }
    Ok(())
}

/// Parts that a sequence's keys are cut into, at most.
const MOST_SPLITS: usize = 16;

fn decode_warps(d: usize) -> usize {
    if matches!(d, 128 | 256) { 4 } else { 8 }
}

fn decode_shared(d: usize, splits: usize) -> usize {
    16 * (decode_warps(d) * (d + 3) + splits) * 4
}

/// Where keys and values of a layer are kept: `[batch, capacity, K·D]` each, and how far each sequence is.
#[derive(Debug, Clone, Copy)]
pub struct Cached {
    pub shape: Shape,
    pub batch: usize,
    pub capacity: usize,
    pub keys: u64,
    pub values: u64,
    /// i32 `[batch]`: positions before the token that is read now.
    pub lengths: u64,
    /// f32 `[batch, heads, splits, D + 2]`, and zeroed counters u32 `[batch, pieces]`.
    pub partial: u64,
    pub counters: u64,
    pub splits: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct DecodeParams {
    qkv: u64,
    out: u64,
    keys: u64,
    values: u64,
    lengths: u64,
    partial: u64,
    counters: u64,
    slots: u64,
    qkv_row: i64,
    out_row: i64,
    cache_sequence: i64,
    cache_row: i64,
    batch: i32,
    heads: i32,
    kv_heads: i32,
    window: i32,
    splits: i32,
    append: i32,
    scale: f32,
    softcap: f32,
}

impl Cached {
    /// Blocks that share a sequence's heads.
    pub fn pieces(shape: &Shape) -> usize {
        shape.kv_heads * (shape.heads / shape.kv_heads).div_ceil(16)
    }

    /// Into how many parts keys are cut, so that `batch` sequences fill the card.
    pub fn splits_for(gpu: &Gpu, shape: &Shape, batch: usize) -> usize {
        (2 * gpu.multiprocessors()).div_ceil(batch * Self::pieces(shape)).clamp(1, MOST_SPLITS)
    }

    fn params(&self, qkv: Mat, out: Mat) -> DecodeParams {
        let s = self.shape;
        let row = s.kv_heads * s.head_dim;
        DecodeParams {
            qkv: qkv.at,
            out: out.at,
            keys: self.keys,
            values: self.values,
            lengths: self.lengths,
            partial: self.partial,
            counters: self.counters,
            slots: 0,
            qkv_row: qkv.ld as i64,
            out_row: out.ld as i64,
            cache_sequence: (self.capacity * row) as i64,
            cache_row: row as i64,
            batch: self.batch as i32,
            heads: s.heads as i32,
            kv_heads: s.kv_heads as i32,
            window: s.window as i32,
            splits: self.splits as i32,
            append: 1,
            scale: s.scale,
            softcap: s.cap as f32,
        }
    }
}

/// One new token a sequence, `qkv [batch, (H + 2K)·D]`, over all before it: its key and value are put into the cache.
pub fn decode(gpu: &Gpu, c: &Cached, qkv: Mat, out: Mat) -> Result<()> {
    let params = c.params(qkv, out);
    let d = c.shape.head_dim;
    let grid = (c.splits, Cached::pieces(&c.shape), c.batch);
    launch!(gpu, &format!("attention_decode_{d}"), grid, 32 * decode_warps(d), decode_shared(d, c.splits), params)
}

/// Keys and values of `t` rows of `qkv` into the cache; `slots` on the card says (sequence, position) of each, i32.
pub fn append(gpu: &Gpu, c: &Cached, qkv: Mat, t: usize, slots: u64) -> Result<()> {
    let params = DecodeParams { slots, ..c.params(qkv, qkv) };
    launch!(gpu, &format!("attention_append_{}", c.shape.head_dim), (t, 1, 1), 128, 0, params)
}
