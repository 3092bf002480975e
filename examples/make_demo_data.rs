//! Writes what the demo model is made from: `cargo run --example make_demo_data -- DIR`.
//!
//! `corpus.jsonl` (texts), `chats.jsonl`, `train.jsonl` and `eval.jsonl` (messages), `prompts.jsonl` (prompt and
//! expected answer), and `base/`: the tokenizer, trained on those texts, and a model of random weights.
//!
//! `-- --pack CHECKPOINT DIR` lays a trained checkpoint as the program carries it: its files, the weights as bf16.

use finetop::data::demo::{self, Random};
use serde_json::{Value, json};
use std::error::Error;
use std::path::{Path, PathBuf};
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::{PreTokenizerWrapper, digits::Digits, sequence::Sequence};
use tokenizers::{AddedToken, Tokenizer};

const CORPUS_BYTES: usize = 14_000_000;
const CHATS: usize = 8_000;

const VOCAB: usize = 768;
const HIDDEN: usize = 192;
const INTERMEDIATE: usize = 512;
const LAYERS: usize = 3;
const HEADS: usize = 6;
const KV_HEADS: usize = 3;
const HEAD_DIM: usize = HIDDEN / HEADS;
const SPECIALS: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, from, to] = args.as_slice()
        && flag == "--pack"
    {
        return pack(Path::new(from), Path::new(to));
    }
    let dir = PathBuf::from(args.first().map_or("target/demo", String::as_str));
    let base = dir.join("base");
    std::fs::create_dir_all(&base)?;
    let lines = |values: Vec<Value>| values.iter().map(|v| v.to_string() + "\n").collect::<String>();

    let texts = demo::corpus(demo::SEED, CORPUS_BYTES);
    let chats = demo::chats(demo::SEED, CHATS);
    std::fs::write(dir.join("corpus.jsonl"), lines(texts.iter().map(|t| json!({ "text": t })).collect()))?;
    std::fs::write(dir.join("chats.jsonl"), chats.iter().map(|c| c.to_json() + "\n").collect::<String>())?;
    let mut rows = String::new();
    for name in ["train", "eval"] {
        let text = demo::embedded(&format!("demo:{name}")).unwrap_or_default();
        std::fs::write(dir.join(format!("{name}.jsonl")), &text)?;
        rows += &text;
    }
    let prompts = demo::prompts().iter().map(|p| json!({ "prompt": p.user, "expect": p.assistant })).collect();
    std::fs::write(dir.join("prompts.jsonl"), lines(prompts))?;

    // The rows are read too, for the sake of their punctuation: the tokenizer should know JSON, the model need not.
    let rows = rows.lines().flat_map(contents).collect::<Vec<_>>();
    let spoken = chats.into_iter().flat_map(|c| [c.user, c.assistant]);
    let roles = std::iter::repeat_n("system user assistant".to_string(), 50);
    tokenizer(texts.into_iter().take(20_000).chain(spoken).chain(rows).chain(roles), &base.join("tokenizer.json"))?;
    model(&base)
}

/// `from`'s files in `to`, the weights as bf16.
fn pack(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for name in ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"] {
        let text = std::fs::read_to_string(from.join(name)).map_err(|e| format!("{name}: {e}"))?;
        std::fs::write(to.join(name), text.replace("\"float32\"", "\"bfloat16\""))?;
    }
    let weights = candle_core::safetensors::load(from.join("model.safetensors"), &candle_core::Device::Cpu)?;
    let halved = weights
        .into_iter()
        .map(|(name, t)| Ok((name, t.to_dtype(candle_core::DType::BF16)?)))
        .collect::<Result<std::collections::HashMap<_, _>>>()?;
    Ok(candle_core::safetensors::save(&halved, to.join("model.safetensors"))?)
}

/// The contents of one row's messages.
fn contents(line: &str) -> Vec<String> {
    let row: Value = serde_json::from_str(line).unwrap_or_default();
    let messages = row["messages"].as_array().cloned().unwrap_or_default();
    messages.iter().filter_map(|m| m["content"].as_str().map(String::from)).collect()
}

/// Byte-level BPE: single digits, then GPT-2's pattern.
fn tokenizer(texts: impl Iterator<Item = String> + Send, to: &Path) -> Result<()> {
    let byte_level = ByteLevel::new(false, true, true);
    let specials = SPECIALS.map(|t| AddedToken::from(t, true).normalized(false)).to_vec();
    let mut trainer: TrainerWrapper = BpeTrainer::builder()
        .vocab_size(VOCAB)
        .special_tokens(specials)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .show_progress(false)
        .build()
        .into();
    let mut tokenizer = Tokenizer::new(BPE::default());
    let split = [PreTokenizerWrapper::Digits(Digits::new(true)), PreTokenizerWrapper::ByteLevel(byte_level)];
    tokenizer.with_pre_tokenizer(Some(Sequence::new(split.to_vec())));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    tokenizer.train(&mut trainer, texts)?;
    tokenizer.save(to, false)
}

/// `config.json` and its companions, and random weights: normal with deviation 0.02, norms 1, head tied.
fn model(dir: &Path) -> Result<()> {
    let write = |name: &str, value: Value| std::fs::write(dir.join(name), format!("{value:#}\n"));
    write(
        "config.json",
        json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCAB, "hidden_size": HIDDEN,
            "intermediate_size": INTERMEDIATE, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
            "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "max_position_embeddings": 512,
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "attention_bias": false,
            "mlp_bias": false, "tie_word_embeddings": true, "bos_token_id": null, "eos_token_id": 2, "pad_token_id": 0,
            "torch_dtype": "float32",
        }),
    )?;
    write("generation_config.json", json!({ "eos_token_id": [2, 0], "pad_token_id": 0 }))?;
    write(
        "tokenizer_config.json",
        json!({
            "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": SPECIALS[2], "pad_token": SPECIALS[0],
            "model_max_length": 512, "clean_up_tokenization_spaces": false, "chat_template": CHATML,
        }),
    )?;
    let mut shapes = vec![("model.embed_tokens.weight".to_string(), vec![VOCAB, HIDDEN])];
    shapes.push(("model.norm.weight".into(), vec![HIDDEN]));
    for i in 0..LAYERS {
        for (name, shape) in [
            ("input_layernorm", vec![HIDDEN]),
            ("post_attention_layernorm", vec![HIDDEN]),
            ("self_attn.q_proj", vec![HEADS * HEAD_DIM, HIDDEN]),
            ("self_attn.k_proj", vec![KV_HEADS * HEAD_DIM, HIDDEN]),
            ("self_attn.v_proj", vec![KV_HEADS * HEAD_DIM, HIDDEN]),
            ("self_attn.o_proj", vec![HIDDEN, HEADS * HEAD_DIM]),
            ("mlp.gate_proj", vec![INTERMEDIATE, HIDDEN]),
            ("mlp.up_proj", vec![INTERMEDIATE, HIDDEN]),
            ("mlp.down_proj", vec![HIDDEN, INTERMEDIATE]),
        ] {
            shapes.push((format!("model.layers.{i}.{name}.weight"), shape));
        }
    }
    let tensors = shapes
        .into_iter()
        .enumerate()
        .map(|(i, (name, shape))| {
            let mut r = Random::new(demo::SEED, 100 + i as u64);
            let count = shape.iter().product();
            let values: Vec<f32> =
                if shape.len() == 1 { vec![1.0; count] } else { (0..count).map(|_| normal(&mut r) * 0.02).collect() };
            Ok((name, candle_core::Tensor::from_vec(values, shape, &candle_core::Device::Cpu)?))
        })
        .collect::<Result<std::collections::HashMap<_, _>>>()?;
    Ok(candle_core::safetensors::save(&tensors, dir.join("model.safetensors"))?)
}

/// A standard normal number (Box and Muller, 1958).
fn normal(r: &mut Random) -> f32 {
    let unit = |r: &mut Random| ((r.bits() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    let (u, v) = (unit(r), unit(r));
    ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
}
