//! `finetop [RECIPE]`, `demo` and `attach`: the console, at its different beginnings.

use clap::CommandFactory;
use std::path::Path;

use super::args::{AttachArgs, Cli};
use crate::run::Index;
use crate::runtime::{self, StartAt};
use crate::{Error, Result};

/// The start page, or a recipe.
pub fn open(recipe: Option<&str>) -> Result<()> {
    match recipe {
        None => runtime::run(StartAt::Start),
        Some(recipe) => {
            readable(recipe)?;
            runtime::run(StartAt::Recipe(recipe.into()))
        }
    }
}

pub fn demo() -> Result<()> {
    runtime::run(StartAt::Demo)
}

pub fn attach(args: &AttachArgs) -> Result<()> {
    let folder = Index::of_user().find(args.run.as_deref())?;
    runtime::run(StartAt::Run(folder.path().to_owned()))
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
