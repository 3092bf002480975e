//! The front door of this room: a recipe and a model's tokenizer in, examples to train on and to evaluate out.

use super::Progress;
use super::batch::Example;
use super::cache::Cache;
use super::dataset::{Tokenized, tokenize};
use super::format::Format;
use super::mix::{self, Part};
use super::permute::{Permutation, Stream};
use super::read::RowIndex;
use super::sources;
use super::summary::{LISTED, Summary};
use super::traits::ModelSide;
use crate::recipe::{DataSource, Method, Recipe};
use crate::{Error, Kind, Result};
use std::collections::HashSet;

/// All that training needs of the data.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// In file order; [`super::plan::Plan`] shuffles.
    pub train: Vec<Example>,
    pub eval: Vec<Example>,
    pub summary: Summary,
    /// Of `data.eval`, where the recipe has one.
    pub eval_summary: Option<Summary>,
    /// The rows of `data.train` as they stand in their files; `Example::row` of `train`, and of an `eval` that was
    /// held out of them, counts these.
    pub rows: RowIndex,
    /// The rows of `data.eval`, where the recipe has one.
    pub eval_rows: Option<RowIndex>,
    /// Of prompts, by row of `data.train`: what each is asked and judged by, as JSON.
    pub columns: Vec<String>,
    /// The same of `data.eval`, where the recipe has one.
    pub eval_columns: Option<Vec<String>>,
}

/// Read, tokenize and split. `progress` is called with (rows done, rows), from several threads.
///
/// # Errors
/// Files that are missing or unreadable; a format that is not known; more bad rows than `data.max_bad_rows`;
/// nothing left to train on.
pub fn prepare(recipe: &Recipe, model: &ModelSide, cache: Option<&Cache>, progress: Progress) -> Result<Prepared> {
    let data = &recipe.data;
    let mut train = Joined::read(recipe, "data.train", &data.train, model, cache, progress)?;
    let mut summary = summarize(&train, model);
    if train.all.examples.is_empty() {
        return Err(nothing_left(&summary, recipe.model.max_seq_length));
    }
    let rows = train.all.row_index();
    let mut prepared = match &data.eval {
        Some(sources) => {
            let eval = Joined::read(recipe, "data.eval", sources, model, cache, progress)?;
            let mut eval_summary = summarize(&eval, model);
            if eval.all.examples.is_empty() {
                return Err(nothing_left(&eval_summary, recipe.model.max_seq_length).at("data.eval"));
            }
            let known: HashSet<u64> = train.all.fingerprints.iter().copied().filter(|&f| f != 0).collect();
            eval_summary.eval_rows_in_train = eval.all.fingerprints.iter().filter(|f| known.contains(f)).count() as u64;
            let eval_rows = Some(eval.all.row_index());
            Prepared {
                columns: std::mem::take(&mut train.all.head.columns),
                eval_columns: Some(eval.all.head.columns),
                train: std::mem::take(&mut train.all.examples),
                eval: eval.all.examples,
                summary,
                eval_summary: Some(eval_summary),
                rows,
                eval_rows,
            }
        }
        None => {
            let split = hold_out(&mut train.all, data.eval_fraction, recipe, &mut summary)?;
            Prepared {
                train: split.0,
                eval: split.1,
                summary,
                eval_summary: None,
                rows,
                eval_rows: None,
                columns: std::mem::take(&mut train.all.head.columns),
                eval_columns: None,
            }
        }
    };
    weigh(recipe, &train.first_rows, &mut prepared);
    overlap_note(&mut prepared);
    Ok(prepared)
}

/// The sources of a data set, read as one.
struct Joined {
    all: Tokenized,
    ignored: Vec<std::path::PathBuf>,
    from_cache: bool,
    /// The first row of each source.
    first_rows: Vec<u32>,
}

impl Joined {
    fn read(
        recipe: &Recipe,
        key: &str,
        sources: &[DataSource],
        model: &ModelSide,
        cache: Option<&Cache>,
        progress: Progress,
    ) -> Result<Self> {
        let located = sources.iter().map(|s| sources::locate(s, key, &mut |_| ())).collect::<Result<Vec<_>>>()?;
        let mut joined: Option<Self> = None;
        for (source, found) in sources.iter().zip(located) {
            let (part, from_cache) = tokenize(recipe, key, source, &found.files, model, cache, progress)?;
            match &mut joined {
                None => joined = Some(Self { all: part, ignored: found.ignored, from_cache, first_rows: vec![0] }),
                Some(j) => {
                    j.ignored.extend(found.ignored);
                    j.from_cache &= from_cache;
                    j.append(part);
                }
            }
        }
        joined.ok_or_else(|| Error::new(format!("{key} names no file")).kind(Kind::Blocked))
    }

    /// Another source's rows behind these; their numbers go on.
    fn append(&mut self, part: Tokenized) {
        let (rows, files) = (self.all.places.len() as u32, self.all.head.sources.len() as u32);
        self.first_rows.push(rows);
        let (head, more) = (&mut self.all.head, part.head);
        let name = |sources: &[super::read::Source]| match sources {
            [one] => one.path.file_name().unwrap_or(one.path.as_os_str()).to_string_lossy().into_owned(),
            many => format!("{} files", many.len()),
        };
        if self.first_rows.len() == 2 {
            head.detected.why = format!("{}: {}", name(&head.sources), head.detected.why);
        }
        head.detected.why.push_str(&format!("; {}: {}", name(&more.sources), more.detected.why));
        for column in more.detected.unused {
            if !head.detected.unused.contains(&column) {
                head.detected.unused.push(column);
            }
        }
        head.sources.extend(more.sources);
        head.bad += more.bad;
        head.bad_rows.extend(more.bad_rows.into_iter().map(|b| super::bad::BadRow { row: b.row + rows, ..b }));
        head.bad_rows.truncate(LISTED);
        head.truncated += more.truncated;
        head.masked_out += more.masked_out;
        head.masked_out_rows.extend(more.masked_out_rows.into_iter().map(|r| r + rows));
        head.masked_out_rows.truncate(LISTED);
        head.mask.merge(&more.mask);
        head.plain_pairs |= more.plain_pairs;
        head.columns.extend(more.columns);
        self.all.places.extend(part.places.into_iter().map(|p| super::read::Place { file: p.file + files, ..p }));
        self.all.fingerprints.extend(part.fingerprints);
        self.all.examples.extend(part.examples.into_iter().map(|e| Example { row: e.row + rows, ..e }));
    }
}

/// Where the sources have weights, the training examples are mixed by them.
fn weigh(recipe: &Recipe, first_rows: &[u32], prepared: &mut Prepared) {
    let sources = &recipe.data.train;
    if sources.len() < 2 || sources.iter().any(|s| s.weight.is_none()) {
        return;
    }
    let mut parts: Vec<Part> =
        sources.iter().map(|s| Part { source: title(s), weight: s.weight.unwrap_or(1.0), units: Vec::new() }).collect();
    let mut last = None;
    for e in std::mem::take(&mut prepared.train) {
        let (row, part) = (e.row, first_rows.partition_point(|&f| f <= e.row).saturating_sub(1));
        // The examples of a chat or a pair belong together; blocks of a document do not.
        match parts[part].units.last_mut() {
            Some(unit) if last == Some(row) && recipe.method != Method::Cpt => unit.push(e),
            _ => parts[part].units.push(vec![e]),
        }
        last = Some(row);
    }
    let (mixed, shares) = mix::mix(parts, recipe.train.seed);
    prepared.summary.examples = mixed.len() as u64;
    prepared.summary.mixture = shares;
    prepared.train = mixed;
}

/// `chat.jsonl`, `hf:OWNER/NAME (test)`.
fn title(source: &DataSource) -> String {
    let text = source.path.to_string_lossy();
    let name = match text.starts_with("hf:") {
        true => text.into_owned(),
        false => source.path.file_name().map_or(text.clone().into_owned(), |n| n.to_string_lossy().into_owned()),
    };
    match &source.split {
        Some(split) => format!("{name} ({split})"),
        None => name,
    }
}

fn overlap_note(p: &mut Prepared) {
    let summary = p.eval_summary.as_mut().unwrap_or(&mut p.summary);
    let n = summary.eval_rows_in_train;
    if n > 0 {
        summary.notes.push(format!(
            "{n} evaluation {} also {} among the training rows: the evaluation loss will look better than it is",
            if n == 1 { "row" } else { "rows" },
            if n == 1 { "stands" } else { "stand" },
        ));
    }
}

fn nothing_left(summary: &Summary, max_seq_length: usize) -> Error {
    Error::new(format!(
        "no row has a label left: in {} of {} rows every label is cut off at max_seq_length {max_seq_length}",
        summary.masked_out,
        summary.rows - summary.bad,
    ))
    .kind(Kind::Blocked)
    .next("raise model.max_seq_length")
}

/// A seeded share of the rows for evaluation: `max(1, round(fraction × rows))` of them, never also trained on.
/// Of a few long documents, that share of their blocks.
fn hold_out(
    t: &mut Tokenized,
    fraction: f64,
    recipe: &Recipe,
    summary: &mut Summary,
) -> Result<(Vec<Example>, Vec<Example>)> {
    let examples = std::mem::take(&mut t.examples);
    if fraction <= 0.0 {
        return Ok((examples, Vec::new()));
    }
    let mut rows: Vec<u32> = examples.iter().map(|e| e.row).collect();
    rows.dedup();
    let cut = t.head.detected.format == Format::Text && examples.len() > rows.len();
    let by_block = cut && (rows.len() as f64) * fraction < 1.0;
    let units = if by_block { examples.len() } else { rows.len() };
    if units < 2 {
        return Err(Error::new(format!(
            "data.eval_fraction = {fraction} holds rows out for evaluation, but there is only {units} to share between training and evaluation"
        ))
        .kind(Kind::Blocked)
        .next("give more rows, name others as data.eval, or remove data.eval_fraction"));
    }
    let n = ((units as f64 * fraction).round() as usize).clamp(1, units - 1);
    let permutation = Permutation::new(units, recipe.train.seed, Stream::Holdout, 0);
    let chosen: HashSet<usize> = (0..n).map(|i| permutation.at(i)).collect();
    let held_rows: HashSet<u32> = if by_block { HashSet::new() } else { chosen.iter().map(|&i| rows[i]).collect() };
    let (mut train, mut eval) = (Vec::new(), Vec::new());
    for (i, e) in examples.into_iter().enumerate() {
        let held = if by_block { chosen.contains(&i) } else { held_rows.contains(&e.row) };
        if held { eval.push(e) } else { train.push(e) }
    }
    if by_block {
        summary.notes.push(format!(
            "{n} of {units} blocks are held out for evaluation, since there {} only {} {}; neighbouring blocks are trained on",
            if rows.len() == 1 { "is" } else { "are" },
            rows.len(),
            if rows.len() == 1 { "document" } else { "documents" },
        ));
    } else {
        let kept: HashSet<u64> =
            rows.iter().filter(|r| !held_rows.contains(r)).map(|&r| t.fingerprints[r as usize]).collect();
        summary.eval_rows_in_train =
            held_rows.iter().filter(|&&r| kept.contains(&t.fingerprints[r as usize])).count() as u64;
        summary.held_out_rows = n as u64;
    }
    summary.held_out_examples = eval.len() as u64;
    summary.examples = train.len() as u64;
    Ok((train, eval))
}

fn summarize(joined: &Joined, model: &ModelSide) -> Summary {
    let (t, from_cache) = (&joined.all, joined.from_cache);
    let head = &t.head;
    let lengths = || t.examples.iter().map(|e| e.ids.len() as u64);
    let tokens: u64 = lengths().sum();
    let label_tokens = t.examples.iter().map(|e| e.trained.iter().skip(1).filter(|&&l| l).count() as u64).sum();
    let good: Vec<u64> = t.fingerprints.iter().copied().filter(|&f| f != 0).collect();
    let distinct = good.iter().collect::<HashSet<_>>().len();
    Summary {
        format: head.detected.format,
        why: head.detected.why.clone(),
        sources: head.sources.clone(),
        rows: t.places.len() as u64,
        bad: head.bad,
        bad_rows: head.bad_rows.clone(),
        examples: t.examples.len() as u64,
        held_out_rows: 0,
        held_out_examples: 0,
        truncated: head.truncated,
        masked_out: head.masked_out,
        masked_out_rows: head.masked_out_rows.clone(),
        mask: head.mask,
        tokens,
        label_tokens,
        longest: lengths().max().unwrap_or(0),
        mean_length: tokens as f64 / t.examples.len().max(1) as f64,
        duplicates: (good.len() - distinct) as u64,
        eval_rows_in_train: 0,
        notes: notes(joined, model),
        mixture: Vec::new(),
        from_cache,
    }
}

fn notes(joined: &Joined, model: &ModelSide) -> Vec<String> {
    let (head, ignored) = (&joined.all.head, &joined.ignored);
    let mut notes = Vec::new();
    if !head.detected.unused.is_empty() {
        notes.push(format!("columns that are not read: {}", head.detected.unused.join(", ")));
    }
    if !ignored.is_empty() {
        let first: Vec<_> = ignored.iter().take(3).map(|p| p.display().to_string()).collect();
        let more = ignored.len() - first.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        notes.push(format!("files of a kind that is not read: {}{more}", first.join(", ")));
    }
    for s in head.sources.iter().filter(|s| s.rows == 0) {
        notes.push(format!("{} has no rows", s.path.display()));
    }
    if head.plain_pairs && model.render.is_some() {
        notes.push(
            "prompt and completion are plain texts, joined as they stand and closed with the end-of-text token, as TRL does; \
             to train them through the model's chat template set data.messages, or write them as lists of messages"
                .to_string(),
        );
    }
    let tools = head.detected.why.split([' ', ',']).any(|w| w == "tools");
    if tools && model.render.is_some_and(|r| !r.calls_tools()) {
        notes.push(
            "the model's chat template has no place for tools: calls are trained as JSON text, and the list of tools is not shown to the model; \
             put it into a system message, or set model.chat_template to a template that writes tools"
                .to_string(),
        );
    }
    if head.mask.parted > 0 {
        notes.push(format!(
            "in {} {} the training text does not repeat its own generation prompt to the end (a template that opens a thought does that): \
             the model will be served with a prompt that it was not trained on; model.chat_template_kwargs may mend it",
            head.mask.parted,
            if head.mask.parted == 1 { "row" } else { "rows" },
        ));
    }
    if model.eos_token.is_none() && (head.plain_pairs || head.detected.format == Format::Text) {
        notes.push(
            "the tokenizer names no end-of-text token, so nothing closes a text: the model will not learn to stop"
                .to_string(),
        );
    }
    notes
}

#[cfg(test)]
#[path = "prepare_tests.rs"]
mod tests;
