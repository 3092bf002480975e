//! `finetop train`: headless training in this process, or detached in one of its own.

use super::args::TrainArgs;
use super::export::Teller;
use super::output;
use super::ranks::{self, Started};
use crate::model::ranks::{Place, Ranks};
use crate::recipe::{self, Recipe};
use crate::run::event::{Body, Event, Metrics, RunState, Severity};
use crate::run::index::Index;
use crate::run::session::{Observer, Session};
use crate::run::shipping::{self, Order, Word};
use crate::run::signals::Signals;
use crate::run::summary::thousands;
use crate::run::worker::{self, Launch};
use crate::run::{RunFolder, trainer};
use crate::train::parts::ending::Ending;
use crate::{Error, Result};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub fn run(args: &TrainArgs) -> Result<()> {
    if args.worker {
        worker::become_worker()?;
    }
    let mut place = ranks::place()?;
    if let Some(place) = place.as_ref().filter(|p| p.rank > 0) {
        return ranks::follow(place);
    }
    let job = Job::of(args)?;
    if args.detach {
        if place.is_some() {
            return Err(Error::usage("--detach starts one process, and a launcher started several")
                .next("leave it out, or let --nproc-per-node start them"));
        }
        if let Some(why) = worker::stays_in_foreground() {
            output::progress(&why);
        } else {
            return detach(args, &job);
        }
    }
    let mut started = Started::default();
    if let (None, Some(count)) = (&place, args.nproc_per_node.filter(|n| *n > 1)) {
        let (first, others) = ranks::start(count)?;
        (place, started) = (Some(first), others);
    }
    let done = here(args, job, place.as_ref());
    // After a failure they end too, by themselves or with this process.
    if done.is_ok() {
        started.wait();
    }
    done
}

/// What is to be trained, and where.
struct Job {
    recipe: Recipe,
    folder: RunFolder,
    /// The checkpoint to go on from.
    resume: Option<u64>,
    notes: Vec<String>,
}

impl Job {
    fn of(args: &TrainArgs) -> Result<Self> {
        if let Some(what) = &args.resume {
            let (folder, step) = Index::of_user().find_with_step(what)?;
            let loaded = match &args.recipe {
                Some(path) => recipe::load(path, &args.set)?,
                None => recipe::parse(&folder.read_recipe()?, &folder.recipe().to_string_lossy(), &args.set)?,
            };
            let has_any = !folder.checkpoints().is_empty();
            // A run killed before its first checkpoint has nothing to go on from but its beginning.
            let resume = if has_any || step.is_some() { Some(folder.find_checkpoint(step)?.0) } else { None };
            return Ok(Self { recipe: loaded.recipe, folder, resume, notes: loaded.notes });
        }
        let path = args.recipe.as_deref().unwrap_or("demo");
        let loaded = recipe::load(path, &args.set)?;
        let folder = match &args.run_dir {
            Some(dir) => RunFolder::create_at(dir)?,
            None => RunFolder::create(&loaded.recipe.output_dir, &loaded.recipe.run_name)?,
        };
        Ok(Self { recipe: loaded.recipe, folder, resume: None, notes: loaded.notes })
    }
}

fn detach(args: &TrainArgs, job: &Job) -> Result<()> {
    let launch = Launch {
        recipe: args.recipe.as_ref().map(Into::into),
        set: args.set.iter().map(|(k, v)| format!("{k}={v}")).collect(),
        resume: args.resume.clone(),
        processes: args.nproc_per_node,
        program: None,
    };
    let started = worker::start(&job.folder, &launch)?;
    if let Some(hint) = worker::logout_hint() {
        output::progress(&hint);
    }
    output::progress(&format!("training in process {}; finetop attach shows it, finetop stop ends it", started.pid));
    output::print(&started.dir.display().to_string())
}

fn here(args: &TrainArgs, job: Job, place: Option<&Place>) -> Result<()> {
    let Job { recipe, folder, resume, notes } = job;
    for note in &notes {
        output::progress(&format!("note: {note}"));
    }
    if resume.is_none() && !folder.has_begun() {
        // Before the first event: a viewer opens the folder as soon as there is one.
        folder.write_recipe(&recipe::to_toml(&recipe))?;
    }
    let mut session = Session::open(folder)?;
    if let Some(why) = session.no_socket() {
        output::progress(&format!("no control socket, so no commands can be taken: {why}"));
    }
    output::progress(&format!("run folder {}", session.dir().display()));
    session.observe(teller(args.json, Arc::new(AtomicBool::new(true))));
    let dir = session.dir().to_owned();
    let ranks = ranks::lead(place, &recipe, &session.folder, resume)?;
    let (mut teller, json) = (Teller::default(), args.json);
    // What is exported is told beside the run's events, never among them.
    let tell = move |word: Word| {
        if !json {
            teller.tell(&word)
        }
    };
    Trainer::start(session, recipe, ranks, resume, Box::new(tell))?.wait()?;
    if args.json { Ok(()) } else { output::print(&dir.display().to_string()) }
}

/// A trainer at work in this process: signals reach it as commands.
pub struct Trainer {
    dir: PathBuf,
    signals: Signals,
    runtime: tokio::runtime::Runtime,
    work: tokio::task::JoinHandle<Result<Ending>>,
}

impl Trainer {
    /// Writes the resolved recipe into the session's folder and begins.
    /// Once the run has finished, what its recipe exports is told to `tell`.
    pub fn start(
        mut session: Session,
        recipe: Recipe,
        ranks: Ranks,
        resume: Option<u64>,
        mut tell: Box<dyn FnMut(Word) + Send>,
    ) -> Result<Self> {
        session.folder.write_recipe(&recipe::to_toml(&recipe))?;
        let signals = Signals::install(session.sender())?;
        let dir = session.dir().to_owned();
        // candle blocks, so the trainer is a thread that the runtime owns, fed by commands.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let run = dir.clone();
        let work = runtime.spawn_blocking(move || {
            let ending = trainer::train(&recipe, ranks, resume, &mut session)?;
            if ending.error().is_none()
                && let Some(order) = Order::of_recipe(&recipe, &run)?
            {
                let shipped = shipping::ship(&order, &mut tell)?;
                shipped.proof.map_or(Ok(()), |proof| proof.verdict(&order.out))?;
            }
            Ok(ending)
        });
        Ok(Self { dir, signals, runtime, work })
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// When it failed, or ended before its last step; with the kind that the signal makes it.
    pub fn wait(self) -> Result<()> {
        let ending = self.runtime.block_on(self.work).map_err(|e| {
            Error::new(format!("the trainer crashed: {e}")).next("run.log in the run folder says where")
        })??;
        match ending.error() {
            None => Ok(()),
            Some(e) => {
                let e = match self.signals.ending() {
                    Some(kind) => e.kind(kind),
                    None => e,
                };
                Err(e.next(format!("go on with: finetop train --resume {}", self.dir.display())))
            }
        }
    }
}

/// Tells every event while `aloud`.
pub fn teller(json: bool, aloud: Arc<AtomicBool>) -> Observer {
    let mut total = 0;
    Box::new(move |event| {
        if let Body::Start(start) = &event.body {
            total = start.total_steps;
        }
        if aloud.load(Ordering::Relaxed) {
            tell(event, json, &mut total);
        }
    })
}

/// Progress for a person on stderr, or every event as JSON on stdout.
fn tell(event: &Event, json: bool, total: &mut u64) {
    if json {
        if let Ok(line) = serde_json::to_string(event) {
            output::stream(&line);
        }
        return;
    }
    if let Some(line) = line(event, total) {
        output::progress(&line);
    }
}

fn line(event: &Event, total: &mut u64) -> Option<String> {
    let step = event.step;
    Some(match &event.body {
        Body::Start(s) => {
            *total = s.total_steps;
            format!(
                "{} · {} · {} · {} trainable of {} · {} rows, {} held out · {} steps · {}",
                s.method,
                s.tuning,
                s.model,
                thousands(s.trainable_parameters),
                thousands(s.total_parameters),
                thousands(s.train_rows),
                thousands(s.eval_rows),
                thousands(s.total_steps),
                s.device_name
            )
        }
        Body::Step(s) => format!(
            "step {step}/{total}  loss {:.4}{}  grad {:.3}  lr {:.2e}  {} tok/s",
            s.loss,
            measured(&s.metrics),
            s.grad_norm,
            s.learning_rate,
            thousands(s.tokens_per_second as u64)
        ),
        Body::Eval(e) => {
            let best = if e.best { "  best" } else { "" };
            match e.metrics.is_empty() {
                true => format!("eval {:.4}  perplexity {:.2}{best}", e.loss, e.perplexity),
                false if e.loss.is_finite() => format!("eval {:.4}{}{best}", e.loss, measured(&e.metrics)),
                false => format!("eval{}{best}", measured(&e.metrics)),
            }
        }
        Body::Sample(s) => {
            let mark = match s.score {
                Some(1.0) => " ✓",
                Some(_) => " ✕",
                None => "",
            };
            format!("sample{mark}  {} → {}", one_line(&s.prompt, 60), one_line(&s.text, 160))
        }
        Body::Completions(c) => {
            let best = c.list.iter().max_by(|a, b| a.advantage.total_cmp(&b.advantage));
            let rewards: Vec<_> = c.list.iter().map(|s| s.reward.map_or("–".into(), |r| format!("{r:.2}"))).collect();
            let text = best.map_or(String::new(), |b| one_line(&b.text, 100));
            format!("drawn  {} → [{}] {text}", one_line(&c.prompt, 60), rewards.join(" "))
        }
        Body::Finding(f) => {
            let sign = match (f.resolved, f.severity) {
                (true, _) | (_, Severity::Passed) => "✓",
                (_, Severity::Note) => "·",
                (_, Severity::Warning) => "▲",
                (_, Severity::Error) => "✕",
            };
            let gone = if f.resolved { " (no longer)" } else { "" };
            format!("{sign} {}{gone}: {}", f.title, f.evidence)
        }
        Body::Checkpoint(c) => {
            format!(
                "checkpoint {}  {:.1} MiB  {}",
                c.path,
                c.bytes as f64 / 1048576.0,
                if c.best { "best" } else { "" }
            )
        }
        Body::Change(c) if c.to.is_empty() => format!("not changed: {}: {}", c.key, c.by),
        Body::Change(c) => format!("{} {} → {}, by {}", c.key, c.from, c.to, c.by),
        Body::State(s) if s.state == RunState::Running => return None,
        Body::State(s) => {
            let word = format!("{:?}", s.state).to_lowercase();
            if s.why.is_empty() { word } else { format!("{word}: {}", s.why) }
        }
        Body::Memory(_) | Body::Schema { .. } => return None,
    })
}

/// The most telling of what a method measures.
fn measured(metrics: &Metrics) -> String {
    let shown = [
        ("rewards/margins", "margin"),
        ("rewards/accuracies", "accuracy"),
        ("reward", "reward"),
        ("reward_std", "±"),
        ("completions/mean_length", "length"),
    ];
    let found = shown.iter().filter_map(|(name, word)| Some(format!("  {word} {:.3}", metrics.get(*name)?)));
    found.collect()
}

fn one_line(text: &str, most: usize) -> String {
    let flat: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if flat.chars().count() <= most { flat } else { flat.chars().take(most).collect::<String>() + "…" }
}
