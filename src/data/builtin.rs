//! The rows that the program carries, as JSON lines under the names a recipe gives them.

use super::demo;
use std::path::Path;
use std::sync::LazyLock;

/// The names there are.
pub const NAMES: &[&str] = &["demo:train", "demo:eval"];

/// The contents of `demo:PART`; `demo` alone is `demo:train`. An existing file of that name wins.
pub fn contents(path: &Path) -> Option<&'static str> {
    static TRAIN: LazyLock<Option<String>> = LazyLock::new(|| demo::embedded("demo:train"));
    static EVAL: LazyLock<Option<String>> = LazyLock::new(|| demo::embedded("demo:eval"));
    let name = path.to_str().filter(|n| is_named(n))?;
    match name {
        _ if path.exists() => None,
        "demo" | "demo:train" => TRAIN.as_deref(),
        "demo:eval" => EVAL.as_deref(),
        _ => None,
    }
}

/// Whether a path is the name of built-in rows.
pub fn is_named(name: &str) -> bool {
    name == "demo" || name.starts_with("demo:")
}
