//! A model's weights as they lie on disk, read a few rows at a time: what is exported need not fit in memory.
//!
//! Names, numbers and row order are Hugging Face's, whatever the file, one matrix an expert; or, row by row, as llama.cpp
//! lays them out. An adapter is added to the rows on the way, in f32.
//! Must not know where the rows go.

use super::adapter::Adapter;
use super::quant::Kind;
use crate::model::config::Config;
use crate::model::convert::{Float, dequantize, widen};
use crate::model::files::Bytes;
use crate::model::gguf::{expert, gguf_name, is_interleaved, offset};
use crate::model::loading::Opened;
use crate::model::{bnb, hf};
use crate::ops::packed::Packed;
use crate::ops::simd::vectorized;
use crate::{Error, Result};
use candle_core::quantized::GgmlDType;
use safetensors::{Dtype, SafeTensors};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Where a tensor lies: shard, bytes, type.
type Place = (usize, Range<usize>, Float);

/// An opened model's weights, with an adapter on them or none.
pub struct Weights<'a> {
    pub config: &'a Config,
    model: &'a Opened,
    shards: Vec<(String, Arc<Bytes>)>,
    places: HashMap<String, Place>,
    names: Vec<String>,
    shapes: HashMap<String, Vec<usize>>,
    adapter: Option<&'a Adapter>,
    /// Factor of B · A.
    scale: f32,
    /// Of the adapter as a whole.
    factor: f32,
}

/// One weight: `shape` is `[rows, columns]`, or `[values]`, which is one row.
pub struct Matrix<'a> {
    pub name: String,
    pub rows: usize,
    pub columns: usize,
    pub dimensions: usize,
    stored: &'a [u8],
    kind: GgmlDType,
    /// In place of `stored`, where bitsandbytes has quantized it.
    nf4: Option<Packed>,
    /// How llama.cpp lays it out.
    layout: Layout,
    /// Whether the file is llama.cpp's.
    is_gguf: bool,
    delta: Option<Delta<'a>>,
}

/// What a GGUF does to a weight.
#[derive(Debug, Clone, Copy)]
struct Layout {
    /// Rows of a head, where a head's two halves are interleaved (q and k of a Llama).
    interleaved: Option<usize>,
    /// Added to every number (Gemma's norms).
    offset: f32,
}

/// What an adapter makes of a weight.
enum Delta<'a> {
    Lora {
        /// `[r, columns]`
        a: &'a [f32],
        /// `[rows, r]`
        b: &'a [f32],
        r: usize,
        scale: f32,
        /// DoRA's: the length that each row gets.
        magnitude: Option<&'a [f32]>,
    },
    /// Trained whole: `[rows, columns]`, taken at this share.
    Whole(&'a [f32], f32),
}

impl<'a> Weights<'a> {
    /// # Errors
    /// When a tensor is missing, of another shape or type than the configuration asks for, or one that the architecture has no
    /// place for; when the adapter was made for another shape.
    pub fn open(model: &'a Opened, adapter: Option<&'a Adapter>) -> Result<Self> {
        let config = model.config();
        if let Some(adapter) = adapter {
            adapter.fits(config)?;
        }
        let scale = adapter.map_or(0.0, |a| a.config.scale() as f32);
        let (mut shards, mut places) = (Vec::new(), HashMap::new());
        match model {
            Opened::Gguf(m) => {
                m.refuse_strangers()?;
            }
            Opened::Hf(m) => {
                super::refuse_stacked(config)?;
                shards = m.shards()?;
                for (i, (name, bytes)) in shards.iter().enumerate() {
                    places.extend(index(bytes, i, config).map_err(|e| e.at(m.files.label(name)))?);
                }
            }
        }
        let all = config.tensor_shapes();
        let names = all.iter().map(|(name, _)| name.clone()).collect();
        Ok(Self {
            config,
            model,
            shards,
            places,
            names,
            shapes: all.into_iter().collect(),
            adapter,
            scale,
            factor: 1.0,
        })
    }

    /// The adapter times `factor` rather than once: B · A; of what was trained whole, its difference.
    pub fn scaled(mut self, factor: f64) -> Self {
        self.factor = factor as f32;
        self.scale = (f64::from(self.scale) * factor) as f32;
        self
    }

    /// Names and shapes of all weights, as the configuration gives them.
    pub fn names(&self) -> Vec<String> {
        self.names.clone()
    }

    /// One weight by its Hugging Face name.
    pub fn matrix(&self, name: &str) -> Result<Matrix<'_>> {
        let Some(shape) = self.shapes.get(name) else {
            return Err(Error::new("the model has no such tensor").at(name));
        };
        let mut nf4 = None;
        let (kind, stored): (_, &[u8]) = match self.model {
            Opened::Gguf(m) => {
                let stored_name = gguf_name(self.config, name);
                match (expert(name), self.config.traits.experts) {
                    // One of a stack's.
                    (Some((number, _)), Some(experts)) => {
                        let (kind, bytes) =
                            m.file.stored(&stored_name, &[&[experts.count], shape.as_slice()].concat())?;
                        let size = bytes.len() / experts.count;
                        let own = bytes.get(number * size..(number + 1) * size);
                        (kind, own.ok_or_else(|| Error::new("there is no such expert").at(name))?)
                    }
                    _ => m.file.stored(&stored_name, shape)?,
                }
            }
            Opened::Hf(m) => {
                let Some((shard, range, kind)) = self.places.get(name) else {
                    return Err(Error::new(format!("tensor {name} {shape:?} is missing"))
                        .at(m.files.label(&self.shards[0].0))
                        .next("the weights and config.json must belong together"));
                };
                let kind = match kind {
                    Float::F32 => GgmlDType::F32,
                    Float::F16 => GgmlDType::F16,
                    Float::BF16 => GgmlDType::BF16,
                };
                if let (true, &[rows, columns]) = (m.quantized, shape.as_slice()) {
                    let bytes = &self.shards[*shard].1;
                    let file = SafeTensors::deserialize(bytes).map_err(|e| Error::new(e.to_string()).at(name))?;
                    let stored = hf::stored(&file, bytes, name, (rows, columns)).map_err(|e| e.at(name))?;
                    nf4 = stored.as_nf4().is_some().then_some(stored);
                }
                (kind, &self.shards[*shard].1[range.clone()])
            }
        };
        let (rows, columns) = match shape.as_slice() {
            [rows, columns] => (*rows, *columns),
            other => (1, other.iter().product()),
        };
        let delta = self.adapter.and_then(|a| Delta::of(a, name, self.scale, self.factor));
        let layout = Layout {
            interleaved: is_interleaved(self.config, name).then_some(self.config.head_dim),
            offset: offset(self.config, name),
        };
        let (dimensions, is_gguf) = (shape.len(), matches!(self.model, Opened::Gguf(_)));
        Ok(Matrix { name: name.to_string(), rows, columns, dimensions, stored, kind, nf4, layout, is_gguf, delta })
    }
}

/// Where this file's tensors lie, checked against the configuration.
fn index(bytes: &Bytes, shard: usize, config: &Config) -> Result<Vec<(String, Place)>> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| Error::new(format!("not a whole safetensors file: {e}")))?;
    let shapes: HashMap<String, Vec<usize>> = config.tensor_shapes().into_iter().collect();
    let mut places = Vec::new();
    for (name, view) in file.iter() {
        // A tied head that is stored all the same.
        let Some(shape) = shapes.get(name) else { continue };
        let start = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
        let range = start..start + view.data().len();
        if bnb::is_packed(&file, name) {
            // What its parts are is looked at when it is read.
            places.push((name.to_string(), (shard, range, Float::F32)));
            continue;
        }
        if view.shape() != shape.as_slice() {
            return Err(Error::new(format!("{name}: shape {:?}, but config.json asks for {shape:?}", view.shape())));
        }
        let kind = match view.dtype() {
            Dtype::F32 => Float::F32,
            Dtype::F16 => Float::F16,
            Dtype::BF16 => Float::BF16,
            other => {
                return Err(Error::new(format!("{name} is stored as {other:?}, which is not supported"))
                    .next("supported: F32, F16, BF16"));
            }
        };
        places.push((name.to_string(), (shard, range, kind)));
    }
    Ok(places)
}

impl<'a> Delta<'a> {
    fn of(adapter: &'a Adapter, name: &str, scale: f32, factor: f32) -> Option<Self> {
        let find = |wanted: &str| adapter.entries.iter().find(|(n, ..)| n == wanted).map(|e| e.2.as_slice());
        // A tied head is saved under its own name too; it is no weight of the model then, and is not asked for.
        if let Some(whole) = find(name) {
            return Some(Self::Whole(whole, factor));
        }
        let module = name.strip_suffix(".weight")?;
        let magnitude = find(&format!("{module}.lora_magnitude_vector"));
        let half = |side: &str| find(&format!("{module}.{side}.weight"));
        Some(Self::Lora { a: half("lora_A")?, b: half("lora_B")?, r: adapter.config.r, scale, magnitude })
    }
}

vectorized! {
    /// `row += scale · Σ b[k] · a[k]`, the sum taken first, in the order of k.
    fn add_product(row: &mut [f32], b: &[f32], a: &[f32], scale: f32, sum: &mut [f32]) {
        sum.fill(0.0);
        for (b, a) in b.iter().zip(a.chunks_exact(row.len())) {
            for (s, a) in sum.iter_mut().zip(a) {
                *s += b * a;
            }
        }
        for (row, s) in row.iter_mut().zip(sum) {
            *row += scale * *s;
        }
    }
}

impl Matrix<'_> {
    pub fn values(&self) -> usize {
        self.rows * self.columns
    }

    /// The type on disk, where it is one of [`Kind`].
    pub fn kind(&self) -> Option<Kind> {
        use GgmlDType as G;
        if self.nf4.is_some() {
            return None;
        }
        Some(match self.kind {
            G::F32 => Kind::F32,
            G::F16 => Kind::F16,
            G::BF16 => Kind::BF16,
            G::Q4_0 => Kind::Q4_0,
            G::Q4_1 => Kind::Q4_1,
            G::Q5_0 => Kind::Q5_0,
            G::Q5_1 => Kind::Q5_1,
            G::Q8_0 => Kind::Q8_0,
            G::Q2K => Kind::Q2K,
            G::Q3K => Kind::Q3K,
            G::Q4K => Kind::Q4K,
            G::Q5K => Kind::Q5K,
            G::Q6K => Kind::Q6K,
            _ => return None,
        })
    }

    /// The bytes on disk, where they are what llama.cpp would store: in its layout, and no adapter on them.
    pub fn bytes_for_gguf(&self) -> Option<&[u8]> {
        let same = self.is_gguf || (self.layout.interleaved.is_none() && self.layout.offset == 0.0);
        (self.delta.is_none() && self.nf4.is_none() && same).then_some(self.stored)
    }

    /// Row `row` of llama.cpp's order, as it stores it, into `out` (`columns` values).
    pub fn gguf_row(&self, row: usize, out: &mut [f32]) -> Result<()> {
        match self.layout.interleaved {
            Some(head_dim) if self.dimensions > 1 => self.row(straightened(row, head_dim), out)?,
            Some(head_dim) => {
                // A bias: one row, whose numbers are those of the matrix's rows.
                let mut own = vec![0f32; self.columns];
                self.row(row, &mut own)?;
                out.iter_mut().enumerate().for_each(|(i, v)| *v = own[straightened(i, head_dim)]);
            }
            None => self.row(row, out)?,
        }
        if self.layout.offset != 0.0 {
            out.iter_mut().for_each(|v| *v += self.layout.offset);
        }
        Ok(())
    }

    /// Whether the adapter changes it.
    pub fn is_tuned(&self) -> bool {
        self.delta.is_some()
    }

    /// Row `row` of Hugging Face's order, into `out` (`columns` values).
    pub fn row(&self, row: usize, out: &mut [f32]) -> Result<()> {
        self.base_row(row, out)?;
        match &self.delta {
            None => {}
            Some(Delta::Whole(values, share)) => {
                let new = &values[row * self.columns..(row + 1) * self.columns];
                match *share == 1.0 {
                    true => out.copy_from_slice(new),
                    false => out.iter_mut().zip(new).for_each(|(w, new)| *w += share * (new - *w)),
                }
            }
            Some(Delta::Lora { a, b, r, scale, magnitude }) => {
                let mut sum = vec![0f32; self.columns];
                add_product(out, &b[row * r..(row + 1) * r], a, *scale, &mut sum);
                if let Some(m) = magnitude {
                    let square: f64 = out.iter().map(|w| f64::from(*w).powi(2)).sum();
                    let g = (f64::from(m[row]) / square.max(f64::MIN_POSITIVE).sqrt()) as f32;
                    out.iter_mut().for_each(|w| *w *= g);
                }
            }
        }
        Ok(())
    }

    /// As [`Self::row`], without the adapter.
    pub fn base_row(&self, row: usize, out: &mut [f32]) -> Result<()> {
        if let Some(nf4) = &self.nf4 {
            nf4.row(row, out);
            return Ok(());
        }
        let layout = if self.is_gguf { self.layout } else { Layout { interleaved: None, offset: 0.0 } };
        let is_bias = self.dimensions == 1;
        let stored_row = layout.interleaved.filter(|_| !is_bias).map_or(row, |head_dim| interleaved(row, head_dim));
        let size = self.stored.len() / self.rows;
        let bytes = &self.stored[stored_row * size..(stored_row + 1) * size];
        match self.kind {
            GgmlDType::F32 => widen(bytes, Float::F32, out),
            GgmlDType::F16 => widen(bytes, Float::F16, out),
            GgmlDType::BF16 => widen(bytes, Float::BF16, out),
            kind => out.copy_from_slice(&dequantize(bytes, kind, self.columns).map_err(|e| e.at(&self.name))?),
        }
        if let (Some(head_dim), true) = (layout.interleaved, is_bias) {
            let own = out.to_vec();
            out.iter_mut().enumerate().for_each(|(i, v)| *v = own[interleaved(i, head_dim)]);
        }
        if layout.offset != 0.0 {
            out.iter_mut().for_each(|v| *v -= layout.offset);
        }
        Ok(())
    }
}

/// Where llama.cpp keeps a row of q or k: inside a head it interleaves the two halves that the rotary embedding pairs.
pub fn interleaved(row: usize, head_dim: usize) -> usize {
    let (head, within) = (row / head_dim, row % head_dim);
    let (half, pair) = (within / (head_dim / 2), within % (head_dim / 2));
    head * head_dim + 2 * pair + half
}

/// The row of Hugging Face's order that llama.cpp keeps at `row`.
pub fn straightened(row: usize, head_dim: usize) -> usize {
    let (head, within) = (row / head_dim, row % head_dim);
    head * head_dim + within % 2 * (head_dim / 2) + within / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_row_orders_undo_each_other() {
        for row in 0..128 {
            assert_eq!(straightened(interleaved(row, 64), 64), row);
        }
        // convert_hf_to_gguf.py's permute of one head of 8: 0 4 1 5 2 6 3 7.
        let order: Vec<usize> = (0..8).map(|r| straightened(r, 8)).collect();
        assert_eq!(order, [0, 4, 1, 5, 2, 6, 3, 7]);
    }

    #[test]
    fn a_product_is_summed_before_it_is_scaled_and_added() {
        let mut row = [1.0, 2.0];
        add_product(&mut row, &[2.0, 3.0], &[1.0, 10.0, 100.0, 1000.0], 0.5, &mut [0.0; 2]);
        assert_eq!(row, [1.0 + 0.5 * 302.0, 2.0 + 0.5 * 3020.0]);
    }
}
