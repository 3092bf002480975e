//! One door to both ways a model is stored: what it is shaped like, its weights, and the raw material of its
//! tokenizer, which [`crate::data::tokenizer`] builds from.
//!
//! Must not know how a tokenizer or a template works.

use crate::Result;
use crate::memory::{Shape, Stored};
use crate::model::config::{Config, Hold, Weights};
use crate::model::gguf::GgufModel;
use crate::model::hf::HfModel;
use crate::model::source::{Place, Source};

/// A model whose header or configuration has been read; its weights are read when asked for.
pub enum Opened {
    Hf(Box<HfModel>),
    Gguf(Box<GgufModel>),
}

impl Opened {
    /// Read the configuration.
    pub fn open(source: &Source) -> Result<Self> {
        match &source.place {
            Place::Gguf(path) => Ok(Opened::Gguf(Box::new(GgufModel::open(path)?))),
            Place::Folder(dir) => {
                Ok(Opened::Hf(Box::new(HfModel::open(crate::model::files::Files::Folder(dir.clone()))?)))
            }
            Place::Embedded(files) => {
                Ok(Opened::Hf(Box::new(HfModel::open(crate::model::files::Files::Embedded(files))?)))
            }
        }
    }

    pub fn config(&self) -> &Config {
        match self {
            Opened::Hf(m) => &m.config,
            Opened::Gguf(m) => &m.config,
        }
    }

    /// All weights as f32 on the CPU, in Hugging Face names and layout.
    pub fn weights(&self) -> Result<Weights> {
        self.held(Hold::Full)
    }

    /// As [`Opened::weights`], held as `hold` says. What is lent from a mapped file outlives this.
    pub fn held(&self, hold: Hold) -> Result<Weights> {
        match self {
            Opened::Hf(m) => m.held(hold),
            Opened::Gguf(m) => m.held(hold),
        }
    }

    /// The sizes that memory depends on, and how the files keep the weights.
    pub fn shape(&self) -> Shape {
        let stored = match self {
            Opened::Hf(m) if m.quantized => Stored::Nf4,
            Opened::Hf(m) => Stored::Floats(if m.wide { 4 } else { 2 }),
            Opened::Gguf(m) if m.is_quantized() => Stored::Blocks(m.bytes()),
            Opened::Gguf(_) => Stored::Floats(2),
        };
        Shape { stored, ..self.config().shape() }
    }

    /// Whether the file keeps matrices in blocks that share a scale.
    pub fn is_quantized(&self) -> bool {
        match self {
            Opened::Hf(m) => m.quantized,
            Opened::Gguf(m) => m.is_quantized(),
        }
    }
}
