//! Trainers that the console starts: processes of their own, which go on without it.

use std::fs;
use std::path::{Path, PathBuf};

use super::remove;
use crate::recipe;
use crate::run::event::{Body, Change, Event};
use crate::run::events::{EventWriter, Tail};
use crate::run::folder::RunFolder;
use crate::run::host::now;
use crate::run::index::Index;
use crate::run::places::state_home;
use crate::run::worker::{self, Launch};
use crate::{Error, Result};

/// Starts the built-in demo in a fresh folder of its own; demos that ended before are cleared away.
pub fn demo() -> Result<PathBuf> {
    let demos = state_home().unwrap_or_else(std::env::temp_dir).join("demo");
    clear_ended(&demos);
    let folder = RunFolder::create(&demos, "demo")?;
    // The trainer writes the same; this way it is there from the first frame on.
    folder.write_recipe(&recipe::to_toml(&recipe::load("demo", &[])?.recipe))?;
    start(&folder, Launch { recipe: Some("demo".into()), ..Launch::default() })
}

/// Those that are at work keep their lock, and their folder.
fn clear_ended(demos: &Path) {
    let Ok(entries) = fs::read_dir(demos) else { return };
    for dir in entries.flatten().map(|e| e.path()) {
        // Only a convenience: what cannot be cleared stays, and the new demo gets the next number.
        let _ = remove::remove(&dir, &Index::of_user());
    }
}

/// Starts a training of this recipe text, as it stands on the screen, saved or not. `path` is where it came
/// from, and what its relative paths begin at.
///
/// # Errors
/// The recipe's problems; what the trainer said in failing.
pub fn recipe(path: Option<&Path>, text: &str) -> Result<PathBuf> {
    let name = path.map_or_else(|| "recipe.toml".into(), Path::to_string_lossy);
    let loaded = recipe::parse(text, &name, &[])?;
    let folder = RunFolder::create(&loaded.recipe.output_dir, &loaded.recipe.run_name)?;
    // Written out, every path absolute: the file it came from may say something else, or nothing.
    folder.write_recipe(&recipe::to_toml(&loaded.recipe))?;
    start(&folder, Launch { recipe: Some(folder.recipe().into()), ..Launch::default() })
}

/// Goes on with a run from its checkpoint of `step`, or its last.
///
/// # Errors
/// It is at work, or has none; what the trainer said in failing.
pub fn resume(run: &Path, step: Option<u64>) -> Result<PathBuf> {
    let folder = RunFolder::open(run)?;
    let run = folder.path().display();
    let resume = step.map_or_else(|| run.to_string(), |step| format!("{run}@{step}"));
    start(&folder, Launch { resume: Some(resume), ..Launch::default() })
}

/// Starts another run beside `run` from its checkpoint of `step`: with that checkpoint, the events up to it,
/// and `set` in its recipe.
///
/// # Errors
/// There is no such checkpoint; a value is not allowed; what the trainer said in failing.
pub fn branch(run: &Path, step: u64, set: &[(String, String)]) -> Result<PathBuf> {
    let from = RunFolder::open(run)?;
    let checkpoint = from.path().join(format!("checkpoints/step-{step}"));
    if !checkpoint.is_dir() {
        return Err(Error::new(format!("there is no checkpoint of step {step} any more")).at(from.path().display()));
    }
    let parsed = recipe::parse(&from.read_recipe()?, &from.recipe().to_string_lossy(), set)?;
    let beside = from.path().parent().unwrap_or(Path::new("."));
    let folder = RunFolder::create(beside, &format!("{}-from-{step}", from.name()))?;
    folder.write_recipe(&recipe::to_toml(&parsed.recipe))?;
    copy(&checkpoint, &folder.path().join(format!("checkpoints/step-{step}")))?;
    // Last: a folder without events is no run yet.
    write_past(&from, &folder, step)?;
    resume(folder.path(), Some(step))
}

/// The events of `from` up to `step`, as the new run's past.
fn write_past(from: &RunFolder, to: &RunFolder, step: u64) -> Result<()> {
    let past = Tail::new(from.events()).read()?;
    let mut writer = EventWriter::open(&to.events())?;
    let kept = |e: &&Event| e.step <= step && !matches!(e.body, Body::Schema { .. } | Body::State(_));
    past.iter().filter(kept).try_for_each(|event| writer.write(event))?;
    let change = Change {
        key: "branch".into(),
        from: from.name(),
        to: format!("{} from step {step}", to.name()),
        by: "you".into(),
    };
    writer.write(&Event { time: now(), step, body: Body::Change(change) })
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let failed = |e: std::io::Error| Error::new(format!("cannot copy the checkpoint: {e}")).at(from.display());
    fs::create_dir_all(to).map_err(failed)?;
    for entry in fs::read_dir(from).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy(&path, &target)?;
        } else {
            fs::copy(&path, &target).map_err(failed)?;
        }
    }
    Ok(())
}

fn start(folder: &RunFolder, launch: Launch) -> Result<PathBuf> {
    if let Some(why) = worker::stays_in_foreground() {
        return Err(Error::new(why).next("start it from the shell: `finetop train RECIPE`"));
    }
    worker::start(folder, &launch).map(|started| started.dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::event::{RunState, State};

    #[test]
    fn a_branch_has_the_past_of_its_origin_up_to_the_step_and_says_where_it_came_from() {
        let out = tempfile::tempdir().unwrap();
        let (from, to) = (RunFolder::create(out.path(), "a").unwrap(), RunFolder::create(out.path(), "b").unwrap());
        let mut writer = EventWriter::open(&from.events()).unwrap();
        let state = |state| Body::State(State { state, why: String::new() });
        let change =
            |to: &str| Body::Change(Change { key: "k".into(), from: "1".into(), to: to.into(), by: "you".into() });
        for (step, body) in [(0, state(RunState::Running)), (4, change("2")), (6, change("3"))] {
            writer.write(&Event { time: 1.0, step, body }).unwrap();
        }
        write_past(&from, &to, 5).unwrap();
        let past = Tail::new(to.events()).read().unwrap();
        let said: Vec<(u64, &str)> = past
            .iter()
            .filter_map(|e| if let Body::Change(c) = &e.body { Some((e.step, c.to.as_str())) } else { None })
            .collect();
        assert_eq!(said, [(4, "2"), (5, "b from step 5")]);
        assert!(!past.iter().any(|e| matches!(e.body, Body::State(_))));
    }

    #[test]
    fn a_checkpoint_is_copied_with_all_that_is_in_it() {
        let out = tempfile::tempdir().unwrap();
        let from = out.path().join("step-5");
        fs::create_dir_all(from.join("deep")).unwrap();
        fs::write(from.join("adapter_model.safetensors"), "a").unwrap();
        fs::write(from.join("deep/state.json"), "b").unwrap();
        let to = out.path().join("other/step-5");
        copy(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("deep/state.json")).unwrap(), "b");
        assert_eq!(fs::read_to_string(to.join("adapter_model.safetensors")).unwrap(), "a");
    }
}
