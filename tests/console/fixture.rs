//! Runs that never happened, told by the same events as real ones, and the same on every machine.
//! The first is the specification's illustration: a 7B model, 412 of 1,218 steps, one warning.

#![allow(dead_code)] // Each of its users needs only some of it.

use finetop::console::message::Message;
use finetop::console::model::{Machine, Model, Reading};
use finetop::console::theme::Theme;
use finetop::console::update;
use finetop::run::event::*;
use std::path::PathBuf;

/// 10:41 on some day, UTC.
pub const BEGAN: f64 = 1_795_430_460.0;

pub const RECIPE: &str = r#"# Support answers.
method = "sft"
run_name = "qwen7b-support"

[model]
name_or_path = "Qwen2.5-7B-Instruct"
max_seq_length = 2048

[lora]
r = 16
lora_alpha = 16

[data]
train = "support.jsonl"
eval_fraction = 0.05

[train]
per_device_train_batch_size = 4
gradient_accumulation_steps = 4
learning_rate = 2e-4
num_train_epochs = 1
lr_scheduler_type = "cosine"
eval_steps = 100
save_steps = 200

[sample]
prompts = ["My order arrived broken, what now?", "Can I change the delivery address?"]
temperature = 0.7
every_steps = 50
"#;

/// A small generator, so that the picture is the same everywhere.
pub struct Noise(u64);

impl Noise {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// About normal, mean 0, deviation 1.
    pub fn draw(&mut self) -> f64 {
        let mut sum = 0.0;
        for _ in 0..6 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            sum += (self.0 >> 11) as f64 / (1u64 << 53) as f64;
        }
        (sum - 3.0) * 1.41
    }
}

pub fn at(time: f64, step: u64, body: Body) -> Event {
    Event { time, step, body }
}

fn start() -> Start {
    Start {
        run_name: "qwen7b-support".into(),
        method: "sft".into(),
        tuning: "qlora r16".into(),
        model: "Qwen2.5-7B-Instruct".into(),
        device: "cuda:0".into(),
        device_name: "H100 80GB".into(),
        device_uuid: Some("GPU-4f6b9c1e".into()),
        host: "node-3".into(),
        total_steps: 1218,
        steps_per_epoch: 1218.0,
        num_train_epochs: 1.0,
        train_rows: 19_488,
        eval_rows: 1026,
        truncated_share: 0.004,
        trainable_parameters: 40_370_000,
        total_parameters: 7_655_000_000,
        effective_batch: 16,
        data: Vec::new(),
        passed: vec![
            ("stop_token".into(), "stop token trained".into(), "41,207/41,207 turns".into()),
            ("template".into(), "template is the model's own".into(), "preflight".into()),
        ],
        resumed_from: 0,
        demo: false,
    }
}

/// One optimizer step of a loss that falls and levels out.
pub fn step(n: u64, loss: f64, grad: f64, rate: f64, epoch: f64, noise: &mut Noise) -> Body {
    let rows = (0..16).map(|i| (n * 16 + i) as u32 - 15).collect();
    Body::Step(Step {
        loss,
        grad_norm: grad,
        learning_rate: rate,
        epoch,
        tokens: n * 16_380,
        label_tokens: n * 9_800,
        tokens_per_second: 11_840.0 + 260.0 * noise.draw(),
        seconds: 1.38 + 0.015 * noise.draw(),
        rows,
        metrics: Default::default(),
    })
}

pub fn eval(loss: f64, best: bool) -> Body {
    Body::Eval(Eval {
        loss,
        perplexity: loss.exp(),
        label_tokens: 52_000,
        seconds: 9.0,
        best,
        metrics: Default::default(),
    })
}

/// A completion at one of the recipe's prompts.
pub fn sample(index: u32, prompt: &str, text: &str, stop: bool, tokens: u32) -> Sample {
    Sample {
        index: Some(index),
        prompt: prompt.into(),
        text: text.into(),
        settings: SampleSettings::default(),
        stop_reason: if stop { "stop" } else { "length" }.into(),
        tokens,
        expect: None,
        score: None,
        repetition: 0.02,
        on_demand: false,
    }
}

fn samples(step: u64, time: f64) -> Vec<Event> {
    let texts: [(&str, bool, u32); 2] = if step < 100 {
        [
            (
                "I am sorry to hear that. As an AI language model, I do not have access to your orders and cannot help with that. You may want to contact the customer service of the shop where you bought it, and describe what happened in as much detail as you can.",
                false,
                200,
            ),
            (
                "You can change the delivery address by going to the settings of your account and choosing the option that says addresses, then entering the new one there.",
                true,
                61,
            ),
        ]
    } else {
        [
            (
                "Sorry about that! Send a photo from Orders → Report a problem and we ship a new one within two days. Keep the broken item.",
                true,
                31,
            ),
            ("Yes, until it is packed: Orders → Change address. After that, write to us.", true, 22),
        ]
    };
    let prompts = ["My order arrived broken, what now?", "Can I change the delivery address?"];
    let draw = |i: usize| Body::Sample(sample(i as u32, prompts[i], texts[i].0, texts[i].1, texts[i].2));
    (0..2).map(|i| at(time, step, draw(i))).collect()
}

fn memory(measured: bool) -> Body {
    let gib = |v: f64| Some((v * f64::from(1u32 << 30)) as u64);
    let parts = [
        ("weights nf4", 4.3, 4.3),
        ("quantization state", 0.2, 0.2),
        ("adapters, grads, adam", 0.6, 0.6),
        ("activations", 8.9, 9.4),
        ("loss chunk", 0.5, 0.5),
        ("context, pool", 1.6, 2.0),
    ];
    let component = |(name, e, m): (&str, f64, f64)| Component {
        name: name.into(),
        estimate: gib(e),
        measured: if measured { gib(m) } else { None },
    };
    let now = |v: f64| if measured { gib(v) } else { None };
    Body::Memory(Memory {
        components: parts.into_iter().map(component).collect(),
        used: now(17.0),
        peak: now(17.1),
        total: gib(79.6),
    })
}

/// The illustration's run up to step `last`.
pub fn support(last: u64) -> Vec<Event> {
    let mut noise = Noise::new(7);
    let mut time = BEGAN;
    let mut out = vec![
        at(time, 0, Body::Schema { version: SCHEMA_VERSION, program: "finetop".into() }),
        at(time, 0, Body::Start(Box::new(start()))),
        at(time, 0, memory(false)),
        at(time, 0, Body::State(State { state: RunState::Running, why: String::new() })),
        at(time, 0, eval(2.31, true)),
    ];
    out.extend(samples(0, time));
    for n in 1..=last {
        let x = n as f64;
        let warm = (x / 37.0).min(1.0);
        let rate = 2e-4 * warm * 0.5 * (1.0 + (std::f64::consts::PI * (x - 37.0).max(0.0) / 1181.0).cos());
        let rate = if n > 238 { rate * 0.95 } else { rate };
        let curve = 1.38 - 0.0003 * x + 0.85 * (-x / 42.0).exp() + 0.16 * (-x / 160.0).exp();
        let loss = if n == 412 { 1.284 } else { curve + 0.085 * noise.draw() };
        let grad = (0.41 + 2.6 * (-x / 30.0).exp() + 0.45 * (1.0 + 0.4 * noise.draw())).clamp(0.41, 3.9);
        time += 1.385;
        out.push(at(time, n, step(n, loss, if n == 412 { 0.84 } else { grad }, rate, x / 1218.0, &mut noise)));
        if n == 5 {
            out.push(at(time, n, memory(true)));
        }
        let checked = |path: String, best| {
            Body::Checkpoint(Checkpoint { path, bytes: 462 << 20, seconds: 1.1, best, last: true })
        };
        match n {
            100 => out.push(at(time, n, eval(1.602, true))),
            200 => out.push(at(time, n, eval(1.363, true))),
            300 => out.push(at(time, n, eval(1.311, true))),
            400 => out.push(at(time, n, eval(1.313, false))),
            _ => {}
        }
        if n % 50 == 0 {
            out.extend(samples(n, time));
        }
        // Every 200 steps, and where eval is best.
        if n % 200 == 0 || n == 300 {
            out.push(at(time, n, checked(format!("checkpoints/step-{n}"), n == 300)));
        }
        if n == 238 {
            let change = Change {
                key: "train.learning_rate".into(),
                from: "2e-4".into(),
                to: "1.9e-4".into(),
                by: "you".into(),
            };
            out.push(at(time, n, Body::Change(change)));
        }
        if n == 400 {
            out.push(at(time, n, Body::Finding(stopped_improving())));
        }
    }
    out
}

fn stopped_improving() -> Finding {
    Finding {
        rule: "overfitting".into(),
        severity: Severity::Warning,
        title: "eval stopped improving".into(),
        evidence: "eval 1.311 → 1.313 in 2 evals, train still falling 0.011 per 100 steps.".into(),
        cause: "1,912 near-duplicate rows.".into(),
        fix: Some(Fix {
            label: "branch from 300".into(),
            set: vec![("data.dedup".into(), "true".into())],
            action: FixAction::Branch { step: 300 },
        }),
        since: 300,
        resolved: false,
        source: "guidance: symptoms, model gets dumber".into(),
    }
}

pub fn folder() -> PathBuf {
    PathBuf::from("/runs/qwen7b-support")
}

/// The model of a console that shows these events.
pub fn console(events: Vec<Event>, recipe: &str, theme: Theme, width: u16, height: u16) -> Model {
    let now = events.last().map_or(BEGAN, |e| e.time);
    let mut m = Model::new(theme, width, height, now);
    m.utc_offset = Some(0);
    m.machine = Machine { name: "H100 80GB".into(), cores: 32, ..Machine::default() };
    let name = events.iter().find_map(|e| match &e.body {
        Body::Start(s) => Some(s.run_name.clone()),
        _ => None,
    });
    update(
        &mut m,
        Message::Opened { run: folder(), name: name.unwrap_or_default(), recipe: recipe.into(), live: true },
    );
    update(&mut m, Message::Events { run: folder(), events });
    m
}

/// The illustration: step 412, a card, two watchers, utilisation seen from the start.
pub fn illustration(theme: Theme, width: u16, height: u16) -> Model {
    let events = support(412);
    let mut noise = Noise::new(3);
    let mut m = console(Vec::new(), RECIPE, theme, width, height);
    for chunk in events.chunks(6) {
        update(&mut m, Message::Events { run: folder(), events: chunk.to_vec() });
        update(&mut m, Message::Telemetry(card(&mut noise)));
    }
    update(&mut m, Message::Telemetry(Reading { gpu_percent: Some(98.0), ..card(&mut noise) }));
    update(&mut m, Message::Watching(2));
    let now = events.last().map_or(BEGAN, |e| e.time);
    update(&mut m, Message::Tick { now });
    m
}

fn card(noise: &mut Noise) -> Reading {
    let gib = |v: f64| Some((v * f64::from(1u32 << 30)) as u64);
    Reading {
        source: "nvml cuda:0".into(),
        gpu_percent: Some((97.0 + 1.5 * noise.draw()).clamp(80.0, 100.0)),
        cpu_percent: Some(12.0),
        power_watts: Some(612.0),
        temperature_celsius: Some(71.0),
        clock_mhz: Some(1755.0),
        used: gib(17.0),
        total: gib(79.6),
        host_used: gib(9.1),
        host_total: gib(1007.0),
    }
}

pub const DEMO_RECIPE: &str = r#"method = "sft"
run_name = "demo"
[model]
name_or_path = "demo"
max_seq_length = 256
[lora]
r = 16
lora_alpha = 32
[data]
train = "demo:train"
eval = "demo:eval"
[train]
per_device_train_batch_size = 8
gradient_accumulation_steps = 1
learning_rate = 2e-3
num_train_epochs = 12
eval_steps = 10
save_steps = 10
[sample]
prompts = [{ prompt = "Remind me to water the plants at 6 pm.", expect = "{}" }]
temperature = 0.0
max_new_tokens = 64
every_steps = 10
"#;

/// The demo on a CPU: samples turn at step 30, eval turns up after 60, the doctor speaks at 90;
/// with `mended`, its fix was applied at step 100.
pub fn demo(last: u64, mended: bool) -> Vec<Event> {
    let mut noise = Noise::new(11);
    let mut time = BEGAN;
    let start = Start {
        run_name: "demo".into(),
        tuning: "lora r16".into(),
        model: "demo".into(),
        device: "cpu".into(),
        device_name: "AMD EPYC, 2 threads".into(),
        host: "box".into(),
        total_steps: 180,
        num_train_epochs: 12.0,
        steps_per_epoch: 15.0,
        train_rows: 120,
        eval_rows: 40,
        truncated_share: 0.0,
        trainable_parameters: 390_000,
        effective_batch: 8,
        demo: true,
        ..start()
    };
    let mib = |v: u64| Some(v << 20);
    let memory = Memory {
        components: [
            ("weights f32", 21),
            ("adapters, grads, adam", 6),
            ("activations", 38),
            ("loss chunk", 4),
            ("program, allocator", 56),
        ]
        .map(|(name, e)| Component { name: name.into(), estimate: mib(e), measured: None })
        .to_vec(),
        used: mib(131),
        peak: mib(140),
        total: mib(16_000),
    };
    let mut out = vec![
        at(time, 0, Body::Start(Box::new(start))),
        at(time, 0, Body::Memory(memory)),
        at(time, 0, Body::State(State { state: RunState::Running, why: String::new() })),
    ];
    let prompts = [
        "Remind me to water the plants at 6 pm.",
        "Turn on the light in the kitchen.",
        "What is the weather in Oslo tomorrow?",
    ];
    let right = [
        r#"{"tool": "reminder", "what": "water the plants", "at": "18:00"}"#,
        r#"{"tool": "light", "room": "kitchen", "on": true}"#,
        r#"{"tool": "weather", "place": "Oslo", "day": "tomorrow"}"#,
    ];
    let draws = |n: u64, time: f64| -> Vec<Event> {
        let one = |i: usize| {
            let good = n >= 30 + 10 * i as u64;
            let wrong = "The plants are in the garden and the water is in the pot. She said that it is good to drink the water every day.";
            let mut s =
                sample(i as u32, prompts[i], if good { right[i] } else { wrong }, good, if good { 21 } else { 64 });
            s.settings.temperature = 0.0;
            s.expect = Some(right[i].into());
            s.score = Some(f64::from(u8::from(good)));
            at(time, n, Body::Sample(s))
        };
        (0..3).map(one).collect()
    };
    let evals = |n: u64| if n <= 60 { 0.42 + 2.6 * (-(n as f64) / 18.0).exp() } else { 0.51 + 0.006 * (n - 60) as f64 };
    out.push(at(time, 0, eval(evals(0), true)));
    out.extend(draws(0, time));
    for n in 1..=last {
        let x = n as f64;
        time += 0.48;
        let loss = (0.03 + 2.9 * (-x / 21.0).exp()) * (1.0 + 0.16 * noise.draw());
        let mut body = step(
            n,
            loss,
            0.6 + 2.0 * (-x / 30.0).exp() * (1.0 + 0.2 * noise.draw()),
            2e-3 * (1.0 - x / 180.0),
            x / 15.0,
            &mut noise,
        );
        if let Body::Step(s) = &mut body {
            (s.seconds, s.tokens_per_second, s.tokens) = (0.48, 1610.0 + 60.0 * noise.draw(), n * 760);
        }
        out.push(at(time, n, body));
        if n % 10 == 0 {
            out.push(at(time, n, eval(evals(n), n <= 60)));
            out.extend(draws(n, time));
            let path = format!("checkpoints/step-{n}");
            out.push(at(
                time,
                n,
                Body::Checkpoint(Checkpoint { path, bytes: 3 << 20, seconds: 0.1, best: n == 60, last: true }),
            ));
        }
        if n == 90 {
            out.push(at(time, n, Body::Finding(overfitting(false))));
        }
    }
    if mended {
        let change = Change { key: "roll_back".into(), from: last.to_string(), to: "60".into(), by: "you".into() };
        out.push(at(time + 1.0, 60, Body::Change(change)));
        out.push(at(time + 1.0, 60, eval(evals(60), true)));
        out.extend(draws(60, time + 1.0));
        out.push(at(time + 1.0, 60, Body::Finding(overfitting(true))));
        out.push(at(
            time + 1.1,
            60,
            Body::State(State { state: RunState::Stopped, why: "back to the best checkpoint".into() }),
        ));
    }
    out
}

fn overfitting(resolved: bool) -> Finding {
    Finding {
        rule: "overfitting".into(),
        severity: Severity::Warning,
        title: "overfitting".into(),
        evidence: "eval 0.513 → 0.690 since step 60, train loss fell 0.195 → 0.071 meanwhile.".into(),
        cause: "12 epochs over 120 rows: the rows are learnt by heart.".into(),
        fix: Some(Fix {
            label: "back to step 60 and stop".into(),
            set: vec![("train.num_train_epochs".into(), "4".into())],
            action: FixAction::RollBack { step: 60, stop: true },
        }),
        since: 60,
        resolved,
        source: "guidance: symptoms, model gets dumber".into(),
    }
}

/// The console of the demo: on the host, two cores.
pub fn demo_console(last: u64, mended: bool, theme: Theme, width: u16, height: u16) -> Model {
    let mut m = console(Vec::new(), DEMO_RECIPE, theme, width, height);
    let mut noise = Noise::new(5);
    let events = demo(last, mended);
    let now = events.last().map_or(BEGAN, |e| e.time);
    for chunk in events.chunks(4) {
        update(&mut m, Message::Events { run: folder(), events: chunk.to_vec() });
        let reading = Reading {
            source: "host".into(),
            cpu_percent: Some((96.0 + 2.0 * noise.draw()).min(100.0)),
            used: Some(131 << 20),
            total: Some(16_000 << 20),
            host_used: Some(2_300 << 20),
            host_total: Some(16_000 << 20),
            ..Reading::default()
        };
        update(&mut m, Message::Telemetry(reading));
    }
    update(&mut m, Message::Tick { now });
    m
}
