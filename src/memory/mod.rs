//! Memory: what a run will need, by component, and what is held, measured.
//!
//! [`estimate`] predicts from a recipe and a model's [`Shape`], [`card`] plans and predicts for a card; [`Telemetry`] reads the process, the host and the
//! cards. Must not know the engine, the run or the screen.

pub mod card;
mod cards;
mod cgroup;
mod estimate;
mod telemetry;

pub use cards::{Card, Cards};
pub use estimate::{Estimate, Shape, Stored, estimate, fits, gib, largest_batch, largest_sequence, recomputes};
pub use telemetry::{Fake, Local, Reading, Telemetry, cpu_name};
