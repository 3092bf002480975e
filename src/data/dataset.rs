//! One data set from its files to examples: read, find the format, tokenize in parallel, or take it from the cache.

use super::bad::{self, BadRow};
use super::cache::{self, Cache};
use super::examples::{self, Made, Options};
use super::files::{self, Found};
use super::format::{self, Census, Detected, Format};
use super::formatting::Formatting;
use super::read::{self, Place, Raw, RowIndex, Source};
use super::rows::{self, Problem, Row};
use super::summary::{LISTED, MaskCounts};
use super::traits::ModelSide;
use super::{Progress, batch::Example};
use crate::recipe::{Method, Recipe};
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
    /// Of prompts, one a row (empty for a bad one): what it is asked and judged by, as JSON. Else none at all.
    pub columns: Vec<String>,
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
}

impl Tokenized {
    pub fn row_index(&self) -> RowIndex {
        RowIndex { files: self.head.sources.iter().map(|s| s.path.clone()).collect(), places: self.places.clone() }
    }
}

/// A file's contents.
struct Content {
    path: PathBuf,
    bytes: Vec<u8>,
    hash: blake3::Hash,
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
    options: Options,
}

/// Tokenize the files of one data set. `key` is the recipe's, `data.train` or `data.eval`.
pub fn tokenize(
    recipe: &Recipe,
    key: &str,
    paths: &[PathBuf],
    model: &ModelSide,
    cache: Option<&Cache>,
    progress: Progress,
) -> Result<(Tokenized, Found, bool)> {
    let found = files::find(paths, key)?;
    let contents = found.files.iter().map(|p| content(p)).collect::<Result<Vec<_>>>()?;
    let options = Options {
        method: recipe.method,
        assistant_only_loss: recipe.train.assistant_only_loss,
        completion_only_loss: recipe.train.completion_only_loss,
        // A prompt must leave room for its completion.
        max_seq_length: recipe.model.max_seq_length - recipe.grpo.as_ref().map_or(0, |g| g.max_completion_length),
    };
    let cache_key = blake3::hash(&serde_json::to_vec(&Key {
        cache_version: cache::VERSION,
        program: env!("CARGO_PKG_VERSION"),
        files: contents.iter().map(|c| (c.path.as_path(), c.hash.to_string())).collect(),
        tokenizer: model.encode.identity()?,
        template: model.render.map(|r| r.identity()),
        eos_token: model.eos_token,
        format: &recipe.data.format,
        messages: &recipe.data.messages,
        options,
    })?);
    let stored = cache.and_then(|c| c.load(&cache_key));
    let from_cache = stored.is_some();
    let tokenized = match stored {
        Some(t) => {
            progress(t.places.len(), t.places.len());
            t
        }
        None => make(recipe, key, contents, model, &options, progress)?,
    };
    bad::enforce(
        &tokenized.head.bad_rows,
        tokenized.head.bad as usize,
        tokenized.places.len(),
        recipe.data.max_bad_rows,
    )?;
    if let (Some(cache), false) = (cache, from_cache) {
        cache.store(&cache_key, &tokenized);
    }
    Ok((tokenized, found, from_cache))
}

fn content(path: &Path) -> Result<Content> {
    let bytes = files::read(path)?;
    let hash = blake3::hash(&bytes);
    Ok(Content { path: path.to_path_buf(), bytes, hash })
}

/// What came of one row.
struct Outcome {
    fingerprint: u64,
    pair: bool,
    made: std::result::Result<Made, Problem>,
}

fn make(
    recipe: &Recipe,
    key: &str,
    contents: Vec<Content>,
    model: &ModelSide,
    options: &Options,
    progress: Progress,
) -> Result<Tokenized> {
    let mut raws: Vec<Raw> = Vec::new();
    let mut sources = Vec::new();
    for (i, c) in contents.iter().enumerate() {
        let rows = read::rows(&c.path, &c.bytes, i as u32)?;
        sources.push(Source {
            path: c.path.clone(),
            rows: rows.len() as u64,
            bytes: c.bytes.len() as u64,
            blake3: c.hash.to_string(),
        });
        raws.extend(rows);
    }
    drop(contents);
    if raws.is_empty() {
        return Err(Error::new(format!("{key}: there are no rows in {}", listed(&sources))).kind(Kind::Blocked));
    }
    let (detected, formatting) = detect(recipe, &raws).map_err(|e| first_bad(e, &raws, &sources).at(key))?;
    needs_template(&detected, &raws, formatting.is_some(), model)?;

    let (total, done) = (raws.len(), AtomicUsize::new(0));
    progress(0, total);
    let places: Vec<Place> = raws.iter().map(|r| r.place).collect();
    let outcomes: Vec<Outcome> = raws
        .into_par_iter()
        .enumerate()
        .map(|(i, raw)| {
            let outcome = one(&raw, i as u32, &detected, formatting.as_ref(), model, options);
            let n = done.fetch_add(1, Ordering::Relaxed) + 1;
            // Often enough to look alive, rarely enough to cost nothing.
            if n % 64 == 0 || n == total {
                progress(n, total);
            }
            outcome
        })
        .collect();
    Ok(gather(outcomes, places, sources, detected))
}

fn detect(recipe: &Recipe, raws: &[Raw]) -> Result<(Detected, Option<Formatting>)> {
    let Some(templates) = &recipe.data.messages else {
        return Ok((format::detect(raws, &recipe.data.format, recipe.method)?, None));
    };
    let grpo = recipe.method == Method::Grpo;
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
    let bad = |problem| Outcome { fingerprint: 0, pair: false, made: Err(problem) };
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
            made: examples::make(&row, number, model, options),
        },
    }
}

fn gather(outcomes: Vec<Outcome>, places: Vec<Place>, sources: Vec<Source>, detected: Detected) -> Tokenized {
    let mut head = Head {
        detected,
        sources,
        bad: 0,
        bad_rows: Vec::new(),
        truncated: 0,
        masked_out: 0,
        masked_out_rows: Vec::new(),
        mask: MaskCounts::default(),
        plain_pairs: false,
    };
    let (mut fingerprints, mut examples) = (Vec::with_capacity(places.len()), Vec::new());
    let prompts = head.detected.format == Format::Prompt;
    let mut columns = Vec::new();
    for (i, outcome) in outcomes.into_iter().enumerate() {
        let number = i as u32;
        if prompts {
            columns.push(outcome.made.as_ref().map(|m| m.columns.clone()).unwrap_or_default());
        }
        match outcome.made {
            Err(problem) => {
                head.bad += 1;
                fingerprints.push(0);
                if head.bad_rows.len() < LISTED {
                    let (file, line) = (head.sources[places[i].file as usize].path.clone(), places[i].line);
                    head.bad_rows.push(BadRow { file, line, row: number, problem });
                }
            }
            Ok(made) => {
                fingerprints.push(outcome.fingerprint);
                head.plain_pairs |= outcome.pair;
                head.mask.add(made.method);
                head.truncated += u64::from(made.truncated);
                if made.masked_out > 0 {
                    head.masked_out += 1;
                    if head.masked_out_rows.len() < LISTED {
                        head.masked_out_rows.push(number);
                    }
                }
                examples.extend(made.examples);
            }
        }
    }
    Tokenized { head, places, fingerprints, examples, columns }
}

fn listed(sources: &[Source]) -> String {
    sources.iter().map(|s| s.path.display().to_string()).collect::<Vec<_>>().join(", ")
}
