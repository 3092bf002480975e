//! One decoder block on the card: the same arithmetic as [`super::super::block`], in the order that touches least memory.

use super::super::config::Rope;
use super::decode::CudaCache;
use super::linear::{Linear, Ranks, Work};
use super::workspace::{Slots, Workspace};
use crate::Result;
use crate::ops::cuda::attention::{self, Packed};
use crate::ops::cuda::elementwise::{self, Gate, HeadNorm};
use crate::ops::cuda::gemm::Mat;

/// A block's weights. The norms are f32, at these addresses, with what the family adds to them.
pub(super) struct Layer {
    pub attention_norm: u64,
    pub qkv: Linear,
    pub head_norm: Option<HeadNorm>,
    pub o: Linear,
    pub mlp_norm: u64,
    pub gate_up: Linear,
    pub down: Linear,
    /// After attention, and after the MLP, where the family has them.
    pub after: Option<[u64; 2]>,
    /// As [`attention::Shape::window`].
    pub window: usize,
    pub rope: Rope,
}

/// What queries look at.
pub(super) enum Reads<'a> {
    /// The sequences of a batch.
    Packed(Packed),
    /// The same, whose keys and values a cache takes up: (sequence, position) of each token at this address.
    Prompt(Packed, &'a CudaCache, u64),
    /// A cache: one new token a sequence.
    Cache(&'a CudaCache),
}

/// What all blocks of a pass share.
pub(super) struct Pass<'a> {
    pub work: Work<'a>,
    pub space: &'a Workspace,
    /// Two buffers for matrices that are not kept in 16 bits.
    pub scratch: [u64; 2],
    pub reads: Reads<'a>,
    pub positions: u64,
    /// Those of [`Rope::Global`], and of [`Rope::Local`].
    pub angles: [u64; 2],
    pub tokens: usize,
    /// Heads that are turned.
    pub heads: usize,
    pub head_dim: usize,
    pub hidden: usize,
    pub intermediate: usize,
    pub eps: f64,
    pub gate: Gate,
}

impl Layer {
    /// Columns of adapters in all four products.
    pub fn ranks(&self) -> usize {
        [&self.qkv, &self.o, &self.gate_up, &self.down].iter().map(|l| l.ranks()).sum()
    }

    /// Where what qkv's, o's, gate_up's and down's adapters made of their inputs is kept.
    fn adapted(&self, s: &Slots) -> [Mat; 4] {
        let mut at = 0;
        [&self.qkv, &self.o, &self.gate_up, &self.down].map(|l| {
            at += l.ranks();
            s.adapted.part(0, at - l.ranks())
        })
    }

    /// Norm, projections, attention and what it adds to the stream: fills `s`, reads `x [T, n]`. `again`: it is done a
    /// second time, and `s.adapted` is there from the first.
    fn attend(&self, p: &Pass, layer: usize, x: Mat, s: &Slots, again: bool) -> Result<()> {
        let (w, t, n) = (&p.work, p.tokens, p.hidden);
        let normed = p.space.shared.normed;
        let ranks = |m: Mat| if again { Ranks::Kept(m) } else { Ranks::Save(m) };
        let [of_qkv, of_o, ..] = self.adapted(s);
        elementwise::rms_norm(w.gpu, x, self.attention_norm, normed, (t, n), p.eps, 0)?;
        let qkv = self.qkv.weight(w, &p.scratch, 0)?;
        // SAFETY: all buffers are the workspace's, for `tokens` rows and more.
        unsafe { self.qkv.forward(w, qkv, normed, t, s.qkv, None, ranks(of_qkv)) }?;
        if let Some(norm) = &self.head_norm {
            elementwise::head_norm(w.gpu, s.qkv, norm, s.rstd, t, p.eps)?;
        }
        self.turn(p, s.qkv, false)?;
        match &p.reads {
            Reads::Packed(packed) => attention::forward(w.gpu, &self.seen(packed), s.qkv, s.attended, s.lse)?,
            Reads::Prompt(packed, cache, slots) => {
                attention::append(w.gpu, &cache.layer(layer, self.window), s.qkv, t, *slots)?;
                attention::forward(w.gpu, &self.seen(packed), s.qkv, s.attended, s.lse)?;
            }
            Reads::Cache(cache) => attention::decode(w.gpu, &cache.layer(layer, self.window), s.qkv, s.attended)?,
        }
        let o = self.o.weight(w, &p.scratch, 0)?;
        let Some([after, _]) = self.after else {
            // SAFETY: as above.
            return unsafe { self.o.forward(w, o, s.attended, t, s.h, Some(x), ranks(of_o)) };
        };
        // SAFETY: as above.
        unsafe { self.o.forward(w, o, s.attended, t, s.attention_share, None, ranks(of_o)) }?;
        elementwise::rms_norm(w.gpu, s.attention_share, after, normed, (t, n), p.eps, 0)?;
        elementwise::add(w.gpu, normed, x, s.h, (t, n))
    }

    /// A batch as this layer's queries see it.
    fn seen(&self, packed: &Packed) -> Packed {
        Packed { shape: attention::Shape { window: self.window, ..packed.shape }, ..*packed }
    }

    fn turn(&self, p: &Pass, qkv: Mat, back: bool) -> Result<()> {
        let angles = match self.rope {
            Rope::None => return Ok(()),
            Rope::Global => p.angles[0],
            Rope::Local => p.angles[1],
        };
        elementwise::rope(p.work.gpu, qkv, p.positions, angles, p.tokens, p.heads, p.head_dim, back)
    }

    /// The gradient of what attention (0) or the MLP (1) gave, `share [t, n]`, given that of the stream, `d`: `d` itself
    /// where no norm comes between. It has the room for adapters' columns that `d` has.
    fn share_gradient(&self, p: &Pass, which: usize, share: Mat, d: Mat, to: Mat, t: usize) -> Result<Mat> {
        let Some(after) = self.after else { return Ok(d) };
        let gpu = p.work.gpu;
        elementwise::clear(gpu, to.at, 2 * t * to.ld)?;
        elementwise::rms_norm_backward(gpu, d, share, after[which], to, (t, p.hidden), p.eps, 0)?;
        Ok(to)
    }

    /// `x [T, n]` to `y [T, n]`; `s` keeps what it has room for.
    pub fn forward(&self, p: &Pass, layer: usize, x: Mat, s: &Slots, y: Mat) -> Result<()> {
        self.attend(p, layer, x, s, false)?;
        let (w, n, f) = (&p.work, p.hidden, p.intermediate);
        let [.., of_up, of_down] = self.adapted(s);
        let up = self.gate_up.weight(w, &p.scratch, 0)?;
        let down = self.down.weight(w, &p.scratch, 1)?;
        let sh = &p.space.shared;
        for (at, t) in p.space.tiles(p.tokens) {
            let h = s.h.part(at, 0);
            elementwise::rms_norm(w.gpu, h, self.mlp_norm, sh.tile_normed, (t, n), p.eps, 0)?;
            let gu = s.gate_up.map_or(sh.tile_gate_up, |m| m.part(at, 0));
            let (of_up, of_down) = (Ranks::Save(of_up.part(at, 0)), Ranks::Save(of_down.part(at, 0)));
            // SAFETY: the tile's buffers have a tile's rows, the rest all of them.
            unsafe { self.gate_up.forward(w, up, sh.tile_normed, t, gu, None, of_up) }?;
            elementwise::swiglu(w.gpu, gu, sh.tile_active, (t, f), p.gate)?;
            let y = y.part(at, 0);
            let Some([_, after]) = self.after else {
                // SAFETY: as above.
                unsafe { self.down.forward(w, down, sh.tile_active, t, y, Some(h), of_down) }?;
                continue;
            };
            let share = s.mlp_share.part(at, 0);
            // SAFETY: as above.
            unsafe { self.down.forward(w, down, sh.tile_active, t, share, None, of_down) }?;
            elementwise::rms_norm(w.gpu, share, after, sh.tile_dnormed, (t, n), p.eps, 0)?;
            elementwise::add(w.gpu, sh.tile_dnormed, h, y, (t, n))?;
        }
        Ok(())
    }

    /// Turns the stream's gradient above the block into that below, adding into the adapters' gradients. `again`: only
    /// `x` was kept. Unless `wanted`, what lies below the block's first adapters is left out.
    pub fn backward(
        &self,
        p: &Pass,
        packed: &Packed,
        layer: usize,
        x: Mat,
        s: &Slots,
        (again, wanted): (bool, bool),
    ) -> Result<()> {
        if again {
            let _part = p.work.gpu.scope("recompute");
            self.attend(p, layer, x, s, true)?;
        }
        self.backward_mlp(p, s)?;
        let (w, t, n) = (&p.work, p.tokens, p.hidden);
        let (d, sh) = (p.space.stream, &p.space.shared);
        let [of_qkv, of_o, ..] = self.adapted(s);
        let o = self.o.weight(w, &p.scratch, 0)?;
        let dshare = self.share_gradient(p, 0, s.attention_share, d, p.space.share, t)?;
        // SAFETY: all buffers are the workspace's, for `tokens` rows and more; none written is read in the same product.
        unsafe { self.o.backward(w, o, dshare, s.attended, of_o, t, Some(sh.dattended)) }?;
        let packed = &self.seen(packed);
        attention::backward(w.gpu, packed, s.qkv, s.attended, s.lse, sh.dattended, sh.delta, sh.dqkv)?;
        self.turn(p, sh.dqkv, true)?;
        if let Some(norm) = &self.head_norm {
            // Attention is done with queries and keys: turned back, they are what their norms gave.
            self.turn(p, s.qkv, true)?;
            elementwise::head_norm_backward(w.gpu, sh.dqkv, s.qkv, norm, s.rstd, t)?;
        }
        elementwise::rms_norm(w.gpu, x, self.attention_norm, sh.normed, (t, n), p.eps, 0)?;
        let qkv = self.qkv.weight(w, &p.scratch, 0)?;
        // What attention gave back has been used up: its place takes the norm's gradient.
        let dnormed = Mat::new(sh.dattended.at, n);
        // SAFETY: as above.
        unsafe { self.qkv.backward(w, qkv, sh.dqkv, sh.normed, of_qkv, t, wanted.then_some(dnormed)) }?;
        if wanted {
            elementwise::rms_norm_backward(w.gpu, dnormed, x, self.attention_norm, d, (t, n), p.eps, 0)?;
        }
        Ok(())
    }

    fn backward_mlp(&self, p: &Pass, s: &Slots) -> Result<()> {
        let (w, n, f) = (&p.work, p.hidden, p.intermediate);
        let [.., of_up, of_down] = self.adapted(s);
        let up = self.gate_up.weight(w, &p.scratch, 0)?;
        let down = self.down.weight(w, &p.scratch, 1)?;
        let sh = &p.space.shared;
        for (at, t) in p.space.tiles(p.tokens) {
            let (h, d) = (s.h.part(at, 0), p.space.stream.part(at, 0));
            let (of_up, of_down) = (of_up.part(at, 0), of_down.part(at, 0));
            elementwise::rms_norm(w.gpu, h, self.mlp_norm, sh.tile_normed, (t, n), p.eps, 0)?;
            // SAFETY: the tile's buffers have a tile's rows, the rest all of them; none written is read in the same product.
            unsafe {
                let gu = match s.gate_up {
                    Some(kept) => kept.part(at, 0),
                    None => {
                        let _part = w.gpu.scope("recompute");
                        let kept = Ranks::Kept(of_up);
                        self.gate_up.forward(w, up, sh.tile_normed, t, sh.tile_gate_up, None, kept)?;
                        sh.tile_gate_up
                    }
                };
                let dshare = self.share_gradient(p, 1, s.mlp_share.part(at, 0), d, p.space.share.part(at, 0), t)?;
                // The gradient of what `down` read comes first, so that the gate is passed once, both ways.
                self.down.ranks_back(w, down, dshare, t)?;
                self.down.input_gradient(w, down, dshare, t, sh.tile_dactive)?;
                elementwise::swiglu_backward(w.gpu, gu, sh.tile_dactive, sh.tile_active, (t, f), p.gate)?;
                self.down.gradients(w, dshare, sh.tile_active, of_down, t)?;
                self.gate_up.backward(w, up, gu, sh.tile_normed, of_up, t, Some(sh.tile_dnormed))?;
            }
            elementwise::rms_norm_backward(w.gpu, sh.tile_dnormed, h, self.mlp_norm, d, (t, n), p.eps, 0)?;
        }
        Ok(())
    }
}
