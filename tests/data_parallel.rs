//! Several CPU processes train as one would: the same losses, one run folder, the same orders, and an end for all.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

fn train(dir: &Path, home: &Path, processes: usize, accumulate: usize, more: &[&str]) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_finetop"));
    c.env("XDG_STATE_HOME", home.join("state"))
        .env("XDG_CACHE_HOME", home.join("cache"))
        .env("XDG_RUNTIME_DIR", home)
        .env("RAYON_NUM_THREADS", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .args(["train", "demo", "--set", "sample.prompts=[]", "--set", "train.per_device_train_batch_size=2"])
        .args(["--set", &format!("train.gradient_accumulation_steps={accumulate}")])
        .args(["--set", "train.eval_steps=4", "--set", "lora.lora_dropout=0.1"]);
    match dir.join("events.jsonl").exists() {
        true => c.arg("--resume").arg(dir),
        false => c.arg("--run-dir").arg(dir),
    };
    if processes > 1 {
        c.args(["--nproc-per-node", &processes.to_string()]);
    }
    c.args(more);
    c
}

fn events(dir: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(dir.join("events.jsonl")).unwrap_or_default();
    text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect()
}

/// Step → loss, of steps or evaluations; the later of two lines counts.
fn losses(dir: &Path, kind: &str) -> BTreeMap<u64, f64> {
    let of_kind = |e: &serde_json::Value| e["type"] == kind;
    events(dir)
        .iter()
        .filter(|e| of_kind(e))
        .map(|e| (e["step"].as_u64().unwrap(), e["loss"].as_f64().unwrap()))
        .collect()
}

fn run(mut command: Command) -> (Option<i32>, String) {
    let out = command.output().unwrap();
    (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
}

#[test]
fn three_processes_train_as_one_with_three_times_the_accumulation_and_resume_to_the_bit() {
    let home = tempfile::tempdir().unwrap();
    let [one, three, twice] = ["one", "three", "twice"].map(|n| home.path().join(n));
    let steps = |n: u64| format!("train.max_steps={n}");
    assert_eq!(run(train(&one, home.path(), 1, 6, &["--set", &steps(8)])).0, Some(0));
    let (code, said) = run(train(&three, home.path(), 3, 2, &["--set", &steps(8)]));
    assert_eq!(code, Some(0), "{said}");
    for kind in ["step", "eval"] {
        let (alone, together) = (losses(&one, kind), losses(&three, kind));
        assert_eq!(alone.len(), together.len());
        assert!(alone.len() >= 3, "{alone:?}");
        for (step, a) in &alone {
            let b = together[step];
            assert!((a - b).abs() < 2e-5 * a, "{kind} {step}: {a} alone, {b} together");
        }
    }
    // Rank 0 alone says and writes.
    let starts: Vec<_> = events(&three).into_iter().filter(|e| e["type"] == "start").collect();
    assert_eq!(starts.len(), 1);
    assert_eq!(starts[0]["effective_batch"], 12);
    assert!(starts[0]["device_name"].as_str().unwrap().starts_with("3 × "), "{}", starts[0]);

    // Stopped half way and resumed, it is the run that was never stopped.
    let halfway = ["--set", "train.max_steps=8", "--set", "train.save_steps=4"];
    let mut child = train(&twice, home.path(), 3, 2, &halfway).stderr(Stdio::null()).spawn().unwrap();
    while losses(&twice, "step").len() < 5 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
    let (code, said) = run(train(&twice, home.path(), 2, 2, &halfway));
    assert_eq!(code, Some(2), "another number of processes is another run: {said}");
    assert!(said.contains("--nproc-per-node 3"), "{said}");
    let (code, said) = run(train(&twice, home.path(), 3, 2, &halfway));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(losses(&twice, "step"), losses(&three, "step"));
}

#[test]
fn a_stop_ends_all_processes_with_a_checkpoint() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("run");
    let mut child = train(&dir, home.path(), 2, 1, &[]).spawn().unwrap();
    while losses(&dir, "step").len() < 2 {
        assert!(child.try_wait().unwrap().is_none(), "it ended too early");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let mut stop = Command::new(env!("CARGO_BIN_EXE_finetop"));
    stop.env("XDG_STATE_HOME", home.path().join("state")).env("XDG_RUNTIME_DIR", home.path());
    assert!(stop.arg("stop").arg(&dir).output().unwrap().status.success());
    assert_eq!(child.wait().unwrap().code(), Some(75));
    assert!(std::fs::read_dir(dir.join("checkpoints")).unwrap().count() > 0);
}
