//! The built-in demo recipe.

/// Its text; `finetop demo` and `finetop train demo` run it.
pub const TEXT: &str = include_str!("../../recipes/demo.toml");
