//! Eval loss rises while train loss falls: the model learns its rows by heart.

use super::back_to;
use crate::diagnose::{finding, history::History, statistics::mean};
use crate::recipe::guidance::row;
use crate::train::event::{Finding, Fix, Severity};

pub const NAME: &str = "overfitting";

/// A rise that counts: 1 % of the best, and at least 0.005 nats. The held-out rows are the same at every evaluation,
/// so little of it is noise.
fn margin(best: f64) -> f64 {
    (0.01 * best).max(0.005)
}

/// The guidance: train loss below about 0.2 is near memorising; a clear rise (twice the margin) then needs no second
/// evaluation to confirm it.
const LEARNT: f64 = 0.2;

/// Whether the evaluations after the best rise: its step and loss.
pub fn rising(h: &History) -> Option<(u64, f64)> {
    let (best_step, best) = h.best_eval()?;
    let after: Vec<_> = h.evals.iter().filter(|(s, _)| *s > best_step).collect();
    let last = after.last()?.1;
    if !last.is_finite() {
        return None;
    }
    let needed = margin(best);
    if last <= best + needed {
        return None;
    }
    let (now, before) = train_loss(h, best_step)?;
    let clear = now < LEARNT && last > best + 2.0 * needed;
    let twice = after.len() >= 2 && after[after.len() - 2].1 > best && last >= after[after.len() - 2].1 - needed / 2.0;
    (now < before && (clear || twice)).then_some((best_step, best))
}

/// Mean train loss since the best evaluation (its newer half), and over as many steps before it.
fn train_loss(h: &History, best_step: u64) -> Option<(f64, f64)> {
    let since = h.now().saturating_sub(best_step);
    let now = h.losses_between(best_step + since / 2, h.now());
    let before = h.losses_between(best_step.saturating_sub(since), best_step);
    (!now.is_empty() && !before.is_empty()).then(|| (mean(&now), mean(&before)))
}

pub fn look(h: &History, open: Option<&Finding>) -> Option<Finding> {
    if let Some(open) = open {
        // It holds until an evaluation is as good as the best was: one that only wobbles back towards it has gained
        // nothing, and going back there is still what mends it. A roll back has no evaluations after the best.
        let best = h.evals.iter().find(|(s, _)| *s == open.since).map(|(_, loss)| *loss)?;
        let after: Vec<f64> = h.evals.iter().filter(|(s, _)| *s > open.since).map(|(_, loss)| *loss).collect();
        let holds = !after.is_empty() && after.iter().all(|loss| loss.is_nan() || *loss > best);
        return holds.then(|| open.clone());
    }
    let (best_step, best) = rising(h)?;
    let (_, last) = *h.evals.last()?;
    let (now, before) = train_loss(h, best_step)?;
    let after = h.evals.iter().filter(|(s, _)| *s > best_step).count();
    let evals = if after == 1 { "1 eval".to_string() } else { format!("{after} evals") };
    let mut f = finding(NAME, Severity::Warning, "overfitting: eval rises while train falls", row::DUMBER);
    f.evidence = format!(
        "eval {best:.3} → {last:.3} in {evals} since step {best_step}; train {before:.3} → {now:.3} in the same time."
    );
    f.cause = "It learns its rows by heart: too many epochs for these rows, or too high a rate.".into();
    f.fix = Some(stop_at(h, best_step));
    f.since = best_step;
    Some(f)
}

/// Back to the best evaluation's checkpoint and stop; the next run has no more steps or epochs than led there.
pub fn stop_at(h: &History, best_step: u64) -> Fix {
    let epochs = h.steps.iter().find(|(s, _)| *s == best_step).map(|(_, s)| s.epoch).filter(|e| *e > 0.0);
    let set = match epochs {
        Some(e) if h.recipe.train.max_steps == 0 => {
            vec![("train.num_train_epochs".to_string(), format!("{}", (e * 100.0).ceil() / 100.0))]
        }
        _ if best_step > 0 => vec![("train.max_steps".to_string(), best_step.to_string())],
        _ => Vec::new(),
    };
    back_to(h, best_step, true, set)
}
