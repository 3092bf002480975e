//! `finetop export`: a run, an adapter or a model as GGUF files.

use super::args::ExportArgs;
use super::output;
use super::verify::table;
use crate::Result;
use crate::export::mixture::Mixture;
use crate::export::quant::Kind;
use crate::run::shipping::{Order, Shipped, Word, ship};
use crate::run::worker;
use std::time::Instant;

pub fn run(args: &ExportArgs) -> Result<()> {
    if args.worker {
        worker::become_worker()?;
    }
    let order = Order {
        what: args.what.clone(),
        out: args.out.clone(),
        gguf: args.gguf.iter().map(|name| Mixture::parse(name)).collect::<Result<Vec<_>>>()?,
        lora: args.lora,
        merged: args.merged.then_some(Kind::BF16),
        name: args.name.clone(),
        ollama: args.ollama.clone(),
        verify: !args.no_verify,
    };
    let mut teller = Teller::default();
    let shipped = ship(&order, &mut |word| teller.tell(&word))?;
    print(&shipped, args)
}

fn print(shipped: &Shipped, args: &ExportArgs) -> Result<()> {
    match (args.json, &shipped.proof) {
        (true, _) => output::print_json(&shipped.summary)?,
        (false, Some(proof)) => output::print(&table(&proof.stages))?,
        (false, None) => output::print(&args.out.display().to_string())?,
    }
    shipped.proof.as_ref().map_or(Ok(()), |proof| proof.verdict(&args.out))
}

/// Tells how an export goes, a line now and then.
pub struct Teller {
    shown: Instant,
}

impl Default for Teller {
    fn default() -> Self {
        Self { shown: Instant::now() }
    }
}

impl Teller {
    pub fn tell(&mut self, word: &Word) {
        if let Some(line) = self.line(word) {
            output::progress(&line);
        }
    }

    fn line(&mut self, word: &Word) -> Option<String> {
        let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
        Some(match word {
            Word::Began { title, .. } => title.clone(),
            Word::Note { text } => format!("note: {text}"),
            Word::Planned { kind, words, .. } => format!("{kind}  {words}"),
            Word::Writing { kind, done, total } => {
                if self.shown.elapsed().as_secs() < 2 || done == total {
                    return None;
                }
                self.shown = Instant::now();
                format!("{kind}  tensor {done} of {total}")
            }
            Word::Written { kind, path, bytes, seconds } => {
                format!("{kind}  {:.1} MiB in {seconds:.1} s  {}", mib(*bytes), path.display())
            }
            Word::Proving { file, what } if file.is_empty() => what.clone(),
            Word::Proving { file, what } => format!("  {file}: {what}"),
            Word::Ended { command, .. } => format!("with Ollama: {}", command.as_ref()?),
            Word::Proven { stage } => {
                let sign = if stage.passed { "✓" } else { "✕" };
                let kl = stage.kl.map(|kl| format!("  KL {kl:.4}")).unwrap_or_default();
                format!("{sign} {}{kl}", stage.name())
            }
            // An error is said by who meets it.
            Word::Failed { .. } => return None,
        })
    }
}
