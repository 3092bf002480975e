//! The curves that a method adds to those of every run: the name of its numbers in the events (TRL's), and its label.

/// One curve of a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Curve {
    /// In a step's metrics.
    pub name: &'static str,
    /// In titles and beside its line.
    pub label: &'static str,
}

const fn curve(name: &'static str, label: &'static str) -> Curve {
    Curve { name, label }
}

const DPO: &[Curve] = &[
    curve("rewards/margins", "margins"),
    curve("rewards/accuracies", "accuracy"),
    curve("rewards/chosen", "chosen"),
    curve("rewards/rejected", "rejected"),
    curve("logps/chosen", "logps ch"),
    curve("logps/rejected", "logps rj"),
];

const GRPO: &[Curve] = &[
    curve("reward", "reward"),
    curve("reward_std", "spread"),
    curve("frac_reward_zero_std", "no spread"),
    curve("completions/mean_length", "length"),
    curve("completions/clipped_ratio", "cut off"),
    curve("entropy", "entropy"),
    curve("clip_ratio/region_mean", "clipped"),
    curve("kl", "kl"),
];

/// The curves of a method, the most telling first.
pub fn of(method: &str) -> &'static [Curve] {
    match method {
        "dpo" => DPO,
        "grpo" => GRPO,
        _ => &[],
    }
}
