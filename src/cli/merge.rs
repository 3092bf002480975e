//! `finetop merge`: a run or an adapter folded into its base, as a folder that transformers opens.

use super::args::MergeArgs;
use super::export::Teller;
use super::output;
use super::verify::table;
use crate::export::quant::Kind;
use crate::run::artifact;
use crate::run::shipping::{make_manifest, merge, name_of, open, sweep, verify};
use crate::{Error, Result};
use serde_json::json;
use std::time::Instant;

pub fn run(args: &MergeArgs) -> Result<()> {
    // clap asks for one of the two.
    let Some(out) = &args.out else { return measure(args) };
    let kind = match args.dtype.as_str() {
        "f32" => Kind::F32,
        "f16" => Kind::F16,
        _ => Kind::BF16,
    };
    if out.join("config.json").exists() {
        return Err(Error::usage("there is a model already").at(out.display()).next("name a folder of its own"));
    }
    let mut teller = Teller::default();
    let mut tell = |word| teller.tell(&word);
    let artifact = artifact::find(&args.what)?;
    let subject = open(&artifact, &mut tell)?;
    output::progress(&artifact.title);
    let began = Instant::now();
    let merged = merge(&subject, out, kind, args.scale, &mut tell)?;
    let mut summary = json!({
        "name": name_of(&artifact, &subject), "folder": args.out, "dtype": args.dtype, "scale": args.scale,
        "seconds": began.elapsed().as_secs_f64(), "merged": merged,
    });
    make_manifest(out, &args.what, &artifact, &summary)?;
    // Scaled otherwise than trained, it is something else than what was trained.
    let proof = match args.no_verify || args.scale != 1.0 {
        true => None,
        false => Some(verify(&artifact, out, std::slice::from_ref(out), &mut tell)?),
    };
    if let Some(proof) = &proof {
        summary["proof"] = proof.json.clone();
    }
    match (args.json, &proof) {
        (true, _) => output::print_json(&summary)?,
        (false, Some(proof)) => output::print(&table(&proof.stages))?,
        (false, None) => output::print(&out.display().to_string())?,
    }
    proof.map_or(Ok(()), |proof| proof.verdict(out))
}

/// The table of a sweep.
fn measure(args: &MergeArgs) -> Result<()> {
    let artifact = artifact::find(&args.what)?;
    output::fetch(&artifact.model)?;
    output::progress(&artifact.title);
    let found = sweep(&artifact, args.data.as_deref(), &mut output::progress)?;
    if args.json {
        return output::print_json(&found);
    }
    let mut text = String::from("scale   held out   general   drift\n");
    for p in &found.points {
        let mark = if p.factor == found.knee { "  ◂ knee" } else { "" };
        text += &format!("{:>5.2}   {:>8.4}   {:>7.2}   {:>5.3}{mark}\n", p.factor, p.held_out, p.general, p.drift);
    }
    text += &format!("lowest held-out loss at {:.2}; ", found.best);
    text += &match found.knee == found.best {
        true => format!("merge with --scale {:.2}", found.best),
        false => {
            format!("{:.2} is within 1 % of it and nearer the base: merge with --scale {:.2}", found.knee, found.knee)
        }
    };
    output::print(&text)
}
