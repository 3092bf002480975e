//! What the events of a run add up to: series, samples, findings, checkpoints, time left.
//!
//! Folded one event at a time, so that following a long run costs nothing per frame. After a resume the
//! later steps replace the earlier; after a roll back the series end at the step rolled back to.

use crate::run::event::{
    Body, Change, Checkpoint, Completions, Eval, Event, Finding, Memory, RunState, Sample, Severity, Start, Step,
    kept_checkpoints,
};

/// Steps whose completions are kept: older ones are in the run's folder.
const COMPLETIONS: usize = 200;

/// A run as its events tell it.
#[derive(Debug, Clone, Default)]
pub struct Run {
    pub start: Start,
    pub state: Option<RunState>,
    /// Why it is in that state.
    pub why: String,
    /// Unix time of the first event and of the last.
    pub began: f64,
    pub last_time: f64,
    pub steps: Vec<Point>,
    pub evals: Vec<EvalPoint>,
    /// Own prompts newest first, then the recipe's in their order.
    pub prompts: Vec<PromptHistory>,
    /// The newest of GRPO's completions, one prompt a step.
    pub completions: Vec<At<Completions>>,
    /// Findings in order of arrival, open and resolved; one a rule.
    pub findings: Vec<Finding>,
    pub memory: Memory,
    pub checkpoints: Vec<At<Checkpoint>>,
    pub changes: Vec<At<Change>>,
    /// The last roll back: from which step to which, and the eval loss just before it.
    pub rolled_back: Option<RolledBack>,
}

/// One optimizer step, and the smoothed loss at it.
#[derive(Debug, Clone)]
pub struct Point {
    pub step: u64,
    pub time: f64,
    pub data: Step,
    /// Debiased exponential mean of the loss so far; NaN where the loss is not finite.
    pub smooth: f64,
    mean: f64,
    weight: f64,
}

#[derive(Debug, Clone)]
pub struct EvalPoint {
    pub step: u64,
    pub time: f64,
    pub data: Eval,
}

/// Something with the step and time it happened at.
#[derive(Debug, Clone)]
pub struct At<T> {
    pub step: u64,
    pub time: f64,
    pub what: T,
}

/// What was drawn for one prompt, oldest first.
#[derive(Debug, Clone)]
pub struct PromptHistory {
    /// Index among the recipe's prompts; `None` for one typed here.
    pub index: Option<u32>,
    pub prompt: String,
    pub draws: Vec<At<Sample>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RolledBack {
    pub from: u64,
    pub to: u64,
    pub eval_before: Option<f64>,
    pub score_before: Option<(u32, u32)>,
}

impl Run {
    /// Takes one event in.
    pub fn fold(&mut self, event: &Event) {
        if self.began == 0.0 {
            self.began = event.time;
        }
        self.last_time = self.last_time.max(event.time);
        let at = event.step;
        match &event.body {
            Body::Schema { .. } => {}
            Body::Start(s) => {
                if self.start.total_steps > 0 {
                    self.cut(s.resumed_from);
                }
                self.start = (**s).clone();
            }
            Body::Step(s) => self.step(at, event.time, s),
            Body::Eval(e) => {
                self.evals.retain(|p| p.step < at);
                self.evals.push(EvalPoint { step: at, time: event.time, data: e.clone() });
            }
            Body::Sample(s) => self.sample(at, event.time, s),
            Body::Completions(c) => {
                self.completions.retain(|p| p.step < at);
                if self.completions.len() >= COMPLETIONS {
                    self.completions.remove(0);
                }
                self.completions.push(At { step: at, time: event.time, what: c.clone() });
            }
            Body::Finding(f) => match self.findings.iter_mut().find(|g| g.rule == f.rule) {
                Some(old) => *old = f.clone(),
                None => self.findings.push(f.clone()),
            },
            Body::Memory(m) => self.memory(m),
            Body::Checkpoint(c) => {
                self.checkpoints.retain(|p| p.step != at);
                self.checkpoints.push(At { step: at, time: event.time, what: c.clone() });
            }
            Body::Change(c) if refusal(c).is_some() => {}
            Body::Change(c) => {
                if c.key == "train.max_steps" {
                    self.start.total_steps = c.to.parse().ok().filter(|n| *n > 0).unwrap_or(self.start.total_steps);
                }
                if c.key == "roll_back" {
                    self.roll_back(at, c);
                }
                self.changes.push(At { step: self.step_number().min(at), time: event.time, what: c.clone() });
            }
            Body::State(s) => {
                self.state = Some(s.state);
                self.why.clone_from(&s.why);
            }
        }
    }

    fn step(&mut self, step: u64, time: f64, data: &Step) {
        if self.steps.last().is_some_and(|p| p.step >= step) {
            let keep = self.steps.partition_point(|p| p.step < step);
            self.steps.truncate(keep);
        }
        let keep = kept_of_mean(self.start.total_steps, self.steps.len());
        let (mean, weight) = self.steps.last().map_or((0.0, 0.0), |p| (p.mean, p.weight));
        // The debiased mean that TensorBoard draws: divide by the weight that has been given out so far.
        let (mean, weight, smooth) = if data.loss.is_finite() {
            let (mean, weight) = (keep * mean + (1.0 - keep) * data.loss, keep * weight + 1.0 - keep);
            (mean, weight, mean / weight)
        } else {
            (mean, weight, f64::NAN)
        };
        self.steps.push(Point { step, time, data: data.clone(), smooth, mean, weight });
    }

    fn sample(&mut self, step: u64, time: f64, s: &Sample) {
        let at = At { step, time, what: s.clone() };
        let same = |h: &&mut PromptHistory| h.index == s.index && h.prompt == s.prompt;
        if let Some(history) = self.prompts.iter_mut().find(same) {
            history.draws.push(at);
            return;
        }
        let history = PromptHistory { index: s.index, prompt: s.prompt.clone(), draws: vec![at] };
        let place = match s.index {
            None => 0,
            Some(i) => self.prompts.iter().position(|h| h.index > Some(i)).unwrap_or(self.prompts.len()),
        };
        self.prompts.insert(place, history);
    }

    fn memory(&mut self, m: &Memory) {
        for c in &m.components {
            match self.memory.components.iter_mut().find(|old| old.name == c.name) {
                Some(old) => {
                    old.estimate = c.estimate.or(old.estimate);
                    old.measured = c.measured.or(old.measured);
                }
                None => self.memory.components.push(c.clone()),
            }
        }
        self.memory.used = m.used.or(self.memory.used);
        self.memory.peak = m.peak.or(self.memory.peak);
        self.memory.total = m.total.or(self.memory.total);
    }

    fn roll_back(&mut self, at: u64, c: &Change) {
        let from = self.step_number();
        let digits = |s: &str| s.chars().filter(char::is_ascii_digit).collect::<String>().parse::<u64>().ok();
        let to = digits(&c.to).unwrap_or(at);
        let eval_before = self.evals.last().map(|e| e.data.loss);
        self.rolled_back = Some(RolledBack { from, to, eval_before, score_before: self.score(u64::MAX) });
        self.cut(to);
    }

    /// Forgets what came after `step`.
    fn cut(&mut self, step: u64) {
        self.steps.retain(|p| p.step <= step);
        self.evals.retain(|p| p.step <= step);
        self.checkpoints.retain(|p| p.step <= step);
        self.changes.retain(|p| p.step <= step);
        self.completions.retain(|p| p.step <= step);
        for h in &mut self.prompts {
            h.draws.retain(|d| d.step <= step);
        }
        self.prompts.retain(|h| !h.draws.is_empty());
        self.findings.retain(|f| f.severity == Severity::Passed || f.since <= step);
    }

    /// The last step done.
    pub fn step_number(&self) -> u64 {
        self.steps.last().map_or(self.start.resumed_from, |p| p.step)
    }

    pub fn last(&self) -> Option<&Step> {
        self.steps.last().map(|p| &p.data)
    }

    /// The step at, or the last one before, `step`.
    pub fn point(&self, step: u64) -> Option<&Point> {
        let after = self.steps.partition_point(|p| p.step <= step);
        after.checked_sub(1).and_then(|i| self.steps.get(i))
    }

    pub fn best_eval(&self) -> Option<&EvalPoint> {
        // Of GRPO the highest reward is the best: its evaluations have no loss.
        let least = |e: &EvalPoint| match self.start.method.as_str() {
            "grpo" => -e.data.metrics.get("reward").copied().unwrap_or(f64::NAN),
            _ => e.data.loss,
        };
        self.evals.iter().filter(|e| least(e).is_finite()).min_by(|a, b| least(a).total_cmp(&least(b)))
    }

    /// The steps of the checkpoints that are left where at most `limit` are kept, ascending.
    pub fn kept_checkpoints(&self, limit: usize) -> Vec<u64> {
        let mut all: Vec<u64> = self.checkpoints.iter().map(|c| c.step).collect();
        all.sort_unstable();
        let best = self.checkpoints.iter().filter(|c| c.what.best).map(|c| c.step).max();
        kept_checkpoints(&all, limit, best, None)
    }

    /// The median time of the latest steps: warm-up, evaluation and sampling are outliers and do not count.
    pub fn step_seconds(&self) -> Option<f64> {
        median(self.steps.iter().rev().take(101).map(|p| p.data.seconds))
    }

    /// The median of the latest tokens per second.
    pub fn tokens_per_second(&self) -> Option<f64> {
        median(self.steps.iter().rev().take(9).map(|p| p.data.tokens_per_second))
    }

    /// Seconds until the last step; `None` while unknown or when there is nothing left.
    pub fn seconds_left(&self) -> Option<f64> {
        let left = self.start.total_steps.saturating_sub(self.step_number());
        self.step_seconds().map(|s| s * left as f64)
    }

    /// Where the loss is heading: the slope of a straight line through the latest tenth of the run, called
    /// falling or rising only where it stands out of the noise by twice its standard error.
    pub fn trend(&self) -> Trend {
        let window = (self.start.total_steps / 10).clamp(12, 400) as usize;
        let latest = self.steps.iter().rev().take(window).map(|p| (p.step as f64, p.data.loss));
        let points: Vec<(f64, f64)> = latest.filter(|p| p.1.is_finite()).collect();
        let n = points.len() as f64;
        if points.len() < 6 {
            return Trend::Unknown;
        }
        let mean = |f: fn(&(f64, f64)) -> f64| points.iter().map(f).sum::<f64>() / n;
        let (x, y) = (mean(|p| p.0), mean(|p| p.1));
        let spread: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
        let slope = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum::<f64>() / spread.max(1e-12);
        let residual: f64 = points.iter().map(|p| (p.1 - y - slope * (p.0 - x)).powi(2)).sum();
        let error = (residual / (n - 2.0) / spread.max(1e-12)).sqrt();
        match slope {
            s if s < -2.0 * error => Trend::Falling,
            s if s > 2.0 * error => Trend::Rising,
            _ => Trend::Level,
        }
    }

    /// Findings that hold now: the worst first, of the same severity the newest.
    pub fn open(&self) -> Vec<&Finding> {
        let mut open: Vec<_> = self.findings.iter().filter(|f| !f.resolved && f.severity != Severity::Passed).collect();
        open.sort_by_key(|f| (std::cmp::Reverse(f.severity), std::cmp::Reverse(f.since)));
        open
    }

    /// What preflight found well, and findings that hold no longer: title and evidence.
    pub fn passed(&self) -> Vec<(String, &str)> {
        let before = self.start.passed.iter().map(|(_, title, evidence)| (title.clone(), evidence.as_str()));
        let since = self.findings.iter().filter(|f| f.resolved || f.severity == Severity::Passed);
        let known = |t: &str| self.start.passed.iter().any(|(_, title, _)| title == t);
        let title = |f: &Finding| match f.severity {
            Severity::Passed => f.title.clone(),
            _ => format!("no longer: {}", f.title),
        };
        let since = since.filter(|f| !known(&f.title)).map(|f| (title(f), f.evidence.as_str()));
        before.chain(since).collect()
    }

    /// The steps at which samples were drawn, ascending.
    pub fn sample_steps(&self) -> Vec<u64> {
        let mut steps: Vec<u64> = self.prompts.iter().flat_map(|h| h.draws.iter().map(|d| d.step)).collect();
        steps.sort_unstable();
        steps.dedup();
        steps
    }

    /// How many of the prompts with an expected answer were right at the latest draw up to `step`: (k, n).
    pub fn score(&self, step: u64) -> Option<(u32, u32)> {
        let scores = self.prompts.iter().filter_map(|h| h.at(step)).filter_map(|s| s.what.score);
        let (right, n) = scores.fold((0, 0), |(k, n), s| (k + u32::from(s >= 0.5), n + 1));
        (n > 0).then_some((right, n))
    }
}

impl PromptHistory {
    /// The latest draw at or before `step`.
    pub fn at(&self, step: u64) -> Option<&At<Sample>> {
        self.draws.iter().rev().find(|d| d.step <= step)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trend {
    Falling,
    Level,
    Rising,
    Unknown,
}

/// How much of a smoothed mean a step keeps that comes after `before` others: a window of about an eightieth of the run,
/// 5 to 50 steps; shorter at the start, where values fall so fast that a long window would hang far above them.
pub fn kept_of_mean(total_steps: u64, before: usize) -> f64 {
    let settled = (80.0 / total_steps.max(1) as f64).clamp(0.02, 0.2);
    let early = (6.0 / (before + 1) as f64).min(0.35);
    1.0 - settled.max(early)
}

/// Why the trainer did not do what it was told, if this change says so.
pub fn refusal(c: &Change) -> Option<&str> {
    c.by.strip_prefix("refused: ")
}

/// The median of the finite values.
pub fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut v: Vec<f64> = values.filter(|v| v.is_finite()).collect();
    if v.is_empty() {
        return None;
    }
    let mid = v.len() / 2;
    Some(*v.select_nth_unstable_by(mid, f64::total_cmp).1)
}
