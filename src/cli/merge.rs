//! `finetop merge`: a run or an adapter folded into its base, as a folder that transformers opens.

use super::args::MergeArgs;
use super::export::Teller;
use super::output;
use super::verify::table;
use crate::export::quant::Kind;
use crate::run::artifact;
use crate::run::shipping::{make_manifest, merge, name_of, open, verify};
use crate::{Error, Result};
use serde_json::json;

pub fn run(args: &MergeArgs) -> Result<()> {
    let kind = match args.dtype.as_str() {
        "f32" => Kind::F32,
        "f16" => Kind::F16,
        _ => Kind::BF16,
    };
    if args.out.join("config.json").exists() {
        return Err(Error::usage("there is a model already").at(args.out.display()).next("name a folder of its own"));
    }
    let mut teller = Teller::default();
    let mut tell = |word| teller.tell(&word);
    let artifact = artifact::find(&args.what)?;
    let subject = open(&artifact, &mut tell)?;
    output::progress(&artifact.title);
    let merged = merge(&subject, &args.out, kind, args.scale, &mut tell)?;
    let mut summary = json!({
        "name": name_of(&artifact, &subject), "folder": args.out, "dtype": args.dtype, "scale": args.scale,
        "merged": merged,
    });
    make_manifest(&args.out, &args.what, &artifact, &summary)?;
    // Scaled otherwise than trained, it is something else than what was trained.
    let proof = match args.no_verify || args.scale != 1.0 {
        true => None,
        false => Some(verify(&artifact, &args.out, std::slice::from_ref(&args.out), &mut tell)?),
    };
    if let Some(proof) = &proof {
        summary["proof"] = proof.json.clone();
    }
    match (args.json, &proof) {
        (true, _) => output::print_json(&summary)?,
        (false, Some(proof)) => output::print(&table(&proof.stages))?,
        (false, None) => output::print(&args.out.display().to_string())?,
    }
    proof.map_or(Ok(()), |proof| proof.verdict(&args.out))
}
