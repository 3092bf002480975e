//! A run as its events tell it: what later events replace is gone (a resume, a roll back).

use crate::recipe::{self, Recipe};
use crate::train::event::{Body, Event, Sample, Step, kept_checkpoints};
use std::collections::BTreeMap;

/// What rules look at.
#[derive(Debug, Clone)]
pub struct History {
    /// With the live changes so far.
    pub recipe: Recipe,
    /// 0 until it is known.
    pub total_steps: u64,
    pub train_rows: u64,
    /// By step, in order.
    pub steps: Vec<(u64, Step)>,
    /// (step, loss), in order.
    pub evals: Vec<(u64, f64)>,
    /// Completed rounds of the recipe's prompts, by step.
    pub rounds: Vec<(u64, Vec<Sample>)>,
    /// Checkpoints by step, and whether each is kept as the best by eval.
    pub checkpoints: BTreeMap<u64, bool>,
    /// (step, bytes used), in order.
    pub memory: Vec<(u64, u64)>,
    /// Size of the memory in bytes.
    pub memory_total: Option<u64>,
    /// The round being drawn.
    open_round: Option<(u64, Vec<Sample>)>,
}

impl History {
    pub fn new(recipe: &Recipe) -> Self {
        Self {
            recipe: recipe.clone(),
            total_steps: recipe.train.max_steps,
            train_rows: 0,
            steps: Vec::new(),
            evals: Vec::new(),
            rounds: Vec::new(),
            checkpoints: BTreeMap::new(),
            memory: Vec::new(),
            memory_total: None,
            open_round: None,
        }
    }

    pub fn take(&mut self, event: &Event) {
        if !matches!(event.body, Body::Sample(_)) {
            self.close_round();
        }
        match &event.body {
            Body::Start(start) => {
                self.total_steps = start.total_steps;
                self.train_rows = start.train_rows;
                self.forget_after(start.resumed_from);
            }
            Body::Step(step) => {
                if self.steps.last().is_some_and(|(last, _)| *last >= event.step) {
                    self.forget_after(event.step.saturating_sub(1));
                }
                self.steps.push((event.step, step.clone()));
            }
            Body::Eval(eval) => {
                self.evals.retain(|(step, _)| *step < event.step);
                self.evals.push((event.step, eval.loss));
            }
            Body::Sample(sample) => self.sample(event.step, sample),
            Body::Checkpoint(c) => {
                self.checkpoints.insert(event.step, c.best);
            }
            Body::Memory(m) => {
                self.memory_total = m.total.or(self.memory_total);
                if let Some(used) = m.used {
                    self.memory.push((event.step, used));
                }
            }
            Body::Change(c) if c.key == "roll_back" => {
                let digits: String = c.to.chars().filter(char::is_ascii_digit).collect();
                self.forget_after(digits.parse().unwrap_or(event.step));
            }
            Body::Change(c) => {
                if let Ok(changed) = recipe::with(&self.recipe, &c.key, &c.to) {
                    self.recipe = changed;
                    if c.key == "train.max_steps" && self.recipe.train.max_steps > 0 {
                        self.total_steps = self.recipe.train.max_steps;
                    }
                }
            }
            Body::Schema { .. } | Body::Completions(_) | Body::Finding(_) | Body::State(_) => {}
        }
    }

    /// Only the recipe's own prompts, drawn at the recipe's interval, tell how the run goes.
    fn sample(&mut self, step: u64, sample: &Sample) {
        if sample.index.is_none() || sample.on_demand {
            return;
        }
        if self.open_round.as_ref().is_some_and(|(at, _)| *at != step) {
            self.close_round();
        }
        let round = self.open_round.get_or_insert_with(|| (step, Vec::new()));
        round.1.push(sample.clone());
        if round.1.len() >= self.recipe.sample.prompts.len() {
            self.close_round();
        }
    }

    fn close_round(&mut self) {
        if let Some((step, samples)) = self.open_round.take() {
            self.rounds.retain(|(at, _)| *at < step);
            self.rounds.push((step, samples));
        }
    }

    fn forget_after(&mut self, step: u64) {
        self.close_round();
        self.steps.retain(|(at, _)| *at <= step);
        self.evals.retain(|(at, _)| *at <= step);
        self.rounds.retain(|(at, _)| *at <= step);
        self.memory.retain(|(at, _)| *at <= step);
        self.checkpoints.retain(|at, _| *at <= step);
    }

    /// The step the run stands at.
    pub fn now(&self) -> u64 {
        self.steps.last().map_or(0, |(step, _)| *step)
    }

    /// The last `n` steps, fewer at the start.
    pub fn last(&self, n: usize) -> &[(u64, Step)] {
        &self.steps[self.steps.len().saturating_sub(n)..]
    }

    /// Finite losses of some steps.
    pub fn losses(steps: &[(u64, Step)]) -> Vec<f64> {
        steps.iter().map(|(_, s)| s.loss).filter(|l| l.is_finite()).collect()
    }

    /// Finite losses of the steps in `(after, until]`.
    pub fn losses_between(&self, after: u64, until: u64) -> Vec<f64> {
        let from = self.steps.partition_point(|(s, _)| *s <= after);
        let to = self.steps.partition_point(|(s, _)| *s <= until);
        Self::losses(&self.steps[from..to.max(from)])
    }

    /// The evaluation with the lowest loss.
    pub fn best_eval(&self) -> Option<(u64, f64)> {
        self.evals.iter().filter(|(_, l)| l.is_finite()).copied().min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// The checkpoint nearest before or at `step` that is still there.
    pub fn checkpoint_at_or_before(&self, step: u64) -> Option<u64> {
        let all: Vec<u64> = self.checkpoints.keys().copied().collect();
        let best = self.checkpoints.iter().rev().find(|(_, best)| **best).map(|(s, _)| *s);
        let kept = kept_checkpoints(&all, self.recipe.train.save_total_limit, best, None);
        kept.into_iter().rfind(|s| *s <= step)
    }

    /// Steps of warm-up, as the schedule has them.
    pub fn warmup_steps(&self) -> u64 {
        let t = &self.recipe.train;
        match t.warmup_steps {
            _ if t.lr_scheduler_type == "constant" => 0,
            0 => (t.warmup_ratio * self.total_steps as f64).ceil() as u64,
            n => n,
        }
    }
}
