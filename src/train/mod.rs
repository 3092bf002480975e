//! One flat loop a method, and the parts they share.
//!
//! A trainer is fed [`command::Command`]s and answers with [`event::Event`]s through an [`outlet::Outlet`]; it knows
//! nothing of run folders' files, sockets or the console, and never prints.

pub mod bench;
pub mod command;
pub mod cpt;
pub mod dpo;
pub mod draft;
pub mod event;
pub mod grpo;
pub mod method;
pub mod outlet;
pub mod parts;
pub mod setup;
pub mod sft;
pub mod speaker;
