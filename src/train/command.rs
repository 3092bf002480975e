//! What a trainer can be told. The console and the command line speak nothing else to it.

use super::event::SampleSettings;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    Pause,
    Resume,
    /// Write a checkpoint and end.
    Stop,
    /// End at once, without a checkpoint.
    Abort,
    CheckpointNow,
    EvaluateNow,
    /// Draw samples at the recipe's prompts, or at `prompt`.
    SampleNow {
        prompt: Option<String>,
        settings: SampleSettings,
    },
    /// Change a live recipe value; `value` is TOML text. Keys: see `recipe::schema` (`live`).
    Set {
        key: String,
        value: String,
        by: String,
    },
    /// Load the checkpoint of `step` and go on from it, or stop there.
    RollBack {
        step: u64,
        stop: bool,
        by: String,
    },
    /// Start another run from the checkpoint of `step` with these values set.
    Branch {
        step: u64,
        set: Vec<(String, String)>,
    },
}
