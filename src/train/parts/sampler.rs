//! From logits to the next token, in transformers' order: repetition penalty, temperature, top-k, top-p, min-p.
//!
//! Pure: randomness comes in as a number in 0..1, so a draw is a function of (seed, prompt, position).

use crate::train::event::SampleSettings;

/// Pick the next token from `logits` (one row, `[vocab]`). `context` is every token so far, prompt included: the
/// repetition penalty acts on those, as transformers' `RepetitionPenaltyLogitsProcessor` does. `uniform` in 0..1.
pub fn pick(logits: &mut [f32], context: &[u32], settings: &SampleSettings, uniform: f64) -> u32 {
    penalize(logits, context, settings.repetition_penalty as f32);
    if settings.temperature <= 0.0 {
        return argmax(logits);
    }
    let mut candidates: Vec<(u32, f32)> = logits.iter().enumerate().map(|(i, &l)| (i as u32, l)).collect();
    candidates.retain(|c| c.1.is_finite());
    // Ties break by token id, so that a draw is the same on every machine.
    candidates.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if candidates.is_empty() {
        return argmax(logits);
    }
    if settings.top_k > 0 {
        candidates.truncate(settings.top_k as usize);
    }
    let top = f64::from(candidates[0].1);
    let mut weights: Vec<f64> =
        candidates.iter().map(|c| ((f64::from(c.1) - top) / settings.temperature).exp()).collect();
    if settings.top_p < 1.0 {
        keep_nucleus(&mut weights, settings.top_p);
    }
    if settings.min_p > 0.0 {
        // The largest weight is 1, so min_p is a threshold on the weight itself.
        let kept = weights.iter().take_while(|&&w| w >= settings.min_p).count().max(1);
        weights.truncate(kept);
    }
    let total: f64 = weights.iter().sum();
    let mut left = uniform * total;
    for (candidate, weight) in candidates.iter().zip(&weights) {
        left -= weight;
        if left < 0.0 {
            return candidate.0;
        }
    }
    candidates[weights.len() - 1].0
}

/// Keep the smallest set of the likeliest whose probability reaches `top_p`; always at least one.
fn keep_nucleus(weights: &mut Vec<f64>, top_p: f64) {
    let total: f64 = weights.iter().sum();
    let mut mass = 0.0;
    let mut kept = 0;
    for w in weights.iter() {
        if kept > 0 && mass / total >= top_p {
            break;
        }
        mass += w;
        kept += 1;
    }
    weights.truncate(kept);
}

/// Divide positive logits of seen tokens by `penalty`, multiply negative ones: each token once.
fn penalize(logits: &mut [f32], context: &[u32], penalty: f32) {
    if penalty == 1.0 {
        return;
    }
    let mut seen: Vec<u32> = context.to_vec();
    seen.sort_unstable();
    seen.dedup();
    for id in seen {
        if let Some(l) = logits.get_mut(id as usize) {
            *l = if *l > 0.0 { *l / penalty } else { *l * penalty };
        }
    }
}

/// The first of the largest; NaN never wins.
fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (i, &l) in logits.iter().enumerate() {
        if l > logits[best] || logits[best].is_nan() {
            best = i;
        }
    }
    best as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> SampleSettings {
        SampleSettings { temperature: 1.0, top_p: 1.0, repetition_penalty: 1.0, ..SampleSettings::default() }
    }

    fn reached(s: &SampleSettings, logits: &[f32]) -> Vec<u32> {
        let mut all: Vec<u32> = (0..1000).map(|i| pick(&mut logits.to_vec(), &[], s, f64::from(i) / 1000.0)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    #[test]
    fn temperature_zero_is_greedy() {
        let s = SampleSettings { temperature: 0.0, ..settings() };
        assert_eq!(pick(&mut [0.1, 2.0, 1.9], &[], &s, 0.99), 1);
    }

    #[test]
    fn draws_follow_the_softmax() {
        // softmax of ln 1, ln 2, ln 5 is 1/8, 2/8, 5/8.
        let logits = [0.0, 2f32.ln(), 5f32.ln()];
        let mut counts = [0; 3];
        for i in 0..8000 {
            counts[pick(&mut logits.to_vec(), &[], &settings(), f64::from(i) / 8000.0) as usize] += 1;
        }
        for (got, want) in counts.iter().zip([1000i32, 2000, 5000]) {
            assert!((got - want).abs() <= 2, "{counts:?}");
        }
    }

    #[test]
    fn top_k_top_p_and_min_p_cut_the_tail() {
        let logits = [0.0, 2f32.ln(), 5f32.ln()];
        assert_eq!(reached(&SampleSettings { top_k: 2, ..settings() }, &logits), [1, 2]);
        assert_eq!(reached(&SampleSettings { top_p: 0.6, ..settings() }, &logits), [2]);
        assert_eq!(reached(&SampleSettings { top_p: 0.7, ..settings() }, &logits), [1, 2]);
        assert_eq!(reached(&SampleSettings { min_p: 0.3, ..settings() }, &logits), [1, 2]);
        assert_eq!(reached(&SampleSettings { min_p: 0.1, ..settings() }, &logits), [0, 1, 2]);
    }

    #[test]
    fn the_repetition_penalty_acts_once_on_every_seen_token() {
        let mut logits = [2.0, -2.0, 1.0];
        penalize(&mut logits, &[0, 0, 1], 2.0);
        assert_eq!(logits, [1.0, -4.0, 1.0]);
    }

    #[test]
    fn non_finite_logits_never_panic() {
        assert_eq!(pick(&mut [f32::NAN, 1.0, f32::NAN], &[], &settings(), 0.5), 1);
        let _ = pick(&mut [f32::NAN; 3], &[], &settings(), 0.5);
        let _ = pick(&mut [f32::NEG_INFINITY; 3], &[], &settings(), 0.5);
    }
}
