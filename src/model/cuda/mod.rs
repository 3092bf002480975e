//! The decoder on an NVIDIA card: bf16 products with f32 sums, f32 trainables and moments, LoRA over frozen weights in
//! 16 or 4 bits.
//!
//! It computes what [`super::llama`] computes, which is its reference; what is its own is the order of the work. One
//! thread, one stream, memory laid out before the first step, nothing waited for until a step's end. Who trains, and
//! why, is not known here.

mod decode;
mod layer;
mod linear;
mod load;
mod offload;
mod weighted;
mod workspace;

use self::layer::{Layer, Pass, Reads};
use self::linear::Work;
use self::offload::{Event, Offload, Pinned};
use self::workspace::Workspace;
use super::config::{Activation, Config};
use super::params::Params;
use super::ranks::Ranks;
use crate::data::batch::{Batch, IGNORE};
use crate::memory::card::{self, Checkpointing, Keep, Plan, Sizes};
use crate::model::engine::Stepped;
use crate::ops::adamw::Rule;
use crate::ops::cuda::adamw;
use crate::ops::cuda::attention::{self, Packed};
use crate::ops::cuda::device::{Buffer, Gpu};
use crate::ops::cuda::elementwise::{self, Gate};
use crate::ops::cuda::fp8::Quantized;
use crate::ops::cuda::gemm::{Gemm, Mat, Out, Product};
use crate::ops::cuda::nccl::{Communicator, Nccl};
use crate::ops::optimizer::Moments;
use crate::{Error, Result};
use std::cell::{Cell, RefCell};

pub use self::decode::CudaCache;
pub use self::load::{Options, Origin, Precision, check};

/// Names of components in the ledger, with those of [`workspace`].
const WEIGHTS: &str = "weights";
const TRAINED: &str = "adapters, grads, adam";
const BATCH: &str = "batch";

/// The trainables on the card, in the arena's order.
struct Arena {
    values: Buffer,
    grads: Buffer,
    optimizer: adamw::State,
    /// Where each goes in bf16: a list of [`elementwise::Spread`] and its length; empty where matrices are made anew.
    spreads: Option<(Buffer, usize)>,
}

/// A batch's numbers on the card, and their way there: two page-locked copies in turn, so that the host can write the
/// next one while the last is on its way.
struct Inputs {
    card: Buffer,
    host: [(Pinned, Event); 2],
    turn: usize,
}

/// Where matrices in four bits are laid out in 16 when they are needed, two at a time; and the map that this reads.
struct Scratch {
    room: [Buffer; 2],
    _code: Buffer,
}

/// A decoder on a card, and what trains of it.
pub struct CudaLlama {
    gpu: Gpu,
    gemm: Gemm,
    config: Config,
    sizes: Sizes,
    /// Names and places of what trains, and the host's copy of their values.
    params: Params,
    arena: Arena,
    embedding: Buffer,
    /// None where the embedding is the head.
    head: Option<Buffer>,
    layers: Vec<Layer>,
    norm: u64,
    _norms: Buffer,
    scratch: Option<Scratch>,
    /// Positions that there are angles for, and those: global, local.
    angles: RefCell<(usize, Vec<Buffer>)>,
    /// f64: Σ NLL, Σ g².
    sums: Buffer,
    space: RefCell<Option<(Workspace, Option<Offload>)>>,
    inputs: RefCell<Option<Inputs>>,
    checkpointing: Checkpointing,
    /// Bytes that this model may have on the card.
    cap: u64,
    adapter: Cell<bool>,
    /// How gradients are added up over several processes; found out at the first sum.
    sums_over: Option<Over>,
    total: u64,
}

/// The way of a sum over processes.
enum Over {
    Nccl(Communicator),
    /// Through the host and rank 0.
    Host,
}

/// A batch on the card.
struct Uploaded {
    tokens: usize,
    ids: u64,
    positions: u64,
    rows: u64,
    labels: u64,
    labelled: usize,
    packed: Packed,
}

impl CudaLlama {
    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// What trains; its values are the card's as of the last [`CudaLlama::fetch`].
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Numbers in the model, adapters included; a tied head counts once.
    pub fn total_parameters(&self) -> u64 {
        self.total
    }

    /// With `false` the base speaks, as if there were no adapter.
    pub fn set_adapter_enabled(&self, on: bool) {
        self.adapter.set(on);
    }

    /// How the last batch was worked through.
    pub fn plan(&self) -> Option<Plan> {
        self.space.borrow().as_ref().map(|(w, _)| w.plan.clone())
    }

    /// Bytes by component that training on batches of `tokens` will hold.
    ///
    /// # Errors
    /// Where they do not fit.
    pub fn predict(&self, tokens: usize) -> Result<Vec<(&'static str, u64)>> {
        let mut all: Vec<_> = self.gpu.ledger().now().into_iter().filter(|(_, bytes)| *bytes > 0).collect();
        if self.space.borrow().is_none() {
            let plan = self.lay_out(tokens.next_multiple_of(256))?;
            all.push((workspace::ACTIVATIONS, plan.activations(&self.sizes) as u64));
            all.push((workspace::WORKSPACE, plan.workspace(&self.sizes) as u64));
        }
        // NVML, beside which this stands, counts it too.
        all.push(("CUDA context", card::CONTEXT));
        Ok(all)
    }

    /// The plan for batches of `tokens`, in the room that there is now.
    fn lay_out(&self, tokens: usize) -> Result<Plan> {
        // What others hold of the card is not ours to plan with; a twentieth is left for the allocator's rounding.
        let free = self.gpu.free_memory()? / 20 * 19;
        let room = free.min(self.cap.saturating_sub(self.gpu.ledger().total()));
        let splits = self.attention().splits(&self.gpu, tokens);
        Plan::choose(&self.sizes, tokens, splits, self.checkpointing, room)
    }

    fn work(&self, room: Quantized, adapter: bool) -> Work<'_> {
        let (values, grads) = (self.arena.values.at(), self.arena.grads.at());
        Work { gpu: &self.gpu, gemm: &self.gemm, values, grads, room, adapter }
    }

    fn attention(&self) -> attention::Shape {
        let c = &self.config;
        attention::Shape {
            heads: c.num_attention_heads,
            kv_heads: c.num_key_value_heads,
            head_dim: c.head_dim,
            // Each layer's own.
            window: 0,
            cap: c.traits.attn_logit_softcapping.unwrap_or(0.0),
            scale: (1.0 / c.traits.query_pre_attn_scalar.unwrap_or(c.head_dim as f64).sqrt()) as f32,
        }
    }

    /// What logits are held below; 0: nothing.
    fn softcap(&self) -> f32 {
        self.config.traits.final_logit_softcapping.unwrap_or(0.0) as f32
    }

    fn embed(&self, ids: u64, to: Mat, t: usize) -> Result<()> {
        let scale = self.config.traits.embedding_scale.unwrap_or(1.0) as f32;
        elementwise::embed(&self.gpu, self.embedding.at(), ids, to, (t, self.config.hidden_size), scale)
    }

    fn head(&self) -> u64 {
        self.head.as_ref().unwrap_or(&self.embedding).at()
    }

    /// Lay memory out for at least `tokens` at a time.
    fn make_room(&self, tokens: usize) -> Result<()> {
        let mut space = self.space.borrow_mut();
        if space.as_ref().is_some_and(|(w, _)| w.plan.tokens >= tokens) {
            return Ok(());
        }
        *space = None;
        self.gpu.wait()?;
        // A little more than asked, so that batches of varying length do not lay out anew each time.
        let tokens = tokens.next_multiple_of(256);
        let plan = self.lay_out(tokens)?;
        let offload = match plan.offload {
            true => Some(Offload::new(&self.gpu, self.sizes.layers, self.sizes.input(tokens))?),
            false => None,
        };
        *space = Some((Workspace::new(&self.gpu, &self.sizes, plan)?, offload));
        Ok(())
    }

    /// Cosines and sines of the first `count` positions, on the card: global, and local where a layer turns by those.
    fn angles(&self, count: usize) -> Result<[u64; 2]> {
        let mut held = self.angles.borrow_mut();
        let (made, tables) = &mut *held;
        if *made < count || tables.is_empty() {
            tables.clear();
            *made = count.next_power_of_two();
            let positions: Vec<u32> = (0..*made as u32).collect();
            for rotary in load::rotaries(&self.config) {
                let (cos, sin) = rotary.angles(&positions, &[0, *made as u32])?;
                let (cos, sin) = (cos.flatten_all()?.to_vec1::<f32>()?, sin.flatten_all()?.to_vec1::<f32>()?);
                let pairs: Vec<[f32; 2]> = cos.into_iter().zip(sin).map(|(c, s)| [c, s]).collect();
                let buffer = self.gpu.zeros(BATCH, size_of_val(pairs.as_slice()))?;
                buffer.upload(0, &pairs)?;
                tables.push(buffer);
            }
        }
        let at = |i: usize| tables.get(i).map_or(0, Buffer::at);
        Ok([at(0), if tables.len() > 1 { at(1) } else { at(0) }])
    }

    /// Put a batch on the card: one copy, without waiting for earlier work.
    fn upload(&self, batch: &Batch) -> Result<Uploaded> {
        let t = batch.ids.len();
        if t == 0 || batch.positions.len() != t || batch.labels.len() != t {
            return Err(Error::new(format!(
                "a batch of {t} tokens has {} positions and {} labels",
                batch.positions.len(),
                batch.labels.len()
            )));
        }
        let mut rows = Vec::new();
        let mut labels = Vec::new();
        for (i, &label) in batch.labels.iter().enumerate().filter(|(_, l)| **l != IGNORE) {
            let id = u32::try_from(label).ok().filter(|l| (*l as usize) < self.config.vocab_size);
            labels.push(id.ok_or_else(|| Error::new(format!("label {label} is no token id")))?);
            rows.push(i as u32);
        }
        if let Some(id) = batch.ids.iter().find(|id| **id as usize >= self.config.vocab_size) {
            return Err(Error::new(format!("token {id} is beyond the vocabulary of {}", self.config.vocab_size)));
        }
        let shape = self.attention();
        let (partial, splits) = self.space.borrow().as_ref().map_or((0, 1), |(w, _)| (w.shared.partial, w.plan.splits));
        let works = shape.work(&self.gpu, &batch.cu_seqlens, t, splits)?;
        let mut all: Vec<u32> = Vec::with_capacity(4 * t + works.iter().map(|w| 4 * w.tiles.len()).sum::<usize>());
        // The tiles come first: they are read 16 bytes at a time.
        all.extend(works.iter().flat_map(|w| w.tiles.iter().flatten()).map(|&n| n as u32));
        for part in [&batch.ids, &batch.positions, &rows, &labels] {
            all.extend_from_slice(part);
        }
        let mut held = self.inputs.borrow_mut();
        if held.as_ref().is_none_or(|i| i.card.size() < 4 * all.len()) {
            if held.take().is_some() {
                self.gpu.wait()?;
            }
            let bytes = 4 * all.len().next_power_of_two();
            let host = || Ok::<_, Error>((Pinned::new(&self.gpu, bytes)?, Event::new()?));
            *held = Some(Inputs { card: self.gpu.zeros(BATCH, bytes)?, host: [host()?, host()?], turn: 0 });
        }
        let Some(inputs) = held.as_mut() else { return Err(Error::new("the batch has no place on the card")) };
        inputs.turn = 1 - inputs.turn;
        let (host, sent) = &mut inputs.host[inputs.turn];
        sent.wait()?;
        let host = host.as_mut::<u32>(all.len());
        host.copy_from_slice(&all);
        inputs.card.upload(0, host)?;
        sent.record(self.gpu.stream())?;
        let mut at = inputs.card.at();
        let mut take = |n: usize| {
            at += 4 * n as u64;
            at - 4 * n as u64
        };
        let lists = works.each_ref().map(|w| attention::List {
            at: take(4 * w.tiles.len()),
            len: w.tiles.len(),
            blocks: w.blocks,
        });
        let (ids, positions, rows_at, labels_at) = (take(t), take(t), take(rows.len()), take(labels.len()));
        let [forward, dq, dkv] = lists;
        let packed = Packed { shape, tokens: t, forward, dq, dkv, partial, splits };
        Ok(Uploaded { tokens: t, ids, positions, rows: rows_at, labels: labels_at, labelled: rows.len(), packed })
    }

    fn pass<'a>(&'a self, space: &'a Workspace, batch: &Uploaded, longest: usize, adapter: bool) -> Result<Pass<'a>> {
        self.pass_over(space, Reads::Packed(batch.packed), batch.positions, batch.tokens, longest, adapter)
    }

    fn pass_over<'a>(
        &'a self,
        space: &'a Workspace,
        reads: Reads<'a>,
        positions: u64,
        tokens: usize,
        longest: usize,
        adapter: bool,
    ) -> Result<Pass<'a>> {
        Ok(Pass {
            work: self.work(space.shared.room, adapter),
            space,
            scratch: self.scratch.as_ref().map_or([0, 0], |s| [s.room[0].at(), s.room[1].at()]),
            reads,
            positions,
            angles: self.angles(longest)?,
            tokens,
            heads: self.config.num_attention_heads + self.config.num_key_value_heads,
            head_dim: self.config.head_dim,
            hidden: self.config.hidden_size,
            intermediate: self.config.intermediate_size,
            eps: self.config.rms_norm_eps,
            gate: match self.config.traits.activation {
                // The clamped one is of mixtures, which a card refuses.
                Activation::Silu | Activation::Clamped { .. } => Gate::Silu,
                Activation::GeluTanh => Gate::GeluTanh,
            },
        })
    }

    /// Add scale · ∂ΣNLL into the gradients, and ΣNLL to what [`CudaLlama::step`] reports. Waits for nothing.
    pub fn forward_backward(&self, batch: &Batch, scale: f64) -> Result<()> {
        if batch.label_tokens() == 0 {
            return Ok(());
        }
        self.there_and_back(batch, &mut |space, up, x| self.top(space, up, x, Some(scale)))
    }

    /// Forward, then back from the gradient that `top` leaves in the stream for the last block's output.
    fn there_and_back(
        &self,
        batch: &Batch,
        top: &mut dyn FnMut(&Workspace, &Uploaded, Mat) -> Result<()>,
    ) -> Result<()> {
        self.gpu.bind()?;
        let longest = batch.positions.iter().max().map_or(1, |p| *p as usize + 1);
        // Before room is made for the rest: it counts too.
        self.angles(longest)?;
        self.make_room(batch.ids.len())?;
        let up = self.upload(batch)?;
        let space = self.space.borrow();
        let Some((space, offload)) = space.as_ref() else { return Err(Error::new("no room was made")) };
        let p = self.pass(space, &up, longest, true)?;
        let n = self.layers.len();
        let moved = 2 * up.tokens * p.hidden;
        self.embed(up.ids, space.input(0), up.tokens)?;
        for (i, layer) in self.layers.iter().enumerate() {
            if let Some(o) = offload {
                o.leaves(i, space.input(i).at, moved)?;
                o.room_for(i + 1)?;
            }
            layer.forward(&p, i, space.input(i), &space.slots(i), space.input(i + 1))?;
        }
        top(space, &up, space.input(n))?;
        if let Some(o) = offload {
            o.turn_round(n, space, moved)?;
        }
        for (i, layer) in self.layers.iter().enumerate().rev() {
            if let Some(o) = offload {
                o.returns(i, n)?;
            }
            let again = space.plan.keep[i] == Keep::Input;
            layer.backward(&p, &up.packed, i, space.input(i), &space.slots(i), (again, i > 0))?;
            if let Some(o) = offload {
                o.done(i, space, moved)?;
            }
        }
        Ok(())
    }

    /// Final norm, head and loss of `x [T, n]` at the labelled rows; with a scale, the gradient stream is set to their
    /// gradient (0 where there is no label).
    fn top(&self, space: &Workspace, up: &Uploaded, x: Mat, scale: Option<f64>) -> Result<()> {
        let (n, v, eps) = (self.config.hidden_size, self.config.vocab_size, self.config.rms_norm_eps);
        let (gpu, sh, d) = (&self.gpu, &space.shared, space.stream);
        let head = Mat::new(self.head(), n);
        if scale.is_some() {
            elementwise::clear(gpu, d.at, 2 * up.tokens * d.ld)?;
        }
        let _part = gpu.scope("loss");
        let mut at = 0;
        while at < up.labelled {
            let m = space.plan.logits.min(up.labelled - at);
            let (rows, labels, nll) = (up.rows + 4 * at as u64, up.labels + 4 * at as u64, space.nll + 4 * at as u64);
            elementwise::rms_norm(gpu, x, self.norm, sh.hidden, (m, n), eps, rows)?;
            let product = |size, a, b, tb, d| Product {
                size,
                a,
                ta: false,
                b,
                tb,
                alpha: 1.0,
                c: None,
                d,
                out: Out::Bf16,
                scales: None,
            };
            // SAFETY: a chunk's buffers have a chunk's rows.
            unsafe { self.gemm.run(&product((m, v, n), sh.hidden, head, true, sh.logits)) }?;
            let cap = self.softcap();
            elementwise::softcap(gpu, sh.logits, (m, v), cap)?;
            elementwise::cross_entropy(gpu, sh.logits, labels, nll, (m, v), scale.unwrap_or(0.0), cap, 0)?;
            if scale.is_some() {
                // SAFETY: as above.
                unsafe { self.gemm.run(&product((m, n, v), sh.logits, head, false, sh.dhidden)) }?;
                elementwise::rms_norm_backward(gpu, sh.dhidden, x, self.norm, d, (m, n), eps, rows)?;
            }
            at += m;
        }
        elementwise::add_up(gpu, space.nll, up.labelled, self.sums.at())
    }

    /// Gradients and ΣNLL since the last step become their sums over all ranks.
    pub fn reduce(&mut self, ranks: &mut Ranks) -> Result<()> {
        if self.sums_over.is_none() {
            self.sums_over = Some(self.connect(ranks)?);
        }
        let n = self.params.len();
        match &self.sums_over {
            // SAFETY: the arena has as many gradients, and ΣNLL is the first of the sums.
            Some(Over::Nccl(all)) => unsafe {
                all.sum_f32(self.arena.grads.at(), n)?;
                all.sum_f64(self.sums.at(), 1)
            },
            _ => {
                let (mut grads, mut nll) = (self.grads()?, [self.nll()?]);
                ranks.sum_f32(&mut grads)?;
                ranks.sum(&mut nll)?;
                self.arena.grads.upload(0, &grads)?;
                self.sums.upload(0, &nll)
            }
        }
    }

    /// Whether sums go over NCCL: known after the first.
    pub fn sums_over_nccl(&self) -> bool {
        matches!(self.sums_over, Some(Over::Nccl(_)))
    }

    /// NCCL where every rank has it and a card of its own, else the host.
    fn connect(&self, ranks: &mut Ranks) -> Result<Over> {
        let nccl = Nccl::open().ok();
        let mut without = [f64::from(u8::from(nccl.is_none()))];
        ranks.sum(&mut without)?;
        let (Some(nccl), true) = (nccl, without[0] == 0.0) else { return Ok(Over::Host) };
        let own = if ranks.leads() { Some(nccl.unique_id()?) } else { None };
        let id: Vec<u8> = ranks.tell(own)?;
        let made = Communicator::new(nccl, &self.gpu, &id, ranks.rank(), ranks.size());
        // It will not connect two processes of one card.
        let mut failed = [f64::from(u8::from(made.is_err()))];
        ranks.sum(&mut failed)?;
        match made {
            Ok(all) if failed[0] == 0.0 => Ok(Over::Nccl(all)),
            _ => Ok(Over::Host),
        }
    }

    /// One AdamW step over the gradients since the last one, clipped to `max_grad_norm` (0: not). A step whose loss or
    /// gradient is not finite changes nothing. Waits for the card, once.
    pub fn step(&mut self, rule: &Rule) -> Result<Stepped> {
        self.gpu.bind()?;
        let n = self.params.len();
        let (loss, square) = (self.sums.at(), self.sums.at() + 8);
        adamw::l2(&self.gpu, &self.arena.optimizer, self.arena.grads.at(), n, square)?;
        let mut told = [0f64; 2];
        adamw::step(
            &self.gpu,
            &mut self.arena.optimizer,
            self.arena.values.at(),
            self.arena.grads.at(),
            rule,
            (square, loss),
        )?;
        self.spread()?;
        self.sums.download(0, &mut told)?;
        let taken = told[0].is_finite() && told[1].is_finite();
        if !taken {
            self.arena.optimizer.left_out();
        }
        self.sums.clear(0, 16)?;
        Ok(Stepped { nll: told[0], grad_norm: told[1].sqrt(), taken })
    }

    /// Forget gradients and losses since the last step.
    pub fn zero_grad(&self) -> Result<()> {
        self.gpu.bind()?;
        self.arena.grads.clear(0, 4 * self.params.len())?;
        self.sums.clear(0, 16)
    }

    /// Bring the adapters' bf16 copies, which lie beside the weights, up to date.
    fn spread(&self) -> Result<()> {
        match &self.arena.spreads {
            Some((list, count)) => elementwise::spread(&self.gpu, self.arena.values.at(), list.at(), *count),
            None => Ok(()),
        }
    }

    /// A copy of all gradients since the last step, in arena order.
    pub fn grads(&self) -> Result<Vec<f32>> {
        let mut grads = vec![0f32; self.params.len()];
        self.arena.grads.download(0, &mut grads)?;
        Ok(grads)
    }

    /// ΣNLL of the micro-batches since the last step.
    pub fn nll(&self) -> Result<f64> {
        let mut sum = [0f64];
        self.sums.download(0, &mut sum)?;
        Ok(sum[0])
    }

    /// ΣNLL and the number of labels: nothing is kept.
    pub fn loss(&self, batch: &Batch) -> Result<(f64, u64)> {
        let labels = batch.label_tokens();
        if labels == 0 {
            return Ok((0.0, 0));
        }
        self.gpu.bind()?;
        self.make_room(batch.ids.len())?;
        let up = self.upload(batch)?;
        let space = self.space.borrow();
        let Some((space, _)) = space.as_ref() else { return Err(Error::new("no room was made")) };
        let longest = batch.positions.iter().max().map_or(1, |p| *p as usize + 1);
        let p = self.pass(space, &up, longest, self.adapter.get())?;
        self.run(&p, up.ids)?;
        // What a step has added up so far is put back after.
        let mut kept = [0f64; 1];
        self.sums.download(0, &mut kept)?;
        self.sums.clear(0, 8)?;
        self.top(space, &up, space.input(self.layers.len()), None)?;
        let mut nll = [0f64; 1];
        self.sums.download(0, &mut nll)?;
        self.sums.upload(0, &kept)?;
        Ok((nll[0], labels))
    }

    /// All blocks forward, for their output alone.
    fn run(&self, p: &Pass, ids: u64) -> Result<()> {
        let space = p.space;
        self.embed(ids, space.input(0), p.tokens)?;
        for (i, layer) in self.layers.iter().enumerate() {
            layer.forward(p, i, space.input(i), &space.slots(i), space.input(i + 1))?;
        }
        Ok(())
    }

    /// Bring the host's copy of what trains up to date.
    pub fn fetch(&self) -> Result<()> {
        let mut values = vec![0f32; self.params.len()];
        self.arena.values.download(0, &mut values)?;
        self.params.set_values(&values)
    }

    /// Bring the card's copy up to date with the host's.
    pub fn put(&self) -> Result<()> {
        self.gpu.bind()?;
        self.arena.values.upload(0, &self.params.values()?)?;
        self.spread()?;
        self.gpu.wait()
    }

    /// The optimizer's moments and the steps taken, for a checkpoint.
    pub fn moments(&self) -> Result<(Moments, u64)> {
        Ok((self.arena.optimizer.download()?, self.arena.optimizer.t))
    }

    /// Put moments back as a checkpoint has them.
    pub fn set_moments(&mut self, moments: &Moments, t: u64) -> Result<()> {
        self.gpu.bind()?;
        self.arena.optimizer.upload(moments, t)
    }
}
