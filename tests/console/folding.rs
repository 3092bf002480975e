//! What a run's events add up to: resumes, roll backs, non-finite values.

use crate::fixture::{self, Noise, at};
use finetop::console::run_state::{Run, Trend};
use finetop::run::event::{Body, Event, Start};

fn fold(events: &[Event]) -> Run {
    let mut run = Run::default();
    events.iter().for_each(|e| run.fold(e));
    run
}

#[test]
fn steps_after_a_resume_replace_those_before_it() {
    let mut events = fixture::support(250);
    events.push(at(
        fixture::BEGAN + 900.0,
        200,
        Body::Start(Box::new(Start { total_steps: 1218, resumed_from: 200, ..Start::default() })),
    ));
    let run = fold(&events);
    assert_eq!(run.step_number(), 200);
    events.push(at(fixture::BEGAN + 901.0, 201, fixture::step(201, 9.0, 1.0, 1e-4, 0.2, &mut Noise::new(1))));
    let run = fold(&events);
    assert_eq!((run.steps.len(), run.last().unwrap().loss), (201, 9.0));
}

#[test]
fn a_step_told_twice_counts_once_the_later() {
    let mut noise = Noise::new(1);
    let events: Vec<Event> = [(1, 3.0), (2, 2.0), (3, 1.0), (2, 5.0)]
        .map(|(n, loss)| at(n as f64, n, fixture::step(n, loss, 1.0, 1e-4, 0.1, &mut noise)))
        .to_vec();
    let losses: Vec<f64> = fold(&events).steps.iter().map(|p| p.data.loss).collect();
    assert_eq!(losses, [3.0, 5.0]);
}

#[test]
fn a_roll_back_cuts_the_series_back() {
    let run = fold(&fixture::demo(100, true));
    assert_eq!(run.step_number(), 60);
    assert_eq!(run.evals.last().unwrap().step, 60);
    let rolled = run.rolled_back.unwrap();
    assert_eq!((rolled.from, rolled.to), (100, 60));
    assert!(rolled.eval_before.unwrap() > run.evals.last().unwrap().data.loss);
    assert!(run.open().is_empty());
}

#[test]
fn a_loss_that_is_no_number_breaks_the_line_and_nothing_else() {
    let mut noise = Noise::new(1);
    let events: Vec<Event> = [2.0, f64::NAN, 2.0]
        .iter()
        .enumerate()
        .map(|(i, loss)| at(i as f64, i as u64 + 1, fixture::step(i as u64 + 1, *loss, 1.0, 1e-4, 0.1, &mut noise)))
        .collect();
    let smooth: Vec<f64> = fold(&events).steps.iter().map(|p| p.smooth).collect();
    assert!(smooth[1].is_nan() && (smooth[0] - 2.0).abs() < 1e-9 && (smooth[2] - 2.0).abs() < 1e-9);
}

#[test]
fn time_left_ignores_slow_first_steps() {
    let mut events = fixture::support(300);
    for e in events.iter_mut().filter(|e| e.step > 0 && e.step <= 3 || e.step == 250) {
        if let Body::Step(s) = &mut e.body {
            s.seconds = 60.0;
        }
    }
    let left = fold(&events).seconds_left().unwrap();
    assert!((left - 918.0 * 1.38).abs() < 15.0, "{left}");
}

#[test]
fn a_trend_is_called_only_where_it_stands_out_of_the_noise() {
    let trend = |slope: f64, sigma: f64| {
        let mut noise = Noise::new(9);
        let start = at(0.0, 0, Body::Start(Box::new(Start { total_steps: 1000, ..Start::default() })));
        let steps = (1..=100u64).map(|n| {
            let loss = 2.0 + slope * n as f64 + sigma * noise.draw();
            at(n as f64, n, fixture::step(n, loss, 1.0, 1e-4, 0.1, &mut Noise::new(n)))
        });
        fold(&std::iter::once(start).chain(steps).collect::<Vec<_>>()).trend()
    };
    assert_eq!(trend(-0.01, 0.05), Trend::Falling);
    assert_eq!(trend(0.01, 0.05), Trend::Rising);
    assert_eq!(trend(0.0, 0.05), Trend::Level);
    assert_eq!(Run::default().trend(), Trend::Unknown);
}
