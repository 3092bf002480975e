//! Arguments, and what is printed of a run.

use super::args::{Cli, TrainArgs};
use super::*;
use crate::Kind;
use crate::run::digest::OpenFinding;
use crate::run::event::Severity;
use crate::run::{Status, Summary};
use clap::{CommandFactory, Parser};

fn summary() -> Summary {
    Summary {
        dir: "/r/qwen7b-support".into(),
        name: "qwen7b-support".into(),
        state: Status::Running,
        why: String::new(),
        method: "sft".into(),
        tuning: "qlora r16".into(),
        model: "Qwen2.5-7B-Instruct".into(),
        losses: vec![2.4, 1.9, 1.5, 1.3],
        loss: Some(1.2841),
        seconds_left: Some(1112.0),
        eval_best: Some((1.3114, 300)),
        step: 412,
        total_steps: 1218,
        last_checkpoint: Some(400),
        started: 0.0,
        updated: 100.0,
        trainer_started: 0.0,
        worst: Some(OpenFinding {
            severity: Severity::Warning,
            rule: "overfitting".into(),
            title: "eval stopped improving".into(),
            since: 300,
        }),
        findings: 1,
        host: Some("node-3".into()),
        pid: Some(7),
    }
}

#[derive(Parser)]
struct Train {
    #[command(flatten)]
    args: TrainArgs,
}

fn train(line: &str) -> std::result::Result<TrainArgs, String> {
    Train::try_parse_from(line.split(' ')).map(|t| t.args).map_err(|e| e.to_string())
}

#[test]
fn the_definition_of_the_arguments_is_consistent() {
    Cli::command().debug_assert();
    Train::command().debug_assert();
}

#[test]
fn train_takes_a_recipe_or_a_run_to_resume_and_values_on_top() {
    let args = train("train r.toml --set train.seed=1 --set sample.stop=[\"a=b\"]").unwrap();
    assert_eq!(args.recipe.as_deref(), Some("r.toml"));
    assert_eq!(args.set[1], ("sample.stop".into(), "[\"a=b\"]".into()));
    assert_eq!(train("train --resume a@20 --worker").unwrap().resume.as_deref(), Some("a@20"));
    assert!(train("train").unwrap_err().contains("RECIPE"));
    assert!(train("train r.toml --set x").unwrap_err().contains("write KEY=VALUE"));
    assert!(train("train r.toml --run-dir d --resume a").is_err());
    assert!(train("train r.toml --detach --json").is_err());
}

#[test]
fn a_wrong_argument_is_wrong_usage_in_one_voice() {
    let error = parse(["finetop", "runs", "--jsn"].map(OsString::from)).unwrap_err();
    assert_eq!(error.kind, Kind::Usage);
    assert!(error.what.starts_with("unexpected argument '--jsn'"), "{error}");
}

#[test]
fn a_status_bar_gets_one_line() {
    assert_eq!(status::line(&summary(), false), "qwen7b-support ● 412/1,218 33% loss 1.284 left 18m ▲1");
    let died = Summary { state: Status::Died, worst: None, loss: None, ..summary() };
    assert_eq!(status::line(&died, true), "qwen7b-support x died 412/1,218 33%");
    let early = Summary { state: Status::Preparing, total_steps: 0, step: 0, loss: None, worst: None, ..summary() };
    assert_eq!(status::line(&early, false), "qwen7b-support ● preparing 0");
}

#[test]
fn the_list_is_a_table_and_a_dead_run_says_why_below_it() {
    let died = Summary {
        name: "llama-cpt".into(),
        state: Status::Died,
        why: "killed at step 1,020; checkpoint 1,000 is whole".into(),
        eval_best: None,
        ..summary()
    };
    let text = runs::table(&[summary(), died], usize::MAX, false, 640.0);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[1],
        "● training   qwen7b-support  sft     Qwen2.5-7B-Instruct  █▅▂▁                 1.311 @300      412/1,218    9m"
    );
    assert!(lines[2].contains("✕ died") && lines[2].contains(" – "), "{}", lines[2]);
    assert_eq!(lines[3], "  killed at step 1,020; checkpoint 1,000 is whole; `finetop train --resume llama-cpt`");
    let narrow = runs::table(&[summary()], 40, false, 640.0);
    assert!(narrow.lines().all(|l| l.chars().count() <= 40), "{narrow}");
    assert!(runs::table(&[Summary { eval_best: None, ..summary() }], 400, true, 640.0).is_ascii());
}

#[test]
fn a_mistyped_command_is_told_from_a_missing_recipe() {
    let mistyped = console::readable("stauts").unwrap_err().to_string();
    assert!(mistyped.contains("did you mean `finetop status`?"), "{mistyped}");
    assert!(console::readable("recipes/none.toml").unwrap_err().to_string().contains("recipe's path"));
    let dir = tempfile::tempdir().unwrap();
    assert!(console::readable(dir.path().to_str().unwrap()).unwrap_err().to_string().contains("finetop attach"));
}

#[test]
fn a_snapshot_shows_the_run_as_it_stands() {
    use crate::run::event::{Body, RunState, Start, State};
    use crate::run::{RunFolder, Session};
    use crate::train::outlet::Outlet;
    let out = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(out.path(), "my-run").unwrap();
    let mut session = Session::open_quietly(folder.clone()).unwrap();
    let start = Start { run_name: "my-run".into(), total_steps: 1218, ..Start::default() };
    session.emit(0, Body::Start(Box::new(start))).unwrap();
    session.emit(0, Body::State(State { state: RunState::Running, why: String::new() })).unwrap();
    let frame = snapshot::frame(&folder, 160, 48, crate::run::host::now()).unwrap();
    assert!(frame.lines().next().unwrap().contains("my-run") && frame.contains("1,218"), "{frame}");
    assert!(frame.lines().count() <= 48 && frame.lines().all(|l| l.chars().count() <= 160));
}
