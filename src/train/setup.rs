//! From a recipe to everything its loop needs: model, tokenizer, template, examples, the order of batches.

use super::event::{Component, DataFile, Memory, Start};
use super::parts::checkpoint::{self, Saved};
use super::parts::companions::companions;
use super::speaker::{Computes, Speaker, TemplateChoice, lora_of};
use crate::data::batch::Example;
use crate::data::cache::Cache;
use crate::data::plan::Plan;
use crate::data::prepare::{self, Prepared as Data};
use crate::data::sources;
use crate::data::traits::{ModelSide, Render};
use crate::export::adapter::{self, AdapterConfig};
use crate::memory::{self, Estimate, Local, Stored, Telemetry};
use crate::model::device;
use crate::model::llama::Checkpointing;
use crate::model::lora::{LoraConfig, Tuning};
use crate::model::ranks::Ranks;
use crate::ops::optimizer::Optim;
use crate::recipe::{LoraSection, Method, Recipe, TargetModules};
use crate::{Error, Result};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How often a long tokenization says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// A run that is ready to train.
pub struct Prepared {
    pub speaker: Speaker,
    pub data: Data,
    pub plan: Plan,
    pub checkpointing: Checkpointing,
    /// The facts for the run's `start` event; host, total steps and what passed are filled in by those who know.
    pub start: Start,
    /// Identity of the training examples.
    pub fingerprint: String,
    pub ranks: Ranks,
    adapter: Option<AdapterConfig>,
    companions: Vec<(String, Vec<u8>)>,
    estimate: Estimate,
    telemetry: Local,
}

/// Load the model, read and tokenize the data, plan the batches of all `ranks` together. `say` hears what is being done.
pub fn prepare(recipe: &Recipe, mut ranks: Ranks, say: &mut dyn FnMut(&str)) -> Result<Prepared> {
    device::choose(&recipe.model.device)?;
    if recipe.method == Method::Grpo && ranks.size() > 1 {
        return Err(Error::usage("method grpo is trained by one process").next("start one, without --nproc-per-node"));
    }
    // A misspelt file is found before minutes go into a model.
    for source in &recipe.data.train {
        sources::locate(source, "data.train", say)?;
    }
    for source in recipe.data.eval.iter().flatten() {
        sources::locate(source, "data.eval", say)?;
    }
    say(&format!("loading {}", recipe.model.name_or_path));
    let given = match recipe.lora.as_ref().and_then(|l| l.adapter_name_or_path.as_deref()) {
        Some(dir) => Some(adapter::read(dir)?),
        None => None,
    };
    let lora = match (&recipe.lora, &given) {
        // Its shape is the adapter's own; dropout is a matter of this training.
        (Some(section), Some(a)) => Some(LoraConfig { dropout: section.lora_dropout, ..lora_of(a) }),
        (Some(section), None) => Some(fresh_lora(section)),
        (None, _) => None,
    };
    let tuning = lora.clone().map_or(Tuning::Full, Tuning::Lora);
    let choice = TemplateChoice {
        template: recipe.model.chat_template.as_deref(),
        kwargs: recipe.model.chat_template_kwargs.as_ref(),
    };
    let on = Computes {
        device: &recipe.model.device,
        load_in_4bit: recipe.model.load_in_4bit,
        load_in_fp8: recipe.model.load_in_fp8,
        checkpointing: &recipe.train.gradient_checkpointing,
        optim: Optim::named(&recipe.train.optim),
        cpu_only: match recipe.train.neftune_noise_alpha {
            Some(_) => Some("train.neftune_noise_alpha"),
            None => (recipe.method == Method::Grpo).then_some(recipe.method.name()),
        },
    };
    let mut speaker = Speaker::build(&recipe.model.name_or_path, &tuning, recipe.train.seed, choice, on, say)?;
    let lora = lora.map(|l| l.named(speaker.model.config()));
    if let Some(alpha) = recipe.train.neftune_noise_alpha {
        speaker.model.set_neftune(Some(alpha))?;
    }
    if lora.as_ref().is_some_and(|l| !l.modules_to_save.is_empty()) && speaker.model.config().tie_word_embeddings {
        say("this model's lm_head is its embedding: they are trained and saved as one (ensure_weight_tying)");
    }
    if lora.is_none() && speaker.model.config().traits.experts.is_some_and(|e| e.biased) {
        return Err(Error::usage(
            "full fine-tuning of gpt-oss is not supported: its experts could not be saved as they came",
        )
        .next("use LoRA: add [lora]"));
    }
    if let Some(given) = &given {
        checkpoint::put_adapter(&speaker.model, given)?;
    }
    // Rank 0 reads first: the others find its tokens in the cache.
    if !ranks.leads() {
        ranks.tell::<()>(None)?;
    }
    let data = tokenize(recipe, &speaker, say)?;
    if ranks.leads() {
        ranks.tell(Some(()))?;
    }
    if recipe.method == Method::Cpt {
        // Its prompts are texts to go on from, not chats.
        speaker.template = None;
    }
    let plan = Plan::of(recipe, ranks.size(), &data.train);
    let shape = speaker.shape;
    let longest = data.train.iter().chain(&data.eval).map(|e| e.ids.len()).max();
    let mut telemetry = Local::new();
    // What is held already (the weights, mostly) is in the estimate too.
    let now = telemetry.read();
    let room = now.available.map(|free| free + now.used.unwrap_or(0));
    let again = memory::recomputes(recipe, &shape, longest, room);
    let checkpointing = if again { Checkpointing::Full } else { Checkpointing::Off };
    let mut estimate = memory::estimate(recipe, &shape, longest, again);
    if let Some(components) = speaker.model.predict(estimate.tokens as usize)? {
        estimate.components = components;
    }
    let start = facts(recipe, &ranks, &speaker, &data, &plan, &lora, telemetry.device());
    let mut fingerprint = fingerprint(&data.train);
    if matches!(recipe.method, Method::Dpo | Method::Grpo) && given.is_some() {
        // The reference is the adapter as it stands here: another one would be another run.
        let values = speaker.model.params().values()?;
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        fingerprint.push_str(&format!("+{}", &blake3::hash(&bytes).to_hex()[..32]));
    }
    let tied = speaker.model.config().tie_word_embeddings;
    let adapter = lora.map(|l| AdapterConfig {
        lora_dropout: l.dropout,
        ensure_weight_tying: tied && !l.modules_to_save.is_empty(),
        base_model_name_or_path: speaker.reference.clone(),
        revision: speaker.revision.clone(),
        // A given one keeps the words it has for its modules.
        ..given.as_ref().map_or_else(|| AdapterConfig::of(&l), |g| g.config.clone())
    });
    let companions = if adapter.is_none() { companions(&recipe.model.name_or_path, &speaker)? } else { Vec::new() };
    Ok(Prepared {
        speaker,
        data,
        plan,
        checkpointing,
        start,
        fingerprint,
        ranks,
        adapter,
        companions,
        estimate,
        telemetry,
    })
}

impl Prepared {
    /// What a checkpoint writes beside the numbers.
    pub fn saved(&self) -> Saved<'_> {
        match &self.adapter {
            Some(config) => Saved::Adapter(config),
            None => Saved::Full(&self.companions),
        }
    }

    /// Memory as predicted beside what this process holds now.
    pub fn measure_memory(&mut self) -> Memory {
        let held = self.speaker.model.held();
        let measured = |name: &str| held.as_ref()?.components.iter().find(|c| c.0 == name).map(|c| c.1);
        let component = |(name, bytes): &(&str, u64)| Component {
            name: name.to_string(),
            estimate: Some(*bytes),
            measured: measured(name),
        };
        let components = self.estimate.components.iter().map(component).collect();
        if let Some(held) = held {
            return Memory { components, used: Some(held.used), peak: Some(held.peak), total: Some(held.total) };
        }
        let reading = self.telemetry.read();
        Memory { components, used: reading.used, peak: reading.peak, total: reading.total }
    }
}

fn fresh_lora(section: &LoraSection) -> LoraConfig {
    let list = |m: &TargetModules| match m {
        TargetModules::Word(word) => vec![word.clone()],
        TargetModules::Names(names) => names.clone(),
    };
    LoraConfig {
        r: section.r,
        alpha: section.lora_alpha,
        dropout: section.lora_dropout,
        target_modules: list(&section.target_modules),
        exclude_modules: section.exclude_modules.as_ref().map(list).unwrap_or_default(),
        layers: section.layers_to_transform.clone(),
        rslora: section.use_rslora,
        dora: section.use_dora,
        modules_to_save: section.modules_to_save.clone().unwrap_or_default(),
    }
}

/// The rows that `eval` looks at: the recipe's held-out ones.
///
/// # Errors
/// When the recipe holds none out.
pub fn examples_to_evaluate(recipe: &Recipe, speaker: &Speaker, say: &mut dyn FnMut(&str)) -> Result<Vec<Example>> {
    let eval = tokenize(recipe, speaker, say)?.eval;
    if eval.is_empty() {
        return Err(Error::usage("the run's recipe holds no rows out for evaluation").next("name some: --data PATH"));
    }
    Ok(eval)
}

/// Tokenize in parallel, saying now and then how far it is.
fn tokenize(recipe: &Recipe, speaker: &Speaker, say: &mut dyn FnMut(&str)) -> Result<Data> {
    let side = ModelSide {
        encode: &speaker.tokenizer,
        render: speaker.template.as_ref().map(|t| t as &dyn Render),
        eos_token: speaker.tokenizer.special.eos_token.as_deref(),
    };
    say("reading the data");
    let (done, all) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let cache = Cache::of_user();
    std::thread::scope(|scope| {
        let progress = |d: usize, n: usize| {
            done.fetch_max(d, Ordering::Relaxed);
            all.store(n, Ordering::Relaxed);
        };
        let work = scope.spawn(move || prepare::prepare(recipe, &side, cache.as_ref(), &progress));
        let mut waited = Duration::ZERO;
        while !work.is_finished() {
            let nap = Duration::from_millis(2);
            std::thread::sleep(nap);
            waited += nap;
            if waited >= PROGRESS_EVERY {
                waited = Duration::ZERO;
                let (d, n) = (done.load(Ordering::Relaxed), all.load(Ordering::Relaxed));
                if n > 0 {
                    say(&format!("tokenizing: {d} of {n} rows"));
                }
            }
        }
        work.join().unwrap_or_else(|_| Err(Error::new("the data reader crashed").next("run.log says where")))
    })
}

fn facts(
    recipe: &Recipe,
    ranks: &Ranks,
    speaker: &Speaker,
    data: &Data,
    plan: &Plan,
    lora: &Option<LoraConfig>,
    processor: String,
) -> Start {
    let t = &recipe.train;
    let (device, device_name, device_uuid) = match speaker.model.card() {
        Some((name, uuid)) => ("cuda", name, Some(uuid)),
        None => ("cpu", processor, None),
    };
    Start {
        run_name: recipe.run_name.clone(),
        method: recipe.method.name().into(),
        tuning: match lora {
            Some(l) => {
                let kind = if l.dora { "dora" } else { "lora" };
                let q = recipe.model.load_in_4bit || speaker.shape.stored == Stored::Nf4;
                let fp8 = recipe.model.load_in_fp8;
                format!("{}{kind} r{}{}", if q { "q" } else { "" }, l.r, if fp8 && !q { " fp8" } else { "" })
            }
            None => "full".into(),
        },
        model: speaker.name.clone(),
        device: device.into(),
        device_name: match ranks.size() {
            1 => device_name,
            n => format!("{n} × {device_name}"),
        },
        device_uuid,
        host: String::new(),
        total_steps: plan.total_steps(t.num_train_epochs, t.max_steps),
        steps_per_epoch: plan.steps_per_epoch() as f64,
        num_train_epochs: match t.max_steps {
            0 => t.num_train_epochs,
            steps => plan.epoch(steps),
        },
        train_rows: rows_of(recipe, data.train.len()),
        eval_rows: rows_of(recipe, data.eval.len()),
        truncated_share: data.summary.truncated_share(),
        trainable_parameters: speaker.model.params().len() as u64,
        total_parameters: speaker.model.total_parameters(),
        effective_batch: (t.per_device_train_batch_size * t.gradient_accumulation_steps * ranks.size()) as u64,
        data: data
            .summary
            .sources
            .iter()
            .map(|s| DataFile { path: s.path.display().to_string(), rows: s.rows, blake3: s.blake3.clone() })
            .collect(),
        passed: Vec::new(),
        resumed_from: 0,
        demo: recipe.model.name_or_path == "demo" && recipe.run_name == "demo",
    }
}

/// Rows of so many examples: a pair is two of them.
fn rows_of(recipe: &Recipe, examples: usize) -> u64 {
    let each = if recipe.method == Method::Dpo { 2 } else { 1 };
    (examples / each) as u64
}

/// A digest of the examples, in order.
fn fingerprint(examples: &[Example]) -> String {
    let mut hasher = blake3::Hasher::new();
    for e in examples {
        hasher.update(&(e.ids.len() as u64).to_le_bytes());
        for (id, trained) in e.ids.iter().zip(&e.trained) {
            hasher.update(&(id << 1 | u32::from(*trained)).to_le_bytes());
        }
    }
    hasher.finalize().to_hex()[..32].to_string()
}
