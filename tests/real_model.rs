//! SmolLM2-135M-Instruct as its GGUF stores it: what llama.cpp says of a text, this program says too.
//!
//! The reference numbers come from `tests/reference/nll.py`.

mod common;

use finetop::data::batch::{Batch, Example};
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
    let (sum, labels) = speaker.model.loss(&Batch::of(&[&Example { ids: ids.into(), trained: trained.into(), row: 0, truncated: false }])).unwrap();
    let mean = sum / labels as f64;
    println!("ours {mean:.4}, llama.cpp {:.4}, transformers {:.4}", reference.llama_cpp, reference.transformers);
    assert_eq!(labels as usize, reference.tokens - 1);
    assert!((mean - reference.llama_cpp).abs() <= 0.005, "{mean} for llama.cpp's {}", reference.llama_cpp);
    assert!((mean - reference.transformers).abs() <= 1e-4, "{mean} for transformers' {}", reference.transformers);
}
