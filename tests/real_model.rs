//! SmolLM2-135M-Instruct as its GGUF stores it: what llama.cpp says of a text, this program says too.
//!
//! The reference numbers come from `tests/reference/nll.py`. The same weights written as other families' are the same model.

mod common;

use candle_core::{Device, Tensor};
use finetop::data::batch::{Batch, Example};
use finetop::model::config::{Config, Weights};
use finetop::model::gguf::GgufModel;
use finetop::model::llama::Llama;
use finetop::model::lora::Tuning;
use finetop::train::speaker::{Speaker, TemplateChoice};
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    tokens: usize,
    llama_cpp: f64,
    transformers: f64,
    first_ids: Vec<u32>,
}

#[test]
fn the_mean_nll_of_512_tokens_is_llama_cpps() {
    let Some(assets) = common::assets() else { return };
    let text = std::fs::read_to_string(common::repo("tests/fixtures/nll_smollm2.json")).unwrap();
    let reference: Reference = serde_json::from_str(&text).unwrap();
    let gguf = assets.join("smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
    let speaker = Speaker::load(&gguf.to_string_lossy(), None, TemplateChoice::default()).unwrap();
    let passage = std::fs::read_to_string(common::repo("tests/fixtures/passage.txt")).unwrap();
    let mut ids = speaker.tokenizer.encode(&passage).unwrap().ids;
    ids.truncate(reference.tokens);
    assert_eq!(ids.len(), reference.tokens);
    assert_eq!(ids[..reference.first_ids.len()], reference.first_ids);
    let trained = vec![true; ids.len()];
    let (sum, labels) = speaker
        .model
        .loss(&Batch::of(&[&Example { ids: ids.into(), trained: trained.into(), row: 0, truncated: false }]))
        .unwrap();
    let mean = sum / labels as f64;
    println!("ours {mean:.4}, llama.cpp {:.4}, transformers {:.4}", reference.llama_cpp, reference.transformers);
    assert_eq!(labels as usize, reference.tokens - 1);
    assert!((mean - reference.llama_cpp).abs() <= 0.005, "{mean} for llama.cpp's {}", reference.llama_cpp);
    assert!((mean - reference.transformers).abs() <= 1e-4, "{mean} for transformers' {}", reference.transformers);
}

/// SmolLM2's own configuration as `config.json` says it, under another family's name.
fn config(family: &str, model_type: &str) -> Config {
    let json = serde_json::json!({
        "architectures": [family], "model_type": model_type, "vocab_size": 49152, "hidden_size": 576,
        "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 100000.0, "tie_word_embeddings": true,
    });
    Config::from_hf(&json, None).unwrap()
}

fn logits(weights: Weights) -> Vec<f32> {
    let model = Llama::new(weights, &Tuning::None, 0).unwrap();
    let ids: Vec<u32> = (0..24).map(|i| 1000 + i * 977 % 40_000).collect();
    let example = Example { trained: vec![true; ids.len()].into(), ids: ids.into(), row: 0, truncated: false };
    model.logits(&Batch::of(&[&example])).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn the_same_weights_as_qwen2_mistral_and_phi3_give_the_same_logits() {
    let Some(assets) = common::assets() else { return };
    let gguf = assets.join("smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
    let tensors = GgufModel::open(&gguf).unwrap().weights().unwrap().tensors;
    let want = logits(Weights::new(config("LlamaForCausalLM", "llama"), tensors.clone()));

    let mut qwen = tensors.clone();
    for (name, shape) in config("Qwen2ForCausalLM", "qwen2").tensor_shapes() {
        if name.ends_with(".bias") {
            qwen.insert(name, Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap());
        }
    }
    assert_eq!(logits(Weights::new(config("Qwen2ForCausalLM", "qwen2"), qwen)), want);

    let mistral = config("MistralForCausalLM", "mistral");
    assert_eq!(mistral.traits.sliding_window, Some(4096));
    assert_eq!(logits(Weights::new(mistral, tensors.clone())), want);

    let mut phi = tensors;
    for layer in 0..30 {
        let prefix = format!("model.layers.{layer}");
        let fused = [
            ("self_attn.qkv_proj", &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"][..]),
            ("mlp.gate_up_proj", &["mlp.gate_proj", "mlp.up_proj"][..]),
        ];
        for (name, parts) in fused {
            let parts: Vec<Tensor> =
                parts.iter().map(|p| phi.remove(&format!("{prefix}.{p}.weight")).unwrap()).collect();
            phi.insert(format!("{prefix}.{name}.weight"), Tensor::cat(&parts, 0).unwrap());
        }
    }
    assert_eq!(logits(Weights::new(config("Phi3ForCausalLM", "phi3"), phi)), want);
}
