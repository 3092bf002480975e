//! Every argument of every command, and the help that says what it is.

use clap::{Args, Parser, Subcommand, ValueHint};
use clap_complete::Shell;
use std::path::PathBuf;

const EXIT_CODES: &str = "\
Exit codes: 0 finished, 1 failed, 2 wrong usage or a recipe that cannot be parsed, 3 blocked by preflight,
4 stopped by a finding, 5 out of memory, 75 stopped and resumable, 130 interrupted with a checkpoint.";

/// Fine-tune language models from the terminal.
#[derive(Debug, Parser)]
#[command(name = "finetop", version, args_conflicts_with_subcommands = true, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Open the console at this recipe; without one, at the start page
    #[arg(value_name = "RECIPE", value_hint = ValueHint::FilePath)]
    pub recipe: Option<String>,
    /// Train in this process rather than in one of its own; begins at once
    #[arg(long, requires = "recipe")]
    pub foreground: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Open the console with the built-in demo training: built-in model and data, no network, CPU
    Demo(DemoArgs),
    /// Open the console at a run
    Attach(AttachArgs),
    /// Write a commented recipe for a goal, a model and rows
    New(NewArgs),
    /// Train without a screen
    Train(TrainArgs),
    /// Check a recipe, its data and its masks without training
    Check(CheckArgs),
    /// Say what memory a recipe needs, by component, and the largest batch and sequence that fit
    Plan(PlanArgs),
    /// Measure loss and perplexity on held-out rows
    Eval(EvalArgs),
    /// Talk to a run, an adapter or a model
    Chat(ChatArgs),
    /// Fold an adapter into its base and write a 16-bit model
    Merge(MergeArgs),
    /// Write a run, an adapter or a model as GGUF files
    Export(ExportArgs),
    /// Prove that what was exported is what was trained
    Verify(VerifyArgs),
    /// Serve a run, an adapter or a model to OpenAI's clients, on this machine
    Serve(ServeArgs),
    /// Measure how fast this machine trains
    Bench(BenchArgs),
    /// List the runs seen on this machine
    Runs(RunsArgs),
    /// Say how a run stands
    Status(StatusArgs),
    /// End training with a checkpoint
    Stop(StopArgs),
    /// Delete runs
    Rm(RmArgs),
    /// Print one frame of the console as text
    Snapshot(SnapshotArgs),
    /// Say what differs between two recipes or runs
    Diff(DiffArgs),
    /// Print a recipe as a Python script for TRL or Unsloth
    Show(ShowArgs),
    /// List or clear the token cache
    Cache(CacheArgs),
    /// Print the settings that hold, and where each comes from
    Config(ConfigArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print the manual page
    Man,
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Train in this process rather than in one of its own
    #[arg(long)]
    pub foreground: bool,
}

#[derive(Debug, Args)]
pub struct NewArgs {
    /// What for: a method of a recipe, or `full` for sft without LoRA; without it the goals are shown and asked for
    #[arg(long, value_name = "M")]
    pub method: Option<String>,
    /// The model: a folder, a .gguf file, OWNER/NAME of the hub, ollama:NAME; without it one that suits this machine
    #[arg(long, value_name = "X", value_hint = ValueHint::AnyPath)]
    pub model: Option<String>,
    /// The rows: a file, a folder, or hf:OWNER/NAME
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub data: Option<String>,
    /// The file to write, in place of METHOD-DATA.toml here
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct DiffArgs {
    /// A recipe's path, `demo`, or a run's name or folder
    #[arg(value_name = "A", value_hint = ValueHint::AnyPath)]
    pub a: String,
    /// The other one
    #[arg(value_name = "B", value_hint = ValueHint::AnyPath)]
    pub b: String,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// A recipe's path, or `demo`
    #[arg(value_name = "RECIPE", value_hint = ValueHint::FilePath)]
    pub recipe: String,
    /// The library the script is for
    #[arg(long = "as", value_name = "LIBRARY", value_parser = ["trl", "unsloth"])]
    pub library: String,
    /// Set a recipe value, as in --set train.learning_rate=1e-4
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub struct CacheArgs {
    /// Delete what is in it
    #[arg(long, conflicts_with = "json")]
    pub clear: bool,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Default, Args)]
pub struct TrainArgs {
    /// A recipe's path, or `demo`; with --resume it may be left out, and is the run's own
    #[arg(value_name = "RECIPE", required_unless_present = "resume", value_hint = ValueHint::FilePath)]
    pub recipe: Option<String>,
    /// Set a recipe value, as in --set train.learning_rate=1e-4
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
    /// Train in a process of its own, and return when it has begun
    #[arg(long)]
    pub detach: bool,
    /// Train with so many processes of this machine, each on a card of its own where there are cards
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub nproc_per_node: Option<usize>,
    /// Use this folder as the run folder
    #[arg(long, value_name = "DIR", conflicts_with = "resume", value_hint = ValueHint::DirPath)]
    pub run_dir: Option<PathBuf>,
    /// Go on with a run, from its latest checkpoint or that of STEP
    #[arg(long, value_name = "RUN[@STEP]")]
    pub resume: Option<String>,
    /// Print every event as a line of JSON
    #[arg(long, conflicts_with = "detach")]
    pub json: bool,
    /// Set by finetop itself: be a process that no terminal's end reaches
    #[arg(long, hide = true, conflicts_with = "detach")]
    pub worker: bool,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// A recipe's path, or `demo`
    #[arg(value_name = "RECIPE", value_hint = ValueHint::FilePath)]
    pub recipe: String,
    /// Set a recipe value, as in --set train.learning_rate=1e-4
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
    /// Print the findings as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct PlanArgs {
    /// A recipe's path, or `demo`
    #[arg(value_name = "RECIPE", value_hint = ValueHint::FilePath)]
    pub recipe: String,
    /// Set a recipe value, as in --set train.learning_rate=1e-4
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
    /// Memory to fit into, as 24GiB; without it what is free here
    #[arg(long, value_name = "SIZE", value_parser = super::plan::size)]
    pub vram: Option<u64>,
    /// Print the plan as JSON, in bytes
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// A recipe's path, or `demo`: its values too
    #[arg(value_name = "RECIPE", value_hint = ValueHint::FilePath)]
    pub recipe: Option<String>,
    /// Set a recipe value, as in --set train.learning_rate=1e-4
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value, requires = "recipe")]
    pub set: Vec<(String, String)>,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct EvalArgs {
    /// A run (name or folder, RUN@STEP for one of its checkpoints), an adapter or a model
    #[arg(value_name = "X")]
    pub what: String,
    /// Evaluate on these rows in place of the run's own
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub data: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ChatArgs {
    /// A run (name or folder, RUN@STEP for one of its checkpoints), an adapter or a model
    #[arg(value_name = "X")]
    pub what: String,
}

#[derive(Debug, Args)]
pub struct MergeArgs {
    /// A run (name or folder, RUN@STEP for one of its checkpoints), an adapter or a model
    #[arg(value_name = "X")]
    pub what: String,
    /// The folder to write into
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, required_unless_present = "sweep")]
    pub out: Option<PathBuf>,
    /// Write nothing: measure the adapter at factors from 0 to 1.5, on held-out rows and on general text
    #[arg(long, conflicts_with_all = ["out", "scale", "dtype", "no_verify"])]
    pub sweep: bool,
    /// With --sweep: rows to measure on in place of the run's held-out ones
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath, requires = "sweep")]
    pub data: Option<PathBuf>,
    /// What the weights are rounded to, once
    #[arg(long, default_value = "bf16", value_parser = ["bf16", "f16", "f32"])]
    pub dtype: String,
    /// A factor for the adapter: 0 is the base, 1 is what was trained
    #[arg(long, default_value_t = 1.0, value_parser = factor)]
    pub scale: f64,
    /// Do not read it again and compare it with what was trained
    #[arg(long)]
    pub no_verify: bool,
    /// Print what was written as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// A run (name or folder, RUN@STEP for one of its checkpoints), an adapter or a model
    #[arg(value_name = "X")]
    pub what: String,
    /// Types, as in --gguf q4_k_m,q8_0: f32, f16, bf16, q8_0, q6_k, q5_k_m, q5_k_s, q5_1, q5_0, q4_k_m, q4_k_s, q4_1, q4_0, q3_k_l, q3_k_m, q3_k_s, q2_k
    #[arg(long, value_name = "TYPE", required_unless_present_any = ["lora", "merged"], value_delimiter = ',')]
    pub gguf: Vec<String>,
    /// Write the adapter alone as a GGUF, for llama.cpp's --lora
    #[arg(long)]
    pub lora: bool,
    /// Write the merged model too, in 16 bits, as a folder that transformers opens
    #[arg(long)]
    pub merged: bool,
    /// The folder to write into
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: PathBuf,
    /// What the model is called, in place of the run's or the model's name
    #[arg(long)]
    pub name: Option<String>,
    /// Make a model of this name with `ollama create`, where Ollama is, once it is proven
    #[arg(long, value_name = "NAME")]
    pub ollama: Option<String>,
    /// Do not read it again and compare it with what was trained
    #[arg(long)]
    pub no_verify: bool,
    /// Print what was written as JSON
    #[arg(long)]
    pub json: bool,
    /// The console starts exports so; they outlive it
    #[arg(long, hide = true)]
    pub worker: bool,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// A folder that `finetop export` or `finetop merge` wrote, or any folder with .gguf files or a model
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// What it must be: a run, an adapter or a model; without it, what the folder was made from
    #[arg(long, value_name = "X")]
    pub against: Option<String>,
    /// Print the proof as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// A run (name or folder, RUN@STEP for one of its checkpoints), an adapter or a model
    #[arg(value_name = "X")]
    pub what: String,
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// The port; 0 takes a free one
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
}

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// The model's shape, with random weights
    #[arg(long, default_value = "smollm2-135m", value_parser = clap::builder::PossibleValuesParser::new(crate::train::bench::SHAPES))]
    pub shape: String,
    /// What to train on: auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Sequences in a micro-batch
    #[arg(long, default_value_t = 2, value_parser = at_least_one)]
    pub batch: usize,
    /// Tokens in a sequence
    #[arg(long, default_value_t = 256, value_parser = at_least_one)]
    pub seq: usize,
    /// Optimizer steps; the first is not counted
    #[arg(long, default_value_t = 6, value_parser = at_least_one)]
    pub steps: usize,
    /// LoRA rank, on all linear layers
    #[arg(long, default_value_t = 16, value_parser = at_least_one)]
    pub r: usize,
    /// Micro-batches in a step
    #[arg(long, default_value_t = 1, value_parser = at_least_one)]
    pub accumulate: usize,
    /// What is computed again instead of being kept: what does not fit, everything, nothing
    #[arg(long, default_value = "auto", value_parser = ["auto", "full", "off"])]
    pub checkpointing: String,
    /// Hold the frozen matrices as NF4 (on a card)
    #[arg(long)]
    pub load_in_4bit: bool,
    /// Hold the frozen matrices in fp8 and multiply in it (on a Hopper card)
    #[arg(long, conflicts_with = "load_in_4bit")]
    pub load_in_fp8: bool,
    /// Use no more of a card than this, as in 24GiB
    #[arg(long, value_name = "SIZE", value_parser = super::plan::size)]
    pub vram: Option<u64>,
    /// The optimizer: moments in f32, or in 8 bits
    #[arg(long, default_value = "adamw_torch", value_parser = ["adamw_torch", "adamw_8bit"])]
    pub optim: String,
    /// Generate instead: draw so many tokens for each of the sequences (on a card)
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one)]
    pub decode: Option<usize>,
    /// Print the figures as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RunsArgs {
    /// Look for runs in these folders too, and remember them
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub folders: Vec<PathBuf>,
    /// Print the list as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// A run's name or folder; without it the newest that is being trained on this host
    #[arg(value_name = "RUN")]
    pub run: Option<String>,
    /// One short line, as for tmux's status bar; empty where no run is being trained
    #[arg(long, conflicts_with = "json")]
    pub line: bool,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct StopArgs {
    /// A run's name or folder; without it the newest that is being trained on this host
    #[arg(value_name = "RUN", conflicts_with = "all")]
    pub run: Option<String>,
    /// Stop every run that is being trained on this host
    #[arg(long)]
    pub all: bool,
}

#[derive(Debug, Args)]
pub struct RmArgs {
    /// Runs' names or folders
    #[arg(value_name = "RUN", required = true)]
    pub runs: Vec<String>,
    /// Delete without asking
    #[arg(long, short)]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub struct AttachArgs {
    /// A run's name or folder; without it the newest that is being trained on this host
    #[arg(value_name = "RUN")]
    pub run: Option<String>,
}

#[derive(Debug, Args)]
pub struct SnapshotArgs {
    /// A run's name or folder; without it the newest that is being trained on this host
    #[arg(value_name = "RUN")]
    pub run: Option<String>,
    /// Columns
    #[arg(long, default_value_t = 160, value_parser = clap::value_parser!(u16).range(20..=500))]
    pub width: u16,
    /// Rows
    #[arg(long, default_value_t = 48, value_parser = clap::value_parser!(u16).range(5..=300))]
    pub height: u16,
}

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err("write a whole number from 1".into()),
    }
}

fn factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if (0.0..=10.0).contains(&n) => Ok(n),
        _ => Err("write a number from 0 to 10".into()),
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err("write KEY=VALUE, as in train.learning_rate=1e-4".into()),
    }
}
