//! From a matrix as its file stores it to how it is held.

use super::config::{Config, Hold, Weights};
use crate::Result;
use crate::ops::matrix::Matrix;
use crate::ops::nf4::Nf4;
use crate::ops::packed::Packed;

/// Hold a stored matrix: in f32, as it is, or, where it is one of the blocks' linear layers, in NF4.
pub(super) fn matrix(name: &str, stored: Packed, hold: Hold) -> Result<Matrix> {
    Ok(match hold {
        Hold::Full => Matrix::Dense(stored.to_tensor()?),
        Hold::Nf4 if is_linear(name) && stored.as_nf4().is_none() => {
            let read = &mut |rows, out: &mut [f32]| {
                stored.tile(rows, out);
                Ok(())
            };
            Matrix::Packed(Packed::nf4(Nf4::quantize_rows(stored.rows(), stored.cols(), read)?))
        }
        Hold::Stored | Hold::Nf4 => Matrix::Packed(stored),
    })
}

/// Whether bitsandbytes would quantize it: the linear layers of blocks, not embeddings, head and routers.
fn is_linear(name: &str) -> bool {
    name.starts_with("model.layers.") && name.ends_with("_proj.weight")
}

/// Weights of what was read.
pub(super) fn weights(config: &Config, read: Vec<(String, Matrix)>) -> Weights {
    let mut weights = Weights::new(config.clone(), Default::default());
    for (name, matrix) in read {
        match matrix {
            Matrix::Dense(tensor) => drop(weights.tensors.insert(name, tensor)),
            Matrix::Packed(packed) => drop(weights.packed.insert(name, packed)),
        }
    }
    weights
}
