//! A recipe for a goal, a model and rows: `finetop new`.
//!
//! Values come from the guidance, from how many rows there are and how long they are, and from the memory that is here;
//! each says so in its comment. Must not know who asks.

use crate::data::of_recipe;
use crate::data::survey::Survey;
use crate::memory::card::{self, Card};
use crate::memory::{self, Local, Telemetry as _};
use crate::model::loading::Opened;
use crate::model::source::{self, Need};
use crate::recipe::guidance::{self, thousands};
use crate::recipe::{self, DataSource, Method, Recipe};
use crate::{Error, Result};
use std::io::Write;
use std::path::{Path, PathBuf};

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Wish {
    pub method: Method,
    /// Train every weight, without an adapter.
    pub full: bool,
    pub model: String,
    /// As it shall stand in the recipe.
    pub data: String,
}

/// Rows up to this size are tokenized to see how long they are.
const TOKENIZED: u64 = 64 << 20;

/// The goals to choose from: a name for `--method`, what it is for, and the data it needs. `full` is SFT without LoRA.
pub fn goals() -> Vec<(String, &'static str, &'static str)> {
    let mut goals: Vec<_> = guidance::GOALS.iter().map(|g| (g.method.to_string(), g.good_for, g.data)).collect();
    goals.push((
        "full".into(),
        "as sft, changing every weight",
        "many pairs or chats, and memory for all of the model",
    ));
    goals
}

/// The method behind a goal's name, and whether every weight trains.
///
/// # Errors
/// `Kind::Usage`: there is no such goal.
pub fn method(goal: &str) -> Result<(Method, bool)> {
    if goal == "full" {
        return Ok((Method::Sft, true));
    }
    let known = crate::data::survey::methods();
    let found = serde_json::from_value::<Method>(goal.into()).ok().filter(|m| known.contains(m));
    found.map(|m| (m, false)).ok_or_else(|| {
        let names: Vec<String> = goals().into_iter().map(|g| g.0).collect();
        Error::usage(format!("there is no method {goal}")).next(format!("there are {}", names.join(", ")))
    })
}

/// A model to begin with on this machine, by the memory of its first card.
pub fn suggested_model() -> &'static str {
    let vram = Local::new().read().cards.first().and_then(|c| c.memory_total).unwrap_or(0) >> 30;
    match vram {
        0..6 => "HuggingFaceTB/SmolLM2-135M-Instruct",
        6..15 => "Qwen/Qwen2.5-1.5B-Instruct",
        _ => "Qwen/Qwen2.5-7B-Instruct",
    }
}

/// Write the recipe's text. `folder` is where it will stand: relative paths are taken from there.
///
/// # Errors
/// The rows do not serve the method: says why, and which they serve.
pub fn draft(wish: &Wish, survey: &Survey, folder: &Path, say: &mut dyn FnMut(&str)) -> Result<String> {
    if let Err(why) = survey.can(wish.method) {
        let others: Vec<String> =
            survey.methods.iter().filter(|(m, _)| survey.can(*m).is_ok()).map(|(m, _)| name(*m)).collect();
        let next = match others.is_empty() {
            true => format!("the columns are {}; data.messages can describe any", survey.census.names()),
            false => format!("these rows serve {}", others.join(", ")),
        };
        return Err(Error::new(format!("these rows do not serve {}: {why}", name(wish.method)))
            .at(&wish.data)
            .next(next));
    }
    let mut d = Draft::new(wish, survey);
    let file = folder.join("new.toml");
    let parsed = |d: &Draft| recipe::parse(&d.text(), &file.to_string_lossy(), &[]).map(|l| l.recipe);
    let first = parsed(&d)?;
    let mut measured = d.measure(&first, say);
    if measured.as_ref().is_err_and(|e| e.what.contains("data.eval_fraction")) {
        // Too little to share with an evaluation.
        d.hold_out = false;
        let without = parsed(&d)?;
        measured = d.measure(&without, say);
    }
    match measured {
        Ok(()) => {}
        Err(e) => {
            say(&format!("note: sized by the guidance alone: {}", e.what));
            d.by_guidance();
        }
    }
    parsed(&d)?;
    Ok(d.text())
}

/// A source as a recipe in this folder would read it.
///
/// # Errors
/// `Kind::Usage`: it cannot be one.
pub fn source(data: &str) -> Result<DataSource> {
    let quoted = toml_edit::Value::from(data).to_string();
    let text = format!("[model]\nname_or_path = \"demo\"\n[data]\ntrain = {quoted}\n");
    let loaded = recipe::parse(&text, "new.toml", &[])?;
    loaded.recipe.data.train.into_iter().next().ok_or_else(|| Error::usage("no data is named"))
}

/// Draft a recipe and write it to `out`, or to a free name in this folder. Its path, and its text.
///
/// # Errors
/// As [`draft`]; a file that is there already, or cannot be written.
pub fn write(wish: &Wish, survey: &Survey, out: Option<&Path>, say: &mut dyn FnMut(&str)) -> Result<(PathBuf, String)> {
    let path = out.map_or_else(|| free(wish), Path::to_path_buf);
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = std::path::absolute(folder).map_err(|e| Error::from(e).at(folder.display()))?;
    let mut wish = wish.clone();
    // A recipe's paths start at its own folder; those that were named here at this one.
    let here = std::env::current_dir().unwrap_or_default();
    if folder != here {
        for name in [&mut wish.data, &mut wish.model] {
            if here.join(name.as_str()).exists() {
                *name = here.join(name.as_str()).display().to_string();
            }
        }
    }
    let text = draft(&wish, survey, &folder, say)?;
    let mut file = std::fs::File::options().write(true).create_new(true).open(&path).map_err(|e| {
        Error::from(e).at(path.display()).next("an existing file is never written over: name another with --out FILE")
    })?;
    file.write_all(text.as_bytes()).map_err(|e| Error::from(e).at(path.display()))?;
    Ok((path, text))
}

/// `sft-alpaca.toml`, or the first number after it that is free.
fn free(wish: &Wish) -> PathBuf {
    let bare = wish.data.split('@').next().unwrap_or(&wish.data).trim_end_matches('/');
    let stem = Path::new(bare).file_stem().map_or("rows".into(), |s| s.to_string_lossy().into_owned());
    let clean: String = stem.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect();
    let goal = if wish.full { "full".into() } else { name(wish.method) };
    let name = format!("{goal}-{clean}");
    std::iter::once(format!("{name}.toml"))
        .chain((2..).map(|n| format!("{name}-{n}.toml")))
        .map(PathBuf::from)
        .find(|p| !p.exists())
        .unwrap_or_default()
}

fn name(method: Method) -> String {
    method.name().to_string()
}

/// The values that are looked for, each with the words beside it.
struct Draft<'a> {
    wish: &'a Wish,
    survey: &'a Survey,
    length: (usize, String),
    batch: usize,
    accumulation: usize,
    batch_words: String,
    sized: String,
    /// Whether rows are held out for evaluation.
    hold_out: bool,
}

impl<'a> Draft<'a> {
    fn new(wish: &'a Wish, survey: &'a Survey) -> Self {
        Self {
            wish,
            survey,
            length: (2048, "tokens; longer rows are cut".into()),
            batch: 4,
            accumulation: 4,
            batch_words: String::new(),
            sized: String::new(),
            hold_out: wish.method == Method::Cpt || survey.rows >= 40,
        }
    }

    fn lora(&self) -> bool {
        !self.wish.full
    }

    /// Whether the rows are documents, which are cut into blocks: how many there are says little.
    fn documents(&self) -> bool {
        self.wish.method == Method::Cpt
    }

    /// Rows a step: few rows want few, so that there are steps enough to learn in.
    fn effective(&self) -> usize {
        match (self.lora() && !self.documents(), self.survey.rows) {
            (true, 0..500) => 8,
            _ => 16,
        }
    }

    fn epochs(&self) -> (u32, String) {
        let n = self.survey.rows;
        if self.documents() {
            return (1, "more text serves better than more epochs".into());
        }
        let epochs = match n {
            0..1_000 => 3,
            1_000..10_000 => 2,
            _ => 1,
        };
        let range = match n {
            0..10_000 => "1–3",
            10_000..=100_000 => "1–2",
            _ => "1",
        };
        (epochs, format!("{} rows: {range} epochs are usual", thousands(n)))
    }

    /// Share a step's rows into passes of at most `most` sequences.
    fn share(&mut self, most: usize) {
        let effective = self.effective();
        self.batch = (1..=most.clamp(1, effective)).rev().find(|b| effective.is_multiple_of(*b)).unwrap_or(1);
        self.accumulation = effective / self.batch;
    }

    /// By the model, the rows' true lengths and the memory that is here.
    fn measure(&mut self, recipe: &Recipe, say: &mut dyn FnMut(&str)) -> Result<()> {
        let opened = Opened::open(&source::resolve_saying(&self.wish.model, Need::Description, say)?)?;
        let shape = opened.shape();
        let bytes: u64 = match of_data(&recipe.data.train) {
            Some(bytes) if bytes <= TOKENIZED => bytes,
            _ => u64::MAX,
        };
        let mut longest = None;
        if bytes != u64::MAX {
            say("tokenizing the rows, to see how long they are");
            let prepared = of_recipe::read(recipe, &opened)?.prepared;
            let found = prepared.summary.longest as usize;
            if recipe.method != Method::Cpt && prepared.summary.truncated == 0 {
                let fits = found.next_multiple_of(64).clamp(64, 2048);
                self.length = (fits, format!("tokens; the longest row has {}", thousands(found as u64)));
            } else if prepared.summary.truncated > 0 {
                let share = 100.0 * prepared.summary.truncated_share();
                self.length.1 = format!("tokens; {share:.1} % of the rows are longer and are cut");
            }
            longest = Some(found.min(self.length.0));
        }
        let mut recipe = recipe.clone();
        recipe.model.max_seq_length = self.length.0;
        let mut telemetry = Local::new();
        let now = telemetry.read();
        let card = now.cards.first().and_then(|c| Some((c, c.memory_total?.checked_sub(c.memory_used?)?)));
        let (most, place) = match card {
            Some((c, free)) if self.lora() => {
                let on = Card { shape: &shape, recipe: &recipe, longest };
                (
                    card::largest_batch(on, free),
                    format!("{} with {} GiB free", c.name.as_deref().unwrap_or("this card"), memory::gib(free)),
                )
            }
            _ => {
                let free = now.available.unwrap_or(0);
                (
                    memory::largest_batch(&recipe, &shape, longest, free),
                    format!("this CPU with {} GiB of memory free", memory::gib(free)),
                )
            }
        };
        match most {
            Some((most, _)) => {
                // A CPU gains nothing from more sequences at once.
                self.share(if card.is_some() { most } else { most.min(4) });
                self.batch_words = format!("of at most {} that fit here", thousands(most as u64));
            }
            None => {
                self.share(1);
                self.batch_words = "even one sequence may not fit: see `finetop plan`".into();
            }
        }
        self.sized = format!("sized for {place}");
        Ok(())
    }

    /// A 24 GB card takes 2 × 8 of a 7B model, an 80 GB card 8 × 2.
    fn by_guidance(&mut self) {
        let vram = Local::new().read().cards.first().and_then(|c| c.memory_total).unwrap_or(0) >> 30;
        self.share(match vram {
            0 => 4,
            1..40 => 2,
            _ => 8,
        });
        self.batch_words = "see `finetop plan` for what fits".into();
        self.sized = "sized by the guidance".into();
    }

    fn text(&self) -> String {
        let (w, s) = (self.wish, self.survey);
        let quoted = |t: &str| toml_edit::Value::from(t).to_string();
        let (low, high, rate) = guidance::learning_rates(w.method, self.lora());
        let (epochs, epochs_why) = self.epochs();
        let steps = (s.rows as f64 / self.effective() as f64 * f64::from(epochs)).ceil().max(1.0) as u64;
        let goal = guidance::GOALS.iter().find(|g| g.method == name(w.method));
        let mut out = Vec::new();
        out.push(format!("# Written by finetop new: {}.", goal.map_or("a training", |g| g.good_for)));
        let about = if s.counted { thousands(s.rows) } else { format!("more than {}", thousands(s.rows)) };
        let sized = if self.sized.is_empty() { String::new() } else { format!("; {}", self.sized) };
        let rows = if s.rows == 1 { "row" } else { "rows" };
        out.push(format!("# {about} {rows} with the columns {}{sized}.", s.census.names()));
        out.push("# Every key and its default: `finetop config RECIPE`. Ranges: docs/guide.md.".into());
        out.push(format!("method = \"{}\"\n", name(w.method)));
        out.push(format!("[model]\nname_or_path = {}", quoted(&w.model)));
        out.push(format!("max_seq_length = {:<20}# {}\n", self.length.0, self.length.1));
        match self.lora() {
            true => out.push(
                "[lora]                               # without this table every weight trains\n\
                 r = 16                               # raise it only if 16 falls short: 32 for a new language or domain\n\
                 lora_alpha = 16                      # r or 2r\n"
                    .into(),
            ),
            false => out.push("# No [lora] table: full fine-tuning.\n".into()),
        }
        out.push(format!("[data]\ntrain = {}", quoted(&w.data)));
        if let Some((q, a)) = s.question_and_answer.as_ref().filter(|_| w.method == Method::Sft) {
            out.push("# The formatting function: what is asked and what is answered, over the row's columns.".into());
            out.push(format!(
                "messages = [{{ role = \"user\", content = {} }}, {{ role = \"assistant\", content = {} }}]",
                quoted(&format!("{{{{ {q} }}}}")),
                quoted(&format!("{{{{ {a} }}}}"))
            ));
        } else if let Some((_, Ok(d))) = s.methods.iter().find(|(m, _)| *m == w.method) {
            out.push(format!("# format = \"auto\" finds {}: {}", d.format, d.why));
        }
        out.push(match self.hold_out {
            false => "# eval_fraction = 0.05               # too little to hold some out\n".into(),
            true => "eval_fraction = 0.05                 # held out, to see overfitting\n".into(),
        });
        out.push(format!("[train]\nper_device_train_batch_size = {:<7}# {}", self.batch, self.batch_words));
        out.push(format!(
            "gradient_accumulation_steps = {:<7}# {} rows a step",
            self.accumulation,
            self.batch * self.accumulation
        ));
        out.push(format!("learning_rate = {:<21}# {low:e} – {high:e} is usual", format!("{rate:e}")));
        out.push(format!("num_train_epochs = {epochs:<18}# {epochs_why}"));
        out.push("lr_scheduler_type = \"cosine\"".into());
        out.push("warmup_ratio = 0.05".into());
        let (every, save, of) = match self.documents() {
            true => (50, 100, "steps".to_string()),
            false => {
                ((steps / 10).clamp(5, 200), (steps / 5).clamp(10, 500), format!("of about {} steps", thousands(steps)))
            }
        };
        out.push(format!("eval_steps = {every:<24}# {of}"));
        out.push(format!("save_steps = {save}"));
        out.push("seed = 3407\n".into());
        out.push("[sample]                             # drawn before the first step and while it trains".into());
        match &s.prompt {
            Some(prompt) => out.push(format!("prompts = [{}]", quoted(prompt))),
            None => out.push("prompts = []".into()),
        }
        out.push(format!("every_steps = {every}\n"));
        out.join("\n")
    }
}

/// Bytes of the files, where all are here.
fn of_data(sources: &[DataSource]) -> Option<u64> {
    let mut bytes = 0;
    for source in sources {
        let found = crate::data::sources::locate(source, "data.train", &mut |_| ()).ok()?;
        for file in found.files {
            bytes += std::fs::metadata(file).map_or(0, |m| m.len());
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(file: &Path) -> Survey {
        Survey::of(&file.into(), &mut |_| ()).unwrap()
    }

    fn wish(method: Method, full: bool, data: &str) -> Wish {
        Wish { method, full, model: "demo".into(), data: data.into() }
    }

    #[test]
    fn each_goal_gives_a_recipe_that_loads_and_stays_within_the_guidance() {
        let dir = tempfile::tempdir().unwrap();
        let pairs: String = (0..60).map(|i| format!("{{\"question\":\"q {i}\",\"answer\":\"a {i}\"}}\n")).collect();
        let chats: String = (0..60).map(|i| format!("{{\"instruction\":\"q {i}\",\"output\":\"a {i}\"}}\n")).collect();
        let answers: String =
            (0..60).map(|i| format!("{{\"prompt\":\"q {i}\",\"chosen\":\"a {i}\",\"rejected\":\"b\"}}\n")).collect();
        let files = [("pairs", &pairs), ("chats", &chats), ("answers", &answers)];
        std::fs::write(dir.path().join("doc.txt"), "Once upon a time.").unwrap();
        for (file, text) in files.map(|(name, text)| (format!("{name}.jsonl"), text)) {
            std::fs::write(dir.path().join(file), text).unwrap();
        }
        for (goal, data) in [
            ("sft", "pairs.jsonl"),
            ("sft", "chats.jsonl"),
            ("full", "chats.jsonl"),
            ("cpt", "doc.txt"),
            ("dpo", "answers.jsonl"),
        ] {
            let (method, full) = method(goal).unwrap();
            let s = survey(&dir.path().join(data));
            let text = draft(&wish(method, full, data), &s, dir.path(), &mut |_| ()).unwrap();
            let loaded = recipe::parse(&text, dir.path().join("new.toml").to_str().unwrap(), &[]).unwrap();
            let r = loaded.recipe;
            assert_eq!((r.method, r.lora.is_none()), (method, full), "{text}");
            assert_eq!(r.data.train[0].path, dir.path().join(data));
            let facts = guidance::Facts { rows: Some(s.rows), ..guidance::Facts::default() };
            for key in
                ["train.learning_rate", "train.num_train_epochs", "lora.r", "lora.lora_alpha", "train.warmup_ratio"]
            {
                let g = guidance::guidance(key, &r, &facts);
                assert_ne!(g.and_then(|g| g.inside), Some(false), "{goal}: {key}\n{text}");
            }
            assert!(text.contains("sized for"), "{text}");
        }
    }

    #[test]
    fn rows_that_do_not_serve_the_goal_are_answered_with_those_they_serve() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.jsonl");
        std::fs::write(&file, "{\"instruction\":\"q\",\"output\":\"a\"}\n").unwrap();
        let e = draft(&wish(Method::Cpt, false, "a.jsonl"), &survey(&file), dir.path(), &mut |_| ())
            .unwrap_err()
            .to_string();
        assert!(e.contains("do not serve cpt") && e.contains("serve sft"), "{e}");
        assert!(method("dance").unwrap_err().to_string().contains("sft"));
    }
}
