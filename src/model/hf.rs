//! Models as Hugging Face lays them out: `config.json`, safetensors in one file or in shards, tokenizer files.
//!
//! Must not know GGUF, nor how a tokenizer works.

use crate::model::config::{Config, Hold, Weights};
use crate::model::convert::{Float, floats};
use crate::model::files::{Bytes, Files};
use crate::model::stacked::Place;
use crate::model::{bnb, held};
use crate::ops::lent::Lent;
use crate::ops::matrix::Matrix;
use crate::ops::packed::{Kind, Packed};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use safetensors::{Dtype, SafeTensors};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// A model folder (or the built-in files), with its configuration read.
pub struct HfModel {
    pub files: Files,
    pub config: Config,
    /// Whether bitsandbytes has quantized its linear layers.
    pub quantized: bool,
    /// Whether it says that its weights are in f32.
    pub wide: bool,
}

const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";

impl HfModel {
    /// Read `config.json` and `generation_config.json`.
    pub fn open(files: Files) -> Result<Self> {
        let Some(config) = files.json("config.json")? else {
            let place = files.label("config.json");
            if files.has("adapter_config.json") {
                return Err(Error::new("this folder holds an adapter, not a model")
                    .at(place)
                    .next("name its base model in model.name_or_path and the adapter in lora.adapter_name_or_path"));
            }
            return Err(Error::new("not found")
                .at(place)
                .next("name a folder with config.json and *.safetensors, or a .gguf file"));
        };
        let generation = files.json("generation_config.json")?;
        // mxfp4 is in the experts' own tensors.
        let quantized = config.get("quantization_config").is_some_and(|q| bnb::check(q).is_ok());
        let dtype = config.get("dtype").or(config.get("torch_dtype")).and_then(|d| d.as_str());
        let wide = dtype == Some("float32");
        let config = Config::from_hf(&config, generation.as_ref()).map_err(|e| e.at(files.label("config.json")))?;
        Ok(Self { files, config, quantized, wide })
    }

    /// All weights in f32: [`Self::held`] with [`Hold::Full`].
    pub fn weights(&self) -> Result<Weights> {
        self.held(Hold::Full)
    }

    /// All weights, held as `hold` says. Reads through a memory map, converts in parallel; packed matrices lend their bytes
    /// from the map.
    ///
    /// Errors name the file and the tensor, and the expected and found shapes.
    pub fn held(&self, hold: Hold) -> Result<Weights> {
        let names = self.shard_names()?;
        let bytes = names.iter().map(|n| Ok(Arc::new(self.files.bytes(n)?))).collect::<Result<Vec<Arc<Bytes>>>>()?;
        let mut shards = Vec::new();
        for (name, bytes) in names.iter().zip(&bytes) {
            let shard = SafeTensors::deserialize(bytes).map_err(|e| {
                Error::new(format!("not a whole safetensors file: {e}"))
                    .at(self.files.label(name))
                    .next("copy or download the file again")
            })?;
            shards.push(shard);
        }
        let mut place_of = HashMap::new();
        for (i, shard) in shards.iter().enumerate() {
            for name in shard.names() {
                place_of.insert(name.to_string(), i);
            }
        }
        let wanted = self.config.tensor_shapes();
        self.refuse_unknown(&place_of, &wanted, &names)?;

        let read = wanted
            .par_iter()
            .map(|(name, shape)| {
                let stack = Place::of(&self.config, name).filter(|_| !place_of.contains_key(name));
                if let Some(stack) = stack {
                    let count = self.config.traits.experts.map_or(0, |e| e.count);
                    let find = |tensor: &str| place_of.get(tensor).map(|&i| &shards[i]);
                    let values = stack.read(&find, count, shape).map_err(|e| e.at(self.files.label(&names[0])))?;
                    let tensor = Tensor::from_vec(values, shape.as_slice(), &Device::Cpu)?;
                    return Ok((name.clone(), Matrix::Dense(tensor)));
                }
                let Some(&i) = place_of.get(name) else {
                    return Err(Error::new(format!("tensor {name} {shape:?} is missing"))
                        .at(self.files.label(if names.len() == 1 { &names[0] } else { INDEX }))
                        .next("the weights and config.json must belong together"));
                };
                let place = || format!("{}: {name}", self.files.label(&names[i]));
                let read = match shape.as_slice() {
                    &[rows, cols] => {
                        stored(&shards[i], &bytes[i], name, (rows, cols)).and_then(|m| held::matrix(name, m, hold))
                    }
                    _ => view(&shards[i], name, shape).and_then(|(data, kind)| {
                        Ok(Matrix::Dense(Tensor::from_vec(floats(data, kind), shape.as_slice(), &Device::Cpu)?))
                    }),
                };
                Ok((name.clone(), read.map_err(|e| e.at(place()))?))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(held::weights(&self.config, read))
    }

    /// The safetensors files by name, mapped; tensors that the architecture has no place for are refused.
    pub fn shards(&self) -> Result<Vec<(String, Arc<Bytes>)>> {
        let names = self.shard_names()?;
        let shards =
            names.iter().map(|n| Ok((n.clone(), Arc::new(self.files.bytes(n)?)))).collect::<Result<Vec<_>>>()?;
        let mut place_of = HashMap::new();
        for (i, (name, bytes)) in shards.iter().enumerate() {
            let shard = SafeTensors::deserialize(bytes).map_err(|e| {
                Error::new(format!("not a whole safetensors file: {e}"))
                    .at(self.files.label(name))
                    .next("copy or download the file again")
            })?;
            place_of.extend(shard.names().into_iter().map(|n| (n.to_string(), i)));
        }
        self.refuse_unknown(&place_of, &self.config.tensor_shapes(), &names)?;
        Ok(shards)
    }

    /// The safetensors files, each once, in the index's alphabetical order.
    fn shard_names(&self) -> Result<Vec<String>> {
        let Some(index) = self.files.json(INDEX)? else {
            if self.files.has(SINGLE) {
                return Ok(vec![SINGLE.to_string()]);
            }
            let names = self.files.names()?;
            let pickled = names.iter().find(|n| n.ends_with(".bin") || n.ends_with(".pth") || n.ends_with(".pt"));
            return Err(match pickled {
                Some(name) => Error::new("weights in PyTorch's pickle format are not read: loading one can run code")
                    .at(self.files.label(name))
                    .next("convert it once with transformers: save_pretrained writes safetensors"),
                None => {
                    Error::new("no weights").at(self.files.label(SINGLE)).next(format!("expected {SINGLE} or {INDEX}"))
                }
            });
        };
        let place = || self.files.label(INDEX);
        let Some(map) = index.get("weight_map").and_then(|m| m.as_object()) else {
            return Err(Error::new("weight_map is missing").at(place()));
        };
        let mut names = BTreeSet::new();
        for (tensor, file) in map {
            let Some(file) = file.as_str().filter(|f| !f.contains(['/', '\\'])) else {
                return Err(
                    Error::new(format!("weight_map: {tensor} names no file of this folder: {file}")).at(place())
                );
            };
            if !self.files.has(file) {
                return Err(Error::new(format!("shard {file} is missing (it holds {tensor})"))
                    .at(place())
                    .next("copy or download the missing file"));
            }
            names.insert(file.to_string());
        }
        Ok(names.into_iter().collect())
    }

    /// A tensor that the architecture does not have would change the model's arithmetic (a bias, an expert).
    fn refuse_unknown(
        &self,
        place_of: &HashMap<String, usize>,
        wanted: &[(String, Vec<usize>)],
        names: &[String],
    ) -> Result<()> {
        let known: std::collections::HashSet<&str> = wanted.iter().map(|(n, _)| n.as_str()).collect();
        let stacked = wanted.iter().filter_map(|(n, _)| Place::of(&self.config, n)).flat_map(|p| p.tensors());
        let stacked: std::collections::HashSet<String> = stacked.collect();
        let mut unknown: Vec<&String> = place_of
            .keys()
            .filter(|n| !known.contains(n.as_str()) && !stacked.contains(n.as_str()))
            .filter(|n| !(self.quantized && bnb::weight_of(n).is_some_and(|w| known.contains(w))))
            // A tied head that is stored all the same; a buffer that old checkpoints carry.
            .filter(|n| n.as_str() != "lm_head.weight" && !n.ends_with("rotary_emb.inv_freq"))
            .collect();
        unknown.sort();
        match unknown.first() {
            None => Ok(()),
            Some(name) => Err(Error::new(format!(
                "{} tensors that this {} model has no place for, first {name}",
                unknown.len(),
                self.config.model_type
            ))
            .at(self.files.label(&names[place_of[*name]]))
            .next("is this the checkpoint of another architecture, or an adapter?")),
        }
    }
}

/// A tensor's bytes and type, its shape checked.
fn view<'a>(shard: &SafeTensors<'a>, name: &str, shape: &[usize]) -> Result<(&'a [u8], Float)> {
    let view = shard.tensor(name).map_err(|e| Error::new(e.to_string()))?;
    if view.shape() != shape {
        return Err(Error::new(format!("shape {:?}, but config.json asks for {shape:?}", view.shape())));
    }
    let kind = match view.dtype() {
        Dtype::F32 => Float::F32,
        Dtype::F16 => Float::F16,
        Dtype::BF16 => Float::BF16,
        other => {
            return Err(
                Error::new(format!("stored as {other:?}, which is not supported")).next("supported: F32, F16, BF16")
            );
        }
    };
    Ok((view.data(), kind))
}

/// A matrix as it is stored: in floats, or as bitsandbytes has quantized it.
pub fn stored(shard: &SafeTensors, file: &Arc<Bytes>, name: &str, (rows, cols): (usize, usize)) -> Result<Packed> {
    let lend = |data: &[u8]| {
        let start = data.as_ptr() as usize - file.as_ptr() as usize;
        Lent::of(file.clone(), start..start + data.len()).ok_or_else(|| Error::new("the file ends too early"))
    };
    if bnb::is_packed(shard, name) {
        return Ok(Packed::nf4(bnb::read(shard, name, (rows, cols), &lend)?));
    }
    let (data, kind) = view(shard, name, &[rows, cols])?;
    let kind = match kind {
        Float::F32 => Kind::F32,
        Float::F16 => Kind::F16,
        Float::BF16 => Kind::BF16,
    };
    Packed::blocks(kind, rows, cols, lend(data)?)
}

#[cfg(test)]
mod tests;
