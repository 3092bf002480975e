//! The runtime in a real terminal: always restored, silent when nothing changes, on the screen at once.
//! The program under test is this file's own ignored test, started again in a terminal of its own.

mod pty;

use finetop::run::event::{Body, Eval, RunState, Start, State, Step};
use finetop::run::{RunFolder, Session};
use finetop::runtime::{StartAt, run, terminal};
use finetop::train::outlet::Outlet;
use pty::{Pty, command, this_test};
use rustix::process::Signal;
use std::path::Path;
use std::time::{Duration, Instant};

/// Not a test: what runs in the terminal. `PART` says what to do there.
#[test]
#[ignore = "started by the other tests, in a terminal"]
fn in_the_terminal() {
    match std::env::var("PART").unwrap_or_default().as_str() {
        "start" => run(StartAt::Start).unwrap(),
        "run" => run(StartAt::Run(std::env::var("RUN").unwrap().into())).unwrap(),
        "panic" => {
            let _screen = terminal::Screen::enter(true).unwrap();
            panic!("a mistake of ours");
        }
        "panic elsewhere" => {
            let screen = terminal::Screen::enter(true).unwrap();
            let _ = std::thread::spawn(|| panic!("in another thread")).join();
            assert!(screen.is_up());
            drop(screen);
            terminal::say_after(Some("the last line")).unwrap();
        }
        other => panic!("no such part: {other:?}"),
    }
}

fn part(name: &str, home: &Path) -> portable_pty::CommandBuilder {
    let mut c = this_test("in_the_terminal", home);
    c.env("PART", name);
    c
}

#[test]
fn a_panic_restores_the_terminal_before_it_is_printed() {
    let home = tempfile::tempdir().unwrap();
    let mut p = Pty::start(part("panic", home.path()), 80, 24);
    assert_ne!(p.ends(), 0);
    assert_eq!(p.unrestored(), [""; 0]);
    assert!(p.text().contains("a mistake of ours"), "{}", p.text());
}

#[test]
fn a_panic_in_another_thread_leaves_the_screen_and_is_told_after_it() {
    let home = tempfile::tempdir().unwrap();
    let mut p = Pty::start(part("panic elsewhere", home.path()), 80, 24);
    assert_eq!(p.ends(), 0, "{}", p.text());
    assert_eq!(p.unrestored(), [""; 0]);
    let text = p.text();
    assert!(text.find("in another thread").unwrap() < text.find("the last line").unwrap(), "{text}");
}

#[test]
fn leaving_and_every_signal_that_ends_it_restore_the_terminal() {
    let home = tempfile::tempdir().unwrap();
    for signal in [None, Some(Signal::TERM), Some(Signal::HUP)] {
        let mut p = Pty::start(part("start", home.path()), 80, 24);
        p.shows("none yet");
        assert_eq!(p.unrestored().len(), 5, "the screen is up");
        match signal {
            Some(signal) => p.signal(signal),
            None => p.keys("q"),
        }
        assert_eq!(p.ends(), 0, "{signal:?}: {}", p.text());
        assert_eq!(p.unrestored(), [""; 0], "{signal:?}");
    }
}

#[test]
fn ctrl_z_gives_the_terminal_to_the_shell_and_fg_brings_the_page_back() {
    let home = tempfile::tempdir().unwrap();
    let mut c = command("sh", home.path());
    c.args(["-i"]);
    c.env("PS1", "$ ");
    c.env("PART", "start");
    let mut p = Pty::start(c, 80, 24);
    p.shows("$ ");
    let program = std::env::current_exe().unwrap();
    p.keys(&format!("{} in_the_terminal --exact --ignored --nocapture\r", program.display()));
    p.shows("none yet");
    p.keys("\x1a");
    p.until("the shell", |_| !p.on_screen());
    p.keys("echo back in the $((2 * 3))th shell\r");
    p.shows("back in the 6th shell");
    p.keys("fg\r");
    p.until("the page", |text| p.on_screen() && text.contains("none yet"));
    // It takes keys again.
    p.keys("?");
    p.shows("everywhere");
    p.keys("qq");
    p.until("the shell", |_| !p.on_screen());
    p.keys("exit\r");
    p.ends();
}

#[test]
fn a_terminal_that_hangs_up_ends_the_console_and_leaves_nothing_spinning() {
    let home = tempfile::tempdir().unwrap();
    let mut c = command("sh", home.path());
    c.args(["-i"]);
    c.env("PS1", "$ ");
    c.env("PART", "start");
    let mut p = Pty::start(c, 80, 24);
    p.shows("$ ");
    let program = std::env::current_exe().unwrap();
    let line = format!("echo $$ > pid; exec {} in_the_terminal --exact --ignored --nocapture", program.display());
    p.keys(&format!("sh -c '{line}'\r"));
    p.shows("none yet");
    let pid = std::fs::read_to_string(home.path().join("pid")).unwrap();
    // With the session's leader gone, the kernel hangs the terminal up: HUP and CONT, and no more keys.
    p.signal(Signal::KILL);
    let began = Instant::now();
    while std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|s| !s.contains(") Z")) {
        assert!(began.elapsed() < Duration::from_secs(30), "it lives on without a terminal");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn without_a_shell_to_go_back_to_ctrl_z_does_not_stop_for_ever() {
    let home = tempfile::tempdir().unwrap();
    let mut p = Pty::start(part("start", home.path()), 80, 24);
    p.shows("none yet");
    p.keys("\x1a");
    p.shows("there is no shell to go back to");
    p.keys("q");
    assert_eq!(p.ends(), 0);
}

#[test]
fn a_page_on_which_nothing_changes_writes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let p = Pty::start(part("start", home.path()), 80, 24);
    p.shows("none yet");
    p.falls_silent(Duration::from_millis(600));
    let bytes = p.bytes();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(p.bytes(), bytes);
}

#[test]
fn a_new_size_is_drawn_over_the_whole_of_it() {
    let home = tempfile::tempdir().unwrap();
    let p = Pty::start(part("start", home.path()), 120, 40);
    p.shows("none yet");
    p.resize(80, 24);
    p.until("the footer in the last of 24 rows", |text| {
        text.lines().nth(23).is_some_and(|l| l.contains("enter open") && l.contains("q quit"))
    });
}

#[test]
fn a_terminal_that_does_not_tell_its_size_is_taken_for_80_by_24() {
    let home = tempfile::tempdir().unwrap();
    let p = Pty::start(part("start", home.path()), 80, 24);
    p.shows("none yet");
    // No size from the start on.
    let mut c = command("sh", home.path());
    let program = std::env::current_exe().unwrap();
    let line = format!("stty cols 0 rows 0; exec {} in_the_terminal --exact --ignored --nocapture", program.display());
    c.args(["-c", &line]);
    c.env("PART", "start");
    let mut sizeless = Pty::start(c, 80, 24);
    sizeless.shows("none yet");
    assert_eq!(sizeless.text(), p.text());
    sizeless.keys("q");
    assert_eq!(sizeless.ends(), 0);
}

#[test]
fn a_terminal_that_can_show_nothing_is_told_what_to_use_instead() {
    let home = tempfile::tempdir().unwrap();
    let mut c = part("start", home.path());
    c.env("TERM", "dumb");
    let mut p = Pty::start(c, 80, 24);
    assert_ne!(p.ends(), 0);
    assert!(p.text().contains("TERM=dumb") && p.text().contains("finetop train RECIPE"), "{}", p.text());
}

/// Says what a trainer says, in a run of its own.
fn trainer(home: &Path) -> Session {
    let folder = RunFolder::create(&home.join("runs"), "smol").unwrap();
    folder.write_recipe("method = \"sft\"\nrun_name = \"smol\"\n").unwrap();
    let mut session = Session::open_quietly(folder).unwrap();
    let start = Start { run_name: "smol".into(), method: "sft".into(), total_steps: 500, ..Start::default() };
    session.emit(0, Body::Start(Box::new(start))).unwrap();
    session.emit(0, Body::State(State { state: RunState::Running, why: String::new() })).unwrap();
    session
}

fn step(session: &mut Session, step: u64) {
    let loss = 1.0 + 1.0 / step as f64;
    let body = Step {
        loss,
        grad_norm: 0.5,
        learning_rate: 2e-4,
        epoch: 0.1,
        tokens: 100 * step,
        label_tokens: 50 * step,
        tokens_per_second: 900.0,
        seconds: 0.1,
        rows: vec![step as u32],
        metrics: Default::default(),
    };
    session.emit(step, Body::Step(body)).unwrap();
    if step.is_multiple_of(10) {
        let eval = Eval {
            loss,
            perplexity: loss.exp(),
            label_tokens: 50,
            seconds: 0.1,
            best: true,
            metrics: Default::default(),
        };
        session.emit(step, Body::Eval(eval)).unwrap();
    }
}

#[test]
fn events_appear_while_a_trainer_appends_them_and_leaving_does_not_touch_it() {
    let home = tempfile::tempdir().unwrap();
    let mut session = trainer(home.path());
    let mut c = part("run", home.path());
    c.env("RUN", session.dir());
    let mut p = Pty::start(c, 120, 40);
    p.shows("smol");
    (1..=30).for_each(|n| step(&mut session, n));
    p.shows("30/500");
    (31..=60).for_each(|n| step(&mut session, n));
    p.shows("60/500");
    p.keys("q");
    assert_eq!(p.ends(), 0, "{}", p.text());
    assert_eq!(p.unrestored(), [""; 0]);
    assert!(p.text().contains("smol goes on"), "{}", p.text());
    step(&mut session, 61);
    assert!(session.try_command().is_none(), "nobody told the trainer anything");
}

#[test]
fn a_long_run_is_on_the_screen_soon_and_costs_little_while_it_stands_still() {
    let home = tempfile::tempdir().unwrap();
    let mut session = trainer(home.path());
    (1..=20_000).for_each(|n| step(&mut session, n));
    let mut c = part("run", home.path());
    c.env("RUN", session.dir());
    let began = Instant::now();
    let p = Pty::start(c, 160, 48);
    p.shows("20,000/500");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    std::thread::sleep(Duration::from_secs(1));
    let cpu = || cpu_ticks(p.pid());
    let before = cpu();
    std::thread::sleep(Duration::from_secs(4));
    // In hundredths of a second: a tenth of one core at the most, in a lightly optimised build.
    assert!(cpu() - before <= 40, "{} ticks in 4 s", cpu() - before);
}

/// User and system time of a process, in clock ticks (100 a second on Linux).
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
