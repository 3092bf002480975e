//! An adapter folded into its base: W + scale · B · A in f32, rounded once, with what the rounding costs measured.
//!
//! Must not know runs or recipes.

use super::companions::companions;
use super::pieces::disk;
use super::quant::{Kind, quantize};
use super::safetensors::{self, Tensor};
use super::subject::Subject;
use super::weights::{Matrix, Weights};
use crate::model::convert::{Float, widen};
use crate::{Error, Result};
use serde::Serialize;
use std::path::Path;
use std::sync::Mutex;

/// Bytes a file holds at most: what the hub's own tools cut at.
pub const SHARD: u64 = 5_000_000_000;

/// What rounding did to the tuned weights.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Drift {
    /// Length of the rounding error over the length of what the adapter changes (both over all values).
    pub error: f64,
    /// Share of the changed values that the rounding puts back to what the base rounds to.
    pub lost: f64,
}

/// A merged model, written.
#[derive(Debug, Clone, Serialize)]
pub struct Merged {
    pub bytes: u64,
    pub tensors: usize,
    /// Those that the adapter changes.
    pub tuned: usize,
    /// `None`: there was no adapter.
    pub drift: Option<Drift>,
    /// The tensor with the largest error.
    pub worst: Option<(String, Drift)>,
}

/// Sums over some rows: squared rounding error, squared change, changed values, values put back.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    error: f64,
    change: f64,
    changed: u64,
    lost: u64,
}

impl Sums {
    fn add(&mut self, other: &Sums) {
        self.error += other.error;
        self.change += other.change;
        self.changed += other.changed;
        self.lost += other.lost;
    }

    fn drift(&self) -> Drift {
        let share = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
        Drift { error: share(self.error, self.change).sqrt(), lost: share(self.lost as f64, self.changed as f64) }
    }
}

/// Write the subject into `folder` as `kind` (F32, F16 or BF16), with everything that belongs beside it. `factor`
/// scales the adapter. `done` hears how many of how many tensors are written.
pub fn merge(
    subject: &Subject,
    folder: &Path,
    kind: Kind,
    factor: f64,
    most: u64,
    done: &mut dyn FnMut(usize, usize),
) -> Result<Merged> {
    std::fs::create_dir_all(folder).map_err(|e| Error::from(e).at(folder.display()))?;
    let weights = subject.weights()?.scaled(factor);
    let tensors: Vec<Tensor> =
        weights.config.tensor_shapes().into_iter().map(|(name, shape)| Tensor { name, shape }).collect();
    let matrices = tensors.iter().map(|t| weights.matrix(&t.name)).collect::<Result<Vec<_>>>()?;
    // By tensor and first row, so that the sums are taken in one order whatever the threads do.
    let measured: Mutex<Vec<(usize, usize, Sums)>> = Mutex::new(Vec::new());
    let fill = |tensor: usize, first: usize, out: &mut [u8]| -> Result<()> {
        let m = &matrices[tensor];
        let sums = rows(m, first, kind, out)?;
        if m.is_tuned()
            && let Ok(mut all) = measured.lock()
        {
            all.push((tensor, first, sums));
        }
        Ok(())
    };
    let bytes = safetensors::write(folder, &tensors, kind, most, &fill, &mut |n| done(n, tensors.len()))?;
    for (name, content) in beside(subject, &weights, kind)? {
        let path = folder.join(name);
        std::fs::write(&path, content).map_err(|e| disk(e, &path))?;
    }
    let tuned = matrices.iter().filter(|m| m.is_tuned()).count();
    let mut all = measured.into_inner().unwrap_or_default();
    all.sort_by_key(|(tensor, first, _)| (*tensor, *first));
    let (mut total, mut by_tensor) = (Sums::default(), vec![Sums::default(); tensors.len()]);
    for (tensor, _, sums) in &all {
        by_tensor[*tensor].add(sums);
        total.add(sums);
    }
    let worst = by_tensor.iter().enumerate().filter(|(_, s)| s.change > 0.0).map(|(i, s)| (i, s.drift()));
    let worst = worst.max_by(|a, b| a.1.error.total_cmp(&b.1.error)).map(|(i, d)| (tensors[i].name.clone(), d));
    let drift = subject.adapter.is_some().then(|| total.drift());
    Ok(Merged { bytes, tensors: tensors.len(), tuned, drift, worst })
}

/// Configuration, tokenizer and template. The template is the one that was trained with.
fn beside(subject: &Subject, weights: &Weights, kind: Kind) -> Result<Vec<(String, Vec<u8>)>> {
    let dtype = match kind {
        Kind::F16 => "float16",
        Kind::BF16 => "bfloat16",
        _ => "float32",
    };
    let base = subject.files().ok();
    let own = base.is_some() && !subject.replaced;
    let template = if own { None } else { Some(&subject.templates) };
    companions(base, weights.config, &subject.tokenizer, template, dtype)
}

/// Rows from `first` on, rounded to `kind`; what that did to a tuned tensor.
fn rows(m: &Matrix, first: usize, kind: Kind, out: &mut [u8]) -> Result<Sums> {
    let count = out.len() / kind.bytes(m.columns);
    let mut merged = vec![0f32; count * m.columns];
    for (n, row) in merged.chunks_exact_mut(m.columns).enumerate() {
        m.row(first + n, row)?;
    }
    quantize(kind, &merged, out)?;
    let mut sums = Sums::default();
    if !m.is_tuned() {
        return Ok(sums);
    }
    let float = match kind {
        Kind::F16 => Float::F16,
        Kind::BF16 => Float::BF16,
        _ => Float::F32,
    };
    let mut rounded = vec![0f32; merged.len()];
    widen(out, float, &mut rounded);
    let (mut base, mut stored, mut base_rounded) =
        (vec![0f32; m.columns], vec![0u8; kind.bytes(m.columns)], vec![0f32; m.columns]);
    for (n, (merged, rounded)) in merged.chunks_exact(m.columns).zip(rounded.chunks_exact(m.columns)).enumerate() {
        m.base_row(first + n, &mut base)?;
        quantize(kind, &base, &mut stored)?;
        widen(&stored, float, &mut base_rounded);
        for i in 0..m.columns {
            let change = f64::from(merged[i]) - f64::from(base[i]);
            sums.error += (f64::from(rounded[i]) - f64::from(merged[i])).powi(2);
            sums.change += change.powi(2);
            sums.changed += u64::from(change != 0.0);
            sums.lost += u64::from(change != 0.0 && rounded[i] == base_rounded[i]);
        }
    }
    Ok(sums)
}
