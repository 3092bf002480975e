//! A learning rate outside the guidance's range.

use crate::diagnose::{finding, preflight::Preflight, recipe_fix};
use crate::recipe::guidance::{Facts, SMALL_MODEL, guidance, learning_rates, row};
use crate::recipe::schema::short;
use crate::train::event::{Finding, Severity};

pub const NAME: &str = "rate_range";

pub fn look(p: &Preflight<'_>) -> Vec<Finding> {
    let facts = Facts { total_parameters: p.parameters, ..Facts::default() };
    let Some(g) = guidance("train.learning_rate", p.recipe, &facts) else { return Vec::new() };
    let tuning = if p.recipe.lora.is_some() { "LoRA" } else { "full fine-tuning" };
    let rate = p.recipe.train.learning_rate;
    let inside = g.inside != Some(false);
    let (min, _, start) = learning_rates(p.recipe.method, p.recipe.lora.is_some());
    let title = match (inside, rate < min) {
        (true, _) => "learning rate is in range",
        (false, true) => "learning rate is low",
        (false, false) => "learning rate is high",
    };
    let severity = if inside { Severity::Passed } else { Severity::Warning };
    let mut f = finding(NAME, severity, title, row::RATE);
    let small = if p.parameters.is_some_and(|n| n < SMALL_MODEL) { " for a model this small" } else { "" };
    f.evidence = format!("{}; {tuning}: {}{small}", short(rate), g.text);
    if !inside {
        f.fix = Some(recipe_fix(&[("train.learning_rate", short(start))]));
    }
    vec![f]
}
