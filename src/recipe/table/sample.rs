//! `[sample]` and `[check]`: named as transformers' `GenerationConfig` and llama.cpp name them.

use crate::recipe::schema::{Bounds, Default::*, Entry, Type::*};

pub(in crate::recipe) const SAMPLE: &[Entry] = &[
    Entry::new(
        "sample.prompts",
        Prompts,
        Is("[]"),
        "Prompts completed while the run goes on; with expect, scored against the expected answer.",
    )
    .names(&["prompt", "eval_prompts", "validation_prompts", "sample_prompts", "test_prompts"]),
    Entry::new("sample.system", Text, Absent, "A system message before each prompt.").names(&[
        "system_prompt",
        "default_system",
        "system_message",
    ]),
    Entry::new(
        "sample.temperature",
        Float(Bounds::new(0.0, 10.0)),
        Is("0.7"),
        "Spread of the draw; 0 takes the likeliest token.",
    )
    .guide("generation repeats")
    .names(&["temp", "sampling_temperature"])
    .live(),
    Entry::new(
        "sample.top_p",
        Float(Bounds::above(0.0, 1.0)),
        Is("0.9"),
        "Draw from the likeliest tokens that together reach this share.",
    )
    .guide("generation repeats")
    .names(&["nucleus_p", "nucleus"])
    .live(),
    Entry::new("sample.top_k", Integer(0, 1_000_000), Is("0"), "Draw from this many likeliest tokens; 0: off.").live(),
    Entry::new(
        "sample.min_p",
        Float(Bounds::below(0.0, 1.0)),
        Is("0.0"),
        "Leave out tokens less likely than this share of the likeliest; 0: off.",
    )
    .live(),
    Entry::new(
        "sample.repetition_penalty",
        Float(Bounds::above(0.0, 10.0)),
        Is("1.1"),
        "Above 1, tokens already written become less likely; 1: off.",
    )
    .guide("generation repeats")
    .names(&["repeat_penalty", "rep_penalty", "rep_pen"])
    .live(),
    Entry::new("sample.max_new_tokens", Integer(1, 1_048_576), Is("128"), "A completion is cut here.")
        .unit("tokens")
        .names(&["max_tokens", "num_predict", "n_predict", "max_completion_length", "eval_max_new_tokens"])
        .live(),
    Entry::new("sample.seed", Integer(0, i64::MAX), Is("3407"), "Samples are drawn from a stream of their own.")
        .names(&["generation_seed", "sample_seed"]),
    Entry::new("sample.stop", Texts, Is("[]"), "Texts that end a completion, besides the model's own end tokens.")
        .names(&["stop_strings", "stop_sequences", "stop_words"]),
    Entry::new(
        "sample.every_steps",
        Integer(0, 1_000_000_000),
        Is("50"),
        "Steps between samples; 0: only before the first step and at the end.",
    )
    .unit("steps")
    .names(&["sample_every", "sample_steps", "generate_every", "sample_interval", "validation_steps"])
    .live(),
];

pub(in crate::recipe) const CHECK: &[Entry] = &[Entry::new(
    "check.allow",
    Texts,
    Is("[]"),
    "Rules of the preflight check whose block is overridden; the run records it.",
)
.names(&["ignore", "skip_checks", "allow_rules"])];
