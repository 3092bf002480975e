//! A model to a `.gguf`: which tensors, in which order and type, and the rows of each.

use super::gguf::Keys;
use super::gguf::writer::{self, Tensor};
use super::metadata::{self, About};
use super::mixture::{self, Facts, Mixture, Shape};
use super::quant::{Kind, quantize};
use super::weights::{Matrix, Weights, straightened};
use crate::model::config::{Llama3, RopeScaling};
use crate::model::gguf::gguf_name;
use crate::model::loading::Opened;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// A file about to be written.
pub struct Plan<'a> {
    pub keys: Keys,
    pub tensors: Vec<Tensor>,
    sources: Vec<Source<'a>>,
    head_dim: usize,
}

enum Source<'a> {
    Weight(Matrix<'a>),
    /// What the rotary frequencies are divided by.
    Values(Vec<f32>),
}

impl<'a> Plan<'a> {
    /// Decide everything; nothing is written.
    ///
    /// # Errors
    /// When the model has no such file (a tokenizer that llama.cpp lacks), or a tensor cannot be read.
    pub fn new(model: &Opened, weights: &'a Weights<'a>, about: &About, mixture: Mixture) -> Result<Self> {
        let c = weights.config;
        super::only_llama(c, "a GGUF")?;
        let mut named: Vec<(String, Source<'a>)> = Vec::new();
        for name in weights.names() {
            named.push((gguf_name(c, &name), Source::Weight(weights.matrix(&name)?)));
        }
        if let Some(RopeScaling::Llama3(scaling)) = &c.rope_scaling {
            let divisors = rope_divisors(scaling, c.head_dim, c.rope_theta as f32);
            named.push(("rope_freqs.weight".to_string(), Source::Values(divisors)));
        }
        named.sort_by(|a, b| mixture::order(&a.0).cmp(&mixture::order(&b.0)));
        let shapes: Vec<Shape> = named
            .iter()
            .map(|(name, source)| {
                let (_, columns, dimensions) = source.shape();
                Shape { name, columns, dimensions }
            })
            .collect();
        let facts = Facts {
            num_hidden_layers: c.num_hidden_layers,
            num_attention_heads: c.num_attention_heads,
            num_key_value_heads: c.num_key_value_heads,
        };
        let kinds = mixture::kinds(mixture, facts, &shapes);
        let mut tensors = Vec::new();
        for ((name, source), kind) in named.iter().zip(kinds) {
            let (rows, columns, dimensions) = source.shape();
            let kind = kind.unwrap_or_else(|| source.kept(model));
            tensors.push(Tensor { name: name.clone(), rows, columns, dimensions, kind });
        }
        let sources = named.into_iter().map(|(_, source)| source).collect();
        Ok(Self { keys: metadata::keys(model, about, mixture)?, tensors, sources, head_dim: c.head_dim })
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        writer::size(&self.keys, &self.tensors)
    }

    /// Tensors by type, as llama.cpp lists them on loading.
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for t in &self.tensors {
            *counts.entry(t.kind.name()).or_insert(0) += 1;
        }
        counts
    }

    /// Tensors that are quantized from weights that were quantized before, of another type: what they lost is not
    /// won back.
    pub fn requantized(&self) -> usize {
        let twice = |(t, s): &(&Tensor, &Source)| match s {
            Source::Weight(m) => {
                m.kind().is_none_or(|k| k.is_quantized() && (k != t.kind || m.is_tuned())) && t.kind.is_quantized()
            }
            Source::Values(_) => false,
        };
        self.tensors.iter().zip(&self.sources).filter(twice).count()
    }

    /// Write it. `done` hears the number of tensors finished.
    pub fn write(&self, path: &Path, done: &mut dyn FnMut(usize)) -> Result<u64> {
        let fill = |tensor: usize, first: usize, out: &mut [u8]| self.fill(tensor, first, out);
        writer::write(path, &self.keys, &self.tensors, &fill, &mut |index| done(index + 1))
    }

    /// Rows of a tensor from `first` on, as many as `out` holds.
    fn fill(&self, tensor: usize, first: usize, out: &mut [u8]) -> Result<()> {
        let (Some(t), Some(source)) = (self.tensors.get(tensor), self.sources.get(tensor)) else {
            return Err(Error::new(format!("there is no tensor {tensor}")));
        };
        let row_bytes = t.kind.bytes(t.columns);
        let rows = out.len() / row_bytes;
        let mut values = vec![0f32; rows * t.columns];
        match source {
            Source::Values(all) => values.copy_from_slice(all),
            Source::Weight(m) => {
                if m.kind() == Some(t.kind)
                    && let Some(bytes) = m.bytes_for_gguf()
                {
                    out.copy_from_slice(&bytes[first * row_bytes..(first + rows) * row_bytes]);
                    return Ok(());
                }
                let rotary = m.name.ends_with("q_proj.weight") || m.name.ends_with("k_proj.weight");
                for (n, row) in values.chunks_exact_mut(t.columns).enumerate() {
                    let at = first + n;
                    m.row(if rotary { straightened(at, self.head_dim) } else { at }, row)?;
                }
            }
        }
        quantize(t.kind, &values, out)
    }
}

impl Source<'_> {
    /// Rows, columns, dimensions.
    fn shape(&self) -> (usize, usize, usize) {
        match self {
            Source::Weight(m) => (m.rows, m.columns, m.dimensions),
            Source::Values(v) => (1, v.len(), 1),
        }
    }

    /// The type of what no mixture touches: as it is in a GGUF, else f32, as the converter does.
    fn kept(&self, model: &Opened) -> Kind {
        match (self, model) {
            (Source::Weight(m), Opened::Gguf(_)) => m.kind().unwrap_or(Kind::F32),
            _ => Kind::F32,
        }
    }
}

/// [`Llama3::divisors`] as the converter computes them, in f32 (`generate_extra_tensors` of its LlamaModel).
fn rope_divisors(s: &Llama3, head_dim: usize, theta: f32) -> Vec<f32> {
    let (factor, low, high) = (s.factor as f32, s.low_freq_factor as f32, s.high_freq_factor as f32);
    let original = s.original_max_position_embeddings as f32;
    let one = |i: usize| {
        let frequency = 1.0 / theta.powf((2 * i) as f32 / head_dim as f32);
        let wavelength = (2.0 * std::f64::consts::PI) as f32 / frequency;
        if wavelength < original / high {
            1.0
        } else if wavelength > original / low {
            factor
        } else {
            let smooth = (original / wavelength - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    (0..head_dim / 2).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama_3_s_divisors_are_the_converter_s_to_the_bit() {
        let s = Llama3 {
            factor: 32.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        let found = rope_divisors(&s, 64, 500_000.0);
        // convert_hf_to_gguf.py's for Llama 3.2 (torch 2.13), numbers 13 to 20.
        let expected: [f32; 8] = [1.0, 1.0, 1.6513293, 3.2922628, 9.666731, 32.0, 32.0, 32.0];
        assert_eq!(found[13..21], expected);
        assert_eq!((found[0], found[31]), (1.0, 32.0));
    }
}
