//! What only a second process can show. Each test starts itself again as the trainer.

use super::event::State;
use super::*;
use crate::train::outlet::Outlet;
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

const DIR: &str = "FINETOP_TEST_RUN_DIR";

/// In the child: trains until told to stop, or until its test must have been over for long, and ends the
/// process. In the parent: returns.
fn train_if_child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let folder = RunFolder::create_at(Path::new(&dir)).unwrap();
    let mut session = Session::open_in(folder, &Index::at(&Path::new(&dir).join("../state"))).unwrap();
    let began = Instant::now();
    for step in 1.. {
        session
            .emit(step, Body::State(State { state: RunState::Running, why: "x".repeat(step as usize % 500) }))
            .unwrap();
        if step == 10 {
            session.folder.write_checkpoint(10, |d| Ok(std::fs::write(d.join("x"), "x")?)).unwrap();
        }
        if session.try_command() == Some(Command::Stop) {
            session.emit(step, Body::State(State { state: RunState::Stopped, why: "told to".into() })).unwrap();
            break;
        }
        if began.elapsed() > Duration::from_secs(60) {
            break;
        }
    }
    drop(session);
    std::process::exit(0);
}

fn start(test: &str, dir: &Path) -> Child {
    let name = format!("run::process_tests::{test}");
    let child = Process::new(std::env::current_exe().unwrap())
        .args([&name, "--exact", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while RunFolder::open(dir).is_err() || RunFolder::open(dir).unwrap().checkpoints().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(20), "the child has not come up");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

#[test]
fn a_killed_trainer_leaves_a_run_that_died_and_can_be_gone_on_with() {
    train_if_child();
    let out = tempfile::tempdir().unwrap();
    let dir = out.path().join("r");
    let index = Index::at(&out.path().join("state"));
    let mut child = start("a_killed_trainer_leaves_a_run_that_died_and_can_be_gone_on_with", &dir);
    let folder = RunFolder::open(&dir).unwrap();
    let alive = index.summary(&folder);
    assert_eq!((alive.state, alive.pid), (Status::Running, Some(child.id())));
    let mut link = Link::open(&dir).unwrap();

    child.kill().unwrap();
    child.wait().unwrap();
    let died = index.summary(&folder);
    assert_eq!(died.state, Status::Died);
    assert!(died.why.starts_with("killed at step") && died.why.contains("checkpoint 10 is whole"), "{}", died.why);
    assert!(link.send(Command::Stop).unwrap_err().to_string().contains("--resume"));

    let said = events::read_all(&folder.events()).unwrap().len();
    let mut session = Session::open_in(folder.clone(), &index).unwrap();
    session.emit(10, Body::State(State { state: RunState::Running, why: String::new() })).unwrap();
    let events = events::read_all(&folder.events()).unwrap();
    assert_eq!(events.len(), said + 1);
    assert_eq!(index.summary(&folder).state, Status::Running);
}

#[test]
fn a_second_process_is_refused_and_a_command_from_it_is_taken() {
    train_if_child();
    let out = tempfile::tempdir().unwrap();
    let dir = out.path().join("r");
    let mut child = start("a_second_process_is_refused_and_a_command_from_it_is_taken", &dir);
    let folder = RunFolder::open(&dir).unwrap();
    let refused = Session::open_in(folder.clone(), &Index::at(&out.path().join("state"))).err().unwrap().to_string();
    assert!(refused.contains(&format!("process {} on this host", child.id())), "{refused}");

    link::send_once(&dir, &Command::Stop).unwrap();
    assert!(child.wait().unwrap().success());
    let summary = Index::at(&out.path().join("state")).summary(&folder);
    assert_eq!((summary.state, summary.why.as_str()), (Status::Stopped, "told to"));
}
