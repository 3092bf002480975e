//! The operations on an NVIDIA card: the same functions as their neighbours on the CPU, which they are tested against.
//!
//! [`device`] is the card, [`gemm`] its matrix products, the rest launches the kernels in `../kernels`. Matrices are
//! addresses with a row stride, because what trains lies inside the frozen weights' own buffers; who calls vouches for
//! their sizes.

pub mod adamw;
pub mod attention;
pub mod device;
pub mod elementwise;
pub mod fp8;
pub mod gemm;
pub mod nccl;
pub mod nf4;
pub mod profile;
