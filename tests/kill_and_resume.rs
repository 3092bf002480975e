//! A run killed at any instant and resumed equals the run that was never killed, to the bit.
//!
//! Few kills by default; `FINETOP_KILLS=50 cargo test --release --test kill_and_resume` for the full count.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const STEPS: u64 = 14;

fn command(recipe: &str, dir: &Path, home: &Path, optim: &str) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_finetop"));
    c.env("XDG_STATE_HOME", home.join("state"))
        .env("XDG_CACHE_HOME", home.join("cache"))
        .env("XDG_RUNTIME_DIR", home)
        .env("RAYON_NUM_THREADS", "2")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .args(["train", recipe])
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

/// A recipe of `method` for the tiny Llama, in a file.
fn tiny(home: &Path, method: &str, data: &str, more: &str) -> String {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-llama");
    // Of GRPO a batch counts completions.
    let accumulation = if method == "grpo" { 4 } else { 2 };
    let (model, data) = (fixture.display(), fixture.join(data).display().to_string());
    let text = format!(
        "method = \"{method}\"\n[model]\nname_or_path = \"{model}\"\nmax_seq_length = 64\ndevice = \"cpu\"\n\
         [lora]\nr = 4\n[data]\ntrain = \"{data}\"\neval_fraction = 0.2\n\
         [train]\nlearning_rate = 1e-3\nper_device_train_batch_size = 2\ngradient_accumulation_steps = {accumulation}\n{more}"
    );
    let path = home.join(format!("{method}.toml"));
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn killed_at_random_instants_a_run_resumes_to_the_same_losses_to_the_bit() {
    killed(&tempfile::tempdir().unwrap(), |_| "demo".to_string(), "adamw_torch", 4);
}

#[test]
fn with_8_bit_moments_it_does_so_too() {
    killed(&tempfile::tempdir().unwrap(), |_| "demo".to_string(), "adamw_8bit", 1);
}

#[test]
fn a_killed_dpo_run_resumes_to_the_same_losses_to_the_bit() {
    let dpo = |home: &Path| tiny(home, "dpo", "pairs.jsonl", "[dpo]\nbeta = 0.3\n");
    killed(&tempfile::tempdir().unwrap(), dpo, "adamw_torch", 2);
}

#[test]
fn a_killed_grpo_run_resumes_to_the_same_losses_to_the_bit_also_between_iterations_over_the_same_completions() {
    let grpo = "[grpo]\nreward_funcs = [{ name = \"regex\", pattern = \"[aeiou]{2}\" }, \"repetition_penalty\"]\n\
                num_generations = 4\nmax_completion_length = 12\nnum_iterations = 2\nbeta = 0.1\n";
    killed(&tempfile::tempdir().unwrap(), |home| tiny(home, "grpo", "rows.jsonl", grpo), "adamw_torch", 2);
}

fn killed(home: &tempfile::TempDir, recipe: impl Fn(&Path) -> String, optim: &str, kills: u32) {
    let kills: u32 = std::env::var("FINETOP_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(kills);
    let recipe = recipe(home.path());
    let whole = home.path().join("whole");
    let started = Instant::now();
    assert!(command(&recipe, &whole, home.path(), optim).status().unwrap().success(), "the uninterrupted run failed");
    let mut length = started.elapsed();
    let expected = losses(&whole);
    assert_eq!(expected.len() as u64, STEPS);

    // A Weyl sequence spreads the instants over the run without any randomness of the test's own.
    let (mut done, mut attempts) = (0, 0u32);
    let mut round = 0u32;
    while done < kills {
        let dir = home.path().join(format!("run-{round}"));
        round += 1;
        while !finished(&dir) {
            let mut child = command(&recipe, &dir, home.path(), optim).spawn().unwrap();
            let at = length.mul_f64((f64::from(attempts) * 0.618_033_988_75 + 0.05).fract());
            attempts += 1;
            if wait(&mut child, at) {
                // It is faster than the first was, which other work slowed down.
                length = length.mul_f64(0.8);
            } else if done < kills {
                // SIGKILL: nothing of the process gets to run.
                child.kill().unwrap();
                done += 1;
            }
            let status = child.wait().unwrap();
            if done >= kills && !finished(&dir) {
                assert!(status.code() != Some(1), "a resumed run failed; see {}", dir.display());
                assert!(
                    command(&recipe, &dir, home.path(), optim).status().unwrap().success(),
                    "the last resume failed"
                );
            }
        }
        assert_eq!(losses(&dir), expected, "{optim}: run {round} after {done} kills");
    }
}
