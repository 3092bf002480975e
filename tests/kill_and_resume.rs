//! A run killed at any instant and resumed equals the run that was never killed, to the bit.
//!
//! Few kills by default; `FINETOP_KILLS=50 cargo test --release --test kill_and_resume` for the full count.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const STEPS: u64 = 14;

fn command(dir: &Path, home: &Path, optim: &str) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_finetop"));
    c.env("XDG_STATE_HOME", home.join("state"))
        .env("XDG_CACHE_HOME", home.join("cache"))
        .env("XDG_RUNTIME_DIR", home)
        .env("RAYON_NUM_THREADS", "2")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .args(["train", "demo"])
        .args(["--set", &format!("train.max_steps={STEPS}")])
        .args(["--set", "train.save_steps=3", "--set", "train.eval_steps=4", "--set", "lora.lora_dropout=0.1"])
        .args(["--set", "sample.prompts=[]", "--set", &format!("train.optim={optim}")]);
    if dir.join("events.jsonl").exists() {
        c.arg("--resume").arg(dir);
    } else {
        c.arg("--run-dir").arg(dir);
    }
    c
}

/// Step → (loss, gradient norm) as their bits; the later of two lines for a step counts.
fn losses(dir: &Path) -> BTreeMap<u64, (u64, u64)> {
    let text = std::fs::read_to_string(dir.join("events.jsonl")).unwrap_or_default();
    text.lines()
        .filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok())
        .filter(|e| e["type"] == "step")
        .map(|e| {
            let bits = |k: &str| e[k].as_f64().unwrap_or(f64::NAN).to_bits();
            (e["step"].as_u64().unwrap(), (bits("loss"), bits("grad_norm")))
        })
        .collect()
}

fn finished(dir: &Path) -> bool {
    std::fs::read_to_string(dir.join("events.jsonl")).unwrap_or_default().contains(r#""state":"finished""#)
}

fn wait(child: &mut Child, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    false
}

#[test]
fn killed_at_random_instants_a_run_resumes_to_the_same_losses_to_the_bit() {
    let kills: u32 = std::env::var("FINETOP_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    run("adamw_torch", kills);
    run("adamw_8bit", kills.div_ceil(4));
}

fn run(optim: &str, kills: u32) {
    let home = tempfile::tempdir().unwrap();
    let command = |dir: &Path, home: &Path| command(dir, home, optim);
    let whole = home.path().join("whole");
    let started = Instant::now();
    assert!(command(&whole, home.path()).status().unwrap().success(), "the uninterrupted run failed");
    let length = started.elapsed();
    let expected = losses(&whole);
    assert_eq!(expected.len() as u64, STEPS);

    // A Weyl sequence spreads the instants over the run without any randomness of the test's own.
    let mut done = 0;
    let mut round = 0u32;
    while done < kills {
        let dir = home.path().join(format!("run-{round}"));
        round += 1;
        while !finished(&dir) {
            let mut child = command(&dir, home.path()).spawn().unwrap();
            let at = length.mul_f64((f64::from(done) * 0.618_033_988_75 + 0.05).fract());
            if !wait(&mut child, at) && done < kills {
                // SIGKILL: nothing of the process gets to run.
                child.kill().unwrap();
                done += 1;
            }
            let status = child.wait().unwrap();
            if done >= kills && !finished(&dir) {
                assert!(status.code() != Some(1), "a resumed run failed; see {}", dir.display());
                assert!(command(&dir, home.path()).status().unwrap().success(), "the last resume failed");
            }
        }
        assert_eq!(losses(&dir), expected, "{optim}: run {round} after {done} kills");
    }
}
