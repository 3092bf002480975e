//! One written model held against the trained one.

use super::probe::{Trained, argmax, ending, greedy, log_probabilities, render};
use super::weights;
use crate::Result;
use crate::data::template::ChatTemplate;
use crate::data::tokenizer::Tokenizer;
use crate::export::lora_gguf;
use crate::export::ollama::go::GoTemplate;
use crate::export::ollama::modelfile;
use crate::export::quant::Kind;
use crate::export::subject::Subject;
use crate::export::vocabulary::ends_by_text;
use crate::export::weights::Weights;
use crate::model::engine::Engine;
use crate::model::gguf::GgufFile;
use crate::model::llama::Llama;
use crate::model::loading::Opened;
use crate::model::lora::Tuning;
use crate::model::source;
use crate::ops::optimizer::Optim;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// One question and its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    pub name: String,
    pub passed: bool,
    /// What was found; where it failed, the first difference.
    pub detail: String,
}

/// What was found of one written model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    pub path: PathBuf,
    /// The type that most weights have: `Q4_K`.
    pub kind: String,
    pub passed: bool,
    pub checks: Vec<Check>,
    /// Share of positions where the likeliest token is the trained model's.
    pub top1_agreement: Option<f64>,
    /// KL divergence of the trained model's distribution from this one's, mean over positions, in nats.
    pub kl: Option<f64>,
    /// Perplexity over the same sequences, the trained model's and this one's.
    pub perplexity_trained: Option<f64>,
    pub perplexity: Option<f64>,
    /// How much of the adapter's change is in the weights.
    pub adapter_share: Option<f64>,
}

/// Mean KL above which an export of this type is not what was trained any more. Measured on SmolLM2-135M, where small
/// models suffer most, with room above: Q8_0 0.002, Q6_K 0.004, Q5 0.02, Q4 0.1, Q3 0.4.
fn kl_limit(kind: Kind) -> f64 {
    match kind {
        Kind::F32 => 1e-5,
        Kind::F16 => 1e-3,
        Kind::BF16 => 0.02,
        Kind::Q8_0 => 0.02,
        Kind::Q6K => 0.05,
        Kind::Q5K | Kind::Q5_0 | Kind::Q5_1 => 0.2,
        Kind::Q4K | Kind::Q4_0 | Kind::Q4_1 => 0.6,
        Kind::Q3K => 1.5,
        Kind::Q2K => 3.0,
    }
}

/// A Modelfile's TEMPLATE and stops: the ids that Ollama would hand to the model. `None` where there is no TEMPLATE.
pub fn prove_modelfile(subject: &Subject, trained: &Trained, path: &Path) -> Option<Stage> {
    let mut stage = Stage::new(path);
    stage.kind = "TEMPLATE".into();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) => {
            stage.check("reads", Some(e.to_string()), "");
            return Some(stage);
        }
    };
    let (template, stops) = modelfile::read(&text);
    let template = match GoTemplate::new(template?) {
        Ok(template) => template,
        Err(e) => {
            stage.check("template", Some(e.to_string()), "");
            return Some(stage);
        }
    };
    let tokenizer = &subject.tokenizer;
    let mut wrong = None;
    for answer in &trained.answers {
        // Ollama tokenizes with what the tokenizer adds around a text, a BOS say.
        let ids = template.render_chat(&answer.messages).and_then(|text| tokenizer.encode_with_special(&text));
        wrong = wrong.or_else(|| match ids {
            Ok(found) => difference(tokenizer, tokenizer, &answer.prompt, &found.ids),
            Err(e) => Some(e.to_string()),
        });
    }
    stage.check("template", wrong, format!("{} chats", trained.answers.len()));
    // Ollama's runner also ends where the GGUF says; a stop text is the belt to those braces.
    let ends = |id: &u32| stops.contains(&tokenizer.display(*id)) || ends_by_text(&tokenizer.display(*id));
    let missing = trained.stop_ids.iter().find(|id| !ends(id));
    stage.check("stops", missing.map(|id| format!("{} ends no turn", tokenizer.display(*id))), stops.join(" "));
    stage.passed = stage.checks.iter().all(|c| c.passed);
    Some(stage)
}

/// Read the model at `path` again and compare it. What cannot be read is a failed check, not an error.
pub fn prove(subject: &Subject, trained: &Trained, path: &Path, tell: &mut dyn FnMut(&str)) -> Stage {
    let mut stage = Stage::new(path);
    // The first check that cannot be made ends the stage.
    if let Err(e) = stage.run(subject, trained, tell) {
        stage.checks.push(Check { name: "reads".into(), passed: false, detail: e.to_string().replace('\n', " ") });
    }
    stage.passed = stage.checks.iter().all(|c| c.passed);
    stage
}

impl Stage {
    /// The file's name.
    pub fn name(&self) -> String {
        self.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
    }

    fn new(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
            kind: String::new(),
            passed: false,
            checks: Vec::new(),
            top1_agreement: None,
            kl: None,
            perplexity_trained: None,
            perplexity: None,
            adapter_share: None,
        }
    }

    fn check(&mut self, name: &'static str, wrong: Option<String>, right: impl Into<String>) {
        let passed = wrong.is_none();
        self.checks.push(Check { name: name.to_string(), passed, detail: wrong.unwrap_or_else(|| right.into()) });
    }

    fn run(&mut self, subject: &Subject, trained: &Trained, tell: &mut dyn FnMut(&str)) -> Result<()> {
        if self.path.extension().is_some_and(|e| e == "gguf") {
            let file = GgufFile::open(&self.path)?;
            if lora_gguf::is_adapter(&file) {
                return self.adapter(subject, &file);
            }
        }
        let source = source::resolve(&self.path.to_string_lossy())?;
        let opened = Opened::open(&source)?;
        let (tokenizer, templates) = Tokenizer::of(&opened)?;
        tell("weights");
        let kind = self.weights(subject, &opened)?;
        tell("tokens");
        let template = match templates.default {
            Some(_) => Some(ChatTemplate::new(&templates, &tokenizer.special, &serde_json::Map::new())?),
            None => None,
        };
        self.tokens(trained, &subject.tokenizer, &tokenizer, template.as_ref());
        let mut stop_ids = opened.config().eos_token_ids.clone();
        stop_ids.extend(tokenizer.eos_id());
        if let Opened::Gguf(_) = opened {
            stop_ids.extend(trained.stop_ids.iter().filter(|id| ends_by_text(&tokenizer.display(**id))));
        }
        self.stops(trained, &subject.tokenizer, &stop_ids);
        tell("logits");
        // On the CPU in f32, as the trained one, whatever a card would round.
        let model = Engine::on_cpu(Llama::new(opened.weights()?, &Tuning::None, 0)?, Optim::Torch);
        self.logits(trained, &model, kind)?;
        tell("generation");
        self.generation(trained, &model, &stop_ids)
    }

    /// An adapter alone: its matrices, to the bit.
    fn adapter(&mut self, subject: &Subject, file: &GgufFile) -> Result<()> {
        self.kind = "LoRA".into();
        let found = match &subject.adapter {
            Some(adapter) => lora_gguf::compare(file, adapter, subject.opened.config()),
            None => Err(crate::Error::new("what was trained is no adapter")),
        };
        let (wrong, right) = match found {
            Ok(n) => (None, format!("{n} matrices, equal to the bit")),
            Err(e) => (Some(e.to_string()), String::new()),
        };
        self.check("weights", wrong, right);
        Ok(())
    }

    fn weights(&mut self, subject: &Subject, opened: &Opened) -> Result<Kind> {
        let (reference, written) = (subject.weights()?, Weights::open(opened, None)?);
        let tensors = weights::compare(&reference, &written)?;
        let mut by_kind: Vec<(Kind, usize)> = Vec::new();
        for (kind, shape) in
            tensors.iter().zip(reference.config.tensor_shapes()).filter_map(|(t, s)| Some((t.kind?, s.1)))
        {
            let n: usize = shape.iter().product();
            match by_kind.iter_mut().find(|(k, _)| *k == kind) {
                Some((_, all)) => *all += n,
                None => by_kind.push((kind, n)),
            }
        }
        let kind = by_kind.iter().max_by_key(|(_, n)| *n).map_or(Kind::F32, |(k, _)| *k);
        self.kind = kind.name().to_string();
        let all = weights::total(&tensors);
        self.adapter_share = all.share().map(|(share, _)| share);
        let worst = tensors.iter().map(|t| t.sums.relative()).fold(0.0, f64::max);
        let adapter = self.adapter_share.map(|s| format!(", {:.1} % of the adapter", 100.0 * s)).unwrap_or_default();
        let right = format!("{} tensors, at most {:.2} % from the trained ones{adapter}", tensors.len(), 100.0 * worst);
        self.check("weights", weights::first_wrong(&tensors), right);
        Ok(kind)
    }

    /// Ids of plain texts and of rendered chats.
    fn tokens(&mut self, trained: &Trained, before: &Tokenizer, after: &Tokenizer, template: Option<&ChatTemplate>) {
        let mut wrong = None;
        for (text, ids) in &trained.texts {
            let now = after.encode_with_special(text).map(|e| e.ids);
            wrong = wrong
                .or_else(|| difference(before, after, ids, &now.unwrap_or_default()).map(|d| format!("{text:?}: {d}")));
        }
        let right = format!("{} texts", trained.texts.len());
        self.check("tokens", wrong, right);
        let mut wrong = None;
        for answer in &trained.answers {
            let now = match render(after, template, &answer.messages) {
                Ok(ids) => ids,
                Err(e) => {
                    wrong = wrong.or(Some(e.to_string().replace('\n', " ")));
                    continue;
                }
            };
            wrong = wrong.or_else(|| difference(before, after, &answer.prompt, &now));
        }
        let right = format!("{} chats", trained.answers.len());
        self.check("template", wrong, right);
    }

    fn stops(&mut self, trained: &Trained, tokenizer: &Tokenizer, stop_ids: &[u32]) {
        let missing = trained.stop_ids.iter().find(|id| !stop_ids.contains(id));
        let wrong = missing.map(|id| format!("{} ends no turn", tokenizer.display(*id)));
        let names: Vec<String> = trained.stop_ids.iter().map(|id| tokenizer.display(*id)).collect();
        self.check("stops", wrong, names.join(" "));
    }

    fn logits(&mut self, trained: &Trained, model: &Engine, kind: Kind) -> Result<()> {
        let (mut kl, mut agree, mut positions) = (0.0, 0usize, 0usize);
        let (mut nll_trained, mut nll, mut predicted) = (0.0, 0.0, 0usize);
        let v = trained.vocab_size;
        for (ids, before) in trained.sequences.iter().zip(&trained.log_probabilities) {
            let after = log_probabilities(model, ids)?;
            for (i, (p, q)) in before.chunks_exact(v).zip(after.chunks_exact(v)).enumerate() {
                kl += p.iter().zip(q).map(|(p, q)| f64::from(p.exp()) * (f64::from(*p) - f64::from(*q))).sum::<f64>();
                agree += usize::from(argmax(p) == argmax(q));
                positions += 1;
                if let Some(next) = ids.get(i + 1) {
                    nll_trained -= f64::from(p[*next as usize]);
                    nll -= f64::from(q[*next as usize]);
                    predicted += 1;
                }
            }
        }
        let mean = |sum: f64, n: usize| sum / n.max(1) as f64;
        // Never below 0 but by the rounding of its terms.
        let (kl, agreement) = (mean(kl, positions).max(0.0), mean(agree as f64, positions));
        let (before, after) = (mean(nll_trained, predicted).exp(), mean(nll, predicted).exp());
        self.kl = Some(kl);
        self.top1_agreement = Some(agreement);
        (self.perplexity_trained, self.perplexity) = (Some(before), Some(after));
        let figures = format!(
            "top-1 {:.1} %, KL {kl:.2e}, perplexity {after:.2} (trained {before:.2}), {positions} positions",
            100.0 * agreement
        );
        let limit = kl_limit(kind);
        let wrong = (kl.is_nan() || kl > limit).then(|| format!("{figures}: KL is above {limit} for {}", kind.name()));
        self.check("logits", wrong, figures);
        Ok(())
    }

    /// A chat that the trained model ends must end here too: by itself, or where its words are put into this one's
    /// mouth, for a quantized model takes other words, and some of them are longer. There, an end at least half as
    /// likely as the trained model's counts.
    fn generation(&mut self, trained: &Trained, model: &Engine, stop_ids: &[u32]) -> Result<()> {
        let (mut by_itself, mut after_same_words, mut asked) = (0, 0, 0);
        let mut wrong = None;
        for answer in trained.answers.iter().filter(|a| a.stops) {
            asked += 1;
            if greedy(model, &answer.prompt, stop_ids)?.1 {
                by_itself += 1;
                continue;
            }
            let words = [answer.prompt.as_slice(), &answer.completion].concat();
            let now = ending(&log_probabilities(model, &words)?, trained.vocab_size, stop_ids);
            if now >= answer.ending / 2.0 {
                after_same_words += 1;
            } else {
                let text = answer.messages.last().and_then(|m| m["content"].as_str()).unwrap_or_default().to_string();
                wrong = wrong.or(Some(format!("does not end, where the trained model does: {text:?}")));
            }
        }
        let figures = match (asked, after_same_words) {
            (0, _) => "the trained model itself ended no chat within 96 tokens".to_string(),
            (_, 0) => format!("{by_itself} of {asked} chats end"),
            (_, n) => format!("{by_itself} of {asked} chats end, {n} more after the trained model's words"),
        };
        self.check("generation", wrong, figures);
        Ok(())
    }
}

/// The first place where two lists of ids part, in words.
fn difference(before: &Tokenizer, after: &Tokenizer, expected: &[u32], found: &[u32]) -> Option<String> {
    if expected == found {
        return None;
    }
    let at = expected.iter().zip(found).take_while(|(a, b)| a == b).count();
    let show = |tokenizer: &Tokenizer, ids: &[u32]| match ids.get(at) {
        Some(id) => tokenizer.display(*id),
        None => "the end".to_string(),
    };
    let doubled = found.len() > 1
        && found[0] == found[1]
        && after.bos_id() == Some(found[0])
        && expected.first() != expected.get(1);
    let hint = if doubled { " (BOS comes twice)" } else { "" };
    Some(format!("token {at} is {} and was {} in training{hint}", show(after, found), show(before, expected)))
}
