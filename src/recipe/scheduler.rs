//! What a schedule takes besides warm-up and length: `train.lr_scheduler_kwargs`, by the names and defaults of
//! `transformers.optimization`.
//!
//! Must not know steps: it says which numbers there are, [`crate::train::parts::schedule`] computes with them.

use serde_json::{Map, Value};

/// `train.lr_scheduler_type`, as transformers names them.
pub const NAMES: &[&str] = &[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "warmup_stable_decay",
    "constant",
    "constant_with_warmup",
];

/// A schedule's shape and its own numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    Linear,
    /// `num_cycles` waves; a half goes from the peak to 0.
    Cosine {
        num_cycles: f64,
    },
    CosineWithRestarts {
        num_cycles: f64,
    },
    /// To the rate `lr_end`, which is a rate and no share.
    Polynomial {
        lr_end: f64,
        power: f64,
    },
    WarmupStableDecay(Wsd),
    Constant,
    ConstantWithWarmup,
}

/// Of `get_wsd_schedule`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wsd {
    /// `None`: what the warm-up and the decay leave.
    pub num_stable_steps: Option<f64>,
    pub num_decay_steps: f64,
    pub warmup_type: Curve,
    pub decay_type: Curve,
    pub min_lr_ratio: f64,
    pub num_cycles: f64,
}

/// How a phase goes from one end to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    Linear,
    Cosine,
    OneMinusSqrt,
}

/// The names that a schedule takes.
fn names(schedule: &str) -> &'static [&'static str] {
    match schedule {
        "cosine" | "cosine_with_restarts" => &["num_cycles"],
        "polynomial" => &["lr_end", "power"],
        "warmup_stable_decay" => {
            &["num_decay_steps", "num_stable_steps", "warmup_type", "decay_type", "min_lr_ratio", "num_cycles"]
        }
        _ => &[],
    }
}

/// Read a schedule's name and its kwargs. The error is a sentence and what to do.
pub fn read(schedule: &str, kwargs: Option<&Map<String, Value>>) -> Result<Shape, (String, String)> {
    let known = names(schedule);
    let takes = || match known {
        [] => format!("{schedule} takes none"),
        _ => format!("{schedule} takes {}", known.join(", ")),
    };
    if let Some(name) = kwargs.into_iter().flat_map(|k| k.keys()).find(|n| !known.contains(&n.as_str())) {
        return Err((format!("{name} is nothing that {schedule} takes"), takes()));
    }
    let given = |name: &str| kwargs.and_then(|k| k.get(name));
    let number = |name: &str, default: f64, least: f64| match given(name) {
        None => Ok(default),
        Some(v) => v
            .as_f64()
            .filter(|v| v.is_finite() && *v >= least)
            .ok_or_else(|| (format!("{name} = {v} is not a number from {least}"), takes())),
    };
    let steps = |name: &str| match given(name) {
        None => Ok(None),
        Some(v) => match v.as_u64() {
            Some(n) => Ok(Some(n as f64)),
            None => Err((format!("{name} = {v} is not a number of steps"), takes())),
        },
    };
    let curve = |name: &str, default: Curve| match given(name).map(|v| v.as_str().unwrap_or_default()) {
        None => Ok(default),
        Some("linear") => Ok(Curve::Linear),
        Some("cosine") => Ok(Curve::Cosine),
        Some("1-sqrt") => Ok(Curve::OneMinusSqrt),
        Some(_) => Err((format!("{name} is \"linear\", \"cosine\" or \"1-sqrt\""), takes())),
    };
    Ok(match schedule {
        "linear" => Shape::Linear,
        "cosine" => Shape::Cosine { num_cycles: number("num_cycles", 0.5, 0.0)? },
        "cosine_with_restarts" => Shape::CosineWithRestarts { num_cycles: number("num_cycles", 1.0, 0.0)? },
        "polynomial" => Shape::Polynomial { lr_end: number("lr_end", 1e-7, 0.0)?, power: number("power", 1.0, 0.0)? },
        "warmup_stable_decay" => Shape::WarmupStableDecay(Wsd {
            num_decay_steps: steps("num_decay_steps")?.ok_or_else(|| {
                let next = "say how long it falls: lr_scheduler_kwargs = { num_decay_steps = 100 }";
                ("warmup_stable_decay needs num_decay_steps".to_string(), next.to_string())
            })?,
            num_stable_steps: steps("num_stable_steps")?,
            warmup_type: curve("warmup_type", Curve::Linear)?,
            decay_type: curve("decay_type", Curve::Cosine)?,
            min_lr_ratio: number("min_lr_ratio", 0.0, 0.0)?,
            num_cycles: number("num_cycles", 0.5, 0.0)?,
        }),
        "constant" => Shape::Constant,
        "constant_with_warmup" => Shape::ConstantWithWarmup,
        other => {
            return Err((format!("lr_scheduler_type \"{other}\" is unknown"), format!("use {}", NAMES.join(", "))));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_the_schedule_does_not_take_is_refused_with_those_it_takes() {
        let map = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap();
        let e = read("polynomial", Some(&map(r#"{"num_cycles": 2}"#))).unwrap_err();
        assert!(e.0.contains("num_cycles") && e.1.contains("lr_end"), "{e:?}");
        assert!(read("linear", Some(&map(r#"{"lr_end": 0}"#))).unwrap_err().1.contains("takes none"));
        assert!(read("warmup_stable_decay", None).unwrap_err().1.contains("num_decay_steps = 100"));
        assert!(read("polynomial", Some(&map(r#"{"power": "2"}"#))).is_err());
        assert!(read("cosin", None).unwrap_err().1.contains("cosine"));
    }
}
