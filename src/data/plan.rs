//! Which examples each optimizer step trains on: a pure function of the plan and the step number.
//!
//! Counts steps as transformers' `Trainer` does: the last batch of an epoch may be short and the last accumulation
//! incomplete; `ceil(ceil(n / batch) / accumulation)` steps an epoch.

use super::batch::Example;
use super::pack;
use super::permute::{Permutation, Stream};
use crate::recipe::{Method, Recipe};

/// How sequences share rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packing {
    pub max_seq_length: usize,
    /// In file order, rather than by best fit.
    pub in_order: bool,
}

/// What a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct PlanOptions<'a> {
    /// Tokens of each example.
    pub lengths: &'a [usize],
    pub seed: u64,
    pub shuffle: bool,
    pub per_device_train_batch_size: usize,
    pub gradient_accumulation_steps: usize,
    /// With packing, a batch counts packs instead of examples.
    pub packing: Option<Packing>,
    /// Optimizer steps that each batch is trained on in a row (GRPO's `num_iterations`); at least 1.
    pub repeats: u64,
}

/// The order of training.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Packs of examples; `None`: each example is a slot of its own.
    packs: Option<Vec<Vec<u32>>>,
    slots: usize,
    seed: u64,
    shuffle: bool,
    batch: usize,
    accumulation: usize,
    repeats: u64,
}

impl Plan {
    pub fn new(o: &PlanOptions) -> Self {
        let packs = o.packing.map(|p| match p.in_order {
            true => pack::in_order(o.lengths, p.max_seq_length),
            false => pack::best_fit_decreasing(o.lengths, p.max_seq_length),
        });
        Self {
            slots: packs.as_ref().map_or(o.lengths.len(), Vec::len),
            packs,
            seed: o.seed,
            shuffle: o.shuffle,
            batch: o.per_device_train_batch_size.max(1),
            accumulation: o.gradient_accumulation_steps.max(1),
            repeats: o.repeats.max(1),
        }
    }

    /// The plan that a recipe asks for, for so many processes: each takes its part of a step's micro-batches.
    pub fn of(recipe: &Recipe, processes: usize, train: &[Example]) -> Self {
        let lengths: Vec<usize> = match recipe.method {
            // A slot is a pair: two examples.
            Method::Dpo => train.chunks(2).map(|pair| pair.iter().map(|e| e.ids.len()).sum()).collect(),
            _ => train.iter().map(|e| e.ids.len()).collect(),
        };
        let packing = recipe.train.packing.then_some(Packing {
            max_seq_length: recipe.model.max_seq_length,
            in_order: !recipe.data.shuffle || recipe.method == Method::Cpt,
        });
        let t = &recipe.train;
        let (batch, accumulation, repeats) = match &recipe.grpo {
            // Of GRPO a batch counts completions; a slot is a prompt, and all prompts of a step are drawn at once.
            Some(g) => {
                let step = t.per_device_train_batch_size * t.gradient_accumulation_steps;
                (step / g.num_generations.max(1), 1, g.num_iterations)
            }
            None => (t.per_device_train_batch_size, t.gradient_accumulation_steps, 1),
        };
        Self::new(&PlanOptions {
            lengths: &lengths,
            seed: t.seed,
            shuffle: recipe.data.shuffle,
            per_device_train_batch_size: batch,
            gradient_accumulation_steps: accumulation * processes,
            packing,
            repeats,
        })
    }

    /// What a batch counts: examples, or packs of them.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Optimizer steps an epoch; at least 1.
    pub fn steps_per_epoch(&self) -> u64 {
        self.slots.div_ceil(self.batch).div_ceil(self.accumulation).max(1) as u64 * self.repeats
    }

    /// Optimizer steps of the run. `max_steps` above 0 decides; else `ceil(num_train_epochs × steps_per_epoch)`.
    pub fn total_steps(&self, num_train_epochs: f64, max_steps: u64) -> u64 {
        match max_steps {
            0 => (num_train_epochs * self.steps_per_epoch() as f64).ceil() as u64,
            n => n,
        }
    }

    /// Epochs gone by once `done` steps are done, as transformers counts them: in micro-batches.
    pub fn epoch(&self, done: u64) -> f64 {
        let (epoch, step) = (done / self.steps_per_epoch(), done % self.steps_per_epoch());
        let micro_batches = self.slots.div_ceil(self.batch).max(1) as f64;
        epoch as f64 + (step * self.accumulation as u64) as f64 / (micro_batches * self.repeats as f64)
    }

    /// The examples of the micro-batches of optimizer step `step`, counted from 0. Past the end of an epoch the next
    /// one begins, in another order.
    pub fn micro_batches(&self, step: u64) -> Vec<Vec<usize>> {
        let (epoch, step) = (step / self.steps_per_epoch(), step % self.steps_per_epoch());
        let permutation = self.shuffle.then(|| Permutation::new(self.slots, self.seed, Stream::Train, epoch));
        let start = (step / self.repeats) as usize * self.batch * self.accumulation;
        let end = (start + self.batch * self.accumulation).min(self.slots);
        let slots: Vec<usize> = (start..end).map(|i| permutation.as_ref().map_or(i, |p| p.at(i))).collect();
        slots.chunks(self.batch).map(|chunk| chunk.iter().flat_map(|&s| self.slot(s)).collect()).collect()
    }

    /// The examples of one slot.
    fn slot(&self, slot: usize) -> Vec<usize> {
        match &self.packs {
            None => vec![slot],
            Some(packs) => packs[slot].iter().map(|&i| i as usize).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(n: usize, batch: usize, accumulation: usize, shuffle: bool) -> Plan {
        Plan::new(&PlanOptions {
            lengths: &vec![5; n],
            seed: 3407,
            shuffle,
            per_device_train_batch_size: batch,
            gradient_accumulation_steps: accumulation,
            packing: None,
            repeats: 1,
        })
    }

    fn epoch(plan: &Plan, epoch: u64) -> Vec<usize> {
        let n = plan.steps_per_epoch();
        (epoch * n..(epoch + 1) * n).flat_map(|s| plan.micro_batches(s).concat()).collect()
    }

    #[test]
    fn an_epoch_is_a_permutation_of_the_examples_and_the_next_is_another() {
        let plan = plan(103, 4, 3, true);
        let (first, second) = (epoch(&plan, 0), epoch(&plan, 1));
        assert_ne!(first, second);
        for mut order in [first, second] {
            order.sort_unstable();
            assert_eq!(order, (0..103).collect::<Vec<_>>());
        }
    }

    #[test]
    fn without_shuffling_rows_stay_in_order_in_every_epoch() {
        let plan = plan(10, 2, 2, false);
        assert_eq!(plan.micro_batches(0), [[0, 1], [2, 3]]);
        assert_eq!(epoch(&plan, 0), (0..10).collect::<Vec<_>>());
        assert_eq!(epoch(&plan, 3), (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn the_end_of_an_epoch_is_as_transformers_has_it() {
        // 11 rows, batch 2, accumulation 4: 6 batches, 2 steps; the second has 2 batches, the last of 1 row.
        let plan = plan(11, 2, 4, false);
        assert_eq!(plan.steps_per_epoch(), 2);
        assert_eq!(plan.micro_batches(1), [vec![8, 9], vec![10]]);
        assert_eq!(plan.micro_batches(2)[0], [0, 1]);
        assert_eq!(plan.total_steps(2.5, 0), 5);
        assert_eq!(plan.total_steps(2.5, 7), 7);
        assert_eq!(plan.epoch(1), 4.0 / 6.0);
        assert_eq!(plan.epoch(2), 1.0);
    }

    #[test]
    fn a_step_is_the_same_whatever_was_asked_before() {
        let plan = plan(50, 3, 2, true);
        let forward: Vec<_> = (0..20).map(|s| plan.micro_batches(s)).collect();
        for s in (0..20).rev() {
            assert_eq!(plan.clone().micro_batches(s), forward[s as usize]);
        }
    }

    #[test]
    fn a_batch_is_repeated_as_often_as_asked_and_an_epoch_is_that_much_longer() {
        let once = plan(12, 4, 1, true);
        let thrice = Plan { repeats: 3, ..once.clone() };
        assert_eq!((once.steps_per_epoch(), thrice.steps_per_epoch()), (3, 9));
        for step in 0..18 {
            assert_eq!(thrice.micro_batches(step), once.micro_batches(step / 3));
        }
        assert_eq!(thrice.epoch(9), 1.0);
        assert_eq!(thrice.epoch(3), once.epoch(1));
    }

    #[test]
    fn packs_go_through_the_plan_whole() {
        let lengths: Vec<usize> = (0..40).map(|i| 1 + i % 7).collect();
        for in_order in [false, true] {
            let plan = Plan::new(&PlanOptions {
                lengths: &lengths,
                seed: 1,
                shuffle: !in_order,
                per_device_train_batch_size: 1,
                gradient_accumulation_steps: 2,
                packing: Some(Packing { max_seq_length: 16, in_order }),
                repeats: 1,
            });
            let mut seen = Vec::new();
            for s in 0..plan.steps_per_epoch() {
                for batch in plan.micro_batches(s) {
                    assert!(batch.iter().map(|&i| lengths[i]).sum::<usize>() <= 16);
                    seen.extend(batch);
                }
            }
            if !in_order {
                seen.sort_unstable();
            }
            assert_eq!(seen, (0..40).collect::<Vec<_>>());
        }
    }

    #[test]
    fn more_rows_a_batch_than_there_are_makes_one_step() {
        let plan = plan(3, 8, 4, true);
        assert_eq!(plan.steps_per_epoch(), 1);
        assert_eq!(plan.micro_batches(0).len(), 1);
        assert_eq!(plan.micro_batches(0)[0].len(), 3);
    }
}
