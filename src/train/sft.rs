//! Supervised fine-tuning: the loop, top to bottom. Continued pre-training ([`super::cpt`]) is the same loop over
//! documents in place of chats.
//!
//! Loss and gradients: the sum over label tokens divided by the label tokens of the whole effective batch, so that
//! neither batch size nor accumulation changes what a token weighs.

use super::event::Metrics;
use super::outlet::Outlet;
use super::parts::course::{Counts, Course, Evaluation, Method};
use super::parts::ending::Ending;
use super::parts::evaluate::evaluate;
use super::setup::Prepared;
use crate::Result;
use crate::data::batch::Batch;
use crate::model::llama::Pass;
use crate::recipe::Recipe;
use std::path::Path;
use std::time::Instant;

/// Train to the end, a stop, or an error; from the checkpoint in `resume` where there is one.
pub fn train(recipe: &Recipe, prepared: Prepared, outlet: &mut dyn Outlet, resume: Option<&Path>) -> Result<Ending> {
    let mut run = Course::new(recipe, prepared, Likelihood, outlet, resume)?;
    let ending = go(&mut run)?;
    run.finish(ending)
}

/// What looks at held-out rows.
pub fn evaluator() -> Box<dyn Method> {
    Box::new(Likelihood)
}

fn go(run: &mut Course<Likelihood>) -> Result<Ending> {
    run.first()?;
    loop {
        if let Some(ending) = run.obey()? {
            return Ok(ending);
        }

        // Batch, then forward and backward over each micro-batch, at the weight of the whole effective batch.
        let (started, step) = (Instant::now(), run.progress.step);
        let batches = batches(&run.prepared, step);
        let labels: u64 = batches.iter().map(Batch::label_tokens).sum();
        let tokens: u64 = batches.iter().map(|b| b.ids.len() as u64).sum();
        let (seed, checkpointing) = (run.recipe.train.seed, run.prepared.checkpointing);
        let (ranks, model) = (&run.prepared.ranks, &mut run.prepared.speaker.model);
        model.zero_grad()?;
        for (micro, batch) in batches.iter().enumerate().filter(|(i, _)| ranks.mine(*i)) {
            let pass = Pass { seed, step, micro: micro as u64, checkpointing };
            model.forward_backward(batch, 1.0 / labels.max(1) as f64, &pass)?;
            // A stop does not wait for a long step: what was added up is dropped, and made anew after a resume.
            if let Some(ending) = run.orders.urgent() {
                return Ok(ending);
            }
        }

        // Clip and step, log, and what is due.
        let mut done = run.optimize()?;
        done.loss = if labels > 0 { done.loss / labels as f64 } else { f64::NAN };
        let rows = batches.iter().flat_map(|b| b.rows.iter().copied()).collect();
        run.log(&done, Counts { tokens, label_tokens: labels, rows }, Metrics::new(), started)?;
        if let Some(ending) = run.due()? {
            return Ok(ending);
        }
    }
}

/// The micro-batches of a step, laid end to end.
fn batches(prepared: &Prepared, step: u64) -> Vec<Batch> {
    let examples = &prepared.data.train;
    let of = |micro: &Vec<usize>| Batch::of(&micro.iter().map(|&i| &examples[i]).collect::<Vec<_>>());
    prepared.plan.micro_batches(step).iter().map(of).collect()
}

/// Held-out rows are looked at as training ones are: by the likelihood of their labels.
struct Likelihood;

impl Method for Likelihood {
    fn evaluate(
        &mut self,
        prepared: &mut Prepared,
        recipe: &Recipe,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Evaluation>> {
        let size = recipe.train.per_device_eval_batch_size;
        let e = evaluate(&prepared.speaker.model, &mut prepared.ranks, &prepared.data.eval, size, go_on)?;
        Ok(e.map(|e| Evaluation { loss: e.loss, label_tokens: e.label_tokens, metrics: Metrics::new(), score: e.loss }))
    }
}
