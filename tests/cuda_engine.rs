//! The card's engine against the CPU's on small random models: loss, logits and every gradient, however much is kept,
//! moved or computed again. Needs an NVIDIA card; elsewhere it says why and passes.
#![cfg(feature = "cuda")]

use candle_core::{DType, Device, Tensor};
use finetop::Kind;
use finetop::data::batch::{Batch, Example};
use finetop::memory::card::{Checkpointing, Keep, Plan};
use finetop::model::config::{Activation, Config, Layer, Rope, Traits, Weights};
use finetop::model::cuda::{CudaLlama, Options, Origin, Precision};
use finetop::model::engine::{Engine, LogProbabilities, Voice, Weighed};
use finetop::model::llama::{self, Llama, Pass, Weighted};
use finetop::model::lora::{LoraConfig, MODULES, Tuning};
use finetop::model::ranks::Ranks;
use finetop::ops::adamw::{AdamW, Rule};
use finetop::ops::cuda::device::Gpu;
use finetop::ops::cuda::fp8;
use finetop::ops::cuda::gemm::{Gemm, Mat};
use finetop::ops::cuda::nccl::Nccl;
use finetop::ops::nf4::Nf4;
use finetop::ops::optimizer::{Optim, Optimizer};
use finetop::ops::random::Stream;
use finetop::train::bench::random_weights;

fn card() -> Option<Gpu> {
    match Gpu::open(0) {
        Ok(gpu) => Some(gpu),
        Err(e) => {
            eprintln!("skipped: {e}");
            None
        }
    }
}

fn config(heads: usize, kv: usize, head_dim: usize, hidden: usize, vocab: usize, tied: bool) -> Config {
    Config {
        model_type: "llama".into(),
        vocab_size: vocab,
        hidden_size: hidden,
        intermediate_size: 2 * hidden + 64,
        num_hidden_layers: 5,
        num_attention_heads: heads,
        num_key_value_heads: kv,
        head_dim,
        max_position_embeddings: 4096,
        rms_norm_eps: 1e-5,
        rope_theta: 1e4,
        rope_scaling: None,
        tie_word_embeddings: tied,
        attention_bias: false,
        bos_token_id: Some(1),
        eos_token_ids: vec![2],
        traits: Default::default(),
    }
}

fn weights(c: &Config) -> Weights {
    let mut w = random_weights(c.clone()).unwrap();
    // Larger than a fresh model's, so that every layer matters.
    for (name, t) in w.tensors.iter_mut() {
        if t.dims().len() > 1 && !name.contains("embed") {
            *t = (&*t * 2.5).unwrap();
        }
        if t.dims().len() == 1 {
            // Around 1 for norms, around 0 for biases.
            let from = if c.traits.unit_offset && name.contains("norm") { 1.0 } else { 0.0 };
            let mut noise = vec![0f32; t.elem_count()];
            Stream { seed: name.len() as u64, words: [7, 8, 9] }.fill_uniform(0.3, &mut noise);
            *t = ((&*t - from).unwrap() + Tensor::from_vec(noise, t.shape(), &Device::Cpu).unwrap()).unwrap();
        }
        // What the card will hold: the comparison is of the arithmetic, not of the rounding of weights.
        *t = t.to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap();
    }
    w
}

/// What each family has that a Llama has not.
fn families() -> Vec<(&'static str, Config)> {
    let base = || config(4, 2, 64, 256, 1000, true);
    let with = |traits: Traits| Config { traits, ..base() };
    let sliding = |rope| {
        let layer = |i| Layer { sliding: i % 2 == 0, rope: if i % 2 == 0 { rope } else { Rope::Global } };
        (0..5).map(layer).collect::<Vec<_>>()
    };
    let gemma = Traits {
        unit_offset: true,
        post_norms: true,
        activation: Activation::GeluTanh,
        embedding_scale: Some(16.0),
        query_pre_attn_scalar: Some(144.0),
        sliding_window: Some(70),
        ..Traits::default()
    };
    vec![
        ("qwen2", Config { attention_bias: true, ..base() }),
        ("qwen3", with(Traits { head_norms: true, ..Traits::default() })),
        ("mistral", with(Traits { sliding_window: Some(70), layers: sliding(Rope::Global), ..Traits::default() })),
        ("phi3", with(Traits { fused: true, ..Traits::default() })),
        ("biases", with(Traits { output_bias: true, mlp_bias: true, ..Traits::default() })),
        (
            "gemma2",
            with(Traits {
                attn_logit_softcapping: Some(50.0),
                final_logit_softcapping: Some(30.0),
                layers: sliding(Rope::Global),
                ..gemma.clone()
            }),
        ),
        (
            "gemma3",
            Config {
                rope_theta: 1e6,
                ..with(Traits {
                    head_norms: true,
                    rope_local_base_freq: Some(1e4),
                    layers: sliding(Rope::Local),
                    ..gemma
                })
            },
        ),
        (
            "smollm3",
            with(Traits {
                layers: sliding(Rope::None).into_iter().map(|l| Layer { sliding: false, ..l }).collect(),
                ..Traits::default()
            }),
        ),
    ]
}

fn lora_of(c: &Config, r: usize) -> Tuning {
    let target_modules = c.modules().iter().map(|m| m.to_string()).collect();
    Tuning::Lora(LoraConfig { r, alpha: 2.0 * r as f64, dropout: 0.0, target_modules, ..LoraConfig::default() })
}

fn lora(r: usize) -> Tuning {
    let target_modules = MODULES.iter().map(|m| m.to_string()).collect();
    Tuning::Lora(LoraConfig { r, alpha: 2.0 * r as f64, dropout: 0.0, target_modules, ..LoraConfig::default() })
}

/// Sequences of these lengths; a third of the tokens have no label.
fn batch(vocab: usize, lengths: &[usize]) -> Batch {
    let random = Stream { seed: 7, words: [1, 2, 3] };
    let mut at = 0;
    let examples: Vec<Example> = lengths
        .iter()
        .enumerate()
        .map(|(row, &n)| {
            let ids: Vec<u32> = (0..n).map(|i| random.block((at + i) as u32)[0] % vocab as u32).collect();
            let trained: Vec<bool> = (0..n).map(|i| !random.block((at + i) as u32)[1].is_multiple_of(3)).collect();
            at += n;
            Example { ids: ids.into(), trained: trained.into(), row: row as u32, truncated: false }
        })
        .collect();
    Batch::of(&examples.iter().collect::<Vec<_>>())
}

/// Adapters that say something: B is not zero.
fn adapters(len: usize) -> Vec<f32> {
    let mut v = vec![0f32; len];
    Stream { seed: 11, words: [4, 5, 6] }.fill_uniform(0.05, &mut v);
    v
}

/// ‖a − b‖ / ‖b‖.
fn error(a: &[f32], b: &[f32]) -> f64 {
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let d = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    d / norm(&mut b.iter().map(|b| f64::from(*b))).max(1e-30)
}

/// `None` where there is no room.
#[track_caller]
fn agree(gpu: &Gpu, c: &Config, r: usize, lengths: &[usize], how: Options) -> Option<(Plan, u64)> {
    let tuning = lora_of(c, r);
    let mut held = weights(c);
    let mut card = CudaLlama::new(gpu, Origin::Weights(weights(c)), &tuning, 3, how).unwrap();
    if how.precision == Precision::Nf4 {
        through_nf4(&mut held);
    }
    let cpu = Llama::new(held, &tuning, 3).unwrap();
    assert_eq!(cpu.params().values().unwrap(), card.params().values().unwrap(), "fresh adapters");
    let start = adapters(cpu.params().len());
    cpu.params().set_values(&start).unwrap();
    card.params().set_values(&start).unwrap();
    card.put().unwrap();
    let b = batch(c.vocab_size, lengths);
    let labels = b.label_tokens();
    let pass = Pass { seed: 3, step: 0, micro: 0, checkpointing: llama::Checkpointing::Off };
    card.zero_grad().unwrap();
    gpu.reset_peak();
    // Twice: gradients add up, and the second pass meets used buffers.
    for _ in 0..2 {
        match card.forward_backward(&b, 1.0 / labels as f64) {
            Err(e) if e.kind == Kind::OutOfMemory => return None,
            done => done.unwrap(),
        }
    }
    let peak = gpu.ledger().peak;
    let mut nll = 0.0;
    cpu.params().zero_grad().unwrap();
    for _ in 0..2 {
        nll += cpu.forward_backward(&b, 1.0 / labels as f64, &pass).unwrap();
    }
    let plan = card.plan().unwrap();
    let what = format!("{how:?}, {c:?}, {plan:?}");
    let told = card.nll().unwrap();
    // Eight bits a number are a few percent of error in every product.
    let loose = if how.precision == Precision::Fp8 { 6.0 } else { 1.0 };
    assert!((told - nll).abs() < 2e-3 * loose * nll, "loss {told}, on the CPU {nll}: {what}");
    let (a, b2) = (card.grads().unwrap(), cpu.params().grads().unwrap());
    for entry in cpu.params().entries() {
        let e = error(&a[entry.range.clone()], &b2[entry.range.clone()]);
        assert!(e < 0.05 * loose, "{}: {e}: {what}", entry.name);
    }
    let all = error(&a, &b2);
    assert!(all < 0.025 * loose, "all gradients: {all}: {what}");
    let (x, y) = (card.logits(&b).unwrap(), cpu.logits(&b).unwrap());
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let logits = error(&flat(&x), &flat(&y));
    assert!(logits < 0.02 * loose, "logits {logits}: {what}");
    let (l, n) = card.loss(&b).unwrap();
    assert!(n == labels && (l - nll / 2.0).abs() < 2e-3 * loose * nll, "eval {l}, {nll}");
    // One optimizer step: the gradients' norm, and where the values go.
    let mut adam = AdamW::new(cpu.params(), (0.9, 0.999), 1e-8, 0.01).unwrap();
    let rule =
        Rule { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, max_grad_norm: 0.5, table_lr: None };
    let norm = cpu.params().grad_norm().unwrap();
    adam.step(cpu.params(), 1e-3, (0.5 / (norm + 1e-6)).min(1.0)).unwrap();
    let stepped = card.step(&rule).unwrap();
    assert!(stepped.taken && (stepped.grad_norm - norm).abs() < 0.01 * loose * norm, "{stepped:?}, {norm}");
    card.fetch().unwrap();
    let values = error(&card.params().values().unwrap(), &cpu.params().values().unwrap());
    eprintln!(
        "gradients {all:.4}  logits {logits:.4}  values {values:.5}  r {r} {lengths:?} {:?} {:?} offload {}",
        how.precision, plan.keep, plan.offload
    );
    Some((plan, peak))
}

/// The linear layers as NF4 keeps them: quantized together where the card holds them together.
fn through_nf4(w: &mut Weights) {
    let c = w.config.clone();
    for layer in 0..c.num_hidden_layers {
        for group in [
            vec!["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
            vec!["self_attn.o_proj"],
            vec!["mlp.gate_proj", "mlp.up_proj"],
            vec!["mlp.down_proj"],
        ] {
            let names: Vec<_> = group.iter().map(|g| format!("model.layers.{layer}.{g}.weight")).collect();
            let parts: Vec<Tensor> = names.iter().map(|n| w.tensors[n].clone()).collect();
            let all = Tensor::cat(&parts, 0).unwrap();
            let (rows, cols) = all.dims2().unwrap();
            let flat = all.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let mut out = vec![0f32; flat.len()];
            Nf4::quantize(&flat, rows, cols).unwrap().dequantize(0..rows, &mut out).unwrap();
            let shape = all.shape().clone();
            let back = Tensor::from_vec(out, shape, &Device::Cpu).unwrap();
            let back = back.to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap();
            let mut at = 0;
            for (name, part) in names.iter().zip(&parts) {
                let n = part.dim(0).unwrap();
                w.tensors.insert(name.clone(), back.narrow(0, at, n).unwrap().contiguous().unwrap());
                at += n;
            }
            assert_eq!(at, rows);
        }
    }
}

const BF16: Options =
    Options { precision: Precision::Bf16, checkpointing: Checkpointing::Auto, vram: None, optim: Optim::Torch };

#[test]
fn loss_and_gradients_are_the_cpu_engines() {
    let Some(gpu) = card() else { return };
    for (heads, kv, d, hidden, vocab, tied) in [
        (4, 2, 64, 256, 1000, true),
        (3, 1, 128, 384, 517, false),
        (2, 2, 80, 160, 1024, true),
        (4, 4, 96, 384, 640, false),
    ] {
        let c = config(heads, kv, d, hidden, vocab, tied);
        agree(&gpu, &c, 16, &[130, 1, 7, 300, 64], BF16).unwrap();
        agree(&gpu, &c, 4, &[1500], BF16).unwrap();
    }
}

#[test]
fn four_bit_weights_are_those_of_the_cpu() {
    let Some(gpu) = card() else { return };
    let c = config(4, 2, 64, 256, 1000, true);
    agree(&gpu, &c, 16, &[130, 1, 7, 300, 64], Options { precision: Precision::Nf4, ..BF16 }).unwrap();
}

#[test]
fn every_familys_own_is_done_as_on_the_cpu() {
    let Some(gpu) = card() else { return };
    for (name, c) in families() {
        eprintln!("{name}");
        agree(&gpu, &c, 8, &[130, 1, 7, 300, 64], BF16).unwrap();
        agree(&gpu, &c, 8, &[300, 200], Options { checkpointing: Checkpointing::Full, ..BF16 }).unwrap();
    }
}

#[test]
fn passes_weighted_by_log_probabilities_are_the_cpu_engines() {
    let Some(gpu) = card() else { return };
    for (name, c) in families().into_iter().filter(|(n, _)| ["qwen3", "gemma2"].contains(n)) {
        let tuning = lora_of(&c, 8);
        let mut cpu = Engine::on_cpu(Llama::new(weights(&c), &tuning, 3).unwrap(), Optim::Torch);
        let card = CudaLlama::new(&gpu, Origin::Weights(weights(&c)), &tuning, 3, BF16).unwrap();
        let mut card = Engine::Cuda(Box::new(card));
        let start = adapters(cpu.params().len());
        let b = batch(c.vocab_size, &[130, 1, 7, 300, 64]);
        let of = Weighted { temperature: 0.8, entropies: true };
        let pass = Pass { seed: 3, step: 0, micro: 0, checkpointing: llama::Checkpointing::Off };
        let mut said = Vec::new();
        for engine in [&mut cpu, &mut card] {
            engine.set_values(&start).unwrap();
            engine.zero_grad().unwrap();
            let other: Vec<f32> = start.iter().map(|v| -v).collect();
            let mut all = Vec::new();
            for voice in [Voice::Policy, Voice::Base, Voice::Values(&other), Voice::Policy] {
                all.extend(engine.log_probabilities(std::slice::from_ref(&b), of, voice).unwrap());
            }
            let mut weigh = |said: &LogProbabilities| {
                let weights =
                    said.labels.iter().enumerate().map(|(i, l)| 1e-3 * (f64::from(*l) + (i % 5) as f64)).collect();
                Ok(Weighed { loss: 2.5, weights })
            };
            engine.weighted_backward(&b, of, &pass, &mut weigh).unwrap();
            said.push(all);
        }
        for (i, (a, b)) in said[1].iter().zip(&said[0]).enumerate() {
            let (labels, entropies) = (error(&a.labels, &b.labels), error(&a.entropies, &b.entropies));
            assert!(labels < 0.01 && entropies < 0.01, "{name}, voice {i}: {labels}, {entropies}");
        }
        assert_eq!(said[1][0], said[1][3], "{name}: the values are back");
        assert!(error(&said[1][1].labels, &said[1][0].labels) > 1e-3, "{name}: the base is another voice");
        let Engine::Cuda(inner) = &card else { unreachable!() };
        let all = error(&inner.grads().unwrap(), &cpu.params().grads().unwrap());
        assert!(all < 0.03, "{name}: gradients {all}");
        let rule = Rule {
            lr: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
            table_lr: None,
        };
        assert_eq!(card.step(&rule).unwrap().nll, 2.5);
    }
}

/// e4m3 as the card rounds to it, a scale a row, and back: f64.
fn through_e4m3(x: &[f32], cols: usize) -> Vec<f64> {
    let rows = x.chunks(cols).flat_map(|row| {
        let top = row.iter().fold(1e-20f32, |m, v| m.max(v.abs()));
        let up: Vec<f32> = row.iter().map(|v| v * (448.0 / top)).collect();
        let t = Tensor::from_vec(up, cols, &Device::Cpu).unwrap();
        let back = t.to_dtype(DType::F8E4M3).unwrap().to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
        back.into_iter().map(move |q| f64::from(q) * f64::from(top / 448.0)).collect::<Vec<_>>()
    });
    rows.collect()
}

#[test]
fn an_fp8_product_is_that_of_the_numbers_quantized_row_by_row_both_ways() {
    let Some(gpu) = card().filter(Gpu::is_hopper) else { return };
    let (t, out, inputs) = (40, 96, 64);
    let draw = |n: usize, stream: u32| {
        let mut v = vec![0f32; n];
        Stream { seed: 5, words: [stream, 0, 0] }.fill_uniform(1.0, &mut v);
        v.into_iter().map(half::bf16::from_f32).collect::<Vec<_>>()
    };
    let place = |v: &[half::bf16]| {
        let buffer = gpu.zeros("test", 2 * v.len()).unwrap();
        buffer.upload(0, v).unwrap();
        buffer
    };
    let f32s = |v: &[half::bf16]| v.iter().map(|x| x.to_f32()).collect::<Vec<_>>();
    let (w, x, dy) = (draw(out * inputs, 1), draw(t * inputs, 2), draw(t * out, 3));
    let (on_w, on_x, on_dy) = (place(&w), place(&x), place(&dy));
    let room = gpu.zeros("test", 2 * out * inputs).unwrap();
    let weight = fp8::Weight::quantize(&gpu, "test", Mat::new(on_w.at(), inputs), (out, inputs), room.at()).unwrap();
    let codes = gpu.zeros("test", t * out).unwrap();
    let scales = gpu.zeros("test", 4 * t).unwrap();
    let quantized = fp8::Quantized { at: codes.at(), scales: scales.at() };
    let (y, dx) = (gpu.zeros("test", 2 * t * out).unwrap(), gpu.zeros("test", 2 * t * inputs).unwrap());
    let gemm = Gemm::new(&gpu).unwrap();
    // SAFETY: the buffers above have these rows.
    unsafe {
        weight.forward((&gpu, &gemm), Mat::new(on_x.at(), inputs), t, Mat::new(y.at(), out), None, quantized).unwrap();
        weight.backward((&gpu, &gemm), Mat::new(on_dy.at(), out), t, Mat::new(dx.at(), inputs), quantized).unwrap();
    }
    let transposed: Vec<f32> =
        (0..inputs).flat_map(|i| (0..out).map(move |o| (i, o))).map(|(i, o)| w[o * inputs + i].to_f32()).collect();
    for (on_card, a, b, k, n) in [
        (&y, through_e4m3(&f32s(&x), inputs), through_e4m3(&f32s(&w), inputs), inputs, out),
        (&dx, through_e4m3(&f32s(&dy), out), through_e4m3(&transposed, out), out, inputs),
    ] {
        let mut found = vec![half::bf16::ZERO; t * n];
        on_card.download(0, &mut found).unwrap();
        let want: Vec<f32> = (0..t * n)
            .map(|i| a[i / n * k..][..k].iter().zip(&b[i % n * k..][..k]).map(|(a, b)| a * b).sum::<f64>() as f32)
            .collect();
        let e = error(&f32s(&found), &want);
        assert!(e < 5e-3, "{e}");
    }
}

#[test]
fn fp8_products_are_within_their_rounding_of_the_cpus() {
    let Some(gpu) = card() else { return };
    let fp8 = Options { precision: Precision::Fp8, ..BF16 };
    if !gpu.is_hopper() {
        let c = config(4, 2, 64, 256, 1000, true);
        assert!(CudaLlama::new(&gpu, Origin::Weights(weights(&c)), &lora(4), 3, fp8).is_err());
        return;
    }
    for (c, r) in [(config(4, 2, 64, 256, 1000, true), 16), (config(3, 1, 128, 384, 517, false), 4)] {
        // Rounding adds up with depth: 3.7 % a product, so two layers differ by 15 % in their gradients, one by about 10.
        let c = Config { num_hidden_layers: 1, ..c };
        agree(&gpu, &c, r, &[130, 1, 7, 300, 64], fp8).unwrap();
        agree(&gpu, &c, r, &[700, 300], Options { checkpointing: Checkpointing::Full, ..fp8 }).unwrap();
    }
}

#[test]
fn a_world_of_one_adds_up_to_itself_over_nccl() {
    let Some(gpu) = card() else { return };
    if let Err(e) = Nccl::open() {
        eprintln!("skipped: {e}");
        return;
    }
    let c = config(4, 2, 64, 256, 1000, true);
    let mut card = CudaLlama::new(&gpu, Origin::Weights(weights(&c)), &lora(8), 3, BF16).unwrap();
    card.zero_grad().unwrap();
    card.forward_backward(&batch(c.vocab_size, &[200, 50]), 1e-3).unwrap();
    let (grads, nll) = (card.grads().unwrap(), card.nll().unwrap());
    assert!(nll > 0.0 && grads.iter().any(|g| *g != 0.0));
    for _ in 0..2 {
        card.reduce(&mut Ranks::alone()).unwrap();
        assert!(card.sums_over_nccl());
        assert_eq!((card.grads().unwrap(), card.nll().unwrap()), (grads.clone(), nll));
    }
}

#[test]
fn eight_bit_moments_step_to_the_bits_of_the_cpus() {
    let Some(gpu) = card() else { return };
    let c = config(4, 2, 64, 256, 1000, true);
    let how = Options { optim: Optim::EightBit, ..BF16 };
    let mut card = CudaLlama::new(&gpu, Origin::Weights(weights(&c)), &lora(8), 3, how).unwrap();
    let cpu = Llama::new(weights(&c), &lora(8), 3).unwrap();
    let params = cpu.params();
    let mut optimizer = Optimizer::new(Optim::EightBit, params.len(), &Device::Cpu).unwrap();
    let rule =
        Rule { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, max_grad_norm: 0.0, table_lr: None };
    card.zero_grad().unwrap();
    for step in 1..4 {
        card.forward_backward(&batch(c.vocab_size, &[200, 50 + step]), 1e-3).unwrap();
        let grads = card.grads().unwrap();
        let stepped = card.step(&rule).unwrap();
        assert!(stepped.taken && stepped.grad_norm > 0.0);
        let g = Tensor::from_vec(grads, params.len(), &Device::Cpu).unwrap();
        optimizer.step(&rule, params.value_tensor(), &g, params.decayed(), 1.0).unwrap();
    }
    card.fetch().unwrap();
    assert_eq!(card.params().values().unwrap(), params.values().unwrap());
    let (held, t) = card.moments().unwrap();
    assert_eq!((held.clone(), t), optimizer.moments().unwrap());
    card.set_moments(&held, t).unwrap();
    assert_eq!(card.moments().unwrap().0, held);
}

#[test]
fn what_is_recomputed_or_moved_to_the_host_changes_nothing() {
    let Some(gpu) = card() else { return };
    let c = config(4, 2, 64, 256, 1000, true);
    let mut most = 0;
    for checkpointing in [Checkpointing::Full, Checkpointing::Off] {
        most = agree(&gpu, &c, 8, &[700, 300, 500], Options { checkpointing, ..BF16 }).unwrap().1;
    }
    // Less and less room, down to where nothing fits any more.
    let mut plans = Vec::new();
    for step in 0..80 {
        let cap = most - step * (most / 200);
        match agree(&gpu, &c, 8, &[700, 300, 500], Options { vram: Some(cap), ..BF16 }) {
            Some((plan, peak)) => {
                assert!(peak <= cap, "{peak} bytes under a cap of {cap}: {plan:?}");
                if !plans.contains(&plan) {
                    plans.push(plan);
                }
            }
            None => break,
        }
    }
    assert!(plans.iter().any(|p| p.offload), "{plans:?}");
    assert!(plans.iter().any(|p| p.tile < 1500), "{plans:?}");
    assert!(plans.iter().any(|p| p.keep.contains(&Keep::Input)), "{plans:?}");
    assert!(plans.iter().any(|p| p.keep.contains(&Keep::Attention)), "{plans:?}");
}

#[test]
fn decoding_over_a_cache_gives_the_cpu_engines_logits() {
    let Some(gpu) = card() else { return };
    for (heads, kv, d) in [(4, 2, 64), (6, 1, 128)] {
        let c = config(heads, kv, d, 256, 1000, true);
        let tuning = lora(8);
        let cpu = Llama::new(weights(&c), &tuning, 3).unwrap();
        let card = CudaLlama::new(&gpu, Origin::Weights(weights(&c)), &tuning, 3, BF16).unwrap();
        let start = adapters(cpu.params().len());
        cpu.params().set_values(&start).unwrap();
        card.params().set_values(&start).unwrap();
        card.put().unwrap();
        let ids = batch(c.vocab_size, &[200]).ids;
        let (mut a, mut b) = (card.new_cache(1, 256).unwrap(), cpu.new_cache(256).unwrap());
        for piece in [0..150, 150..151, 151..160, 160..161] {
            let (x, y) =
                (card.decode(&ids[piece.clone()], &mut a).unwrap(), cpu.decode(&ids[piece.clone()], &mut b).unwrap());
            let e = error(&x, &y);
            assert!(e < 0.02, "{e} after {piece:?}");
        }
        // Several at once, drawn on the card by a graph: the likeliest token each time, as one at a time gives.
        let prompts: Vec<Vec<u32>> = [30, 1, 77].iter().map(|n| ids[..*n].to_vec()).collect();
        let mut all = card.new_cache(3, 128).unwrap();
        card.prompts(&prompts, &mut all).unwrap();
        let drawn = card.draw(&mut all, 12, 0.0, 1).unwrap();
        for (prompt, drawn) in prompts.iter().zip(&drawn) {
            let mut one = card.new_cache(1, 128).unwrap();
            let mut logits = card.decode(prompt, &mut one).unwrap();
            for (i, id) in drawn.iter().enumerate() {
                let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                // bf16 logits tie now and then.
                assert!(
                    top - logits[*id as usize] < 0.02 * top.abs(),
                    "token {i}: {id} has {}, not {top}",
                    logits[*id as usize]
                );
                logits = card.decode(&[*id], &mut one).unwrap();
            }
        }
    }
}
