//! `finetop bench`: how fast this machine trains.

use super::args::BenchArgs;
use super::output;
use crate::model::device::{self, Place};
use crate::ops::optimizer::Optim;
use crate::train::bench::{self, Options, Recompute};
use crate::{Error, Result};

pub fn run(args: &BenchArgs) -> Result<()> {
    let options = Options {
        shape: args.shape.clone(),
        batch: args.batch,
        seq: args.seq,
        steps: args.steps,
        accumulate: args.accumulate,
        r: args.r,
        checkpointing: match args.checkpointing.as_str() {
            "full" => Recompute::Full,
            "off" => Recompute::Off,
            _ => Recompute::Auto,
        },
        load_in_4bit: args.load_in_4bit,
        load_in_fp8: args.load_in_fp8,
        vram: args.vram,
        optim: Optim::named(&args.optim),
    };
    let mut said = |step: usize, seconds: f64| output::progress(&format!("step {step}  {seconds:.3} s"));
    match device::choose(&args.device)? {
        Place::Cpu { because } => {
            if let Some(because) = because {
                output::progress(&format!("on the CPU: {because}"));
            }
            on_cpu(args, &options, &mut said)
        }
        #[cfg(feature = "cuda")]
        Place::Cuda(n) => on_card(args, &options, n, &mut said),
    }
}

fn on_cpu(args: &BenchArgs, options: &Options, said: &mut dyn FnMut(usize, f64)) -> Result<()> {
    if args.decode.is_some() || args.load_in_4bit || args.load_in_fp8 || args.vram.is_some() {
        return Err(Error::usage("--decode, --load-in-4bit and --vram are for cards, and no card can be used here"));
    }
    let report = bench::run(options, said)?;
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

#[cfg(feature = "cuda")]
fn on_card(args: &BenchArgs, options: &Options, n: usize, said: &mut dyn FnMut(usize, f64)) -> Result<()> {
    if let Some(count) = args.decode {
        let d = bench::card::decode(options, n, count)?;
        if args.json {
            return output::print_json(&d);
        }
        return output::print(&format!(
            "{} · {} · {} sequences of {} tokens, {} drawn for each\n{:.0} tokens/s   {:.2} ms a step   peak {:.2} GiB",
            d.shape, d.card, d.batch, d.prompt, d.drawn, d.tokens_per_s, d.step_ms, d.peak_gib
        ));
    }
    let r = bench::card::run(options, n, said)?;
    if args.json {
        return output::print_json(&r);
    }
    let sorted = |map: &std::collections::BTreeMap<String, f64>, digits: usize| {
        let mut all: Vec<_> = map.iter().filter(|(_, v)| **v > 0.0).collect();
        all.sort_by(|a, b| b.1.total_cmp(a.1));
        all.iter().map(|(k, v)| format!("{k} {v:.digits$}")).collect::<Vec<_>>().join(" · ")
    };
    let [all, attention, input] = r.keeps;
    output::print(&format!(
        "{} · {} · lora r{} · {} · batch {} × {} × {}\n\
         {:.0} tokens/s   {:.3} s a step   {:.0} TFLOP/s, {:.0} % of a product's {:.0}\n\
         memory GiB   peak {:.2} ({})   NVML {}\n\
         blocks keep  everything {all}, attention {attention}, input {input}{}; MLP {} tokens, logits {} rows at a time\n\
         ms a step    {}\n\
         loss {:.4}",
        r.shape,
        r.card,
        r.r,
        match (r.load_in_4bit, r.load_in_fp8) {
            (true, _) => "4-bit",
            (false, true) => "fp8",
            (false, false) => "bf16",
        },
        r.batch,
        r.seq,
        r.accumulate,
        r.tokens_per_s,
        r.step_s,
        r.tflop_per_s,
        100.0 * r.share_of_peak,
        r.peak_tflop_per_s,
        r.peak_gib,
        sorted(&r.components_gib, 2),
        r.nvml_gib.map_or("–".into(), |g| format!("{g:.2}")),
        if r.offload { " (on the host)" } else { "" },
        r.tile,
        r.logits,
        sorted(&r.parts_ms, 1),
        r.loss,
    ))
}
