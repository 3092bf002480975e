//! What the loops are made of: schedule, sampling, generation, evaluation, checkpoints.

pub mod checkpoint;
pub mod companions;
pub mod course;
pub mod ending;
pub mod evaluate;
pub mod generate;
pub mod live;
pub mod orders;
pub mod sampler;
pub mod samples;
pub mod schedule;
