//! Cross-entropy fused with the output head: from hidden states straight to the loss and d(hidden).
//!
//! Logits exist for a block of rows at a time and are turned in place into their own gradient,
//! so that the head's product is taken once and never stored whole.

use super::host;
use super::matmul::matmul_add_;
use super::matrix::Matrix;
use super::simd::{exp, max, sum, tanh, vectorized};
use crate::{Error, Result};
use candle_core::Tensor;
use rayon::prelude::*;

const OP: &str = "cross_entropy";
/// Logits that exist at a time (48 MiB).
const LOGITS: usize = 12 << 20;

vectorized! {
    /// Σ exp(l − top), and where `keep` the terms in place of `l`.
    fn exponentials(l: &mut [f32], top: f32, keep: bool) -> f64 {
        let mut total = 0f64;
        for piece in l.chunks_mut(1024) {
            if keep {
                for l in piece.iter_mut() {
                    *l = exp(*l - top);
                }
                total += f64::from(sum(piece.len(), |i| piece[i]));
            } else {
                total += f64::from(sum(piece.len(), |i| exp(piece[i] - top)));
            }
        }
        total
    }
}

vectorized! {
    fn scale_by(l: &mut [f32], s: f32) {
        for l in l {
            *l *= s;
        }
    }
}

vectorized! {
    /// Logits to `c · tanh(logit / c)` (Gemma 2's `final_logit_softcapping`), in place.
    fn cap(l: &mut [f32], c: f32) {
        for l in l {
            *l = c * tanh(*l / c);
        }
    }
}

vectorized! {
    /// Capped logits to scale · d(NLL)/d(logits before the cap), but for the label's own term; `total` is Σ exp(l − top).
    fn capped_gradient(l: &mut [f32], c: f32, top: f32, scale: f32, total: f32) {
        for l in l {
            let t = *l / c;
            *l = exp(*l - top) * (scale / total) * (1.0 - t * t);
        }
    }
}

/// [`cap`] on every number of a contiguous tensor, in place.
pub fn softcap_(logits: &Tensor, c: f32) -> Result<()> {
    const PIECE: usize = 1 << 14;
    host::write(logits, OP, |l| {
        l.par_chunks_mut(PIECE).for_each(|l| cap(l, c));
        Ok(())
    })
}

vectorized! {
    fn top(l: &[f32]) -> f32 { max(l) }
}

/// A row's negative log-likelihood; with a scale, `logits` become scale · its gradient.
fn row(logits: &mut [f32], label: usize, scale: Option<f32>, softcap: Option<f32>) -> f64 {
    if let Some(c) = softcap {
        cap(logits, c);
    }
    let top = top(logits);
    let at = logits[label];
    let total = exponentials(logits, top, scale.is_some() && softcap.is_none());
    if let (Some(scale), Some(c)) = (scale, softcap) {
        capped_gradient(logits, c, top, scale, total as f32);
        logits[label] -= scale * (1.0 - (at / c) * (at / c));
    } else if let Some(scale) = scale {
        scale_by(logits, (f64::from(scale) / total) as f32);
        logits[label] -= scale;
    }
    f64::from(top) + total.ln() - f64::from(at)
}

/// What to compute besides the loss.
pub struct Gradients<'a> {
    /// Every gradient is that of `scale · ΣNLL`.
    pub scale: f64,
    /// Added into where the head trains, `[V, n]`.
    pub head: Option<&'a Tensor>,
}

/// ΣNLL of `labels` (N ids below V) under `softmax(hidden · headᵀ)`, `hidden [N, n]`, `head [V, n]`, f32;
/// and d(hidden) `[N, n]` where gradients are asked for. With `softcap` c the logits are first `c · tanh(logit / c)`.
/// Anything not finite shows in the loss.
pub fn cross_entropy(
    hidden: &Tensor,
    head: &Matrix,
    labels: &[u32],
    gradients: Option<Gradients>,
    softcap: Option<f32>,
) -> Result<(f64, Option<Tensor>)> {
    blocks_of((LOGITS / head.dims()?.0.max(1)).max(1), hidden, head, labels, gradients, softcap)
}

fn blocks_of(
    block: usize,
    hidden: &Tensor,
    head: &Matrix,
    labels: &[u32],
    gradients: Option<Gradients>,
    softcap: Option<f32>,
) -> Result<(f64, Option<Tensor>)> {
    let (rows, n) = host::dims2(hidden, OP)?;
    let (v, width) = head.dims()?;
    host::same(OP, "the head", &[v, width], &[v, n])?;
    host::same(OP, "labels", &[labels.len()], &[rows])?;
    if let Some(label) = labels.iter().find(|&&l| l as usize >= v) {
        return Err(Error::new(format!("label {label} is beyond the vocabulary of {v}")));
    }
    let scale = gradients.as_ref().map(|g| g.scale as f32);
    let mut loss = 0f64;
    let dhidden = match gradients {
        Some(_) => Some(host::tensor(host::room(rows * n), &[rows, n])?),
        None => None,
    };
    for (i, labels) in labels.chunks(block).enumerate() {
        let part = hidden.narrow(0, i * block, labels.len())?;
        let logits = head.times_transposed(&part)?;
        let nll: Vec<f64> = host::write(&logits, OP, |l| {
            Ok(l.par_chunks_mut(v).zip(labels.par_iter()).map(|(l, &y)| row(l, y as usize, scale, softcap)).collect())
        })?;
        loss += nll.iter().sum::<f64>();
        if let (Some(g), Some(d)) = (&gradients, &dhidden) {
            head.times_to_(&d.narrow(0, i * block, labels.len())?, &logits)?;
            if let Some(dhead) = g.head {
                matmul_add_(dhead, 1.0, &logits.t()?, &part)?;
            }
        }
    }
    Ok((loss, dhidden))
}

/// What a row's label is worth under the model.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LogProbabilities {
    /// `[N]`: log softmax(logits / temperature) at each row's label.
    pub labels: Vec<f32>,
    /// `[N]`: Σ −p·ln p of each row in nats, where it was asked for; else empty.
    pub entropies: Vec<f32>,
}

/// The log-probability of `labels` (N ids below V) under `softmax(hidden · headᵀ / temperature)`, and where asked for
/// each row's entropy. Shapes as in [`cross_entropy`]; nothing is kept of the logits.
pub fn log_probabilities(
    hidden: &Tensor,
    head: &Matrix,
    labels: &[u32],
    temperature: f64,
    entropies: bool,
    softcap: Option<f32>,
) -> Result<LogProbabilities> {
    let softcap = softcap.map(|c| c / temperature as f32);
    let mut out = LogProbabilities::default();
    each_block(hidden, head, labels, temperature, &mut |_, labels, logits, v| {
        let rows: Vec<(f32, f32)> = host::write(logits, OP, |l| {
            Ok(l.par_chunks_mut(v)
                .zip(labels.par_iter())
                .map(|(l, &y)| chance(l, y as usize, entropies, softcap))
                .collect())
        })?;
        out.labels.extend(rows.iter().map(|r| r.0));
        if entropies {
            out.entropies.extend(rows.iter().map(|r| r.1));
        }
        Ok(())
    })?;
    Ok(out)
}

/// The gradient of `Σ weights · log-probability` (as [`log_probabilities`] gives it): d(hidden) `[N, n]`; that of the
/// head is added into `dhead [V, n]` where it trains. The logits are computed a second time.
pub fn log_probabilities_backward(
    hidden: &Tensor,
    head: &Matrix,
    labels: &[u32],
    temperature: f64,
    weights: &[f64],
    dhead: Option<&Tensor>,
    softcap: Option<f32>,
) -> Result<Tensor> {
    // c·tanh(l / c) / T is c'·tanh(l' / c') of l' = l / T and c' = c / T.
    let softcap = softcap.map(|c| c / temperature as f32);
    let (rows, n) = host::dims2(hidden, OP)?;
    host::same(OP, "weights", &[weights.len()], &[rows])?;
    let dhidden = host::tensor(host::room(rows * n), &[rows, n])?;
    each_block(hidden, head, labels, temperature, &mut |at, labels, logits, v| {
        let weights = &weights[at..at + labels.len()];
        host::write(logits, OP, |l| {
            l.par_chunks_mut(v).zip(labels.par_iter().zip(weights.par_iter())).for_each(|(l, (&y, &w))| {
                row(l, y as usize, Some((-w / temperature) as f32), softcap);
            });
            Ok(())
        })?;
        head.times_to_(&dhidden.narrow(0, at, labels.len())?, logits)?;
        match dhead {
            Some(dhead) => matmul_add_(dhead, 1.0, &logits.t()?, &hidden.narrow(0, at, labels.len())?),
            None => Ok(()),
        }
    })?;
    Ok(dhidden)
}

/// Takes a block's first row, its labels, its logits, and V.
type Take<'a> = dyn FnMut(usize, &[u32], &Tensor, usize) -> Result<()> + 'a;

/// Give the logits over the temperature, a block of rows at a time.
fn each_block(hidden: &Tensor, head: &Matrix, labels: &[u32], temperature: f64, take: &mut Take) -> Result<()> {
    let (rows, n) = host::dims2(hidden, OP)?;
    let (v, width) = head.dims()?;
    host::same(OP, "the head", &[v, width], &[v, n])?;
    host::same(OP, "labels", &[labels.len()], &[rows])?;
    if let Some(label) = labels.iter().find(|&&l| l as usize >= v) {
        return Err(Error::new(format!("label {label} is beyond the vocabulary of {v}")));
    }
    let block = (LOGITS / v.max(1)).max(1);
    for (i, labels) in labels.chunks(block).enumerate() {
        let logits = head.times_transposed(&hidden.narrow(0, i * block, labels.len())?)?;
        if temperature != 1.0 {
            let cold = (1.0 / temperature) as f32;
            host::write(&logits, OP, |l| {
                l.par_chunks_mut(v).for_each(|l| scale_by(l, cold));
                Ok(())
            })?;
        }
        take(i * block, labels, &logits, v)?;
    }
    Ok(())
}

/// A row's log-probability and, where asked for, its entropy; `logits` are used up.
fn chance(logits: &mut [f32], label: usize, entropy: bool, softcap: Option<f32>) -> (f32, f32) {
    if let Some(c) = softcap {
        cap(logits, c);
    }
    let top = top(logits);
    let at = logits[label];
    let mut expected = 0f64;
    if entropy {
        // Σ p·(l − top), from a sum that is taken before the exponentials overwrite the logits.
        let total = logits.chunks(1024).map(|c| weighed(c, top)).fold((0f64, 0f64), |a, b| (a.0 + b.0, a.1 + b.1));
        expected = total.1 / total.0;
    }
    let total = exponentials(logits, top, false);
    let nll = f64::from(top) + total.ln() - f64::from(at);
    (-nll as f32, (total.ln() - expected) as f32)
}

vectorized! {
    /// Σ exp(l − top) and Σ exp(l − top)·(l − top) of a piece.
    fn weighed(l: &[f32], top: f32) -> (f64, f64) {
        let total = sum(l.len(), |i| exp(l[i] - top));
        // A logit of −∞ has no share: 0 · −∞ must not become NaN.
        let expected = sum(l.len(), |i| exp(l[i] - top) * (l[i] - top).max(-1e4));
        (f64::from(total), f64::from(expected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::*;

    fn reference(h: &[f64], w: &[f64], labels: &[u32], n: usize, softcap: Option<f32>) -> f64 {
        let cap = |l: f64| softcap.map_or(l, |c| f64::from(c) * (l / f64::from(c)).tanh());
        let row = |(h, &y): (&[f64], &u32)| {
            let l: Vec<f64> = w.chunks(n).map(|w| cap(inner(h, w))).collect();
            l.iter().map(|l| l.exp()).sum::<f64>().ln() - l[y as usize]
        };
        h.chunks(n).zip(labels).map(row).sum()
    }

    #[test]
    fn loss_and_both_gradients_agree_with_f64_and_finite_differences() {
        let (n, v, labels) = (5, 41, [3, 40, 0, 3, 17, 22, 9]);
        let (h, w) = (random(&[7, n], 1), random(&[v, n], 2));
        for cap in [None, Some(1.5)] {
            let dw = tensor(&vec![0.0; v * n], &[v, n]);
            let gradients = Some(Gradients { scale: 0.25, head: Some(&dw) });
            let (loss, dh) = cross_entropy(&h, &(&w).into(), &labels, gradients, cap).unwrap();
            let (h, w) = (f64s(&h), f64s(&w));
            assert!((loss - reference(&h, &w, &labels, n, cap)).abs() < 1e-5);
            close(&f64s(&dh.unwrap()), &differences(&h, |h| 0.25 * reference(h, &w, &labels, n, cap)), 2e-6);
            close(&f64s(&dw), &differences(&w, |w| 0.25 * reference(&h, w, &labels, n, cap)), 2e-6);
        }
    }

    #[test]
    fn many_blocks_of_rows_give_the_sum_of_single_rows() {
        let (n, v, rows) = (3, 50, 7);
        let (h, w, labels) = (random(&[rows, n], 1), random(&[v, n], 2), [1, 2, 3, 4, 5, 6, 7]);
        let run = |block| {
            let dw = tensor(&vec![0.0; v * n], &[v, n]);
            let g = Some(Gradients { scale: 1.0, head: Some(&dw) });
            let (loss, dh) = blocks_of(block, &h, &(&w).into(), &labels, g, None).unwrap();
            (loss, f64s(&dh.unwrap()), f64s(&dw))
        };
        let (one, three) = (run(1), run(3));
        assert!((one.0 - three.0).abs() < 1e-5);
        close(&one.1, &three.1, 1e-5);
        close(&one.2, &three.2, 1e-5);
    }

    #[test]
    fn it_agrees_with_pytorch() {
        // seq: sin(a·(i+1)+b). h=seq((3,4),0.7,0); W=seq((6,4),1.3,0.5)
        // F.cross_entropy(h@W.T,torch.tensor([2,-100,5]),ignore_index=-100,reduction="sum").backward()
        let h = wave(&[3, 4], 0.7, 0.0);
        let labelled = Tensor::cat(&[h.narrow(0, 0, 1).unwrap(), h.narrow(0, 2, 1).unwrap()], 0).unwrap();
        let (w, dw) = (wave(&[6, 4], 1.3, 0.5), tensor(&[0.0; 24], &[6, 4]));
        let (loss, dh) =
            cross_entropy(&labelled, &(&w).into(), &[2, 5], Some(Gradients { scale: 1.0, head: Some(&dw) }), None)
                .unwrap();
        assert!((loss - 4.2436304).abs() < 5e-6);
        let want_dh =
            [0.3338083, -0.33981115, -0.51560652, 0.063962929, -0.9704358, 0.81021667, 1.4038997, -0.059133545];
        let want_dw = [
            0.05769112,
            0.10610515,
            0.10461627,
            0.053924717,
            0.18482235,
            0.32880086,
            0.31813917,
            0.15785168,
            -0.39503625,
            -0.41859382,
            -0.24528018,
            0.043392569,
            0.10652388,
            0.42852509,
            0.54898429,
            0.41124752,
            0.034667224,
            0.14519253,
            0.18743151,
            0.14151853,
            0.011331636,
            -0.59002984,
            -0.91389108,
            -0.80793506,
        ];
        close(&f64s(&dh.unwrap()), &want_dh, 1e-6);
        close(&f64s(&dw), &want_dw, 1e-6);
    }

    #[test]
    fn log_probabilities_entropies_and_their_gradient_agree_with_f64_and_finite_differences() {
        for softcap in [None, Some(1.5f32)] {
            let (n, v, labels, temperature) = (5, 41, [3, 40, 0, 3, 17], 0.7);
            let (h, w) = (random(&[5, n], 1), random(&[v, n], 2));
            let weights = [0.5, -1.0, 0.0, 2.0, -0.25];
            let got = log_probabilities(&h, &(&w).into(), &labels, temperature, true, softcap).unwrap();
            let dw = tensor(&vec![0.0; v * n], &[v, n]);
            let dh = log_probabilities_backward(&h, &(&w).into(), &labels, temperature, &weights, Some(&dw), softcap)
                .unwrap();
            let (h, w) = (f64s(&h), f64s(&w));
            let cap = |l: f64| softcap.map_or(l, |c| f64::from(c) * (l / f64::from(c)).tanh());
            let logits =
                |h: &[f64], w: &[f64]| -> Vec<f64> { w.chunks(n).map(|w| cap(inner(h, w)) / temperature).collect() };
            let all = |l: &[f64]| l.iter().map(|l| l.exp()).sum::<f64>().ln();
            for (i, &y) in labels.iter().enumerate() {
                let l = logits(&h[i * n..][..n], &w);
                let entropy: f64 = l.iter().map(|x| -(x - all(&l)).exp() * (x - all(&l))).sum();
                assert!((f64::from(got.labels[i]) - (l[y as usize] - all(&l))).abs() < 1e-5);
                assert!((f64::from(got.entropies[i]) - entropy).abs() < 1e-5);
            }
            let weighted = |h: &[f64], w: &[f64]| -> f64 {
                let row = |((h, &y), a): ((&[f64], &u32), &f64)| {
                    let l = logits(h, w);
                    a * (l[y as usize] - all(&l))
                };
                h.chunks(n).zip(&labels).zip(&weights).map(row).sum()
            };
            close(&f64s(&dh), &differences(&h, |h| weighted(h, &w)), 5e-6);
            close(&f64s(&dw), &differences(&w, |w| weighted(&h, w)), 5e-6);
        }
    }

    #[test]
    fn what_is_not_finite_shows_in_the_loss() {
        let w = random(&[6, 4], 2);
        for bad in [f32::NAN, f32::INFINITY] {
            let h = tensor(&[bad, 1.0, 1.0, 1.0], &[1, 4]);
            let (loss, _) =
                cross_entropy(&h, &(&w).into(), &[2], Some(Gradients { scale: 1.0, head: None }), None).unwrap();
            assert!(!loss.is_finite(), "{loss}");
        }
    }

    #[test]
    fn a_label_beyond_the_vocabulary_is_an_error_and_no_label_is_no_loss() {
        let w = random(&[6, 4], 2);
        assert!(cross_entropy(&random(&[1, 4], 1), &(&w).into(), &[6], None, None).is_err());
        let none = Tensor::from_vec(Vec::<f32>::new(), (0, 4), &candle_core::Device::Cpu).unwrap();
        assert_eq!(cross_entropy(&none, &(&w).into(), &[], None, None).unwrap().0, 0.0);
    }
}
