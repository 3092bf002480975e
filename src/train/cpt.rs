//! Continued pre-training: every token of plain documents is a label. The documents' blocks, their boundaries and
//! their order are the data room's work; the loop is [`super::sft`]'s.

pub use super::sft::train;
