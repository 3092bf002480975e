//! A training on a card: what a pass keeps, recomputes or moves to the host, decided from the memory that there is, and
//! what all of it takes.
//!
//! Arithmetic only: no card is needed to plan. The engine of [`crate::model`] lays its memory out by it.

use super::estimate::{Estimate, Shape, trained};
use crate::recipe::Recipe;
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
    /// Whether the frozen products are in fp8: what meets them is quantized first.
    pub fp8: bool,
    /// Heads with norms of their own.
    pub normed: usize,
    /// Whether what attention and MLP give is normalised before it joins the stream.
    pub post_norms: bool,
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
pub const RING: usize = 3;
/// What a buffer takes beyond its matrices, at most.
const BUFFER: usize = 10 * 256;
/// Bytes of a token's ids, labels and shares of attention's lists, at most.
const BATCH: usize = 64;
const TILES: [usize; 5] = [8192, 4096, 2048, 1024, 512];
const LOGITS: [usize; 5] = [4096, 2048, 1024, 512, 256];

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
        let share = if self.post_norms { self.hidden } else { 0 };
        let attention = BF16 * t * (self.qkv() + self.queries + self.extra[1] + self.hidden + share)
            + 4 * t * (self.heads + self.normed);
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

    /// Bytes of what a block's MLP gave before the norm after it, which is always kept.
    pub fn share(&self, t: usize) -> usize {
        if self.post_norms { BF16 * t * self.hidden } else { 0 }
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

    /// Bytes of what is quantized at a time: codes, then a scale a row.
    pub fn quantized(&self, t: usize, tile: usize) -> usize {
        if !self.fp8 {
            return 0;
        }
        let (rows, tiled) = (self.hidden.max(self.qkv()), (2 * self.intermediate).max(self.hidden));
        (t * rows).max(tile * tiled).next_multiple_of(256) + 4 * t.max(tile)
    }

    /// Bytes of the parts of keys' and values' gradients.
    pub fn partial(&self, t: usize, splits: usize) -> usize {
        if splits > 1 { 4 * splits * t * self.keys_values } else { 0 }
    }

    /// Bytes of what one layer works with when it keeps nothing, and of the gradient stream.
    pub fn passing(&self, t: usize) -> usize {
        let shares = if self.post_norms { 2 } else { 1 };
        shares * BF16 * t * self.stream() + self.kept(Keep::Attention, t) + 4 * t
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
        inputs * s.input(t) + s.layers * (s.adapted(t) + s.share(t)) + kept
    }

    /// Bytes of what every layer works with in turn.
    pub fn workspace(&self, s: &Sizes) -> usize {
        let t = self.tokens;
        let attention = if self.keep.contains(&Keep::Input) { 0 } else { s.kept(Keep::Attention, t) };
        s.passing(t) - attention + s.shared(t, self.tile, self.logits, self.splits) + s.quantized(t, self.tile)
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
                for logits in LOGITS {
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
                let size = |b: f64| match b / (1u64 << 30) as f64 {
                    gib if gib < 1.0 => format!("{:.0} MiB", gib * 1024.0),
                    gib => format!("{gib:.1} GiB"),
                };
                let next = match checkpointing {
                    Checkpointing::Off => "set train.gradient_checkpointing = \"auto\"",
                    _ => {
                        "lower train.per_device_train_batch_size or model.max_seq_length, or set model.load_in_4bit = true"
                    }
                };
                Err(Error::new(format!(
                    "{tokens} tokens at a time need {} beside the weights; {} are free",
                    size(least as f64),
                    size(room as f64)
                ))
                .kind(Kind::OutOfMemory)
                .next(next))
            }
        }
    }
}

/// A row's stride: whole lines of 128 bytes.
pub fn stride(columns: usize) -> usize {
    columns.next_multiple_of(64)
}

/// Columns that a layer of this many ranks needs after its input's own.
pub fn extra(ranks: usize, bias: bool) -> usize {
    (ranks + usize::from(bias)).next_multiple_of(8)
}

/// cuBLAS's workspace.
pub const CUBLAS: usize = 32 << 20;
/// What the driver keeps for the program's own use of a card, kernels and their stacks: NVML shows 0.53 to 0.56 GiB
/// beyond what is allocated on an H100 under driver 580.
pub const CONTEXT: u64 = 576 << 20;
/// Share of a card that a plan may fill.
const FILL: f64 = 0.97;

/// A training on a card: the model, and what its recipe asks for.
#[derive(Debug, Clone, Copy)]
pub struct Card<'a> {
    pub shape: &'a Shape,
    pub recipe: &'a Recipe,
    /// Longest row of the data, in tokens.
    pub longest: Option<usize>,
}

impl Card<'_> {
    /// Ranks of qkv, o, gate_up and down.
    fn ranks(&self) -> [usize; 4] {
        let Some(lora) = &self.recipe.lora else { return [0; 4] };
        let names = self.shape.adapted_names(self.recipe);
        [
            &["q_proj", "k_proj", "v_proj", "qkv_proj"][..],
            &["o_proj"],
            &["gate_proj", "up_proj", "gate_up_proj"],
            &["down_proj"],
        ]
        .map(|group| lora.r * group.iter().filter(|n| names.contains(n)).count())
    }

    /// (outputs, inputs) of qkv, o, gate_up and down.
    fn products(&self) -> [(usize, usize); 4] {
        let (s, n, f) = (self.shape, self.shape.hidden_size, self.shape.intermediate_size);
        [(s.queries + 2 * s.keys, n), (n, s.queries), (2 * f, n), (n, f)]
    }

    /// What the passes' memory depends on.
    pub fn sizes(&self) -> Sizes {
        let (s, ranks, products) = (self.shape, self.ranks(), self.products());
        let mut after = [0; 4];
        for ((after, ranks), (_, inputs)) in after.iter_mut().zip(ranks).zip(products) {
            *after = stride(inputs + extra(ranks, false)) - inputs;
        }
        Sizes {
            layers: s.num_hidden_layers,
            hidden: s.hidden_size,
            intermediate: s.intermediate_size,
            queries: s.queries,
            keys_values: 2 * s.keys,
            heads: s.num_attention_heads,
            vocab: s.vocab_size,
            extra: after,
            ranks: ranks.iter().sum(),
            fp8: self.recipe.model.load_in_fp8,
            normed: s.normed_heads,
            post_norms: s.post_norms,
        }
    }

    /// Bytes of weights, of the two buffers in which 4-bit matrices are laid out, and of what trains.
    fn fixed(&self) -> Vec<(&'static str, u64)> {
        let (s, four) = (self.shape, self.recipe.model.load_in_4bit);
        let (ranks, products) = (self.ranks(), self.products());
        let laid_out = |i: usize| {
            let (out, inputs) = products[i];
            BF16 * (out + ranks[i]) * stride(inputs + extra(ranks[i], false))
        };
        let matrices: usize = (0..4)
            .map(|i| match four {
                false if self.recipe.model.load_in_fp8 => {
                    let ((out, inputs), ranks) = (products[i], ranks[i]);
                    let edges = ranks * stride(inputs) + out * extra(ranks, false);
                    2 * out * inputs + 4 * (out + inputs) + BF16 * edges + BUFFER
                }
                false => laid_out(i),
                // Codes, a scale of one byte for 64, one of four bytes for 256 of those.
                true => {
                    let numbers = products[i].0 * products[i].1;
                    numbers / 2 + numbers / 64 + numbers / 64 / 64 + BUFFER
                }
            })
            .sum();
        let tables = if s.tie_word_embeddings { 1 } else { 2 };
        let embeddings = tables * BF16 * s.vocab_size.next_multiple_of(8) * s.hidden_size;
        let norms = 4 * s.hidden_size * (2 * s.num_hidden_layers + 1);
        let mut all = vec![("weights", (s.num_hidden_layers * matrices + embeddings + norms) as u64)];
        if four {
            let two = laid_out(0).max(laid_out(1)).max(laid_out(2)) + laid_out(3);
            all.push(("weights in 16 bits", two as u64));
        }
        all.push(("adapters, grads, adam", trained(self.recipe, s.trainable(self.recipe))));
        all.push(("cuBLAS", CUBLAS as u64));
        all.push(("CUDA context", CONTEXT));
        all
    }

    /// Tokens of a micro-batch: its rows laid end to end.
    fn tokens(&self) -> usize {
        let full = self.recipe.model.max_seq_length;
        let row = if self.recipe.train.packing { full } else { self.longest.map_or(full, |l| l.min(full)) };
        let t = &self.recipe.train;
        (t.per_device_train_batch_size.max(t.per_device_eval_batch_size) * row).next_multiple_of(256)
    }

    /// The fastest plan that fits into `vram` bytes of a card, and what all of it takes.
    ///
    /// # Errors
    /// Where not even the smallest fits.
    pub fn plan(&self, vram: u64) -> Result<(Plan, Estimate)> {
        let sizes = self.sizes();
        let fixed: u64 = self.fixed().iter().map(|c| c.1).sum();
        let room = ((vram as f64 * FILL) as u64).saturating_sub(fixed);
        let checkpointing = match self.recipe.train.gradient_checkpointing.as_str() {
            "full" => Checkpointing::Full,
            "off" => Checkpointing::Off,
            _ => Checkpointing::Auto,
        };
        let plan = Plan::choose(&sizes, self.tokens(), 1, checkpointing, room)?;
        let estimate = self.estimate(&plan);
        Ok((plan, estimate))
    }

    /// The plan that takes least, whether it fits or not.
    pub fn smallest(&self) -> (Plan, Estimate) {
        let tokens = self.tokens();
        let plan = Plan {
            tokens,
            tile: TILES[TILES.len() - 1].min(tokens),
            logits: LOGITS[LOGITS.len() - 1].min(tokens),
            keep: vec![Keep::Input; self.shape.num_hidden_layers],
            offload: true,
            splits: 1,
        };
        let estimate = self.estimate(&plan);
        (plan, estimate)
    }

    fn estimate(&self, plan: &Plan) -> Estimate {
        let (sizes, mut components) = (self.sizes(), self.fixed());
        components.push(("activations", plan.activations(&sizes) as u64));
        components.push(("workspace", plan.workspace(&sizes) as u64));
        let recomputes = plan.keep.iter().any(|k| *k != Keep::Everything);
        Estimate { components, tokens: plan.tokens as u64, recomputes }
    }
}

/// The largest `per_device_train_batch_size` that a card of `vram` bytes trains, and whether anything is then computed
/// again; none where not even one sequence fits.
pub fn largest_batch(card: Card, vram: u64) -> Option<(usize, bool)> {
    super::estimate::largest_that_fits(4_096, |batch| {
        let mut recipe = card.recipe.clone();
        recipe.train.per_device_train_batch_size = batch;
        recipe.train.per_device_eval_batch_size = recipe.train.per_device_eval_batch_size.min(batch);
        Card { recipe: &recipe, ..card }.plan(vram).ok().map(|(_, e)| e.recomputes)
    })
}

/// The largest `model.max_seq_length` at the recipe's batch size, for rows as long.
pub fn largest_sequence(card: Card, vram: u64) -> Option<(usize, bool)> {
    super::estimate::largest_that_fits(1 << 20, |length| {
        let mut recipe = card.recipe.clone();
        recipe.model.max_seq_length = length;
        Card { recipe: &recipe, longest: None, ..card }.plan(vram).ok().map(|(_, e)| e.recomputes)
    })
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
        fp8: false,
        normed: 0,
        post_norms: false,
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

    /// What was measured on an H100 with these recipes: the ledger's figures at the peak, in MiB.
    #[test]
    fn weights_and_trainables_are_those_that_were_measured_on_a_card() {
        let shape = Shape {
            vocab_size: 152_064,
            hidden_size: 3584,
            intermediate_size: 18_944,
            num_hidden_layers: 28,
            queries: 3584,
            keys: 512,
            num_attention_heads: 28,
            tie_word_embeddings: false,
            fused: false,
            dense: true,
            others: 2 * 3_584,
            kept: 0,
            normed_heads: 0,
            post_norms: false,
            quantizable: 0,
            stored: crate::memory::Stored::Floats(2),
        };
        for (four, weights, room, vram) in [(false, 14.39, None, 45u64), (true, 5.17, Some(0.39), 9)] {
            let text = format!(
                "[model]\nname_or_path = \"demo\"\nmax_seq_length = 2048\nload_in_4bit = {four}\n[lora]\nr = 16\n[data]\n\
                 train = \"a\"\n[train]\nper_device_train_batch_size = 4\nper_device_eval_batch_size = 4\n"
            );
            let recipe = crate::recipe::parse(&text, "m.toml", &[]).unwrap().recipe;
            let (plan, estimate) = Card { shape: &shape, recipe: &recipe, longest: None }.plan(vram << 30).unwrap();
            let gib =
                |name: &str| estimate.components.iter().find(|c| c.0 == name).map(|c| c.1 as f64 / (1u64 << 30) as f64);
            assert!((gib("weights").unwrap() - weights).abs() < 0.01, "{:?}", estimate.components);
            assert!((gib("adapters, grads, adam").unwrap() - 0.60).abs() < 0.01);
            assert_eq!(gib("weights in 16 bits").map(|g| (g * 100.0).round() / 100.0), room);
            assert!(estimate.total() <= vram << 30, "{plan:?}");
            assert_eq!(plan.offload, four, "{plan:?}");
        }
    }
}
