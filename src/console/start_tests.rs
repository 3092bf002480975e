//! The start page's keys as a table, and its pictures.

use super::key::Key;
use super::message::{Effect, Message};
use super::model::{Machine, Model, Page, RecipeRow, RunRow};
use super::start::Item;
use super::theme::Theme;
use super::update::update;
use super::view::snapshot;

const NOW: f64 = 1_800_000_000.0;

fn falling(to: f64) -> Vec<f64> {
    (0..40).map(|i| to + 1.4 * (-f64::from(i) / 9.0).exp()).collect()
}

fn run(name: &str, state: &str, age: f64) -> RunRow {
    RunRow {
        folder: format!("/home/ada/runs/{name}").into(),
        name: name.into(),
        state: state.into(),
        method: "sft".into(),
        model: "SmolLM2-135M-Instruct".into(),
        loss: falling(1.2),
        best_eval: Some((1.311, 300)),
        step: 412,
        total_steps: 1218,
        checkpoint: Some(400),
        changed: NOW - age,
        note: String::new(),
        live: matches!(state, "training" | "paused" | "preparing"),
    }
}

fn page(width: u16, height: u16) -> Model {
    let mut m = Model::new(Theme::ansi(), width, height, NOW);
    m.machine = Machine {
        name: "AMD EPYC 7543".into(),
        gpu_free: None,
        cores: 2,
        memory_total: Some(8 << 30),
        disk_free: Some(212 << 30),
    };
    let mut died = RunRow { step: 1020, total_steps: 4000, checkpoint: Some(1000), ..run("domain-cpt", "died", 9e4) };
    (died.method, died.best_eval) = ("cpt".into(), Some((1.902, 800)));
    died.note = "killed at step 1,020; checkpoint 1,000 is whole".into();
    let runs = vec![
        run("smol-support", "training", 9.0),
        RunRow { step: 300, total_steps: 300, ..run("smol-alpaca-2", "finished", 18_000.0) },
        died,
        RunRow { best_eval: None, loss: vec![], step: 0, total_steps: 0, ..run("broken", "failed", 2e5) },
    ];
    update(&mut m, Message::Runs(runs));
    let recipe = |name: &str, check| RecipeRow { path: name.into(), check };
    let recipes = vec![
        recipe("support.toml", Some(Ok(0))),
        recipe("recipes/alpaca.toml", Some(Ok(2))),
        recipe("cpt.toml", Some(Err("line 14".into()))),
    ];
    update(&mut m, Message::Recipes(recipes));
    m
}

fn keys(m: &mut Model, keys: &str) -> Vec<Effect> {
    let pressed = keys.split(' ').filter_map(Key::parse);
    pressed.flat_map(|k| update(m, Message::Key(k))).collect()
}

#[test]
fn the_start_page_is_as_drawn() {
    for (width, height) in [(160, 48), (120, 40), (80, 24), (40, 12)] {
        insta::assert_snapshot!(format!("start_{width}x{height}"), snapshot(&page(width, height), width, height));
    }
}

#[test]
fn with_nothing_yet_the_cursor_is_on_what_can_begin() {
    let mut m = Model::new(Theme::ansi(), 80, 24, NOW);
    assert!(snapshot(&m, 80, 24).contains("reading …"));
    update(&mut m, Message::Runs(vec![]));
    assert!(snapshot(&m, 80, 24).contains("none yet"));
    assert_eq!(keys(&mut m, "enter"), [Effect::Demo]);
}

#[test]
fn enter_opens_what_the_cursor_is_on() {
    let table = [
        ("enter", Effect::OpenRun("/home/ada/runs/smol-support".into())),
        ("down enter", Effect::OpenRun("/home/ada/runs/smol-alpaca-2".into())),
        ("G enter", Effect::Demo),
        ("G up up up enter", Effect::OpenRecipe("support.toml".into())),
        ("G up g enter", Effect::OpenRun("/home/ada/runs/smol-support".into())),
    ];
    for (pressed, effect) in table {
        assert_eq!(keys(&mut page(120, 40), pressed), [effect], "{pressed}");
    }
}

#[test]
fn a_letter_is_text_while_a_search_is_typed() {
    let mut m = page(120, 40);
    assert!(keys(&mut m, "/ q a l p a c a").is_empty());
    assert_eq!(m.start.shown().len(), 0);
    keys(&mut m, "home delete");
    let names: Vec<&str> = m.start.shown().iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["smol-alpaca-2"]);
    keys(&mut m, "enter");
    assert!(!m.typing());
    assert_eq!(keys(&mut m, "enter"), [Effect::OpenRun("/home/ada/runs/smol-alpaca-2".into())]);
    keys(&mut m, "esc");
    assert_eq!(m.start.shown().len(), 4);
}

#[test]
fn deleting_asks_and_any_other_key_keeps_the_run() {
    let mut m = page(120, 40);
    assert!(keys(&mut m, "down D").is_empty());
    assert!(snapshot(&m, 120, 40).contains("Delete smol-alpaca-2"));
    assert!(keys(&mut m, "q").is_empty());
    assert!(m.confirm.is_none());
    let effect = Effect::Delete { runs: vec!["/home/ada/runs/smol-alpaca-2".into()] };
    assert_eq!(keys(&mut m, "D y"), [effect]);
}

#[test]
fn a_run_at_work_is_never_offered_for_deletion() {
    let mut m = page(120, 40);
    assert!(keys(&mut m, "D").is_empty());
    assert!(m.confirm.is_none() && m.notice.as_ref().is_some_and(|n| n.error));
    // Nor when it is one of several that are marked.
    assert!(keys(&mut m, "g space space D").is_empty());
    assert!(m.confirm.is_none());
}

#[test]
fn marked_runs_are_deleted_together() {
    let mut m = page(120, 40);
    let effects = keys(&mut m, "down space space D y");
    let runs = vec!["/home/ada/runs/smol-alpaca-2".into(), "/home/ada/runs/domain-cpt".into()];
    assert_eq!(effects, [Effect::Delete { runs }]);
}

#[test]
fn only_a_run_with_a_checkpoint_can_be_resumed() {
    let mut m = page(120, 40);
    assert!(keys(&mut m, "down R").is_empty() && m.confirm.is_none(), "finished");
    let effect = Effect::Resume { run: "/home/ada/runs/domain-cpt".into(), step: None };
    assert_eq!(keys(&mut m, "down R y"), [effect]);
}

#[test]
fn the_cursor_stays_on_its_run_when_the_list_changes() {
    let mut m = page(120, 40);
    keys(&mut m, "down down");
    let mut runs = m.start.runs.clone();
    runs.insert(0, run("newer", "training", 1.0));
    update(&mut m, Message::Runs(runs));
    assert_eq!(m.start.current(), Item::Run("/home/ada/runs/domain-cpt".into()));
}

#[test]
fn sorting_goes_through_four_orders_and_back() {
    let mut m = page(120, 40);
    let order = |m: &Model| m.start.shown().iter().map(|r| r.name.clone()).collect::<Vec<_>>();
    let newest = order(&m);
    keys(&mut m, "s");
    assert_eq!(order(&m), ["broken", "domain-cpt", "smol-alpaca-2", "smol-support"]);
    keys(&mut m, "s");
    assert_eq!(order(&m).last().map(String::as_str), Some("broken"), "no eval comes last");
    keys(&mut m, "s s");
    assert_eq!(order(&m), newest);
}

#[test]
fn a_click_selects_and_a_second_click_opens() {
    use super::message::Mouse;
    let mut m = page(120, 40);
    let row = snapshot(&m, 120, 40).lines().position(|l| l.contains("domain-cpt")).unwrap() as u16;
    let click = Message::Mouse(Mouse::Click { column: 20, row });
    assert!(update(&mut m, click.clone()).is_empty());
    assert_eq!(update(&mut m, click), [Effect::OpenRun("/home/ada/runs/domain-cpt".into())]);
}

#[test]
fn the_palette_lies_over_the_page_and_help_and_back_return_to_it() {
    let mut m = page(120, 40);
    keys(&mut m, ":");
    insta::assert_snapshot!("palette_120x40", snapshot(&m, 120, 40));
    keys(&mut m, "esc ?");
    insta::assert_snapshot!("help_120x40", snapshot(&m, 120, 40));
    keys(&mut m, "q");
    assert_eq!(m.page(), Page::Start);
}

#[test]
fn the_log_opens_at_its_end_and_scrolls_no_further_than_its_lines() {
    let mut m = page(80, 24);
    update(&mut m, Message::Log((0..100).map(|i| format!("line {i}")).collect()));
    assert!(snapshot(&m, 80, 24).contains("line 99"));
    keys(&mut m, "g");
    assert!(snapshot(&m, 80, 24).contains("line 0\n"));
    keys(&mut m, "G down down");
    assert!(snapshot(&m, 80, 24).contains("line 99"));
}

#[test]
fn no_size_of_the_terminal_breaks_the_page() {
    for width in [1, 2, 7, 20, 39, 59, 61, 100, 105, 300] {
        for height in [1, 2, 3, 5, 11, 17, 19, 90] {
            let mut m = page(width, height);
            snapshot(&m, width, height);
            for pressed in ["D y", "G", ":", "esc ?", "esc / x", "enter D"] {
                keys(&mut m, pressed);
                snapshot(&m, width, height);
            }
        }
    }
}
