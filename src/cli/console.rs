//! `finetop [RECIPE]`, `demo` and `attach`: the console, at its different beginnings.

use clap::CommandFactory;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::args::{AttachArgs, Cli, DemoArgs, TrainArgs};
use super::output::{is_interactive, progress};
use super::train;
use crate::model::ranks::Ranks;
use crate::run::{Index, RunFolder, Session};
use crate::runtime::{self, StartAt, terminal};
use crate::{Error, Result, recipe};

/// The start page, or a recipe.
pub fn open(recipe: Option<&str>, foreground: bool) -> Result<()> {
    match recipe {
        None => runtime::run(StartAt::Start),
        Some(recipe) => {
            readable(recipe)?;
            if foreground { train_here(recipe) } else { runtime::run(StartAt::Recipe(recipe.into())) }
        }
    }
}

/// The demo; without a terminal it trains and tells how it goes on stderr.
pub fn demo(args: &DemoArgs) -> Result<()> {
    match (is_interactive(), args.foreground) {
        (false, _) => train::run(&TrainArgs { recipe: Some("demo".into()), ..TrainArgs::default() }),
        (true, true) => train_here("demo"),
        (true, false) => runtime::run(StartAt::Demo),
    }
}

pub fn attach(args: &AttachArgs) -> Result<()> {
    let folder = Index::of_user().find(args.run.as_deref())?;
    runtime::run(StartAt::Run(folder.path().to_owned()))
}

/// The trainer and its console in one process. Leaving the console leaves the trainer at work, with its
/// progress on stderr, until it ends or is interrupted.
fn train_here(recipe: &str) -> Result<()> {
    // Before anything is made: it may be that nobody could see it.
    terminal::usable()?;
    let loaded = recipe::load(recipe, &[])?;
    let folder = RunFolder::create(&loaded.recipe.output_dir, &loaded.recipe.run_name)?;
    let mut session = Session::open(folder)?;
    let aloud = Arc::new(AtomicBool::new(false));
    session.observe(train::teller(false, Arc::clone(&aloud)));
    let end = session.local_end();
    let trainer = train::Trainer::start(session, loaded.recipe, Ranks::alone(), None, Box::new(|_| {}))?;
    let shown = runtime::run(StartAt::Local(end.clone()));
    if end.is_alive() {
        progress(&format!("training goes on here, in {}; Ctrl-C ends it with a checkpoint", end.dir().display()));
        aloud.store(true, Ordering::Relaxed);
    }
    let ended = trainer.wait();
    shown.and(ended)
}

/// Said before the screen comes up: a word that is neither a recipe nor a command.
pub fn readable(recipe: &str) -> Result<()> {
    let path = Path::new(recipe);
    if path.is_dir() {
        return Err(Error::usage("this is a folder, not a recipe")
            .at(recipe)
            .next(format!("`finetop attach {recipe}` opens a run; a recipe is a .toml file")));
    }
    if path.is_file() {
        return Ok(());
    }
    let cli = Cli::command();
    let commands = cli.get_subcommands().map(clap::Command::get_name);
    let near = commands.max_by(|a, b| strsim::jaro_winkler(a, recipe).total_cmp(&strsim::jaro_winkler(b, recipe)));
    let error = Error::usage("there is no such recipe, and no such command").at(recipe);
    match near.filter(|name| strsim::jaro_winkler(name, recipe) > 0.8) {
        Some(name) => Err(error.next(format!("did you mean `finetop {name}`?"))),
        None => Err(error.next("give a recipe's path; `finetop --help` lists the commands")),
    }
}
