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

/// Rows of the demo's training data.
pub const ROWS: usize = 160;

/// Share of those rows, in percent, that leave something open (see `rows::VAGUE`).
pub const VAGUE_PERCENT: usize = 30;

/// The demo's training rows as a messages file, one JSON object a line.
pub fn rows_jsonl() -> String {
    rows(SEED, ROWS, VAGUE_PERCENT).iter().map(|r| r.to_json() + "\n").collect()
}
