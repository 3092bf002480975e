//! AdamW on the card over the whole arena at once ([`crate::ops::adamw`] is the same on the CPU, to the bit).

use super::device::{Buffer, Gpu, driver};
use super::elementwise::launch;
use crate::ops::adamw::{Factors, Rule};
use crate::{Error, Result};
use std::ops::Range;

const THREADS: usize = 256;
/// Partial sums of the norm.
const PARTIALS: usize = 512;
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

/// Moments and steps taken.
pub struct State {
    m: Buffer,
    v: Buffer,
    decay: Buffer,
    ranges: usize,
    partials: Buffer,
    /// Steps that were asked for; one that was left out counts too until [`State::left_out`].
    pub t: u64,
}

impl State {
    /// Zero moments for `n` trainables, of which the ranges in `decay` (in order and apart) decay.
    pub fn new(gpu: &Gpu, component: &'static str, n: usize, decay: &[Range<usize>]) -> Result<Self> {
        let list: Vec<u64> = decay.iter().flat_map(|r| [r.start as u64, r.end as u64]).collect();
        let held = gpu.zeros(component, 8 * list.len())?;
        held.upload(0, &list)?;
        let zeros = |bytes| gpu.zeros(component, bytes);
        Ok(Self {
            m: zeros(4 * n)?,
            v: zeros(4 * n)?,
            decay: held,
            ranges: decay.len(),
            partials: zeros(8 * PARTIALS)?,
            t: 0,
        })
    }

    /// The step that was asked for last changed nothing.
    pub fn left_out(&mut self) {
        self.t = self.t.saturating_sub(1);
    }

    /// First and second moments, f32.
    pub fn download(&self, n: usize) -> Result<(Vec<f32>, Vec<f32>)> {
        let (mut m, mut v) = (vec![0f32; n], vec![0f32; n]);
        self.m.download(0, &mut m)?;
        self.v.download(0, &mut v)?;
        Ok((m, v))
    }

    /// Replace moments and step count.
    pub fn upload(&mut self, m: &[f32], v: &[f32], t: u64) -> Result<()> {
        if 4 * m.len() > self.m.size() || m.len() != v.len() {
            return Err(Error::new(format!("the optimizer state has {} moments, too many for what trains", m.len()))
                .next("resume with the recipe that wrote the checkpoint"));
        }
        self.m.upload(0, m)?;
        self.v.upload(0, v)?;
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

/// One step over `n` values with their gradients, which become 0. `(square, loss)` are f64 on the card: the squared
/// norm of the gradient, and a number that must be finite for the step to happen.
pub fn step(
    gpu: &Gpu,
    state: &mut State,
    values: u64,
    grads: u64,
    n: usize,
    rule: &Rule,
    (square, loss): (u64, u64),
) -> Result<()> {
    state.t += 1;
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
    let grid = n.div_ceil(1024).max(1);
    launch!(gpu, "adamw", (grid, 1, 1), THREADS, 0, s)
}

/// Bytes to zero on the card, in stream order.
pub fn zero(gpu: &Gpu, at: u64, bytes: usize) -> Result<()> {
    // SAFETY: who calls vouches for the range.
    unsafe { cudarc::driver::result::memset_d8_async(at, 0, bytes, gpu.stream()) }.map_err(driver("clearing memory"))
}
