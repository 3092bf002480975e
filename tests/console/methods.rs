//! The pages of DPO and GRPO: their curves, their vital numbers, and the completions of a step.

use crate::fixture;
use finetop::console::key::Key;
use finetop::console::message::Message;
use finetop::console::model::Model;
use finetop::console::theme::Theme;
use finetop::console::{snapshot, update};
use finetop::run::event::{Body, Completions, Eval, Event, Metrics, RunState, Scored, Start, State, Step};

fn named(all: &[(&str, f64)]) -> Metrics {
    all.iter().map(|(k, v)| (k.to_string(), *v)).collect()
}

/// Forty steps of a run of `method` whose step `n` measures `of(n)`, evaluated every ten.
fn run(method: &str, loss: f64, of: impl Fn(u64) -> Metrics) -> Vec<Event> {
    let start = Start {
        run_name: format!("smollm2-{method}"),
        method: method.into(),
        tuning: "lora r16".into(),
        model: "SmolLM2-135M-Instruct".into(),
        device: "cpu".into(),
        device_name: "AMD EPYC · 2 cores".into(),
        total_steps: 60,
        num_train_epochs: 1.0,
        ..Start::default()
    };
    let mut events = vec![fixture::at(fixture::BEGAN, 0, Body::Start(Box::new(start)))];
    let running = State { state: RunState::Running, why: String::new() };
    events.push(fixture::at(fixture::BEGAN, 0, Body::State(running)));
    let mut noise = fixture::Noise::new(4);
    for n in 1..=40 {
        let time = fixture::BEGAN + 20.0 * n as f64;
        if method == "grpo" {
            events.push(fixture::at(time, n, Body::Completions(drawn())));
        }
        let Body::Step(step) = fixture::step(n, loss, 0.8, 2e-4, n as f64 / 60.0, &mut noise) else { continue };
        events.push(fixture::at(time, n, Body::Step(Step { metrics: of(n), ..step })));
        if n % 10 == 0 {
            let loss = if method == "grpo" { f64::NAN } else { loss };
            let metrics = of(n);
            let eval = Eval { loss, perplexity: loss.exp(), label_tokens: 90, seconds: 3.0, best: true, metrics };
            events.push(fixture::at(time + 3.0, n, Body::Eval(eval)));
        }
    }
    events
}

fn drawn() -> Completions {
    let one = |text: &str, reward: f64, advantage: f64, truncated: bool| Scored {
        text: text.into(),
        tokens: 5,
        truncated,
        reward: Some(reward),
        scores: vec![Some(reward)],
        advantage,
    };
    Completions {
        row: 7,
        prompt: "State the final answer to the following arithmetic problem: 42 - 25 =".into(),
        answer: Some("17".into()),
        functions: vec!["numeric_answer".into()],
        list: vec![one(" 17", 1.0, 1.5, false), one(" 67 or\nso", 0.0, -0.5, true), one(" 23.", 0.0, -0.5, true)],
    }
}

fn dpo() -> Vec<Event> {
    run("dpo", 0.52, |n| {
        let t = n as f64 / 40.0;
        named(&[
            ("rewards/margins", 0.8 * t),
            ("rewards/accuracies", 0.5 + 0.4 * t),
            ("rewards/chosen", 0.3 * t),
            ("rewards/rejected", -0.5 * t),
            ("logps/chosen", -210.0 + 3.0 * t),
            ("logps/rejected", -190.0 - 5.0 * t),
        ])
    })
}

fn grpo() -> Vec<Event> {
    run("grpo", 0.0, |n| {
        let t = n as f64 / 40.0;
        named(&[
            ("reward", 0.2 + 0.5 * t),
            ("reward_std", 0.48),
            ("frac_reward_zero_std", 0.25),
            ("completions/mean_length", 4.9),
            ("completions/clipped_ratio", 0.9 - 0.5 * t),
            ("entropy", 1.2 - t),
            ("clip_ratio/region_mean", 0.0),
            ("rewards/numeric_answer/mean", 0.2 + 0.5 * t),
            ("rewards/numeric_answer/std", 0.48),
        ])
    })
}

fn console(events: Vec<Event>, width: u16, height: u16) -> Model {
    fixture::console(events, fixture::RECIPE, Theme::ansi(), width, height)
}

fn see(m: &Model) -> String {
    snapshot(m, m.width, m.height)
}

fn press(m: &mut Model, keys: &str) {
    for key in keys.split(' ') {
        update(m, Message::Key(Key::parse(key).unwrap()));
    }
}

#[test]
fn dpo_shows_margins_accuracy_and_rewards_below_its_loss() {
    let m = console(dpo(), 120, 40);
    let text = see(&m);
    for words in ["1 loss", "margins", "0.800", "accuracy", "0.900", "chosen", "rejected", "-0.500"] {
        assert!(text.contains(words), "{words} is missing:\n{text}");
    }
    let mut m = console(dpo(), 120, 40);
    press(&mut m, "m");
    assert!(see(&m).contains("1 margins"), "{}", see(&m));
}

#[test]
fn grpo_is_about_its_reward_and_shows_a_steps_completions() {
    let text = see(&console(grpo(), 120, 40));
    // The loss of GRPO says nothing: the reward stands in its place, of the steps and of the evaluations.
    for words in
        ["1 reward", "0.700", "spread", "no spread", "length", "answer 17", "drawn in step 40", "numeric_answer 0.70"]
    {
        assert!(text.contains(words), "{words} is missing:\n{text}");
    }
    let vitals = text.lines().nth(4).unwrap();
    assert!(vitals.trim_start().starts_with("0.700"), "{vitals}");
    let mut m = console(grpo(), 80, 24);
    press(&mut m, "2");
    let text = see(&m);
    assert!(text.contains("1.00  +1.50") && text.contains("cut, 5"), "{text}");
}

#[test]
fn no_size_of_them_panics() {
    for events in [dpo(), grpo()] {
        for keys in ["1", "2", "1 m m m y", "1 left + x", "2 left"] {
            let mut m = console(events.clone(), 80, 24);
            press(&mut m, keys);
            for width in (1..=221).step_by(15) {
                for height in (1..=71).step_by(10) {
                    (m.width, m.height) = (width, height);
                    see(&m);
                }
            }
        }
    }
}
