//! A model to a `.gguf`: which tensors, in which order and type, and the rows of each.

use super::gguf::Keys;
use super::gguf::writer::{self, Tensor};
use super::metadata::{self, About};
use super::mixture::{self, Facts, Mixture, Shape};
use super::quant::{Kind, quantize};
use super::weights::{Matrix, Weights};
use super::{hyperparameters, kept};
use crate::model::config::{Config, Llama3, RopeScaling};
use crate::model::gguf::{LONG, ROPE_FREQS, SHORT, expert, gguf_name};
use crate::model::loading::Opened;
use crate::{Error, Result};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// A file about to be written.
pub struct Plan<'a> {
    pub keys: Keys,
    pub tensors: Vec<Tensor>,
    /// What the file cannot say and llama.cpp therefore computes otherwise: windows of attention, which only texts longer
    /// than they are feel.
    pub lost: Vec<String>,
    sources: Vec<Source<'a>>,
}

enum Source<'a> {
    /// One weight, or those of all experts, one after another.
    Weights(Vec<Matrix<'a>>),
    /// What the rotary frequencies are divided by.
    Values(Vec<f32>),
}

impl<'a> Plan<'a> {
    /// Decide everything; nothing is written.
    ///
    /// # Errors
    /// When the model has no such file (a tokenizer that llama.cpp lacks, arithmetic that no key of its architecture says),
    /// or a tensor cannot be read.
    pub fn new(model: &Opened, weights: &'a Weights<'a>, about: &About, mixture: Mixture) -> Result<Self> {
        let c = weights.config;
        let mut named: Vec<(String, Source<'a>)> = Vec::new();
        let mut place: HashMap<String, usize> = HashMap::new();
        for name in weights.names() {
            let (gguf, matrix) = (gguf_name(c, &name), weights.matrix(&name)?);
            match place.get(&gguf).and_then(|&i| named.get_mut(i)) {
                Some((_, Source::Weights(stack))) => stack.push(matrix),
                _ => {
                    place.insert(gguf.clone(), named.len());
                    named.push((gguf, Source::Weights(vec![matrix])));
                }
            }
        }
        named.extend(rope_values(c).into_iter().map(|(name, values)| (name.to_string(), Source::Values(values))));
        named.sort_by(|a, b| mixture::order(&a.0).cmp(&mixture::order(&b.0)));
        let shapes: Vec<Shape> = named
            .iter()
            .map(|(name, source)| {
                let (_, columns, dimensions, _) = source.shape();
                Shape { name, columns, dimensions }
            })
            .collect();
        let kinds = mixture::kinds(mixture, Facts::of(c), &shapes);
        let mut tensors = Vec::new();
        for ((name, source), kind) in named.iter().zip(kinds) {
            let (rows, columns, dimensions, matrices) = source.shape();
            let kind = kind.unwrap_or_else(|| source.kept(model));
            tensors.push(Tensor { name: name.clone(), rows, columns, dimensions, matrices, kind });
        }
        let keys = metadata::keys(model, about, mixture)?;
        let lost = kept::check(c, &keys, &tensors)?;
        let sources = named.into_iter().map(|(_, source)| source).collect();
        Ok(Self { keys, tensors, lost, sources })
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
            Source::Weights(all) => {
                let again = |m: &Matrix| m.kind().is_none_or(|k| k.is_quantized() && (k != t.kind || m.is_tuned()));
                t.kind.is_quantized() && all.iter().any(again)
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
        let mut values = Vec::new();
        match source {
            Source::Values(all) => quantize(t.kind, all, out),
            Source::Weights(all) => {
                let mut done = 0;
                while done < rows {
                    // Whole rows of one matrix at a time.
                    let (number, at) = ((first + done) / all[0].rows, (first + done) % all[0].rows);
                    let m = &all[number];
                    let n = (m.rows - at).min(rows - done);
                    let own = &mut out[done * row_bytes..(done + n) * row_bytes];
                    match m.bytes_for_gguf().filter(|_| m.kind() == Some(t.kind)) {
                        Some(bytes) => own.copy_from_slice(&bytes[at * row_bytes..(at + n) * row_bytes]),
                        None => {
                            values.resize(n * t.columns, 0.0);
                            for (i, row) in values.chunks_exact_mut(t.columns).enumerate() {
                                m.gguf_row(at + i, row)?;
                            }
                            quantize(t.kind, &values, own)?;
                        }
                    }
                    done += n;
                }
                Ok(())
            }
        }
    }
}

impl Source<'_> {
    /// Rows of all matrices, columns, dimensions, matrices.
    fn shape(&self) -> (usize, usize, usize, usize) {
        match self {
            Source::Weights(all) => {
                let m = &all[0];
                let stacked = usize::from(expert(&m.name).is_some());
                (all.len() * m.rows, m.columns, m.dimensions + stacked, all.len())
            }
            Source::Values(v) => (1, v.len(), 1, 1),
        }
    }

    /// The type of what no mixture touches: as it is in a GGUF, else f32, as the converter does.
    fn kept(&self, model: &Opened) -> Kind {
        match (self, model) {
            (Source::Weights(all), Opened::Gguf(_)) => all[0].kind().unwrap_or(Kind::F32),
            _ => Kind::F32,
        }
    }
}

/// The vectors that say how a model turns, where its keys alone do not.
pub(super) fn rope_values(c: &Config) -> Vec<(&'static str, Vec<f32>)> {
    let list = |values: &[f64]| values.iter().map(|v| *v as f32).collect();
    match &c.rope_scaling {
        Some(RopeScaling::Llama3(s)) if hyperparameters::is_llama(c) => {
            vec![(ROPE_FREQS, rope_divisors(s, c.head_dim, c.rope_theta as f32))]
        }
        Some(RopeScaling::LongRope(s)) => vec![(LONG, list(&s.long_factor)), (SHORT, list(&s.short_factor))],
        _ => Vec::new(),
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
