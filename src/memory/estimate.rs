//! What a training run will hold, by component, in bytes: the engine on the CPU, everything in f32 but frozen weights that
//! are kept in fewer bits.
//!
//! It counts what the engine keeps: the weights; values, gradients and two moments of what trains; per block what the
//! backward pass needs (or the block's input alone, where activations are computed again); the logits of one chunk; the
//! largest set of intermediates that live at one time; and the program itself.

use crate::ops::optimizer::Optim;
use crate::ops::packed::TILE;
use crate::recipe::{FUSED, LINEAR, Method, Recipe, modules};

/// A decoder's sizes, as memory sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    /// Width of the queries: heads × head_dim.
    pub queries: usize,
    /// Width of the keys, and of the values: kv heads × head_dim.
    pub keys: usize,
    pub num_attention_heads: usize,
    pub tie_word_embeddings: bool,
    /// Whether q, k, v are one matrix, and gate and up another.
    pub fused: bool,
    /// Whether the MLP is one for all tokens; else a mixture of experts, which carries no adapters.
    pub dense: bool,
    /// Numbers of a block's weights besides its linear layers: norms, biases, experts.
    pub others: usize,
    /// f32 numbers that a block keeps per token for its backward pass, beyond what every block does.
    pub kept: usize,
    /// Heads of queries and keys that have norms of their own.
    pub normed_heads: usize,
    /// Whether what attention and MLP give is normalised too.
    pub post_norms: bool,
    /// Numbers of a block's matrices that `model.load_in_4bit` holds in NF4.
    pub quantizable: usize,
    pub stored: Stored,
}

/// How a model's files keep its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// As floats, of so many bytes.
    Floats(usize),
    /// Linear layers in NF4, by bitsandbytes.
    Nf4,
    /// In GGUF's blocks: bytes of all tensors.
    Blocks(u64),
}

/// Bytes of an f32.
const F32: u64 = 4;
/// Logits that exist at a time in the engine's cross-entropy.
const LOGITS: u64 = 12 << 20;
/// Queries whose scores exist at a time in the engine's attention, per thread, forward and backward.
const QUERIES: u64 = 64;
/// The program, its libraries, threads and what they set aside (the demo: peaks of 92 to 122 MiB, 8 of them the model);
/// and the tokenizer's tables, by entry of the vocabulary (measured with SmolLM2's: 49,152 entries).
const PROGRAM: u64 = 72 << 20;
const TOKENIZER: u64 = 700;
/// What the allocator keeps beyond the intermediates that live at one time, as a share of them: blocks are given back to
/// it at every step, and where batches differ in length those of one step do not fit the next. Measured with
/// SmolLM2-135M, LoRA r 16, mimalloc: batches of 4 × 256, all alike, peak 1,558 MiB where 1,431 are asked for, 763 of
/// them intermediates (16 %); rows of 20 to 256 tokens, 1,642 MiB after 20 steps, 1,674 and
/// 1,706 after an epoch, in two runs.
const KEPT_ALIKE: f64 = 0.16;
const KEPT_VARIED: f64 = 0.3;
/// Share of the memory that a plan may fill: the rest is the allocator's and the system's.
const FILL: f64 = 0.9;

impl Shape {
    /// (name, outputs, inputs) of a block's linear layers.
    fn linears(&self) -> Vec<(&'static str, usize, usize)> {
        let (n, f) = (self.hidden_size, self.intermediate_size);
        if self.fused {
            let qkv = (FUSED[0], self.queries + 2 * self.keys, n);
            return vec![qkv, (LINEAR[3], n, self.queries), (FUSED[1], 2 * f, n), (LINEAR[6], n, f)];
        }
        let mut all = vec![
            (LINEAR[0], self.queries, n),
            (LINEAR[1], self.keys, n),
            (LINEAR[2], self.keys, n),
            (LINEAR[3], n, self.queries),
            (LINEAR[4], f, n),
            (LINEAR[5], f, n),
            (LINEAR[6], n, f),
        ];
        all.truncate(if self.dense { 7 } else { 4 });
        all
    }

    /// Numbers in the base model; a tied head counts once.
    pub fn parameters(&self) -> u64 {
        let layer: usize = self.linears().iter().map(|(_, o, i)| o * i).sum::<usize>() + self.others;
        let tables = if self.tie_word_embeddings { 1 } else { 2 };
        (self.num_hidden_layers * layer + self.hidden_size + tables * self.vocab_size * self.hidden_size) as u64
    }

    /// The linear layers that carry adapters in layer `layer`.
    fn adapted(&self, recipe: &Recipe, layer: usize) -> Vec<(&'static str, usize, usize)> {
        let Some(lora) = &recipe.lora else { return Vec::new() };
        let here = |name: &str| lora.adapts(layer, &modules::path(layer, name));
        self.linears().into_iter().filter(|(name, ..)| here(name)).collect()
    }

    /// The linear layers that carry adapters in some layer.
    pub(super) fn adapted_names(&self, recipe: &Recipe) -> Vec<&'static str> {
        let all = (0..self.num_hidden_layers).flat_map(|l| self.adapted(recipe, l)).map(|(name, ..)| name);
        let mut names = Vec::new();
        all.for_each(|name| {
            if !names.contains(&name) {
                names.push(name)
            }
        });
        names
    }

    /// Embeddings and heads that train beside adapters: a tied one once.
    fn tables(&self, recipe: &Recipe) -> u64 {
        let named = recipe.lora.as_ref().and_then(|l| l.modules_to_save.as_ref()).map_or(0, Vec::len);
        let most = if self.tie_word_embeddings { 1 } else { 2 };
        (named.min(most) * self.vocab_size * self.hidden_size) as u64
    }

    /// Numbers that train: the adapters and what is trained whole beside them, or without `[lora]` all.
    pub fn trainable(&self, recipe: &Recipe) -> u64 {
        match &recipe.lora {
            None => self.parameters(),
            Some(lora) => {
                let of = |(_, o, i): &(&str, usize, usize)| lora.r * (o + i) + if lora.use_dora { *o } else { 0 };
                let layers = (0..self.num_hidden_layers).flat_map(|l| self.adapted(recipe, l));
                layers.map(|m| of(&m) as u64).sum::<u64>() + self.tables(recipe)
            }
        }
    }

    /// f32 numbers a block keeps per token for its backward pass.
    fn kept(&self, recipe: &Recipe) -> u64 {
        let qkv = self.queries + 2 * self.keys;
        let block = 2 * self.hidden_size + qkv + self.queries + self.num_attention_heads + 2 * self.intermediate_size;
        let inner = recipe.lora.as_ref().map_or(0, |l| l.r * self.adapted_names(recipe).len());
        (block + inner + self.kept) as u64
    }

    /// f32 numbers per token of the intermediates that live at one time in a block's backward pass, besides what is
    /// kept: the MLP's (d, the gated activation and its gradient) or the attention's, whichever is larger.
    fn passing(&self, recipe: &Recipe) -> u64 {
        let (n, f, qkv) = (self.hidden_size, self.intermediate_size, self.queries + 2 * self.keys);
        let mlp = n + 2 * f;
        let attention = n + self.queries + qkv + 2 * n;
        // DoRA's: the gradient times its factors, and a projection's output made again with its gradient.
        let dora = if recipe.lora.as_ref().is_some_and(|l| l.use_dora) { (4 * f).max(2 * qkv) } else { 0 };
        (mlp.max(attention).max(4 * n) + dora) as u64
    }
}

/// What a run will hold, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estimate {
    /// (name, bytes), in the order they are shown.
    pub components: Vec<(&'static str, u64)>,
    /// Tokens of the largest batch.
    pub tokens: u64,
    /// Whether activations are computed again (`gradient_checkpointing`).
    pub recomputes: bool,
}

impl Estimate {
    pub fn total(&self) -> u64 {
        self.components.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// Bytes as GiB with one decimal: `17.0`.
pub fn gib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / (1u64 << 30) as f64)
}

/// Bytes of `n` numbers that train: values, gradients and moments.
pub(super) fn trained(recipe: &Recipe, n: u64) -> u64 {
    2 * F32 * n + Optim::named(&recipe.train.optim).bytes(n)
}

/// Tokens of the largest batch: rows are laid end to end without padding, so it is the batch size times the longest row
/// (`longest`, in tokens, where the rows are known), or times the full length where rows are packed.
fn tokens(recipe: &Recipe, longest: Option<usize>) -> u64 {
    let full = recipe.model.max_seq_length;
    // Of prompts the completion comes on top.
    let longest = longest.map(|l| l + recipe.grpo.as_ref().map_or(0, |g| g.max_completion_length));
    let row = if recipe.train.packing { full } else { longest.map_or(full, |l| l.min(full)) };
    let batch = recipe.train.per_device_train_batch_size.max(recipe.train.per_device_eval_batch_size);
    let sequences = if recipe.method == Method::Dpo { 2 } else { 1 };
    (row * batch * sequences) as u64
}

/// What the base's weights are called, and their bytes. Only under LoRA are they frozen.
fn weights(recipe: &Recipe, shape: &Shape) -> (&'static str, u64) {
    let all = shape.parameters();
    match shape.stored {
        _ if recipe.lora.is_none() => {}
        Stored::Blocks(bytes) if !recipe.model.load_in_4bit => return ("weights as stored", bytes),
        Stored::Floats(_) if !recipe.model.load_in_4bit => {}
        stored => {
            let four = (shape.num_hidden_layers * shape.quantizable) as u64;
            let tables = (if shape.tie_word_embeddings { 1 } else { 2 } * shape.vocab_size * shape.hidden_size) as u64;
            // Embeddings and head as they are stored; a GGUF's take no more than 16 bits.
            let wide = if let Stored::Floats(bytes) = stored { bytes as u64 } else { 2 };
            // Half a byte, a byte per 64 weights and an f32 per 256 of those.
            let packed = four / 2 + four / 64 + four / 4096;
            return ("weights nf4", packed + wide * tables + F32 * (all - four - tables));
        }
    }
    ("weights f32", F32 * all)
}

/// The estimate for a recipe, with activations kept or computed again.
pub fn estimate(recipe: &Recipe, shape: &Shape, longest: Option<usize>, recomputes: bool) -> Estimate {
    let t = tokens(recipe, longest);
    let row = longest.map_or(recipe.model.max_seq_length, |l| l.min(recipe.model.max_seq_length)) as u64;
    let (layers, n, v) = (shape.num_hidden_layers as u64, shape.hidden_size as u64, shape.vocab_size as u64);
    let trainable = shape.trainable(recipe);
    let kept = shape.kept(recipe);
    let activations = if recomputes { t * (layers * n + kept) } else { t * layers * kept };
    // Labelled rows before and after the final norm with their gradients, and the gradient of all rows.
    let loss = (v * (LOGITS / v.max(1)).max(1).min(t)) + 5 * t * n;
    let threads = std::thread::available_parallelism().map_or(1, |c| c.get() as u64);
    let scores = threads * 2 * QUERIES * row;
    let states = if recipe.lora.is_some() { "adapters, grads, adam" } else { "grads, adam" };
    // Under full tuning the values are the weights.
    let values = if recipe.lora.is_some() { 0 } else { F32 * trainable };
    // What trains, as it stood at step 0; kept aside while the copy speaks.
    let copied = (recipe.method == Method::Dpo || recipe.grpo.as_ref().is_some_and(|g| g.beta > 0.0))
        && recipe.has_given_start();
    let reference = if copied { 2 * F32 * trainable } else { 0 };
    let held = weights(recipe, shape);
    // Frozen matrices in few bits are widened a tile at a time.
    let tile = if held.0 == "weights f32" { 0 } else { TILE as u64 };
    let mut components = vec![
        // With what trains beside adapters as it was: the base speaks too.
        (held.0, held.1 + F32 * shape.tables(recipe)),
        (states, trained(recipe, trainable) - values),
        ("activations", F32 * activations),
        ("loss chunk", F32 * loss),
        ("workspace", F32 * (t * shape.passing(recipe) + scores + tile)),
    ];
    let passing: u64 = components[2..5].iter().map(|(_, bytes)| bytes).sum();
    let share = if recipe.train.packing { KEPT_ALIKE } else { KEPT_VARIED };
    if reference > 0 {
        components.insert(2, ("reference", reference));
    }
    components.push(("program, allocator", PROGRAM + TOKENIZER * v + (share * passing as f64) as u64));
    Estimate { components, tokens: t, recomputes }
}

/// Whether activations are to be computed again, as `train.gradient_checkpointing` says; `auto` keeps them where all
/// fits into `available` bytes with a tenth to spare (unknown: they are kept).
pub fn recomputes(recipe: &Recipe, shape: &Shape, longest: Option<usize>, available: Option<u64>) -> bool {
    match recipe.train.gradient_checkpointing.as_str() {
        "full" => true,
        "off" => false,
        _ => available.is_some_and(|free| !fits(&estimate(recipe, shape, longest, false), free)),
    }
}

/// Whether it fits into `available` bytes with a tenth to spare.
pub fn fits(estimate: &Estimate, available: u64) -> bool {
    estimate.total() as f64 <= FILL * available as f64
}

/// The largest `per_device_train_batch_size` that fits into `available` bytes with a tenth to spare, and whether
/// activations are then computed again; none where not even one sequence fits.
pub fn largest_batch(recipe: &Recipe, shape: &Shape, longest: Option<usize>, available: u64) -> Option<(usize, bool)> {
    largest(4_096, available, recipe, shape, longest, |r, batch| {
        r.train.per_device_train_batch_size = batch;
        r.train.per_device_eval_batch_size = r.train.per_device_eval_batch_size.min(batch);
    })
}

/// The largest `model.max_seq_length` that fits at the recipe's batch size, for rows as long, and whether activations
/// are then computed again.
pub fn largest_sequence(recipe: &Recipe, shape: &Shape, available: u64) -> Option<(usize, bool)> {
    largest(1 << 20, available, recipe, shape, None, |r, length| r.model.max_seq_length = length)
}

fn largest(
    most: usize,
    available: u64,
    recipe: &Recipe,
    shape: &Shape,
    longest: Option<usize>,
    change: impl Fn(&mut Recipe, usize),
) -> Option<(usize, bool)> {
    let at = |value: usize| {
        let mut r = recipe.clone();
        change(&mut r, value);
        let again = recomputes(&r, shape, longest, Some(available));
        fits(&estimate(&r, shape, longest, again), available).then_some(again)
    };
    largest_that_fits(most, at)
}

/// The largest of `1..=most` for which `fits` says something, and what it says; none where 1 does not.
pub(super) fn largest_that_fits(most: usize, fits: impl Fn(usize) -> Option<bool>) -> Option<(usize, bool)> {
    fits(1)?;
    // Memory grows with the value, so what fits can be halved towards.
    let (mut low, mut high) = (1, most + 1);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if fits(middle).is_some() { low = middle } else { high = middle }
    }
    fits(low).map(|again| (low, again))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{parse, with};

    const SMOL: Shape = Shape {
        vocab_size: 49_152,
        hidden_size: 576,
        intermediate_size: 1_536,
        num_hidden_layers: 30,
        queries: 576,
        keys: 192,
        num_attention_heads: 9,
        tie_word_embeddings: true,
        fused: false,
        dense: true,
        others: 2 * 576,
        kept: 0,
        normed_heads: 0,
        post_norms: false,
        quantizable: 2 * 576 * 576 + 2 * 192 * 576 + 3 * 1_536 * 576,
        stored: Stored::Floats(2),
    };

    fn recipe(more: &str) -> Recipe {
        let text = format!(
            "[model]\nname_or_path = \"demo\"\nmax_seq_length = 256\n[data]\ntrain = \"a\"\n[train]\n\
             per_device_train_batch_size = 2\nper_device_eval_batch_size = 2\n{more}"
        );
        parse(&text, "m.toml", &[]).unwrap().recipe
    }

    #[test]
    fn smollm2_has_the_parameters_that_transformers_and_peft_count() {
        // AutoModelForCausalLM.from_pretrained("HuggingFaceTB/SmolLM2-135M-Instruct").num_parameters() → 134515008
        assert_eq!(SMOL.parameters(), 134_515_008);
        // get_peft_model(m, LoraConfig(r=16, target_modules="all-linear")).print_trainable_parameters() → 4,884,480
        assert_eq!(SMOL.trainable(&recipe("[lora]\nr = 16\n")), 4_884_480);
        assert_eq!(SMOL.trainable(&recipe("")), SMOL.parameters());
        let two = recipe("[lora]\nr = 8\ntarget_modules = [\"q_proj\", \"v_proj\"]\n");
        assert_eq!(SMOL.trainable(&two), 30 * 8 * (576 + 576 + 576 + 192));
    }

    #[test]
    fn components_are_in_proportion() {
        let e = estimate(&recipe("[lora]\n"), &SMOL, None, false);
        assert_eq!(e.tokens, 512);
        let of = |e: &Estimate, name: &str| e.components.iter().find(|(n, _)| *n == name).unwrap().1;
        assert_eq!(of(&e, "weights f32"), 4 * 134_515_008);
        assert_eq!(of(&e, "adapters, grads, adam"), 16 * 4_884_480);
        let again = estimate(&recipe("[lora]\n"), &SMOL, None, true);
        assert!(of(&again, "activations") * 5 < of(&e, "activations"));
        let full = estimate(&recipe(""), &SMOL, None, false);
        assert_eq!(of(&full, "grads, adam"), 12 * 134_515_008);
        // Short rows need less than the length allows; packed ones fill it.
        let short = estimate(&recipe("[lora]\n"), &SMOL, Some(100), false);
        assert_eq!(short.tokens, 200);
        assert_eq!(estimate(&recipe("packing = true\n[lora]\n"), &SMOL, Some(100), false).tokens, 512);
    }

    #[test]
    fn frozen_weights_take_the_bits_they_are_kept_in_and_training_ones_four_bytes() {
        let weights =
            |stored: Stored, more: &str| estimate(&recipe(more), &Shape { stored, ..SMOL }, None, false).components[0];
        let lora = "[lora]\n";
        let in_4bit = |stored| {
            let r = with(&recipe(lora), "model.load_in_4bit", "true").unwrap();
            estimate(&r, &Shape { stored, ..SMOL }, None, false).components[0]
        };
        assert_eq!(weights(Stored::Floats(2), lora), ("weights f32", 4 * 134_515_008));
        assert_eq!(weights(Stored::Blocks(91_000_000), lora), ("weights as stored", 91_000_000));
        assert_eq!(weights(Stored::Blocks(91_000_000), ""), ("weights f32", 4 * 134_515_008));
        // 106,168,320 weights in NF4, the table of 28,311,552 in 16 bits, 35,136 numbers of norms in f32.
        let nf4 = 53_084_160 + 1_658_880 + 25_920 + 2 * 28_311_552 + 4 * 35_136;
        for stored in [Stored::Floats(2), Stored::Nf4, Stored::Blocks(91_000_000)] {
            assert_eq!(in_4bit(stored), ("weights nf4", nf4));
        }
        assert_eq!(weights(Stored::Nf4, lora).1, nf4);
        assert_eq!(in_4bit(Stored::Floats(4)).1, nf4 + 2 * 28_311_552);
    }

    /// Peaks of whole runs on the CPU (`measured` in their memory events), MiB.
    #[test]
    fn the_total_is_near_what_was_measured() {
        let at = |batch: usize, more: &str| {
            let r = recipe(&format!("{more}\n[lora]\nr = 16\nlora_alpha = 16\n"));
            let r = with(&r, "train.per_device_train_batch_size", &batch.to_string()).unwrap();
            estimate(&r, &SMOL, Some(256), false).total() as f64 / 1_048_576.0
        };
        for (mine, measured) in [(at(4, "packing = true"), 1_558.0), (at(4, ""), 1_674.0), (at(4, ""), 1_706.0)] {
            assert!((mine / measured - 1.0).abs() < 0.05, "{mine:.0} against {measured}");
        }
    }

    #[test]
    fn auto_keeps_activations_where_they_fit() {
        let r = recipe("[lora]\n");
        let kept = estimate(&r, &SMOL, None, false).total();
        assert!(!recomputes(&r, &SMOL, None, Some(2 * kept)));
        assert!(recomputes(&r, &SMOL, None, Some(kept)));
        assert!(!recomputes(&r, &SMOL, None, None));
        let full = with(&r, "train.gradient_checkpointing", "full").unwrap();
        assert!(recomputes(&full, &SMOL, None, None));
    }

    #[test]
    fn the_largest_batch_fits_and_one_more_does_not() {
        let r = recipe("[lora]\n");
        let free = 8u64 << 30;
        let (batch, again) = largest_batch(&r, &SMOL, None, free).unwrap();
        let at = |b: usize| {
            let r = with(&r, "train.per_device_train_batch_size", &b.to_string()).unwrap();
            estimate(&r, &SMOL, None, true).total() as f64
        };
        assert!(again && batch > 8);
        assert!(at(batch) <= 0.9 * free as f64 && at(batch + 1) > 0.9 * free as f64, "{batch}");
        assert_eq!(largest_batch(&r, &SMOL, None, 100 << 20), None);
        let (length, _) = largest_sequence(&r, &SMOL, free).unwrap();
        assert!(length > 256);
    }
}
