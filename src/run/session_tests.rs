//! The two sides of a run together: session and link, over the socket and within a process.

use super::event::State;
use super::lock::{Holder, holder};
use super::*;
use crate::train::outlet::Outlet;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

fn running() -> Body {
    Body::State(State { state: RunState::Running, why: String::new() })
}

fn folder() -> (tempfile::TempDir, RunFolder) {
    let out = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(out.path(), "r").unwrap();
    (out, folder)
}

fn open(folder: RunFolder) -> Session {
    let index = Index::at(&folder.path().join("../state"));
    Session::open_in(folder, &index).unwrap()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(5), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_command_reaches_the_trainer_and_its_events_reach_the_viewer() {
    let (_out, folder) = folder();
    let mut session = open(folder);
    let mut link = Link::open(session.dir()).unwrap();
    assert_eq!(link.events().unwrap().len(), 1, "the schema");
    link.send(Command::Pause).unwrap();
    link.send(Command::Set { key: "train.learning_rate".into(), value: "1e-4".into(), by: "you".into() }).unwrap();
    assert_eq!(session.wait_command(), Some(Command::Pause));
    assert!(matches!(session.try_command(), Some(Command::Set { .. })));
    assert_eq!(session.try_command(), None);
    session.emit(3, running()).unwrap();
    let events = link.events().unwrap();
    assert_eq!((events.len(), events[0].step, &events[0].body), (1, 3, &running()));
    assert!(link.events().unwrap().is_empty());
}

#[test]
fn the_socket_and_its_folder_are_this_users_alone() {
    let (_out, folder) = folder();
    let session = open(folder);
    let socket = session.socket().unwrap();
    assert_eq!(std::fs::metadata(&socket).unwrap().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(socket.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
    assert!(socket.as_os_str().len() <= 107);
    drop(session);
    assert!(!socket.exists());
}

#[test]
fn two_viewers_both_get_all_events_and_know_of_each_other() {
    let (_out, folder) = folder();
    let mut session = open(folder);
    let mut one = Link::open(session.dir()).unwrap();
    let mut two = Link::open(session.dir()).unwrap();
    session.emit(1, running()).unwrap();
    assert_eq!(one.events().unwrap(), two.events().unwrap());
    eventually("both know that two watch", || one.watching() == 2 && two.watching() == 2);
    // Neither a command by the way nor its sender's leaving changes the count.
    link::send_once(session.dir(), &Command::CheckpointNow).unwrap();
    assert_eq!(session.wait_command(), Some(Command::CheckpointNow));
    assert_eq!(one.watching(), 2);
    drop(two);
    eventually("the one left knows", || one.watching() == 1);
    one.send(Command::Stop).unwrap();
    assert_eq!(session.wait_command(), Some(Command::Stop));
}

#[test]
fn a_viewer_that_never_reads_holds_nobody_up() {
    let (_out, folder) = folder();
    let mut session = open(folder);
    let mut stuck = UnixStream::connect(session.socket().unwrap()).unwrap();
    stuck.write_all(b"{\"watch\":true}\n").unwrap();
    let began = Instant::now();
    for step in 0..1000 {
        session.emit(step, running()).unwrap();
    }
    let mut link = Link::open(session.dir()).unwrap();
    link.send(Command::Stop).unwrap();
    assert_eq!(link.events().unwrap().len(), 1001);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn every_line_gets_its_answer_on_the_wire() {
    let (_out, folder) = folder();
    let mut session = open(folder);
    let mut stream = UnixStream::connect(session.socket().unwrap()).unwrap();
    stream.write_all(b"{\"command\":\"pause\"}\n{\"command\":\"fly\"}\nnonsense\n{\"watch\":true}\n").unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!(next(), r#"{"ok":true}"#);
    let unknown = next();
    assert!(unknown.starts_with(r#"{"error":"#) && unknown.contains("fly"), "{unknown}");
    assert!(next().starts_with(r#"{"error":"#));
    assert_eq!(next(), r#"{"watching":1}"#);
    assert_eq!(session.try_command(), Some(Command::Pause));
}

#[test]
fn a_viewer_in_the_trainers_process_needs_no_socket() {
    let (_out, folder) = folder();
    let mut session = Session::open_quietly(folder).unwrap();
    let mut link = Link::local(session.local_end());
    link.send(Command::EvaluateNow).unwrap();
    assert_eq!(session.wait_command(), Some(Command::EvaluateNow));
    session.emit(1, running()).unwrap();
    assert_eq!(link.events().unwrap().len(), 2);
    assert_eq!(link.watching(), 1);
    assert!(link.alive());
    drop(session);
    assert!(!link.alive());
    assert!(link.send(Command::Stop).is_err());
}

#[test]
fn a_run_without_a_trainer_can_be_read_and_says_how_to_go_on() {
    let (_out, folder) = folder();
    let mut session = open(folder.clone());
    session.emit(1, running()).unwrap();
    folder.write_checkpoint(40, |dir| Ok(std::fs::write(dir.join("x"), "x")?)).unwrap();
    let mut link = Link::open(folder.path()).unwrap();
    drop(session);
    assert!(!link.alive());
    assert_eq!(link.events().unwrap().len(), 2);
    let error = link.send(Command::Stop).unwrap_err().to_string();
    assert!(error.contains("no trainer") && error.contains("step 40") && error.contains("--resume"), "{error}");
    assert_eq!(link.watching(), 0);
}

#[test]
fn a_link_finds_the_next_trainer_after_a_resume() {
    let (_out, folder) = folder();
    let session = open(folder.clone());
    let mut link = Link::open(folder.path()).unwrap();
    drop(session);
    let mut session = open(folder);
    link.send(Command::Stop).unwrap();
    assert_eq!(session.wait_command(), Some(Command::Stop));
    assert_eq!(link.watching(), 1);
}

#[test]
fn a_trainer_that_panics_says_failed_and_lets_the_run_go() {
    let (_out, folder) = folder();
    let mut session = Session::open_quietly(folder.clone()).unwrap();
    session.emit(7, running()).unwrap();
    let thread = std::thread::spawn(move || {
        let _held = session;
        panic!("a test's panic");
    });
    assert!(thread.join().is_err());
    let last = events::read_all(&folder.events()).unwrap().pop().unwrap();
    assert_eq!(last.step, 7);
    assert!(matches!(last.body, Body::State(State { state: RunState::Failed, .. })));
    assert_eq!(holder(folder.path()), Holder::Nobody);
}

#[test]
fn a_stale_socket_of_a_killed_trainer_is_replaced() {
    let (_out, folder) = folder();
    let place = server::CommandServer::place_for(folder.path()).unwrap();
    // As a kill leaves it: a name nobody listens at.
    drop(std::os::unix::net::UnixListener::bind(&place).unwrap());
    assert!(place.exists());
    let mut session = open(folder);
    assert_eq!(session.socket().unwrap(), place);
    link::send_once(session.dir(), &Command::Stop).unwrap();
    assert_eq!(session.wait_command(), Some(Command::Stop));
}
