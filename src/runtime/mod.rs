//! The runtime: holds the terminal, feeds the console its messages and carries out its effects.
//!
//! The console itself is pure; whatever touches the world for it is here: the terminal ([`terminal`]),
//! the loop ([`event_loop`]), what keys ask for ([`effects`]), and the open run's events ([`follow`]).
//! Must not know how anything looks, nor how anything is trained.

pub mod clipboard;
mod drafting;
pub mod editor;
pub mod effects;
pub mod event_loop;
pub mod follow;
pub mod input;
pub mod keyboard;
pub mod launch;
pub mod listing;
pub mod personal;
pub mod recipe_file;
pub mod remove;
pub mod rows;
pub mod settings;
mod shipping;
pub mod signals;
mod talking;
pub mod telemetry;
pub mod terminal;
pub mod zone;

use std::path::PathBuf;

use crate::Result;
use crate::run::link::LocalEnd;
use personal::Personal;
use terminal::Screen;

/// Where the console begins.
#[derive(Debug)]
pub enum StartAt {
    /// The start page.
    Start,
    /// A recipe, to be looked at, edited and started.
    Recipe(PathBuf),
    /// A run's folder.
    Run(PathBuf),
    /// The built-in demo, training already.
    Demo,
    /// A run that this very process trains (`--foreground`).
    Local(LocalEnd),
}

/// From TERM or HUP to the end at the latest: longer than commands on their way may take.
const GRACE: std::time::Duration = std::time::Duration::from_secs(6);

/// Shows the console until it is left; returns with the terminal restored.
///
/// # Errors
/// The terminal cannot show it, or went away.
pub fn run(at: StartAt) -> Result<()> {
    terminal::usable()?;
    let personal = Personal::of_user();
    // This thread is the screen's; what blocks goes to threads of its own. Of the workers one may be caught in
    // reading keys from a terminal that hung up; the other then still hears the signal.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.spawn(signals::end_at_last(GRACE));
    let left = runtime.block_on(async {
        let mut screen = Screen::enter(personal.settings.mouse.value)?;
        event_loop::run(&mut screen, at, personal).await
    });
    // A listing or a telemetry reading that is still under way is not worth waiting for.
    runtime.shutdown_background();
    let line = left.as_ref().ok().and_then(|line| line.as_deref());
    terminal::say_after(line)?;
    left.map(|_| ())
}
