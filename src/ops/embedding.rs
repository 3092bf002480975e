//! Rows picked from a matrix by number, and gradients put back where they came from.

use super::host;
use crate::{Error, Result};
use candle_core::Tensor;
use rayon::prelude::*;

const OP: &str = "embedding";
const ROWS: usize = 32;

pub(super) fn check(ids: &[u32], rows: usize) -> Result<()> {
    match ids.iter().find(|&&id| id as usize >= rows) {
        Some(id) => Err(Error::new(format!("row {id} was asked of a table of {rows}"))
            .next("the tokenizer and the model's embedding do not belong together")),
        None => Ok(()),
    }
}

/// `table [V, n]`, T ids below V, to `[T, n]`, f32.
pub fn gather(table: &Tensor, ids: &[u32]) -> Result<Tensor> {
    let (v, n) = host::dims2(table, OP)?;
    check(ids, v)?;
    let table = host::read(table, OP)?;
    let table: &[f32] = &table;
    let mut y = host::room(ids.len() * n);
    if n > 0 {
        y.par_chunks_mut(ROWS * n).zip(ids.par_chunks(ROWS)).for_each(|(y, ids)| {
            for (y, &id) in y.chunks_exact_mut(n).zip(ids) {
                y.copy_from_slice(&table[id as usize * n..][..n]);
            }
        });
    }
    host::tensor(y, &[ids.len(), n])
}

/// The gradient of [`gather`]: `d [V, n]` gains row t of `dy [T, n]` at row `ids[t]`; repeated ids add up in the order of t.
pub fn scatter_add_(d: &Tensor, ids: &[u32], dy: &Tensor) -> Result<()> {
    let (v, n) = host::dims2(d, OP)?;
    check(ids, v)?;
    host::same(OP, "dy", dy.dims(), &[ids.len(), n])?;
    let dy = host::read(dy, OP)?;
    host::write(d, OP, |d| {
        for (t, &id) in ids.iter().enumerate() {
            for (d, g) in d[id as usize * n..][..n].iter_mut().zip(&dy[t * n..][..n]) {
                *d += g;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::*;

    #[test]
    fn rows_are_picked_and_their_gradients_add_up_as_in_pytorch() {
        let table = wave(&[4, 3], 0.37, 0.0);
        let rows = table.to_vec2::<f32>().unwrap();
        let y = gather(&table, &[1, 3, 1]).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(y, [rows[1].clone(), rows[3].clone(), rows[1].clone()]);
        // E=seq((4,3),0.37,0); F.embedding(torch.tensor([1,3,1]),E).backward(seq((3,3),0.9,2.0))   (seq: sin(a·(i+1)+b))
        let d = tensor(&[0.0; 12], &[4, 3]);
        scatter_add_(&d, &[1, 3, 1], &wave(&[3, 3], 0.9, 2.0)).unwrap();
        let want =
            [0.0, 0.0, 0.0, 1.1414212, -0.38896799, -1.6249938, 0.0, 0.0, 0.0, -0.63126665, 0.21511999, 0.89870811];
        close(&f64s(&d), &want, 1e-6);
    }

    #[test]
    fn a_row_beyond_the_table_is_an_error() {
        assert!(gather(&wave(&[4, 3], 0.37, 0.0), &[4]).is_err());
        assert!(scatter_add_(&wave(&[4, 3], 0.37, 0.0), &[4], &wave(&[1, 3], 1.0, 0.0)).is_err());
    }
}
