//! Frozen matrices in fp8 (e4m3, a scale a row) and products with them on Hopper's fp8 units.
//!
//! cuBLASLt multiplies two e4m3 matrices that are both read along their rows, so a weight is held twice: as `[out, in]`
//! for the way forward and as `[in, out]` for the way back, in the bytes that bf16 would take. What it is multiplied
//! with is quantized row by row just before.

use super::device::{Buffer, Gpu};
use super::elementwise::launch;
use super::gemm::{Gemm, Mat, Out, Product};
use crate::{Error, Result};

/// e4m3 `[rows, cols]` at an address, and f32 `[rows]` scales at another.
#[derive(Debug, Clone, Copy)]
pub struct Quantized {
    pub at: u64,
    pub scales: u64,
}

/// Whether a card has fp8 products with a scale a row.
///
/// # Errors
/// Another card than Hopper, or widths that are no multiples of 16.
pub fn check(gpu: &Gpu, widths: &[usize]) -> Result<()> {
    if let Some(width) = widths.iter().find(|w| !w.is_multiple_of(16)) {
        return Err(Error::usage(format!("model.load_in_fp8: a width of {width} is no multiple of 16"))
            .next("leave it out for this model"));
    }
    match gpu.is_hopper() {
        true => Ok(()),
        false => Err(Error::usage(format!("model.load_in_fp8: {} has no fp8 products with a scale a row", gpu.name()))
            .next("leave it out: fp8 is for Hopper cards (H100, H200)")),
    }
}

/// Quantize bf16 `x [rows, cols]` to `to`; `cols` a multiple of 16.
pub fn quantize(gpu: &Gpu, x: Mat, (rows, cols): (usize, usize), to: Quantized) -> Result<()> {
    let (ld, cols32) = (x.ld as i64, cols as i32);
    launch!(gpu, "quantize_e4m3", (rows, 1, 1), 256, 0, x.at, ld, cols32, to.at, to.scales)
}

/// A frozen weight, both ways.
#[derive(Debug)]
pub struct Weight {
    forward: Buffer,
    backward: Buffer,
    out: usize,
    inputs: usize,
}

impl Weight {
    /// Bytes that both ways take.
    pub fn bytes((out, inputs): (usize, usize)) -> usize {
        place((out, inputs)).1 + place((inputs, out)).1
    }

    /// From bf16 `w [out, in]`; `room` has space for its transpose.
    pub fn quantize(
        gpu: &Gpu,
        component: &'static str,
        w: Mat,
        (out, inputs): (usize, usize),
        room: u64,
    ) -> Result<Self> {
        let held = |size| -> Result<Buffer> { gpu.zeros(component, place(size).1) };
        let weight = Self { forward: held((out, inputs))?, backward: held((inputs, out))?, out, inputs };
        quantize(gpu, w, (out, inputs), at(&weight.forward, (out, inputs)))?;
        let (ld, rows, cols) = (w.ld as i64, out as i32, inputs as i32);
        let grid = (inputs.div_ceil(64), out.div_ceil(64), 1);
        launch!(gpu, "transpose_bf16", grid, 256, 0, w.at, ld, rows, cols, room)?;
        quantize(gpu, Mat::new(room, out), (inputs, out), at(&weight.backward, (inputs, out)))?;
        Ok(weight)
    }

    /// `y [t, out] = x·Wᵀ (+ c)`; `x [t, in]` is quantized into `room`.
    ///
    /// # Safety
    /// `t` rows of each are there, and of `room`.
    pub unsafe fn forward(
        &self,
        (gpu, gemm): (&Gpu, &Gemm),
        x: Mat,
        t: usize,
        y: Mat,
        c: Option<Mat>,
        room: Quantized,
    ) -> Result<()> {
        let (out, inputs) = (self.out, self.inputs);
        quantize(gpu, x, (t, inputs), room)?;
        // SAFETY: the caller's promise.
        unsafe { gemm.run(&product((t, out, inputs), room, at(&self.forward, (out, inputs)), y, c)) }
    }

    /// `dx [t, in] = dy·W`; `dy [t, out]` is quantized into `room`.
    ///
    /// # Safety
    /// As [`Weight::forward`].
    pub unsafe fn backward(
        &self,
        (gpu, gemm): (&Gpu, &Gemm),
        dy: Mat,
        t: usize,
        dx: Mat,
        room: Quantized,
    ) -> Result<()> {
        let (out, inputs) = (self.out, self.inputs);
        quantize(gpu, dy, (t, out), room)?;
        // SAFETY: the caller's promise.
        unsafe { gemm.run(&product((t, inputs, out), room, at(&self.backward, (inputs, out)), dx, None)) }
    }
}

/// First byte of the scales after `[rows, cols]` bytes of codes, and the bytes of both.
fn place((rows, cols): (usize, usize)) -> (usize, usize) {
    let scales = (rows * cols).next_multiple_of(256);
    (scales, scales + 4 * rows)
}

fn at(buffer: &Buffer, size: (usize, usize)) -> Quantized {
    Quantized { at: buffer.at(), scales: buffer.at() + place(size).0 as u64 }
}

fn product(size: (usize, usize, usize), a: Quantized, b: Quantized, d: Mat, c: Option<Mat>) -> Product {
    Product {
        size,
        a: Mat::new(a.at, size.2),
        ta: false,
        b: Mat::new(b.at, size.2),
        tb: true,
        alpha: 1.0,
        c,
        d,
        out: Out::Bf16,
        scales: Some([a.scales, b.scales]),
    }
}
