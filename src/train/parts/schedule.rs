//! Learning-rate schedules, as `transformers.optimization` defines them.
//!
//! Step `k` counts optimizer steps from 0 and uses `learning_rate * factor(k)`: so the first step of a
//! warm-up runs at rate 0.

use crate::recipe::TrainSection;
use crate::recipe::scheduler::{self, Curve, Shape, Wsd};
use crate::{Error, Result};
use std::f64::consts::PI;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    pub shape: Shape,
    pub warmup_steps: u64,
    pub total_steps: u64,
    /// The peak, of which `polynomial` needs to know how far its end is.
    pub learning_rate: f64,
}

impl Schedule {
    /// `warmup_steps` wins over `warmup_ratio` where it is not 0; a ratio rounds up, as the Trainer's does.
    ///
    /// # Errors
    /// A schedule that is unknown, or kwargs that it does not take.
    pub fn of(t: &TrainSection, total_steps: u64) -> Result<Self> {
        let shape = scheduler::read(&t.lr_scheduler_type, t.lr_scheduler_kwargs.as_ref())
            .map_err(|(what, next)| Error::usage(what).next(next))?;
        let warmup_steps =
            if t.warmup_steps > 0 { t.warmup_steps } else { (total_steps as f64 * t.warmup_ratio).ceil() as u64 };
        Ok(Self { shape, warmup_steps, total_steps, learning_rate: t.learning_rate })
    }

    /// The factor on the learning rate at optimizer step `k`, counted from 0.
    pub fn factor(&self, k: u64) -> f64 {
        let (k, warmup, total) = (k as f64, self.warmup_steps as f64, self.total_steps as f64);
        let progress = (k - warmup) / (total - warmup).max(1.0);
        match self.shape {
            Shape::Constant => 1.0,
            Shape::WarmupStableDecay(wsd) => wsd_factor(&wsd, k, warmup, total),
            _ if k < warmup => k / warmup.max(1.0),
            Shape::ConstantWithWarmup => 1.0,
            Shape::Linear => ((total - k) / (total - warmup).max(1.0)).max(0.0),
            Shape::Cosine { num_cycles } => (0.5 * (1.0 + (PI * num_cycles * 2.0 * progress).cos())).max(0.0),
            Shape::CosineWithRestarts { .. } if progress >= 1.0 => 0.0,
            Shape::CosineWithRestarts { num_cycles } => {
                (0.5 * (1.0 + (PI * ((num_cycles * progress) % 1.0)).cos())).max(0.0)
            }
            Shape::Polynomial { lr_end, power } => {
                let end = lr_end / self.learning_rate;
                if k > total { end } else { (1.0 - end) * (1.0 - progress).powf(power) + end }
            }
        }
    }
}

fn wsd_factor(w: &Wsd, k: f64, warmup: f64, total: f64) -> f64 {
    let stable = w.num_stable_steps.unwrap_or(total - warmup - w.num_decay_steps);
    let above = |factor: f64| (factor * (1.0 - w.min_lr_ratio) + w.min_lr_ratio).max(0.0);
    if k < warmup {
        let progress = k / warmup.max(1.0);
        return above(match w.warmup_type {
            Curve::Linear => progress,
            Curve::Cosine => 0.5 * (1.0 - (PI * progress).cos()),
            Curve::OneMinusSqrt => 1.0 - (1.0 - progress).sqrt(),
        });
    }
    if k < warmup + stable {
        return 1.0;
    }
    if k < warmup + stable + w.num_decay_steps {
        let progress = (k - warmup - stable) / w.num_decay_steps.max(1.0);
        return above(match w.decay_type {
            Curve::Linear => 1.0 - progress,
            Curve::Cosine => 0.5 * (1.0 + (PI * w.num_cycles * 2.0 * progress).cos()),
            Curve::OneMinusSqrt => 1.0 - progress.sqrt(),
        });
    }
    w.min_lr_ratio
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::parse;
    use serde_json::Value;

    fn section(name: &str, kwargs: &str, warmup: &str, rate: f64) -> TrainSection {
        let text = format!(
            "[model]\nname_or_path = \"demo\"\n[data]\ntrain = \"a\"\n[train]\nlearning_rate = {rate}\nlr_scheduler_type = \
             \"{name}\"\nlr_scheduler_kwargs = {kwargs}\n{warmup}\n"
        );
        parse(&text, "r.toml", &[]).unwrap().recipe.train
    }

    #[test]
    fn every_schedule_equals_that_of_transformers() {
        let text = include_str!("../../../tests/fixtures/schedules.json");
        let all: Value = serde_json::from_str(text).unwrap();
        let cases = all["schedules"].as_array().unwrap();
        assert!(cases.len() >= 20);
        let mut names: Vec<&str> = cases.iter().map(|c| c["name"].as_str().unwrap()).collect();
        names.dedup();
        assert!(scheduler::NAMES.iter().all(|n| names.contains(n)));
        for case in cases {
            let (name, kwargs) = (case["name"].as_str().unwrap(), case["kwargs"].as_object().unwrap());
            let toml: Vec<String> = kwargs.iter().map(|(k, v)| format!("{k} = {v}")).collect();
            let (rate, total) = (case["learning_rate"].as_f64().unwrap(), case["total"].as_u64().unwrap());
            let warmup = format!("warmup_ratio = 0.0\nwarmup_steps = {}", case["warmup"]);
            let t = section(name, &format!("{{ {} }}", toml.join(", ")), &warmup, rate);
            let s = Schedule::of(&t, total).unwrap();
            for (k, want) in case["rates"].as_array().unwrap().iter().enumerate() {
                let (got, want) = (rate * s.factor(k as u64), want.as_f64().unwrap());
                assert!((got - want).abs() <= 1e-12 * rate, "{name} {kwargs:?} step {k}: {got} for {want}");
            }
        }
    }

    #[test]
    fn a_warmup_ratio_rounds_up_and_warmup_steps_win() {
        let steps = |warmup: &str| Schedule::of(&section("linear", "{}", warmup, 1.0), 50).unwrap().warmup_steps;
        assert_eq!(steps("warmup_ratio = 0.03"), 2);
        assert_eq!(steps("warmup_ratio = 0.03\nwarmup_steps = 5"), 5);
    }
}
