//! What keys do, as a manual: where one is, what one presses, what follows.

use crate::fixture;
use finetop::console::key::Key;
use finetop::console::message::{Effect, Message};
use finetop::console::model::{Model, Page};
use finetop::console::own_keys;
use finetop::console::run_page::{Metric, Pane, XAxis};
use finetop::console::theme::Theme;
use finetop::console::{snapshot, update};
use finetop::run::command::Command;
use finetop::run::event::{Body, Change, FixAction, RunState, State};

fn training() -> Model {
    fixture::illustration(Theme::ansi(), 160, 48)
}

fn demo() -> Model {
    fixture::demo_console(100, false, Theme::ansi(), 160, 48)
}

fn ready() -> Model {
    let mut m = Model::new(Theme::ansi(), 160, 48, fixture::BEGAN);
    update(&mut m, Message::RecipeOpened { path: "support.toml".into(), text: fixture::RECIPE.into() });
    m
}

/// Presses keys spelled as in the help, separated by spaces; `'text'` is typed letter by letter.
fn press(m: &mut Model, keys: &str) -> Vec<Effect> {
    let mut out = Vec::new();
    for word in keys.split(' ').filter(|w| !w.is_empty()) {
        match word.strip_prefix('\'').and_then(|w| w.strip_suffix('\'')) {
            Some(text) => text.chars().for_each(|c| out.extend(update(m, Message::Key(Key::Char(c))))),
            None => out.extend(update(m, Message::Key(Key::parse(word).unwrap()))),
        }
    }
    out
}

fn after(mut m: Model, keys: &str) -> Model {
    press(&mut m, keys);
    m
}

fn see(m: &Model) -> String {
    snapshot(m, m.width, m.height)
}

#[test]
fn digits_and_tab_focus_panes() {
    for (keys, pane) in [
        ("1", Pane::Loss),
        ("2", Pane::Samples),
        ("3", Pane::Memory),
        ("4", Pane::Recipe),
        ("5", Pane::Diagnostics),
        ("tab", Pane::Samples),
        ("tab tab tab tab tab", Pane::Loss),
        ("s-tab", Pane::Diagnostics),
    ] {
        assert_eq!(after(training(), keys).run.unwrap().focus, pane, "{keys}");
    }
}

#[test]
fn esc_goes_one_level_back_and_never_quits() {
    let mut m = after(training(), "5 z enter");
    for (why, zoomed) in [(false, true), (false, false)] {
        assert!(press(&mut m, "esc").is_empty());
        let page = m.run.as_ref().unwrap();
        assert_eq!((page.diagnostics.why, page.zoomed), (why, zoomed));
    }
    assert_eq!(press(&mut m, "esc"), [Effect::CloseRun, Effect::ListRuns]);
    assert_eq!(m.page(), Page::Start);
    assert!(press(&mut m, "esc esc esc").is_empty());
}

#[test]
fn q_leaves_and_the_run_goes_on() {
    let line = "qwen7b-support goes on · finetop attach · finetop stop".to_string();
    assert_eq!(press(&mut training(), "q"), [Effect::Quit { line: Some(line) }]);
    assert_eq!(press(&mut ready(), "q"), [Effect::Quit { line: None }]);
    assert_eq!(press(&mut demo(), "q"), [Effect::Send(Command::Stop), Effect::Quit { line: None }]);
}

#[test]
fn ctrl_c_ends_nothing_and_says_how_to() {
    let mut m = training();
    assert!(press(&mut m, "ctrl-c").is_empty());
    assert!(see(&m).contains("q leaves it running, S stops it with a checkpoint"));
}

#[test]
fn stopping_asks_and_only_y_means_yes() {
    for (keys, effects) in
        [("S", vec![]), ("S y", vec![Effect::Send(Command::Stop)]), ("S n", vec![]), ("S esc", vec![]), ("S q", vec![])]
    {
        assert_eq!(press(&mut training(), keys), effects, "{keys}");
    }
    assert!(see(&after(training(), "S")).contains("Stop qwen7b-support now, with a checkpoint"));
}

#[test]
fn a_trainer_is_told_what_keys_say() {
    for (keys, command) in [("space", Command::Pause), ("C", Command::CheckpointNow), ("E", Command::EvaluateNow)] {
        assert_eq!(press(&mut training(), keys), [Effect::Send(command)], "{keys}");
    }
    let mut m = training();
    let paused = Body::State(State { state: RunState::Paused, why: String::new() });
    let events = vec![fixture::at(m.now, 412, paused)];
    update(&mut m, Message::Events { run: fixture::folder(), events });
    assert_eq!(press(&mut m, "space"), [Effect::Send(Command::Resume)]);
}

#[test]
fn a_run_that_is_over_is_told_nothing_but_resumes() {
    let mut m = training();
    update(&mut m, Message::Live { run: fixture::folder(), live: false });
    assert!(see(&m).contains("✕ died"));
    assert!(press(&mut m, "C").is_empty());
    assert_eq!(press(&mut m, "space y"), [Effect::Resume { run: fixture::folder(), step: None }]);
}

#[test]
fn the_cursor_moves_through_steps_and_follows_again_at_the_end() {
    for (keys, cursor) in [
        ("left", Some(408)),
        ("left left h", Some(400)),
        ("left right", None),
        ("g", Some(1)),
        ("g l", Some(5)),
        ("g G", None),
        ("left esc", None),
    ] {
        assert_eq!(after(training(), keys).run.unwrap().chart.cursor, cursor, "{keys}");
    }
    assert!(see(&after(training(), "g")).contains(" 1  loss 2."));
}

#[test]
fn the_chart_zooms_around_the_cursor_and_keeps_its_window() {
    let page = after(training(), "left + +").run.unwrap();
    let (low, high) = page.chart.zoom.unwrap();
    assert!(high - low < 110.0 && (low..=high).contains(&408.0));
    let mut m = after(training(), "g + +");
    let before = m.run.as_ref().unwrap().chart.zoom;
    let more = fixture::support(430).into_iter().filter(|e| e.step > 412).collect();
    update(&mut m, Message::Events { run: fixture::folder(), events: more });
    assert_eq!(m.run.as_ref().unwrap().chart.zoom, before, "a window survives new data");
    assert_eq!(after(m, "0").run.unwrap().chart.zoom, None);
    assert_eq!(after(training(), "+ - -").run.unwrap().chart.zoom, None);
}

#[test]
fn axes_and_metrics_turn_in_a_circle() {
    assert_eq!(after(training(), "y").run.unwrap().chart.log, Some(true));
    for (keys, axis) in [("x", XAxis::Epoch), ("x x", XAxis::Tokens), ("x x x", XAxis::Time), ("x x x x", XAxis::Step)]
    {
        assert_eq!(after(training(), keys).run.unwrap().chart.axis, axis, "{keys}");
    }
    for (keys, metric) in [
        ("m", Metric::Grad),
        ("m m m m m", Metric::Loss),
        ("down down enter", Metric::LearningRate),
        ("up enter", Metric::Utilisation),
    ] {
        assert_eq!(after(training(), keys).run.unwrap().chart.metric, metric, "{keys}");
    }
}

#[test]
fn enter_without_a_mark_tells_why() {
    let m = after(training(), "enter");
    assert!(see(&m).contains("Rule overfitting;"));
}

#[test]
fn samples_step_through_time() {
    for (keys, step) in [
        ("2", Some(400)),
        ("2 left", Some(350)),
        ("2 left left right", Some(350)),
        ("2 left right", Some(400)),
        ("2 g", Some(0)),
    ] {
        assert_eq!(after(training(), keys).run.unwrap().sample_step(), step, "{keys}");
    }
}

#[test]
fn sampling_settings_change_and_are_sent_with_the_next_draw() {
    let mut m = after(training(), "2 t t O R");
    let settings = m.run.as_ref().unwrap().settings();
    assert_eq!((settings.temperature, settings.top_p, settings.repetition_penalty), (0.5, 0.95, 1.15));
    assert_eq!(press(&mut m, "s"), [Effect::Send(Command::SampleNow { prompt: None, settings })]);
    let down = after(training(), "2 t t t t t t t t t t");
    assert_eq!(down.run.unwrap().settings().temperature, 0.0);
}

#[test]
fn while_a_prompt_is_typed_no_letter_acts() {
    let mut m = training();
    let effects = press(&mut m, "p 'quit' space 'Sq' enter");
    let settings = m.run.as_ref().unwrap().settings();
    assert_eq!(effects, [Effect::Send(Command::SampleNow { prompt: Some("quit Sq".into()), settings })]);
    assert!(press(&mut training(), "p 'q' esc").is_empty());
    let mut m = after(training(), "p");
    update(&mut m, Message::Paste("two\nlines q".into()));
    assert!(m.run.unwrap().input.unwrap().input.value().ends_with("lines q"));
}

#[test]
fn a_live_field_is_checked_then_sent() {
    let mut m = after(training(), "4 i ctrl-u '1e-4'");
    let set = Command::Set { key: "train.learning_rate".into(), value: "1e-4".into(), by: "you".into() };
    assert_eq!(press(&mut m, "enter"), [Effect::Send(set)]);
    let mut m = after(training(), "4 i ctrl-u '7'");
    assert!(press(&mut m, "enter").is_empty());
    assert!(m.run.unwrap().input.unwrap().problem.is_some(), "7 is no learning rate");
}

#[test]
fn a_field_that_cannot_change_says_so() {
    let mut m = training();
    assert!(press(&mut m, "4 j i").is_empty());
    assert!(m.run.as_ref().unwrap().input.is_none());
    assert!(see(&m).contains("batch cannot change while the run goes on"));
}

#[test]
fn a_change_shows_in_the_recipe_and_can_be_undone() {
    let mut m = after(training(), "4 i ctrl-u '1e-4' enter");
    let change =
        Change { key: "train.learning_rate".into(), from: "1.9e-4".into(), to: "1e-4".into(), by: "you".into() };
    let event = fixture::at(m.now, 413, Body::Change(change));
    update(&mut m, Message::Events { run: fixture::folder(), events: vec![event] });
    assert!(m.run.as_ref().unwrap().recipe.text.contains("learning_rate = 1e-4"));
    let undo = Command::Set { key: "train.learning_rate".into(), value: "1.9e-4".into(), by: "you".into() };
    assert_eq!(press(&mut m, "u"), [Effect::Send(undo)]);
}

#[test]
fn what_the_trainer_refuses_is_said_and_changes_nothing() {
    let mut m = training();
    let by = "refused: there is no checkpoint of step 300".to_string();
    let refused = Change { key: "roll_back".into(), from: String::new(), to: String::new(), by };
    let events = vec![fixture::at(m.now, 412, Body::Change(refused))];
    update(&mut m, Message::Events { run: fixture::folder(), events });
    assert_eq!(m.run.as_ref().unwrap().run.step_number(), 412);
    assert!(see(&m).contains("roll_back: there is no checkpoint of step 300"));
}

#[test]
fn before_a_run_every_field_is_edited_in_the_file_comments_kept() {
    let mut m = ready();
    let effects = press(&mut m, "j i ctrl-u 'mine' enter");
    let Some(Effect::SaveRecipe { path, text }) = effects.first() else { panic!("{effects:?}") };
    assert_eq!(path.to_str(), Some("support.toml"));
    assert!(text.contains("# Support answers.") && text.contains("run_name = \"mine\""), "{text}");
    assert!(see(&after(m.clone(), "d")).contains("run_name"));
    let effects = press(&mut m, "u");
    assert!(matches!(effects.first(), Some(Effect::SaveRecipe { text, .. }) if text == fixture::RECIPE));
}

#[test]
fn space_starts_a_recipe_that_is_well() {
    let started = Effect::StartTraining { path: Some("support.toml".into()), text: fixture::RECIPE.into() };
    assert_eq!(press(&mut ready(), "space"), [started]);
    let mut m = Model::new(Theme::ansi(), 160, 48, 0.0);
    update(&mut m, Message::RecipeOpened { path: "bad.toml".into(), text: "methd = \"sft\"".into() });
    assert!(press(&mut m, "space").is_empty());
    assert!(m.notice.unwrap().error);
}

#[test]
fn a_comment_after_a_value_is_none_of_it() {
    let text = fixture::RECIPE.replace("learning_rate = 2e-4", "learning_rate = 2e-4     # to begin with");
    assert!(text.contains("# to begin with"));
    let mut m = Model::new(Theme::ansi(), 160, 48, fixture::BEGAN);
    update(&mut m, Message::RecipeOpened { path: "support.toml".into(), text });
    assert!(!see(&m).contains("# to begin"), "{}", see(&m));
    let page = m.run.as_ref().unwrap();
    let at = finetop::console::fields::shown(page).iter().position(|f| f.key == "train.learning_rate").unwrap();
    m.run.as_mut().unwrap().recipe.selected = at;
    press(&mut m, "i");
    assert_eq!(m.run.as_ref().unwrap().input.as_ref().unwrap().input.value(), "2e-4");
    let effects = press(&mut m, "backspace '5' enter");
    let saved = "learning_rate = 2e-5     # to begin with";
    assert!(matches!(effects.first(), Some(Effect::SaveRecipe { text, .. }) if text.contains(saved)), "{effects:?}");
}

#[test]
fn a_applies_the_fix() {
    let roll_back = Command::RollBack { step: 60, stop: true, by: "overfitting".into() };
    assert_eq!(press(&mut demo(), "5 a"), [Effect::Send(roll_back)]);
    let mut real = demo();
    real.run.as_mut().unwrap().run.start.demo = false;
    assert!(press(&mut real, "5 a").is_empty(), "a real run's steps are not dropped unasked");
    assert!(see(&real).contains("Go back to step 60 and stop? Steps 61 to 100 are dropped."));
    let roll_back = Command::RollBack { step: 60, stop: true, by: "overfitting".into() };
    assert_eq!(press(&mut real, "y"), [Effect::Send(roll_back)]);
    let set = vec![("data.dedup".to_string(), "true".to_string())];
    assert_eq!(press(&mut training(), "a"), [Effect::Branch { run: fixture::folder(), step: 300, set }]);
}

#[test]
fn b_branches_from_the_checkpoint_before_the_cursor() {
    let branch = Effect::Branch { run: fixture::folder(), step: 300, set: Vec::new() };
    assert_eq!(press(&mut training(), "left left left left b y"), [branch]);
    assert!(press(&mut training(), "g b y").is_empty(), "there is none before step 1");
    // Of the default two, the best and the last are kept: that of step 200 is gone.
    let mut m = training();
    m.run.as_mut().unwrap().chart.cursor = Some(250);
    assert!(press(&mut m, "b").is_empty() && m.confirm.is_none());
    assert!(m.notice.unwrap().text.contains("is left to branch from"));
}

#[test]
fn the_demos_hint_names_its_keys_at_every_width() {
    for width in (80..=200).step_by(10) {
        let m = fixture::demo_console(100, false, Theme::ansi(), width, 40);
        assert!(see(&m).contains("press 5 then a"), "{width}: {}", see(&m));
    }
}

#[test]
fn a_branch_goes_by_its_folder_s_name_as_commands_do() {
    let mut m = Model::new(Theme::ansi(), 160, 48, fixture::BEGAN);
    let opened = Message::Opened {
        run: fixture::folder(),
        name: "qwen7b-support-from-300".into(),
        recipe: fixture::RECIPE.into(),
        live: true,
    };
    update(&mut m, opened);
    update(&mut m, Message::Events { run: fixture::folder(), events: fixture::support(310) });
    assert!(see(&m).starts_with(" qwen7b-support-from-300"), "{}", see(&m));
    let line = "qwen7b-support-from-300 goes on · finetop attach · finetop stop".to_string();
    assert_eq!(press(&mut m, "q"), [Effect::Quit { line: Some(line) }]);
}

/// The demo with its finding open, ended in some way.
fn ended(state: Option<RunState>) -> Model {
    let mut m = demo();
    let events =
        state.map(|state| fixture::at(m.now, 100, Body::State(State { state, why: String::new() }))).into_iter();
    update(&mut m, Message::Events { run: fixture::folder(), events: events.collect() });
    update(&mut m, Message::Live { run: fixture::folder(), live: false });
    m
}

#[test]
fn where_no_trainer_is_left_a_fix_offers_what_can_still_be_done() {
    for state in [Some(RunState::Finished), Some(RunState::Stopped), Some(RunState::Failed), None] {
        let mut m = ended(state);
        press(&mut m, "5");
        let seen = see(&m);
        assert!(seen.contains("copy it for the next run") && !seen.contains("back to step 60"), "{seen}");
        assert!(!seen.contains("press 5") && !seen.contains("press a"), "{seen}");
        assert_eq!(press(&mut m, "a"), [Effect::Copy("train.num_train_epochs = 4".into())], "{state:?}");
    }
}

#[test]
fn a_fix_that_goes_back_and_on_becomes_a_branch_once_the_run_is_over() {
    let mut m = ended(Some(RunState::Failed));
    let page = m.run.as_mut().unwrap();
    let fix = page.run.findings[0].fix.as_mut().unwrap();
    fix.action = FixAction::RollBack { step: 60, stop: false };
    fix.set = vec![("train.learning_rate".into(), "1e-3".into())];
    let branch = Effect::Branch { run: fixture::folder(), step: 60, set: fix.set.clone() };
    press(&mut m, "5");
    assert!(see(&m).contains("branch from 60"), "{}", see(&m));
    assert_eq!(press(&mut m, "a"), [branch]);
}

#[test]
fn a_fix_whose_checkpoint_is_gone_or_that_nothing_is_left_of_has_no_key() {
    let mut m = ended(Some(RunState::Finished));
    let fix = m.run.as_mut().unwrap().run.findings[0].fix.as_mut().unwrap();
    (fix.action, fix.set) = (FixAction::RollBack { step: 20, stop: false }, Vec::new());
    press(&mut m, "5");
    assert!(!see(&m).contains("Fix") && !see(&m).contains("apply fix"), "{}", see(&m));
    assert!(press(&mut m, "a").is_empty());
}

#[test]
fn texts_name_the_keys_that_hold() {
    let mut m = training();
    m.keymap = own_keys::read("[any]\nleave = \"ctrl-q\"\n[run]\nstop = []", "keys.toml").unwrap();
    press(&mut m, "ctrl-c");
    let seen = see(&m);
    assert!(seen.contains("ctrl-q leaves it running, :stop stops it"), "{seen}");
    assert!(seen.contains("ctrl-q leave (run goes on)"), "{seen}");
}

#[test]
fn k_asks_for_the_rows_of_the_step_under_the_cursor() {
    let rows: Vec<u32> = (1..=16).collect();
    assert_eq!(press(&mut training(), "g k"), [Effect::Rows { run: fixture::folder(), rows }]);
}

#[test]
fn a_bell_rings_once_and_only_unseen() {
    let finding = |m: &Model| {
        let event = fixture::support(400).into_iter().find(|e| matches!(e.body, Body::Finding(_)));
        Message::Events {
            run: fixture::folder(),
            events: vec![finetop::run::event::Event { time: m.now, ..event.unwrap() }],
        }
    };
    let mut m = training();
    let message = finding(&m);
    assert!(update(&mut m, message).is_empty(), "a person is looking");
    update(&mut m, Message::Focus(false));
    let message = finding(&m);
    let told = vec![Effect::Bell, Effect::Notify("qwen7b-support: eval stopped improving".into())];
    assert_eq!(update(&mut m, message), told);
}

#[test]
fn a_click_focuses_and_the_wheel_acts_where_it_points() {
    use finetop::console::message::Mouse;
    let mut m = training();
    update(&mut m, Message::Mouse(Mouse::Click { column: 120, row: 40 }));
    assert_eq!(m.run.as_ref().unwrap().focus, Pane::Diagnostics);
    update(&mut m, Message::Mouse(Mouse::WheelUp { column: 20, row: 15 }));
    assert_eq!(m.run.as_ref().unwrap().chart.cursor, Some(408));
    let mut m = fixture::illustration(Theme::ansi(), 80, 24);
    update(&mut m, Message::Mouse(Mouse::Click { column: 25, row: 2 }));
    assert_eq!(m.run.as_ref().unwrap().focus, Pane::Memory);
}
