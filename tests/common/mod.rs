//! What the integration tests share: an outlet that keeps what a trainer says.

#![allow(dead_code)]

use finetop::Result;
use finetop::train::command::Command;
use finetop::train::event::{Body, Event, Step};
use finetop::train::outlet::{Outlet, Saved};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

/// Keeps events in memory and checkpoints in a folder; gives the commands it was made with, each at its step.
pub struct Keep {
    pub dir: tempfile::TempDir,
    pub events: Vec<Event>,
    /// (after this step, command)
    pub commands: VecDeque<(u64, Command)>,
}

impl Keep {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), events: Vec::new(), commands: VecDeque::new() }
    }

    pub fn steps(&self) -> Vec<Step> {
        self.events
            .iter()
            .filter_map(|e| match &e.body {
                Body::Step(s) => Some(s.clone()),
                _ => None,
            })
            .collect()
    }

    fn place(&self, step: u64) -> PathBuf {
        self.dir.path().join(format!("checkpoints/step-{step}"))
    }
}

impl Outlet for Keep {
    fn emit(&mut self, step: u64, body: Body) -> Result<()> {
        self.events.push(Event { time: 0.0, step, body });
        Ok(())
    }

    fn try_command(&mut self) -> Option<Command> {
        let step = self.events.last().map_or(0, |e| e.step);
        if self.commands.front().is_some_and(|c| step >= c.0) { self.commands.pop_front().map(|c| c.1) } else { None }
    }

    fn wait_command(&mut self) -> Option<Command> {
        self.commands.pop_front().map(|c| c.1)
    }

    fn save_checkpoint(&mut self, step: u64, fill: &mut dyn FnMut(&Path) -> Result<()>) -> Result<Saved> {
        let dir = self.place(step);
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        fill(&dir)?;
        Ok(Saved { path: format!("checkpoints/step-{step}"), bytes: 0 })
    }

    fn checkpoint(&self, step: u64) -> Option<PathBuf> {
        Some(self.place(step)).filter(|p| p.exists())
    }

    fn prune_checkpoints(&mut self, _limit: usize, _best: Option<u64>, _last: u64) -> Result<()> {
        Ok(())
    }

    fn forget_after(&mut self, _step: u64) -> Result<()> {
        Ok(())
    }
}

/// A file of the repository.
pub fn repo(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Fetched assets, or a printed reason to skip.
pub fn assets() -> Option<PathBuf> {
    let dir = std::env::var_os("FINETOP_ASSETS").map_or_else(|| repo("assets"), PathBuf::from);
    let dir = if dir.is_absolute() { dir } else { repo("").join(dir) };
    if dir.is_dir() {
        return Some(dir);
    }
    eprintln!("skipped: no {} (scripts/fetch-assets.sh lays it)", dir.display());
    None
}

/// Train `recipe` (TOML text, as if it stood in the repository's root) from the start.
pub fn train(recipe: &str, sets: &[(&str, String)]) -> Keep {
    let sets: Vec<(String, String)> = sets.iter().map(|(k, v)| (k.to_string(), v.clone())).collect();
    let file = repo("test.toml");
    let recipe = finetop::recipe::parse(recipe, &file.to_string_lossy(), &sets).unwrap().recipe;
    let prepared = finetop::train::setup::prepare(&recipe, finetop::model::ranks::Ranks::alone(), &mut |_| {}).unwrap();
    let mut keep = Keep::new();
    finetop::train::method::train(&recipe, prepared, &mut keep, None).unwrap();
    keep
}
