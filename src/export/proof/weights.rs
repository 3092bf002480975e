//! A file's weights against the trained ones, tensor by tensor: is the difference what its type costs, and is the
//! adapter in them whole?

use crate::export::quant::Kind;
use crate::export::weights::{Matrix, Weights};
use crate::{Error, Result};
use rayon::prelude::*;

/// Sums over a tensor: of (written - trained)², trained², change², and (written - trained) · change, where change is
/// what the adapter adds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sums {
    error: f64,
    norm: f64,
    change: f64,
    along: f64,
    values: f64,
}

pub struct Tensor {
    pub name: String,
    pub kind: Option<Kind>,
    pub sums: Sums,
}

impl Sums {
    fn add(mut self, o: &Sums) -> Self {
        self.error += o.error;
        self.norm += o.norm;
        self.change += o.change;
        self.along += o.along;
        self.values += o.values;
        self
    }

    /// Root mean square of the difference over that of the weights.
    pub fn relative(&self) -> f64 {
        if self.norm > 0.0 { (self.error / self.norm).sqrt() } else { self.error.sqrt() }
    }

    /// How much of the adapter's change is there, 1 being all of it, and the standard error of that: rounding errors
    /// point anywhere, so that little of them lies along one direction; a missing adapter lies all along its change.
    /// `None` where the adapter changes nothing.
    pub fn share(&self) -> Option<(f64, f64)> {
        let noise = (self.error / self.change / self.values).sqrt();
        (self.change > 0.0).then_some((1.0 + self.along / self.change, noise))
    }

    /// Whether the adapter is not there as a whole, beyond what rounding explains.
    fn is_torn(&self) -> bool {
        self.share().is_some_and(|(share, noise)| share.is_nan() || (share - 1.0).abs() > 0.1 + 6.0 * noise)
    }
}

/// What a type may cost, root mean square over root mean square. Measured on SmolLM2's tensors, with half as much
/// again as allowance.
pub fn limit(kind: Option<Kind>) -> f64 {
    match kind {
        Some(Kind::F32) => 2e-6,
        Some(Kind::F16) => 5e-4,
        Some(Kind::BF16) => 3e-3,
        Some(Kind::Q8_0) => 0.015,
        Some(Kind::Q6K) => 0.04,
        Some(Kind::Q5K | Kind::Q5_0 | Kind::Q5_1) => 0.08,
        Some(Kind::Q4K | Kind::Q4_0 | Kind::Q4_1) => 0.16,
        Some(Kind::Q3K) => 0.28,
        Some(Kind::Q2K) => 0.55,
        None => 0.6,
    }
}

/// Every tensor of `written` against `trained`.
///
/// # Errors
/// When the two are not of one shape, or a tensor cannot be read.
pub fn compare(trained: &Weights, written: &Weights) -> Result<Vec<Tensor>> {
    let (a, b) = (trained.config.tensor_shapes(), written.config.tensor_shapes());
    if a != b {
        let differs = a.iter().zip(&b).find(|(a, b)| a != b).map(|(a, _)| a.0.clone());
        return Err(Error::new("the model has other tensors than the trained one")
            .at(differs.unwrap_or_else(|| "its last tensors".into())));
    }
    let mut all = Vec::new();
    for (name, _) in a {
        let (trained, written) = (trained.matrix(&name)?, written.matrix(&name)?);
        all.push(Tensor { sums: sums(&trained, &written)?, kind: written.kind(), name });
    }
    Ok(all)
}

fn sums(trained: &Matrix, written: &Matrix) -> Result<Sums> {
    const ROWS: usize = 64;
    let pieces: Vec<Sums> = (0..trained.rows.div_ceil(ROWS))
        .into_par_iter()
        .map(|piece| {
            let mut sums = Sums::default();
            let (mut t, mut w, mut base) =
                (vec![0f32; trained.columns], vec![0f32; trained.columns], vec![0f32; trained.columns]);
            for row in piece * ROWS..((piece + 1) * ROWS).min(trained.rows) {
                trained.row(row, &mut t)?;
                written.row(row, &mut w)?;
                if trained.is_tuned() {
                    trained.base_row(row, &mut base)?;
                } else {
                    base.copy_from_slice(&t);
                }
                for ((t, w), base) in t.iter().zip(&w).zip(&base) {
                    let (error, change) = (f64::from(*w) - f64::from(*t), f64::from(*t) - f64::from(*base));
                    sums.error += error * error;
                    sums.norm += f64::from(*t) * f64::from(*t);
                    sums.change += change * change;
                    sums.along += error * change;
                }
                sums.values += t.len() as f64;
            }
            Ok(sums)
        })
        .collect::<Result<_>>()?;
    Ok(pieces.iter().fold(Sums::default(), Sums::add))
}

/// All tensors together.
pub fn total(tensors: &[Tensor]) -> Sums {
    // Only tuned tensors say anything of the adapter.
    tensors.iter().filter(|t| t.sums.change > 0.0).fold(Sums::default(), |sum, t| sum.add(&t.sums))
}

/// What is wrong first: a tensor that differs by more than its type costs, or one that the adapter is not whole in.
pub fn first_wrong(tensors: &[Tensor]) -> Option<String> {
    for t in tensors {
        let (relative, limit) = (t.sums.relative(), limit(t.kind));
        if relative.is_nan() || relative > limit {
            let kind = t.kind.map_or("?", Kind::name);
            return Some(format!(
                "{} ({kind}) differs by {:.2} %, and {kind} costs at most {:.2} %",
                t.name,
                100.0 * relative,
                100.0 * limit
            ));
        }
    }
    if let Some(t) = tensors.iter().find(|t| t.sums.is_torn()) {
        let (share, _) = t.sums.share().unwrap_or_default();
        return Some(format!("{} has {:.0} % of what the adapter changes", t.name, 100.0 * share));
    }
    let all = total(tensors);
    all.is_torn()
        .then(|| format!("{:.0} % of what the adapter changes is there", 100.0 * all.share().unwrap_or_default().0))
}
