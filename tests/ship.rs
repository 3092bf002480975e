//! From an adapter to what is served: merging, GGUF files, and the proof that catches what went wrong on the way.

mod common;

use common::repo;
use finetop::data::template::ChatTemplate;
use finetop::export::convert::Plan;
use finetop::export::gguf::{Value, writer};
use finetop::export::lora_gguf;
use finetop::export::merge::{Merged, SHARD, merge};
use finetop::export::metadata::About;
use finetop::export::mixture::Mixture;
use finetop::export::ollama::modelfile::{self, Modelfile};
use finetop::export::ollama::template::{Template, template};
use finetop::export::proof::probe::chats;
use finetop::export::proof::{Stage, Trained, prove, prove_modelfile};
use finetop::export::quant::Kind;
use finetop::export::subject::Subject;
use finetop::train::speaker::{Speaker, TemplateChoice};
use std::path::{Path, PathBuf};

const MODEL: &str = "tests/fixtures/tiny-llama";
const ADAPTER: &str = "tests/fixtures/tiny-llama-adapter";

struct Side {
    subject: Subject,
    trained: Trained,
    dir: tempfile::TempDir,
}

fn tuned() -> Side {
    let (model, adapter) = (repo(MODEL), repo(ADAPTER));
    let subject = Subject::open(model.to_str().unwrap(), Some(&adapter), None).unwrap();
    let speaker = Speaker::load(model.to_str().unwrap(), Some(&adapter), TemplateChoice::default()).unwrap();
    let probes = chats(None, &["hello there".to_string(), "12 and 30?".to_string()]);
    let trained =
        Trained::of(&speaker.model, &speaker.tokenizer, speaker.template.as_ref(), &speaker.stop_ids, probes).unwrap();
    Side { subject, trained, dir: tempfile::tempdir().unwrap() }
}

impl Side {
    fn prove(&self, path: &Path) -> Stage {
        prove(&self.subject, &self.trained, path, &mut |_| {})
    }

    fn plan<'a>(&'a self, weights: &'a finetop::export::weights::Weights<'a>, mixture: &str) -> Plan<'a> {
        let s = &self.subject;
        let about = About { name: Some("tiny"), tokenizer: &s.tokenizer, templates: &s.templates };
        Plan::new(&s.opened, weights, &about, Mixture::parse(mixture).unwrap()).unwrap()
    }

    /// Export with `change` made to the plan.
    fn export(&self, mixture: &str, change: impl FnOnce(&mut Plan)) -> PathBuf {
        let weights = self.subject.weights().unwrap();
        let mut plan = self.plan(&weights, mixture);
        change(&mut plan);
        let path = self.dir.path().join(format!("tiny.{mixture}.gguf"));
        plan.write(&path, &mut |_| {}).unwrap();
        path
    }

    fn merge(&self, kind: Kind, factor: f64, most: u64) -> (PathBuf, Merged) {
        let folder = self.dir.path().join(format!("{}-{factor}-{most}", kind.name()));
        let merged = merge(&self.subject, &folder, kind, factor, most, &mut |_, _| {}).unwrap();
        (folder, merged)
    }
}

fn failed(stage: &Stage) -> Vec<&str> {
    stage.checks.iter().filter(|c| !c.passed).map(|c| c.name.as_str()).collect()
}

fn detail(stage: &Stage, name: &str) -> String {
    stage.checks.iter().find(|c| c.name == name).map(|c| c.detail.clone()).unwrap_or_default()
}

#[test]
fn an_adapter_merged_in_f32_speaks_as_the_adapter_beside_its_base() {
    let side = tuned();
    let (folder, merged) = side.merge(Kind::F32, 1.0, SHARD);
    let stage = side.prove(&folder);
    assert!(stage.passed, "{stage:#?}");
    assert!(stage.kl.unwrap() < 1e-6 && stage.top1_agreement == Some(1.0), "{stage:?}");
    assert_eq!((merged.tensors, merged.tuned), (21, 14));
    assert!((stage.adapter_share.unwrap() - 1.0).abs() < 1e-5);
    // Rounded once: the merged f32 is not itself rounded.
    assert_eq!(merged.drift.unwrap().error, 0.0);
}

#[test]
fn what_rounding_to_16_bits_costs_is_measured_and_small_beside_the_change() {
    let side = tuned();
    let (bf16, f16) = (side.merge(Kind::BF16, 1.0, SHARD), side.merge(Kind::F16, 1.0, SHARD));
    let (b, f) = (bf16.1.drift.unwrap(), f16.1.drift.unwrap());
    assert!(0.0 < f.error && f.error < b.error && b.error < 0.2, "{f:?} {b:?}");
    assert!(f.lost <= b.lost, "{f:?} {b:?}");
    for (folder, kind) in [(bf16.0, "BF16"), (f16.0, "F16")] {
        let stage = side.prove(&folder);
        assert!(stage.passed && stage.kind == kind, "{stage:#?}");
    }
}

#[test]
fn a_merge_in_shards_is_the_same_model_and_can_be_quantized_on() {
    let side = tuned();
    let (folder, _) = side.merge(Kind::F32, 1.0, 60_000);
    assert!(folder.join("model.safetensors.index.json").is_file());
    assert!(!folder.join("model.safetensors").exists());
    assert!(side.prove(&folder).passed);
    // From the merged folder and from the adapter on the fly: the same file.
    let merged = Subject::open(folder.to_str().unwrap(), None, None).unwrap();
    let weights = merged.weights().unwrap();
    let about = About { name: Some("tiny"), tokenizer: &merged.tokenizer, templates: &merged.templates };
    let plan = Plan::new(&merged.opened, &weights, &about, Mixture::Q8_0).unwrap();
    let second = side.dir.path().join("second.gguf");
    plan.write(&second, &mut |_| {}).unwrap();
    let first = side.export("q8_0", |_| {});
    assert!(std::fs::read(first).unwrap() == std::fs::read(second).unwrap());
}

#[test]
fn every_type_of_gguf_is_proven() {
    let side = tuned();
    let all = [
        "f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q5_k_s", "q5_1", "q5_0", "q4_k_m", "q4_k_s", "q4_1", "q4_0",
        "q3_k_l", "q3_k_m", "q3_k_s", "q2_k",
    ];
    for mixture in all {
        let stage = side.prove(&side.export(mixture, |_| {}));
        assert!(stage.passed, "{mixture}: {stage:#?}");
    }
}

#[test]
fn an_adapter_alone_is_the_one_that_was_trained_to_the_bit() {
    let side = tuned();
    let (adapter, config) = (side.subject.adapter.as_ref().unwrap(), side.subject.opened.config());
    let path = side.dir.path().join("tiny.LoRA.gguf");
    lora_gguf::write(adapter, config, "tiny", &path).unwrap();
    let stage = side.prove(&path);
    assert!(stage.passed && stage.kind == "LoRA", "{stage:#?}");
    assert!(detail(&stage, "weights").starts_with("28 matrices"), "{stage:#?}");
    let mut other = adapter.clone();
    other.entries[3].2[5] += 0.001;
    lora_gguf::write(&other, config, "tiny", &path).unwrap();
    let stage = side.prove(&path);
    assert!(detail(&stage, "weights").contains("row"), "{stage:#?}");
    other.config.lora_alpha = 16.0;
    lora_gguf::write(&other, config, "tiny", &path).unwrap();
    assert!(detail(&side.prove(&path), "weights").contains("alpha"));
}

#[test]
fn a_gguf_quantized_from_a_gguf_keeps_its_keys_and_its_proof() {
    let side = tuned();
    let first = side.export("f32", |_| {});
    let base = Subject::open(first.to_str().unwrap(), None, None).unwrap();
    let weights = base.weights().unwrap();
    let about = About { name: None, tokenizer: &base.tokenizer, templates: &base.templates };
    let plan = Plan::new(&base.opened, &weights, &about, Mixture::Q8_0).unwrap();
    let path = side.dir.path().join("again.gguf");
    plan.write(&path, &mut |_| {}).unwrap();
    assert!(side.prove(&path).passed);
    // The same tensors as straight from the adapter.
    let straight = std::fs::read(side.export("q8_0", |_| {})).unwrap();
    let again = std::fs::read(&path).unwrap();
    let data: usize = plan.tensors.iter().map(|t| t.bytes().next_multiple_of(32)).sum();
    assert!(straight[straight.len() - data..] == again[again.len() - data..]);
}

#[test]
fn smollm2_s_files_are_those_of_llama_quantize_to_the_byte() {
    let Some(assets) = common::assets() else { return };
    let fixture = std::fs::read(repo("tests/fixtures/llama_quantize_smollm2.json")).unwrap();
    let fixture: serde_json::Value = serde_json::from_slice(&fixture).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let source = assets.join("smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
    let write = |from: &Path, mixture: &str, name: Option<&str>| {
        let subject = Subject::open(from.to_str().unwrap(), None, None).unwrap();
        let weights = subject.weights().unwrap();
        let about = About { name, tokenizer: &subject.tokenizer, templates: &subject.templates };
        let plan = Plan::new(&subject.opened, &weights, &about, Mixture::parse(mixture).unwrap()).unwrap();
        let path = dir.path().join(format!("{mixture}.gguf"));
        plan.write(&path, &mut |_| {}).unwrap();
        let digest = blake3::hash(&std::fs::read(&path).unwrap()).to_hex().to_string();
        assert_eq!(fixture["files"][mixture], digest, "{mixture}");
        path
    };
    let f16 = write(&source, "f16", Some("smollm2"));
    for mixture in ["q4_k_m", "q8_0", "q3_k_l", "q2_k"] {
        std::fs::remove_file(write(&f16, mixture, None)).unwrap();
    }
}

#[test]
fn an_adapter_that_is_missing_or_half_there_is_found_in_every_type() {
    let side = tuned();
    for mixture in ["f16", "q8_0", "q4_k_m"] {
        for factor in [0.0, 0.5] {
            let weights = side.subject.weights().unwrap().scaled(factor);
            let path = side.dir.path().join("half.gguf");
            side.plan(&weights, mixture).write(&path, &mut |_| {}).unwrap();
            let stage = side.prove(&path);
            assert!(failed(&stage).contains(&"weights"), "{mixture} × {factor}: {stage:#?}");
        }
    }
    let (folder, _) = side.merge(Kind::BF16, 0.5, SHARD);
    let stage = side.prove(&folder);
    assert!(failed(&stage).contains(&"weights"), "{stage:#?}");
}

#[test]
fn rows_of_q_and_k_that_are_not_permuted_are_found_and_named() {
    let side = tuned();
    let weights = side.subject.weights().unwrap();
    let plan = side.plan(&weights, "f32");
    let path = side.dir.path().join("straight.gguf");
    // What the plan would write, but q and k in Hugging Face's order of rows.
    let fill = |tensor: usize, first: usize, out: &mut [u8]| -> finetop::Result<()> {
        let t = &plan.tensors[tensor];
        let name =
            weights.names().into_iter().find(|n| finetop::model::gguf::gguf_name(weights.config, n) == t.name).unwrap();
        let matrix = weights.matrix(&name)?;
        for (n, row) in out.chunks_exact_mut(t.columns * 4).enumerate() {
            let mut values = vec![0f32; t.columns];
            matrix.row(first + n, &mut values)?;
            row.copy_from_slice(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
        }
        Ok(())
    };
    writer::write(&path, &plan.keys, &plan.tensors, &fill, &mut |_| {}).unwrap();
    let stage = side.prove(&path);
    assert_eq!(failed(&stage), ["weights", "logits"], "{stage:#?}");
    assert!(
        detail(&stage, "weights").starts_with("model.layers.0.self_attn.q_proj.weight (F32) differs"),
        "{stage:#?}"
    );
}

#[test]
fn a_stop_that_is_missing_is_found() {
    let side = tuned();
    let path = side.export("q8_0", |plan| {
        plan.keys.set("tokenizer.ggml.eos_token_id", Value::U32(5));
        // Its text would tell llama.cpp all the same: call it something else.
        let json = std::fs::read(repo(MODEL).join("tokenizer.json")).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let mut tokens = vec![String::new(); 320];
        for (token, id) in json["model"]["vocab"].as_object().unwrap() {
            tokens[id.as_u64().unwrap() as usize] = token.clone();
        }
        tokens[2] = "<turn over>".into();
        plan.keys.set("tokenizer.ggml.tokens", Value::Texts(tokens));
    });
    let stage = side.prove(&path);
    assert!(failed(&stage).contains(&"stops"), "{stage:#?}");
}

#[test]
fn another_template_a_second_bos_and_a_lost_system_prompt_are_found_with_the_first_difference() {
    let side = tuned();
    let own = side.subject.templates.default.clone().unwrap();
    let bos = format!("{{{{ bos_token }}}}{own}").replace("{% for", "{{ bos_token }}{% for");
    for (template, expected) in [
        ("{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}".to_string(), "token 0 is"),
        (bos, "BOS comes twice"),
        (
            own.replace("{% for message in messages %}", "{% for message in messages if message.role != 'system' %}"),
            "was",
        ),
        ("{{ raise_exception('no') }}".to_string(), "no"),
    ] {
        let path = side.export("f32", |plan| plan.keys.text("tokenizer.chat_template", template));
        let stage = side.prove(&path);
        assert_eq!(failed(&stage), ["template"], "{stage:#?}");
        assert!(detail(&stage, "template").contains(expected), "{stage:#?}");
    }
}

#[test]
fn a_modelfile_s_template_is_proven_and_a_wrong_one_is_found() {
    let side = tuned();
    let s = &side.subject;
    let jinja = ChatTemplate::new(&s.templates, &s.tokenizer.special, &serde_json::Map::new()).unwrap();
    let made = template(&jinja, s.templates.default.as_ref().unwrap(), &s.tokenizer).unwrap();
    assert_eq!((made.chats, made.differs.as_slice()), (8, &[][..]));
    let path = side.dir.path().join("Modelfile");
    let prove = |template: &str| {
        let t = Template { text: template.to_string(), ..made.clone() };
        let stops = ["<|im_end|>".to_string()];
        let m = Modelfile {
            name: "tiny",
            from: "./x.gguf",
            adapter: None,
            template: Ok(&t),
            system: None,
            stops: &stops,
            sampling: None,
        };
        std::fs::write(&path, modelfile::write(&m).unwrap()).unwrap();
        prove_modelfile(s, &side.trained, &path).unwrap()
    };
    assert!(prove(&made.text).passed, "{:#?}", prove(&made.text));
    for (wrong, expected) in [
        (format!("<|im_start|>{}", made.text), "BOS comes twice"),
        (made.text.replace("system", "user"), "token"),
        (made.text.replace("{{ end }}{{ end }}<|im_start|>assistant\n", "{{ end }}{{ end }}"), "the end"),
        ("{{ .Prompt".to_string(), "not closed"),
    ] {
        let stage = prove(&wrong);
        assert!(!stage.passed && detail(&stage, "template").contains(expected), "{wrong}: {stage:#?}");
    }
}

#[test]
fn a_way_of_cutting_text_that_is_not_the_model_s_is_found() {
    let side = tuned();
    let path = side.export("f32", |plan| plan.keys.text("tokenizer.ggml.pre", "llama-bpe"));
    let stage = side.prove(&path);
    assert!(failed(&stage).contains(&"tokens"), "{stage:#?}");
}

#[test]
fn a_file_that_is_cut_off_is_a_failed_check_and_no_panic() {
    let side = tuned();
    let path = side.export("q8_0", |_| {});
    let bytes = std::fs::read(&path).unwrap();
    for part in [bytes.len() - 64, bytes.len() / 2, 4000, 20, 0] {
        std::fs::write(&path, &bytes[..part]).unwrap();
        let stage = side.prove(&path);
        assert_eq!(failed(&stage), ["reads"], "{part}: {stage:#?}");
    }
}
