//! The completions that GRPO trains on, and how they outlive a checkpoint between two iterations over them.

use crate::train::event::Metrics;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

const FILE: &str = "rollouts.json";

/// One completion of a prompt.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Completion {
    /// The prompt among the training examples.
    pub example: usize,
    pub ids: Vec<u32>,
    /// Left out of the loss.
    pub masked: bool,
    pub advantage: f64,
    /// Log-probabilities when it was drawn, where they are needed.
    pub old: Vec<f32>,
    /// Those of the reference, where there is one.
    pub reference: Vec<f32>,
}

impl Completion {
    /// Tokens that are trained on.
    pub fn trained(&self) -> usize {
        if self.masked { 0 } else { self.ids.len() }
    }
}

/// All of a step, groups one after the other, and what was measured when they were drawn.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rollouts {
    pub completions: Vec<Completion>,
    pub metrics: Metrics,
}

/// The same in a file: numbers as their bits, so that they come back to the last one.
#[derive(Serialize, Deserialize)]
struct Stored {
    completions: Vec<Bits>,
    metrics: Vec<(String, u64)>,
}

#[derive(Serialize, Deserialize)]
struct Bits {
    example: usize,
    ids: Vec<u32>,
    masked: bool,
    advantage: u64,
    old: Vec<u32>,
    reference: Vec<u32>,
}

impl Rollouts {
    pub fn write(&self, dir: &Path) -> Result<()> {
        let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect();
        let one = |c: &Completion| Bits {
            example: c.example,
            ids: c.ids.clone(),
            masked: c.masked,
            advantage: c.advantage.to_bits(),
            old: bits(&c.old),
            reference: bits(&c.reference),
        };
        let stored = Stored {
            completions: self.completions.iter().map(one).collect(),
            metrics: self.metrics.iter().map(|(k, v)| (k.clone(), v.to_bits())).collect(),
        };
        let path = dir.join(FILE);
        std::fs::write(&path, serde_json::to_vec(&stored)?).map_err(|e| {
            Error::new(format!("cannot write: {e}")).at(path.display()).next("free some disk, then resume the run")
        })
    }

    /// Those of the checkpoint in `dir`, if it holds any.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FILE);
        let unreadable = |e: String| {
            Error::new(format!("cannot read: {e}"))
                .at(path.display())
                .next("resume from an earlier checkpoint: --resume RUN@STEP")
        };
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(unreadable(e.to_string())),
        };
        let stored: Stored = serde_json::from_slice(&bytes).map_err(|e| unreadable(e.to_string()))?;
        let numbers = |v: Vec<u32>| v.into_iter().map(f32::from_bits).collect();
        let one = |b: Bits| Completion {
            example: b.example,
            ids: b.ids,
            masked: b.masked,
            advantage: f64::from_bits(b.advantage),
            old: numbers(b.old),
            reference: numbers(b.reference),
        };
        Ok(Some(Self {
            completions: stored.completions.into_iter().map(one).collect(),
            metrics: stored.metrics.into_iter().map(|(k, v)| (k, f64::from_bits(v))).collect(),
        }))
    }
}
