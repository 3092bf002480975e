//! What families make of `config.json` files; their numbers are compared in `tests/families.rs`.

use super::*;
use crate::model::config::{Layer, LongRope, Rope, RopeScaling, Yarn};
use serde_json::json;

/// The sizes that every configuration names, and `more`.
fn with(model_type: &str, more: Value) -> Value {
    let mut config = json!({
        "model_type": model_type, "vocab_size": 100, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4,
        "num_attention_heads": 4
    });
    let more = more.as_object().unwrap().clone();
    config.as_object_mut().unwrap().extend(more);
    config
}

fn read(model_type: &str, more: Value) -> Config {
    Config::from_hf(&with(model_type, more), None).unwrap()
}

fn refusal(model_type: &str, more: Value) -> String {
    Config::from_hf(&with(model_type, more), None).unwrap_err().to_string()
}

#[test]
fn what_a_file_leaves_out_is_what_transformers_takes() {
    // from transformers import *; c = Qwen2Config(num_hidden_layers=4) …; c.num_key_value_heads, c.head_dim, c.rms_norm_eps,
    // c.rope_parameters["rope_theta"], c.max_position_embeddings, c.tie_word_embeddings, c.bos_token_id, c.eos_token_id
    let of = |name: &str, kv: usize| {
        let c = read(name, json!({"num_key_value_heads": kv}));
        let theta = (c.rope_theta, c.rms_norm_eps, c.max_position_embeddings);
        (c.head_dim, theta, c.tie_word_embeddings, c.bos_token_id, c.eos_token_ids)
    };
    assert_eq!(of("llama", 4), (16, (1e4, 1e-6, 2048), false, Some(1), vec![2]));
    assert_eq!(of("qwen2", 4), (16, (1e4, 1e-6, 32_768), false, None, vec![]));
    assert_eq!(of("qwen3", 4), (128, (1e4, 1e-6, 32_768), false, None, vec![]));
    assert_eq!(of("mistral", 4), (16, (1e4, 1e-6, 131_072), false, Some(1), vec![2]));
    assert_eq!(of("gemma2", 4), (256, (1e4, 1e-6, 8192), true, Some(2), vec![1]));
    assert_eq!(of("gemma3_text", 4), (256, (1e6, 1e-6, 131_072), true, Some(2), vec![1]));
    assert_eq!(of("phi3", 4), (16, (1e4, 1e-5, 4096), false, Some(1), vec![32_000]));
    assert_eq!(of("smollm3", 4), (16, (2e6, 1e-6, 32_768), true, Some(128_000), vec![128_001]));
    assert_eq!(read("gemma2", json!({})).num_key_value_heads, 4);
    assert_eq!(read("phi3", json!({})).num_key_value_heads, 4);
    assert!(refusal("qwen2", json!({})).contains("num_key_value_heads = 32"));
    assert_eq!(read("qwen2", json!({"num_key_value_heads": null})).num_key_value_heads, 4);
}

#[test]
fn windows_are_where_each_family_has_them() {
    let sliding = |c: &Config| (c.traits.sliding_window, (0..4).map(|i| c.layer(i).sliding).collect::<Vec<_>>());
    assert_eq!(sliding(&read("mistral", json!({"num_key_value_heads": 4}))), (Some(4096), vec![true; 4]));
    let off = read("mistral", json!({"num_key_value_heads": 4, "sliding_window": null}));
    assert_eq!(sliding(&off), (None, vec![false; 4]));
    let qwen =
        json!({"num_key_value_heads": 4, "use_sliding_window": false, "sliding_window": 128, "max_window_layers": 2});
    assert_eq!(sliding(&read("qwen2", qwen.clone())), (None, vec![false; 4]));
    let mut on = qwen;
    on["use_sliding_window"] = json!(true);
    assert_eq!(sliding(&read("qwen3", on)), (Some(128), vec![false, false, true, true]));
    assert_eq!(sliding(&read("gemma2", json!({}))), (Some(4096), vec![true, false, true, false]));
    // As google/gemma-3-1b-it's file of before transformers 5 has it.
    let gemma = read(
        "gemma3_text",
        json!({"sliding_window_pattern": 3, "sliding_window": 512, "rope_theta": 1000000,
        "rope_local_base_freq": 20000, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
    );
    assert_eq!(sliding(&gemma), (Some(512), vec![true, true, false, true]));
    assert_eq!(gemma.layer(0), Layer { sliding: true, rope: Rope::Local });
    assert_eq!(gemma.traits.rope_local_base_freq, Some(20_000.0));
    assert_eq!((gemma.rope_theta, gemma.rope_scaling), (1e6, Some(RopeScaling::Linear(8.0))));
    assert_eq!(sliding(&read("phi3", json!({"sliding_window": 2047}))), (Some(2047), vec![true; 4]));
}

#[test]
fn smollm3_turns_where_its_list_has_a_one() {
    let ropes = |c: Config| (0..4).map(|i| c.layer(i).rope == Rope::None).collect::<Vec<_>>();
    assert_eq!(ropes(read("smollm3", json!({}))), [false, false, false, true]);
    assert_eq!(ropes(read("smollm3", json!({"no_rope_layers": [1, 0, 1, 0]}))), [false, true, false, true]);
    assert!(refusal("smollm3", json!({"no_rope_layers": [1, 0]})).contains("no_rope_layers"));
}

#[test]
fn phi_4_mini_turns_three_quarters_of_a_head_by_two_sets_of_frequencies() {
    let factors = |x: f64| vec![x; 6];
    let scaling = json!({"type": "longrope", "short_factor": factors(1.0), "long_factor": factors(4.0)});
    let c = read(
        "phi3",
        json!({"partial_rotary_factor": 0.75, "max_position_embeddings": 131072,
        "original_max_position_embeddings": 4096, "rope_scaling": scaling}),
    );
    assert_eq!(c.traits.rotary_dim, Some(12));
    let Some(RopeScaling::LongRope(LongRope { attention_factor, original_max_position_embeddings, .. })) =
        c.rope_scaling
    else {
        panic!("{c:?}")
    };
    // math.sqrt(1 + math.log(32) / math.log(4096))
    assert!((attention_factor - (17f64 / 12.0).sqrt()).abs() < 1e-9, "{attention_factor}");
    assert_eq!(original_max_position_embeddings, 4096);
    let short = json!({"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}});
    assert!(refusal("phi3", short).contains("short_factor has 1 numbers, expected 8"));
}

#[test]
fn yarn_is_read_with_its_own_defaults() {
    let c = read(
        "qwen2",
        json!({"num_key_value_heads": 4, "max_position_embeddings": 131072,
        "rope_scaling": {"rope_type": "yarn", "original_max_position_embeddings": 32768}}),
    );
    let attention_factor = 0.1 * 4f64.ln() + 1.0;
    let wanted = Yarn {
        factor: 4.0,
        original_max_position_embeddings: 32_768,
        beta_fast: 32.0,
        beta_slow: 1.0,
        truncate: true,
        attention_factor,
    };
    assert_eq!(c.rope_scaling, Some(RopeScaling::Yarn(wanted)));
}

#[test]
fn what_a_family_does_not_compute_is_refused_by_name() {
    for (family, more, expected) in [
        ("gemma2", json!({"use_bidirectional_attention": true}), "use_bidirectional_attention"),
        ("gemma3_text", json!({"hidden_activation": "relu"}), "relu"),
        ("phi3", json!({"resid_pdrop": 0.1}), "resid_pdrop"),
        ("phi3", json!({"rope_scaling": {"type": "yarn", "factor": 2.0}}), "yarn"),
        ("llama", json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}}), "dynamic"),
        ("mistral", json!({"num_key_value_heads": 4, "sliding_window": 0}), "sliding_window = 0"),
        ("gemma2", json!({"layer_types": ["full_attention"]}), "layer_types names 1 layers"),
        ("gemma2", json!({"layer_types": ["chunked_attention"]}), "chunked_attention"),
        ("gemma2", json!({"sliding_window": null}), "sliding_window is missing"),
        ("gemma2", json!({"final_logit_softcapping": -1.0}), "final_logit_softcapping"),
        ("qwen2", json!({"num_key_value_heads": 4, "partial_rotary_factor": 0.5}), "partial_rotary_factor"),
        ("olmo2", json!({}), "architecture olmo2 is not supported"),
    ] {
        let error = refusal(family, more);
        assert!(error.contains(expected), "{family}: {error}");
    }
    let error = refusal("olmo2", json!({}));
    assert!(supported().iter().all(|name| error.contains(name)), "{error}");
}
