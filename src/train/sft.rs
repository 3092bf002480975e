//! Supervised fine-tuning: the loop, top to bottom. Continued pre-training ([`super::cpt`]) is the same loop over
//! documents in place of chats.
//!
//! Loss and gradients: the sum over label tokens divided by the label tokens of the whole effective batch, so that
//! neither batch size nor accumulation changes what a token weighs.

use super::command::Command;
use super::event::{self, Body, RunState};
use super::outlet::{Outlet, Saved};
use super::parts::checkpoint::{self, Best, Progress};
use super::parts::evaluate::evaluate;
use super::parts::orders::Orders;
use super::parts::schedule::Schedule;
use super::parts::{ending::Ending, live, samples};
use super::setup::Prepared;
use crate::data::batch::Batch;
use crate::model::engine::Stepped;
use crate::model::llama::Pass;
use crate::model::ranks::Ranks;
use crate::ops::adamw::Rule;
use crate::recipe::{self, Recipe};
use crate::{Error, Kind, Result};
use std::path::Path;
use std::time::Instant;

/// Steps in a row with a non-finite loss or gradient after which a run ends: its weights are untouched by them.
const NON_FINITE_LIMIT: u32 = 3;

/// Train to the end, a stop, or an error; from the checkpoint in `resume` where there is one.
pub fn train(recipe: &Recipe, prepared: Prepared, outlet: &mut dyn Outlet, resume: Option<&Path>) -> Result<Ending> {
    let mut run = Loop::new(recipe, prepared, outlet)?;
    match resume {
        Some(dir) => run.load(dir)?,
        None => {
            run.progress.data = run.prepared.fingerprint.clone();
            run.progress.processes = run.ranks.size();
        }
    }
    run.announce()?;
    let ending = run.go()?;
    run.finish(ending)
}

/// What the loop holds between steps. `recipe` is live: orders change it.
struct Loop<'a> {
    recipe: Recipe,
    prepared: Prepared,
    progress: Progress,
    orders: Orders<'a>,
    ranks: Ranks,
    /// The step at which each last happened, so that nothing happens twice.
    evaluated: Option<u64>,
    sampled: Option<u64>,
    saved: Option<(u64, Saved)>,
    non_finite: u32,
    paused: bool,
}

impl<'a> Loop<'a> {
    fn new(recipe: &Recipe, mut prepared: Prepared, outlet: &'a mut dyn Outlet) -> Result<Self> {
        let ranks = std::mem::replace(&mut prepared.ranks, Ranks::alone());
        Ok(Self {
            recipe: recipe.clone(),
            prepared,
            progress: Progress::default(),
            orders: Orders::new(outlet, &ranks),
            ranks,
            evaluated: None,
            sampled: None,
            saved: None,
            non_finite: 0,
            paused: false,
        })
    }

    fn total_steps(&self) -> u64 {
        let t = &self.recipe.train;
        self.prepared.plan.total_steps(t.num_train_epochs, t.max_steps)
    }

    /// The micro-batches of a step, laid end to end.
    fn batches(&self, step: u64) -> Vec<Batch> {
        let examples = &self.prepared.data.train;
        let of = |micro: &Vec<usize>| Batch::of(&micro.iter().map(|&i| &examples[i]).collect::<Vec<_>>());
        self.prepared.plan.micro_batches(step).iter().map(of).collect()
    }

    fn announce(&mut self) -> Result<()> {
        let mut start = self.prepared.start.clone();
        start.total_steps = self.total_steps();
        start.resumed_from = self.progress.step;
        self.orders.emit(self.progress.step, Body::Start(Box::new(start)))?;
        self.say(RunState::Running, "")
    }

    fn go(&mut self) -> Result<Ending> {
        if self.progress.step == 0 {
            self.measure_memory()?;
            self.evaluate()?;
            self.sample_all()?;
        }
        loop {
            while let Some(order) = self.orders.next(self.paused, &mut self.ranks)? {
                if let Some(ending) = self.obey(order)? {
                    return Ok(ending);
                }
            }
            let (step, t) = (self.progress.step, &self.recipe.train);
            if step >= self.total_steps() {
                return Ok(Ending::Finished);
            }

            // Batch, then forward and backward over each micro-batch, at the weight of the whole effective batch.
            let started = Instant::now();
            let batches = self.batches(step);
            let labels: u64 = batches.iter().map(Batch::label_tokens).sum();
            let tokens: u64 = batches.iter().map(|b| b.ids.len() as u64).sum();
            let total = self.total_steps();
            let model = &mut self.prepared.speaker.model;
            model.zero_grad()?;
            for (micro, batch) in batches.iter().enumerate().filter(|(i, _)| self.ranks.mine(*i)) {
                let pass = Pass { seed: t.seed, step, micro: micro as u64, checkpointing: self.prepared.checkpointing };
                model.forward_backward(batch, 1.0 / labels.max(1) as f64, &pass)?;
                // A stop does not wait for a long step: what was added up is dropped, and made anew after a resume.
                if let Some(ending) = self.orders.urgent() {
                    return Ok(ending);
                }
            }

            // Add up over all processes, clip and step.
            model.reduce(&mut self.ranks)?;
            let schedule = Schedule::new(&t.lr_scheduler_type, t.warmup_steps, t.warmup_ratio, total)?;
            let learning_rate = t.learning_rate * schedule.factor(step);
            let rule = Rule {
                lr: learning_rate,
                beta1: t.adam_beta1,
                beta2: t.adam_beta2,
                eps: t.adam_epsilon,
                weight_decay: t.weight_decay,
                max_grad_norm: t.max_grad_norm,
            };
            let Stepped { nll, grad_norm, taken } = model.step(&rule)?;
            let loss = if labels > 0 { nll / labels as f64 } else { f64::NAN };
            self.progress.adam_steps += u64::from(taken);
            self.non_finite = if taken { 0 } else { self.non_finite + 1 };

            // Log.
            let seconds = started.elapsed().as_secs_f64();
            self.progress.step += 1;
            self.progress.tokens += tokens;
            self.progress.label_tokens += labels;
            self.orders.emit(
                self.progress.step,
                Body::Step(event::Step {
                    loss,
                    grad_norm,
                    learning_rate,
                    epoch: self.prepared.plan.epoch(self.progress.step),
                    tokens: self.progress.tokens,
                    label_tokens: self.progress.label_tokens,
                    tokens_per_second: tokens as f64 / seconds.max(1e-9),
                    seconds,
                    rows: batches.iter().flat_map(|b| b.rows.iter().copied()).collect(),
                }),
            )?;
            if self.non_finite >= NON_FINITE_LIMIT {
                return Ok(Ending::Finding(format!(
                    "{NON_FINITE_LIMIT} steps in a row had a non-finite loss or gradient"
                )));
            }

            // What is due after this step: evaluate, then save (so that the checkpoint knows of the eval), then sample.
            let step = self.progress.step;
            if due(step, self.recipe.train.eval_steps) {
                self.evaluate()?;
                let patience = self.recipe.train.early_stopping_patience;
                if patience > 0 && self.progress.evals_without_improvement >= patience {
                    return Ok(Ending::Early(format!("{patience} evaluations without improvement")));
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
        }
    }

    /// The last words: eval and samples of the model as it ends, its checkpoint, and how it ended.
    fn finish(&mut self, ending: Ending) -> Result<Ending> {
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

    /// Do what was ordered; `Some` ends the loop.
    fn obey(&mut self, order: Command) -> Result<Option<Ending>> {
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
            return Err(Error::new("the training rows are not those of this run any more")
                .kind(Kind::Usage)
                .at(dir.display())
                .next("put the data files back as they were, or start a new run with lora.adapter_name_or_path"));
        }
        if progress.processes != self.ranks.size() {
            let (then, now) = (progress.processes, self.ranks.size());
            return Err(Error::new(format!("{then} processes trained this run together, and now there are {now}"))
                .kind(Kind::Usage)
                .at(dir.display())
                .next(format!("resume it with {then}, as in --nproc-per-node {then}")));
        }
        for (key, value) in &progress.changes {
            self.recipe = live::change(&self.recipe, key, value)?;
        }
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
        let size = self.recipe.train.per_device_eval_batch_size;
        let go_on = &mut || self.orders.urgent().is_none();
        let Some(e) = evaluate(&self.prepared.speaker.model, &mut self.ranks, &self.prepared.data.eval, size, go_on)?
        else {
            return Ok(());
        };
        self.evaluated = Some(step);
        // Step 0 is the base: there is nothing to keep of it, and no improvement is measured against it.
        let best = step > 0 && self.progress.best.is_none_or(|b| e.loss < b.loss || b.step == step);
        if best {
            self.progress.best = Some(Best { loss: e.loss, step });
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
                let (prepared, progress) = (&self.prepared, &self.progress);
                self.orders.outlet().save_checkpoint(step, &mut |dir| {
                    checkpoint::write(dir, &prepared.speaker.model, progress, &prepared.saved())
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

/// Whether something with this interval is due after `step`; 0 is never.
fn due(step: u64, every: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}
