//! AdamW on the card over the whole arena at once, its moments in f32 or 8 bits ([`crate::ops::adamw`] and
//! [`crate::ops::quant8`] are the same on the CPU, to the bit).

use super::device::{Buffer, Gpu, driver};
use super::elementwise::launch;
use crate::Result;
use crate::ops::adamw::{Factors, Rule};
use crate::ops::optimizer::{Codes, Moments, Optim};
use crate::ops::quant8::{BLOCK, Code};
use std::ops::Range;

const THREADS: usize = 256;
/// Partial sums of the norm.
const PARTIALS: usize = 512;
/// Of the 8-bit kernel: about four a multiprocessor of the largest cards.
const CTAS: usize = 1024;
const ZERO_GRADS: u32 = 1;
const LOSS_F64: u32 = 2;

/// The parameter of the kernel `adamw`, as kernels/adamw.cu has it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Step {
    values: u64,
    grads: u64,
    m: u64,
    v: u64,
    n: u64,
    decay: u64,
    norm_sq: u64,
    loss: u64,
    max_norm: f64,
    keep: f32,
    new1: f32,
    beta2: f32,
    new2: f32,
    rate: f32,
    root: f32,
    eps: f32,
    ranges: u32,
    flags: u32,
    reserved: u32,
}

/// The parameter of the kernel `adamw_8bit`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Step8 {
    step: Step,
    code_m: u64,
    code_v: u64,
    absmax_m: u64,
    absmax_v: u64,
}

/// What 8-bit moments need beside their codes.
struct Eight {
    /// The signed map, then the unsigned one.
    codes: Buffer,
    absmax_m: Buffer,
    absmax_v: Buffer,
}

/// Moments and steps taken.
pub struct State {
    m: Buffer,
    v: Buffer,
    eight: Option<Eight>,
    n: usize,
    decay: Buffer,
    ranges: usize,
    partials: Buffer,
    /// Steps that were asked for; one that was left out counts too until [`State::left_out`].
    pub t: u64,
}

impl State {
    /// Zero moments for `n` trainables, of which the ranges in `decay` (in order and apart) decay.
    pub fn new(gpu: &Gpu, component: &'static str, optim: Optim, n: usize, decay: &[Range<usize>]) -> Result<Self> {
        let list: Vec<u64> = decay.iter().flat_map(|r| [r.start as u64, r.end as u64]).collect();
        let held = gpu.zeros(component, 8 * list.len())?;
        held.upload(0, &list)?;
        let zeros = |bytes| gpu.zeros(component, bytes);
        let partials = zeros(8 * PARTIALS)?;
        let bytes = match optim {
            Optim::Torch => 4 * n,
            Optim::EightBit => n,
        };
        let (m, v) = (zeros(bytes)?, zeros(bytes)?);
        let eight = match optim {
            Optim::Torch => None,
            Optim::EightBit => {
                let (signed, unsigned) = (Code::dynamic(true), Code::dynamic(false));
                let codes = zeros(2 * 4 * 256)?;
                codes.upload(0, signed.values())?;
                codes.upload(4 * 256, unsigned.values())?;
                m.upload(0, &vec![signed.nearest(0.0); n])?;
                v.upload(0, &vec![unsigned.nearest(0.0); n])?;
                let blocks = 4 * n.div_ceil(BLOCK);
                Some(Eight { codes, absmax_m: zeros(blocks)?, absmax_v: zeros(blocks)? })
            }
        };
        Ok(Self { m, v, eight, n, decay: held, ranges: decay.len(), partials, t: 0 })
    }

    /// The step that was asked for last changed nothing.
    pub fn left_out(&mut self) {
        self.t = self.t.saturating_sub(1);
    }

    /// First and second moments.
    pub fn download(&self) -> Result<Moments> {
        let n = self.n;
        let Some(eight) = &self.eight else {
            let (mut m, mut v) = (vec![0f32; n], vec![0f32; n]);
            self.m.download(0, &mut m)?;
            self.v.download(0, &mut v)?;
            return Ok(Moments::Torch { m, v });
        };
        let blocks = n.div_ceil(BLOCK);
        let mut c = Codes { m: vec![0; n], v: vec![0; n], absmax_m: vec![0.0; blocks], absmax_v: vec![0.0; blocks] };
        self.m.download(0, &mut c.m)?;
        self.v.download(0, &mut c.v)?;
        eight.absmax_m.download(0, &mut c.absmax_m)?;
        eight.absmax_v.download(0, &mut c.absmax_v)?;
        Ok(Moments::EightBit(c))
    }

    /// Replace moments and step count.
    ///
    /// # Errors
    /// Another optimizer's, or of another number of trainables.
    pub fn upload(&mut self, moments: &Moments, t: u64) -> Result<()> {
        let optim = if self.eight.is_some() { Optim::EightBit } else { Optim::Torch };
        moments.fit(optim, self.n)?;
        match (moments, &self.eight) {
            (Moments::EightBit(c), Some(eight)) => {
                self.m.upload(0, &c.m)?;
                self.v.upload(0, &c.v)?;
                eight.absmax_m.upload(0, &c.absmax_m)?;
                eight.absmax_v.upload(0, &c.absmax_v)?;
            }
            (Moments::Torch { m, v }, _) => {
                self.m.upload(0, m)?;
                self.v.upload(0, v)?;
            }
            (Moments::EightBit(_), None) => {}
        }
        self.t = t;
        Ok(())
    }
}

/// Σ x² of `n` f32 numbers into the f64 at `to`.
pub fn l2(gpu: &Gpu, state: &State, x: u64, n: usize, to: u64) -> Result<()> {
    let (n64, partials, count) = (n as u64, state.partials.at(), PARTIALS as u32);
    launch!(gpu, "l2_partials", (PARTIALS, 1, 1), THREADS, 0, x, n64, partials)?;
    launch!(gpu, "l2_finish", (1, 1, 1), THREADS, 0, partials, count, to)
}

/// One step over the values with their gradients, which become 0. `(square, loss)` are f64 on the card: the squared
/// norm of the gradient, and a number that must be finite for the step to happen.
pub fn step(
    gpu: &Gpu,
    state: &mut State,
    values: u64,
    grads: u64,
    rule: &Rule,
    (square, loss): (u64, u64),
) -> Result<()> {
    state.t += 1;
    let n = state.n;
    // Clipping is the card's: it knows the norm.
    let f = Factors::new(rule.lr, (rule.beta1, rule.beta2), rule.eps, rule.weight_decay, state.t as f64, 1.0);
    let s = Step {
        values,
        grads,
        m: state.m.at(),
        v: state.v.at(),
        n: n as u64,
        decay: state.decay.at(),
        norm_sq: square,
        loss,
        max_norm: rule.max_grad_norm,
        keep: f.keep,
        new1: f.new1,
        beta2: f.beta2,
        new2: f.new2,
        rate: f.rate,
        root: f.root,
        eps: f.eps,
        ranges: state.ranges as u32,
        flags: ZERO_GRADS | LOSS_F64,
        reserved: 0,
    };
    let Some(eight) = &state.eight else {
        let grid = n.div_ceil(1024).max(1);
        return launch!(gpu, "adamw", (grid, 1, 1), THREADS, 0, s);
    };
    let s = Step8 {
        step: s,
        code_m: eight.codes.at(),
        code_v: eight.codes.at() + 4 * 256,
        absmax_m: eight.absmax_m.at(),
        absmax_v: eight.absmax_v.at(),
    };
    // A warp takes a block of 256 at a time.
    let grid = n.div_ceil(BLOCK * THREADS / 32).clamp(1, CTAS);
    launch!(gpu, "adamw_8bit", (grid, 1, 1), THREADS, 0, s)
}

/// Bytes to zero on the card, in stream order.
pub fn zero(gpu: &Gpu, at: u64, bytes: usize) -> Result<()> {
    // SAFETY: who calls vouches for the range.
    unsafe { cudarc::driver::result::memset_d8_async(at, 0, bytes, gpu.stream()) }.map_err(driver("clearing memory"))
}
