//! One source from its files to examples: read piece by piece, find the format, tokenize in parallel, or take it from
//! the cache.

use super::bad::{self, BadRow};
use super::cache::{self, Cache, Slot};
use super::examples::{self, Made, Options};
use super::files::Kind as FileKind;
use super::format::{self, Census, Detected, Format};
use super::formatting::Formatting;
use super::read::{self, Place, Raw, RowIndex, Source};
use super::rows::{self, Problem, Row};
use super::store::Contents;
use super::summary::{LISTED, MaskCounts};
use super::traits::ModelSide;
use super::{Progress, batch::Example, builtin};
use crate::recipe::{DataSource, Method, Recipe};
use crate::{Error, Kind, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A tokenized data set. Equal whether it was made or came from the cache.
#[derive(Debug, Clone, PartialEq)]
pub struct Tokenized {
    pub head: Head,
    pub places: Vec<Place>,
    /// One a row; 0 for a bad one.
    pub fingerprints: Vec<u64>,
    pub examples: Vec<Example>,
}

/// The part that is stored as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Head {
    pub detected: Detected,
    pub sources: Vec<Source>,
    pub bad: u64,
    pub bad_rows: Vec<BadRow>,
    pub truncated: u64,
    pub masked_out: u64,
    pub masked_out_rows: Vec<u32>,
    pub mask: MaskCounts,
    /// A row with a plain prompt and completion was seen.
    pub plain_pairs: bool,
    /// Of prompts, one a row (empty for a bad one): what it is asked and judged by, as JSON. Else none at all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
}

impl Tokenized {
    /// What a file of tokens holds; `None` where its head is not one.
    pub fn of(contents: Contents) -> Option<Self> {
        let Contents { head, places, fingerprints, examples } = contents;
        Some(Self { head: serde_json::from_slice(&head).ok()?, places, fingerprints, examples })
    }

    pub fn row_index(&self) -> RowIndex {
        RowIndex { files: self.head.sources.iter().map(|s| s.path.clone()).collect(), places: self.places.clone() }
    }
}

/// Rows by which the format of a source is found: all of most, the first of many.
const SAMPLE: usize = 10_000;

/// A file that is there.
struct File {
    path: PathBuf,
    bytes: u64,
    hash: blake3::Hash,
    /// Rows, as far as they can be told without reading them.
    rows: u64,
}

/// Everything that decides the tokens, as the cache's key.
#[derive(Serialize)]
struct Key<'a> {
    cache_version: u32,
    program: &'a str,
    files: Vec<(&'a Path, String)>,
    tokenizer: String,
    template: Option<String>,
    eos_token: Option<&'a str>,
    format: &'a str,
    messages: &'a Option<Vec<crate::recipe::MessageTemplate>>,
    text_column: &'a str,
    options: Options,
}

/// Tokenize the files of one source. `key` is the recipe's, `data.train` or `data.eval`; the second answer says whether
/// the tokens came from the cache.
pub fn tokenize(
    recipe: &Recipe,
    key: &str,
    source: &DataSource,
    files: &[PathBuf],
    model: &ModelSide,
    cache: Option<&Cache>,
    progress: Progress,
) -> Result<(Tokenized, bool)> {
    let files = files.iter().map(|p| measured(p)).collect::<Result<Vec<_>>>()?;
    let options = Options {
        method: recipe.method,
        assistant_only_loss: recipe.train.assistant_only_loss,
        completion_only_loss: recipe.train.completion_only_loss,
        // A prompt must leave room for its completion.
        max_seq_length: recipe.model.max_seq_length - recipe.grpo.as_ref().map_or(0, |g| g.max_completion_length),
    };
    let wanted = Asked::of(recipe, source);
    let cache_key = blake3::hash(&serde_json::to_vec(&Key {
        cache_version: cache::VERSION,
        program: env!("CARGO_PKG_VERSION"),
        files: files.iter().map(|f| (f.path.as_path(), f.hash.to_string())).collect(),
        tokenizer: model.encode.identity()?,
        template: model.render.map(|r| r.identity()),
        eos_token: model.eos_token,
        format: wanted.format,
        messages: &wanted.messages,
        text_column: wanted.text_column,
        options,
    })?);
    let stored = cache.and_then(|c| c.load(&cache_key));
    let from_cache = stored.is_some();
    let tokenized = match stored {
        Some(t) => {
            progress(t.places.len(), t.places.len());
            t
        }
        None => {
            let slot = cache::slot(cache, &cache_key)?;
            make(&wanted, key, &files, model, &options, slot, cache, progress)?
        }
    };
    bad::enforce(
        &tokenized.head.bad_rows,
        tokenized.head.bad as usize,
        tokenized.places.len(),
        recipe.data.max_bad_rows,
    )?;
    Ok((tokenized, from_cache))
}

/// How the recipe says that the rows of a source are read.
struct Asked<'a> {
    format: &'a str,
    messages: Option<Vec<crate::recipe::MessageTemplate>>,
    /// The column of a document.
    text_column: &'a str,
}

impl<'a> Asked<'a> {
    fn of(recipe: &'a Recipe, source: &'a DataSource) -> Self {
        let text_column = recipe.data.text_column.as_str();
        match &source.format {
            Some(format) => Self { format, messages: None, text_column },
            None => Self { format: &recipe.data.format, messages: recipe.data.messages.clone(), text_column },
        }
    }

    /// Puts the column that holds a row's document where documents are looked for. A row without it is a bad one, where
    /// all rows are to be documents.
    fn place_text(&self, raw: &mut Raw, method: Method) {
        let other = self.text_column != "text" && !raw.document && self.messages.is_none();
        let Some(columns) = raw.columns.as_mut().ok().filter(|_| other) else { return };
        match columns.remove(self.text_column) {
            Some(text) => {
                columns.insert("text".to_string(), text);
            }
            None if method == Method::Cpt || self.format == "text" => {
                let names: Vec<&str> = columns.keys().map(String::as_str).collect();
                let named = if names.is_empty() { "no columns".to_string() } else { names.join(", ") };
                let column = self.text_column;
                raw.columns = Err(format!("the column {column} (data.text_column) is missing; this row has {named}"));
            }
            None => {}
        }
    }
}

/// A file's size and hash, read once and not held.
fn measured(path: &Path) -> Result<File> {
    if let Some(text) = builtin::contents(path) {
        let rows = text.lines().count() as u64;
        return Ok(File { path: path.into(), bytes: text.len() as u64, hash: blake3::hash(text.as_bytes()), rows });
    }
    let at = |e: std::io::Error| Error::from(e).at(path.display());
    let mut file = std::fs::File::open(path).map_err(at)?;
    let (mut hasher, mut bytes, mut lines) = (blake3::Hasher::new(), 0, 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = match std::io::Read::read(&mut file, &mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(at(e)),
        };
        hasher.update(&buffer[..n]);
        bytes += n as u64;
        lines += buffer[..n].iter().filter(|&&b| b == b'\n').count() as u64;
    }
    let rows = match FileKind::of(path) {
        Some(FileKind::Parquet) => read::parquet::count(path)?,
        Some(FileKind::JsonLines | FileKind::Csv) => lines,
        _ => 0,
    };
    Ok(File { path: path.into(), bytes, hash: hasher.finalize(), rows })
}

/// What came of one row.
struct Outcome {
    fingerprint: u64,
    pair: bool,
    prompt: bool,
    made: std::result::Result<Made, Problem>,
}

#[allow(clippy::too_many_arguments)]
fn make(
    wanted: &Asked,
    key: &str,
    files: &[File],
    model: &ModelSide,
    options: &Options,
    slot: Slot,
    cache: Option<&Cache>,
    progress: Progress,
) -> Result<Tokenized> {
    let source = |f: &File| Source { path: f.path.clone(), rows: 0, bytes: f.bytes, blake3: f.hash.to_string() };
    let mut work = Work {
        wanted,
        key,
        model,
        options,
        sources: files.iter().map(source).collect(),
        expected: files.iter().map(|f| f.rows as usize).sum(),
        progress,
        waiting: Vec::new(),
        known: None,
        sampled: 0,
        rows: 0,
        tally: Tally::default(),
        slot,
    };
    progress(0, work.expected);
    for (i, file) in files.iter().enumerate() {
        read::stream(&file.path, i as u32, &mut |rows| work.take(rows, i))?;
    }
    let (head, slot) = work.finish()?;
    slot.finish(&serde_json::to_vec(&head)?, cache)
}

/// Rows on their way to tokens.
struct Work<'a> {
    wanted: &'a Asked<'a>,
    key: &'a str,
    model: &'a ModelSide<'a>,
    options: &'a Options,
    sources: Vec<Source>,
    /// Rows that there may be.
    expected: usize,
    progress: Progress<'a>,
    /// Read, and waiting until the format is known.
    waiting: Vec<Raw>,
    known: Option<(Detected, Option<Formatting>)>,
    /// Rows by which it became known.
    sampled: usize,
    /// Rows that are tokens.
    rows: usize,
    tally: Tally,
    slot: Slot,
}

impl Work<'_> {
    fn take(&mut self, mut rows: Vec<Raw>, file: usize) -> Result<()> {
        rows.iter_mut().for_each(|raw| self.wanted.place_text(raw, self.options.method));
        self.sources[file].rows += rows.len() as u64;
        if self.known.is_some() {
            return self.tokenize(rows);
        }
        self.waiting.extend(rows);
        if self.waiting.len() < SAMPLE { Ok(()) } else { self.begin() }
    }

    /// Find the format by the rows read so far, and tokenize them.
    fn begin(&mut self) -> Result<()> {
        let rows = std::mem::take(&mut self.waiting);
        let sample = &rows[..rows.len().min(SAMPLE)];
        let found = detect(self.wanted, sample, self.options.method);
        let (detected, formatting) = found.map_err(|e| first_bad(e, sample, &self.sources).at(self.key))?;
        needs_template(&detected, sample, formatting.is_some(), self.model)?;
        self.sampled = sample.len();
        self.known = Some((detected, formatting));
        self.tokenize(rows)
    }

    fn tokenize(&mut self, raws: Vec<Raw>) -> Result<()> {
        let Some((detected, formatting)) = &self.known else { return Ok(()) };
        let (first, done) = (self.rows, AtomicUsize::new(self.rows));
        let total = self.expected.max(first + raws.len());
        let places: Vec<Place> = raws.iter().map(|r| r.place).collect();
        let outcomes: Vec<Outcome> = raws
            .into_par_iter()
            .enumerate()
            .map(|(i, raw)| {
                let outcome = one(&raw, (first + i) as u32, detected, formatting.as_ref(), self.model, self.options);
                let n = done.fetch_add(1, Ordering::Relaxed) + 1;
                // Often enough to look alive, rarely enough to cost nothing.
                if n % 64 == 0 || n == total {
                    (self.progress)(n, total);
                }
                outcome
            })
            .collect();
        self.rows += places.len();
        for (i, (outcome, place)) in outcomes.into_iter().zip(&places).enumerate() {
            let examples = self.tally.add(outcome, (first + i) as u32, place, &self.sources, &mut self.slot);
            for e in &examples {
                self.slot.example(e)?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(Head, Slot)> {
        if self.known.is_none() {
            if self.waiting.is_empty() {
                let files = listed(&self.sources);
                return Err(Error::new(format!("{}: there are no rows in {files}", self.key)).kind(Kind::Blocked));
            }
            self.begin()?;
        }
        (self.progress)(self.rows, self.rows);
        let lost = || Error::new("the format of the rows was not found");
        let (mut detected, _) = self.known.take().ok_or_else(lost)?;
        if self.rows > self.sampled {
            detected.why.push_str(&format!(", the first of {}", self.rows));
        }
        let t = self.tally;
        let head = Head {
            detected,
            sources: self.sources,
            bad: t.bad,
            bad_rows: t.bad_rows,
            truncated: t.truncated,
            masked_out: t.masked_out,
            masked_out_rows: t.masked_out_rows,
            mask: t.mask,
            plain_pairs: t.plain_pairs,
            columns: t.columns,
        };
        Ok((head, self.slot))
    }
}

fn detect(wanted: &Asked, raws: &[Raw], method: Method) -> Result<(Detected, Option<Formatting>)> {
    let Some(templates) = &wanted.messages else {
        let mut found = format::detect(raws, wanted.format, method)?;
        if found.format == Format::Text && raws.iter().any(|r| !r.document) {
            found.why = found.why.replace("column text", &format!("column {}", wanted.text_column));
        }
        return Ok((found, None));
    };
    let grpo = method == Method::Grpo;
    let formatting = if grpo { Formatting::of_prompts(templates)? } else { Formatting::new(templates)? };
    let census = Census::of(raws);
    if census.rows == 0 {
        return Err(Error::new("there is no row that can be read"));
    }
    formatting.check(&census)?;
    let named = formatting.columns();
    let format = if grpo { Format::Prompt } else { Format::Template };
    let unused = census.columns.iter().map(|(n, _)| n.clone()).filter(|n| !named.contains(&n.as_str())).collect();
    let why = format!("the recipe's templates over the columns {}", named.join(", "));
    let unused = if grpo { Vec::new() } else { unused };
    Ok((Detected { format, why, unused }, Some(formatting)))
}

/// Where no row can be read, the first one's problem is what helps.
fn first_bad(error: Error, raws: &[Raw], sources: &[Source]) -> Error {
    match raws.iter().find_map(|r| r.columns.as_ref().err().map(|p| (r.place, p))) {
        Some((place, problem)) if raws.iter().all(|r| r.columns.is_err()) => Error::new(format!(
            "no row can be read; the first: {problem}"
        ))
        .kind(Kind::Blocked)
        .at(format!("{}:{}", sources[place.file as usize].path.display(), place.line)),
        _ => error,
    }
}

/// A chat cannot be trained without a template, which is one thing to mend, not a problem of every row.
fn needs_template(detected: &Detected, raws: &[Raw], recipe_made: bool, model: &ModelSide) -> Result<()> {
    let chat = match detected.format {
        Format::Text => false,
        Format::PromptCompletion => {
            raws.iter().any(|r| r.columns.as_ref().is_ok_and(|c| c.get("prompt").is_some_and(|p| p.is_array())))
        }
        Format::Prompt => {
            recipe_made
                || raws
                    .iter()
                    .any(|r| r.columns.as_ref().is_ok_and(|c| !c.get("prompt").is_some_and(|p| p.is_string())))
        }
        Format::Preference => raws.iter().any(|r| {
            r.columns.as_ref().is_ok_and(|c| {
                let text = |name: &str| c.get(name).is_some_and(|v| v.is_string());
                !(text("chosen") && text("rejected") && (text("prompt") || !c.contains_key("instruction")))
            })
        }),
        _ => true,
    };
    if chat && model.render.is_none() {
        return Err(Error::new(format!(
            "the rows are conversations ({}), but the model has no chat template to render them with",
            detected.format
        ))
        .kind(Kind::Blocked)
        .next("set model.chat_template (\"chatml\", a Jinja file, or the template itself), or give rows with prompt and completion"));
    }
    Ok(())
}

fn one(
    raw: &Raw,
    number: u32,
    detected: &Detected,
    formatting: Option<&Formatting>,
    model: &ModelSide,
    options: &Options,
) -> Outcome {
    let prompt = detected.format == Format::Prompt;
    let bad = |problem| Outcome { fingerprint: 0, pair: false, prompt, made: Err(problem) };
    let columns = match &raw.columns {
        Ok(columns) => columns,
        Err(problem) => return bad(problem.clone()),
    };
    if raw.document && !matches!(detected.format, Format::Text | Format::Template) {
        return bad(format!("a text file among rows that are read as {}", detected.format));
    }
    // A text file is a document whatever the method: cut to one length, most of it would be lost.
    let method = if raw.document { Method::Cpt } else { options.method };
    let options = &Options { method, ..*options };
    match rows::parse(columns, detected.format, formatting) {
        Err(problem) => bad(problem),
        Ok(row) => Outcome {
            fingerprint: rows::fingerprint(&row),
            pair: matches!(row, Row::Pair { .. }),
            prompt,
            made: examples::make(&row, number, model, options),
        },
    }
}

/// What came of the rows so far.
#[derive(Default)]
struct Tally {
    bad: u64,
    bad_rows: Vec<BadRow>,
    truncated: u64,
    masked_out: u64,
    masked_out_rows: Vec<u32>,
    mask: MaskCounts,
    plain_pairs: bool,
    columns: Vec<String>,
}

impl Tally {
    /// Count one row; its examples are the answer.
    fn add(
        &mut self,
        outcome: Outcome,
        number: u32,
        place: &Place,
        sources: &[Source],
        slot: &mut Slot,
    ) -> Vec<Example> {
        if outcome.prompt {
            self.columns.push(outcome.made.as_ref().map(|m| m.columns.clone()).unwrap_or_default());
        }
        match outcome.made {
            Err(problem) => {
                self.bad += 1;
                slot.row(place, 0);
                if self.bad_rows.len() < LISTED {
                    let (file, line) = (sources[place.file as usize].path.clone(), place.line);
                    self.bad_rows.push(BadRow { file, line, row: number, problem });
                }
                Vec::new()
            }
            Ok(made) => {
                slot.row(place, outcome.fingerprint);
                self.plain_pairs |= outcome.pair;
                self.mask.add(made.method);
                self.truncated += u64::from(made.truncated);
                if made.masked_out > 0 {
                    self.masked_out += 1;
                    if self.masked_out_rows.len() < LISTED {
                        self.masked_out_rows.push(number);
                    }
                }
                made.examples
            }
        }
    }
}

fn listed(sources: &[Source]) -> String {
    sources.iter().map(|s| s.path.display().to_string()).collect::<Vec<_>>().join(", ")
}
