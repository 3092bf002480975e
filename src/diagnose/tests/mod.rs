//! Table tests: every rule fires on planted cases and is silent on healthy runs, noise included.

mod live;
mod rows;

use crate::recipe::{Recipe, parse};
use crate::train::event::*;

pub fn recipe(more: &str) -> Recipe {
    let text = format!("[model]\nname_or_path = \"demo\"\n[data]\ntrain = \"a\"\n[lora]\n{more}");
    parse(&text, "d.toml", &[]).unwrap().recipe
}

/// Normal noise from a small generator of its own: the same in every run of the tests.
pub struct Noise(u64);

impl Noise {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}

pub fn event(step: u64, body: Body) -> Event {
    Event { time: step as f64, step, body }
}

pub fn start(total: u64) -> Event {
    event(0, Body::Start(Box::new(Start { total_steps: total, train_rows: 1_000, ..Start::default() })))
}

pub fn plain(loss: f64) -> Step {
    Step {
        loss,
        grad_norm: 1.0,
        learning_rate: 2e-4,
        epoch: 0.0,
        tokens: 0,
        label_tokens: 100,
        tokens_per_second: 1_000.0,
        seconds: 1.0,
        rows: vec![4, 5, 6, 7],
        metrics: Default::default(),
    }
}

pub fn step(at: u64, loss: f64) -> Event {
    event(at, Body::Step(Step { epoch: at as f64 / 100.0, ..plain(loss) }))
}

pub fn eval(at: u64, loss: f64) -> Event {
    event(
        at,
        Body::Eval(Eval {
            loss,
            perplexity: loss.exp(),
            label_tokens: 1,
            seconds: 1.0,
            best: false,
            metrics: Default::default(),
        }),
    )
}

pub fn checkpoint(at: u64, best: bool) -> Event {
    let path = format!("checkpoints/step-{at}");
    event(at, Body::Checkpoint(Checkpoint { path, bytes: 1, seconds: 0.1, best, last: false }))
}

pub fn sample(at: u64, repetition: f64, stop_reason: &str) -> Event {
    event(
        at,
        Body::Sample(Sample {
            index: Some(0),
            prompt: "p".into(),
            text: "t".into(),
            settings: SampleSettings::default(),
            stop_reason: stop_reason.into(),
            tokens: 100,
            expect: None,
            score: None,
            repetition,
            on_demand: false,
        }),
    )
}

/// A healthy run: loss from 2.2 towards `floor` with noise, evaluations every 50 steps that follow it.
pub fn healthy(seed: u64, steps: u64, floor: f64, noise: f64) -> Vec<Event> {
    let mut n = Noise::new(seed);
    let mut list = vec![start(steps), eval(0, 2.25)];
    for at in 1..=steps {
        let level = floor + (2.2 - floor) * (-(at as f64) / 80.0).exp();
        list.push(event(
            at,
            Body::Step(Step {
                loss: (level + noise * n.normal()).max(0.01),
                grad_norm: 1.0 + 0.3 * n.normal().abs(),
                epoch: at as f64 / 100.0,
                tokens_per_second: 1_000.0 + 80.0 * n.normal(),
                ..plain(0.0)
            }),
        ));
        if at % 50 == 0 {
            list.push(eval(at, level * 0.98 + 0.05 + 0.05 * (-(at as f64) / 200.0).exp()));
            list.push(checkpoint(at, true));
            list.push(event(
                at,
                Body::Memory(Memory { used: Some(2_000_000_000 + (n.normal() * 1e7) as u64), ..Memory::default() }),
            ));
        }
    }
    list
}
