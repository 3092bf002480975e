//! The numbers behind the charts: one metric of a run along one axis.

use crate::console::chart::grown;
use crate::console::format;
use crate::console::run_page::{Metric, RunPage, XAxis};
use crate::console::run_state::{EvalPoint, Point, kept_of_mean, median};

/// One point of a chart.
#[derive(Debug, Clone, Copy)]
pub struct Xy {
    pub x: f64,
    pub raw: f64,
    pub smooth: f64,
}

#[derive(Debug, Clone, Default)]
pub struct Series {
    pub points: Vec<Xy>,
    pub evals: Vec<(f64, f64)>,
    /// The domain shown.
    pub low: f64,
    pub high: f64,
    /// Whether the raw values are drawn as dots beside the smoothed line.
    pub dots: bool,
}

/// The name of a metric in titles and beside its sparkline.
pub fn label(page: &RunPage, metric: Metric) -> &'static str {
    match metric {
        Metric::Loss => "loss",
        Metric::Own(i) => page.curves().get(i).map_or("", |c| c.label),
        Metric::Grad => "grad",
        Metric::LearningRate => "lr",
        Metric::TokensPerSecond => "tok/s",
        Metric::Utilisation if page.reading.gpu_percent.is_some() => "gpu %",
        Metric::Utilisation => "cpu %",
    }
}

fn raw(page: &RunPage, metric: Metric, p: &Point) -> f64 {
    match metric {
        Metric::Loss => p.data.loss,
        Metric::Own(i) => page.curves().get(i).and_then(|c| p.data.metrics.get(c.name)).copied().unwrap_or(f64::NAN),
        Metric::Grad => p.data.grad_norm,
        Metric::LearningRate => p.data.learning_rate,
        Metric::TokensPerSecond => p.data.tokens_per_second,
        Metric::Utilisation => f64::NAN,
    }
}

fn x(page: &RunPage, axis: XAxis, p: &Point) -> f64 {
    match axis {
        XAxis::Step => p.step as f64,
        XAxis::Epoch => p.data.epoch,
        XAxis::Tokens => p.data.tokens as f64,
        XAxis::Time => p.time - page.run.began,
    }
}

/// Where a step lies along an axis; before the first step 0, beyond the last as far as the rate so far tells.
pub fn x_of(page: &RunPage, axis: XAxis, step: u64) -> f64 {
    if axis == XAxis::Step {
        return step as f64;
    }
    match page.run.point(step) {
        Some(p) if p.step > 0 => x(page, axis, p) * step as f64 / p.step as f64,
        _ => 0.0,
    }
}

/// Steps that a sparkline's few columns are drawn from; more would not be seen.
const THIN: usize = 4000;

/// One metric by step, thinned evenly: enough for a sparkline of a long run.
pub fn thinned(page: &RunPage, metric: Metric) -> Series {
    every(page, metric, XAxis::Step, 1 + page.run.steps.len() / THIN)
}

/// One metric along one axis, with the domain to show.
pub fn of(page: &RunPage, metric: Metric, axis: XAxis) -> Series {
    every(page, metric, axis, 1)
}

fn every(page: &RunPage, metric: Metric, axis: XAxis, stride: usize) -> Series {
    let run = &page.run;
    let total = run.start.total_steps;
    let mut s = Series { dots: metric != Metric::LearningRate, ..Series::default() };
    let (mut mean, mut weight, mut before) = (0.0, 0.0, 0);
    let mut smoothed = |raw: f64| {
        if raw.is_finite() {
            let keep = kept_of_mean(total, before);
            before += stride;
            (mean, weight) = (keep * mean + (1.0 - keep) * raw, keep * weight + 1.0 - keep);
            mean / weight
        } else {
            f64::NAN
        }
    };
    s.points = match metric {
        Metric::Utilisation => {
            let all = page.utilisation.iter();
            all.map(|&(step, v)| Xy { x: x_of(page, axis, step), raw: v, smooth: smoothed(v) }).collect()
        }
        _ => {
            let one = |p: &Point| {
                let raw = raw(page, metric, p);
                let smooth = match metric {
                    Metric::Loss => p.smooth,
                    Metric::LearningRate => raw,
                    _ => smoothed(raw),
                };
                Xy { x: x(page, axis, p), raw, smooth }
            };
            run.steps.iter().step_by(stride).map(one).collect()
        }
    };
    if metric == Metric::Loss {
        s.evals = run.evals.iter().map(|e| (x_of(page, axis, e.step), e.data.loss)).collect();
    }
    if let Metric::Own(i) = metric
        && let Some(curve) = page.curves().get(i)
    {
        let of = |e: &EvalPoint| Some((x_of(page, axis, e.step), *e.data.metrics.get(curve.name)?));
        s.evals = run.evals.iter().filter_map(of).collect();
    }
    let last = x_of(page, axis, run.step_number());
    let most = match axis {
        XAxis::Step => total as f64,
        XAxis::Epoch => run.start.num_train_epochs,
        XAxis::Tokens | XAxis::Time => f64::INFINITY,
    };
    s.high = if last > 0.0 {
        grown(last, most.max(last))
    } else if most.is_finite() && most > 0.0 {
        most
    } else {
        1.0
    };
    if let Some((low, high)) = page.chart.zoom {
        // Following the newest, the window moves with it.
        let (low, high) = match page.chart.cursor {
            None => (run.step_number() as f64 - (high - low), run.step_number() as f64),
            Some(_) => (low, high),
        };
        s.low = x_of(page, axis, low.max(0.0) as u64);
        s.high = x_of(page, axis, high.max(low + 1.0).ceil().max(1.0) as u64).max(s.low + 1e-9);
    }
    s
}

/// The series as `n` columns, each the mean of its share; empty where nothing is known.
pub fn columns(s: &Series, n: usize) -> Vec<Option<f64>> {
    let mut sums = vec![(0.0, 0u32); n];
    for p in s.points.iter().filter(|p| p.raw.is_finite() && n > 0 && p.x >= s.low && p.x <= s.high) {
        let place = (p.x - s.low) / (s.high - s.low);
        let c = &mut sums[((place * n as f64) as usize).min(n - 1)];
        c.0 += p.raw;
        c.1 += 1;
    }
    // Between points a column repeats the one before it, so that few steps still make a line.
    let last = sums.iter().rposition(|c| c.1 > 0).unwrap_or(0);
    let mut before = None;
    let fill = |(i, (sum, n)): (usize, (f64, u32))| {
        if n > 0 {
            before = Some(sum / f64::from(n));
        }
        if i <= last { before } else { None }
    };
    sums.into_iter().enumerate().map(fill).collect()
}

/// The newest value of a metric, as its line shows it.
pub fn now(page: &RunPage, metric: Metric) -> Option<String> {
    let last = page.run.last();
    match metric {
        Metric::Loss => last.map(|s| format::loss(s.loss)),
        Metric::Own(_) => page.run.steps.last().map(|p| raw(page, metric, p)).filter(|v| v.is_finite()).map(own),
        Metric::Grad => last.map(|s| format::plain(s.grad_norm)),
        Metric::LearningRate => last.map(|s| format::rate(s.learning_rate)),
        Metric::TokensPerSecond => page.run.tokens_per_second().map(|v| format::thousands(v.round() as u64)),
        Metric::Utilisation => page.reading.gpu_percent.or(page.reading.cpu_percent).map(|v| format!("{v:.0}")),
    }
}

/// A method's number: small ones with three decimals.
fn own(v: f64) -> String {
    if v.abs() < 10.0 { format!("{v:.3}") } else { format::plain(v) }
}

/// What is usual for a metric in this run.
pub fn note(page: &RunPage, metric: Metric) -> String {
    let run = &page.run;
    let values = |m: Metric| run.steps.iter().map(move |p| raw(page, m, p)).filter(|v| v.is_finite());
    let range = |m: Metric, f: fn(f64) -> String| {
        let span =
            values(m).fold(None, |r: Option<(f64, f64)>, v| Some(r.map_or((v, v), |(a, b)| (a.min(v), b.max(v)))));
        span.map_or(String::new(), |(a, b)| format!("{} – {}", f(a), f(b)))
    };
    match metric {
        Metric::Loss => range(metric, format::loss),
        Metric::Own(_) => range(metric, own),
        Metric::Grad => range(metric, format::plain),
        Metric::LearningRate => page.schedule_words(),
        Metric::TokensPerSecond => {
            let usual =
                median(values(metric).step_by(1 + run.steps.len() / THIN)).map(|v| format::thousands(v.round() as u64));
            usual.map_or(String::new(), |v| format!("median {v}"))
        }
        Metric::Utilisation => {
            let n = page.utilisation.len().max(1) as f64;
            let mean = page.utilisation.iter().map(|u| u.1).sum::<f64>() / n;
            if page.utilisation.is_empty() { String::new() } else { format!("mean {mean:.0}") }
        }
    }
}
