//! The rules. A live rule answers while its condition holds; knowing its own open finding, it lets go later than it
//! took hold, so that nothing flaps.

pub mod eval_stalled;
pub mod few_rows;
pub mod gradient;
pub mod labels;
pub mod loss_jump;
pub mod memory_creep;
pub mod non_finite;
pub mod overfitting;
pub mod preference;
pub mod rate_range;
pub mod repetition;
pub mod reward;
pub mod rows;
pub mod stalled_loss;
pub mod stop_token;
pub mod template_mismatch;
pub mod throughput;

use super::history::History;
use super::preflight::Preflight;
use crate::train::event::{Finding, Fix, FixAction};

/// A rule that watches a run.
pub struct Rule {
    pub name: &'static str,
    /// With the history and the rule's open finding: the finding while it holds.
    pub look: fn(&History, Option<&Finding>) -> Option<Finding>,
}

/// In the order they are looked at and said.
pub const LIVE: &[Rule] = &[
    Rule { name: non_finite::NAME, look: non_finite::look },
    Rule { name: loss_jump::NAME, look: loss_jump::look },
    Rule { name: gradient::NAME, look: gradient::look },
    Rule { name: overfitting::NAME, look: overfitting::look },
    Rule { name: eval_stalled::NAME, look: eval_stalled::look },
    Rule { name: stalled_loss::NAME, look: stalled_loss::look },
    Rule { name: preference::ACCURACY, look: preference::accuracy },
    Rule { name: preference::COLLAPSE, look: preference::collapse },
    Rule { name: reward::ZERO, look: reward::zero },
    Rule { name: reward::SPREAD, look: reward::spread },
    Rule { name: reward::ENTROPY, look: reward::entropy },
    Rule { name: reward::KL, look: reward::kl },
    Rule { name: reward::CLIP, look: reward::clip },
    Rule { name: reward::CUT, look: reward::cut },
    Rule { name: repetition::NAME, look: repetition::look },
    Rule { name: throughput::NAME, look: throughput::look },
    Rule { name: memory_creep::NAME, look: memory_creep::look },
];

/// A rule that looks at the rows before the first step.
pub type Before = fn(&Preflight<'_>) -> Vec<Finding>;

/// In the order they are said.
pub const BEFORE: &[Before] = &[
    labels::look,
    stop_token::look,
    template_mismatch::look,
    rows::truncated,
    rows::duplicates,
    few_rows::look,
    rate_range::look,
];

/// Back to the checkpoint nearest before or at `step`; where there is none, stop or only mend the recipe.
fn back_to(h: &History, step: u64, stop: bool, set: Vec<(String, String)>) -> Fix {
    let diff: Vec<_> = set.iter().map(|(k, v)| format!("{k} = {v}")).collect();
    match h.checkpoint_at_or_before(step) {
        Some(at) if stop => {
            Fix { label: format!("back to step {at} and stop"), set, action: FixAction::RollBack { step: at, stop } }
        }
        Some(at) => Fix {
            label: format!("back to step {at}, {}", diff.join(", ")),
            set,
            action: FixAction::RollBack { step: at, stop },
        },
        None => Fix { label: "stop".into(), set, action: FixAction::Stop },
    }
}

/// Half of the present learning rate, as a recipe diff.
fn half_rate(h: &History) -> (String, String) {
    let half = h.recipe.train.learning_rate / 2.0;
    ("train.learning_rate".into(), brief(half))
}

/// A rate with three digits: `1.5e-4`.
fn brief(v: f64) -> String {
    let text = format!("{v:.2e}");
    match text.split_once('e') {
        Some((digits, power)) if digits.contains('.') => {
            format!("{}e{power}", digits.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => text,
    }
}

/// `rows 6577–6592`, or a list; the numbers are 0-based, in reading order.
fn row_list(rows: &[u32]) -> String {
    let mut rows = rows.to_vec();
    rows.sort_unstable();
    rows.dedup();
    match (rows.first(), rows.last()) {
        (Some(a), Some(b)) if a == b => format!("row {a}"),
        (Some(a), Some(b)) if (b - a) as usize + 1 == rows.len() => format!("rows {a}–{b}"),
        _ => {
            let more = rows.len().saturating_sub(16);
            let shown: Vec<_> = rows.iter().take(16).map(u32::to_string).collect();
            let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("rows {}{rest}", shown.join(", "))
        }
    }
}
