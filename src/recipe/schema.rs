//! What a recipe may hold: one [`Entry`] a key, in the order a recipe is written.
//!
//! Must not know files or TOML documents: [`super::check`] reads values, [`super::table`] holds the entries.

use super::Method;
use super::table;

/// Everything known about one key of a recipe.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Dotted path: `train.learning_rate`.
    pub key: &'static str,
    pub ty: Type,
    pub default: Default,
    /// Unit of the value, or nothing.
    pub unit: &'static str,
    /// One sentence: what it does, or why its default is what it is.
    pub help: &'static str,
    /// The row of the guidance its recommended range comes from, or nothing.
    pub guide: &'static str,
    /// What TRL, PEFT, transformers, Unsloth, LLaMA-Factory, Axolotl and llama.cpp call it.
    pub other_names: &'static [&'static str],
    /// Whether it can change while the run goes on.
    pub live: bool,
    /// Whether a run's screen leaves it out where it is at its default.
    pub aside: bool,
}

/// The type of a value and what is allowed for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Type {
    /// Any text.
    Text,
    /// The name of a folder to be: not empty, no separator, no leading dot.
    Name,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A path, relative to the recipe's folder.
    Path,
    /// A path or a data set of the hub, `{ path, split, weight, format }`, or a list of these.
    Sources,
    /// A path where there is one, or another way to name a model.
    Model,
    /// A Jinja string, a path, or the name of a template.
    Template,
    /// A whole number, both bounds allowed.
    Integer(i64, i64),
    Float(Bounds),
    Bool,
    /// `"all-linear"`, a regular expression, or a list of these module names with what comes before them in a path.
    Modules(&'static [&'static str]),
    /// One of these words, or a list of them.
    Choices(&'static [&'static str]),
    /// A list of these words.
    Parts(&'static [&'static str]),
    /// A number of a layer, or a list of them.
    Layers,
    /// A text, or a list of texts.
    Texts,
    /// A list of texts and of `{ prompt, expect }`.
    Prompts,
    /// A list of `{ role, content }`.
    Messages,
    /// A list of reward functions: names, or tables.
    Rewards,
    /// Any table.
    Table,
}

/// Bounds of a number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    pub min: f64,
    /// Whether `min` itself is forbidden.
    pub above: bool,
    pub max: f64,
    /// Whether `max` itself is forbidden.
    pub below: bool,
}

impl Bounds {
    pub const fn new(min: f64, max: f64) -> Self {
        Self { min, above: false, max, below: false }
    }

    /// `min` itself is not allowed.
    pub const fn above(min: f64, max: f64) -> Self {
        Self { min, above: true, max, below: false }
    }

    /// `max` itself is not allowed.
    pub const fn below(min: f64, max: f64) -> Self {
        Self { min, above: false, max, below: true }
    }

    pub fn holds(&self, v: f64) -> bool {
        let low = if self.above { v > self.min } else { v >= self.min };
        let high = if self.below { v < self.max } else { v <= self.max };
        low && high
    }

    pub fn text(&self) -> String {
        let min = if self.above { "above " } else { "from " };
        let max = if self.below { "below " } else { "at most " };
        format!("{min}{}, {max}{}", short(self.min), short(self.max))
    }
}

/// A number as a person writes it: `2e-4`, `0.05`, `16`.
pub fn short(v: f64) -> String {
    if v != 0.0 && (v.abs() < 1e-3 || v.abs() >= 1e7) { format!("{v:e}") } else { format!("{v}") }
}

impl Type {
    /// What may stand there, in words.
    pub fn allowed(&self) -> String {
        match self {
            Type::Text => "text in quotes".into(),
            Type::Name => "a name in quotes, without / and not starting with a dot".into(),
            Type::Choice(words) => words.join(", "),
            Type::Path => "a path in quotes".into(),
            Type::Sources => {
                "a path or hf:OWNER/NAME in quotes, { path = \"…\", split = \"…\", weight = 0.2 }, or a list of these"
                    .into()
            }
            Type::Model => {
                "a folder, a .gguf file, a hub id (OWNER/NAME), ollama:NAME, pypi:PACKAGE or demo, in quotes".into()
            }
            Type::Template => "a Jinja text, a file, or the name of a template, in quotes".into(),
            Type::Integer(min, max) if *max == i64::MAX => format!("a whole number from {min}"),
            Type::Integer(min, max) => format!("a whole number from {min} to {max}"),
            Type::Float(b) => format!("a number {}", b.text()),
            Type::Bool => "true or false".into(),
            Type::Choices(words) => format!("one of, or a list out of {}", words.join(", ")),
            Type::Modules(names) => {
                format!("\"all-linear\", a regular expression, or a list out of {}", names.join(", "))
            }
            Type::Parts(names) => format!("a list out of {}", names.join(", ")),
            Type::Layers => "a list of layer numbers, from 0".into(),
            Type::Texts => "text in quotes, or a list of them".into(),
            Type::Prompts => "a list of texts or { prompt = \"…\", expect = \"…\" }".into(),
            Type::Messages => "a list of { role = \"…\", content = \"…\" }".into(),
            Type::Rewards => "a list of names or { name = \"…\", weight = 1.0, … }".into(),
            Type::Table => "a table { name = value, … }".into(),
        }
    }
}

/// What a default may depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Basis {
    pub method: Method,
    /// Whether there is a `[lora]` table.
    pub lora: bool,
}

/// What a key is worth where the recipe does not say.
#[derive(Debug, Clone, Copy)]
pub enum Default {
    /// The recipe must say.
    Required,
    /// Nothing: the key is absent.
    Absent,
    /// The stem of the recipe's file name.
    FileStem,
    /// TOML text.
    Is(&'static str),
    /// TOML text, by method and tuning.
    By(fn(Basis) -> &'static str),
}

impl Default {
    /// The default as TOML text, if it is a value known without the file.
    pub fn toml(&self, basis: Basis) -> Option<&'static str> {
        match self {
            Default::Is(text) => Some(text),
            Default::By(f) => Some(f(basis)),
            Default::Required | Default::Absent | Default::FileStem => None,
        }
    }
}

impl Entry {
    pub(super) const fn new(key: &'static str, ty: Type, default: Default, help: &'static str) -> Self {
        Self { key, ty, default, unit: "", help, guide: "", other_names: &[], live: false, aside: false }
    }

    pub(super) const fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    pub(super) const fn guide(mut self, guide: &'static str) -> Self {
        self.guide = guide;
        self
    }

    pub(super) const fn names(mut self, names: &'static [&'static str]) -> Self {
        self.other_names = names;
        self
    }

    pub(super) const fn aside(mut self) -> Self {
        self.aside = true;
        self
    }

    pub(super) const fn live(mut self) -> Self {
        self.live = true;
        self
    }

    /// The table the key stands in; empty for the keys before the first table.
    pub fn section(&self) -> &'static str {
        self.key.split_once('.').map_or("", |(section, _)| section)
    }

    /// The key within its table.
    pub fn leaf(&self) -> &'static str {
        self.key.split_once('.').map_or(self.key, |(_, leaf)| leaf)
    }
}

/// The tables of a recipe, in the order they are written.
pub const SECTIONS: &[&str] = &["model", "lora", "data", "train", "dpo", "grpo", "sample", "export", "check"];

/// The method that a table belongs to, where it is one method's alone.
pub fn method_of(section: &str) -> Option<Method> {
    match section {
        "dpo" => Some(Method::Dpo),
        "grpo" => Some(Method::Grpo),
        _ => None,
    }
}

/// All entries, in the order they are written.
pub fn entries() -> impl Iterator<Item = &'static Entry> {
    [
        table::ROOT,
        table::MODEL,
        table::LORA,
        table::DATA,
        table::TRAIN,
        table::DPO,
        table::GRPO,
        table::SAMPLE,
        table::EXPORT,
        table::CHECK,
    ]
    .into_iter()
    .flatten()
}

/// The entry of a dotted path.
pub fn entry(key: &str) -> Option<&'static Entry> {
    entries().find(|e| e.key == key)
}
