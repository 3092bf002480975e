//! A frozen linear layer on the card with its adapters beside it, so that one product does both.
//!
//! The matrix of projections that share an input is stored with the adapters along its edges,
//!
//! ```text
//!            in columns      R columns   1
//!   out    ┌ W             │ B          │ bias ┐
//!   R rows └ A             │ (unused)          ┘
//! ```
//!
//! A forward product reads rows of W, B and bias against an input that carries `s·x·Aᵀ` and a one in the columns after
//! its own: LoRA and bias cost a few columns of one product. Going back reads W and A against an output gradient that
//! carries `s·dy·B`. R is the rank times the number of adapters; where one projection's B meets another's columns there
//! are zeros.

use super::super::params::Params;
use crate::Result;
use crate::memory::card::stride;
use crate::ops::cuda::device::{Buffer, Gpu};
use crate::ops::cuda::elementwise::{self, Spread};
use crate::ops::cuda::fp8::{self, Quantized};
use crate::ops::cuda::gemm::{Gemm, Mat, Out, Product};
use crate::ops::cuda::nf4::Nf4;

/// One projection's adapter.
#[derive(Debug)]
pub(super) struct Part {
    /// First output column and their number.
    pub out: (usize, usize),
    /// First column among the layer's R.
    pub rank: usize,
    /// First number of B's values (and gradients) in the arena.
    pub b: usize,
}

/// The adapters of one layer: A matrices side by side in the arena.
#[derive(Debug)]
pub(super) struct Adapters {
    pub parts: Vec<Part>,
    pub r: usize,
    /// First number of the A matrices in the arena, `[R, in]` together.
    pub a: usize,
    pub scale: f32,
}

impl Adapters {
    /// R.
    fn ranks(&self) -> usize {
        self.parts.len() * self.r
    }
}

/// Where W is.
pub(super) enum Store {
    /// bf16, laid out as drawn above.
    Half(Buffer),
    /// Four bits a weight; the layout above is made when it is needed. `spreads` on the card copy the adapters into it,
    /// one list a scratch buffer.
    Four { weight: Nf4, bias: Option<Buffer>, spreads: [Buffer; 2] },
    /// Eight bits a weight, both ways; the edges of the layout above stand apart in bf16: A, then the columns.
    Eight { weight: fp8::Weight, edges: Buffer },
}

/// The layout as products read it.
#[derive(Clone, Copy)]
pub(super) struct Laid<'a> {
    base: Base<'a>,
    /// A, `[R, in]`.
    a: Mat,
    /// B and bias, `[out, extra]`.
    columns: Mat,
}

#[derive(Clone, Copy)]
enum Base<'a> {
    /// W, with its columns beside it and A below.
    Half(Mat),
    Eight(&'a fp8::Weight),
}

/// The layer.
pub(super) struct Linear {
    pub out: usize,
    pub inputs: usize,
    /// Columns after the input's own: R, bias, and zeros up to a multiple of 8.
    pub extra: usize,
    pub bias: bool,
    pub adapters: Option<Adapters>,
    pub store: Store,
}

/// Where a layer's `s·x·Aᵀ` is kept between the ways.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ranks {
    /// Compute it, and put it here.
    Save(Mat),
    /// It is here.
    Kept(Mat),
}

/// What a pass needs of the card.
pub(super) struct Work<'a> {
    pub gpu: &'a Gpu,
    pub gemm: &'a Gemm,
    /// f32 values of what trains, and their gradients.
    pub values: u64,
    pub grads: u64,
    /// Where what meets an 8-bit weight is quantized.
    pub room: Quantized,
    /// Whether adapters count.
    pub adapter: bool,
}

impl Linear {
    pub fn ranks(&self) -> usize {
        self.adapters.as_ref().map_or(0, Adapters::ranks)
    }

    /// Row stride of the laid-out matrix, and of what it is multiplied with.
    pub fn ld(&self) -> usize {
        stride(self.inputs + self.extra)
    }

    /// The layout whose matrix is at `w`.
    fn laid(&self, w: Mat) -> Laid<'_> {
        Laid { base: Base::Half(w), a: w.part(self.out, 0), columns: w.part(0, self.inputs) }
    }

    /// The layout of an 8-bit weight whose edges are at this address.
    pub fn apart<'a>(&self, weight: &'a fp8::Weight, edges: u64) -> Laid<'a> {
        let a = Mat::new(edges, stride(self.inputs));
        let columns = Mat::new(edges + (2 * self.ranks() * a.ld) as u64, self.extra.max(8));
        Laid { base: Base::Eight(weight), a, columns }
    }

    /// Bytes of such edges.
    pub fn edges(&self) -> usize {
        2 * (self.ranks() * stride(self.inputs) + self.out * self.extra)
    }

    /// The adapters' way from the arena into the matrix at `w`.
    pub fn spreads(&self, w: Mat) -> Vec<Spread> {
        self.spreads_into(self.laid(w))
    }

    /// The same where the matrix is kept: nothing where it is made anew each time.
    pub fn lasting_spreads(&self) -> Vec<Spread> {
        match &self.store {
            Store::Half(b) => self.spreads(Mat::new(b.at(), self.ld())),
            Store::Four { .. } => Vec::new(),
            Store::Eight { weight, edges } => self.spreads_into(self.apart(weight, edges.at())),
        }
    }

    /// Where the bias of output 0 stands.
    pub fn bias_column(&self, laid: Laid) -> Mat {
        laid.columns.part(0, self.ranks())
    }

    fn spreads_into(&self, laid: Laid) -> Vec<Spread> {
        let Some(a) = &self.adapters else { return Vec::new() };
        let of = |from: usize, rows: usize, cols: usize, to: Mat| Spread {
            from: from as i64,
            rows: rows as i32,
            cols: cols as i32,
            to: to.at,
            ld: to.ld as i64,
        };
        let mut all = vec![of(a.a, a.ranks(), self.inputs, laid.a)];
        all.extend(a.parts.iter().map(|p| of(p.b, p.out.1, a.r, laid.columns.part(p.out.0, p.rank))));
        all
    }

    /// The matrix as drawn, made in scratch buffer `slot` (at `scratch`) where it is not kept.
    pub fn weight(&self, w: &Work, scratch: &[u64; 2], slot: usize) -> Result<Laid<'_>> {
        match &self.store {
            Store::Half(buffer) => Ok(self.laid(Mat::new(buffer.at(), self.ld()))),
            Store::Eight { weight, edges } => Ok(self.apart(weight, edges.at())),
            Store::Four { weight, bias, spreads } => {
                let m = Mat::new(scratch[slot], self.ld());
                weight.dequantize(w.gpu, m)?;
                if self.extra > 0 {
                    // Another layer's numbers stand where this one's zeros belong.
                    elementwise::clear_block(w.gpu, m.part(0, self.inputs), self.out, self.extra)?;
                }
                if let Some(bias) = bias {
                    let to = m.part(0, self.inputs + self.ranks());
                    elementwise::copy_column(w.gpu, bias.at(), to, self.out)?;
                }
                if let Some(a) = &self.adapters {
                    elementwise::spread(w.gpu, w.values, spreads[slot].at(), 1 + a.parts.len())?;
                }
                Ok(self.laid(m))
            }
        }
    }

    /// `y [t, out] = x·Wᵀ (+ c)`. `x [t, in]` has room for `extra` more columns, which are written.
    ///
    /// # Safety
    /// `t` rows of each are there; `weight` came from [`Linear::weight`].
    #[allow(clippy::too_many_arguments)]
    pub unsafe fn forward(
        &self,
        w: &Work,
        weight: Laid,
        x: Mat,
        t: usize,
        y: Mat,
        c: Option<Mat>,
        kept: Ranks,
    ) -> Result<()> {
        let ranks = self.ranks();
        let used = if w.adapter { ranks } else { 0 };
        if self.extra > used {
            let first = if self.bias && used == ranks { 1.0 } else { 0.0 };
            elementwise::tails(w.gpu, x, t, (self.inputs + used, self.inputs + self.extra), first)?;
            if self.bias && used != ranks {
                let at = self.inputs + ranks;
                elementwise::tails(w.gpu, x, t, (at, at + 1), 1.0)?;
            }
        }
        // SAFETY: the caller's promise.
        unsafe {
            self.ranks_of(w, weight, x, t, kept)?;
            let base = match weight.base {
                Base::Half(m) => m,
                Base::Eight(base) => {
                    base.forward((w.gpu, w.gemm), x, t, y, c, w.room)?;
                    if used == 0 && !self.bias {
                        return Ok(());
                    }
                    return w.gemm.run(&Product {
                        size: (t, self.out, self.extra),
                        a: x.part(0, self.inputs),
                        ta: false,
                        b: weight.columns,
                        tb: true,
                        alpha: 1.0,
                        c: Some(y),
                        d: y,
                        out: Out::Bf16,
                        scales: None,
                    });
                }
            };
            w.gemm.run(&Product {
                size: (t, self.out, self.inputs + self.extra),
                a: x,
                ta: false,
                b: base,
                tb: true,
                alpha: 1.0,
                c,
                d: y,
                out: Out::Bf16,
                scales: None,
            })
        }
    }

    /// The columns that the adapters put after `x`: `s·x·Aᵀ`.
    ///
    /// # Safety
    /// As [`Linear::forward`].
    unsafe fn ranks_of(&self, w: &Work, weight: Laid, x: Mat, t: usize, kept: Ranks) -> Result<()> {
        let Some(a) = self.adapters.as_ref().filter(|_| w.adapter) else { return Ok(()) };
        let _part = w.gpu.scope("lora");
        let tail = x.part(0, self.inputs);
        if let Ranks::Kept(from) = kept {
            return elementwise::copy_block(w.gpu, from, tail, (t, a.ranks()));
        }
        // SAFETY: the caller's promise; the result lies beside what is read.
        unsafe {
            w.gemm.run(&Product {
                size: (t, a.ranks(), self.inputs),
                a: x,
                ta: false,
                b: weight.a,
                tb: true,
                alpha: a.scale,
                c: None,
                d: tail,
                out: Out::Bf16,
                scales: None,
            })
        }?;
        match kept {
            Ranks::Save(to) => elementwise::copy_block(w.gpu, tail, to, (t, a.ranks())),
            Ranks::Kept(_) => Ok(()),
        }
    }

    /// Adds into the adapters' gradients, and writes `dx [t, in]` where wanted. `dy [t, out]` has room for R more
    /// columns; `h` is `s·x·Aᵀ`, as [`Ranks::Save`] kept it.
    ///
    /// # Safety
    /// `t` rows of each are there, and `dx` overlaps none of the others.
    #[allow(clippy::too_many_arguments)]
    pub unsafe fn backward(
        &self,
        w: &Work,
        weight: Laid,
        dy: Mat,
        x: Mat,
        h: Mat,
        t: usize,
        dx: Option<Mat>,
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe {
            self.ranks_back(w, weight, dy, t)?;
            self.gradients(w, dy, x, h, t)?;
            dx.map_or(Ok(()), |dx| self.input_gradient(w, weight, dy, t, dx))
        }
    }

    /// The columns after `dy [t, out]`: `s·dy·B`.
    ///
    /// # Safety
    /// As [`Linear::backward`].
    pub unsafe fn ranks_back(&self, w: &Work, weight: Laid, dy: Mat, t: usize) -> Result<()> {
        let Some(a) = &self.adapters else { return Ok(()) };
        let _part = w.gpu.scope("lora");
        // SAFETY: the caller's promise; the columns written lie beside those read.
        unsafe {
            w.gemm.run(&Product {
                size: (t, a.ranks(), self.out),
                a: dy,
                ta: false,
                b: weight.columns,
                tb: false,
                alpha: a.scale,
                c: None,
                d: dy.part(0, self.out),
                out: Out::Bf16,
                scales: None,
            })
        }
    }

    /// The adapters' own gradients: B's from `h`, A's from the columns after `dy`.
    ///
    /// # Safety
    /// As [`Linear::backward`], after [`Linear::ranks_back`].
    pub unsafe fn gradients(&self, w: &Work, dy: Mat, x: Mat, h: Mat, t: usize) -> Result<()> {
        let Some(a) = &self.adapters else { return Ok(()) };
        let _part = w.gpu.scope("lora");
        let add = |size, a: Mat, b: Mat, d: Mat| Product {
            size,
            a,
            ta: true,
            b,
            tb: false,
            alpha: 1.0,
            c: Some(d),
            d,
            out: Out::F32,
            scales: None,
        };
        // SAFETY: the caller's promise; gradients lie in the arena, apart from all activations.
        unsafe {
            for p in &a.parts {
                let db = Mat::new(w.grads + 4 * p.b as u64, a.r);
                w.gemm.run(&add((p.out.1, a.r, t), dy.part(0, p.out.0), h.part(0, p.rank), db))?;
            }
            let da = Mat::new(w.grads + 4 * a.a as u64, self.inputs);
            w.gemm.run(&add((a.ranks(), self.inputs, t), dy.part(0, self.out), x, da))
        }
    }

    /// `dx [t, in]`, given `dy` and the columns after it.
    ///
    /// # Safety
    /// As [`Linear::backward`], after [`Linear::ranks_back`].
    pub unsafe fn input_gradient(&self, w: &Work, weight: Laid, dy: Mat, t: usize, dx: Mat) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe {
            let base = match weight.base {
                Base::Half(m) => m,
                Base::Eight(base) => {
                    base.backward((w.gpu, w.gemm), dy, t, dx, w.room)?;
                    if self.ranks() == 0 {
                        return Ok(());
                    }
                    return w.gemm.run(&Product {
                        size: (t, self.inputs, self.ranks()),
                        a: dy.part(0, self.out),
                        ta: false,
                        b: weight.a,
                        tb: false,
                        alpha: 1.0,
                        c: Some(dx),
                        d: dx,
                        out: Out::Bf16,
                        scales: None,
                    });
                }
            };
            w.gemm.run(&Product {
                size: (t, self.inputs, self.out + self.ranks()),
                a: dy,
                ta: false,
                b: base,
                tb: false,
                alpha: 1.0,
                c: None,
                d: dx,
                out: Out::Bf16,
                scales: None,
            })
        }
    }
}

/// The adapters that `params` has for projections `(prefix, first output column, width)`.
pub(super) fn adapters(
    params: &Params,
    r: usize,
    scale: f32,
    projections: &[(String, usize, usize)],
) -> Option<Adapters> {
    let start = |name: String| params.entries().iter().find(|e| e.name == name).map(|e| e.range.start);
    let mut parts = Vec::new();
    let mut first = None;
    for (prefix, at, width) in projections {
        let (a, b) = super::super::lora::names(prefix);
        let (Some(a), Some(b)) = (start(a), start(b)) else { continue };
        first.get_or_insert(a);
        parts.push(Part { out: (*at, *width), rank: parts.len() * r, b });
    }
    first.map(|a| Adapters { parts, r, a, scale })
}
