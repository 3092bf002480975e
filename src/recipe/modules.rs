//! Which modules of a model a list of names or a pattern means, as PEFT matches them.
//!
//! Must not know a model: who asks has the modules' paths (`model.layers.0.self_attn.q_proj`).

use super::LoraSection;
use super::table::MODULES;
use serde::{Deserialize, Serialize};

/// In place of names: every linear layer of the blocks.
pub const ALL_LINEAR: &str = "all-linear";

/// `lora.target_modules` and `lora.exclude_modules`: `"all-linear"`, a regular expression over the whole path, or a list
/// of path endings (`q_proj`, `mlp.up_proj`, `layers.0.mlp.up_proj`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetModules {
    Word(String),
    Names(Vec<String>),
}

impl TargetModules {
    /// All linear layers.
    pub fn all() -> Self {
        Self::Word(ALL_LINEAR.into())
    }

    /// Whether the module at `path` is meant.
    pub fn holds(&self, path: &str) -> bool {
        match self {
            Self::Word(word) if word == ALL_LINEAR => true,
            Self::Word(pattern) => whole(pattern).is_ok_and(|p| p.is_match(path)),
            Self::Names(names) => names.iter().any(|name| ends(path, name)),
        }
    }
}

/// Whether `path` is `name`, or ends in it at a dot.
pub fn ends(path: &str, name: &str) -> bool {
    path.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// A pattern that must match from end to end, as Python's `re.fullmatch` does.
pub fn whole(pattern: &str) -> Result<regex::Regex, regex::Error> {
    regex::Regex::new(&format!("^(?:{pattern})$"))
}

/// Whether a text can only be a pattern: it has what no module's name has.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '+', '?', '[', '(', '|', '\\', '^', '$', '{'])
}

/// Whether `name` can be the ending of a module's path: digits and words, the last a linear layer's.
pub fn is_ending(name: &str) -> bool {
    let mut parts = name.rsplit('.');
    parts.next().is_some_and(|leaf| MODULES.contains(&leaf))
        && parts.all(|p| matches!(p, "self_attn" | "mlp" | "layers" | "model") || p.parse::<u32>().is_ok())
}

/// The path of a linear layer by its name alone, in layer `layer`.
pub fn path(layer: usize, leaf: &str) -> String {
    let of_mlp = matches!(leaf, "gate_proj" | "up_proj" | "down_proj" | "gate_up_proj");
    format!("model.layers.{layer}.{}.{leaf}", if of_mlp { "mlp" } else { "self_attn" })
}

impl LoraSection {
    /// Whether the module at `path`, in layer `layer`, carries an adapter.
    pub fn adapts(&self, layer: usize, path: &str) -> bool {
        self.target_modules.holds(path)
            && !self.exclude_modules.as_ref().is_some_and(|e| e.holds(path))
            && self.layers_to_transform.as_ref().is_none_or(|l| l.contains(&layer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_the_end_of_a_path_and_patterns_all_of_it() {
        let names = |list: &[&str]| TargetModules::Names(list.iter().map(|n| n.to_string()).collect());
        let at = "model.layers.10.self_attn.q_proj";
        assert!(names(&["q_proj"]).holds(at) && names(&["self_attn.q_proj"]).holds(at) && names(&[at]).holds(at));
        assert!(!names(&["proj", "0.self_attn.q_proj"]).holds(at));
        let word = |w: &str| TargetModules::Word(w.into());
        assert!(word(r".*\.(q|v)_proj").holds(at) && !word("q_proj").holds(at) && !word("(q_proj").holds(at));
        assert!(TargetModules::all().holds(at));
        assert!(is_ending("0.mlp.up_proj") && !is_ending("mlp.norm") && !is_ending("experts.q_proj"));
        assert_eq!(path(10, "q_proj"), at);
    }
}
