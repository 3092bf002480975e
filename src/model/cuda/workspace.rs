//! The memory of a pass, laid out once for a number of tokens: no allocation happens inside a step.

use super::linear::Linear;
use crate::Result;
use crate::memory::card::{Keep, Plan, RING, Sizes};
use crate::ops::cuda::device::{Buffer, Gpu};
use crate::ops::cuda::fp8::Quantized;
use crate::ops::cuda::gemm::Mat;

/// Names of the components in the ledger.
pub(super) const ACTIVATIONS: &str = "activations";
pub(super) const WORKSPACE: &str = "workspace";

/// A block's own activations, or the shared ones.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slots {
    pub qkv: Mat,
    pub attended: Mat,
    pub lse: u64,
    pub h: Mat,
    /// 1/rms of the heads that have norms.
    pub rstd: u64,
    /// What attention and MLP gave, where norms come after them.
    pub attention_share: Mat,
    pub mlp_share: Mat,
    /// What the adapters made of their inputs, `[T, ranks]`: qkv's, o's, gate_up's, down's.
    pub adapted: Mat,
    /// Kept for all tokens; none where the MLP is worked through again tile by tile.
    pub gate_up: Option<Mat>,
}

/// What attention needs on its way back, and the loss, and an MLP tile: in one region, one after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shared {
    pub normed: Mat,
    pub dattended: Mat,
    pub dqkv: Mat,
    pub delta: u64,
    pub partial: u64,
    pub tile_normed: Mat,
    pub tile_gate_up: Mat,
    pub tile_active: Mat,
    pub tile_dactive: Mat,
    pub tile_dnormed: Mat,
    pub logits: Mat,
    pub hidden: Mat,
    pub dhidden: Mat,
    /// Apart from the region: what meets an 8-bit weight lies in it.
    pub room: Quantized,
}

pub(super) struct Workspace {
    pub plan: Plan,
    /// The gradient of the residual stream.
    pub stream: Mat,
    /// That of what attention or the MLP gave, where norms come after them.
    pub share: Mat,
    pub shared: Shared,
    pub nll: u64,
    layers: Vec<Slots>,
    inputs: Vec<u64>,
    hidden: usize,
    _held: Vec<Buffer>,
}

/// Cuts a buffer into matrices.
struct Cutter {
    at: u64,
    end: u64,
}

impl Cutter {
    fn take(&mut self, bytes: usize) -> u64 {
        let at = self.at;
        self.at += bytes.next_multiple_of(256) as u64;
        debug_assert!(self.at <= self.end);
        at
    }

    fn mat(&mut self, rows: usize, ld: usize) -> Mat {
        Mat::new(self.take(2 * rows * ld), ld)
    }
}

fn cut(buffer: &Buffer) -> Cutter {
    Cutter { at: buffer.at(), end: buffer.at() + buffer.size() as u64 }
}

impl Workspace {
    pub fn new(gpu: &Gpu, s: &Sizes, plan: Plan) -> Result<Self> {
        let (t, tile) = (plan.tokens, plan.tile);
        let mut held = Vec::new();
        let slots = |buffer: &Buffer, all: bool| {
            let mut c = cut(buffer);
            let (qkv, attended) = (c.mat(t, s.qkv()), c.mat(t, s.queries + s.extra[1]));
            let (h, lse) = (c.mat(t, s.hidden), c.take(4 * t * s.heads));
            let rstd = c.take(4 * t * s.normed);
            let attention_share = c.mat(if s.post_norms { t } else { 0 }, s.hidden);
            let gate_up = all.then(|| c.mat(t, s.gate_up()));
            let (adapted, mlp_share) = (Mat::new(0, s.ranks), Mat::new(0, s.hidden));
            Slots { qkv, attended, lse, h, rstd, attention_share, mlp_share, adapted, gate_up }
        };
        // Each matrix starts at a multiple of 256 bytes.
        let padded = |bytes: usize| bytes + 9 * 256;
        let passing = match plan.keep.contains(&Keep::Input) {
            true => {
                let buffer = gpu.zeros(WORKSPACE, padded(s.kept(Keep::Attention, t)))?;
                let slots = slots(&buffer, false);
                held.push(buffer);
                Some(slots)
            }
            false => None,
        };
        let mut layers = Vec::with_capacity(s.layers);
        for keep in &plan.keep {
            layers.push(match (keep, passing) {
                (Keep::Input, Some(passing)) => passing,
                _ => {
                    let buffer = gpu.zeros(ACTIVATIONS, padded(s.kept(*keep, t)))?;
                    let slots = slots(&buffer, *keep == Keep::Everything);
                    held.push(buffer);
                    slots
                }
            });
        }
        let count = if plan.offload { RING.min(s.layers + 1) } else { s.layers + 1 };
        let inputs = gpu.zeros(ACTIVATIONS, padded(0) + count * s.input(t).next_multiple_of(256))?;
        let mut c = cut(&inputs);
        let addresses = (0..count).map(|_| c.take(s.input(t))).collect();
        held.push(inputs);
        let adapted = gpu.zeros(ACTIVATIONS, padded(0) + s.layers * s.adapted(t).next_multiple_of(256))?;
        let mut c = cut(&adapted);
        for slots in &mut layers {
            slots.adapted = c.mat(t, s.ranks);
        }
        held.push(adapted);
        let shares = gpu.zeros(ACTIVATIONS, s.layers * s.share(t).next_multiple_of(256))?;
        let mut c = cut(&shares);
        for slots in layers.iter_mut().filter(|_| s.post_norms) {
            slots.mlp_share = c.mat(t, s.hidden);
        }
        held.push(shares);

        let streams = if s.post_norms { 2 } else { 1 };
        let stream = gpu.zeros(WORKSPACE, padded(streams * 2 * t * s.stream() + 4 * t))?;
        let mut c = cut(&stream);
        let (d, nll) = (c.mat(t, s.stream()), c.take(4 * t));
        let share = if s.post_norms { c.mat(t, s.stream()) } else { d };
        held.push(stream);

        let region = gpu.zeros(WORKSPACE, padded(s.shared(t, tile, plan.logits, plan.splits)))?;
        let (n, f) = (s.hidden, s.intermediate);
        let mut c = cut(&region);
        let (normed, dattended) = (c.mat(t, n + s.extra[0]), c.mat(t, s.queries.max(n)));
        let (dqkv, delta) = (c.mat(t, s.qkv() + s.extra[0]), c.take(4 * t * s.heads));
        let partial = c.take(s.partial(t, plan.splits));
        let mut c = cut(&region);
        let (tile_normed, tile_gate_up) = (c.mat(tile, n + s.extra[2]), c.mat(tile, s.gate_up()));
        let (tile_active, tile_dactive) = (c.mat(tile, f + s.extra[3]), c.mat(tile, f));
        let tile_dnormed = c.mat(tile, n);
        let mut c = cut(&region);
        let logits = c.mat(plan.logits, s.vocab.next_multiple_of(8));
        let (hidden, dhidden) = (c.mat(plan.logits, n), c.mat(plan.logits, n));
        held.push(region);
        let bytes = s.quantized(t, tile);
        let quantized = gpu.zeros(WORKSPACE, bytes)?;
        let scales = quantized.at() + bytes.saturating_sub(4 * t.max(tile)) as u64;
        let room = Quantized { at: quantized.at(), scales };
        held.push(quantized);
        let shared = Shared {
            normed,
            dattended,
            dqkv,
            delta,
            partial,
            tile_normed,
            tile_gate_up,
            tile_active,
            tile_dactive,
            tile_dnormed,
            logits,
            hidden,
            dhidden,
            room,
        };
        Ok(Self { plan, stream: d, share, shared, nll, layers, inputs: addresses, hidden: n, _held: held })
    }

    /// A block's activations.
    pub fn slots(&self, layer: usize) -> Slots {
        self.layers[layer]
    }

    /// Where block `layer` reads its input (and the head, at one past the last).
    pub fn input(&self, layer: usize) -> Mat {
        Mat::new(self.inputs[layer % self.inputs.len()], self.hidden)
    }

    /// Tiles of `t` tokens: first token and number.
    pub fn tiles(&self, t: usize) -> impl DoubleEndedIterator<Item = (usize, usize)> + use<> {
        let tile = self.plan.tile;
        (0..t).step_by(tile).map(move |at| (at, tile.min(t - at)))
    }
}

/// Columns after the inputs of these layers, up to the row's stride.
pub(super) fn extras(linears: [&Linear; 4]) -> [usize; 4] {
    linears.map(|l| l.ld() - l.inputs)
}
