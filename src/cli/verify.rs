//! `finetop verify`: what was exported, read again and held against what was trained.

use super::args::VerifyArgs;
use super::export::Teller;
use super::output;
use crate::Result;
use crate::export::proof::Stage;
use crate::run::artifact;
use crate::run::shipping::{made_from, verify, written};

pub fn run(args: &VerifyArgs) -> Result<()> {
    let artifact = match &args.against {
        Some(x) => artifact::find(x)?,
        None => made_from(&args.dir)?,
    };
    let files = written(&args.dir)?;
    let mut teller = Teller::default();
    let proof = verify(&artifact, &args.dir, &files, &mut |word| teller.tell(&word))?;
    match args.json {
        true => output::print_json(&proof.json)?,
        false => output::print(&table(&proof.stages))?,
    }
    proof.verdict(&args.dir)
}

/// The stages with their checks, and the verdict.
pub fn table(stages: &[Stage]) -> String {
    let mut out = String::new();
    let (yes, no) = if output::ascii() { ("ok", "FAILED") } else { ("✓", "✕") };
    for stage in stages {
        out += &format!("{}  {}\n", stage.name(), stage.kind);
        for check in &stage.checks {
            out += &format!("  {} {:<10}  {}\n", if check.passed { yes } else { no }, check.name, check.detail);
        }
    }
    let passed = stages.iter().all(|s| s.passed);
    out + if passed { "What is here is what was trained." } else { "This is not what was trained." }
}
