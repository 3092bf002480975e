//! Which experts a token goes to, and with what weight (Shazeer et al., 2017), with the gradient of the choice's weights.

use super::host;
use super::simd::{dot, vectorized};
use crate::{Error, Result};
use candle_core::Tensor;
use rayon::prelude::*;

const OP: &str = "moe";
const ROWS: usize = 64;

/// The choice for T tokens, k experts each.
#[derive(Debug, Clone, PartialEq)]
pub struct Routes {
    /// `[T · k]`, the largest logit first.
    pub experts: Vec<u32>,
    /// `[T · k]`
    pub weights: Vec<f32>,
    pub per_token: usize,
}

impl Routes {
    /// The places `token · k + slot` in which an expert was chosen, for each of `count` experts.
    pub fn by_expert(&self, count: usize) -> Vec<Vec<usize>> {
        let mut places = vec![Vec::new(); count];
        for (place, expert) in self.experts.iter().enumerate() {
            if let Some(list) = places.get_mut(*expert as usize) {
                list.push(place);
            }
        }
        places
    }
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut p: Vec<f32> = logits.iter().map(|l| (l - top).exp()).collect();
    let total: f32 = p.iter().sum();
    p.iter_mut().for_each(|p| *p /= total);
    p
}

/// `logits [T, E]` to the `per_token` experts of the largest softmax; their weights are those probabilities, divided by
/// their sum where `normalized`. Equal logits go to the lower number.
pub fn route(logits: &Tensor, per_token: usize, normalized: bool) -> Result<Routes> {
    let (t, count) = host::dims2(logits, OP)?;
    if per_token == 0 || per_token > count {
        return Err(Error::new(format!("{per_token} experts a token were asked of {count}")));
    }
    let x = host::read(logits, OP)?;
    let x: &[f32] = &x;
    let (mut experts, mut weights) = (vec![0u32; t * per_token], vec![0f32; t * per_token]);
    let pieces = experts.par_chunks_mut(per_token).zip(weights.par_chunks_mut(per_token)).zip(x.par_chunks(count));
    pieces.for_each(|((experts, weights), x)| {
        let p = softmax(x);
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by(|a, b| p[*b].total_cmp(&p[*a]).then(a.cmp(b)));
        let total = if normalized { order[..per_token].iter().map(|&e| p[e]).sum() } else { 1.0 };
        for ((expert, weight), &e) in experts.iter_mut().zip(weights).zip(&order) {
            (*expert, *weight) = (e as u32, p[e] / total);
        }
    });
    Ok(Routes { experts, weights, per_token })
}

/// The gradient of `logits [T, E]`, given that of the weights (`[T · k]`).
pub fn route_backward(logits: &Tensor, routes: &Routes, dweights: &[f32], normalized: bool) -> Result<Tensor> {
    let (t, count) = host::dims2(logits, OP)?;
    let k = routes.per_token;
    host::same(OP, "the weights' gradient", &[dweights.len(), routes.weights.len()], &[t * k, t * k])?;
    let x = host::read(logits, OP)?;
    let x: &[f32] = &x;
    let mut d = vec![0f32; t * count];
    d.par_chunks_mut(count.max(1)).enumerate().for_each(|(i, d)| {
        let at = i * k..(i + 1) * k;
        let (chosen, w, dw) = (&routes.experts[at.clone()], &routes.weights[at.clone()], &dweights[at]);
        let mean: f32 = w.iter().zip(dw).map(|(w, dw)| w * dw).sum();
        if !normalized {
            for (d, p) in d.iter_mut().zip(softmax(&x[i * count..][..count])) {
                *d = -p * mean;
            }
        }
        for ((&e, w), dw) in chosen.iter().zip(w).zip(dw) {
            d[e as usize] += w * (dw - if normalized { mean } else { 0.0 });
        }
    });
    host::tensor(d, &[t, count])
}

vectorized! {
    fn times(x: &mut [f32], w: f32) {
        for x in x {
            *x *= w;
        }
    }
}

vectorized! {
    fn product(a: &[f32], b: &[f32]) -> f32 { dot(a, b) }
}

/// Row i of `x [n, f]` times `w[i]`, in place.
pub fn scale_rows_(x: &Tensor, w: &[f32]) -> Result<()> {
    let (n, f) = host::dims2(x, OP)?;
    host::same(OP, "the factors", &[w.len()], &[n])?;
    host::write(x, OP, |x| {
        x.par_chunks_mut((ROWS * f).max(1)).zip(w.par_chunks(ROWS)).for_each(|(x, w)| {
            x.chunks_exact_mut(f.max(1)).zip(w).for_each(|(x, &w)| times(x, w));
        });
        Ok(())
    })
}

/// Σ a·b of each row, both `[n, f]`.
pub fn row_products(a: &Tensor, b: &Tensor) -> Result<Vec<f32>> {
    let (_, f) = host::dims2(a, OP)?;
    host::same(OP, "the factor", b.dims(), a.dims())?;
    let (a, b) = (host::read(a, OP)?, host::read(b, OP)?);
    let (a, b): (&[f32], &[f32]) = (&a, &b);
    Ok(a.par_chunks(f.max(1)).zip(b.par_chunks(f.max(1))).map(|(a, b)| product(a, b)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::*;

    #[test]
    fn the_gradient_of_the_weights_agrees_with_finite_differences() {
        let (t, count, k) = (7, 6, 3);
        let (logits, dw) = (random(&[t, count], 1), f64s(&random(&[t * k], 2)));
        let x = f64s(&logits);
        for normalized in [false, true] {
            let routes = route(&logits, k, normalized).unwrap();
            let reference = |x: &[f64]| -> f64 {
                (0..t)
                    .map(|i| {
                        let e: Vec<f64> = x[i * count..][..count].iter().map(|x| x.exp()).collect();
                        let chosen = &routes.experts[i * k..][..k];
                        let total: f64 = match normalized {
                            true => chosen.iter().map(|&c| e[c as usize]).sum(),
                            false => e.iter().sum(),
                        };
                        chosen.iter().zip(&dw[i * k..]).map(|(&c, dw)| dw * e[c as usize] / total).sum::<f64>()
                    })
                    .sum()
            };
            let weights: Vec<f64> = routes.weights.iter().map(|w| f64::from(*w)).collect();
            assert!((inner(&weights, &dw) - reference(&x)).abs() < 1e-5);
            let dws: Vec<f32> = dw.iter().map(|d| *d as f32).collect();
            let d = route_backward(&logits, &routes, &dws, normalized).unwrap();
            close(&f64s(&d), &differences(&x, reference), 2e-6);
        }
    }

    #[test]
    fn the_largest_are_chosen_and_equals_go_to_the_lower_number() {
        let routes = route(&tensor(&[0.0, 2.0, 1.0, 2.0, 0.5, 0.5, 0.5, 0.5], &[2, 4]), 2, true).unwrap();
        assert_eq!((routes.experts.as_slice(), routes.weights.as_slice()), (&[1, 3, 0, 1][..], &[0.5; 4][..]));
        assert_eq!(routes.by_expert(4), [vec![2], vec![0, 3], vec![], vec![1]]);
        assert!(route(&tensor(&[1.0, 2.0], &[1, 2]), 3, true).is_err());
    }

    #[test]
    fn rows_are_scaled_and_multiplied_one_by_one() {
        let (a, b) = (random(&[70, 5], 1), random(&[70, 5], 2));
        let w: Vec<f32> = (0..70).map(|i| i as f32).collect();
        let want: Vec<f64> = f64s(&a).chunks(5).zip(f64s(&b).chunks(5)).map(|(a, b)| inner(a, b)).collect();
        let found: Vec<f64> = row_products(&a, &b).unwrap().iter().map(|v| f64::from(*v)).collect();
        close(&found, &want, 1e-6);
        let scaled: Vec<f64> = f64s(&a).iter().enumerate().map(|(i, a)| a * (i / 5) as f64).collect();
        scale_rows_(&a, &w).unwrap();
        close(&f64s(&a), &scaled, 1e-6);
    }
}
