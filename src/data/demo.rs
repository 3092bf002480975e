//! The demo's own texts: generated, the same on every machine, so that the demo needs no network and no file.
//!
//! Three things come from here: the texts that the built-in model was pre-trained on and the chats that made it an
//! assistant (see `recipes/demo/make.sh`), the rows of the built-in demo, and the prompts it is scored at.
//! Must not know tokens, models or runs.

mod corpus;
mod random;
mod rows;
mod words;

pub use corpus::{chats, corpus};
pub use random::Random;
pub use rows::{Row, prompts, rows};

/// Seed of everything the repository ships.
pub const SEED: u64 = 3407;

/// Rows that the demo trains on, and rows held out for its evaluations.
pub const TRAIN_ROWS: usize = 160;
pub const EVAL_ROWS: usize = 64;

/// Share of those rows, in percent, that leave something open (see `rows::VAGUE`).
pub const VAGUE_PERCENT: usize = 35;

/// The demo's data by the name a recipe gives it, as the text of a JSONL file of messages: `demo:train`, `demo:eval`.
pub fn embedded(name: &str) -> Option<String> {
    let all = rows(SEED, TRAIN_ROWS + EVAL_ROWS, VAGUE_PERCENT);
    let (train, eval) = all.split_at(TRAIN_ROWS.min(all.len()));
    let lines = |rows: &[Row]| rows.iter().map(|r| r.to_json() + "\n").collect();
    match name {
        "demo:train" => Some(lines(train)),
        "demo:eval" => Some(lines(eval)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::words::Cast;
    use super::*;

    #[test]
    fn the_texts_are_the_same_on_every_machine() {
        let text = corpus(SEED, 20_000).join("\n") + &embedded("demo:train").unwrap();
        assert_eq!(text, corpus(SEED, 20_000).join("\n") + &embedded("demo:train").unwrap());
        assert_ne!(corpus(SEED, 2_000), corpus(SEED + 1, 2_000));
        // The shipped model was trained on these: a changed sentence asks for a new model (recipes/demo/make.sh).
        let hash = blake3::hash(text.as_bytes()).to_hex();
        assert_eq!(&hash[..16], "c550a2726a28e9f3");
    }

    #[test]
    fn every_slot_of_every_template_is_filled() {
        let rows: Vec<Row> = rows(SEED, 400, 50).into_iter().chain(chats(SEED, 2_000)).chain(prompts()).collect();
        for text in corpus(SEED, 200_000).iter().chain(rows.iter().flat_map(|r| [&r.user, &r.assistant])) {
            assert!(!text.contains("\"\"") && !text.contains("  ") && !text.contains(" ."), "{text}");
            assert!(!text.is_empty());
        }
        assert_eq!(Cast::draw(&mut Random::new(1, 1)).fill("{{{name}}} {nothing}.").matches('{').count(), 1);
    }

    #[test]
    fn no_prompt_is_among_the_rows_and_every_answer_is_json() {
        let all = rows(SEED, TRAIN_ROWS + EVAL_ROWS, VAGUE_PERCENT);
        for p in prompts() {
            assert!(all.iter().all(|r| r.user != p.user && r.assistant != p.assistant), "{}", p.user);
            assert!(!p.user.contains('{') && p.assistant.contains(r#"{"tool":""#));
        }
        for r in all.iter().chain(&prompts()) {
            let call: serde_json::Value = serde_json::from_str(&r.assistant).unwrap();
            assert!(call["tool"].is_string());
        }
    }

    #[test]
    fn the_demo_recipe_asks_the_prompts_and_expects_their_answers() {
        let recipe = include_str!("../../recipes/demo.toml");
        for p in prompts() {
            let line = format!("{{ prompt = \"{}\", expect = '{}' }}", p.user, p.assistant);
            assert!(recipe.contains(&line), "{line}");
        }
    }

    #[test]
    fn neither_texts_nor_chats_show_a_tool_call() {
        assert!(corpus(SEED, 500_000).iter().all(|t| !t.contains("\"tool\"")));
        assert!(chats(SEED, 4_000).iter().all(|c| !c.assistant.contains('{')));
    }
}
