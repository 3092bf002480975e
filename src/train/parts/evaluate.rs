//! Loss over held-out rows: the mean over label tokens, so that row order and batch size do not matter to it.

use crate::Result;
use crate::data::batch::{Batch, Example};
use crate::model::engine::Engine;
use crate::model::ranks::Ranks;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    pub loss: f64,
    pub label_tokens: u64,
}

/// Mean NLL over the label tokens of `examples`, `batch_size` sequences at a time. `go_on` is asked between batches;
/// when it says no the evaluation is dropped (`None`). Without labels there is nothing to say: `None` too. Each process
/// takes its share of the batches, and all get the same answer.
pub fn evaluate(
    model: &Engine,
    ranks: &mut Ranks,
    examples: &[Example],
    batch_size: usize,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Option<Evaluation>> {
    let mut sum = 0.0;
    let mut labels = 0;
    for (_, chunk) in examples.chunks(batch_size.max(1)).enumerate().filter(|(i, _)| ranks.mine(*i)) {
        let batch = Batch::of(&chunk.iter().collect::<Vec<_>>());
        if batch.label_tokens() > 0 {
            let (nll, n) = model.loss(&batch)?;
            sum += nll;
            labels += n;
        }
        if !go_on() {
            return Ok(None);
        }
    }
    if ranks.size() > 1 {
        let mut all = [sum, labels as f64];
        ranks.sum(&mut all)?;
        (sum, labels) = (all[0], all[1] as u64);
    }
    Ok((labels > 0).then(|| Evaluation { loss: sum / labels as f64, label_tokens: labels }))
}
