//! Building a [`CudaLlama`]: weights to the card in the layout that its products want, matrix by matrix.

use super::linear::{self, Linear, Store};
use super::{Arena, CudaLlama, Scratch, TRAINED, WEIGHTS};
use crate::memory::card::{self, Checkpointing, Sizes};
use crate::model::config::{Config, HEAD_NORMS, RopeScaling, Weights};
use crate::model::llama;
use crate::model::lora::{self, Tuning};
use crate::model::params::Params;
use crate::ops::cuda::adamw;
use crate::ops::cuda::attention::HEAD_SIZES;
use crate::ops::cuda::device::{Buffer, Gpu};
use crate::ops::cuda::elementwise::{self, HeadNorm, Spread, WIDEST};
use crate::ops::cuda::fp8;
use crate::ops::cuda::gemm::{Gemm, Mat};
use crate::ops::cuda::nf4::{Nf4, Tables};
use crate::ops::optimizer::Optim;
use crate::ops::quant8::Code;
use crate::ops::rope::Rotary;
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use half::bf16;
use std::cell::{Cell, RefCell};

/// How frozen matrices are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    Bf16,
    /// NF4 with double quantization, as bitsandbytes; embeddings and head stay 16-bit.
    Nf4,
    /// e4m3 with a scale a row, and products in fp8: on Hopper. Embeddings and head stay 16-bit.
    Fp8,
}

/// How to use a card.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    pub precision: Precision,
    pub checkpointing: Checkpointing,
    /// Bytes that the model may have on the card; all that is free where there is no cap.
    pub vram: Option<u64>,
    pub optim: Optim,
}

/// Where a model's numbers come from.
pub enum Origin {
    Weights(Weights),
    /// Random ones of this shape, made on the card: for benchmarks.
    Random(Config),
}

/// Rows of a large matrix that are widened and sent at a time.
const ROWS: usize = 4096;

struct Loader<'a> {
    gpu: &'a Gpu,
    weights: Option<Weights>,
    /// Counts matrices, so that random ones differ.
    made: u32,
}

impl Loader<'_> {
    /// Put the named matrices `[rows, cols]`, one under the other, at `to` in bf16.
    fn matrix(&mut self, names: &[(String, usize)], cols: usize, to: Mat, buffer: &Buffer) -> Result<()> {
        let mut row = 0;
        for (name, rows) in names {
            self.made += 1;
            let to = to.part(row, 0);
            match &mut self.weights {
                None => {
                    // Uniform on ±b has the standard deviation b / √3.
                    let bound = 0.02 * 3f32.sqrt();
                    elementwise::fill_uniform(self.gpu, to, (*rows, cols), bound, 3407, self.made)?;
                }
                Some(weights) => {
                    let t = take(weights, name, &[*rows, cols])?;
                    for at in (0..*rows).step_by(ROWS) {
                        let part = t.narrow(0, at, ROWS.min(rows - at))?;
                        send(&part, to.part(at, 0), buffer)?;
                    }
                }
            }
            row += rows;
        }
        Ok(())
    }

    /// A norm's weights, or a bias: f32.
    fn vector(&mut self, name: &str, len: usize, fill: f32) -> Result<Vec<f32>> {
        match &mut self.weights {
            None => Ok(vec![fill; len]),
            Some(weights) => Ok(take(weights, name, &[len])?.to_vec1()?),
        }
    }
}

/// Copy an f32 host matrix to a bf16 matrix inside `buffer`.
fn send(from: &Tensor, to: Mat, buffer: &Buffer) -> Result<()> {
    let (rows, cols) = from.dims2()?;
    let values = from.flatten_all()?.to_vec1::<f32>()?;
    let half: Vec<u16> = values.iter().map(|v| bf16::from_f32(*v).to_bits()).collect();
    buffer.upload_rows((to.at - buffer.at()) as usize, &half, rows, 2 * cols, 2 * to.ld)
}

fn take(weights: &mut Weights, name: &str, shape: &[usize]) -> Result<Tensor> {
    super::super::linear::take(weights, name, shape)
}

/// The rotary frequencies of a model: global, and local where a layer turns by those.
pub(super) fn rotaries(c: &Config) -> Vec<Rotary> {
    let global = Rotary::new(c.head_dim, c.rope_theta, c.rope_scaling.as_ref());
    let local = c.traits.rope_local_base_freq.map(|theta| Rotary::new(c.head_dim, theta, None));
    [Some(global), local].into_iter().flatten().collect()
}

/// Whether a card can do this model and this tuning.
///
/// # Errors
/// What it cannot.
pub fn check(c: &Config, tuning: &Tuning) -> Result<()> {
    let refuse = |what: String| Err(Error::usage(what).next("train on the CPU: model.device = \"cpu\""));
    let longrope = matches!(c.rope_scaling, Some(RopeScaling::LongRope(_)));
    let missing = [
        (c.traits.experts.is_some(), "a mixture of experts"),
        (c.traits.sinks, "attention sinks"),
        (c.traits.rotary_dim.is_some(), "partial_rotary_factor"),
        (longrope, "longrope"),
    ];
    if let Some((_, what)) = missing.iter().find(|m| m.0) {
        return refuse(format!("a card does not do what {} needs: {what}", c.model_type));
    }
    if !HEAD_SIZES.contains(&c.head_dim) {
        return refuse(format!("head_dim = {}: the card's attention has {HEAD_SIZES:?}", c.head_dim));
    }
    if !c.hidden_size.is_multiple_of(8) || !c.intermediate_size.is_multiple_of(8) || c.hidden_size > WIDEST {
        return refuse(format!(
            "hidden_size = {}, intermediate_size = {}: multiples of 8 are needed, of at most {WIDEST}",
            c.hidden_size, c.intermediate_size
        ));
    }
    match tuning {
        Tuning::Full => refuse("full fine-tuning is done on the CPU; on a card LoRA trains".into()),
        Tuning::Lora(l) if l.dropout > 0.0 => refuse(format!("lora.lora_dropout = {} on a card: only 0", l.dropout)),
        Tuning::Lora(l) if !l.is_even(c) => {
            refuse("layers_to_transform: on a card every layer carries the same adapters".into())
        }
        Tuning::Lora(l) if l.dora => refuse("lora.use_dora is not computed on a card".into()),
        Tuning::Lora(l) if !l.modules_to_save.is_empty() => {
            refuse("lora.modules_to_save: embeddings and lm_head are frozen on a card".into())
        }
        _ => Ok(()),
    }
}

impl CudaLlama {
    /// Build from a model's weights on card `gpu`; `seed` draws fresh adapters.
    ///
    /// # Errors
    /// A weight that is missing or of another shape; a shape or a tuning that the card cannot do; no room.
    pub fn new(gpu: &Gpu, origin: Origin, tuning: &Tuning, seed: u64, options: Options) -> Result<Self> {
        gpu.bind()?;
        let (config, weights) = match origin {
            Origin::Weights(w) => (w.config.clone(), Some(w)),
            Origin::Random(c) => (c, None),
        };
        check(&config, tuning)?;
        let params = Params::new(llama::plan(&config, tuning), &Device::Cpu)?;
        let (r, scale) = match tuning {
            Tuning::Lora(l) => {
                l.check(&config)?;
                (l.r, l.scale() as f32)
            }
            _ => (0, 0.0),
        };
        lora::start(&params, seed)?;
        if options.precision == Precision::Fp8 {
            fp8::check(gpu, &[config.hidden_size, config.intermediate_size])?;
        }
        let gemm = Gemm::new(gpu)?;
        let mut loader = Loader { gpu, weights, made: 0 };
        let (n, v, count) = (config.hidden_size, config.vocab_size, config.num_hidden_layers);

        let table = |loader: &mut Loader, name: &str| -> Result<Buffer> {
            let buffer = gpu.zeros(WEIGHTS, 2 * v.next_multiple_of(8) * n)?;
            loader.matrix(&[(name.to_string(), v)], n, Mat::new(buffer.at(), n), &buffer)?;
            Ok(buffer)
        };
        let embedding = table(&mut loader, "model.embed_tokens.weight")?;
        let head = match config.tie_word_embeddings {
            true => None,
            false => Some(table(&mut loader, "lm_head.weight")?),
        };

        // f32 one after the other, each with what the family adds to it.
        let (per_layer, heads) = (config.norms().len(), if config.traits.head_norms { 2 * config.head_dim } else { 0 });
        let norms = gpu.zeros(WEIGHTS, 4 * (n * (per_layer * count + 1) + heads * count))?;
        let mut placed = 0;
        let offset = config.norm_offset();
        let mut norm = |loader: &mut Loader, name: &str, width: usize| -> Result<u64> {
            let values: Vec<f32> = loader.vector(name, width, 1.0 - offset)?.iter().map(|w| w + offset).collect();
            norms.upload(placed, &values)?;
            placed += 4 * width;
            Ok(norms.at() + (placed - 4 * width) as u64)
        };
        // In four bits, each matrix is first laid out in 16, and the two that are needed at a time are laid out anew.
        let mut layouts = Vec::new();
        let mut four = Four::new(gpu, &config, &params, r, options.precision)?;
        let mut layers = Vec::with_capacity(count);
        for layer in 0..count {
            let prefix = format!("model.layers.{layer}");
            let mut linear = |loader: &mut Loader, group: Vec<(&str, usize, usize)>, bias: bool, slot: usize| {
                let mut at = 0;
                let placed: Vec<_> = group
                    .iter()
                    .map(|(name, out, _)| {
                        at += out;
                        (format!("{prefix}.{name}"), at - out, *out)
                    })
                    .collect();
                let adapters = linear::adapters(&params, r, scale, &placed);
                let inputs = group.first().map_or(0, |g| g.2);
                let built = build(loader, &placed, inputs, at, bias, adapters, &mut four, slot)?;
                layouts.extend(built.lasting_spreads());
                Ok::<_, Error>(built)
            };
            let [qkv, o, gate_up, down] = super::super::block::projections(&config);
            let biases = config.biases();
            let (qkv, o) = (linear(&mut loader, qkv, biases[0], 0)?, linear(&mut loader, o, biases[1], 0)?);
            let (gate_up, down) =
                (linear(&mut loader, gate_up, biases[2], 0)?, linear(&mut loader, down, biases[3], 1)?);
            let at = config.norms().into_iter().map(|name| norm(&mut loader, &format!("{prefix}.{name}"), n));
            let at = at.collect::<Result<Vec<_>>>()?;
            let head_norm = match config.traits.head_norms {
                false => None,
                true => Some(HeadNorm {
                    weights: [
                        norm(&mut loader, &format!("{prefix}.{}", HEAD_NORMS[0]), config.head_dim)?,
                        norm(&mut loader, &format!("{prefix}.{}", HEAD_NORMS[1]), config.head_dim)?,
                    ],
                    heads: [config.num_attention_heads, config.num_key_value_heads],
                    d: config.head_dim,
                }),
            };
            let own = config.layer(layer);
            layers.push(super::Layer {
                attention_norm: at[0],
                qkv,
                head_norm,
                o,
                mlp_norm: at[1],
                gate_up,
                down,
                after: at.get(2).zip(at.get(3)).map(|(a, b)| [*a, *b]),
                window: config.traits.sliding_window.filter(|_| own.sliding).unwrap_or(0),
                rope: own.rope,
            });
        }
        let last = norm(&mut loader, "model.norm.weight", n)?;
        let scratch = four.finish()?;

        let sizes = Sizes {
            layers: count,
            hidden: n,
            intermediate: config.intermediate_size,
            queries: config.num_attention_heads * config.head_dim,
            keys_values: 2 * config.num_key_value_heads * config.head_dim,
            heads: config.num_attention_heads,
            vocab: v,
            extra: layers.first().map_or([0; 4], |l| super::workspace::extras([&l.qkv, &l.o, &l.gate_up, &l.down])),
            ranks: layers.first().map_or(0, super::Layer::ranks),
            fp8: options.precision == Precision::Fp8,
            normed: if heads > 0 { config.num_attention_heads + config.num_key_value_heads } else { 0 },
            post_norms: config.traits.post_norms,
        };
        let trained = params.len();
        let decay: Vec<_> = params.decayed().to_vec();
        let spreads = match layouts.is_empty() {
            true => None,
            false => {
                let list = gpu.zeros(TRAINED, size_of_val(layouts.as_slice()))?;
                list.upload(0, &layouts)?;
                Some((list, layouts.len()))
            }
        };
        let arena = Arena {
            values: gpu.zeros(TRAINED, 4 * trained)?,
            grads: gpu.zeros(TRAINED, 4 * trained)?,
            optimizer: adamw::State::new(gpu, TRAINED, options.optim, trained, &decay)?,
            spreads,
        };
        let base: u64 = config.tensor_shapes().iter().map(|(_, s)| s.iter().product::<usize>() as u64).sum();
        let model = Self {
            gpu: gpu.clone(),
            gemm,
            sizes,
            params,
            arena,
            embedding,
            head,
            layers,
            norm: last,
            _norms: norms,
            scratch,
            angles: RefCell::default(),
            sums: gpu.zeros(super::BATCH, 16)?,
            space: RefCell::new(None),
            inputs: RefCell::default(),
            checkpointing: options.checkpointing,
            cap: options.vram.unwrap_or(u64::MAX),
            adapter: Cell::new(true),
            sums_over: None,
            total: base + trained as u64,
            config,
        };
        model.attention().prepare(gpu)?;
        model.put()?;
        Ok(model)
    }
}

/// What quantizing needs: for 8 bits room for a matrix and its transpose, while loading; for 4 bits also what lays
/// matrices out anew.
struct Four<'a> {
    gpu: &'a Gpu,
    tables: Option<Tables>,
    scratch: Option<[Buffer; 2]>,
}

impl<'a> Four<'a> {
    fn new(gpu: &'a Gpu, c: &Config, params: &Params, r: usize, precision: Precision) -> Result<Self> {
        if precision == Precision::Bf16 {
            return Ok(Self { gpu, tables: None, scratch: None });
        }
        let sizes = super::super::block::projections(c).map(|group| {
            let (out, inputs) = (group.iter().map(|g| g.1).sum::<usize>(), group.first().map_or(0, |g| g.2));
            let ranks = if params.is_empty() { 0 } else { r * group.len() };
            ((out + ranks) * card::stride(inputs + card::extra(ranks, true)), out * inputs)
        });
        let [qkv, o, gate_up, down] = sizes;
        let largest = sizes.iter().map(|s| s.1).max().unwrap_or(0);
        let zeros = |numbers: usize| gpu.zeros("weights in 16 bits", 2 * numbers);
        if precision == Precision::Fp8 {
            return Ok(Self { gpu, tables: None, scratch: Some([zeros(largest)?, zeros(largest)?]) });
        }
        Ok(Self {
            gpu,
            tables: Some(Tables::new(gpu, WEIGHTS, largest, Code::dynamic(true).values())?),
            scratch: Some([zeros(qkv.0.max(o.0).max(gate_up.0))?, zeros(down.0)?]),
        })
    }

    /// The scratch buffers, once all is quantized.
    fn finish(mut self) -> Result<Option<Scratch>> {
        self.gpu.wait()?;
        match (self.scratch.take(), self.tables.take().map(Tables::into_code)) {
            (Some(room), Some(code)) => Ok(Some(Scratch { room, _code: code })),
            _ => Ok(None),
        }
    }
}

#[allow(clippy::too_many_arguments)]
fn build(
    loader: &mut Loader,
    placed: &[(String, usize, usize)],
    inputs: usize,
    out: usize,
    bias: bool,
    adapters: Option<linear::Adapters>,
    four: &mut Four,
    slot: usize,
) -> Result<Linear> {
    let gpu = loader.gpu;
    let ranks = adapters.as_ref().map_or(0, |a| a.parts.len() * a.r);
    let names: Vec<_> = placed.iter().map(|(p, _, width)| (format!("{p}.weight"), *width)).collect();
    let extra = card::extra(ranks, bias);
    let mut biases = Vec::new();
    if bias {
        for (prefix, _, width) in placed {
            biases.extend(loader.vector(&format!("{prefix}.bias"), *width, 0.0)?);
        }
    }
    let biases: Vec<u16> = biases.iter().map(|b| bf16::from_f32(*b).to_bits()).collect();
    if let (None, Some([room, transposed])) = (&four.tables, &four.scratch) {
        loader.matrix(&names, inputs, Mat::new(room.at(), inputs), room)?;
        let weight = fp8::Weight::quantize(gpu, WEIGHTS, Mat::new(room.at(), inputs), (out, inputs), transposed.at())?;
        let mut linear = Linear { out, inputs, extra, bias, adapters, store: Store::Half(gpu.zeros(WEIGHTS, 0)?) };
        let edges = gpu.zeros(WEIGHTS, linear.edges())?;
        if bias {
            let to = linear.bias_column(linear.apart(&weight, edges.at()));
            edges.upload_rows((to.at - edges.at()) as usize, &biases, out, 2, 2 * to.ld)?;
        }
        linear.store = Store::Eight { weight, edges };
        return Ok(linear);
    }
    let half = |_: ()| -> Result<Buffer> { gpu.zeros(WEIGHTS, 2 * (out + ranks) * card::stride(inputs + extra)) };
    let (Some(tables), Some(scratch)) = (&four.tables, &four.scratch) else {
        let buffer = half(())?;
        let to = Mat::new(buffer.at(), card::stride(inputs + extra));
        loader.matrix(&names, inputs, to, &buffer)?;
        if bias {
            buffer.upload_rows(2 * (inputs + ranks), &biases, out, 2, 2 * to.ld)?;
        }
        return Ok(Linear { out, inputs, extra, bias, adapters, store: Store::Half(buffer) });
    };
    let room = &scratch[slot];
    loader.matrix(&names, inputs, Mat::new(room.at(), inputs), room)?;
    let weight = Nf4::quantize(gpu, WEIGHTS, tables, room.at(), (out, inputs))?;
    let held = match bias {
        true => {
            let b = gpu.zeros(WEIGHTS, 2 * out)?;
            b.upload(0, &biases)?;
            Some(b)
        }
        false => None,
    };
    let mut linear = Linear { out, inputs, extra, bias, adapters, store: Store::Half(gpu.zeros(WEIGHTS, 0)?) };
    let list = |buffer: &Buffer| -> Result<Buffer> {
        let entries: Vec<Spread> = linear.spreads(Mat::new(buffer.at(), linear.ld()));
        let on_card = gpu.zeros(TRAINED, size_of_val(entries.as_slice()))?;
        on_card.upload(0, &entries)?;
        Ok(on_card)
    };
    let spreads = [list(&scratch[0])?, list(&scratch[1])?];
    linear.store = Store::Four { weight, bias: held, spreads };
    Ok(linear)
}
