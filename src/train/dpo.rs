//! Direct preference optimization (Rafailov et al., 2023): the loop, top to bottom. Names and numbers are those of
//! TRL's `DPOTrainer`.
//!
//! A pair is two examples over one prompt. Loss and gradients: the mean over the pairs of the whole effective batch. The
//! reference says each pair once, alone, when it is first met: so its numbers depend on nothing but the pair, an epoch
//! later they are still at hand, and a resumed run works out the same.

use super::event::Metrics;
use super::outlet::Outlet;
use super::parts::course::{Counts, Course, Evaluation, Method};
use super::parts::ending::Ending;
use super::parts::preference_loss::{Lost, Pair};
use super::parts::reference::Reference;
use super::setup::Prepared;
use crate::data::batch::{Batch, Example};
use crate::model::engine::{Engine, LogProbabilities, Voice, Weighed};
use crate::model::llama::{Pass, Weighted};
use crate::model::ranks::Ranks;
use crate::recipe::{DpoSection, Recipe};
use crate::{Error, Result};
use std::iter::repeat_n;
use std::path::Path;
use std::time::Instant;

/// Log-probabilities as the model has them.
const PLAIN: Weighted = Weighted { temperature: 1.0, entropies: false };

/// Train to the end, a stop, or an error; from the checkpoint in `resume` where there is one.
pub fn train(recipe: &Recipe, prepared: Prepared, outlet: &mut dyn Outlet, resume: Option<&Path>) -> Result<Ending> {
    let preferences = Preferences::new(recipe, &prepared)?;
    let mut run = Course::new(recipe, prepared, preferences, outlet, resume)?;
    let ending = go(&mut run)?;
    run.finish(ending)
}

/// What looks at held-out rows, for a model as it is before the first step.
pub fn evaluator(recipe: &Recipe, prepared: &Prepared) -> Result<Box<dyn Method>> {
    Ok(Box::new(Preferences::new(recipe, prepared)?))
}

fn go(run: &mut Course<Preferences>) -> Result<Ending> {
    run.first()?;
    loop {
        if let Some(ending) = run.obey()? {
            return Ok(ending);
        }

        // The pairs of the step, and what the reference says of those not met before.
        let (started, step) = (Instant::now(), run.progress.step);
        let micro_batches = run.prepared.plan.micro_batches(step);
        let share = 1.0 / micro_batches.iter().map(Vec::len).sum::<usize>().max(1) as f64;
        let (model, data, ranks) = (&mut run.prepared.speaker.model, &run.prepared.data.train, &mut run.prepared.ranks);
        let Preferences { dpo, reference, train: known, .. } = &mut run.method;
        let mine: Vec<_> = micro_batches.iter().enumerate().filter(|(i, _)| ranks.mine(*i)).collect();
        let pairs: Vec<usize> = mine.iter().flat_map(|(_, pairs)| pairs.iter().copied()).collect();
        ask(reference, known, model, data, &pairs)?;

        // Forward, the pairs' losses, and backward, over each micro-batch.
        let (seed, checkpointing) = (run.recipe.train.seed, run.prepared.checkpointing);
        let mut tally = Tally::default();
        let (mut tokens, mut label_tokens, mut rows) = (0, 0, Vec::new());
        model.zero_grad()?;
        for (micro, pairs) in mine {
            let batch = laid(data, pairs);
            let pass = Pass { seed, step, micro: micro as u64, checkpointing };
            model.weighted_backward(&batch, PLAIN, &pass, &mut |said| {
                let mut weighed = Weighed::default();
                for (pair, labels) in measured(data, pairs, said, known) {
                    let lost = tally.add(&pair, dpo);
                    weighed.loss += share * lost.loss;
                    weighed.weights.extend(repeat_n(share * lost.by_chosen, labels.0));
                    weighed.weights.extend(repeat_n(share * lost.by_rejected, labels.1));
                }
                Ok(weighed)
            })?;
            if let Some(ending) = run.orders.urgent() {
                return Ok(ending);
            }
        }

        for &p in micro_batches.iter().flatten() {
            let both = [&data[2 * p], &data[2 * p + 1]];
            tokens += both.iter().map(|e| e.ids.len() as u64).sum::<u64>();
            label_tokens += both.iter().map(|e| labels(e) as u64).sum::<u64>();
            rows.push(both[0].row);
        }
        tally.add_up(ranks)?;

        // Clip and step, log, and what is due.
        let done = run.optimize()?;
        run.log(&done, Counts { tokens, label_tokens, rows }, tally.metrics(), started)?;
        if let Some(ending) = run.due()? {
            return Ok(ending);
        }
    }
}

/// What the reference says of each pair: the log-probabilities of chosen and rejected; `None` until it is asked.
type Known = Vec<Option<(f64, f64)>>;

/// The loss, the reference, and what that has said so far.
struct Preferences {
    dpo: DpoSection,
    reference: Reference,
    train: Known,
    eval: Known,
}

impl Preferences {
    fn new(recipe: &Recipe, prepared: &Prepared) -> Result<Self> {
        let dpo = recipe.dpo.clone().ok_or_else(|| Error::usage("a recipe of method dpo has a [dpo] table"))?;
        let unknown = |examples: &[Example]| vec![None; examples.len() / 2];
        let reference = Reference::of(recipe, &prepared.speaker.model)?;
        Ok(Self { dpo, reference, train: unknown(&prepared.data.train), eval: unknown(&prepared.data.eval) })
    }
}

impl Method for Preferences {
    fn evaluate(
        &mut self,
        prepared: &mut Prepared,
        recipe: &Recipe,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Evaluation>> {
        let (model, data) = (&mut prepared.speaker.model, &prepared.data.eval);
        let all: Vec<usize> = (0..data.len() / 2).collect();
        let (mut tally, mut label_tokens) = (Tally::default(), 0);
        for pairs in all.chunks(recipe.train.per_device_eval_batch_size.max(1)) {
            ask(&self.reference, &mut self.eval, model, data, pairs)?;
            let batch = laid(data, pairs);
            label_tokens += batch.label_tokens();
            let said = model.log_probabilities(&[batch], PLAIN, Voice::Policy)?;
            for (pair, _) in measured(data, pairs, &said[0], &self.eval) {
                tally.add(&pair, &self.dpo);
            }
            if !go_on() {
                return Ok(None);
            }
        }
        let loss = tally.loss();
        Ok(Some(Evaluation { loss, label_tokens, metrics: tally.metrics(), score: loss }))
    }
}

/// Pairs laid end to end: chosen, rejected, chosen, …
fn laid(examples: &[Example], pairs: &[usize]) -> Batch {
    Batch::of(&pairs.iter().flat_map(|&p| [&examples[2 * p], &examples[2 * p + 1]]).collect::<Vec<_>>())
}

/// Labels of an example: the first token is predicted from nothing.
fn labels(example: &Example) -> usize {
    example.trained.iter().skip(1).filter(|&&t| t).count()
}

/// Ask the reference about those of `pairs` that it has not been asked about.
fn ask(
    reference: &Reference,
    known: &mut Known,
    model: &mut Engine,
    examples: &[Example],
    pairs: &[usize],
) -> Result<()> {
    let new: Vec<usize> = pairs.iter().copied().filter(|&p| known[p].is_none()).collect();
    let batches: Vec<Batch> = new.iter().map(|&p| laid(examples, &[p])).collect();
    for (&p, said) in new.iter().zip(reference.log_probabilities(model, &batches, PLAIN)?) {
        let (chosen, rejected) = said.labels.split_at(labels(&examples[2 * p]));
        known[p] = Some((sum(chosen), sum(rejected)));
    }
    Ok(())
}

/// Each pair of a batch, and the labels of its chosen and of its rejected answer.
fn measured<'a>(
    examples: &'a [Example],
    pairs: &'a [usize],
    said: &'a LogProbabilities,
    known: &'a Known,
) -> impl Iterator<Item = (Pair, (usize, usize))> + 'a {
    let mut rest = said.labels.as_slice();
    pairs.iter().map(move |&p| {
        let (a, b) = (&examples[2 * p], &examples[2 * p + 1]);
        let (chosen, after) = rest.split_at(labels(a));
        let (rejected, after) = after.split_at(labels(b));
        rest = after;
        let (ref_chosen, ref_rejected) = known[p].unwrap_or((f64::NAN, f64::NAN));
        let tokens = |e: &Example| e.trained.iter().filter(|&&t| t).count() as u64;
        let pair = Pair {
            chosen: sum(chosen),
            rejected: sum(rejected),
            ref_chosen,
            ref_rejected,
            chosen_tokens: tokens(a),
            rejected_tokens: tokens(b),
        };
        (pair, (chosen.len(), rejected.len()))
    })
}

fn sum(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v)).sum()
}

/// What pairs add up to, by TRL's names.
#[derive(Default)]
struct Tally {
    pairs: f64,
    loss: f64,
    sums: [f64; 5],
}

const NAMES: [&str; 5] = ["rewards/chosen", "rewards/rejected", "rewards/accuracies", "logps/chosen", "logps/rejected"];

impl Tally {
    fn add(&mut self, pair: &Pair, dpo: &DpoSection) -> Lost {
        let lost = pair.loss(dpo);
        let (chosen, rejected) = pair.rewards(dpo.beta);
        // At the reference both are 0; what rounding makes of that is no preference.
        let rounding = 1e-6 * dpo.beta * (pair.chosen.abs() + pair.rejected.abs());
        let right = f64::from(u8::from(chosen - rejected > rounding));
        let of_pair = [chosen, rejected, right, pair.chosen, pair.rejected];
        self.sums.iter_mut().zip(of_pair).for_each(|(sum, v)| *sum += v);
        self.loss += lost.loss;
        self.pairs += 1.0;
        lost
    }

    /// Over all processes.
    fn add_up(&mut self, ranks: &mut Ranks) -> Result<()> {
        if ranks.size() == 1 {
            return Ok(());
        }
        let mut all = [&[self.pairs, self.loss], self.sums.as_slice()].concat();
        ranks.sum(&mut all)?;
        (self.pairs, self.loss) = (all[0], all[1]);
        self.sums.copy_from_slice(&all[2..]);
        Ok(())
    }

    fn loss(&self) -> f64 {
        self.loss / self.pairs
    }

    fn metrics(&self) -> Metrics {
        let mean = |i: usize| self.sums[i] / self.pairs;
        let named = NAMES.iter().enumerate().map(|(i, n)| (n.to_string(), mean(i)));
        named.chain([("rewards/margins".to_string(), mean(0) - mean(1))]).filter(|(_, v)| v.is_finite()).collect()
    }
}
