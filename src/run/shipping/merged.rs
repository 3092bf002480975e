//! The merged model of an artifact, with what the merging cost said in words.

use super::word::Word;
use super::{MERGED, Tell};
use crate::Result;
use crate::export::merge::{self, Merged, SHARD};
use crate::export::quant::Kind;
use crate::export::subject::Subject;
use std::path::Path;
use std::time::Instant;

/// Fold the adapter of `subject` into its base as `kind` (F32, F16 or BF16), into `folder`. `scale` is a factor for the
/// adapter.
pub fn merge(subject: &Subject, folder: &Path, kind: Kind, scale: f64, tell: &mut Tell) -> Result<Merged> {
    let note = |tell: &mut Tell, text: String| tell(Word::Note { text });
    if subject.is_quantized()? {
        note(tell, "the base is quantized; what is merged and written are its dequantized weights".into());
    }
    let (began, mut shown) = (Instant::now(), Instant::now());
    let merged = merge::merge(subject, folder, kind, scale, SHARD, &mut |done, total| {
        if shown.elapsed().as_millis() >= 200 || done == total {
            shown = Instant::now();
            tell(Word::Writing { kind: MERGED.into(), done: done as u64, total: total as u64 });
        }
    })?;
    let seconds = began.elapsed().as_secs_f64();
    tell(Word::Written { kind: MERGED.into(), path: folder.to_path_buf(), bytes: merged.bytes, seconds });
    note(
        tell,
        format!("{} tensors, {} of them tuned, as {}", merged.tensors, merged.tuned, kind.name().to_lowercase()),
    );
    let Some(drift) = merged.drift else { return Ok(merged) };
    let (error, lost) = (100.0 * drift.error, 100.0 * drift.lost);
    note(
        tell,
        format!(
            "rounding: the error is {error:.2} % of what the adapter changes; {lost:.2} % of the changed values round back to the base's"
        ),
    );
    if let Some((name, worst)) = &merged.worst {
        note(tell, format!("worst in {name}: {:.2} %", 100.0 * worst.error));
    }
    if drift.error > 0.25 {
        note(
            tell,
            "▲ the adapter's change is of the size of the rounding: merge in f32, or serve the adapter beside its base"
                .into(),
        );
    }
    Ok(merged)
}
