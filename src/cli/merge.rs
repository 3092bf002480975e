//! `finetop merge`: a run or an adapter folded into its base, as a folder that transformers opens.

use super::args::MergeArgs;
use super::export::{name_of, open};
use super::{manifest, output, verify};
use crate::export::merge::{SHARD, merge};
use crate::export::quant::Kind;
use crate::run::artifact;
use crate::{Error, Result};
use serde_json::json;
use std::time::Instant;

pub fn run(args: &MergeArgs) -> Result<()> {
    let kind = match args.dtype.as_str() {
        "f32" => Kind::F32,
        "f16" => Kind::F16,
        _ => Kind::BF16,
    };
    if args.out.join("config.json").exists() {
        return Err(Error::usage("there is a model already").at(args.out.display()).next("name a folder of its own"));
    }
    let artifact = artifact::find(&args.what)?;
    let subject = open(&artifact)?;
    output::progress(&artifact.title);
    if subject.is_quantized()? {
        output::progress("note: the base is quantized; what is merged and written are its dequantized weights");
    }
    let (began, mut shown) = (Instant::now(), Instant::now());
    let merged = merge(&subject, &args.out, kind, args.scale, SHARD, &mut |done, total| {
        if shown.elapsed().as_secs() >= 2 && done < total {
            shown = Instant::now();
            output::progress(&format!("tensor {done} of {total}"));
        }
    })?;
    let seconds = began.elapsed().as_secs_f64();
    let mib = merged.bytes as f64 / 1_048_576.0;
    output::progress(&format!(
        "{} tensors, {} of them tuned, as {} · {mib:.1} MiB in {seconds:.1} s",
        merged.tensors, merged.tuned, args.dtype
    ));
    if let Some(drift) = merged.drift {
        output::progress(&format!(
            "rounding: the error is {:.2} % of what the adapter changes; {:.2} % of the changed values round back to the base's",
            100.0 * drift.error,
            100.0 * drift.lost
        ));
        if let Some((name, worst)) = &merged.worst {
            output::progress(&format!("          worst in {name}: {:.2} %", 100.0 * worst.error));
        }
        if drift.error > 0.25 {
            output::progress(
                "▲ the adapter's change is of the size of the rounding: take --dtype f32, or serve the adapter beside its base",
            );
        }
    }
    let mut summary = json!({
        "name": name_of(&artifact, &subject), "folder": args.out, "dtype": args.dtype, "scale": args.scale,
        "seconds": seconds, "merged": merged,
    });
    manifest::write(&args.out, &args.what, &artifact, &summary)?;
    // Scaled otherwise than trained, it is something else than what was trained.
    let proof = match args.no_verify || args.scale != 1.0 {
        true => None,
        false => Some(verify::verify(&artifact, &args.out, std::slice::from_ref(&args.out))?),
    };
    if let Some(proof) = &proof {
        summary["proof"] = proof.json.clone();
    }
    match (args.json, &proof) {
        (true, _) => output::print_json(&summary)?,
        (false, Some(proof)) => output::print(&proof.table)?,
        (false, None) => output::print(&args.out.display().to_string())?,
    }
    proof.map_or(Ok(()), |proof| proof.verdict(&args.out))
}
