//! finetop: fine-tune language models from the terminal.
//!
//! The rooms, from the top down; a room may use the rooms below it, never those above
//! (the console reaches the engine through [`run`] alone):
//!
//! | room | what lives there |
//! | --- | --- |
//! | [`cli`] | arguments, one small file a command |
//! | [`console`] | the screen's state, its pure update, its views |
//! | [`runtime`] | event loop, terminal guard, signals, effects |
//! | [`serve`] | an OpenAI-compatible endpoint over one model |
//! | [`run`] | run folder, events, commands, worker, attach, index, export, talk |
//! | [`diagnose`] | one rule a file |
//! | [`train`] | one flat loop a method, and its parts |
//! | [`export`] | adapter, merge, GGUF and its quantizers, Modelfile, proof |
//! | [`data`] | readers, formats, templates, masks, packing, token cache |
//! | [`model`] | one file an architecture, LoRA, loading |
//! | [`ops`] | differentiable operations, forward and backward together |
//! | [`memory`] | estimate and telemetry |
//! | [`recipe`] | schema, defaults, validation, guidance, edits |

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::print_stdout,
        clippy::print_stderr,
        clippy::todo,
        clippy::unimplemented,
        clippy::dbg_macro
    )
)]

pub mod cli;
pub mod console;
pub mod data;
pub mod diagnose;
pub mod error;
pub mod export;
pub mod hub;
pub mod memory;
pub mod model;
pub mod ops;
pub mod recipe;
pub mod run;
pub mod runtime;
pub mod serve;
pub mod train;

pub use error::{Error, Kind, Result};
