//! What Ollama wants beside a GGUF: a Modelfile, with a TEMPLATE in Go's language where one can be proven.
//!
//! Must not know weights or runs.

pub mod go;
mod go_parse;
pub mod modelfile;
pub mod template;
