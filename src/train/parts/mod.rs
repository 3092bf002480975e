//! What the loops are made of: schedule, sampling, generation, evaluation, checkpoints.

pub mod ending;
pub mod orders;
pub mod sampler;
pub mod schedule;
