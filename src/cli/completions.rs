//! `completions` and `man`: what the arguments say of themselves.

use clap::CommandFactory;

use super::args::{Cli, CompletionsArgs};
use super::output::print;
use crate::Result;

pub fn completions(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "finetop", &mut script);
    print(&String::from_utf8_lossy(&script))
}

pub fn man() -> Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page)?;
    print(&String::from_utf8_lossy(&page))
}
