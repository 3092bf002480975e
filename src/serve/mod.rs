//! `finetop serve`: an OpenAI-compatible endpoint over one model, for a quick try from other tools.
//!
//! One thread holds the model and answers one request after the other; connections are tasks that hand it jobs and pass
//! on what it says. Must not know the command line or the console.

mod api;
mod http;
mod model;

pub use api::{Request, Wrong};
pub use http::{Served, serve};
