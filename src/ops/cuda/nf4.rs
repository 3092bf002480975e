//! NF4 weights with double quantization on the card, stored as bitsandbytes stores them (launches of `kernels/nf4.cu`).

use super::device::{Buffer, Gpu};
use super::elementwise::launch;
use super::gemm::Mat;
use crate::{Error, Result};

const BLOCK: usize = 64;
const NESTED: usize = 256;
const THREADS: usize = 256;

/// What quantizing needs besides the weights: bitsandbytes' signed dynamic map, and room for a matrix's largest values.
pub struct Tables {
    code: Buffer,
    tops: Buffer,
}

impl Tables {
    /// Room for matrices of up to `largest` numbers. `code` is the signed dynamic map.
    pub fn new(gpu: &Gpu, component: &'static str, largest: usize, code: &[f32; 256]) -> Result<Self> {
        let held = gpu.zeros(component, 4 * code.len())?;
        held.upload(0, code)?;
        Ok(Self { code: held, tops: gpu.zeros("loading", 4 * largest.div_ceil(BLOCK))? })
    }

    /// Keep the map alone, once everything is quantized.
    pub fn into_code(self) -> Buffer {
        self.code
    }
}

/// A matrix `[rows, cols]`.
pub struct Nf4 {
    rows: usize,
    cols: usize,
    /// Packed codes, then absmax codes, then nested scales and the offset.
    held: Buffer,
    absmax: u64,
    nested: u64,
    offset: u64,
    code: u64,
}

impl Nf4 {
    /// Quantize the bf16 matrix `[rows, cols]` at `w`, contiguous; `cols` a multiple of 64.
    pub fn quantize(
        gpu: &Gpu,
        component: &'static str,
        tables: &Tables,
        w: u64,
        (rows, cols): (usize, usize),
    ) -> Result<Self> {
        if !cols.is_multiple_of(BLOCK) {
            return Err(Error::new(format!("a matrix of {cols} columns does not divide into NF4's blocks of 64"))
                .next("set model.load_in_4bit = false"));
        }
        let n = rows * cols;
        let blocks = n / BLOCK;
        let pad = |bytes: usize| bytes.next_multiple_of(256);
        let sizes = [pad(n / 2), pad(blocks), pad(4 * blocks.div_ceil(NESTED)), 256];
        let held = gpu.zeros(component, sizes.iter().sum())?;
        let packed = held.at();
        let absmax = packed + sizes[0] as u64;
        let nested = absmax + sizes[1] as u64;
        let offset = nested + sizes[2] as u64;
        let (code, tops, n64, blocks64) = (tables.code.at(), tables.tops.at(), n as u64, blocks as u64);
        launch!(gpu, "nf4_quantize_bf16", (n.div_ceil(2048), 1, 1), THREADS, 0, w, n64, packed, tops)?;
        launch!(gpu, "nf4_mean", (1, 1, 1), 1024, 0, tops, blocks64, offset)?;
        let grid = (blocks.div_ceil(NESTED), 1, 1);
        launch!(gpu, "nf4_quantize_absmax", grid, THREADS, 0, tops, blocks64, offset, code, absmax, nested)?;
        Ok(Self { rows, cols, held, absmax, nested, offset, code })
    }

    /// Into the bf16 matrix at `to`, whose row stride may exceed `cols`.
    pub fn dequantize(&self, gpu: &Gpu, to: Mat) -> Result<()> {
        let (packed, rows, cols, ld) = (self.held.at(), self.rows as u32, self.cols as u32, to.ld as u64);
        let grid = ((self.rows * self.cols).div_ceil(8192), 1, 1);
        let (absmax, nested, offset, code) = (self.absmax, self.nested, self.offset, self.code);
        launch!(
            gpu,
            "nf4_dequantize_bf16",
            grid,
            THREADS,
            0,
            packed,
            absmax,
            nested,
            offset,
            code,
            to.at,
            rows,
            cols,
            ld
        )
    }
}
