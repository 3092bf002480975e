//! What the loops are made of: the course that all of them take, losses, sampling, evaluation, checkpoints.

pub mod checkpoint;
pub mod companions;
pub mod course;
pub mod ending;
pub mod evaluate;
pub mod generate;
pub mod live;
pub mod orders;
pub mod policy_loss;
pub mod preference_loss;
pub mod reference;
pub mod rewards;
pub mod rollout;
pub mod rollouts;
pub mod sampler;
pub mod samples;
pub mod schedule;
