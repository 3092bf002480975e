//! `[grpo]`: named as TRL's `GRPOConfig` names them.

use crate::recipe::schema::{Bounds, Default::*, Entry, Type::*};

pub(in crate::recipe) const GRPO: &[Entry] = &[
    Entry::new(
        "grpo.reward_funcs",
        Rewards,
        Required,
        "What a completion is worth: names, or tables with a name, a weight and what the function needs.",
    )
    .names(&["reward_functions", "rewards", "reward_fn", "reward_func", "reward_function", "reward_weights"]),
    Entry::new(
        "grpo.num_generations",
        Integer(2, 1024),
        Is("8"),
        "Completions of each prompt; they are judged against each other.",
    )
    .guide("GRPO")
    .unit("completions")
    .names(&["num_return_sequences", "group_size", "n_samples", "rollout_n"]),
    Entry::new(
        "grpo.max_completion_length",
        Integer(1, 1_048_576),
        Is("256"),
        "Completions that do not end are cut off here.",
    )
    .unit("tokens")
    .names(&["max_response_length", "response_length", "max_resp_len"]),
    Entry::new(
        "grpo.temperature",
        Float(Bounds::above(0.0, 10.0)),
        Is("1.0"),
        "Spread of the draw; the logits of the loss are divided by it too.",
    )
    .names(&["rollout_temperature", "generation_temperature"]),
    Entry::new(
        "grpo.top_p",
        Float(Bounds::above(0.0, 1.0)),
        Is("1.0"),
        "Completions are drawn from the likeliest tokens that together reach this share.",
    ),
    Entry::new(
        "grpo.top_k",
        Integer(0, 1_000_000),
        Is("0"),
        "Completions are drawn from this many likeliest tokens; 0: off.",
    ),
    Entry::new(
        "grpo.beta",
        Float(Bounds::new(0.0, 100.0)),
        Is("0.0"),
        "Weight of the distance (KL) to the reference; 0: none, and no reference is asked.",
    )
    .names(&["kl_coef", "kl_beta", "kl_loss_coef"]),
    Entry::new(
        "grpo.use_bias_correction_kl",
        Bool,
        Is("true"),
        "Weigh the distance by the importance ratio, whose gradient then is that of the true KL.",
    ),
    Entry::new(
        "grpo.loss_type",
        Choice(&["grpo", "bnpo", "dr_grpo", "dapo"]),
        Is("\"dapo\""),
        "What a token's loss is divided by: its completion's tokens, those of the batch, a constant, those of the step.",
    ),
    Entry::new(
        "grpo.epsilon",
        Float(Bounds::above(0.0, 1.0)),
        Is("0.2"),
        "The ratio to the policy that drew a completion is clipped this far below 1 (and above).",
    )
    .names(&["clip_range", "clip_ratio", "cliprange", "epsilon_low"]),
    Entry::new(
        "grpo.epsilon_high",
        Float(Bounds::above(0.0, 100.0)),
        Absent,
        "The same above 1, where it differs; DAPO takes 0.28.",
    )
    .names(&["clip_ratio_high", "clip_higher"]),
    Entry::new(
        "grpo.importance_sampling_level",
        Choice(&["token", "sequence"]),
        Is("\"token\""),
        "Whether each token has its ratio, or the sequence one (GSPO).",
    ),
    Entry::new(
        "grpo.scale_rewards",
        Choice(&["group", "batch", "none"]),
        Is("\"group\""),
        "The standard deviation that advantages are divided by.",
    )
    .names(&["normalize_rewards", "whiten_rewards"]),
    Entry::new("grpo.num_iterations", Integer(1, 1000), Is("1"), "Optimizer steps on the same completions.").names(&[
        "ppo_epochs",
        "num_ppo_epochs",
        "mu",
    ]),
    Entry::new(
        "grpo.mask_truncated_completions",
        Bool,
        Is("false"),
        "Leave completions that were cut off out of the loss.",
    )
    .names(&["overlong_filtering"]),
];
