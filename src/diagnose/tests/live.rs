use super::*;
use crate::diagnose::Doctor;

/// (step, rule, resolved) of everything a doctor says to events.
fn said(recipe: &Recipe, events: &[Event]) -> Vec<(u64, String, bool)> {
    let mut doctor = Doctor::new(recipe);
    let mut all = Vec::new();
    for e in events {
        all.extend(doctor.observe(e).into_iter().map(|f| (e.step, f.rule, f.resolved)));
    }
    all
}

fn first(recipe: &Recipe, events: &[Event], rule: &str) -> Finding {
    let mut doctor = Doctor::new(recipe);
    let all: Vec<_> = events.iter().flat_map(|e| doctor.observe(e)).collect();
    all.into_iter().find(|f| f.rule == rule).unwrap_or_else(|| panic!("{rule} is not said"))
}

fn falling(until: u64) -> Vec<Event> {
    healthy(1, until, 1.0, 0.05)
}

#[test]
fn healthy_runs_with_noise_are_left_alone() {
    for seed in 0..40 {
        for (floor, noise) in [(1.0, 0.05), (1.2, 0.25), (0.6, 0.1), (0.05, 0.02)] {
            let events = healthy(seed, 400, floor, noise);
            // The eval levels off at the end of so long a run, which is said once and is true.
            let all: Vec<_> = said(&recipe(""), &events).into_iter().filter(|(_, r, _)| r != "eval_stalled").collect();
            assert_eq!(all, [], "seed {seed} floor {floor} noise {noise}");
        }
    }
}

#[test]
fn a_run_whose_eval_still_falls_has_no_finding_at_all() {
    for seed in 0..40 {
        assert_eq!(said(&recipe(""), &healthy(seed, 200, 1.0, 0.2)), [], "seed {seed}");
    }
}

#[test]
fn a_loss_that_is_no_number_is_an_error_that_names_its_rows_and_goes_back_before_it() {
    let mut events = falling(120);
    events.push(event(121, Body::Step(Step { rows: (6577..=6592).collect(), ..plain(f64::NAN) })));
    let f = first(&recipe(""), &events, "non_finite");
    assert_eq!(f.severity, Severity::Error);
    assert!(f.evidence.contains("step 121: loss is not finite; rows 6577–6592"), "{}", f.evidence);
    let fix = f.fix.unwrap();
    assert_eq!(fix.action, FixAction::RollBack { step: 100, stop: false });
    assert_eq!(fix.set, [("train.learning_rate".to_string(), "1e-4".to_string())]);
}

#[test]
fn a_gradient_norm_that_is_no_number_is_said_once_and_resolved_when_calm() {
    let mut events = falling(30);
    for at in 31..=60 {
        let grad_norm = if at == 31 || at == 33 { f64::INFINITY } else { 1.0 };
        events.push(event(at, Body::Step(Step { grad_norm, ..plain(1.6) })));
    }
    let all: Vec<_> = said(&recipe(""), &events);
    assert_eq!(all, [(31, "non_finite".into(), false), (43, "non_finite".into(), true)]);
    // Without a checkpoint there is nothing to go back to.
    assert_eq!(first(&recipe(""), &events, "non_finite").fix.unwrap().action, FixAction::Stop);
}

#[test]
fn a_jump_of_the_loss_is_said_with_its_factor_and_ends_when_the_loss_is_back() {
    let mut events = falling(200);
    for at in 201..=240 {
        events.push(step(at, if at <= 205 { 3.9 } else { 1.1 }));
    }
    let all: Vec<_> = said(&recipe(""), &events).into_iter().filter(|(_, r, _)| r == "loss_jump").collect();
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!((all[0].0, all[0].2, all[1].2), (201, false, true));
    let f = first(&recipe(""), &events, "loss_jump");
    assert!(f.evidence.contains("loss 3.900 at step 201") && f.evidence.contains("rows 4–7"), "{}", f.evidence);
    assert_eq!(f.fix.unwrap().action, FixAction::RollBack { step: 200, stop: false });
}

#[test]
fn small_losses_that_double_by_chance_are_no_jump() {
    let mut n = Noise::new(3);
    let events: Vec<_> = (1..=300).map(|at| step(at, (0.05 + 0.04 * n.normal()).abs() + 0.001)).collect();
    assert!(said(&recipe(""), &events).iter().all(|(_, r, _)| r != "loss_jump"));
}

/// The demo's course: samples right early, then the rows are learnt by heart.
fn overfit() -> Vec<Event> {
    let mut n = Noise::new(9);
    let mut events = vec![start(200), eval(0, 2.0), checkpoint(0, false)];
    for at in 1..=160u64 {
        let loss = 2.0 * (-(at as f64) / 35.0).exp() + 0.03;
        events.push(step(at, loss * (1.0 + 0.15 * n.normal())));
        if at % 20 == 0 {
            let t = at as f64;
            let loss = if at <= 60 { 2.0 * (-t / 30.0).exp() + 0.3 } else { 0.57 + 0.004 * (t - 60.0) };
            events.push(eval(at, loss));
            events.push(checkpoint(at, at <= 60));
        }
    }
    events
}

#[test]
fn overfitting_has_the_numbers_and_goes_back_to_the_best_evaluation() {
    let recipe = recipe("[train]\nsave_total_limit = 3\n");
    let f = first(&recipe, &overfit(), "overfitting");
    assert_eq!((f.severity, f.since), (Severity::Warning, 60));
    assert!(f.evidence.starts_with("eval 0.571 → ") && f.evidence.contains("since step 60; train "), "{}", f.evidence);
    let fix = f.fix.unwrap();
    assert_eq!(
        (fix.label.as_str(), fix.action),
        ("back to step 60 and stop", FixAction::RollBack { step: 60, stop: true })
    );
    assert_eq!(fix.set, [("train.num_train_epochs".to_string(), "0.6".to_string())]);
    assert!(f.source.contains("model gets dumber"));
}

#[test]
fn a_roll_back_resolves_overfitting_and_nothing_is_said_twice() {
    let mut events = overfit();
    events.push(event(
        160,
        Body::Change(Change { key: "roll_back".into(), from: "160".into(), to: "60".into(), by: "overfitting".into() }),
    ));
    let all = said(&recipe(""), &events);
    let over: Vec<_> = all.iter().filter(|(_, r, _)| r == "overfitting").collect();
    assert_eq!(over.len(), 2, "{all:?}");
    assert!(!over[0].2 && over[1].2 && over[1].0 == 160, "{all:?}");
}

/// Wobbles as large as the rise itself, as a small model's evaluations have them.
#[test]
fn overfitting_holds_while_eval_wobbles_and_ends_where_the_best_is_reached_again() {
    let run = |last: f64| {
        let mut events = vec![start(400), eval(0, 2.0), checkpoint(0, false)];
        for at in 1..=400u64 {
            events.push(step(at, 2.0 * (-(at as f64) / 35.0).exp() + 0.03));
            if at % 20 == 0 {
                let wobble = if at / 20 % 2 == 0 { 0.012 } else { 0.001 };
                let loss = match at {
                    0..=60 => 2.0 * (-(at as f64) / 30.0).exp() + 0.3,
                    400 => last,
                    _ => 0.571 + wobble,
                };
                events.push(eval(at, loss));
            }
        }
        let all = said(&recipe(""), &events);
        all.into_iter().filter(|(_, r, _)| r == "overfitting").map(|(at, _, gone)| (at, gone)).collect::<Vec<_>>()
    };
    let held = run(0.58);
    assert!(held.len() == 1 && !held[0].1, "said once, and held: {held:?}");
    assert_eq!(run(0.55), [held[0], (400, true)], "a better evaluation ends it");
}

#[test]
fn an_eval_that_rises_with_train_is_not_called_overfitting() {
    let mut events = falling(100);
    for at in 101..=200u64 {
        events.push(step(at, 1.4 + 0.004 * (at - 100) as f64));
        if at % 25 == 0 {
            events.push(eval(at, 1.5 + 0.004 * (at - 100) as f64));
        }
    }
    assert!(said(&recipe(""), &events).iter().all(|(_, r, _)| r != "overfitting"));
}

#[test]
fn eval_wobbling_by_half_a_percent_on_its_plateau_is_no_overfitting_but_has_stopped_improving() {
    for seed in 0..30 {
        let mut n = Noise::new(seed);
        let mut events = vec![start(1_000), eval(0, 2.0)];
        for at in 1..=1_000u64 {
            events.push(step(at, 1.0 + 1.0 * (-(at as f64) / 60.0).exp() + 0.1 * n.normal()));
            if at % 50 == 0 {
                let wobble = 1.0 + 0.002 * n.normal().clamp(-2.0, 2.0);
                events.push(eval(at, (1.2 + 0.8 * (-(at as f64) / 60.0).exp()) * wobble));
            }
        }
        let all = said(&recipe(""), &events);
        assert!(all.iter().all(|(_, r, _)| r != "overfitting"), "{all:?}");
        let stalled = all.iter().filter(|(_, r, resolved)| r == "eval_stalled" && !resolved).count();
        assert!((1..=3).contains(&stalled), "seed {seed}: {all:?}");
    }
}

#[test]
fn eval_stopped_improving_says_by_how_much_train_still_falls() {
    let mut events = vec![start(600), eval(0, 2.0)];
    let mut n = Noise::new(5);
    for at in 1..=500u64 {
        events.push(step(at, 2.0 - 0.0012 * at as f64 + 0.02 * n.normal()));
        match at {
            100 => events.push(eval(at, 1.5)),
            200 => events.push(eval(at, 1.35)),
            300 => events.extend([eval(at, 1.311), checkpoint(at, true)]),
            400 => events.push(eval(at, 1.312)),
            500 => events.push(eval(at, 1.313)),
            _ => {}
        }
    }
    let f = first(&recipe(""), &events, "eval_stalled");
    assert_eq!((f.title.as_str(), f.since), ("eval stopped improving", 300));
    assert!(f.evidence.starts_with("eval 1.311 → 1.313 in 2 evals, train still falling 0.1"), "{}", f.evidence);
    assert_eq!(f.fix.unwrap().label, "back to step 300 and stop");
}

fn flat(level: f64, noise: f64, seed: u64, recipe: &Recipe) -> Vec<Event> {
    let mut n = Noise::new(seed);
    let mut events = vec![start(400)];
    for at in 1..=300 {
        let s = Step { learning_rate: recipe.train.learning_rate, ..plain(level + noise * n.normal()) };
        events.push(event(at, Body::Step(s)));
    }
    events
}

#[test]
fn a_loss_that_stands_far_up_is_stalled_and_a_low_rate_is_named() {
    let low = recipe("[train]\nlearning_rate = 1e-6\n");
    for seed in 0..20 {
        let f = first(&low, &flat(2.8, 0.2, seed, &low), "stalled_loss");
        assert!(f.evidence.contains("slope") && f.cause.contains("1e-6"), "{} {}", f.evidence, f.cause);
        assert_eq!(f.fix.unwrap().set, [("train.learning_rate".to_string(), "2e-4".to_string())]);
    }
    let f = first(&recipe(""), &flat(1.8, 0.1, 1, &recipe("")), "stalled_loss");
    assert!(f.cause.contains("format"), "{}", f.cause);
}

#[test]
fn a_low_plateau_the_warm_up_and_short_runs_are_not_stalled() {
    let base = recipe("");
    assert_eq!(said(&base, &flat(0.3, 0.02, 1, &base)), []);
    let slow = recipe("[train]\nwarmup_steps = 280\n");
    assert_eq!(said(&slow, &flat(2.8, 0.2, 1, &slow)), []);
    assert_eq!(said(&base, &flat(2.8, 0.2, 1, &base)[..50]), []);
    // Noise too wide to tell a fall from none: silence.
    assert_eq!(said(&base, &flat(2.8, 2.0, 1, &base)), []);
}

#[test]
fn a_slow_but_steady_fall_is_not_stalled() {
    for seed in 0..30 {
        let mut n = Noise::new(seed);
        let events: Vec<_> = (1..=400).map(|at| step(at, 3.0 - 0.002 * at as f64 + 0.1 * n.normal())).collect();
        assert!(said(&recipe(""), &events).iter().all(|(_, r, _)| r != "stalled_loss"), "seed {seed}");
    }
}

#[test]
fn a_stall_is_resolved_when_the_loss_falls_after_all() {
    let mut n = Noise::new(2);
    let loss = |at: u64| if at < 150 { 2.8 } else { 2.8 - 0.01 * (at - 150) as f64 };
    let events: Vec<_> = (1..=300).map(|at| step(at, loss(at) + 0.1 * n.normal())).collect();
    let all: Vec<_> = said(&recipe(""), &events).into_iter().filter(|(_, r, _)| r == "stalled_loss").collect();
    assert_eq!(all.iter().map(|(_, _, r)| *r).collect::<Vec<_>>(), [false, true], "{all:?}");
}

#[test]
fn samples_that_loop_bring_the_three_settings() {
    let r = recipe("[sample]\nprompts = [\"p\"]\ntemperature = 0.0\nrepetition_penalty = 1.0\n");
    let events =
        [sample(0, 0.05, "stop"), sample(50, 0.1, "stop"), sample(100, 0.5, "length"), sample(150, 0.6, "length")];
    let f = first(&r, &events, "repetition");
    assert_eq!(f.since, 100);
    let fix = f.fix.unwrap();
    assert_eq!(fix.label, "sample.temperature = 0.7, sample.repetition_penalty = 1.1");
    assert_eq!(said(&r, &events), [(150, "repetition".into(), false)]);
}

#[test]
fn one_loop_a_base_that_loops_less_and_demanded_samples_are_left_alone() {
    let r = recipe("[sample]\nprompts = [\"p\"]\n");
    assert_eq!(said(&r, &[sample(0, 0.05, "stop"), sample(50, 0.7, "length"), sample(100, 0.1, "stop")]), []);
    assert_eq!(said(&r, &[sample(0, 0.8, "length"), sample(50, 0.6, "length"), sample(100, 0.4, "length")]), []);
    let mut asked = [sample(0, 0.0, "stop"), sample(50, 0.9, "length"), sample(60, 0.9, "length")];
    for e in &mut asked {
        if let Body::Sample(s) = &mut e.body {
            s.on_demand = true;
        }
    }
    assert_eq!(said(&r, &asked), []);
}

#[test]
fn turns_that_no_longer_end_are_said() {
    let r = recipe("[sample]\nprompts = [\"p\"]\n");
    let events = [sample(0, 0.0, "stop"), sample(50, 0.1, "length"), sample(100, 0.1, "length")];
    assert_eq!(first(&r, &events, "repetition").title, "samples no longer end");
}

#[test]
fn gradients_of_zero_and_above_100_are_said_single_spikes_are_not() {
    let with = |norms: &[f64]| -> Vec<Event> {
        norms
            .iter()
            .enumerate()
            .map(|(i, g)| event(i as u64 + 1, Body::Step(Step { grad_norm: *g, ..plain(1.5) })))
            .collect()
    };
    assert_eq!(first(&recipe(""), &with(&[1.0, 0.0, 0.0, 0.0]), "gradient").title, "gradients are zero");
    let f = first(&recipe(""), &with(&[1.0, 150.0, 3.0, 250.0, 120.0]), "gradient");
    assert!(f.evidence.contains("3 of the last 5 steps, up to 250"), "{}", f.evidence);
    assert_eq!(said(&recipe(""), &with(&[1.0, 150.0, 3.0, 1.0, 120.0, 1.0, 0.0, 1.0])), []);
    let mut norms = vec![150.0; 6];
    norms.extend([1.0; 12]);
    assert_eq!(said(&recipe(""), &with(&norms)), [(3, "gradient".into(), false), (16, "gradient".into(), true)]);
}

#[test]
fn speed_that_falls_by_half_is_said_and_resolved() {
    let speed = |at: u64| if (100..150).contains(&at) { 400.0 } else { 1_000.0 };
    let mut n = Noise::new(1);
    let events: Vec<_> = (1..=200)
        .map(|at| event(at, Body::Step(Step { tokens_per_second: speed(at) + 60.0 * n.normal(), ..plain(0.4) })))
        .collect();
    let all = said(&recipe(""), &events);
    assert_eq!(all, [(102, "throughput".into(), false), (152, "throughput".into(), true)]);
}

#[test]
fn memory_that_creeps_is_said_and_one_long_batch_is_not() {
    let with = |used: &dyn Fn(u64) -> f64| -> Vec<Event> {
        let mut n = Noise::new(4);
        (1..=40u64)
            .map(|i| {
                let used = Some((used(i * 5) + 2e6 * n.normal()) as u64);
                event(i * 5, Body::Memory(Memory { used, total: Some(16_000_000_000), ..Memory::default() }))
            })
            .collect()
    };
    let f = first(&recipe(""), &with(&|s| 2e9 + 4e6 * s as f64), "memory_creep");
    assert!(f.evidence.contains("MiB a step") && f.evidence.contains("full in about 3,"), "{}", f.evidence);
    assert_eq!(said(&recipe(""), &with(&|s| if s < 90 { 2e9 } else { 3e9 })), []);
    assert_eq!(said(&recipe(""), &with(&|_| 2e9)), []);
}

#[test]
fn a_resume_replaces_the_steps_after_its_checkpoint() {
    let mut events = falling(120);
    events.push(event(121, Body::Step(plain(f64::NAN))));
    events.push(event(100, Body::Start(Box::new(Start { total_steps: 200, resumed_from: 100, ..Start::default() }))));
    for at in 101..=140 {
        events.push(step(at, 1.5));
    }
    let all = said(&recipe(""), &events);
    assert_eq!(all, [(121, "non_finite".into(), false), (100, "non_finite".into(), true)]);
}

#[test]
fn replaying_the_events_gives_the_same_findings_and_ignores_those_written_before() {
    let r = recipe("");
    let mut doctor = Doctor::new(&r);
    let mut written = Vec::new();
    let mut live = Vec::new();
    for e in overfit() {
        written.push(e.clone());
        for f in doctor.observe(&e) {
            live.push(f.clone());
            written.push(event(e.step, Body::Finding(f)));
        }
    }
    let mut again = Doctor::new(&r);
    let replayed: Vec<_> = written.iter().flat_map(|e| again.observe(e)).collect();
    assert_eq!(live, replayed);
    assert!(doctor.open().eq(again.open()) && doctor.open().count() > 0);
}

#[test]
fn a_live_change_of_the_rate_is_what_half_of_it_starts_from() {
    let mut events = falling(60);
    let change = Change { key: "train.learning_rate".into(), from: "2e-4".into(), to: "3e-5".into(), by: "you".into() };
    events.push(event(60, Body::Change(change)));
    events.push(event(61, Body::Step(plain(f64::NAN))));
    let set = first(&recipe(""), &events, "non_finite").fix.unwrap().set;
    assert_eq!(set, [("train.learning_rate".to_string(), "1.5e-5".to_string())]);
}

fn preferring() -> Recipe {
    let text = "method = \"dpo\"\n[model]\nname_or_path = \"demo\"\n[data]\ntrain = \"a\"\n[lora]\n";
    crate::recipe::parse(text, "d.toml", &[]).unwrap().recipe
}

/// A DPO step with these rewards; the reference gives the chosen answers -100.
fn preferred(at: u64, accuracy: f64, chosen: f64) -> Event {
    let metrics = [
        ("rewards/accuracies", accuracy),
        ("rewards/margins", 0.01),
        ("rewards/chosen", chosen),
        ("logps/chosen", -100.0 + chosen / 0.1),
    ];
    let metrics = metrics.into_iter().map(|(k, v)| (k.to_string(), v)).collect();
    event(at, Body::Step(Step { metrics, ..plain(0.69) }))
}

#[test]
fn preferences_that_stay_a_coin_are_said_after_a_hundred_steps_and_not_where_they_are_learnt() {
    let recipe = preferring();
    let coin: Vec<_> = (1..=120).map(|at| preferred(at, if at % 2 == 0 { 0.6 } else { 0.4 }, 0.0)).collect();
    let all = said(&recipe, &coin);
    assert_eq!(all, [(100, "preference_accuracy".to_string(), false)]);
    let learnt: Vec<_> = (1..=120).map(|at| preferred(at, 0.5 + at as f64 / 300.0, 0.1)).collect();
    assert_eq!(said(&recipe, &learnt), []);
}

#[test]
fn chosen_answers_that_grow_unlikely_are_said_with_both_log_probabilities() {
    let recipe = preferring();
    let events: Vec<_> = (1..=90).map(|at| preferred(at, 0.9, -0.06 * at as f64)).collect();
    let f = first(&recipe, &events, "chosen_collapse");
    assert!(f.evidence.contains("-100.0 under the reference"), "{}", f.evidence);
    assert!(f.fix.unwrap().set.contains(&("dpo.beta".to_string(), "0.2".to_string())));
}

/// A GRPO step with these measurements, the others healthy.
fn drawn(at: u64, changed: &[(&str, f64)]) -> Event {
    let mut metrics: std::collections::BTreeMap<String, f64> = [
        ("reward", 0.4),
        ("frac_reward_zero_std", 0.3),
        ("entropy", 0.2),
        ("kl", 0.1),
        ("clip_ratio/region_mean", 0.02),
        ("completions/clipped_ratio", 0.1),
    ]
    .map(|(k, v)| (k.to_string(), v))
    .into();
    metrics.extend(changed.iter().map(|(k, v)| (k.to_string(), *v)));
    event(at, Body::Step(Step { metrics, ..plain(0.0) }))
}

#[test]
fn each_number_of_a_policy_that_is_not_healthy_is_said_with_its_value_and_calms_down_again() {
    let text = "method = \"grpo\"\n[model]\nname_or_path = \"demo\"\n[data]\ntrain = \"a\"\n[lora]\n[grpo]\nreward_funcs = \"think_format\"\nbeta = 0.1\n";
    let recipe = crate::recipe::parse(text, "d.toml", &[]).unwrap().recipe;
    let healthy: Vec<_> = (1..=60).map(|at| drawn(at, &[])).collect();
    assert_eq!(said(&recipe, &healthy), []);
    for (rule, metric, value, key) in [
        ("reward_spread", "frac_reward_zero_std", 1.0, "grpo.num_generations"),
        ("entropy_collapse", "entropy", 0.001, "train.learning_rate"),
        ("kl_high", "kl", 4.0, "grpo.beta"),
        ("clip_share", "clip_ratio/region_mean", 0.5, "train.learning_rate"),
        ("completions_cut", "completions/clipped_ratio", 0.95, "grpo.max_completion_length"),
    ] {
        let events: Vec<_> =
            (1..=80).map(|at| if at <= 30 { drawn(at, &[(metric, value)]) } else { drawn(at, &[]) }).collect();
        let all = said(&recipe, &events);
        assert_eq!(all[0], (20, rule.to_string(), false), "{all:?}");
        assert!(all.len() == 2 && all[1].1 == rule && all[1].2, "{all:?}");
        let f = first(&recipe, &events, rule);
        assert!(f.evidence.contains(metric), "{}", f.evidence);
        assert_eq!(f.fix.unwrap().set[0].0, key);
    }
    let reward = |at: u64| if at <= 25 { 0.0 } else { 0.2 };
    let nothing: Vec<_> = (1..=40).map(|at| drawn(at, &[("reward", reward(at))])).collect();
    let all = said(&recipe, &nothing);
    assert_eq!(all, [(20, "reward_zero".to_string(), false), (26, "reward_zero".to_string(), true)]);
}
