//! The binary as a shell uses it: a run begun, looked at, stopped, gone on with, killed and deleted.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A home of its own: index, sockets, runs and a recipe that trains a tiny model for longer than a test takes.
struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let home = Self { dir: tempfile::tempdir().unwrap() };
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-llama");
        let model = model.display();
        let recipe = format!(
            "method = \"sft\"\nrun_name = \"tiny\"\n[model]\nname_or_path = \"{model}\"\nmax_seq_length = 128\n[lora]\nr = 4\n\
             [data]\ntrain = \"{model}/rows.jsonl\"\n[train]\nmax_steps = 1000000\nsave_steps = 20\n[sample]\nprompts = []\n"
        );
        std::fs::write(home.path("tiny.toml"), recipe).unwrap();
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, line: &str) -> Command {
        let mut c = Command::new(env!("CARGO_BIN_EXE_finetop"));
        c.args(line.split(' '))
            .current_dir(self.dir.path())
            .env("XDG_STATE_HOME", self.path("state"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("XDG_RUNTIME_DIR", self.dir.path())
            .env_remove("SLURM_JOB_ID")
            .env_remove("FINETOP_ASCII")
            .stdin(Stdio::null());
        c
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    fn stdout(&self, line: &str) -> String {
        let output = self.run(line);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "finetop {line}: {} {error}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.stdout("status tiny --json")).unwrap()
    }

    /// Waits until the run of the test stands as `holds` says.
    fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let output = self.run("status tiny --json");
            let status = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
            if holds(&status) {
                return status;
            }
            assert!(began.elapsed() < Duration::from_secs(120), "not {what}: {status}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn signal(&self, pid: u64, name: &str) {
        assert!(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success());
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // A test that failed half way must not leave a trainer behind.
        let _ = self.run("stop --all");
    }
}

fn exit_code(mut child: Child) -> Option<i32> {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(120) {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    panic!("it does not end");
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_plan_and_the_settings_are_said_without_training() {
    let home = Home::new();
    let plan: Value = serde_json::from_str(&home.stdout("plan tiny.toml --vram 2GiB --json")).unwrap();
    let parts = plan["components"].as_array().unwrap();
    let sum: u64 = parts.iter().map(|c| c["bytes"].as_u64().unwrap()).sum();
    assert_eq!(plan["total"].as_u64(), Some(sum));
    assert!(plan["fits"].as_bool().unwrap() && plan["longest_row"].as_u64().unwrap() > 4, "{plan}");
    let batch = |room: &str| {
        let plan: Value = serde_json::from_str(&home.stdout(&format!("plan tiny.toml --vram {room} --json"))).unwrap();
        plan["largest_batch"]["value"].as_u64().unwrap()
    };
    assert!(batch("640MiB") < batch("1GiB"), "less room, smaller batches");
    assert!(home.stdout("plan demo").contains("largest max_seq_length"));
    // Rows that are not there yet do not keep a plan back.
    let output = home.run("plan tiny.toml --set data.train=none.jsonl --vram 8GiB");
    assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains("the full length"));

    std::fs::create_dir_all(home.path("config/finetop")).unwrap();
    std::fs::write(home.path("config/finetop/config.toml"), "# mine\ntheme = \"night\"\nmous = false\n").unwrap();
    let mut c = home.command("config tiny.toml --set train.seed=7 --json");
    c.env("XDG_CONFIG_HOME", home.path("config")).env("VISUAL", "ed").env_remove("FINETOP_THEME");
    let output = c.output().unwrap();
    assert!(output.status.success());
    let all: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let of = |name: &str| all.iter().find(|s| s["name"] == name).unwrap_or_else(|| panic!("no {name}: {all:?}"));
    assert_eq!(of("theme")["value"], "night");
    assert!(of("theme")["origin"].as_str().unwrap().ends_with("config.toml:2:1"), "{}", of("theme"));
    assert_eq!((&of("editor")["value"], &of("editor")["origin"]), (&"ed".into(), &"environment VISUAL".into()));
    assert_eq!((&of("train.seed")["value"], &of("train.seed")["origin"]), (&"7".into(), &"flag --set".into()));
    assert!(of("lora.r")["origin"].as_str().unwrap().contains("tiny.toml:7"), "{}", of("lora.r"));
    assert_eq!(of("train.max_grad_norm")["origin"], "default");
    let note = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(note.contains("config.toml:3:1") && note.contains("did you mean mouse?"), "{note}");
}

#[test]
fn a_detached_run_is_listed_stopped_gone_on_with_and_deleted() {
    let home = Home::new();
    let dir = home.stdout("train tiny.toml --detach");
    assert_eq!(Path::new(dir.trim()).file_name().unwrap(), "tiny");
    home.until("at work", |s| s["step"].as_u64() >= Some(25));
    let line = home.stdout("status --line");
    assert!(line.starts_with("tiny ● ") && line.contains("/1,000,000") && line.contains("loss "), "{line}");

    let refused = home.run("rm tiny --yes");
    assert_eq!(refused.status.code(), Some(1));
    assert!(words(&refused).contains("finetop stop"), "{}", words(&refused));

    let stopped = home.stdout("stop");
    assert!(stopped.contains("tiny was stopped") && stopped.contains("is whole"), "{stopped}");
    let before = home.status();
    assert_eq!(before["state"], "stopped");
    assert_eq!(before["last_checkpoint"], before["step"], "the end writes a checkpoint");
    assert_eq!(home.stdout("status --line"), "", "nothing is live");

    let again = home.stdout("train --resume tiny --detach");
    assert_eq!(again, dir, "the same folder");
    home.until("past where it was", |s| s["state"] == "running" && s["step"].as_u64() > before["step"].as_u64());
    let runs: Value = serde_json::from_str(&home.stdout("runs --json")).unwrap();
    assert_eq!(runs.as_array().unwrap().len(), 1);
    let frame = home.stdout("snapshot tiny --width 80 --height 24");
    assert!(frame.lines().next().unwrap().contains("tiny"), "{frame}");
    home.stdout("stop tiny");

    let asked = home.run("rm tiny");
    assert_eq!(asked.status.code(), Some(2), "there is nobody to ask");
    home.stdout("rm tiny --yes");
    assert!(!Path::new(dir.trim()).exists());
    assert_eq!(home.stdout("runs --json").trim(), "[]");
}

#[test]
fn a_detached_run_outlives_a_hang_up_and_a_killed_one_died() {
    let home = Home::new();
    home.stdout("train tiny.toml --detach");
    let status = home.until("at work", |s| s["step"].as_u64() >= Some(25));
    let pid = status["pid"].as_u64().unwrap();
    home.signal(pid, "HUP");
    let step = status["step"].as_u64();
    home.until("still at work", |s| s["state"] == "running" && s["step"].as_u64() > step);

    home.signal(pid, "KILL");
    let died = home.until("dead", |s| s["state"] == "died");
    let why = died["why"].as_str().unwrap();
    assert!(why.starts_with("killed") && why.contains("is whole"), "{why}");
    let list = home.stdout("runs");
    assert!(list.contains("✕ died") && list.contains("finetop train --resume tiny"), "{list}");
    let stop = home.run("stop tiny");
    assert_eq!(stop.status.code(), Some(1));
    assert!(words(&stop).contains("is not being trained"), "{}", words(&stop));
}

#[test]
fn signals_end_a_run_with_a_checkpoint_and_an_exit_code_of_their_own() {
    for (signal, code) in [("TERM", 75), ("INT", 130)] {
        let home = Home::new();
        let child = home.command("train tiny.toml").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        home.until("at work", |s| s["step"].as_u64() >= Some(3));
        home.signal(child.id().into(), signal);
        assert_eq!(exit_code(child), Some(code), "{signal}");
        let status = home.status();
        assert_eq!(status["state"], "stopped");
        assert_eq!(status["last_checkpoint"], status["step"]);
    }
}

#[test]
fn a_failing_trainer_says_why_and_leaves_no_folder() {
    let home = Home::new();
    let text = std::fs::read_to_string(home.path("tiny.toml")).unwrap().replace("save_steps", "save_step");
    std::fs::write(home.path("bad.toml"), text).unwrap();
    let output = home.run("train bad.toml --detach");
    assert_eq!(output.status.code(), Some(2));
    let error = words(&output);
    assert!(error.starts_with("finetop: ") && error.contains("bad.toml:") && error.contains("save_steps"), "{error}");
    assert!(!home.path("runs").exists());
}

#[test]
fn wrong_usage_is_exit_code_2_and_says_what_to_do() {
    let home = Home::new();
    for line in ["status --frobnicate", "trian", "stop nothing-of-that-name", "train", "train --resume nothing"] {
        let output = home.run(line);
        assert_eq!(output.status.code(), Some(2), "{line}: {}", words(&output));
        assert!(words(&output).starts_with("finetop: ") && output.stdout.is_empty(), "{line}: {}", words(&output));
    }
    assert!(words(&home.run("trian")).contains("finetop train"));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let home = Home::new();
    for line in ["man", "completions bash", "--help"] {
        let mut child = home.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{line}");
        assert!(output.stderr.is_empty(), "{line}: {}", words(&output));
    }
}

#[test]
fn eval_measures_a_dpo_run_and_a_grpo_run_as_they_measure_themselves() {
    let home = Home::new();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-llama");
    let model = model.display();
    let of = |method: &str, rows: &str, table: &str| {
        format!(
            "method = \"{method}\"\nrun_name = \"{method}-run\"\n[model]\nname_or_path = \"{model}\"\nmax_seq_length = 128\n\
             device = \"cpu\"\n[lora]\nr = 4\n[data]\ntrain = \"{model}/{rows}\"\neval_fraction = 0.2\n[train]\nmax_steps = 2\n\
             learning_rate = 1e-2\nwarmup_ratio = 0.0\n[{method}]\n{table}\n[sample]\nprompts = []\n"
        )
    };
    let rewards = "reward_funcs = [{ name = \"regex\", pattern = \"[aeiou]\" }]\nmax_completion_length = 16";
    for (method, rows, table, key) in
        [("dpo", "pairs.jsonl", "beta = 0.1", "rewards/margins"), ("grpo", "rows.jsonl", rewards, "reward")]
    {
        std::fs::write(home.path("m.toml"), of(method, rows, table)).unwrap();
        home.stdout("train m.toml");
        let events = std::fs::read_to_string(home.path(&format!("runs/{method}-run/events.jsonl"))).unwrap();
        let mut evals =
            events.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()).filter(|e| e["type"] == "eval");
        let last = evals.next_back().unwrap();
        assert_eq!(last["step"], 2);
        let found: Value = serde_json::from_str(&home.stdout(&format!("eval {method}-run@2 --json"))).unwrap();
        let (ours, theirs) = (found["metrics"][key].as_f64().unwrap(), last["metrics"][key].as_f64().unwrap());
        assert!((ours - theirs).abs() < 1e-9 && (method == "grpo" || ours != 0.0), "{method}: {ours} for {theirs}");
        assert_eq!(found["loss"].is_null(), method == "grpo");
        assert!(home.stdout(&format!("eval {method}-run@2")).contains(key));
    }
}
