//! Training with several processes: finding out which one this is, starting those of one host, and what the others do.

use super::output;
use crate::model::ranks::{Place, Ranks};
use crate::recipe::{self, Recipe};
use crate::run::signals::Signals;
use crate::run::{RunFolder, trainer};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::process::{Child, Command};

/// What rank 0 tells the others to do.
#[derive(Serialize, Deserialize)]
struct Task {
    recipe: String,
    folder: PathBuf,
    resume: Option<u64>,
}

/// This process's place, as a launcher says it.
pub fn place() -> Result<Option<Place>> {
    Place::from_env(&|name| std::env::var(name).ok().filter(|v| !v.is_empty()))
}

/// The processes that this one started; those that are left are ended with it.
#[derive(Default)]
pub struct Started(Vec<Child>);

impl Started {
    /// Wait for all, once the training is over.
    pub fn wait(mut self) {
        for child in &mut self.0 {
            let _ = child.wait();
        }
        self.0.clear();
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Start ranks 1 to `count − 1` of this host as this command once more; this process is rank 0.
pub fn start(count: usize) -> Result<(Place, Started)> {
    let fail = |e: std::io::Error| Error::new(format!("cannot start {count} processes: {e}"));
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(fail)?.port();
    let host = "127.0.0.1".to_string();
    let program = std::env::current_exe().map_err(fail)?;
    let threads = threads(count);
    let mut started = Started::default();
    for rank in 1..count {
        let mut command = Command::new(&program);
        command.args(std::env::args_os().skip(1)).stdin(std::process::Stdio::null());
        for (name, value) in [("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", count), ("MASTER_PORT", port.into())]
        {
            command.env(name, value.to_string());
        }
        command.env("MASTER_ADDR", &host).env("RAYON_NUM_THREADS", threads.to_string());
        started.0.push(command.spawn().map_err(fail)?);
    }
    // The machine's cores are shared; where they have been handed out already, it stays as it is.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    Ok((Place { rank: 0, size: count, host, port }, started))
}

/// Threads of each process.
fn threads(count: usize) -> usize {
    let asked = std::env::var("RAYON_NUM_THREADS").ok().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    asked.unwrap_or((cores / count).max(1))
}

/// Rank 0: meet the others and tell them what is to be done.
pub fn lead(place: Option<&Place>, recipe: &Recipe, folder: &RunFolder, resume: Option<u64>) -> Result<Ranks> {
    let Some(place) = place else { return Ok(Ranks::alone()) };
    let mut ranks = Ranks::join(place, &mut output::progress)?;
    let task = Task { recipe: recipe::to_toml(recipe), folder: folder.path().to_owned(), resume };
    ranks.tell(Some(task))?;
    Ok(ranks)
}

/// Every other rank: train as rank 0 says, to the end.
pub fn follow(place: &Place) -> Result<()> {
    // An interrupt goes to all processes of a terminal or a job; rank 0 decides what comes of it.
    let (sender, _receiver) = std::sync::mpsc::channel();
    let _signals = Signals::install(sender)?;
    let at = format!("rank {}", place.rank);
    let work = || -> Result<()> {
        let mut ranks = Ranks::join(place, &mut output::progress)?;
        let task: Task = ranks.tell(None)?;
        let recipe = recipe::parse(&task.recipe, "the recipe of rank 0", &[])?.recipe;
        trainer::follow(&recipe, ranks, RunFolder::open(&task.folder)?, task.resume)
    };
    work().map_err(|e| Error::new(format!("{at}: {e}")).kind(e.kind))
}
