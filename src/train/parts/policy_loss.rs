//! GRPO's advantages and losses, as TRL 1.16's `GRPOTrainer` computes them, with their derivatives by the
//! log-probabilities.
//!
//! Pure numbers: knows neither models nor batches.

use crate::recipe::{GrpoLoss, GrpoSection, SamplingLevel, ScaleRewards};

/// Added to a standard deviation before it divides, as in TRL.
const TINY: f64 = 1e-4;

/// What a group's rewards are worth against each other.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Advantages {
    /// One a completion; 0 where none could be scored.
    pub values: Vec<f64>,
    /// Share of completions whose standard deviation (of the group, or of the batch) is 0.
    pub zero_std: f64,
}

/// Advantages of `rewards`, `group` of them a prompt, in order. NaN: it could not be scored.
pub fn advantages(rewards: &[f64], group: usize, scale: ScaleRewards) -> Advantages {
    let spread_of_all = deviation(rewards);
    let (mut values, mut zeros) = (Vec::with_capacity(rewards.len()), 0);
    for rewards in rewards.chunks(group.max(1)) {
        let middle = mean(rewards);
        let spread = if scale == ScaleRewards::Batch { spread_of_all } else { deviation(rewards) };
        // `torch.isclose` to 0.
        zeros += if spread.abs() <= 1e-8 { rewards.len() } else { 0 };
        let by = if scale == ScaleRewards::None { 1.0 } else { spread + TINY };
        values.extend(rewards.iter().map(|r| (r - middle) / by).map(|a| if a.is_nan() { 0.0 } else { a }));
    }
    Advantages { values, zero_std: zeros as f64 / rewards.len().max(1) as f64 }
}

/// The mean of what is a number; NaN of nothing.
pub fn mean(values: &[f64]) -> f64 {
    let known: Vec<f64> = values.iter().copied().filter(|v| !v.is_nan()).collect();
    known.iter().sum::<f64>() / known.len() as f64
}

/// The sample standard deviation of what is a number (n − 1, as torch has it); NaN of fewer than two.
pub fn deviation(values: &[f64]) -> f64 {
    let known: Vec<f64> = values.iter().copied().filter(|v| !v.is_nan()).collect();
    let middle = mean(&known);
    (known.iter().map(|v| (v - middle).powi(2)).sum::<f64>() / (known.len() as f64 - 1.0)).sqrt()
}

/// One completion as the loss sees it: its tokens' log-probabilities now, when it was drawn, and under the reference.
#[derive(Debug, Clone, Copy)]
pub struct Rollout<'a> {
    pub now: &'a [f32],
    /// Empty: it was drawn from the model as it stands.
    pub old: &'a [f32],
    /// Empty where `beta` is 0.
    pub reference: &'a [f32],
    pub advantage: f64,
}

/// What the loss of a micro-batch is divided by; all counts are of completions that are trained on and those that are not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// Completions of the micro-batch.
    pub completions: usize,
    /// Tokens of the micro-batch.
    pub tokens: usize,
    /// Tokens of all micro-batches of the step.
    pub step_tokens: usize,
    /// Micro-batches of the step.
    pub micro_batches: usize,
    pub max_completion_length: usize,
}

impl Scale {
    /// The weight of one token's loss in a completion of `tokens`.
    fn weight(&self, loss_type: GrpoLoss, tokens: usize) -> f64 {
        let micro = self.micro_batches.max(1) as f64;
        match loss_type {
            GrpoLoss::Grpo => 1.0 / (tokens.max(1) as f64 * self.completions.max(1) as f64 * micro),
            GrpoLoss::Bnpo => 1.0 / (self.tokens.max(1) as f64 * micro),
            GrpoLoss::DrGrpo => 1.0 / ((self.completions * self.max_completion_length).max(1) as f64 * micro),
            GrpoLoss::Dapo => 1.0 / self.step_tokens.max(1) as f64,
        }
    }
}

/// What a completion adds to the loss, the derivative by each of its log-probabilities, and what is shown of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Lost {
    pub loss: f64,
    pub weights: Vec<f64>,
    /// Σ over tokens of the estimate of KL to the reference.
    pub kl: f64,
    /// Ratios that were clipped, below and above, and of how many: tokens, or one a sequence.
    pub clipped_low: f64,
    pub clipped_high: f64,
    pub ratios: f64,
}

/// The clipped policy-gradient loss of one completion, and `beta` times its distance from the reference.
pub fn loss(r: &Rollout, grpo: &GrpoSection, scale: &Scale) -> Lost {
    let n = r.now.len();
    let mut lost = Lost { weights: vec![0.0; n], ..Lost::default() };
    let weight = scale.weight(grpo.loss_type, n);
    let (low, high) = (1.0 - grpo.epsilon, 1.0 + grpo.epsilon_high());
    let log_ratio = |i: usize| r.old.get(i).map_or(0.0, |&old| f64::from(r.now[i]) - f64::from(old));
    let mean_ratio = (0..n).map(log_ratio).sum::<f64>() / n.max(1) as f64;
    let by_sequence = grpo.importance_sampling_level == SamplingLevel::Sequence;
    // −min(ratio·A, clip(ratio)·A), and its derivative by log(ratio): −ratio·A where the unclipped one is the smaller.
    let surrogate = |log_ratio: f64| {
        let ratio = log_ratio.exp();
        let (free, bound) = (ratio * r.advantage, ratio.clamp(low, high) * r.advantage);
        let through = free <= bound || (low..=high).contains(&ratio);
        (ratio, -free.min(bound), if through { -free } else { 0.0 })
    };
    let mut clipped = |ratio: f64| {
        lost.ratios += 1.0;
        lost.clipped_low += f64::from(u8::from(ratio < low && r.advantage < 0.0));
        lost.clipped_high += f64::from(u8::from(ratio > high && r.advantage > 0.0));
    };
    if by_sequence {
        let (ratio, value, by) = surrogate(mean_ratio);
        clipped(ratio);
        // Each token carries the sequence's loss, and moves the mean by its share.
        lost.loss += weight * value * n as f64;
        lost.weights.iter_mut().for_each(|w| *w += weight * by);
    } else {
        for i in 0..n {
            let (ratio, value, by) = surrogate(log_ratio(i));
            clipped(ratio);
            lost.loss += weight * value;
            lost.weights[i] += weight * by;
        }
    }
    // k3 of Schulman ("Approximating KL divergence", 2020), with the ratio as TRL weighs it where asked for.
    let mut moved = 0.0;
    for (i, &reference) in r.reference.iter().enumerate().take(n) {
        let gap = f64::from(reference) - f64::from(r.now[i]);
        let (mut kl, mut by) = (gap.exp() - gap - 1.0, 1.0 - gap.exp());
        if grpo.use_bias_correction_kl {
            let ratio = if by_sequence { mean_ratio } else { log_ratio(i) }.exp();
            (kl, by) = (kl * ratio, by * ratio);
            // The ratio moves too: with its own token, or with every token of the sequence.
            if by_sequence { moved += kl } else { by += kl }
        }
        lost.kl += kl;
        lost.loss += weight * grpo.beta * kl;
        lost.weights[i] += weight * grpo.beta * by;
    }
    let share = weight * grpo.beta * moved / n.max(1) as f64;
    lost.weights.iter_mut().for_each(|w| *w += share);
    lost
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(loss_type: GrpoLoss, importance_sampling_level: SamplingLevel) -> GrpoSection {
        let text = "method = \"grpo\"\n[model]\nname_or_path = \"demo\"\n[data]\ntrain = \"a\"\n[grpo]\nreward_funcs = [\"think_format\"]";
        let grpo = crate::recipe::parse(text, "g.toml", &[]).unwrap().recipe.grpo.unwrap();
        GrpoSection { loss_type, importance_sampling_level, beta: 0.3, ..grpo }
    }

    const ALL: [GrpoLoss; 4] = [GrpoLoss::Grpo, GrpoLoss::Bnpo, GrpoLoss::DrGrpo, GrpoLoss::Dapo];
    const SCALE: Scale =
        Scale { completions: 3, tokens: 11, step_tokens: 19, micro_batches: 2, max_completion_length: 8 };

    #[test]
    fn every_derivative_agrees_with_finite_differences_inside_and_outside_the_clip() {
        let (old, reference) = ([-1.0f32, -2.0, -0.5, -3.0], [-1.1f32, -1.8, -0.7, -2.5]);
        for now in [[-1.05f32, -1.95, -0.55, -3.1], [-0.2, -1.0, -0.1, -2.0], [-2.0, -3.0, -1.5, -4.5]] {
            for (loss_type, level) in
                ALL.iter().flat_map(|l| [(*l, SamplingLevel::Token), (*l, SamplingLevel::Sequence)])
            {
                for (advantage, corrected) in [(0.7, true), (-0.7, true), (0.7, false)] {
                    let grpo = GrpoSection { use_bias_correction_kl: corrected, ..section(loss_type, level) };
                    let of = |now: &[f32]| {
                        loss(&Rollout { now, old: &old, reference: &reference, advantage }, &grpo, &SCALE)
                    };
                    let got = of(&now);
                    for i in 0..now.len() {
                        let moved = |by: f32| {
                            let mut now = now;
                            now[i] += by;
                            of(&now).loss
                        };
                        let want = (moved(1e-3) - moved(-1e-3)) / 2e-3;
                        assert!(
                            (got.weights[i] - want).abs() < 2e-4,
                            "{loss_type:?} {level:?} {i}: {} {want}",
                            got.weights[i]
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn drawn_from_the_model_itself_the_ratio_is_one_and_the_gradient_is_the_advantage() {
        let grpo = GrpoSection { beta: 0.0, ..section(GrpoLoss::Dapo, SamplingLevel::Token) };
        let r = Rollout { now: &[-1.0, -2.0], old: &[], reference: &[], advantage: 1.5 };
        let lost = loss(&r, &grpo, &SCALE);
        assert_eq!((lost.clipped_low, lost.clipped_high, lost.ratios), (0.0, 0.0, 2.0));
        assert!((lost.loss + 2.0 * 1.5 / 19.0).abs() < 1e-12);
        assert!(lost.weights.iter().all(|w| (w + 1.5 / 19.0).abs() < 1e-12));
    }

    /// ```python
    /// r = torch.tensor([[1., 0, 0, 1], [2, 2, 2, 2]]); r - r.mean(1, True); r.std(1); r.std()
    /// ```
    #[test]
    fn advantages_are_within_the_group_and_scaled_as_asked() {
        let rewards = [1.0, 0.0, 0.0, 1.0, 2.0, 2.0, 2.0, 2.0];
        let group = advantages(&rewards, 4, ScaleRewards::Group);
        assert_eq!(group.zero_std, 0.5);
        assert!((group.values[0] - 0.5 / (0.577_350_269 + 1e-4)).abs() < 1e-8);
        assert_eq!(group.values[4..], [0.0; 4]);
        assert_eq!(advantages(&rewards, 4, ScaleRewards::None).values[..2], [0.5, -0.5]);
        let batch = advantages(&rewards, 4, ScaleRewards::Batch);
        assert!((batch.values[0] - 0.5 / (0.886_405_260 + 1e-4)).abs() < 1e-8 && batch.zero_std == 0.0);
        let unscored = advantages(&[f64::NAN, 1.0, 0.0], 3, ScaleRewards::None);
        assert_eq!(unscored.values, [0.0, 0.5, -0.5]);
    }
}
