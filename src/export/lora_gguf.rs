//! An adapter alone as a GGUF, for llama.cpp's `--lora` and a Modelfile's ADAPTER (convert_lora_to_gguf.py).
//!
//! A and B are f32, as they were trained. Rows of B follow llama.cpp's order of q and k.

use super::adapter::{Adapter, Entry};
use super::gguf::writer::{self, Tensor};
use super::gguf::{Keys, Value};
use super::quant::{Kind, quantize};
use super::weights::straightened;
use crate::model::config::Config;
use crate::model::convert::{Float, floats};
use crate::model::gguf::{GgufFile, architecture, gguf_name, is_interleaved};
use crate::{Error, Result};
use std::path::Path;

/// An entry's name in the file, and whether its rows are those of q or k.
fn place(c: &Config, entry: &Entry) -> (String, bool) {
    let (module, side) = match entry.0.strip_suffix(".lora_A.weight") {
        Some(module) => (module, "lora_a"),
        None => (entry.0.strip_suffix(".lora_B.weight").unwrap_or(&entry.0), "lora_b"),
    };
    let weight = format!("{module}.weight");
    (format!("{}.{side}", gguf_name(c, &weight)), side == "lora_b" && is_interleaved(c, &weight))
}

/// What llama.cpp divides by the rank: of rsLoRA, `lora_alpha · √r`.
fn alpha(adapter: &Adapter) -> f64 {
    let c = &adapter.config;
    if c.use_rslora { c.lora_alpha * (c.r as f64).sqrt() } else { c.lora_alpha }
}

/// Write `adapter` of a model shaped as `config`. Returns the bytes.
///
/// # Errors
/// When the adapter was made for another shape.
pub fn write(adapter: &Adapter, config: &Config, name: &str, path: &Path) -> Result<u64> {
    super::refuse_stacked(config)?;
    adapter.fits(config)?;
    let next = "merge it: finetop merge, or export the whole model";
    if adapter.config.use_dora {
        return Err(Error::new("llama.cpp has no DoRA: its magnitudes have no place in an adapter's GGUF").next(next));
    }
    if !adapter.tables().is_empty() {
        let what = "llama.cpp's adapters hold no whole embed_tokens or lm_head";
        return Err(Error::new(what).next(next));
    }
    let mut keys = Keys::default();
    keys.text("general.architecture", architecture(config));
    keys.text("general.type", "adapter");
    keys.text("adapter.type", "lora");
    keys.text("general.name", name);
    keys.float("adapter.lora.alpha", alpha(adapter));
    keys.set("general.quantization_version", Value::U32(2));
    let tensors: Vec<Tensor> = adapter
        .entries
        .iter()
        .map(|e| Tensor {
            name: place(config, e).0,
            rows: e.1[0],
            columns: e.1[1],
            dimensions: 2,
            matrices: 1,
            kind: Kind::F32,
        })
        .collect();
    let fill = |tensor: usize, first: usize, out: &mut [u8]| -> Result<()> {
        let entry = &adapter.entries[tensor];
        let (columns, rotary) = (entry.1[1], place(config, entry).1);
        for (n, out) in out.chunks_exact_mut(columns * 4).enumerate() {
            let at = first + n;
            let row = if rotary { straightened(at, config.head_dim) } else { at };
            quantize(Kind::F32, &entry.2[row * columns..(row + 1) * columns], out)?;
        }
        Ok(())
    };
    writer::write(path, &keys, &tensors, &fill, &mut |_| {})
}

/// Whether the file holds an adapter rather than a model.
pub fn is_adapter(file: &GgufFile) -> bool {
    matches!(file.metadata().text("general.type"), Ok(Some("adapter")))
}

/// Read the file again and hold it against the adapter: how many matrices are equal to the bit.
///
/// # Errors
/// At the first difference.
pub fn compare(file: &GgufFile, adapter: &Adapter, config: &Config) -> Result<usize> {
    let alpha = file.metadata().float("adapter.lora.alpha")?;
    if alpha.map(|a| a as f32) != Some(self::alpha(adapter) as f32) {
        return Err(Error::new(format!("alpha is {alpha:?} and was {} in training", self::alpha(adapter))));
    }
    for entry in &adapter.entries {
        let (name, rotary) = place(config, entry);
        let (kind, bytes) = file.stored(&name, &entry.1)?;
        if kind != candle_core::quantized::GgmlDType::F32 {
            return Err(Error::new(format!("stored as {kind:?}")).at(&name));
        }
        let columns = entry.1[1];
        for (at, row) in floats(bytes, Float::F32).chunks_exact(columns).enumerate() {
            let from = if rotary { straightened(at, config.head_dim) } else { at };
            if row != &entry.2[from * columns..(from + 1) * columns] {
                return Err(Error::new(format!("row {at} is not what was trained")).at(&name));
            }
        }
    }
    Ok(adapter.entries.len())
}
