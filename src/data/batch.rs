//! What the model is fed: tokenized examples, and packed batches of them.

use super::store::Run;

/// One tokenized training example.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Example {
    pub ids: Run<u32>,
    /// Whether `ids[i]` is trained on, that is, is the target of position `i - 1`. Same length as `ids`.
    pub trained: Run<bool>,
    /// Row number in reading order, 0-based.
    pub row: u32,
    /// Whether it was cut at `max_seq_length`.
    pub truncated: bool,
}

/// Sequences laid end to end without padding. `T` tokens, `S` sequences.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// `[T]`.
    pub ids: Vec<u32>,
    /// `[T]`, from 0 in each sequence.
    pub positions: Vec<u32>,
    /// `[T]`: the id to predict *at* this position (already shifted), or [`IGNORE`].
    pub labels: Vec<i64>,
    /// `[S + 1]`: sequence `s` is tokens `cu_seqlens[s]..cu_seqlens[s + 1]`.
    pub cu_seqlens: Vec<u32>,
    /// Row numbers of the sequences.
    pub rows: Vec<u32>,
}

/// A label that does not count, as PyTorch's `ignore_index`.
pub const IGNORE: i64 = -100;

impl Batch {
    /// Lay examples end to end.
    pub fn of(examples: &[&Example]) -> Self {
        let mut b = Batch { cu_seqlens: vec![0], ..Batch::default() };
        for e in examples {
            let n = e.ids.len();
            b.ids.extend_from_slice(&e.ids);
            b.positions.extend(0..n as u32);
            for i in 0..n {
                let trained = i + 1 < n && e.trained[i + 1];
                b.labels.push(if trained { i64::from(e.ids[i + 1]) } else { IGNORE });
            }
            b.cu_seqlens.push(b.ids.len() as u32);
            b.rows.push(e.row);
        }
        b
    }

    /// Labels that count.
    pub fn label_tokens(&self) -> u64 {
        self.labels.iter().filter(|&&l| l != IGNORE).count() as u64
    }
}
