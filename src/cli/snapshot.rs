//! `snapshot`: one frame of the console, as text.

use super::args::SnapshotArgs;
use super::output::print;
use crate::Result;
use crate::console::theme::Theme;
use crate::console::{Message, Model, snapshot, update};
use crate::run::host::now;
use crate::run::{Index, Link, RunFolder};

pub fn run(args: &SnapshotArgs) -> Result<()> {
    let folder = Index::of_user().find(args.run.as_deref())?;
    print(&frame(&folder, args.width, args.height, now())?)
}

/// The run page of `folder` as it is at `now`, Unix time in seconds.
pub fn frame(folder: &RunFolder, width: u16, height: u16, now: f64) -> Result<String> {
    let mut link = Link::open(folder.path())?;
    let events = link.events()?;
    // The text has no colours; the glyphs are those that the console would show here.
    let theme = Theme::ansi().on_terminal(|name| std::env::var(name).ok());
    let mut model = Model::new(theme, width, height, now);
    let run = folder.path().to_owned();
    // A run killed in its first moments may have no recipe; it can still be looked at.
    let recipe = folder.read_recipe().unwrap_or_default();
    let live = link.alive();
    for message in [
        Message::Opened { run: run.clone(), name: folder.name(), recipe, live },
        Message::Events { run: run.clone(), events },
        Message::Live { run, live },
    ] {
        // What the console would ask for to go on has no place in a still picture.
        let _ = update(&mut model, message);
    }
    Ok(snapshot(&model, width, height))
}
