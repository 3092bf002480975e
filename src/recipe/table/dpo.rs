//! `[dpo]`: named as TRL's `DPOConfig` names them.

use crate::recipe::schema::{Bounds, Default::*, Entry, Type::*};

pub(in crate::recipe) const DPO: &[Entry] = &[
    Entry::new(
        "dpo.loss_type",
        Choice(&["sigmoid", "hinge", "ipo", "robust", "apo_zero", "apo_down", "sigmoid_norm"]),
        Is("\"sigmoid\""),
        "How a pair's margin becomes a loss, as TRL's DPOTrainer computes each.",
    )
    .names(&["pref_loss", "dpo_loss", "preference_loss", "loss_types"]),
    Entry::new(
        "dpo.beta",
        Float(Bounds::above(0.0, 1000.0)),
        Is("0.1"),
        "How dear it is to part from the reference; of ipo the paper's tau.",
    )
    .names(&["pref_beta", "dpo_beta", "rl_beta"]),
    Entry::new(
        "dpo.label_smoothing",
        Float(Bounds::below(0.0, 0.5)),
        Is("0.0"),
        "With robust: the share of pairs that may be the wrong way round.",
    )
    .unit("share")
    .names(&["dpo_label_smoothing", "label_smoothing_factor"]),
];
