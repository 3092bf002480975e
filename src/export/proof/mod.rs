//! Proof that what was written is what was trained: each export is read again with this program's own reader and held
//! against the trained model: weights, logits, token ids of rendered chats, and that generation stops.
//!
//! One model is in memory at a time. Must not know runs: the trained model is handed in.

pub mod probe;
pub mod stage;
mod weights;

pub use probe::Trained;
pub use stage::{Check, Stage, prove, prove_modelfile};
