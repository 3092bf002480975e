//! The recipes of the methods run: read as they stand, trained for two steps on the tiny model.

mod common;

/// The recipe's text with the tiny model and rows in place of what has to be fetched.
fn run(recipe: &str, rows: &str, sets: &[(&str, &str)]) -> common::Keep {
    let text = std::fs::read_to_string(common::repo(recipe)).unwrap();
    let fixture = "tests/fixtures/tiny-llama";
    let own = [
        ("model.name_or_path", fixture.to_string()),
        ("model.device", "cpu".into()),
        ("data.train", format!("{fixture}/{rows}")),
        ("data.eval_fraction", "0.2".into()),
        ("train.max_steps", "2".into()),
        ("train.eval_steps", "1".into()),
        ("sample.prompts", "[]".into()),
    ];
    let sets: Vec<_> = own.into_iter().chain(sets.iter().map(|(k, v)| (*k, v.to_string()))).collect();
    common::train(&text, &sets)
}

#[test]
fn the_dpo_recipe_trains_and_measures_pairs() {
    let steps = run("recipes/dpo.toml", "pairs.jsonl", &[]).steps();
    assert_eq!(steps.len(), 2);
    assert!(steps.iter().all(|s| s.loss.is_finite() && s.metrics.contains_key("rewards/margins")));
}

#[test]
fn the_grpo_recipe_draws_scores_and_trains() {
    let keep = run(
        "recipes/grpo.toml",
        "rows.jsonl",
        &[("grpo.reward_funcs", r#"[{ name = "regex", pattern = "[aeiou]" }]"#)],
    );
    let steps = keep.steps();
    assert_eq!(steps.len(), 2);
    assert!(steps.iter().all(|s| s.metrics.contains_key("reward") && s.label_tokens > 0));
    let drawn = keep.events.iter().find_map(|e| match &e.body {
        finetop::train::event::Body::Completions(c) => Some(c.clone()),
        _ => None,
    });
    let drawn = drawn.unwrap();
    assert_eq!((drawn.list.len(), drawn.functions), (8, vec!["regex".to_string()]));
}
