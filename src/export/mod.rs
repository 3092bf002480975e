//! What a run leaves for others to use: the adapter.
//!
//! Must not know recipes, runs or the console.

pub mod adapter;
