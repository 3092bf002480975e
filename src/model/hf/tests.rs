//! Folders written here, read back.

use super::*;
use crate::model::config::RopeScaling;
use half::{bf16, f16};
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use std::path::Path;

fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 7, "hidden_size": 8,
        "intermediate_size": 6, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": true, "eos_token_id": [5, 6],
        "bos_token_id": 1, "torch_dtype": "bfloat16"
    })
}

/// Values that all three formats hold exactly.
fn values(name: &str, count: usize) -> Vec<f32> {
    let seed = name.bytes().map(u32::from).sum::<u32>() as usize;
    (0..count).map(|i| ((i * 31 + seed) % 128) as f32 / 16.0 - 4.0).collect()
}

fn stored(values: &[f32], kind: Dtype) -> Vec<u8> {
    match kind {
        Dtype::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
        Dtype::BF16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    }
}

/// Writes tensors to a file.
fn shard(path: &Path, tensors: &[(String, Vec<usize>, Dtype)]) {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(n, s, kind)| stored(&values(n, s.iter().product()), *kind)).collect();
    let views =
        tensors.iter().zip(&bytes).map(|((n, s, kind), b)| (n.clone(), TensorView::new(*kind, s.clone(), b).unwrap()));
    std::fs::write(path, safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap()).unwrap();
}

/// A model folder in two shards of mixed formats; `change` may spoil its tensors before they are written.
fn folder(config: &Value, change: impl Fn(&mut Vec<(String, Vec<usize>, Dtype)>)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let kinds = [Dtype::F32, Dtype::F16, Dtype::BF16];
    let shapes = Config::from_hf(&super::tests::config(), None).unwrap().tensor_shapes();
    let mut tensors: Vec<_> = shapes.into_iter().enumerate().map(|(i, (n, s))| (n, s, kinds[i % 3])).collect();
    change(&mut tensors);
    let (a, b) = tensors.split_at(tensors.len() / 2);
    let mut map = serde_json::Map::new();
    for (file, part) in [("model-00001-of-00002.safetensors", a), ("model-00002-of-00002.safetensors", b)] {
        shard(&dir.path().join(file), part);
        map.extend(part.iter().map(|(n, ..)| (n.clone(), json!(file))));
    }
    std::fs::write(dir.path().join(INDEX), json!({ "weight_map": map }).to_string()).unwrap();
    dir
}

fn open(dir: &Path) -> Result<HfModel> {
    HfModel::open(Files::Folder(dir.to_path_buf()))
}

fn refusal(dir: &Path) -> String {
    match open(dir).and_then(|m| m.weights()) {
        Ok(_) => panic!("it was read"),
        Err(e) => e.to_string(),
    }
}

#[test]
fn shards_of_three_formats_are_read_exactly() {
    let dir = folder(&config(), |_| {});
    let model = open(dir.path()).unwrap();
    assert_eq!((model.config.head_dim, model.config.max_position_embeddings), (4, 2048));
    assert_eq!(model.config.eos_token_ids, [5, 6]);
    let weights = model.weights().unwrap();
    assert_eq!(weights.tensors.len(), 2 * 9 + 2);
    for (name, shape) in model.config.tensor_shapes() {
        let tensor = &weights.tensors[&name];
        assert_eq!(tensor.dims(), shape);
        let found = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(found, values(&name, shape.iter().product()), "{name}");
    }
}

#[test]
fn errors_name_the_file_the_tensor_and_both_shapes() {
    let dir = folder(&config(), |t| t[1].1 = vec![9]);
    let error = refusal(dir.path());
    assert!(error.contains("model-00001-of-00002.safetensors: model.layers.0.input_layernorm.weight"), "{error}");
    assert!(error.contains("[9]") && error.contains("[8]"), "{error}");

    let dir = folder(&config(), |t| {
        t.remove(4);
    });
    let error = refusal(dir.path());
    assert!(error.contains("model.layers.0.self_attn.v_proj.weight [4, 8] is missing"), "{error}");

    let dir = folder(&config(), |t| t.push(("model.layers.0.self_attn.q_proj.bias".into(), vec![8], Dtype::F32)));
    let error = refusal(dir.path());
    assert!(error.contains("q_proj.bias") && error.contains("00002-of-00002"), "{error}");

    let dir = folder(&config(), |t| t[0].2 = Dtype::I32);
    let error = refusal(dir.path());
    assert!(error.contains("I32") && error.contains("embed_tokens"), "{error}");

    let dir = folder(&config(), |_| {});
    std::fs::remove_file(dir.path().join("model-00002-of-00002.safetensors")).unwrap();
    assert!(refusal(dir.path()).contains("shard model-00002-of-00002.safetensors is missing"));

    let dir = folder(&config(), |_| {});
    let cut = dir.path().join("model-00002-of-00002.safetensors");
    let bytes = std::fs::read(&cut).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() - 3]).unwrap();
    assert!(refusal(dir.path()).contains("not a whole safetensors file"));
}

#[test]
fn a_tied_head_that_is_stored_is_left_out_and_an_untied_one_must_be_there() {
    let head = ("lm_head.weight".to_string(), vec![7, 8], Dtype::F32);
    let dir = folder(&config(), |t| t.push(head.clone()));
    assert!(!open(dir.path()).unwrap().weights().unwrap().tensors.contains_key("lm_head.weight"));
    let mut untied = config();
    untied["tie_word_embeddings"] = json!(false);
    let dir = folder(&untied, |t| t.push(head.clone()));
    assert!(open(dir.path()).unwrap().weights().unwrap().tensors.contains_key("lm_head.weight"));
    let dir = folder(&untied, |_| {});
    assert!(refusal(dir.path()).contains("lm_head.weight [7, 8] is missing"));
}

#[test]
fn pickled_weights_an_adapter_and_an_empty_folder_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    assert!(refusal(dir.path()).contains("config.json: not found"));
    std::fs::write(dir.path().join("adapter_config.json"), "{}").unwrap();
    assert!(refusal(dir.path()).contains("holds an adapter"));
    std::fs::write(dir.path().join("config.json"), config().to_string()).unwrap();
    assert!(refusal(dir.path()).contains("no weights"));
    std::fs::write(dir.path().join("pytorch_model.bin"), "x").unwrap();
    assert!(refusal(dir.path()).contains("can run code"));
}

#[test]
fn what_would_change_the_arithmetic_is_refused_by_name() {
    for (key, value, expected) in [
        ("architectures", json!(["MambaForCausalLM"]), "MambaForCausalLM"),
        ("attention_dropout", json!(0.1), "attention_dropout"),
        ("partial_rotary_factor", json!(0.5), "partial_rotary_factor"),
        ("hidden_act", json!("gelu"), "gelu"),
        ("quantization_config", json!({"quant_method": "gptq"}), "quantized"),
        ("rope_scaling", json!({"rope_type": "dynamic", "factor": 4.0}), "dynamic"),
        ("num_key_value_heads", json!(3), "num_key_value_heads = 3"),
        ("hidden_size", json!(-8), "hidden_size"),
        ("vocab_size", json!(null), "vocab_size is missing"),
        ("num_hidden_layers", json!(99999999), "not credible"),
    ] {
        let mut changed = config();
        changed[key] = value;
        let error = Config::from_hf(&changed, None).unwrap_err().to_string();
        assert!(error.contains(expected), "{key}: {error}");
    }
    assert!(Config::from_hf(&json!([]), None).is_err());
}

#[test]
fn both_spellings_of_rope_and_all_eos_ids_are_read() {
    let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192});
    let mut old = config();
    old["rope_scaling"] = scaling.clone();
    let mut new = config();
    new.as_object_mut().unwrap().remove("rope_theta");
    new["rope_parameters"] = scaling;
    new["rope_parameters"]["rope_theta"] = json!(500000.0);
    let (old, new) = (Config::from_hf(&old, None).unwrap(), Config::from_hf(&new, None).unwrap());
    assert_eq!(old, new);
    // e = LlamaRotaryEmbedding(LlamaConfig(head_dim=64, rope_parameters=…))   (transformers 5.23)
    // 500000.0 ** (-torch.arange(0, 64, 2).double() / 64) / e.inv_freq.double()
    let Some(RopeScaling::Llama3(scaling)) = old.rope_scaling else { panic!("{old:?}") };
    let divisors = scaling.divisors(64, 500_000.0);
    for (i, expected) in [(0, 1.0), (14, 1.0), (15, 1.5534145), (16, 2.6945304), (17, 5.2573272), (18, 8.0), (31, 8.0)]
    {
        assert!((divisors[i] - expected).abs() < 1e-6 * expected, "{i}: {}", divisors[i]);
    }
    let generation = json!({"eos_token_id": [6, 2]});
    assert_eq!(Config::from_hf(&config(), Some(&generation)).unwrap().eos_token_ids, [5, 6, 2]);
}
