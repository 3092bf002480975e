//! `finetop bench`: how fast this machine trains.

use super::args::BenchArgs;
use super::output;
use crate::Result;
use crate::model::llama::Checkpointing;
use crate::train::bench::{self, Options};

pub fn run(args: &BenchArgs) -> Result<()> {
    let options = Options {
        shape: args.shape.clone(),
        batch: args.batch,
        seq: args.seq,
        steps: args.steps,
        r: args.r,
        checkpointing: if args.checkpointing { Checkpointing::Full } else { Checkpointing::Off },
    };
    let report = bench::run(&options, &mut |step, seconds| output::progress(&format!("step {step}  {seconds:.2} s")))?;
    if args.json {
        return output::print_json(&report);
    }
    output::print(&format!(
        "{} · lora r{} · batch {} × {} · checkpointing {} · {} threads\n{:.0} tokens/s   {:.2} s a step   {:.0} GFLOP/s   peak {} GiB",
        report.shape,
        report.r,
        report.batch,
        report.seq,
        report.checkpointing,
        report.threads,
        report.tokens_per_s,
        report.step_s,
        report.gflop_per_s,
        report.peak_rss_gib.map_or("–".into(), |g| format!("{g:.2}")),
    ))
}
