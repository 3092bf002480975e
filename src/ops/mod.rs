//! Every differentiable operation the training path uses, forward and backward together.
//!
//! An operation is a function over candle `Tensor`s and matches on their device; what it does in place
//! goes through candle's in-place operations. There is no autograd: a caller that needs a gradient calls the
//! backward function that stands beside the forward one. Only the CPU has kernels; a tensor elsewhere is an error.
//!
//! For one thread count every result is the same to the bit: work is cut into fixed pieces, each sum is taken in
//! index order, and random numbers come from a counter.
//!
//! Must not know layers, models, recipes or runs.

pub mod adamw;
pub mod arena;
pub mod attention;
pub mod columns;
pub mod cross_entropy;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod dropout;
pub mod embedding;
pub mod head_norm;
mod host;
pub mod lent;
pub mod matmul;
pub mod matrix;
pub mod moe;
pub mod nf4;
pub mod noise;
pub mod optimizer;
pub mod packed;
pub mod quant8;
pub mod random;
pub mod residual;
pub mod rms_norm;
pub mod rope;
pub mod simd;
pub mod swiglu;

#[cfg(test)]
pub mod check;
