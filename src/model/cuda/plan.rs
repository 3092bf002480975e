//! What a training pass keeps, recomputes or moves to the host, decided from the memory that there is.
//!
//! Arithmetic only: no card is needed to plan, or to test a plan.

use crate::{Error, Kind, Result};

/// Sizes that memory depends on, in numbers: of a decoder whose projections carry `ranks` columns of adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    pub layers: usize,
    pub hidden: usize,
    pub intermediate: usize,
    /// Query columns, and columns of keys and values together.
    pub queries: usize,
    pub keys_values: usize,
    pub heads: usize,
    pub vocab: usize,
    /// Columns after the inputs of qkv, o, gate_up and down.
    pub extra: [usize; 4],
    /// Columns of adapters in all four.
    pub ranks: usize,
}

/// What a block leaves behind for its way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keep {
    /// Its input.
    Input,
    /// All but the MLP's inner activations.
    Attention,
    Everything,
}

/// How a batch of `tokens` is worked through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub tokens: usize,
    /// Tokens of an MLP that are worked on at a time.
    pub tile: usize,
    /// Rows of logits that exist at a time.
    pub logits: usize,
    pub keep: Vec<Keep>,
    /// Whether the blocks' inputs wait on the host.
    pub offload: bool,
    /// Parts that the gradients of keys and values are summed from.
    pub splits: usize,
}

/// What `train.gradient_checkpointing` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checkpointing {
    Auto,
    Full,
    Off,
}

const BF16: usize = 2;
/// Block inputs on the card while they wait on the host: the one worked on, the one before, the one after.
pub(super) const RING: usize = 3;
/// What a buffer takes beyond its matrices, at most.
pub(super) const BUFFER: usize = 10 * 256;
/// Bytes of a token's ids, labels and shares of attention's lists, at most.
const BATCH: usize = 64;
const TILES: [usize; 5] = [8192, 4096, 2048, 1024, 512];

impl Sizes {
    /// Row strides of the buffers.
    pub fn stream(&self) -> usize {
        self.hidden + self.extra[1].max(self.extra[3])
    }

    pub fn qkv(&self) -> usize {
        self.queries + self.keys_values
    }

    pub fn gate_up(&self) -> usize {
        2 * self.intermediate + self.extra[2]
    }

    /// Bytes that `keep` adds to a block's input.
    pub fn kept(&self, keep: Keep, t: usize) -> usize {
        let attention = BF16 * t * (self.qkv() + self.queries + self.extra[1] + self.hidden) + 4 * t * self.heads;
        match keep {
            Keep::Input => 0,
            Keep::Attention => attention,
            Keep::Everything => attention + BF16 * t * self.gate_up(),
        }
    }

    /// Bytes of one block's input.
    pub fn input(&self, t: usize) -> usize {
        BF16 * t * self.hidden
    }

    /// Bytes of what a block's adapters make of their inputs, which is always kept.
    pub fn adapted(&self, t: usize) -> usize {
        BF16 * t * self.ranks
    }

    /// Bytes of the region that attention, MLP and loss share, one after the other.
    pub fn shared(&self, t: usize, tile: usize, logits: usize, splits: usize) -> usize {
        let (n, f) = (self.hidden, self.intermediate);
        let attention = BF16 * t * (n + self.extra[0] + self.queries.max(n) + self.qkv() + self.extra[0])
            + 4 * t * self.heads
            + self.partial(t, splits);
        let mlp = BF16 * tile * (n + self.extra[2] + self.gate_up() + f + self.extra[3] + f + n);
        let loss = BF16 * logits * (self.vocab.next_multiple_of(8) + 2 * n);
        attention.max(mlp).max(loss) + 16 * 256
    }

    /// Bytes of the parts of keys' and values' gradients.
    pub fn partial(&self, t: usize, splits: usize) -> usize {
        if splits > 1 { 4 * splits * t * self.keys_values } else { 0 }
    }

    /// Bytes of what one layer works with when it keeps nothing, and of the gradient stream.
    pub fn passing(&self, t: usize) -> usize {
        BF16 * t * self.stream() + self.kept(Keep::Attention, t) + 4 * t
    }
}

impl Plan {
    /// Bytes on the card besides weights and what trains; every buffer begins and ends on whole pieces of memory, and
    /// the batch itself has its place.
    pub fn bytes(&self, s: &Sizes) -> usize {
        self.activations(s) + self.workspace(s) + (s.layers + 6) * BUFFER + BATCH * self.tokens
    }

    /// Bytes of what is kept for the way back.
    pub fn activations(&self, s: &Sizes) -> usize {
        let t = self.tokens;
        let inputs = if self.offload { RING.min(s.layers + 1) } else { s.layers + 1 };
        let kept: usize = self.keep.iter().map(|k| s.kept(*k, t)).sum();
        inputs * s.input(t) + s.layers * s.adapted(t) + kept
    }

    /// Bytes of what every layer works with in turn.
    pub fn workspace(&self, s: &Sizes) -> usize {
        let t = self.tokens;
        let attention = if self.keep.contains(&Keep::Input) { 0 } else { s.kept(Keep::Attention, t) };
        s.passing(t) - attention + s.shared(t, self.tile, self.logits, self.splits)
    }

    /// Relative time of a step: multiplications of a block as 1 each for the pass forward and the one back.
    fn cost(&self, s: &Sizes) -> f64 {
        let (n, f, q) = (s.hidden as f64, s.intermediate as f64, s.queries as f64);
        let attention = n * s.qkv() as f64 + q * n;
        let mlp = 3.0 * n * f;
        let again: f64 = self
            .keep
            .iter()
            .map(|k| match k {
                Keep::Input => attention + 2.0 * n * f,
                Keep::Attention => 2.0 * n * f,
                Keep::Everything => 0.0,
            })
            .sum();
        let layers = s.layers as f64;
        // Small tiles leave multiprocessors idle at their edges; a copy to the host takes a little of the memory's time.
        let small = (512.0 / self.tile as f64).min(1.0) * 0.06 + (256.0 / self.logits as f64).min(1.0) * 0.01;
        let moved = if self.offload { 0.01 } else { 0.0 };
        (again + 2.0 * layers * (attention + mlp)) * (1.0 + small + moved)
    }

    /// The fastest plan whose bytes stay within `room`.
    ///
    /// # Errors
    /// Where not even the smallest fits.
    pub fn choose(s: &Sizes, tokens: usize, splits: usize, checkpointing: Checkpointing, room: u64) -> Result<Self> {
        let mut best: Option<(f64, Plan)> = None;
        let mut least = usize::MAX;
        for offload in [false, true] {
            for tile in TILES {
                for logits in [4096usize, 2048, 1024, 512, 256] {
                    let mut plan = Plan {
                        tokens,
                        tile: tile.min(tokens.next_multiple_of(8)),
                        logits: logits.min(tokens.next_multiple_of(8)),
                        keep: vec![Keep::Input; s.layers],
                        offload,
                        splits,
                    };
                    let wanted = match checkpointing {
                        Checkpointing::Full => Keep::Input,
                        Checkpointing::Auto => Keep::Everything,
                        Checkpointing::Off => {
                            plan.keep = vec![Keep::Everything; s.layers];
                            Keep::Everything
                        }
                    };
                    let base = plan.bytes(s);
                    least = least.min(base);
                    if base as u64 > room {
                        continue;
                    }
                    // First what saves most for its bytes.
                    for to in [Keep::Attention, Keep::Everything] {
                        if to > wanted || checkpointing == Checkpointing::Off {
                            continue;
                        }
                        for layer in 0..s.layers {
                            let old = plan.keep[layer];
                            plan.keep[layer] = to;
                            if plan.bytes(s) as u64 > room {
                                plan.keep[layer] = old;
                                break;
                            }
                        }
                    }
                    let cost = plan.cost(s);
                    if best.as_ref().is_none_or(|(c, _)| cost < *c) {
                        best = Some((cost, plan));
                    }
                }
            }
        }
        match best {
            Some((_, plan)) => Ok(plan),
            None => {
                let gib = |b: f64| b / (1u64 << 30) as f64;
                let next = match checkpointing {
                    Checkpointing::Off => "set train.gradient_checkpointing = \"auto\"",
                    _ => {
                        "lower train.per_device_train_batch_size or model.max_seq_length, or set model.load_in_4bit = true"
                    }
                };
                Err(Error::new(format!(
                    "{tokens} tokens at a time need {:.1} GiB beside the weights; {:.1} GiB are free",
                    gib(least as f64),
                    gib(room as f64)
                ))
                .kind(Kind::OutOfMemory)
                .next(next))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Qwen2.5-7B with r = 16.
    const SEVEN: Sizes = Sizes {
        layers: 28,
        hidden: 3584,
        intermediate: 18944,
        queries: 3584,
        keys_values: 1024,
        heads: 28,
        vocab: 152_064,
        extra: [56, 16, 32, 16],
        ranks: 112,
    };

    #[test]
    fn with_much_room_everything_is_kept_and_nothing_moves() {
        let plan = Plan::choose(&SEVEN, 8192, 1, Checkpointing::Auto, 60 << 30).unwrap();
        assert!(plan.keep.iter().all(|k| *k == Keep::Everything) && !plan.offload && plan.tile == 8192);
    }

    #[test]
    fn less_room_keeps_less_and_always_fits() {
        let mut last = f64::INFINITY;
        for gib in [1u64, 2, 3, 5, 8, 13, 21, 34] {
            let plan = Plan::choose(&SEVEN, 8192, 1, Checkpointing::Auto, gib << 30).unwrap();
            assert!(plan.bytes(&SEVEN) as u64 <= gib << 30, "{gib}");
            assert!(plan.cost(&SEVEN) <= last, "{gib} GiB cost more than less room did");
            last = plan.cost(&SEVEN);
        }
    }

    #[test]
    fn what_is_asked_for_is_done_or_refused() {
        let full = Plan::choose(&SEVEN, 8192, 1, Checkpointing::Full, 60 << 30).unwrap();
        assert!(full.keep.iter().all(|k| *k == Keep::Input));
        let off = Plan::choose(&SEVEN, 8192, 1, Checkpointing::Off, 10 << 30).unwrap_err().to_string();
        assert!(off.contains("gradient_checkpointing"), "{off}");
        assert!(Plan::choose(&SEVEN, 8192, 1, Checkpointing::Auto, 100 << 20).is_err());
    }
}
