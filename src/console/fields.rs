//! The recipe as fields on the screen: value, what is usual, whether it can change now.

use super::run_page::RunPage;
use crate::recipe::Recipe;
use crate::recipe::guidance::{Facts, guidance};
use crate::recipe::schema::{Default, Entry, entries, entry};
use std::sync::LazyLock;

/// One row of the recipe pane.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Field {
    /// The schema's key; for a composite row the key that `i` edits.
    pub key: String,
    pub label: String,
    pub value: String,
    /// Whether it can change while the run goes on.
    pub live: bool,
    pub note: Note,
    /// Differs from what it was when the run started or the recipe was opened.
    pub changed: bool,
    pub help: String,
}

/// What is usual for a value, and whether this one lies outside.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Note {
    pub text: String,
    pub outside: bool,
}

/// The rows that a run shows first, as drawn; the rest follow in the schema's order, live ones before the others.
const FIRST: [&str; 7] = [
    "train.learning_rate",
    "train.per_device_train_batch_size",
    "train.num_train_epochs",
    "lora.r",
    "model.max_seq_length",
    "train.eval_steps",
    "sample.every_steps",
];

/// The rows that a recipe shows first, before a run.
const BEFORE: [&str; 14] = [
    "method",
    "run_name",
    "model.name_or_path",
    "data.train",
    "train.learning_rate",
    "train.per_device_train_batch_size",
    "train.gradient_accumulation_steps",
    "train.num_train_epochs",
    "train.max_steps",
    "lora.r",
    "lora.lora_alpha",
    "model.max_seq_length",
    "train.eval_steps",
    "sample.every_steps",
];

/// Keys that a composite row already shows.
const SHOWN_WITH: [&str; 2] = ["train.gradient_accumulation_steps", "lora.lora_alpha"];

/// The rows of the pane as it stands: all of them, or what differs.
pub fn shown(page: &RunPage) -> Vec<Field> {
    let Some(values) = &page.recipe.values else { return Vec::new() };
    let all = if page.folder.is_some() { of_run(page, values) } else { before_run(page, values) };
    if page.recipe.diff { all.into_iter().filter(|f| f.changed).collect() } else { all }
}

/// What is wrong with the recipe's text, one line each.
pub fn problems(page: &RunPage) -> &[String] {
    &page.recipe.problems
}

fn before_run(page: &RunPage, values: &Recipe) -> Vec<Field> {
    let lora = values.lora.is_some();
    let offered = entries().filter(|e| lora || e.section() != "lora");
    // What decides a run comes first; all else follows in the schema's order.
    let place = |e: &&Entry| BEFORE.iter().position(|k| *k == e.key).unwrap_or(BEFORE.len());
    let mut sorted: Vec<&'static Entry> = offered.collect();
    sorted.sort_by_key(place);
    sorted.into_iter().map(|e| single(page, values, e, e.key)).collect()
}

fn of_run(page: &RunPage, values: &Recipe) -> Vec<Field> {
    // What ends the run: steps where they were given, else epochs.
    let by_steps = values.train.max_steps > 0;
    let ends = |key: &'static str| if by_steps && key == "train.num_train_epochs" { "train.max_steps" } else { key };
    let first: Vec<&str> = FIRST.iter().map(|k| ends(k)).collect();
    let entries_of = first.iter().filter_map(|k| entry(k)).filter(|e| page.recipe.texts.contains_key(e.key));
    let mut out: Vec<Field> = entries_of.map(|e| row(page, values, e)).collect();
    for live in [true, false] {
        let rest = entries().filter(|e| e.live == live && !first.contains(&e.key) && !SHOWN_WITH.contains(&e.key));
        let rest = rest.filter(|e| !by_steps || e.key != "train.num_train_epochs");
        let rest = rest.filter(|e| page.recipe.texts.get(e.key).is_some_and(|v| !e.aside || !is_default(e, v)));
        out.extend(rest.map(|e| single(page, values, e, short_label(e))));
    }
    out
}

/// Whether a value is what the key is worth where nothing is said.
fn is_default(e: &Entry, value: &str) -> bool {
    matches!(e.default, Default::Is(text) if text == value)
}

/// Whether a key is in a table that only one method has.
fn of_method(e: &Entry) -> bool {
    e.key.starts_with("dpo.") || e.key.starts_with("grpo.")
}

/// A key without its table where no other table has such a key, and the word says enough.
fn short_label(e: &'static Entry) -> &'static str {
    // Every frame asks for all of them.
    static SHARED: LazyLock<Vec<&str>> = LazyLock::new(|| {
        // A method's own table gives way: its keys are said whole, and only where it is.
        let common = || entries().filter(|o| !of_method(o));
        let count = |leaf| common().filter(|o| o.leaf() == leaf).count();
        common().map(Entry::leaf).filter(|leaf| count(*leaf) > 1).collect()
    });
    let shadowed = of_method(e) && entries().any(|o| !of_method(o) && o.leaf() == e.leaf());
    let vague = SHARED.contains(&e.leaf()) || matches!(e.leaf(), "stop" | "system" | "format");
    if shadowed || vague { e.key } else { e.leaf() }
}

/// A row as a run shows it: batch and rank together with what belongs to them.
fn row(page: &RunPage, values: &Recipe, e: &'static Entry) -> Field {
    let t = &values.train;
    let mut f = single(page, values, e, e.key.strip_prefix("train.").or(e.key.strip_prefix("model.")).unwrap_or(e.key));
    match e.key {
        "train.per_device_train_batch_size" => {
            let (batch, steps) = (t.per_device_train_batch_size, t.gradient_accumulation_steps);
            f.label = "batch".into();
            f.value = format!("{batch} × {steps} = {}", batch * steps);
        }
        "lora.r" => {
            if let Some(l) = &values.lora {
                f.label = "r / lora_alpha".into();
                f.value = format!("{} / {}", l.r, l.lora_alpha);
            }
        }
        _ => {}
    }
    f
}

/// A value as a person reads it: text without its quotes, whole numbers without `.0`.
fn plain(toml: &str) -> String {
    let text = toml.trim();
    let unquoted = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).filter(|t| !t.contains('"'));
    let number = text.strip_suffix(".0").filter(|t| t.parse::<i64>().is_ok());
    unquoted.or(number).unwrap_or(text).replace('\n', " ")
}

fn single(page: &RunPage, values: &Recipe, e: &'static Entry, label: &str) -> Field {
    let start = &page.run.start;
    let known = page.folder.is_some() && start.total_steps > 0;
    let facts = Facts {
        rows: known.then_some(start.train_rows),
        total_parameters: known.then_some(start.total_parameters),
        trainable_parameters: known.then_some(start.trainable_parameters),
        truncated_share: known.then_some(start.truncated_share),
    };
    let (value, before) = (page.recipe.texts.get(e.key), page.recipe.original.get(e.key));
    let note = guidance(e.key, values, &facts)
        .map(|g| Note { outside: g.inside == Some(false), text: g.text })
        .unwrap_or_default();
    Field {
        key: e.key.to_string(),
        label: label.to_string(),
        changed: !page.recipe.original.is_empty() && before != value,
        value: page.recipe.written.get(e.key).or(value).map_or(super::format::UNKNOWN.into(), |v| plain(v)),
        live: e.live,
        note,
        help: e.help.to_string(),
    }
}
