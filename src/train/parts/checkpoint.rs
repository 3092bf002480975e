//! A checkpoint: what the model learned, in the field's own files, and all that the loop needs to go on to the bit.
//!
//! | file | what |
//! | --- | --- |
//! | `adapter_model.safetensors`, `adapter_config.json` | LoRA: opens in PEFT |
//! | `model.safetensors`, `config.json`, tokenizer files | full tuning: opens in transformers |
//! | `optimizer.safetensors` | AdamW's `exp_avg` and `exp_avg_sq` in the order of the trainables: f32, or for `adamw_8bit` bytes with their `absmax` |
//! | `trainer_state.json` | [`Progress`] |
//!
//! Randomness is counter-based (seed, step, layer) and the data order a function of (seed, step): the step number is
//! their whole state.

use crate::export::adapter;
use crate::model::engine::Engine;
use crate::ops::optimizer::{Codes, Moments};
use crate::{Error, Result};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};
use std::path::Path;

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const PROGRESS: &str = "trainer_state.json";
/// Tensors of the optimizer's file.
const M: &str = "exp_avg";
const V: &str = "exp_avg_sq";
const ABSMAX_M: &str = "exp_avg.absmax";
const ABSMAX_V: &str = "exp_avg_sq.absmax";

/// Where the loop stands after `step` optimizer steps.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Progress {
    pub step: u64,
    pub tokens: u64,
    pub label_tokens: u64,
    /// Steps the optimizer has made, for its bias correction.
    pub adam_steps: u64,
    /// The lowest eval loss and its step.
    pub best: Option<Best>,
    pub evals_without_improvement: u64,
    /// Recipe values changed while the run went on: key and TOML value, in order.
    pub changes: Vec<(String, String)>,
    /// Processes that train together: they decide what a step is.
    #[serde(default = "one")]
    pub processes: usize,
    /// Identity of the training examples: a resume over other data is refused.
    pub data: String,
}

fn one() -> usize {
    1
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    pub loss: f64,
    pub step: u64,
}

/// What goes beside the weights so that other tools can open them.
pub enum Saved<'a> {
    Adapter(&'a adapter::AdapterConfig),
    /// Files to write beside `model.safetensors`: name and content.
    Full(&'a [(String, Vec<u8>)]),
}

/// Fill `dir` with a checkpoint.
pub fn write(dir: &Path, model: &Engine, progress: &Progress, saved: &Saved) -> Result<()> {
    model.fetch()?;
    match saved {
        Saved::Adapter(config) => adapter::write(dir, config, &entries(model)?)?,
        Saved::Full(companions) => {
            write_model(&dir.join(MODEL), model)?;
            for (name, bytes) in companions.iter() {
                write_file(&dir.join(name), bytes)?;
            }
        }
    }
    let (moments, _) = model.moments()?;
    let numbers: Vec<(&str, Dtype, &[u8])> = match &moments {
        Moments::Torch { m, v } => vec![(M, Dtype::F32, as_bytes(m)), (V, Dtype::F32, as_bytes(v))],
        Moments::EightBit(c) => vec![
            (M, Dtype::U8, &c.m),
            (V, Dtype::U8, &c.v),
            (ABSMAX_M, Dtype::F32, as_bytes(&c.absmax_m)),
            (ABSMAX_V, Dtype::F32, as_bytes(&c.absmax_v)),
        ],
    };
    let views = numbers
        .into_iter()
        .map(|(name, kind, data)| {
            let len = data.len() / if kind == Dtype::F32 { 4 } else { 1 };
            Ok((name, TensorView::new(kind, vec![len], data).map_err(broken)?))
        })
        .collect::<Result<Vec<_>>>()?;
    write_file(&dir.join(OPTIMIZER), &safetensors::serialize(views, None).map_err(broken)?)?;
    write_file(&dir.join(PROGRESS), serde_json::to_string_pretty(progress)?.as_bytes())
}

/// Only the progress of the checkpoint in `dir`.
pub fn read_progress(dir: &Path) -> Result<Progress> {
    let path = dir.join(PROGRESS);
    let text = std::fs::read_to_string(&path).map_err(|e| unreadable(&path, e))?;
    serde_json::from_str(&text).map_err(|e| unreadable(&path, e))
}

/// Put what trains back to where it stood at the checkpoint in `dir`.
pub fn read_values(dir: &Path, model: &Engine) -> Result<()> {
    if dir.join(adapter::CONFIG).is_file() {
        return put_adapter(model, &adapter::read(dir)?);
    }
    let mut values = vec![0f32; model.params().len()];
    let file = dir.join(MODEL);
    let bytes = std::fs::read(&file).map_err(|e| unreadable(&file, e))?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|e| unreadable(&file, e))?;
    for entry in model.params().entries() {
        let t = tensors.tensor(&entry.name).map_err(|e| unreadable(&file, e))?;
        copy_f32(&t, &mut values[entry.range.clone()], &file, &entry.name)?;
    }
    model.set_values(&values)
}

/// Put model and optimizer back to where they stood at the checkpoint in `dir`.
pub fn read(dir: &Path, model: &mut Engine) -> Result<Progress> {
    let progress = read_progress(dir)?;
    read_values(dir, model)?;
    let path = dir.join(OPTIMIZER);
    let bytes = std::fs::read(&path).map_err(|e| unreadable(&path, e))?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|e| unreadable(&path, e))?;
    let tensor = |name: &str| tensors.tensor(name).map_err(|e| unreadable(&path, e));
    let f32s = |name: &str| -> Result<Vec<f32>> {
        let t = tensor(name)?;
        let mut values = vec![0f32; t.shape().iter().product()];
        copy_f32(&t, &mut values, &path, name)?;
        Ok(values)
    };
    let moments = match tensor(M)?.dtype() {
        Dtype::U8 => Moments::EightBit(Codes {
            m: tensor(M)?.data().to_vec(),
            v: tensor(V)?.data().to_vec(),
            absmax_m: f32s(ABSMAX_M)?,
            absmax_v: f32s(ABSMAX_V)?,
        }),
        _ => Moments::Torch { m: f32s(M)?, v: f32s(V)? },
    };
    model.set_moments(&moments, progress.adam_steps).map_err(|e| e.at(path.display()))?;
    Ok(progress)
}

/// Give the trainables an adapter's values. Its matrices must be just those that the model trains.
pub fn put_adapter(model: &Engine, adapter: &adapter::Adapter) -> Result<()> {
    adapter.fits(model.config())?;
    let entries = adapter.of_model(model.config());
    let params = model.params();
    let mut values = vec![0f32; params.len()];
    if entries.len() != params.entries().len() {
        let (theirs, ours) = (entries.len(), params.entries().len());
        return Err(Error::new(format!("the adapter has {theirs} matrices, the recipe trains {ours}"))
            .next("resume with the recipe that wrote it; of a given adapter, [lora] is its own"));
    }
    for entry in params.entries() {
        let found = entries.iter().find(|e| e.0 == entry.name && e.1 == entry.shape);
        let (_, _, from) = found.ok_or_else(|| Error::new("the adapter has no such matrix").at(&entry.name))?;
        values[entry.range.clone()].copy_from_slice(from);
    }
    model.set_values(&values)
}

/// The trainables as named f32 tensors, as of the last [`Engine::fetch`].
pub fn entries(model: &Engine) -> Result<Vec<adapter::Entry>> {
    let values = model.params().values()?;
    Ok(model
        .params()
        .entries()
        .iter()
        .map(|e| (e.name.clone(), e.shape.clone(), values[e.range.clone()].to_vec()))
        .collect())
}

fn write_model(path: &Path, model: &Engine) -> Result<()> {
    let state = model.full_state()?;
    let mut held = Vec::with_capacity(state.len());
    for (name, tensor) in &state {
        held.push((name, tensor.dims().to_vec(), tensor.flatten_all()?.to_vec1::<f32>()?));
    }
    let views = held
        .iter()
        .map(|(n, d, v)| Ok((n.as_str(), TensorView::new(Dtype::F32, d.clone(), as_bytes(v)).map_err(broken)?)))
        .collect::<Result<Vec<_>>>()?;
    let meta = [("format".to_string(), "pt".to_string())].into_iter().collect();
    write_file(path, &safetensors::serialize(views, Some(meta)).map_err(broken)?)
}

fn copy_f32(t: &TensorView, into: &mut [f32], file: &Path, name: &str) -> Result<()> {
    if t.dtype() != Dtype::F32 || t.data().len() != into.len() * 4 {
        return Err(Error::new(format!(
            "found {:?} {:?}, expected F32 of {} values",
            t.dtype(),
            t.shape(),
            into.len()
        ))
        .at(format!("{}, {name}", file.display()))
        .next("this checkpoint belongs to another recipe: resume with the run's own"));
    }
    for (v, b) in into.iter_mut().zip(t.data().chunks_exact(4)) {
        *v = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    }
    Ok(())
}

fn as_bytes(v: &[f32]) -> &[u8] {
    // SAFETY: f32 has no padding and every bit pattern is a valid u8 sequence; the lifetime is that of `v`.
    // safetensors is little-endian, as is every machine candle's CPU backend runs on.
    unsafe { std::slice::from_raw_parts(v.as_ptr().cast(), std::mem::size_of_val(v)) }
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    let full = |e: std::io::Error| {
        Error::new(format!("cannot write: {e}")).at(path.display()).next("free some disk, then resume the run")
    };
    let mut file = std::fs::File::create(path).map_err(full)?;
    file.write_all(bytes).map_err(full)?;
    file.sync_all().map_err(full)
}

fn unreadable(path: &Path, e: impl std::fmt::Display) -> Error {
    Error::new(format!("cannot read: {e}"))
        .at(path.display())
        .next("resume from an earlier checkpoint: --resume RUN@STEP")
}

fn broken(e: safetensors::SafeTensorError) -> Error {
    Error::new(format!("safetensors: {e}"))
}
