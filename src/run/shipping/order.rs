//! The order for an export, and carrying it out.

use super::word::{self, Word};
use super::{MERGED, Proof, Tell, card, manifest, merge, modelfile, names, open, verify};
use crate::export::convert::Plan;
use crate::export::lora_gguf;
use crate::export::metadata::About;
use crate::export::mixture::Mixture;
use crate::export::quant::Kind;
use crate::export::subject::Subject;
use crate::recipe::Recipe;
use crate::run::artifact::{self, Artifact};
use crate::run::files::free_space;
use crate::{Error, Result};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What to write of what, and where.
#[derive(Debug, Clone)]
pub struct Order {
    /// A run (`RUN@STEP` too), an adapter or a model.
    pub what: String,
    pub out: PathBuf,
    pub gguf: Vec<Mixture>,
    /// The adapter alone, as a GGUF.
    pub lora: bool,
    /// The merged model, into a folder of its own: F32, F16 or BF16.
    pub merged: Option<Kind>,
    /// In place of the run's or the model's name.
    pub name: Option<String>,
    /// The model of Ollama's to make, where Ollama is.
    pub ollama: Option<String>,
    pub verify: bool,
}

impl Order {
    /// What a recipe asks for once its run, in `run`, has finished; `None`: nothing.
    pub fn of_recipe(recipe: &Recipe, run: &Path) -> Result<Option<Self>> {
        let asked = &recipe.export;
        if !asked.asks() {
            return Ok(None);
        }
        Ok(Some(Self {
            what: run.display().to_string(),
            out: folder_of(run),
            gguf: asked.gguf.iter().map(|name| Mixture::parse(name)).collect::<Result<_>>()?,
            lora: asked.lora,
            merged: match asked.merged.as_str() {
                "none" => None,
                "f32" => Some(Kind::F32),
                _ => Some(Kind::BF16),
            },
            name: None,
            ollama: asked.ollama.clone(),
            verify: true,
        }))
    }
}

/// Where a run's export lies.
pub fn folder_of(run: &Path) -> PathBuf {
    run.join("export")
}

/// What came of it.
pub struct Shipped {
    pub summary: Value,
    pub proof: Option<Proof>,
}

/// Carry the order out. What it says goes to `tell` and into the folder.
///
/// # Errors
/// When something cannot be read or written. A proof that failed is no error here: see [`Proof::verdict`].
pub fn ship(order: &Order, tell: &mut Tell) -> Result<Shipped> {
    std::fs::create_dir_all(&order.out).map_err(|e| Error::from(e).at(order.out.display()))?;
    let mut file = word::Writer::create(&order.out)?;
    let mut unwritten = None;
    let mut say = |word: Word| {
        if let Err(e) = file.write(&word) {
            unwritten.get_or_insert(e);
        }
        tell(word);
    };
    let done = carry_out(order, &mut say);
    match &done {
        Ok((shipped, command)) => say(Word::Ended {
            passed: shipped.proof.as_ref().map(|p| p.passed),
            first: shipped.proof.as_ref().map(|p| p.first.clone()).unwrap_or_default(),
            command: command.clone(),
        }),
        Err(e) => say(Word::Failed { why: e.to_string() }),
    }
    let (shipped, _) = done?;
    unwritten.map_or(Ok(shipped), Err)
}

fn carry_out(order: &Order, tell: &mut Tell) -> Result<(Shipped, Option<String>)> {
    let artifact = artifact::find(&order.what)?;
    let subject = open(&artifact, tell)?;
    let name = order.name.clone().unwrap_or_else(|| names::name_of(&artifact, &subject));
    let mut kinds: Vec<String> = order.gguf.iter().map(|m| m.name().to_string()).collect();
    kinds.extend(order.lora.then(|| "lora".to_string()));
    kinds.extend(order.merged.map(|_| MERGED.to_string()));
    tell(Word::Began { title: artifact.title.clone(), name: name.clone(), pid: std::process::id(), kinds });
    let (mut written, mut files) = (Vec::new(), Vec::new());
    ggufs(order, &subject, &name, &mut written, &mut files, tell)?;
    if order.lora {
        let Some(adapter) = &subject.adapter else {
            return Err(Error::usage(format!("{} is no adapter", artifact.title)).next("leave --lora out"));
        };
        let (path, began) = (order.out.join(names::lora(&name)), Instant::now());
        let bytes = lora_gguf::write(adapter, subject.opened.config(), &name, &path)?;
        let seconds = began.elapsed().as_secs_f64();
        tell(Word::Written { kind: "lora".into(), path: path.clone(), bytes, seconds });
        written.push(json!({"type": "lora", "path": path, "bytes": bytes}));
        files.push(path);
    }
    let modelfile = order.out.join("Modelfile");
    let text = modelfile::text(&artifact, &subject, &name, &files)?;
    if let Some(text) = &text {
        std::fs::write(&modelfile, text).map_err(|e| Error::from(e).at(modelfile.display()))?;
    }
    if let Some(kind) = order.merged {
        let folder = order.out.join(MERGED);
        let merged = merge(&subject, &folder, kind, 1.0, tell)?;
        written.push(json!({"type": MERGED, "path": folder, "bytes": merged.bytes, "merged": merged}));
        files.push(folder);
    }
    let mut summary = json!({"name": name, "files": &written, "modelfile": text.as_ref().map(|_| &modelfile)});
    manifest::write(&order.out, &order.what, &artifact, &summary)?;
    let proof = proven(order, &artifact, &files, tell)?;
    if let Some(proof) = &proof {
        summary["proof"] = proof.json.clone();
    }
    let served = names::ollama(order.ollama.as_deref().unwrap_or(&name));
    let mut command = text.map(|_| modelfile::command(&served, &modelfile));
    // What is not what was trained is not served.
    let good = proof.as_ref().is_none_or(|p| p.passed);
    if command.is_some() && order.ollama.is_some() && good {
        match modelfile::create(&served, &modelfile, tell)? {
            true => command = Some(format!("ollama run {served}")),
            false => tell(Word::Note { text: "there is no ollama on this machine; its command is below".into() }),
        }
    }
    let listed: Vec<(String, String, u64)> = written.iter().map(listed).collect();
    let run = artifact::run_of(&order.what).filter(|_| artifact.recipe.is_some());
    let about = card::About {
        artifact: &artifact,
        run: run.as_deref(),
        name: &name,
        files: &listed,
        proof: proof.as_ref(),
        command: command.as_deref(),
    };
    card::write(&about, &order.out)?;
    Ok((Shipped { summary, proof }, command.filter(|_| good)))
}

/// Kind, file name and bytes of a file in the summary.
fn listed(file: &Value) -> (String, String, u64) {
    let text = |key: &str| file[key].as_str().unwrap_or_default();
    let name = Path::new(text("path")).file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    (text("type").to_string(), name, file["bytes"].as_u64().unwrap_or(0))
}

fn ggufs(
    order: &Order,
    subject: &Subject,
    name: &str,
    written: &mut Vec<Value>,
    files: &mut Vec<PathBuf>,
    tell: &mut Tell,
) -> Result<()> {
    let about = About {
        // A model that is only quantized keeps the name it has.
        name: (order.name.is_some() || subject.adapter.is_some() || subject.files().is_ok()).then_some(name),
        tokenizer: &subject.tokenizer,
        templates: &subject.templates,
    };
    let weights = subject.weights()?;
    let plans =
        order.gguf.iter().map(|m| Plan::new(&subject.opened, &weights, &about, *m)).collect::<Result<Vec<_>>>()?;
    has_room(&order.out, plans.iter().map(Plan::size).sum())?;
    for (mixture, plan) in order.gguf.iter().zip(plans) {
        let (kind, path) = (mixture.name().to_string(), order.out.join(names::gguf(name, *mixture)));
        let twice = plan.requantized();
        if twice > 0 {
            let text = format!(
                "{twice} tensors were quantized before; what that lost is not won back (take the original where there is one)"
            );
            tell(Word::Note { text });
        }
        for lost in &plan.lost {
            tell(Word::Note { text: lost.clone() });
        }
        let words = plan.counts().iter().map(|(kind, n)| format!("{n} {kind}")).collect::<Vec<_>>().join(", ");
        tell(Word::Planned { kind: kind.clone(), words, bytes: plan.size() });
        let (began, total) = (Instant::now(), plan.tensors.len() as u64);
        let mut shown = Instant::now();
        let bytes = plan.write(&path, &mut |done| {
            if shown.elapsed().as_millis() >= 200 || done as u64 == total {
                shown = Instant::now();
                tell(Word::Writing { kind: kind.clone(), done: done as u64, total });
            }
        })?;
        let seconds = began.elapsed().as_secs_f64();
        tell(Word::Written { kind: kind.clone(), path: path.clone(), bytes, seconds });
        written.push(json!({
            "type": kind, "path": path, "bytes": bytes, "seconds": seconds, "tensors": plan.counts(),
            "requantized": twice, "lost": plan.lost,
        }));
        files.push(path);
    }
    Ok(())
}

/// # Errors
/// When the files do not fit on the disk: better said before an hour of quantizing than after.
fn has_room(out: &Path, bytes: u64) -> Result<()> {
    match free_space(out) {
        Some(free) if free < bytes => {
            let gib = |n: u64| n as f64 / (1u64 << 30) as f64;
            Err(Error::new(format!("the files take {:.1} GiB, and {:.1} GiB are free", gib(bytes), gib(free)))
                .at(out.display())
                .next("free some space, take fewer or smaller types, or another folder"))
        }
        _ => Ok(()),
    }
}

fn proven(order: &Order, artifact: &Artifact, files: &[PathBuf], tell: &mut Tell) -> Result<Option<Proof>> {
    match order.verify {
        true => verify(artifact, &order.out, files, tell).map(Some),
        false => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{self, TYPES};

    #[test]
    fn every_type_that_a_recipe_may_name_can_be_written() {
        for name in TYPES {
            assert_eq!(Mixture::parse(name).unwrap().name(), *name);
        }
    }

    #[test]
    fn a_recipe_without_an_export_table_asks_for_nothing() {
        let parse = |more: &str| {
            let text = format!("[model]\nname_or_path = \"demo\"\n[data]\ntrain = \"demo\"\n[lora]\n{more}");
            recipe::parse(&text, "r.toml", &[]).map(|l| l.recipe)
        };
        let run = Path::new("/runs/a");
        assert!(Order::of_recipe(&parse("").unwrap(), run).unwrap().is_none());
        let asked = parse("[export]\nmerged = \"16bit\"\ngguf = \"q4_k_m\"\n").unwrap();
        let order = Order::of_recipe(&asked, run).unwrap().unwrap();
        assert_eq!((order.gguf, order.merged), (vec![Mixture::Q4KM], Some(Kind::BF16)));
        assert_eq!(order.out, Path::new("/runs/a/export"));
        let wrong = parse("[export]\nollama = \"a\"\n").unwrap_err().to_string();
        assert!(wrong.contains("export.ollama needs a GGUF"), "{wrong}");
    }
}
