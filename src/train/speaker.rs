//! A model that can be spoken to: weights (with an adapter or without), tokenizer, template, and what ends a turn.

use super::parts::checkpoint;
use crate::data::loaded::{self, Loaded};
use crate::data::template::{self, ChatTemplate};
use crate::data::tokenizer::{Templates, Tokenizer};
use crate::data::traits::Render;
use crate::export::adapter::{self, Adapter};
use crate::memory::Shape;
use crate::model::config::Hold;
use crate::model::device;
use crate::model::engine::Engine;
use crate::model::llama::Llama;
use crate::model::loading::Opened;
use crate::model::lora::{LoraConfig, Tuning};
use crate::model::source::{self, Need};
use crate::ops::optimizer::Optim;
use crate::{Error, Result};
use serde_json::{Map, Value, json};
use std::path::Path;

pub struct Speaker {
    pub model: Engine,
    pub tokenizer: Tokenizer,
    /// `None`: the model has no chat template, and prompts are plain text to go on from.
    pub template: Option<ChatTemplate>,
    /// The template that the model came with, as Jinja text.
    pub own_template: Option<String>,
    /// Ids that end a completion.
    pub stop_ids: Vec<u32>,
    /// For titles.
    pub name: String,
    /// For `base_model_name_or_path` of an adapter.
    pub reference: String,
    /// The commit of a hub model.
    pub revision: Option<String>,
    /// The sizes that memory depends on.
    pub shape: Shape,
}

/// What a recipe may put in place of the model's own template.
#[derive(Debug, Clone, Copy, Default)]
pub struct TemplateChoice<'a> {
    pub template: Option<&'a str>,
    pub kwargs: Option<&'a Map<String, Value>>,
}

/// What a model is computed on, in a recipe's words.
#[derive(Debug, Clone, Copy)]
pub struct Computes<'a> {
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: &'a str,
    pub load_in_4bit: bool,
    pub load_in_fp8: bool,
    /// `auto`, `full` or `off`.
    pub checkpointing: &'a str,
    pub optim: Optim,
    /// A method whose passes only the CPU's engine has.
    pub cpu_only: Option<&'a str>,
}

impl Default for Computes<'_> {
    fn default() -> Self {
        Self {
            device: "auto",
            load_in_4bit: false,
            load_in_fp8: false,
            checkpointing: "auto",
            optim: Optim::Torch,
            cpu_only: None,
        }
    }
}

impl Speaker {
    /// Load `name_or_path` and put the adapter in `adapter` on it, for use rather than training.
    pub fn load(name_or_path: &str, adapter: Option<&Path>, choice: TemplateChoice) -> Result<Self> {
        Self::load_on(name_or_path, adapter, choice, Computes::default())
    }

    /// As [`Speaker::load`], computed where `on` says.
    pub fn load_on(name_or_path: &str, adapter: Option<&Path>, choice: TemplateChoice, on: Computes) -> Result<Self> {
        let adapter = adapter.map(adapter::read).transpose()?;
        let tuning = adapter.as_ref().map_or(Tuning::None, |a| Tuning::Lora(lora_of(a)));
        let speaker = Self::build(name_or_path, &tuning, 0, choice, on, &mut |_| {})?;
        if let Some(adapter) = &adapter {
            checkpoint::put_adapter(&speaker.model, adapter)?;
        }
        Ok(speaker)
    }

    /// Load `name_or_path` with what `tuning` trains. `say` hears where it is computed, if that was not asked for.
    pub fn build(
        name_or_path: &str,
        tuning: &Tuning,
        seed: u64,
        choice: TemplateChoice,
        on: Computes,
        say: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        let found = source::resolve_saying(name_or_path, Need::Everything, say)?;
        let Loaded { opened, tokenizer, templates, name, reference, revision } = loaded::load(&found)?;
        let own_template = templates.default.clone();
        let templates = match choice.template {
            Some(setting) => Templates { default: Some(template::choose(setting)?), tool_use: None },
            None => templates,
        };
        let template = match templates.default {
            Some(_) => Some(ChatTemplate::new(&templates, &tokenizer.special, choice.kwargs.unwrap_or(&Map::new()))?),
            None => None,
        };
        let mut stop_ids = opened.config().eos_token_ids.clone();
        stop_ids.extend(tokenizer.eos_id());
        stop_ids.sort_unstable();
        stop_ids.dedup();
        let shape = opened.shape();
        let model = engine(&opened, tuning, seed, on, say)?;
        Ok(Self { model, tokenizer, template, own_template, stop_ids, name, reference, revision, shape })
    }

    /// The ids of a conversation up to where the model speaks: rendered with its generation prompt, or, without a
    /// template, the last message as plain text.
    pub fn conversation_ids(&self, messages: &[Value]) -> Result<Vec<u32>> {
        match &self.template {
            Some(template) => {
                let text = template.render(messages, None, true)?;
                Ok(self.tokenizer.encode(&text)?.ids)
            }
            None => {
                let text = messages.last().and_then(|m| m["content"].as_str()).unwrap_or_default();
                Ok(self.tokenizer.encode_with_special(text)?.ids)
            }
        }
    }

    /// The ids of one prompt, after a system message where there is one.
    pub fn prompt_ids(&self, system: Option<&str>, prompt: &str) -> Result<Vec<u32>> {
        let mut messages = Vec::new();
        messages.extend(system.map(|s| json!({"role": "system", "content": s})));
        messages.push(json!({"role": "user", "content": prompt}));
        let ids = self.conversation_ids(&messages)?;
        if ids.is_empty() { Err(Error::new("a prompt is empty").at("sample.prompts")) } else { Ok(ids) }
    }

    /// Plain text of generated ids.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.tokenizer.decode(ids, true)
    }
}

/// The model on the CPU.
fn on_cpu(opened: &Opened, tuning: &Tuning, seed: u64, on: Computes) -> Result<Engine> {
    if on.load_in_fp8 {
        return Err(Error::usage("model.load_in_fp8 = true needs a Hopper card (H100, H200)")
            .next("set it to false, or train where there is one, with a program built with --features cuda"));
    }
    Ok(Engine::on_cpu(Llama::new(opened.held(hold(opened, tuning, on))?, tuning, seed)?, on.optim))
}

/// How the CPU holds a model's weights: what a file keeps in few bits stays so where it is frozen, since the numbers are the
/// same.
fn hold(opened: &Opened, tuning: &Tuning, on: Computes) -> Hold {
    match tuning {
        Tuning::Full => Hold::Full,
        _ if on.load_in_4bit => Hold::Nf4,
        _ if opened.is_quantized() => Hold::Stored,
        _ => Hold::Full,
    }
}

#[cfg(not(feature = "cuda"))]
fn engine(opened: &Opened, tuning: &Tuning, seed: u64, on: Computes, _say: &mut dyn FnMut(&str)) -> Result<Engine> {
    device::choose(on.device)?;
    on_cpu(opened, tuning, seed, on)
}

#[cfg(feature = "cuda")]
fn engine(opened: &Opened, tuning: &Tuning, seed: u64, on: Computes, say: &mut dyn FnMut(&str)) -> Result<Engine> {
    use crate::memory::card::Checkpointing;
    use crate::model::cuda::{self, CudaLlama, Options, Origin, Precision};
    use crate::model::device::Place;
    let ordinal = match device::choose(on.device)? {
        Place::Cuda(n) => n,
        Place::Cpu { because } => {
            because.iter().for_each(|b| say(&format!("on the CPU: {b}")));
            return on_cpu(opened, tuning, seed, on);
        }
    };
    let checked = match on.cpu_only {
        Some(method) => Err(Error::usage(format!("{method} is not computed on a card"))
            .next("take model.device = \"cpu\", or auto, which falls back to it")),
        None => cuda::check(opened.config(), tuning),
    };
    if let Err(e) = checked {
        if on.device != "auto" {
            return Err(e);
        }
        say(&format!("on the CPU: {e}"));
        return on_cpu(opened, tuning, seed, on);
    }
    let options = Options {
        precision: match (on.load_in_4bit, on.load_in_fp8) {
            (true, _) => Precision::Nf4,
            (false, true) => Precision::Fp8,
            (false, false) => Precision::Bf16,
        },
        checkpointing: match on.checkpointing {
            "full" => Checkpointing::Full,
            "off" => Checkpointing::Off,
            _ => Checkpointing::Auto,
        },
        vram: None,
        optim: on.optim,
    };
    let gpu = crate::ops::cuda::device::Gpu::open(ordinal)?;
    Ok(Engine::Cuda(Box::new(CudaLlama::new(&gpu, Origin::Weights(opened.weights()?), tuning, seed, options)?)))
}

/// The shape of an adapter that is there: what it has, module by module, whatever words its configuration has for them.
pub fn lora_of(a: &Adapter) -> LoraConfig {
    let c = &a.config;
    LoraConfig {
        r: c.r,
        alpha: c.lora_alpha,
        dropout: c.lora_dropout,
        target_modules: a.modules(),
        exclude_modules: Vec::new(),
        layers: None,
        rslora: c.use_rslora,
        dora: c.use_dora,
        modules_to_save: a.tables(),
    }
}
