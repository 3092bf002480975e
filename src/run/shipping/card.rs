//! The model card of an export: a README.md that the hub shows, with what the run itself has said. Nothing in it is
//! claimed that was not measured.

use super::proof::Proof;
use super::svg;
use crate::recipe::{self, Recipe};
use crate::run::artifact::Artifact;
use crate::run::event::{Body, Event, Finding, Severity, Start};
use crate::run::events;
use crate::run::folder::RunFolder;
use crate::run::summary::thousands;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// What a card is about.
pub struct About<'a> {
    pub artifact: &'a Artifact,
    /// The run's folder, where it is a run's.
    pub run: Option<&'a Path>,
    pub name: &'a str,
    /// Of the files: kind, file name, bytes.
    pub files: &'a [(String, String, u64)],
    pub proof: Option<&'a Proof>,
    /// The line that serves it with Ollama.
    pub command: Option<&'a str>,
}

/// Write `README.md` into `dir`, and the curves beside it.
///
/// # Errors
/// When the run's events cannot be read, or the files not be written.
pub fn write(about: &About, dir: &Path) -> Result<()> {
    let events = match about.run {
        Some(run) => events::read_all(&RunFolder::open(run)?.events())?,
        None => Vec::new(),
    };
    let told = Told::of(&events);
    let curves = svg::curves(&told.losses, &told.evals);
    let save = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(|e| Error::from(e).at(path.display()))
    };
    if let Some(curves) = &curves {
        save("curves.svg", curves)?;
    }
    save("README.md", &text(about, &told, curves.is_some()))
}

/// What a run has told.
#[derive(Default)]
struct Told {
    start: Option<Start>,
    /// By step; after a resume the later word counts.
    losses: BTreeMap<u64, f64>,
    evals: BTreeMap<u64, f64>,
    /// By rule, as they stand at the end.
    findings: BTreeMap<String, Finding>,
    changes: Vec<(u64, String)>,
}

impl Told {
    fn of(events: &[Event]) -> Self {
        let mut told = Self::default();
        for event in events {
            match &event.body {
                Body::Start(s) => {
                    // What was trained from an earlier start after this step is gone.
                    told.losses.split_off(&(s.resumed_from + 1));
                    told.evals.split_off(&(s.resumed_from + 1));
                    told.start = Some(Start::clone(s));
                }
                Body::Step(s) if s.loss.is_finite() => drop(told.losses.insert(event.step, s.loss)),
                Body::Eval(e) if e.loss.is_finite() => drop(told.evals.insert(event.step, e.loss)),
                Body::Finding(f) => drop(told.findings.insert(f.rule.clone(), f.clone())),
                Body::Change(c) if !c.to.is_empty() => {
                    told.changes.push((event.step, format!("{}: {} → {}, by {}", c.key, c.from, c.to, c.by)));
                }
                _ => {}
            }
        }
        told
    }
}

fn text(about: &About, told: &Told, curves: bool) -> String {
    let mut out = String::new();
    front(&mut out, about);
    let _ = writeln!(out, "\n# {}\n", plain(about.name));
    let _ = writeln!(
        out,
        "{}. Trained and exported with finetop {}.",
        plain(&about.artifact.title),
        env!("CARGO_PKG_VERSION")
    );
    if let Some(start) = &told.start {
        training(&mut out, about, start, told);
        data(&mut out, start);
    }
    if curves {
        out.push_str("\n## Curves\n\n![Loss and evaluation by step](curves.svg)\n");
        let best = told.evals.iter().min_by(|a, b| a.1.total_cmp(b.1));
        if let (Some((step, eval)), Some((last, loss))) = (best, told.losses.last_key_value()) {
            let _ = writeln!(
                out,
                "\nBest evaluation loss {eval:.4} at step {step}; training loss {loss:.4} at step {last}."
            );
        }
    }
    findings(&mut out, told);
    files(&mut out, about);
    if let Some(recipe) = &about.artifact.recipe {
        reproduce(&mut out, recipe);
    }
    out
}

/// What the hub reads.
fn front(out: &mut String, about: &About) {
    out.push_str("---\n");
    let model = about.artifact.recipe.as_ref().map_or(&about.artifact.model, |r| &r.model.name_or_path);
    // The hub knows a base by OWNER/NAME alone.
    let id = model.strip_prefix("hf:").unwrap_or(model);
    let id = id.split('@').next().unwrap_or(id);
    if id.split('/').count() == 2 && !Path::new(model).exists() && !id.contains(':') {
        let _ = writeln!(out, "base_model: {id}");
    }
    out.push_str("pipeline_tag: text-generation\ntags:\n- finetop\n");
    if let Some(recipe) = &about.artifact.recipe {
        let _ = writeln!(out, "- {}", recipe.method.name());
        out.push_str(if recipe.lora.is_some() { "- lora\n" } else { "- full\n" });
    }
    if about.files.iter().any(|f| f.1.ends_with(".gguf")) {
        out.push_str("- gguf\n");
    }
    out.push_str("---\n");
}

fn training(out: &mut String, about: &About, start: &Start, told: &Told) {
    out.push_str("\n## Training\n\n| | |\n| --- | --- |\n");
    let mut row = |name: &str, value: String| {
        let _ = writeln!(out, "| {name} | {} |", plain(&value).replace('|', "\\|"));
    };
    row("base", start.model.clone());
    row("method", format!("{}, {}", start.method, start.tuning));
    row(
        "trained",
        format!("{} of {} parameters", thousands(start.trainable_parameters), thousands(start.total_parameters)),
    );
    row("rows", format!("{}, {} held out", thousands(start.train_rows), thousands(start.eval_rows)));
    row("steps", format!("{}, {} rows each", thousands(start.total_steps), start.effective_batch));
    row("on", start.device_name.clone());
    if let Some(r) = &about.artifact.recipe {
        row("learning rate", format!("{:e}, {}", r.train.learning_rate, r.train.lr_scheduler_type));
        row("longest row", format!("{} tokens", thousands(r.model.max_seq_length as u64)));
        row("seed", r.train.seed.to_string());
    }
    for (step, change) in &told.changes {
        row(&format!("changed at step {step}"), change.clone());
    }
}

fn data(out: &mut String, start: &Start) {
    if start.data.is_empty() {
        return;
    }
    out.push_str("\n## Data\n\n| file | rows | BLAKE3 |\n| --- | ---: | --- |\n");
    for file in &start.data {
        // Where it lay is nobody's concern.
        let name =
            Path::new(&file.path).file_name().map_or_else(|| file.path.clone(), |n| n.to_string_lossy().into_owned());
        let _ = writeln!(out, "| {} | {} | `{}` |", plain(&name), thousands(file.rows), file.blake3);
    }
}

fn findings(out: &mut String, told: &Told) {
    let open = told.findings.values().filter(|f| !f.resolved && f.severity > Severity::Passed);
    let open: Vec<&Finding> = open.collect();
    if told.start.is_none() {
        return;
    }
    out.push_str("\n## Findings\n\n");
    for f in &open {
        let sign = if f.severity == Severity::Error { "✕" } else { "▲" };
        let _ = writeln!(out, "- {sign} {} (since step {}): {}", plain(&f.title), f.since, plain(&f.evidence));
    }
    if open.is_empty() {
        out.push_str("None open at the end of the run.\n");
    }
}

fn files(out: &mut String, about: &About) {
    if about.files.is_empty() {
        return;
    }
    out.push_str("\n## Files\n\n| file | type | MiB |\n| --- | --- | ---: |\n");
    for (kind, name, bytes) in about.files {
        let _ = writeln!(out, "| {} | {kind} | {:.1} |", plain(name), *bytes as f64 / 1_048_576.0);
    }
    if let Some(command) = about.command {
        // The paths of the machine it was made on are of no use elsewhere.
        let name = command.split_whitespace().last().unwrap_or_default();
        let _ = writeln!(
            out,
            "\nWith Ollama, in this folder:\n\n```sh\nollama create {name} -f Modelfile && ollama run {name}\n```"
        );
    }
    let Some(proof) = about.proof else { return };
    out.push_str("\n## Proof\n\n");
    out.push_str(match proof.passed {
        true => "Each file was read again and compared with the trained model:\n",
        false => "Each file was read again and compared with the trained model; **not all of it agrees**:\n",
    });
    for stage in &proof.stages {
        let _ = writeln!(out, "\n{} `{}` ({})\n", if stage.passed { "✓" } else { "✕" }, stage.name(), stage.kind);
        for check in &stage.checks {
            let sign = if check.passed { "✓" } else { "✕" };
            let _ = writeln!(out, "- {sign} {}: {}", check.name, plain(&check.detail));
        }
    }
}

fn reproduce(out: &mut String, recipe: &Recipe) {
    let mut shown = recipe.clone();
    // Folders of the machine it was trained on say nothing to others.
    shown.output_dir = "runs".into();
    let text = recipe::to_toml(&shown);
    let fence = if text.contains("```") { "~~~~" } else { "```" };
    let name = &recipe.run_name;
    let _ = write!(
        out,
        "\n## Reproduce\n\n```sh\nfinetop train {name}.toml\n```\n\n<details><summary>{name}.toml</summary>\n\n{fence}toml\n{text}{fence}\n\n</details>\n"
    );
}

/// Text that Markdown takes as it is: on one line, without tags.
fn plain(text: &str) -> String {
    text.replace(['\n', '\r'], " ").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::event::{DataFile, Eval, Metrics, Step};

    fn at(step: u64, body: Body) -> Event {
        Event { time: 1.0, step, body }
    }

    fn artifact() -> Artifact {
        let text = "method = \"sft\"\nrun_name = \"calls\"\n[model]\nname_or_path = \"OWNER/NAME\"\n[data]\ntrain = \"rows.jsonl\"\n[lora]\n";
        let recipe = recipe::parse(text, "calls.toml", &[]).unwrap().recipe;
        Artifact {
            title: "calls, step 4 (best by eval)".into(),
            model: "OWNER/NAME".into(),
            adapter: None,
            recipe: Some(recipe),
        }
    }

    #[test]
    fn a_card_says_what_the_run_said_and_nothing_of_steps_that_were_rolled_back() {
        let start = |resumed_from| {
            let data = vec![DataFile { path: "/home/me/rows.jsonl".into(), rows: 12, blake3: "ab12".into() }];
            Body::Start(Box::new(Start {
                model: "NAME".into(),
                total_steps: 4,
                resumed_from,
                data,
                ..Start::default()
            }))
        };
        let step = |loss| {
            Body::Step(Step {
                loss,
                grad_norm: 1.0,
                learning_rate: 1e-3,
                epoch: 0.5,
                tokens: 10,
                label_tokens: 5,
                tokens_per_second: 9.0,
                seconds: 0.1,
                rows: vec![1],
                metrics: Metrics::new(),
            })
        };
        let eval = |loss: f64| {
            let metrics = Metrics::new();
            Body::Eval(Eval { loss, perplexity: loss.exp(), label_tokens: 9, seconds: 0.1, best: false, metrics })
        };
        let events = [
            at(0, start(0)),
            at(1, step(3.0)),
            at(2, step(2.0)),
            at(3, step(9.0)),
            at(3, eval(0.1)),
            at(2, start(2)),
            at(3, step(1.5)),
            at(4, eval(1.25)),
        ];
        let told = Told::of(&events);
        let artifact = artifact();
        let files = [("q4_k_m".to_string(), "calls.Q4_K_M.gguf".to_string(), 1 << 20)];
        let about = About {
            artifact: &artifact,
            run: None,
            name: "calls",
            files: &files,
            proof: None,
            command: Some("ollama create calls -f '/home/me/a b/Modelfile' && ollama run calls"),
        };
        let card = text(&about, &told, true);
        assert!(card.starts_with("---\nbase_model: OWNER/NAME\n"), "{card}");
        for part in [
            "| rows.jsonl | 12 | `ab12` |",
            "Best evaluation loss 1.2500 at step 4; training loss 1.5000 at step 3.",
            "None open at the end of the run.",
            "| calls.Q4_K_M.gguf | q4_k_m | 1.0 |",
            "ollama create calls -f Modelfile && ollama run calls",
            "finetop train calls.toml",
            "name_or_path = \"OWNER/NAME\"",
        ] {
            assert!(card.contains(part), "{part} is missing in\n{card}");
        }
        assert!(!card.contains("/home/me/a b"), "{card}");
        let at = card.find("```toml\n").unwrap() + 8;
        let recipe = &card[at..at + card[at..].find("```").unwrap()];
        assert_eq!(recipe::parse(recipe, "calls.toml", &[]).unwrap().recipe.run_name, "calls");
    }
}
