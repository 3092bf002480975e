//! The course of a run: all that a loop does which is not its method. Orders, evaluation, checkpoints, samples, resume,
//! roll back, the optimizer step and the last words are the same for every method; what a method adds stands in
//! [`Method`], and its loop calls the rest by name.

use super::checkpoint::{self, Best, Progress};
use super::ending::Ending;
use super::orders::Orders;
use super::schedule::Schedule;
use super::{live, samples};
use crate::model::engine::Stepped;
use crate::ops::adamw::Rule;
use crate::recipe::{self, Recipe};
use crate::train::command::Command;
use crate::train::event::{self, Body, Metrics, RunState};
use crate::train::outlet::{Outlet, Saved};
use crate::train::setup::Prepared;
use crate::{Error, Kind, Result};
use std::path::Path;
use std::time::Instant;

/// Steps in a row with a non-finite loss or gradient after which a run ends: its weights are untouched by them.
const NON_FINITE_LIMIT: u32 = 3;

/// What held-out rows say of the model as it stands.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Evaluation {
    /// NaN for a method that has none.
    pub loss: f64,
    pub label_tokens: u64,
    pub metrics: Metrics,
    /// What the best checkpoint has least of: the loss, or what the method measures in its place.
    pub score: f64,
}

/// What differs from method to method outside its loop.
pub trait Method {
    /// Look at the held-out rows. `go_on` is asked between batches; when it says no the evaluation is dropped (`None`).
    fn evaluate(
        &mut self,
        prepared: &mut Prepared,
        recipe: &Recipe,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Evaluation>>;

    /// Files of its own for a checkpoint in `dir`.
    fn write(&self, _dir: &Path) -> Result<()> {
        Ok(())
    }

    /// Put back what [`Method::write`] wrote.
    fn read(&mut self, _dir: &Path) -> Result<()> {
        Ok(())
    }
}

/// What a run holds between steps. `recipe` is live: orders change it.
pub struct Course<'a, M> {
    pub recipe: Recipe,
    pub prepared: Prepared,
    pub progress: Progress,
    pub orders: Orders<'a>,
    pub method: M,
    /// The step at which each last happened, so that nothing happens twice.
    evaluated: Option<u64>,
    sampled: Option<u64>,
    saved: Option<(u64, Saved)>,
    non_finite: u32,
    paused: bool,
}

/// One optimizer step, done.
pub struct Done {
    /// The sum of what the micro-batches gave as their losses.
    pub loss: f64,
    pub grad_norm: f64,
    pub learning_rate: f64,
}

impl<'a, M: Method> Course<'a, M> {
    /// Ready to begin, or to go on from the checkpoint in `resume`; says so.
    pub fn new(
        recipe: &Recipe,
        prepared: Prepared,
        method: M,
        outlet: &'a mut dyn Outlet,
        resume: Option<&Path>,
    ) -> Result<Self> {
        let mut run = Self {
            recipe: recipe.clone(),
            progress: Progress::default(),
            orders: Orders::new(outlet, &prepared.ranks),
            prepared,
            method,
            evaluated: None,
            sampled: None,
            saved: None,
            non_finite: 0,
            paused: false,
        };
        match resume {
            Some(dir) => run.load(dir)?,
            None => {
                run.progress.data = run.prepared.fingerprint.clone();
                run.progress.processes = run.prepared.ranks.size();
            }
        }
        let mut start = run.prepared.start.clone();
        start.total_steps = run.total_steps();
        start.resumed_from = run.progress.step;
        run.orders.emit(run.progress.step, Body::Start(Box::new(start)))?;
        run.say(RunState::Running, "")?;
        Ok(run)
    }

    pub fn total_steps(&self) -> u64 {
        let t = &self.recipe.train;
        self.prepared.plan.total_steps(t.num_train_epochs, t.max_steps)
    }

    /// What is said before the first step: memory, eval and samples of the model as it is.
    pub fn first(&mut self) -> Result<()> {
        if self.progress.step == 0 {
            self.measure_memory()?;
            self.evaluate()?;
            self.sample_all()?;
        }
        Ok(())
    }

    /// Do what was ordered since the last step; `Some` where that, or the last step, ends the loop.
    pub fn obey(&mut self) -> Result<Option<Ending>> {
        while let Some(order) = self.orders.next(self.paused, &mut self.prepared.ranks)? {
            if let Some(ending) = self.obey_one(order)? {
                return Ok(Some(ending));
            }
        }
        Ok((self.progress.step >= self.total_steps()).then_some(Ending::Finished))
    }

    /// Add up over all processes, clip and step, at the rate of the schedule.
    pub fn optimize(&mut self) -> Result<Done> {
        let t = &self.recipe.train;
        let schedule = Schedule::of(t, self.total_steps())?;
        let learning_rate = t.learning_rate * schedule.factor(self.progress.step);
        let rule = Rule {
            lr: learning_rate,
            beta1: t.adam_beta1,
            beta2: t.adam_beta2,
            eps: t.adam_epsilon,
            weight_decay: t.weight_decay,
            max_grad_norm: t.max_grad_norm,
            table_lr: t.embedding_learning_rate.map(|peak| peak * schedule.factor(self.progress.step)),
        };
        self.prepared.speaker.model.reduce(&mut self.prepared.ranks)?;
        let Stepped { nll, grad_norm, taken } = self.prepared.speaker.model.step(&rule)?;
        self.progress.adam_steps += u64::from(taken);
        self.non_finite = if taken { 0 } else { self.non_finite + 1 };
        Ok(Done { loss: nll, grad_norm, learning_rate })
    }

    /// Count the step and say it. `tokens` went through the model in it, `label_tokens` of them are labels.
    pub fn log(&mut self, done: &Done, counts: Counts, metrics: Metrics, started: Instant) -> Result<()> {
        let seconds = started.elapsed().as_secs_f64();
        self.progress.step += 1;
        self.progress.tokens += counts.tokens;
        self.progress.label_tokens += counts.label_tokens;
        let step = event::Step {
            loss: done.loss,
            grad_norm: done.grad_norm,
            learning_rate: done.learning_rate,
            epoch: self.prepared.plan.epoch(self.progress.step),
            tokens: self.progress.tokens,
            label_tokens: self.progress.label_tokens,
            tokens_per_second: counts.tokens as f64 / seconds.max(1e-9),
            seconds,
            rows: counts.rows,
            metrics,
        };
        self.orders.emit(self.progress.step, Body::Step(step))
    }

    /// What is due after this step: evaluate, then save (so that the checkpoint knows of the eval), then sample.
    pub fn due(&mut self) -> Result<Option<Ending>> {
        if self.non_finite >= NON_FINITE_LIMIT {
            return Ok(Some(Ending::Finding(format!(
                "{NON_FINITE_LIMIT} steps in a row had a non-finite loss or gradient"
            ))));
        }
        let step = self.progress.step;
        if due(step, self.recipe.train.eval_steps) {
            self.evaluate()?;
            let patience = self.recipe.train.early_stopping_patience;
            if patience > 0 && self.progress.evals_without_improvement >= patience {
                return Ok(Some(Ending::Early(format!("{patience} evaluations without improvement"))));
            }
        }
        if due(step, self.recipe.train.save_steps) {
            self.save(false)?;
        }
        if due(step, self.recipe.sample.every_steps) {
            self.sample_all()?;
        }
        if step <= 2 || step.is_multiple_of(20) {
            self.measure_memory()?;
        }
        Ok(None)
    }

    /// The last words: eval and samples of the model as it ends, its checkpoint, and how it ended.
    pub fn finish(mut self, ending: Ending) -> Result<Ending> {
        if matches!(ending, Ending::Finished | Ending::Early(_) | Ending::RolledBack { .. }) {
            self.evaluate()?;
            self.sample_all()?;
        }
        if ending != Ending::Aborted {
            self.save(true)?;
        }
        let (state, why) = ending.state();
        self.say(state, &why)?;
        Ok(ending)
    }

    /// Do one order; `Some` ends the loop.
    fn obey_one(&mut self, order: Command) -> Result<Option<Ending>> {
        let step = self.progress.step;
        match order {
            Command::Pause if !self.paused => {
                self.paused = true;
                self.say(RunState::Paused, "")?;
            }
            Command::Resume if self.paused => {
                self.paused = false;
                self.say(RunState::Running, "")?;
            }
            Command::Pause | Command::Resume => {}
            Command::Stop => return Ok(Some(Ending::Stopped)),
            Command::Abort => return Ok(Some(Ending::Aborted)),
            Command::CheckpointNow => self.save(false)?,
            Command::EvaluateNow => {
                self.evaluated = None;
                self.evaluate()?;
            }
            Command::SampleNow { prompt, settings } => {
                let prompts = match prompt {
                    Some(text) => vec![(None, recipe::Prompt::Plain(text))],
                    None => samples::numbered(&self.recipe.sample.prompts),
                };
                for (index, prompt) in prompts {
                    let sample = samples::draw(&self.prepared.speaker, &self.recipe, index, &prompt, &settings, true)?;
                    self.orders.emit(step, Body::Sample(sample))?;
                }
            }
            Command::Set { key, value, by } => self.change(&key, &value, &by)?,
            Command::RollBack { step: to, stop, by } => return self.roll_back(to, stop, &by),
            // A branch is a run of its own: whoever orders it starts it from this run's checkpoint.
            Command::Branch { .. } => {}
        }
        Ok(None)
    }

    fn change(&mut self, key: &str, value: &str, by: &str) -> Result<()> {
        let changed = match live::change(&self.recipe, key, value) {
            Ok(changed) => changed,
            // A bad value is the sender's to mend; it never ends a run.
            Err(e) => return self.orders.refuse(self.progress.step, key, &e),
        };
        let (from, to) = (live::value(&self.recipe, key), live::value(&changed, key));
        self.recipe = changed;
        self.progress.changes.push((key.to_string(), value.to_string()));
        let change = event::Change { key: key.to_string(), from, to, by: by.to_string() };
        self.orders.emit(self.progress.step, Body::Change(change))
    }

    fn roll_back(&mut self, to: u64, stop: bool, by: &str) -> Result<Option<Ending>> {
        let from = self.progress.step;
        let Some(dir) = self.orders.outlet().checkpoint(to) else {
            let e = Error::new(format!("there is no checkpoint of step {to}")).next("choose one of the ○ marks");
            self.orders.refuse(from, "roll_back", &e)?;
            return Ok(None);
        };
        // What was changed live stays as it is now: a roll back mends the model, it does not undo the person.
        let (recipe, changes) = (self.recipe.clone(), self.progress.changes.clone());
        self.load(&dir)?;
        (self.recipe, self.progress.changes) = (recipe, changes);
        let change =
            event::Change { key: "roll_back".into(), from: from.to_string(), to: to.to_string(), by: by.to_string() };
        self.orders.emit(to, Body::Change(change))?;
        self.orders.outlet().forget_after(to)?;
        Ok(stop.then_some(Ending::RolledBack { from, to }))
    }

    /// Put model, optimizer and progress to where they stood at the checkpoint in `dir`.
    fn load(&mut self, dir: &Path) -> Result<()> {
        let progress = checkpoint::read(dir, &mut self.prepared.speaker.model)?;
        if progress.data != self.prepared.fingerprint {
            return Err(Error::new(
                "the training rows (or of DPO the given adapter) are not those of this run any more",
            )
            .kind(Kind::Usage)
            .at(dir.display())
            .next("put the data files back as they were, or start a new run with lora.adapter_name_or_path"));
        }
        if progress.processes != self.prepared.ranks.size() {
            let (then, now) = (progress.processes, self.prepared.ranks.size());
            return Err(Error::new(format!("{then} processes trained this run together, and now there are {now}"))
                .kind(Kind::Usage)
                .at(dir.display())
                .next(format!("resume it with {then}, as in --nproc-per-node {then}")));
        }
        for (key, value) in &progress.changes {
            self.recipe = live::change(&self.recipe, key, value)?;
        }
        self.method.read(dir)?;
        self.progress = progress;
        (self.evaluated, self.sampled, self.saved) = (None, None, None);
        self.non_finite = 0;
        Ok(())
    }

    fn evaluate(&mut self) -> Result<()> {
        let step = self.progress.step;
        if self.evaluated == Some(step) || self.prepared.data.eval.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let orders = &mut self.orders;
        let go_on = &mut || orders.urgent().is_none();
        let Some(e) = self.method.evaluate(&mut self.prepared, &self.recipe, go_on)? else {
            return Ok(());
        };
        self.evaluated = Some(step);
        // Step 0 is the base: there is nothing to keep of it, and no improvement is measured against it.
        let best = step > 0 && self.progress.best.is_none_or(|b| e.score < b.loss || b.step == step);
        if best {
            self.progress.best = Some(Best { loss: e.score, step });
            self.progress.evals_without_improvement = 0;
        } else if step > 0 {
            self.progress.evals_without_improvement += 1;
        }
        let body = event::Eval {
            loss: e.loss,
            perplexity: e.loss.exp(),
            label_tokens: e.label_tokens,
            seconds: started.elapsed().as_secs_f64(),
            best,
            metrics: e.metrics,
        };
        self.orders.emit(step, Body::Eval(body))?;
        if best { self.save(false) } else { Ok(()) }
    }

    fn sample_all(&mut self) -> Result<()> {
        let step = self.progress.step;
        if self.sampled == Some(step) {
            return Ok(());
        }
        self.sampled = Some(step);
        let settings = samples::settings(&self.recipe.sample);
        for (index, prompt) in samples::numbered(&self.recipe.sample.prompts) {
            if self.orders.urgent().is_some() {
                return Ok(());
            }
            let sample = samples::draw(&self.prepared.speaker, &self.recipe, index, &prompt, &settings, false)?;
            self.orders.emit(step, Body::Sample(sample))?;
        }
        Ok(())
    }

    fn save(&mut self, last: bool) -> Result<()> {
        let step = self.progress.step;
        let best = self.progress.best.is_some_and(|b| b.step == step);
        let started = Instant::now();
        let saved = match self.saved.take() {
            // The same numbers are on the disk: there is only to say that they are the last.
            Some((at, saved)) if at == step && last => saved,
            Some((at, saved)) if at == step => {
                self.saved = Some((at, saved));
                return Ok(());
            }
            _ => {
                let (prepared, progress, method) = (&self.prepared, &self.progress, &self.method);
                self.orders.outlet().save_checkpoint(step, &mut |dir| {
                    checkpoint::write(dir, &prepared.speaker.model, progress, &prepared.saved())?;
                    method.write(dir)
                })?
            }
        };
        self.saved = Some((step, saved.clone()));
        let seconds = started.elapsed().as_secs_f64();
        let checkpoint = event::Checkpoint { path: saved.path, bytes: saved.bytes, seconds, best, last };
        self.orders.emit(step, Body::Checkpoint(checkpoint))?;
        let best = self.progress.best.map(|b| b.step);
        self.orders.outlet().prune_checkpoints(self.recipe.train.save_total_limit, best, step)
    }

    fn measure_memory(&mut self) -> Result<()> {
        let memory = self.prepared.measure_memory();
        self.orders.emit(self.progress.step, Body::Memory(memory))
    }

    fn say(&mut self, state: RunState, why: &str) -> Result<()> {
        self.orders.emit(self.progress.step, Body::State(event::State { state, why: why.to_string() }))
    }
}

/// What went through the model in a step.
pub struct Counts {
    pub tokens: u64,
    pub label_tokens: u64,
    /// Row numbers of the effective batch.
    pub rows: Vec<u32>,
}

/// Whether something with this interval is due after `step`; 0 is never.
fn due(step: u64, every: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}
