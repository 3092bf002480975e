//! Learning-rate schedules, as `transformers.optimization` defines them.
//!
//! Step `k` counts optimizer steps from 0 and uses `learning_rate * factor(k)`: so the first step of a
//! warm-up runs at rate 0.

use crate::{Error, Result};
use std::f64::consts::PI;

/// Names as in `lr_scheduler_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Linear,
    Cosine,
    Constant,
    ConstantWithWarmup,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    pub shape: Shape,
    pub warmup_steps: u64,
    pub total_steps: u64,
}

impl Schedule {
    /// `warmup_steps` wins over `warmup_ratio` where it is not 0; a ratio rounds up, as the Trainer's does.
    pub fn new(name: &str, warmup_steps: u64, warmup_ratio: f64, total_steps: u64) -> Result<Self> {
        let shape = match name {
            "linear" => Shape::Linear,
            "cosine" => Shape::Cosine,
            "constant" => Shape::Constant,
            "constant_with_warmup" => Shape::ConstantWithWarmup,
            other => {
                return Err(Error::usage(format!("lr_scheduler_type \"{other}\" is unknown"))
                    .next("use linear, cosine, constant or constant_with_warmup"));
            }
        };
        let warmup_steps =
            if warmup_steps > 0 { warmup_steps } else { (total_steps as f64 * warmup_ratio).ceil() as u64 };
        Ok(Self { shape, warmup_steps, total_steps })
    }

    /// The factor on the learning rate at optimizer step `k`, counted from 0.
    pub fn factor(&self, k: u64) -> f64 {
        let (k, warmup, total) = (k as f64, self.warmup_steps as f64, self.total_steps as f64);
        if self.shape == Shape::Constant {
            return 1.0;
        }
        if k < warmup {
            return k / warmup.max(1.0);
        }
        match self.shape {
            Shape::Linear => ((total - k) / (total - warmup).max(1.0)).max(0.0),
            Shape::Cosine => {
                let progress = (k - warmup) / (total - warmup).max(1.0);
                (0.5 * (1.0 + (PI * progress).cos())).max(0.0)
            }
            Shape::Constant | Shape::ConstantWithWarmup => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ```python
    /// from transformers import get_scheduler; import torch
    /// for name in ["linear", "cosine", "constant_with_warmup"]:
    ///     o = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    ///     s = get_scheduler(name, o, num_warmup_steps=2, num_training_steps=8)
    ///     print(name, [(o.step(), s.get_last_lr()[0], s.step())[1] for _ in range(8)])
    /// ```
    #[test]
    fn schedules_equal_transformers() {
        let linear =
            [0.0, 0.5, 1.0, 0.8333333333333334, 0.6666666666666666, 0.5, 0.3333333333333333, 0.16666666666666666];
        let cosine = [0.0, 0.5, 1.0, 0.9330127018922194, 0.75, 0.5, 0.2500000000000001, 0.06698729810778065];
        let constant = [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
        for (name, expected) in [("linear", linear), ("cosine", cosine), ("constant_with_warmup", constant)] {
            let s = Schedule::new(name, 2, 0.0, 8).unwrap();
            for (k, want) in expected.iter().enumerate() {
                assert!(
                    (s.factor(k as u64) - want).abs() < 1e-12,
                    "{name} step {k}: {} for {want}",
                    s.factor(k as u64)
                );
            }
        }
    }

    #[test]
    fn a_warmup_ratio_rounds_up_and_warmup_steps_win() {
        assert_eq!(Schedule::new("linear", 0, 0.03, 50).unwrap().warmup_steps, 2);
        assert_eq!(Schedule::new("linear", 5, 0.03, 50).unwrap().warmup_steps, 5);
    }

    #[test]
    fn an_unknown_schedule_is_refused_by_name() {
        let e = Schedule::new("cosin", 0, 0.0, 8).unwrap_err();
        assert!(e.to_string().contains("cosin") && e.to_string().contains("cosine"), "{e}");
    }
}
