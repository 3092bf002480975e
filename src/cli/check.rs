//! `finetop check`: preflight without training.

use super::args::CheckArgs;
use super::output;
use crate::data::explain::explain;
use crate::memory::gib;
use crate::model::ranks::Ranks;
use crate::recipe;
use crate::run::event::{Finding, Severity};
use crate::run::summary::thousands;
use crate::run::trainer;
use crate::train::setup::{self, Prepared};
use crate::{Result, diagnose};
use serde_json::json;

/// Tokens of row 1 that are shown before the rest is summed up.
const SHOWN: usize = 400;

pub fn run(args: &CheckArgs) -> Result<()> {
    let loaded = recipe::load(&args.recipe, &args.set)?;
    let mut prepared = setup::prepare(&loaded.recipe, Ranks::alone(), &mut output::progress)?;
    let findings = trainer::preflight(&loaded.recipe, &prepared);
    let memory = prepared.measure_memory();
    if args.json {
        let row = row_one(&prepared);
        let tokens: Vec<_> =
            row.iter().map(|(text, id, trained)| json!({"id": id, "text": text, "trained": trained})).collect();
        output::print_json(&json!({
            "summary": prepared.data.summary, "findings": findings, "memory": memory, "row_1": tokens,
            "trainable_parameters": prepared.start.trainable_parameters, "total_steps": prepared.start.total_steps,
        }))?;
    } else {
        output::print(&report(&prepared, &findings, &loaded.notes))?;
        let total: u64 = memory.components.iter().filter_map(|c| c.estimate).sum();
        let parts: Vec<_> =
            memory.components.iter().map(|c| format!("{} {}", c.name, gib(c.estimate.unwrap_or(0)))).collect();
        output::print(&format!("\nmemory       {} GiB estimated: {}", gib(total), parts.join(", ")))?;
    }
    match diagnose::blocked(&findings) {
        Some(blocked) => Err(blocked),
        None => Ok(()),
    }
}

fn report(p: &Prepared, findings: &[Finding], notes: &[String]) -> String {
    let s = &p.data.summary;
    let mut out = vec![
        format!(
            "model        {}, {} parameters, {} trainable ({})",
            p.start.model,
            thousands(p.start.total_parameters),
            thousands(p.start.trainable_parameters),
            p.start.tuning
        ),
        format!("data         {} rows, {} bad; {}", thousands(s.rows), s.bad, s.why),
        format!(
            "examples     {} to train on, {} held out; {} cut at the full length; longest {} tokens, mean {:.0}",
            thousands(p.data.train.len() as u64),
            thousands(p.data.eval.len() as u64),
            s.truncated,
            s.longest,
            s.mean_length
        ),
        format!("labels       {:.0} % of tokens; {}", 100.0 * s.label_share(), s.mask.words()),
        format!("steps        {}, effective batch {}", thousands(p.start.total_steps), p.start.effective_batch),
    ];
    out.extend(s.mixture.iter().map(|m| format!("mix          {}", m.words(thousands))));
    for bad in s.bad_rows.iter().take(5) {
        out.push(format!("bad row      {bad}"));
    }
    out.extend(s.notes.iter().chain(notes).map(|n| format!("note         {n}")));
    out.push(String::new());
    for f in findings {
        let sign = match f.severity {
            Severity::Passed => "✓",
            Severity::Note => "·",
            Severity::Warning => "▲",
            Severity::Error => "✕",
        };
        out.push(format!("{sign} {}: {}", f.title, f.evidence));
        if !f.cause.is_empty() {
            out.push(format!("    {}", f.cause));
        }
        if let Some(fix) = &f.fix {
            out.push(format!("    fix: {}", fix.label));
        }
    }
    out.push(String::new());
    out.push("row 1 as the model sees it; what is trained stands in [ ]".to_string());
    out.push(masked(&row_one(p)));
    out.join("\n")
}

fn row_one(p: &Prepared) -> Vec<(String, u32, bool)> {
    p.data.train.first().map(|e| explain(e, &p.speaker.tokenizer)).unwrap_or_default()
}

/// Tokens joined by `·`, runs of trained ones in brackets.
fn masked(row: &[(String, u32, bool)]) -> String {
    let mut out = String::new();
    let mut inside = false;
    for (i, (text, _, trained)) in row.iter().take(SHOWN).enumerate() {
        if *trained && !inside {
            out.push_str(" [");
        } else if !*trained && inside {
            out.push_str("] ");
        } else if i > 0 {
            out.push('·');
        }
        inside = *trained;
        out.push_str(text);
    }
    if inside {
        out.push(']');
    }
    if row.len() > SHOWN {
        out.push_str(&format!(" … and {} more tokens", row.len() - SHOWN));
    }
    out
}
