//! Matrix products. The backward pass of a product is two more products, so nothing else is needed:
//! for `y = x·Wᵀ`, `dx = dy·W` and `dW += dyᵀ·x`. Transposes and column ranges are views (strides), never copies.

use super::host::{self, Shared, Strided};
use super::simd::{self, vectorized};
use crate::{Error, Result};
use candle_core::Tensor;
use gemm::Parallelism;
use rayon::prelude::*;

const OP: &str = "matmul";

/// `a·b` for matrices `[m, k]` and `[k, n]` with any strides, f32; a new `[m, n]`.
pub fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (a, la) = host::read_matrix(a, OP)?;
    let (b, lb) = host::read_matrix(b, OP)?;
    let mut c = host::room(la.rows * lb.cols);
    let lc = Strided { rows: la.rows, cols: lb.cols, row: lb.cols, col: 1 };
    product(&mut c, lc, false, 1.0, (&a, la), (&b, lb))?;
    host::tensor(c, &[lc.rows, lc.cols])
}

/// `c += alpha · a·b` in place; `c` may be a view (some columns of a wider matrix, a piece of a flat arena).
pub fn matmul_add_(c: &Tensor, alpha: f32, a: &Tensor, b: &Tensor) -> Result<()> {
    let (a, la) = host::read_matrix(a, OP)?;
    let (b, lb) = host::read_matrix(b, OP)?;
    host::write_matrix(c, OP, |c, lc| product(c, lc, true, alpha, (&a, la), (&b, lb)))
}

/// `c = alpha · a·b` in place; `c` may be a view, as in [`matmul_add_`].
pub fn matmul_to_(c: &Tensor, alpha: f32, a: &Tensor, b: &Tensor) -> Result<()> {
    let (a, la) = host::read_matrix(a, OP)?;
    let (b, lb) = host::read_matrix(b, OP)?;
    host::write_matrix(c, OP, |c, lc| product(c, lc, false, alpha, (&a, la), (&b, lb)))
}

/// Rows up to which a product with rows of weights is taken as dot products: decoding.
pub(super) const FEW_ROWS: usize = 4;

/// `c = [c +] alpha · a·b` on slices that begin at their layouts' first element.
pub(super) fn product(
    c: &mut [f32],
    lc: Strided,
    add: bool,
    alpha: f32,
    (a, la): (&[f32], Strided),
    (b, lb): (&[f32], Strided),
) -> Result<()> {
    if la.cols != lb.rows || lc.rows != la.rows || lc.cols != lb.cols {
        return Err(Error::new(format!(
            "matmul: [{}, {}] times [{}, {}] does not give [{}, {}]",
            la.rows, la.cols, lb.rows, lb.cols, lc.rows, lc.cols
        )));
    }
    if la.cols == 0 {
        // An empty sum: `gemm` would leave `c` as it is.
        for i in 0..if add { 0 } else { lc.rows } {
            (0..lc.cols).for_each(|j| c[i * lc.row + j * lc.col] = 0.0);
        }
        return Ok(());
    }
    if lc.rows <= FEW_ROWS && la.col == 1 && lb.row == 1 && lc.col == 1 {
        few_rows(c, lc, add, alpha, (a, la), (b, lb));
        return Ok(());
    }
    let threads = rayon::current_num_threads();
    // SAFETY: the slices were cut to the spans of these very layouts; `c` is borrowed mutably, so nothing overlaps it.
    unsafe { block(c.as_mut_ptr(), lc, add, alpha, (a.as_ptr(), la), (b.as_ptr(), lb), Parallelism::Rayon(threads)) };
    Ok(())
}

/// `c = [c +] alpha · a·b` on raw parts, for callers that already run in parallel or write disjoint parts.
///
/// # Safety
/// Each pointer is valid over its layout's span, and nothing else touches the places of `c`.
pub(super) unsafe fn block(
    c: *mut f32,
    lc: Strided,
    add: bool,
    alpha: f32,
    (a, la): (*const f32, Strided),
    (b, lb): (*const f32, Strided),
    threads: Parallelism,
) {
    let strides = |l: Strided| (l.col as isize, l.row as isize);
    let ((c_cs, c_rs), (a_cs, a_rs), (b_cs, b_rs)) = (strides(lc), strides(la), strides(lb));
    let keep = if add { 1.0 } else { 0.0 };
    // SAFETY: promised by the caller.
    unsafe {
        gemm::gemm(
            lc.rows, lc.cols, la.cols, c, c_cs, c_rs, add, a, a_cs, a_rs, b, b_cs, b_rs, keep, alpha, false, false,
            false, threads,
        );
    }
}

/// Outputs a task computes at a time in [`few_rows`].
pub(super) const PIECE: usize = 64;

/// One to four rows against rows of weights: each weight is read once, in order, by dot products.
fn few_rows(c: &mut [f32], lc: Strided, add: bool, alpha: f32, (a, la): (&[f32], Strided), (b, lb): (&[f32], Strided)) {
    let out = Shared::new(c);
    (0..lc.cols.div_ceil(PIECE)).into_par_iter().for_each(|piece| {
        let start = piece * PIECE;
        for j in start..(start + PIECE).min(lc.cols) {
            let w = &b[j * lb.col..j * lb.col + lb.rows];
            for i in 0..lc.rows {
                // SAFETY: (i, j) lies in `c`, and only this task has this j.
                let place = unsafe { out.slice(i * lc.row + j, 1) };
                let d = alpha * dot(&a[i * la.row..i * la.row + la.cols], w);
                place[0] = if add { place[0] + d } else { d };
            }
        }
    });
}

vectorized! {
    pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 { simd::dot(a, b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::*;

    fn reference(a: &[f64], b: &[f64], m: usize, k: usize, n: usize) -> Vec<f64> {
        let mut c = vec![0.0; m * n];
        for i in 0..m {
            for j in 0..n {
                c[i * n + j] = (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum();
            }
        }
        c
    }

    #[test]
    fn products_agree_with_f64_at_many_shapes() {
        for (m, k, n) in [(1, 1, 1), (1, 300, 77), (4, 65, 129), (5, 7, 3), (64, 100, 33), (130, 70, 257), (7, 0, 3)] {
            let (a, b) = (random(&[m, k], 1), random(&[k, n], 2));
            let want = reference(&f64s(&a), &f64s(&b), m, k, n);
            close(&f64s(&matmul(&a, &b).unwrap()), &want, 2e-6);
            let bt = b.t().unwrap().contiguous().unwrap();
            close(&f64s(&matmul(&a, &bt.t().unwrap()).unwrap()), &want, 2e-6);
            let at = a.t().unwrap().contiguous().unwrap();
            close(&f64s(&matmul(&at.t().unwrap(), &b).unwrap()), &want, 2e-6);
        }
    }

    #[test]
    fn adding_into_columns_leaves_the_others_alone() {
        for m in [2, 40] {
            let (c, a, b) = (random(&[m, 10], 3), random(&[m, 6], 4), random(&[4, 6], 5));
            let before = f64s(&c);
            let columns = c.narrow(1, 3, 4).unwrap();
            matmul_add_(&columns, 0.5, &a, &b.t().unwrap()).unwrap();
            let ab = reference(&f64s(&a), &f64s(&b.t().unwrap()), m, 6, 4);
            let mut want = before;
            for i in 0..m {
                for j in 0..4 {
                    want[i * 10 + 3 + j] += 0.5 * ab[i * 4 + j];
                }
            }
            close(&f64s(&c), &want, 2e-6);
            matmul_to_(&columns, 0.5, &a, &b.t().unwrap()).unwrap();
            let ab: Vec<f64> = ab.iter().map(|x| x * 0.5).collect();
            close(&f64s(&columns.contiguous().unwrap()), &ab, 2e-6);
        }
    }

    #[test]
    fn the_gradients_of_a_product_agree_with_finite_differences() {
        let (x, w, dy) = (random(&[3, 5], 1), random(&[4, 5], 2), random(&[3, 4], 3));
        let f = |x: &[f64], w: &[f64]| {
            let wt: Vec<f64> = (0..20).map(|i| w[(i % 4) * 5 + i / 4]).collect();
            inner(&reference(x, &wt, 3, 5, 4), &f64s(&dy))
        };
        close(&f64s(&matmul(&dy, &w).unwrap()), &differences(&f64s(&x), |x| f(x, &f64s(&w))), 1e-5);
        let dw = tensor(&[0.0; 20], &[4, 5]);
        matmul_add_(&dw, 1.0, &dy.t().unwrap(), &x).unwrap();
        close(&f64s(&dw), &differences(&f64s(&w), |w| f(&f64s(&x), w)), 1e-5);
    }

    #[test]
    fn it_agrees_with_pytorch() {
        // seq = lambda shape, a, b: sin(a·(i+1)+b) over i, reshaped
        // x=seq((2,3),0.37,0); W=seq((4,3),0.9,1.0); x@W.T
        let want = [0.093501687, -0.73067838, 1.2276702, -1.4891266, 0.84236872, -1.5749772, 2.0054173, -2.0511065];
        let y = matmul(&wave(&[2, 3], 0.37, 0.0), &wave(&[4, 3], 0.9, 1.0).t().unwrap()).unwrap();
        close(&f64s(&y), &want, 1e-6);
    }

    #[test]
    fn shapes_that_do_not_fit_are_an_error() {
        let e = matmul(&random(&[2, 3], 1), &random(&[2, 3], 1)).unwrap_err();
        assert!(e.what.contains("[2, 3] times [2, 3]"), "{e}");
    }
}
