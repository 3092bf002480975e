//! One decoder block on the card: the same arithmetic as [`super::super::block`], in the order that touches least memory.

use super::linear::{Linear, Work};
use super::workspace::{Slots, Workspace};
use crate::Result;
use crate::ops::cuda::attention::{self, Packed};
use crate::ops::cuda::elementwise::{self, Gate};
use crate::ops::cuda::gemm::Mat;

/// A block's weights. The norms are f32, at these addresses.
pub(super) struct Layer {
    pub attention_norm: u64,
    pub qkv: Linear,
    pub o: Linear,
    pub mlp_norm: u64,
    pub gate_up: Linear,
    pub down: Linear,
}

/// What all blocks of a pass share.
pub(super) struct Pass<'a> {
    pub work: Work<'a>,
    pub space: &'a Workspace,
    /// Two buffers for matrices that are not kept in 16 bits.
    pub scratch: [u64; 2],
    pub packed: Packed,
    pub positions: u64,
    pub angles: u64,
    pub tokens: usize,
    pub hidden: usize,
    pub intermediate: usize,
    pub eps: f64,
    pub gate: Gate,
}

impl Pass<'_> {
    fn heads(&self) -> usize {
        self.packed.shape.heads + self.packed.shape.kv_heads
    }
}

impl Layer {
    /// Norm, projections, attention and what it adds to the stream: fills `s`, reads `x [T, n]`.
    fn attend(&self, p: &Pass, x: Mat, s: &Slots) -> Result<()> {
        let (w, t, n) = (&p.work, p.tokens, p.hidden);
        let normed = p.space.shared.normed;
        elementwise::rms_norm(w.gpu, x, self.attention_norm, normed, (t, n), p.eps, 0)?;
        let qkv = self.qkv.weight(w, &p.scratch, 0)?;
        // SAFETY: all buffers are the workspace's, for `tokens` rows and more.
        unsafe { self.qkv.forward(w, qkv, normed, t, s.qkv, None) }?;
        self.turn(p, s.qkv, false)?;
        attention::forward(w.gpu, &p.packed, s.qkv, s.attended, s.lse)?;
        let o = self.o.weight(w, &p.scratch, 0)?;
        // SAFETY: as above.
        unsafe { self.o.forward(w, o, s.attended, t, s.h, Some(x)) }
    }

    fn turn(&self, p: &Pass, qkv: Mat, back: bool) -> Result<()> {
        let d = p.packed.shape.head_dim;
        elementwise::rope(p.work.gpu, qkv, p.positions, p.angles, p.tokens, p.heads(), d, back)
    }

    /// `x [T, n]` to `y [T, n]`; `s` keeps what it has room for.
    pub fn forward(&self, p: &Pass, x: Mat, s: &Slots, y: Mat) -> Result<()> {
        self.attend(p, x, s)?;
        let (w, n, f) = (&p.work, p.hidden, p.intermediate);
        let up = self.gate_up.weight(w, &p.scratch, 0)?;
        let down = self.down.weight(w, &p.scratch, 1)?;
        let sh = &p.space.shared;
        for (at, t) in p.space.tiles(p.tokens) {
            let h = s.h.part(at, 0);
            elementwise::rms_norm(w.gpu, h, self.mlp_norm, sh.tile_normed, (t, n), p.eps, 0)?;
            let gu = s.gate_up.map_or(sh.tile_gate_up, |m| m.part(at, 0));
            // SAFETY: the tile's buffers have a tile's rows, the rest all of them.
            unsafe { self.gate_up.forward(w, up, sh.tile_normed, t, gu, None) }?;
            elementwise::swiglu(w.gpu, gu, sh.tile_active, (t, f), p.gate)?;
            // SAFETY: as above.
            unsafe { self.down.forward(w, down, sh.tile_active, t, y.part(at, 0), Some(h)) }?;
        }
        Ok(())
    }

    /// Turns the stream's gradient above the block into that below, adding into the adapters' gradients. `again`: only
    /// `x` was kept. Unless `wanted`, what lies below the block's first adapters is left out.
    pub fn backward(&self, p: &Pass, x: Mat, s: &Slots, again: bool, wanted: bool) -> Result<()> {
        if again {
            let _part = p.work.gpu.scope("recompute");
            self.attend(p, x, s)?;
        }
        self.backward_mlp(p, s)?;
        let (w, t, n) = (&p.work, p.tokens, p.hidden);
        let (d, sh) = (p.space.stream, &p.space.shared);
        let o = self.o.weight(w, &p.scratch, 0)?;
        // SAFETY: all buffers are the workspace's, for `tokens` rows and more; none written is read in the same product.
        unsafe { self.o.backward(w, o, d, s.attended, t, Some(sh.dattended)) }?;
        attention::backward(w.gpu, &p.packed, s.qkv, s.attended, s.lse, sh.dattended, sh.delta, sh.dqkv)?;
        self.turn(p, sh.dqkv, true)?;
        elementwise::rms_norm(w.gpu, x, self.attention_norm, sh.normed, (t, n), p.eps, 0)?;
        let qkv = self.qkv.weight(w, &p.scratch, 0)?;
        // What attention gave back has been used up: its place takes the norm's gradient.
        let dnormed = Mat::new(sh.dattended.at, n);
        // SAFETY: as above.
        unsafe {
            self.qkv.ranks_of(w, qkv, sh.normed, t)?;
            self.qkv.backward(w, qkv, sh.dqkv, sh.normed, t, wanted.then_some(dnormed))?;
        }
        if wanted {
            elementwise::rms_norm_backward(w.gpu, dnormed, x, self.attention_norm, d, (t, n), p.eps, 0)?;
        }
        Ok(())
    }

    fn backward_mlp(&self, p: &Pass, s: &Slots) -> Result<()> {
        let (w, n, f) = (&p.work, p.hidden, p.intermediate);
        let up = self.gate_up.weight(w, &p.scratch, 0)?;
        let down = self.down.weight(w, &p.scratch, 1)?;
        let sh = &p.space.shared;
        for (at, t) in p.space.tiles(p.tokens) {
            let (h, d) = (s.h.part(at, 0), p.space.stream.part(at, 0));
            elementwise::rms_norm(w.gpu, h, self.mlp_norm, sh.tile_normed, (t, n), p.eps, 0)?;
            // SAFETY: the tile's buffers have a tile's rows, the rest all of them; none written is read in the same product.
            unsafe {
                let gu = match s.gate_up {
                    Some(kept) => {
                        self.gate_up.ranks_of(w, up, sh.tile_normed, t)?;
                        kept.part(at, 0)
                    }
                    None => {
                        let _part = w.gpu.scope("recompute");
                        self.gate_up.forward(w, up, sh.tile_normed, t, sh.tile_gate_up, None)?;
                        sh.tile_gate_up
                    }
                };
                // The gradient of what `down` read comes first, so that the gate is passed once, both ways.
                self.down.ranks_back(w, down, d, t)?;
                self.down.input_gradient(w, down, d, t, sh.tile_dactive)?;
                elementwise::swiglu_backward(w.gpu, gu, sh.tile_dactive, sh.tile_active, (t, f), p.gate)?;
                self.down.ranks_of(w, down, sh.tile_active, t)?;
                self.down.gradients(w, d, sh.tile_active, t)?;
                self.gate_up.backward(w, up, gu, sh.tile_normed, t, Some(sh.tile_dnormed))?;
            }
            elementwise::rms_norm_backward(w.gpu, sh.tile_dnormed, h, self.mlp_norm, d, (t, n), p.eps, 0)?;
        }
        Ok(())
    }
}
