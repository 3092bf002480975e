//! The command line: arguments, one small file a command, and what is printed.
//!
//! Only this room prints: results on stdout, progress and errors on stderr.
#![allow(clippy::print_stdout, clippy::print_stderr)]

pub mod args;
pub mod bench;
pub mod cache;
pub mod chat;
pub mod check;
pub mod completions;
pub mod config;
pub mod console;
pub mod diff;
pub mod eval;
pub mod export;
pub mod merge;
pub mod new;
pub mod output;
pub mod plan;
pub mod ranks;
pub mod rm;
pub mod runs;
pub mod serve;
pub mod show;
pub mod snapshot;
pub mod sparkline;
pub mod status;
pub mod stop;
pub mod train;
pub mod verify;

#[cfg(test)]
mod tests;

use clap::{CommandFactory, FromArgMatches};
use std::ffi::OsString;
use std::process::ExitCode;

use crate::run::worker::PREFIX;
use crate::{Error, Result};
use args::{Cli, Command};

/// The program: reads its arguments, does what they say, and turns an error into words and an exit code.
pub fn main() -> ExitCode {
    match parse(std::env::args_os()).and_then(|cli| cli.map_or(Ok(()), run)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            output::progress(&format!("{PREFIX}{e}"));
            ExitCode::from(e.kind.exit_code())
        }
    }
}

/// `None`: there was nothing to do but print help or the version.
fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Option<Cli>> {
    let read = Cli::command().try_get_matches_from(args).and_then(|m| Cli::from_arg_matches(&m));
    match read {
        Ok(cli) => Ok(Some(cli)),
        Err(e) if !e.use_stderr() => output::print(&e.to_string()).map(|()| None),
        // clap's own words, under our name.
        Err(e) => {
            let text = e.to_string();
            Err(Error::usage(text.strip_prefix("error: ").unwrap_or(&text).trim_end()))
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let Some(command) = cli.command else {
        return console::open(cli.recipe.as_deref(), cli.foreground);
    };
    match command {
        Command::Demo(args) => console::demo(&args),
        Command::Attach(args) => console::attach(&args),
        Command::Snapshot(args) => snapshot::run(&args),
        Command::New(args) => new::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Show(args) => show::run(&args),
        Command::Cache(args) => cache::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Chat(args) => chat::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Merge(args) => merge::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Runs(args) => runs::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Stop(args) => stop::run(&args),
        Command::Rm(args) => rm::run(&args),
        Command::Completions(args) => completions::completions(&args),
        Command::Man => completions::man(),
    }
}
