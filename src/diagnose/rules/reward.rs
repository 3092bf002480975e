//! GRPO's health: rewards that say nothing, and a policy that collapses, runs away or never ends.

use crate::diagnose::{finding, history::History, recipe_fix, statistics::mean};
use crate::recipe::guidance::row;
use crate::recipe::{GrpoSection, Method, schema::short};
use crate::train::event::{Finding, Severity};

pub const ZERO: &str = "reward_zero";
pub const SPREAD: &str = "reward_spread";
pub const ENTROPY: &str = "entropy_collapse";
pub const KL: &str = "kl_high";
pub const CLIP: &str = "clip_share";
pub const CUT: &str = "completions_cut";

/// Steps that a mean is taken over; the guidance wants a reward within twenty.
const STEPS: usize = 20;

/// What one number is held against.
struct Limit {
    rule: &'static str,
    metric: &'static str,
    /// Said where the mean is beyond `limit`, below it if `below`; over where it is back past `calm`.
    below: bool,
    limit: f64,
    calm: f64,
    title: &'static str,
    source: &'static str,
    cause: &'static str,
    fix: fn(&GrpoSection, f64) -> Vec<(&'static str, String)>,
}

fn look(h: &History, open: Option<&Finding>, l: &Limit) -> Option<Finding> {
    if h.recipe.method != Method::Grpo || h.steps.len() < STEPS {
        return None;
    }
    let last = h.last(STEPS);
    let values: Vec<f64> = last.iter().filter_map(|(_, s)| s.metrics.get(l.metric).copied()).collect();
    if values.len() < STEPS {
        return None;
    }
    let now = mean(&values);
    let beyond = |limit: f64| if l.below { now < limit } else { now > limit };
    if let Some(open) = open {
        return beyond(l.calm).then(|| open.clone());
    }
    if !beyond(l.limit) {
        return None;
    }
    let mut f = finding(l.rule, Severity::Warning, l.title, l.source);
    let side = if l.below { "below" } else { "above" };
    f.evidence =
        format!("{} {now:.3} over the last {STEPS} steps; {side} {} is not healthy.", l.metric, short(l.limit));
    f.cause = l.cause.into();
    let set = (l.fix)(h.recipe.grpo.as_ref()?, h.recipe.train.learning_rate);
    f.fix = (!set.is_empty()).then(|| recipe_fix(&set));
    f.since = h.now();
    Some(f)
}

/// No reward at all, all the way from the start.
pub fn zero(h: &History, open: Option<&Finding>) -> Option<Finding> {
    if h.recipe.method != Method::Grpo || h.steps.len() < STEPS {
        return None;
    }
    let none = |steps: &[(u64, crate::train::event::Step)]| {
        steps.iter().all(|(_, s)| s.metrics.get("reward").is_none_or(|r| r.abs() < 1e-9))
    };
    if let Some(open) = open {
        return none(h.last(STEPS / 2)).then(|| open.clone());
    }
    if !none(&h.steps) {
        return None;
    }
    let mut f = finding(ZERO, Severity::Warning, "no completion is rewarded", row::REWARD);
    f.evidence = format!("reward 0 in all of {} steps; above 0.15 within {STEPS} is healthy.", h.steps.len());
    f.cause =
        "The task is too hard for the model, or the reward never matches: look at completions beside answers.".into();
    f.since = h.now();
    Some(f)
}

pub fn spread(h: &History, open: Option<&Finding>) -> Option<Finding> {
    look(
        h,
        open,
        &Limit {
            rule: SPREAD,
            metric: "frac_reward_zero_std",
            below: false,
            limit: 0.8,
            calm: 0.7,
            title: "most groups have one reward for all",
            source: row::SPREAD,
            cause: "Prompts are too easy or too hard, or the completions are all alike: such groups teach nothing.",
            fix: |g, _| vec![("grpo.num_generations", (2 * g.num_generations).to_string())],
        },
    )
}

pub fn entropy(h: &History, open: Option<&Finding>) -> Option<Finding> {
    look(
        h,
        open,
        &Limit {
            rule: ENTROPY,
            metric: "entropy",
            below: true,
            limit: 0.01,
            calm: 0.02,
            title: "the policy has stopped exploring",
            source: row::POLICY,
            cause: "It is sure of every token, so all completions of a prompt are alike.",
            fix: |_, rate| vec![("train.learning_rate", super::brief(rate / 2.0))],
        },
    )
}

pub fn kl(h: &History, open: Option<&Finding>) -> Option<Finding> {
    look(
        h,
        open,
        &Limit {
            rule: KL,
            metric: "kl",
            below: false,
            limit: 2.0,
            calm: 1.0,
            title: "the policy is far from the reference",
            source: row::POLICY,
            cause: "Too high a rate, or too small a beta: what the model knew is being lost.",
            fix: |g, _| vec![("grpo.beta", short(2.0 * g.beta))],
        },
    )
}

pub fn clip(h: &History, open: Option<&Finding>) -> Option<Finding> {
    look(
        h,
        open,
        &Limit {
            rule: CLIP,
            metric: "clip_ratio/region_mean",
            below: false,
            limit: 0.3,
            calm: 0.2,
            title: "many ratios are clipped",
            source: row::POLICY,
            cause: "The policy moves far between drawing and training: too many iterations, or too high a rate.",
            fix: |g, rate| match g.num_iterations {
                1 => vec![("train.learning_rate", super::brief(rate / 2.0))],
                n => vec![("grpo.num_iterations", (n / 2).to_string())],
            },
        },
    )
}

pub fn cut(h: &History, open: Option<&Finding>) -> Option<Finding> {
    look(
        h,
        open,
        &Limit {
            rule: CUT,
            metric: "completions/clipped_ratio",
            below: false,
            limit: 0.8,
            calm: 0.5,
            title: "most completions are cut off",
            source: row::POLICY,
            cause: "They do not end within max_completion_length, so few of them can be scored.",
            fix: |g, _| vec![("grpo.max_completion_length", (2 * g.max_completion_length).to_string())],
        },
    )
}
