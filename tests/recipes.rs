//! Every recipe of the project loads, keeps within the guidance, and trains a few steps of a tiny model; what
//! `finetop new` writes does too. The binary, as a shell uses it.

use finetop::recipe::{self, guidance};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn repo(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn finetop(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_finetop"))
        .args(args)
        .current_dir(dir)
        .env("XDG_STATE_HOME", dir.join("state"))
        .env("XDG_CACHE_HOME", dir.join("cache"))
        .env("XDG_RUNTIME_DIR", dir)
        .env("HF_HUB_OFFLINE", "1")
        .env_remove("SLURM_JOB_ID")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap()
}

fn ok(output: Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    out.into_owned()
}

/// Those that are no demonstration of their own: demo.toml and smollm2-alpaca.toml are trained elsewhere.
fn recipes() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(repo("recipes"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "toml"))
        .filter(|p| !["demo", "smollm2-alpaca"].contains(&p.file_stem().unwrap().to_str().unwrap()))
        .collect();
    found.sort();
    found
}

#[test]
fn each_recipe_is_within_the_guidance_and_trains() {
    let dir = tempfile::tempdir().unwrap();
    let model = repo("tests/fixtures/tiny-llama");
    let passage = "The mill stands by the river, and the bridge is north of the mill. ".repeat(200);
    std::fs::write(dir.path().join("passage.txt"), passage).unwrap();
    assert!(recipes().len() >= 5);
    for path in recipes() {
        let name = path.file_stem().unwrap().to_str().unwrap().to_string();
        let r = recipe::load(path.to_str().unwrap(), &[]).unwrap().recipe;
        let facts = guidance::Facts { rows: Some(15_806), ..guidance::Facts::default() };
        for e in recipe::schema::entries() {
            let g = guidance::guidance(e.key, &r, &facts);
            // grpo.toml is of a model so small that it leaves the guidance, and says so.
            assert!(name == "grpo" || g.and_then(|g| g.inside) != Some(false), "{name}: {}", e.key);
        }
        let method = serde_json::to_value(r.method).unwrap();
        let rows = match method.as_str().unwrap() {
            "sft" => model.join("rows.jsonl"),
            "cpt" => dir.path().join("passage.txt"),
            other => {
                println!("{name}: rows for {other} are in the tests of that method");
                continue;
            }
        };
        let run = dir.path().join(&name);
        let sets = [
            format!("model.name_or_path={}", model.display()),
            "model.device=cpu".into(),
            "model.max_seq_length=128".into(),
            format!("data.train={}", rows.display()),
            "train.max_steps=3".into(),
            "train.per_device_train_batch_size=2".into(),
            "train.gradient_accumulation_steps=1".into(),
        ];
        let mut args = vec!["train", path.to_str().unwrap(), "--run-dir", run.to_str().unwrap()];
        args.extend(sets.iter().flat_map(|s| ["--set", s.as_str()]));
        ok(finetop(dir.path(), &args));
        let events = std::fs::read_to_string(run.join("events.jsonl")).unwrap();
        assert_eq!(events.lines().filter(|l| l.contains("\"type\":\"step\"")).count(), 3, "{name}");
    }
}

#[test]
fn usual_cards_take_the_shares_that_the_guidance_names() {
    for (name, batch, accumulation) in [("sft-24gb", 2, 8), ("sft-80gb", 8, 2)] {
        let r = recipe::load(repo(&format!("recipes/{name}.toml")).to_str().unwrap(), &[]).unwrap().recipe;
        assert_eq!((r.train.per_device_train_batch_size, r.train.gradient_accumulation_steps), (batch, accumulation));
    }
}

#[test]
fn a_new_recipe_is_checked_and_trains_and_differs_where_it_was_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path();
    let model = repo("tests/fixtures/tiny-llama").display().to_string();
    let rows: String = (0..120).map(|i| format!("\"What is {i} and, say, {i}?\",\"It is {}.\"\n", 2 * i)).collect();
    std::fs::write(here.join("sums.csv"), format!("question,answer\n{rows}")).unwrap();
    let text = ok(finetop(here, &["new", "--method", "sft", "--model", &model, "--data", "sums.csv"]));
    assert!(text.contains("content = \"{{ question }}\"") && text.contains("eval_fraction"), "{text}");
    assert_eq!(std::fs::read_to_string(here.join("sft-sums.toml")).unwrap(), text);
    let checked = ok(finetop(here, &["check", "sft-sums.toml"]));
    assert!(checked.contains("120 rows, 0 bad"), "{checked}");
    ok(finetop(here, &["train", "sft-sums.toml", "--set", "train.max_steps=2", "--run-dir", "a"]));
    ok(finetop(here, &["train", "sft-sums.toml", "--set", "train.max_steps=2", "--set", "lora.r=4", "--run-dir", "b"]));
    let diff = ok(finetop(here, &["diff", "a", "b"]));
    let r = diff.lines().find(|l| l.starts_with("lora.r ")).unwrap();
    assert_eq!(r.split_whitespace().collect::<Vec<_>>(), ["lora.r", "16", "4"]);
    assert!(!diff.contains("train.learning_rate") && diff.contains("loss, last"), "{diff}");

    // A second one gets a name of its own; a file is never written over.
    ok(finetop(here, &["new", "--method", "full", "--model", &model, "--data", "sums.csv", "--out", "f.toml"]));
    let refused =
        finetop(here, &["new", "--method", "full", "--model", &model, "--data", "sums.csv", "--out", "f.toml"]);
    assert!(!refused.status.success());
    ok(finetop(here, &["new", "--method", "sft", "--model", &model, "--data", "sums.csv"]));
    assert!(here.join("sft-sums-2.toml").is_file());
    let refused = finetop(here, &["new", "--method", "cpt", "--model", &model, "--data", "sums.csv"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("do not serve cpt") && said.contains("serve sft"), "{said}");
    let cache = ok(finetop(here, &["cache"]));
    assert!(cache.contains("data sets"), "{cache}");
    ok(finetop(here, &["cache", "--clear"]));
    assert!(ok(finetop(here, &["cache"])).contains("in 0 data sets"));
}
