//! What a run's events add up to, kept so small that a hundred runs are listed at once, and grown event by
//! event, so that a run already seen costs only what it wrote since.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::event::{Body, Event, Finding, RunState, Severity};

/// Points of a sparkline.
pub const CURVE_POINTS: usize = 64;

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Digest {
    pub run_name: String,
    pub method: String,
    pub tuning: String,
    pub model: String,
    pub total_steps: u64,
    /// The latest step, and the time of the first and the latest event.
    pub step: u64,
    pub first: f64,
    pub latest: f64,
    pub state: Option<RunState>,
    pub why: String,
    pub curve: Curve,
    /// Of the latest step; none before the first, or where it is not finite.
    pub loss: Option<f64>,
    /// Smoothed over about ten steps; 0 before the second.
    pub seconds_per_step: f64,
    /// Whether the next step is the first of its trainer.
    pub warming_up: bool,
    /// Finite evaluation losses, by step.
    pub evals: BTreeMap<u64, f64>,
    /// Open findings, by rule.
    pub findings: BTreeMap<String, OpenFinding>,
    /// Bytes used of bytes there are, as last measured.
    pub memory: Option<(u64, u64)>,
}

/// A finding that has not been resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenFinding {
    pub severity: Severity,
    pub rule: String,
    pub title: String,
    pub since: u64,
}

impl Digest {
    pub fn add(&mut self, event: &Event) {
        if self.first == 0.0 {
            self.first = event.time;
        }
        self.latest = event.time;
        match &event.body {
            Body::Start(start) => {
                self.run_name.clone_from(&start.run_name);
                self.method.clone_from(&start.method);
                self.tuning.clone_from(&start.tuning);
                self.model.clone_from(&start.model);
                self.total_steps = start.total_steps;
                self.back_to(start.resumed_from);
                self.warming_up = true;
            }
            Body::Step(step) => {
                self.step = event.step;
                self.loss = Some(step.loss).filter(|l| l.is_finite());
                // The first step of a trainer warms caches up and is no measure.
                let fresh = self.seconds_per_step == 0.0;
                let weight = if fresh { 1.0 } else { 0.1 };
                if !std::mem::take(&mut self.warming_up) {
                    self.seconds_per_step += weight * (step.seconds - self.seconds_per_step);
                }
                self.curve.add(event.step, step.loss);
            }
            Body::Eval(eval) if eval.loss.is_finite() => {
                self.evals.insert(event.step, eval.loss);
            }
            Body::Finding(finding) => self.find(finding),
            Body::Memory(memory) => self.memory = memory.used.zip(memory.total),
            Body::Change(change) => match change.key.as_str() {
                "roll_back" => {
                    if let Ok(step) = change.to.parse() {
                        self.back_to(step);
                    }
                }
                "train.max_steps" => self.total_steps = change.to.parse().unwrap_or(self.total_steps),
                _ => {}
            },
            Body::State(state) => {
                self.state = Some(state.state);
                self.why.clone_from(&state.why);
            }
            Body::Eval(_) | Body::Schema { .. } | Body::Sample(_) | Body::Completions(_) | Body::Checkpoint(_) => {}
        }
    }

    /// The lowest evaluation loss and its step.
    pub fn eval_best(&self) -> Option<(f64, u64)> {
        self.evals.iter().map(|(&step, &loss)| (loss, step)).min_by(|a, b| a.0.total_cmp(&b.0))
    }

    /// By the pace of the latest steps.
    pub fn seconds_left(&self) -> Option<f64> {
        let left = self.total_steps.checked_sub(self.step).filter(|_| self.total_steps > 0)?;
        (self.seconds_per_step > 0.0).then_some(left as f64 * self.seconds_per_step)
    }

    /// Open findings of at least a warning.
    pub fn grave(&self) -> impl Iterator<Item = &OpenFinding> {
        self.findings.values().filter(|f| f.severity >= Severity::Warning)
    }

    /// The gravest of them, and of those the earliest.
    pub fn worst(&self) -> Option<&OpenFinding> {
        self.grave().min_by_key(|f| (std::cmp::Reverse(f.severity), f.since))
    }

    fn find(&mut self, finding: &Finding) {
        if finding.resolved || finding.severity == Severity::Passed {
            self.findings.remove(&finding.rule);
        } else {
            let Finding { severity, rule, title, since, .. } = finding.clone();
            self.findings.insert(rule.clone(), OpenFinding { severity, rule, title, since });
        }
    }

    /// After a resume or a roll back: what was said of later steps no longer counts.
    fn back_to(&mut self, step: u64) {
        self.curve.cut(step);
        if step < self.step {
            self.step = step;
            self.loss = self.curve.losses().last().copied();
        }
        self.evals.retain(|&s, _| s <= step);
        self.findings.retain(|_, f| f.since <= step);
    }
}

/// Mean losses over equal stretches of steps; the stretch doubles when the points run out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Steps a point stands for.
    stretch: u64,
    /// (sum, count) of the finite losses of each stretch.
    points: Vec<(f64, u32)>,
}

impl Default for Curve {
    fn default() -> Self {
        Self { stretch: 1, points: Vec::new() }
    }
}

impl Curve {
    fn add(&mut self, step: u64, loss: f64) {
        if !loss.is_finite() {
            return;
        }
        while self.place(step) >= CURVE_POINTS {
            self.points =
                self.points.chunks(2).map(|c| c.iter().fold((0.0, 0), |a, p| (a.0 + p.0, a.1 + p.1))).collect();
            self.stretch *= 2;
        }
        let place = self.place(step);
        if self.points.len() <= place {
            self.points.resize(place + 1, (0.0, 0));
        }
        self.points[place].0 += loss;
        self.points[place].1 += 1;
    }

    fn place(&self, step: u64) -> usize {
        usize::try_from(step.saturating_sub(1) / self.stretch).unwrap_or(usize::MAX)
    }

    /// Forgets the steps after `step`. The stretch that it falls into keeps its earlier mean.
    fn cut(&mut self, step: u64) {
        let keep = if step == 0 { 0 } else { self.place(step) + 1 };
        self.points.truncate(keep);
    }

    /// At most [`CURVE_POINTS`] losses, in order.
    pub fn losses(&self) -> Vec<f64> {
        self.points.iter().filter(|p| p.1 > 0).map(|&(sum, n)| sum / f64::from(n)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::event::{Change, Eval, Start, State, Step};

    fn step(n: u64, loss: f64) -> Event {
        let body = Step {
            loss,
            grad_norm: 1.0,
            learning_rate: 1e-4,
            epoch: 0.0,
            tokens: n,
            label_tokens: n,
            tokens_per_second: 1.0,
            seconds: 1.0,
            rows: vec![],
            metrics: Default::default(),
        };
        Event { time: n as f64, step: n, body: Body::Step(body) }
    }

    fn eval(n: u64, loss: f64) -> Event {
        let eval = Eval {
            loss,
            perplexity: loss.exp(),
            label_tokens: 1,
            seconds: 0.0,
            best: false,
            metrics: Default::default(),
        };
        Event { time: n as f64, step: n, body: Body::Eval(eval) }
    }

    fn start(resumed_from: u64) -> Event {
        let start = Start { resumed_from, total_steps: 1000, model: "m".into(), ..Start::default() };
        Event { time: 1.0, step: resumed_from, body: Body::Start(Box::new(start)) }
    }

    fn finding(rule: &str, severity: Severity, since: u64, resolved: bool) -> Event {
        let finding = Finding {
            rule: rule.into(),
            severity,
            title: rule.into(),
            evidence: String::new(),
            cause: String::new(),
            fix: None,
            since,
            resolved,
            source: String::new(),
        };
        Event { time: 1.0, step: since, body: Body::Finding(finding) }
    }

    #[test]
    fn a_long_run_becomes_few_points_whose_means_are_those_of_the_steps() {
        let mut digest = Digest::default();
        (1..=1000).for_each(|n| digest.add(&step(n, n as f64)));
        let losses = digest.curve.losses();
        assert!(losses.len() <= CURVE_POINTS && losses.len() > CURVE_POINTS / 2, "{}", losses.len());
        assert_eq!(losses[0], 8.5, "the mean of steps 1 to 16");
        digest.add(&step(1001, f64::NAN));
        assert!(digest.curve.losses().iter().all(|l| l.is_finite()));
    }

    #[test]
    fn steps_after_the_checkpoint_resumed_from_count_anew() {
        let mut digest = Digest::default();
        digest.add(&start(0));
        (1..=40).for_each(|n| digest.add(&step(n, 2.0)));
        digest.add(&eval(20, 1.5));
        digest.add(&eval(40, 1.1));
        digest.add(&finding("overfitting", Severity::Warning, 35, false));
        digest.add(&start(20));
        assert_eq!((digest.step, digest.curve.losses().len()), (20, 20));
        assert_eq!(digest.eval_best(), Some((1.5, 20)));
        assert_eq!(digest.worst(), None);
    }

    #[test]
    fn rolling_back_leaves_the_best_evaluation_and_drops_what_came_later() {
        let mut digest = Digest::default();
        (1..=90).for_each(|n| digest.add(&step(n, 1.0)));
        digest.add(&eval(60, 0.5));
        digest.add(&eval(90, 0.7));
        let change = Change { key: "roll_back".into(), from: "90".into(), to: "60".into(), by: "you".into() };
        digest.add(&Event { time: 91.0, step: 60, body: Body::Change(change) });
        assert_eq!((digest.step, digest.evals.len(), digest.eval_best()), (60, 1, Some((0.5, 60))));
    }

    #[test]
    fn the_worst_open_finding_is_the_gravest_and_then_the_earliest() {
        let mut digest = Digest::default();
        digest.add(&finding("note", Severity::Note, 1, false));
        assert_eq!(digest.worst(), None);
        digest.add(&finding("late", Severity::Warning, 30, false));
        digest.add(&finding("early", Severity::Warning, 20, false));
        assert_eq!(digest.worst().unwrap().rule, "early");
        digest.add(&finding("grave", Severity::Error, 40, false));
        assert_eq!(digest.worst().unwrap().rule, "grave");
        digest.add(&finding("grave", Severity::Error, 40, true));
        assert_eq!(digest.worst().unwrap().rule, "early");
    }

    #[test]
    fn a_digest_survives_being_kept_as_json() {
        let mut digest = Digest::default();
        digest.add(&start(0));
        (1..=100).for_each(|n| digest.add(&step(n, 1.0 / n as f64)));
        digest.add(&eval(50, f64::NAN));
        digest.add(&eval(60, 0.25));
        digest.add(&Event {
            time: 2.0,
            step: 100,
            body: Body::State(State { state: RunState::Finished, why: String::new() }),
        });
        let back: Digest = serde_json::from_str(&serde_json::to_string(&digest).unwrap()).unwrap();
        assert_eq!(back, digest);
    }
}
