//! Models and data sets of the hub from the command line, against a hub of the test's own. No real network.

use finetop::hub::Settings;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

#[path = "../src/hub/server.rs"]
#[allow(dead_code)]
mod server;

use server::{COMMIT, Held, Hub};

fn repo(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A repository with these files of the tiny model.
fn held(names: &[&str]) -> Held {
    let read = |n: &&str| (n.to_string(), std::fs::read(repo("tests/fixtures/tiny-llama").join(n)).unwrap());
    Held { files: names.iter().map(read).collect(), large: vec!["model.safetensors".into()], ..Held::default() }
}

const MODEL: &[&str] =
    &["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];

fn finetop(dir: &Path, hub: &Hub, line: &str, environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_finetop"))
        .args(line.split(' '))
        .current_dir(dir)
        .env("XDG_STATE_HOME", dir.join("state"))
        .env("XDG_CACHE_HOME", dir.join("cache"))
        .env("XDG_RUNTIME_DIR", dir)
        .env("HF_HOME", dir.join("hf"))
        .env("HF_ENDPOINT", &hub.endpoint)
        .env_remove("HF_TOKEN")
        .env_remove("HF_HUB_CACHE")
        .env_remove("HF_HUB_OFFLINE")
        .env_remove("SLURM_JOB_ID")
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

#[test]
fn a_model_and_a_data_set_of_the_hub_are_fetched_once_and_trained() {
    let mut data = held(&[]);
    data.files.insert(
        "data/train-00000-of-00001.jsonl".into(),
        std::fs::read(repo("tests/fixtures/tiny-llama/rows.jsonl")).unwrap(),
    );
    let mut model = held(MODEL);
    model.cuts.insert("model.safetensors".into(), vec![1000]);
    let hub = Hub::start([("models/o/tiny", model), ("datasets/o/rows", data)]);
    let dir = tempfile::tempdir().unwrap();
    let recipe = "[model]\nname_or_path = \"o/tiny\"\nmax_seq_length = 128\ndevice = \"cpu\"\n[lora]\nr = 4\n[data]\ntrain = \"o/rows\"\n[train]\nmax_steps = 2\n";
    std::fs::write(dir.path().join("r.toml"), recipe).unwrap();

    let plan = finetop(dir.path(), &hub, "plan r.toml", &[]);
    assert!(plan.status.success(), "{}", String::from_utf8_lossy(&plan.stderr));
    assert!(!hub.requests().iter().any(|r| r.contains("model.safetensors")), "a plan needs no weights");

    let trained = finetop(dir.path(), &hub, "train r.toml --run-dir run", &[]);
    let said = String::from_utf8_lossy(&trained.stderr).into_owned();
    assert!(trained.status.success(), "{said}");
    assert!(said.contains("downloading") && said.contains("was cut"), "{said}");
    let config = std::fs::read_to_string(dir.path().join("run/checkpoints/step-2/adapter_config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!((&config["base_model_name_or_path"], &config["revision"]), (&"o/tiny".into(), &COMMIT.into()));
    let recipe = std::fs::read_to_string(dir.path().join("run/recipe.toml")).unwrap();
    assert!(recipe.contains("train = [\"hf:o/rows\"]"), "{recipe}");

    // Everything is there now: without a network the same run begins.
    let before = hub.requests().len();
    let again = finetop(dir.path(), &hub, "train r.toml --run-dir again", &[("HF_HUB_OFFLINE", "1")]);
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    assert_eq!(hub.requests().len(), before);
    let loss = |run: &str| {
        let events = std::fs::read_to_string(dir.path().join(run).join("events.jsonl")).unwrap();
        let step = events.lines().rfind(|l| l.contains("\"type\":\"step\"")).unwrap().to_string();
        serde_json::from_str::<Value>(&step).unwrap()["loss"].as_f64().unwrap()
    };
    assert_eq!(loss("run"), loss("again"));
}

#[test]
fn refusals_of_the_hub_say_what_to_do() {
    let gated = Held { gated: true, token: Some("hf_secret".into()), ..held(MODEL) };
    let hub = Hub::start([("models/o/gated", gated)]);
    let dir = tempfile::tempdir().unwrap();
    let check = |model: &str, environment: &[(&str, &str)]| {
        let rows = repo("tests/fixtures/tiny-llama/rows.jsonl");
        let text = format!(
            "[model]\nname_or_path = \"{model}\"\nmax_seq_length = 128\ndevice = \"cpu\"\n[lora]\n[data]\ntrain = {rows:?}\n"
        );
        std::fs::write(dir.path().join("r.toml"), text).unwrap();
        let output = finetop(dir.path(), &hub, "check r.toml", environment);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = check("o/gated", &[]);
    assert!(code == Some(1) && said.contains("gated") && said.contains("HF_TOKEN"), "{said}");
    let (code, said) = check("o/none", &[]);
    assert!(code == Some(1) && said.contains("no such repository"), "{said}");
    let (code, said) = check("o/gated", &[("HF_HUB_OFFLINE", "1")]);
    assert!(code == Some(1) && said.contains("HF_HUB_OFFLINE"), "{said}");
    let (code, said) = check("o/gated", &[("HF_TOKEN", "hf_secret")]);
    assert!(code == Some(0) && !said.contains("hf_secret"), "{said}");
}

/// The server asks for nothing of this; what it shares with the library's own tests does.
#[test]
fn settings_lead_to_this_hub() {
    let hub = Hub::start([]);
    let settings: Settings = hub.settings(Path::new("/nowhere"));
    assert_eq!(settings.endpoint, hub.endpoint);
}
