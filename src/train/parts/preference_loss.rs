//! DPO's losses, as TRL 1.16's `DPOTrainer` computes them, with their derivatives by the log-probabilities.
//!
//! Pure numbers: knows neither models nor batches.

use crate::recipe::{DpoLoss, DpoSection};

/// One pair: the sums of its answers' log-probabilities under the policy and under the reference, and its answers' tokens.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pair {
    pub chosen: f64,
    pub rejected: f64,
    pub ref_chosen: f64,
    pub ref_rejected: f64,
    pub chosen_tokens: u64,
    pub rejected_tokens: u64,
}

/// A pair's loss, and its derivative by `chosen` and by `rejected`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lost {
    pub loss: f64,
    pub by_chosen: f64,
    pub by_rejected: f64,
}

impl Pair {
    /// `rewards/chosen` and `rewards/rejected`: β · log-ratio to the reference.
    pub fn rewards(&self, beta: f64) -> (f64, f64) {
        (beta * (self.chosen - self.ref_chosen), beta * (self.rejected - self.ref_rejected))
    }

    pub fn loss(&self, dpo: &DpoSection) -> Lost {
        let (beta, eps) = (dpo.beta, dpo.label_smoothing);
        let (c, r) = (self.chosen - self.ref_chosen, self.rejected - self.ref_rejected);
        let delta = c - r;
        // A loss of the margin alone: its derivative by `rejected` is the other's negative.
        let margin = |loss: f64, by: f64| Lost { loss, by_chosen: by, by_rejected: -by };
        let (cn, rn) = (self.chosen_tokens.max(1) as f64, self.rejected_tokens.max(1) as f64);
        match dpo.loss_type {
            DpoLoss::Sigmoid => margin(-log_sigmoid(beta * delta), -beta * sigmoid(-beta * delta)),
            DpoLoss::Hinge => {
                let gap = 1.0 - beta * delta;
                margin(gap.max(0.0), if gap > 0.0 { -beta } else { 0.0 })
            }
            DpoLoss::Ipo => {
                let off = c / cn - r / rn - 1.0 / (2.0 * beta);
                Lost { loss: off * off, by_chosen: 2.0 * off / cn, by_rejected: -2.0 * off / rn }
            }
            DpoLoss::Robust => {
                let (clean, flipped) = (-log_sigmoid(beta * delta), -log_sigmoid(-beta * delta));
                let by = (1.0 - eps) * -sigmoid(-beta * delta) - eps * sigmoid(beta * delta);
                let whole = 1.0 - 2.0 * eps;
                margin(((1.0 - eps) * clean - eps * flipped) / whole, beta * by / whole)
            }
            DpoLoss::ApoZero => Lost {
                loss: 1.0 - sigmoid(beta * c) + sigmoid(beta * r),
                by_chosen: -beta * bump(beta * c),
                by_rejected: beta * bump(beta * r),
            },
            DpoLoss::ApoDown => {
                let wide = beta * bump(beta * delta);
                Lost {
                    loss: sigmoid(beta * c) + 1.0 - sigmoid(beta * delta),
                    by_chosen: beta * bump(beta * c) - wide,
                    by_rejected: wide,
                }
            }
            DpoLoss::SigmoidNorm => {
                let off = beta * (c / cn - r / rn);
                let by = -beta * sigmoid(-off);
                Lost { loss: -log_sigmoid(off), by_chosen: by / cn, by_rejected: -by / rn }
            }
        }
    }
}

fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

/// The derivative of [`sigmoid`].
fn bump(x: f64) -> f64 {
    sigmoid(x) * sigmoid(-x)
}

fn log_sigmoid(x: f64) -> f64 {
    if x >= 0.0 { -(-x).exp().ln_1p() } else { x - x.exp().ln_1p() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [DpoLoss; 7] = [
        DpoLoss::Sigmoid,
        DpoLoss::Hinge,
        DpoLoss::Ipo,
        DpoLoss::Robust,
        DpoLoss::ApoZero,
        DpoLoss::ApoDown,
        DpoLoss::SigmoidNorm,
    ];

    fn pair(chosen: f64, rejected: f64) -> Pair {
        Pair { chosen, rejected, ref_chosen: -31.0, ref_rejected: -24.5, chosen_tokens: 9, rejected_tokens: 14 }
    }

    fn section(loss_type: DpoLoss) -> DpoSection {
        DpoSection { loss_type, beta: 0.3, label_smoothing: 0.1 }
    }

    #[test]
    fn every_derivative_agrees_with_finite_differences() {
        for loss_type in ALL {
            let dpo = section(loss_type);
            for (c, r) in [(-30.0, -25.0), (-28.0, -27.0), (-33.0, -22.0), (-60.0, -3.0)] {
                let (got, h) = (pair(c, r).loss(&dpo), 1e-5);
                let by = |a: Pair, b: Pair| (a.loss(&dpo).loss - b.loss(&dpo).loss) / (2.0 * h);
                assert!((got.by_chosen - by(pair(c + h, r), pair(c - h, r))).abs() < 1e-6, "{loss_type:?} {c} {r}");
                assert!((got.by_rejected - by(pair(c, r + h), pair(c, r - h))).abs() < 1e-6, "{loss_type:?} {c} {r}");
            }
        }
    }

    #[test]
    fn at_the_reference_the_sigmoid_losses_are_ln_2_and_far_away_nothing_overflows() {
        for loss_type in [DpoLoss::Sigmoid, DpoLoss::Robust, DpoLoss::SigmoidNorm] {
            assert!((pair(-31.0, -24.5).loss(&section(loss_type)).loss - 2f64.ln()).abs() < 1e-12);
        }
        for loss_type in ALL {
            for (c, r) in [(-1e6, 0.0), (0.0, -1e6)] {
                let l = pair(c, r).loss(&section(loss_type));
                assert!(l.loss.is_finite() && l.by_chosen.is_finite() && l.by_rejected.is_finite(), "{loss_type:?}");
            }
        }
    }
}
