//! The curves of a run as a picture for its model card: readable on light and dark pages.

use std::collections::BTreeMap;
use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 52.0;
const BOTTOM: f64 = 28.0;
const TOP: f64 = 14.0;
const RIGHT: f64 = 12.0;
/// Points of a line at most: more than there are columns says nothing.
const POINTS: usize = 360;
/// A loss that has fallen by this factor is drawn over a logarithmic axis, as in the console.
const FALLS_FAR: f64 = 8.0;

/// Training loss as a line, evaluations as diamonds, by step. `None`: there are no two points to draw a line between.
pub fn curves(losses: &BTreeMap<u64, f64>, evals: &BTreeMap<u64, f64>) -> Option<String> {
    if losses.len() < 2 {
        return None;
    }
    let last = *losses.keys().chain(evals.keys()).max()? as f64;
    let all = || losses.values().chain(evals.values()).copied().filter(|v| v.is_finite());
    let (low, high) = all().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    let log = low > 0.0 && high > FALLS_FAR * low;
    let scale = |v: f64| if log { v.max(low).ln() } else { v };
    let (from, to) = (scale(low), scale(high));
    let span = if to > from { to - from } else { 1.0 };
    let x = |step: u64| LEFT + (WIDTH - LEFT - RIGHT) * step as f64 / last.max(1.0);
    let y = |v: f64| HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (scale(v) - from) / span;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"monospace\" font-size=\"11\" fill=\"#888\">\n"
    );
    let (floor, end) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    let _ =
        writeln!(out, "<path d=\"M{LEFT} {TOP}V{floor}H{end}\" fill=\"none\" stroke=\"#888\" stroke-opacity=\"0.5\"/>");
    for v in [high, if log { (low * high).sqrt() } else { f64::midpoint(low, high) }, low] {
        let _ =
            writeln!(out, "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{v:.3}</text>", LEFT - 6.0, y(v) + 4.0);
    }
    let (below, last_step) = (HEIGHT - 10.0, last as u64);
    let _ = writeln!(out, "<text x=\"{LEFT}\" y=\"{below}\">0</text>");
    let _ = writeln!(out, "<text x=\"{end}\" y=\"{below}\" text-anchor=\"end\">step {last_step}</text>");
    let every = losses.len().div_ceil(POINTS);
    let mut path = String::new();
    for (i, (step, loss)) in losses.iter().enumerate().filter(|(i, _)| i % every == 0 || i + 1 == losses.len()) {
        let _ = write!(path, "{}{:.1} {:.1}", if i == 0 { 'M' } else { 'L' }, x(*step), y(*loss));
    }
    let _ = writeln!(out, "<path d=\"{path}\" fill=\"none\" stroke=\"#0e9dc4\" stroke-width=\"1.4\"/>");
    for (step, eval) in evals {
        let (x, y) = (x(*step), y(*eval));
        let _ = writeln!(out, "<path d=\"M{x:.1} {:.1}l4 4l-4 4l-4 -4z\" fill=\"#c47a0e\"/>", y - 4.0);
    }
    let log = if log { ", logarithmic" } else { "" };
    let _ =
        writeln!(out, "<text x=\"{end}\" y=\"{:.0}\" text-anchor=\"end\">loss (line), eval (◆){log}</text>", TOP + 6.0);
    out.push_str("</svg>\n");
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_lies_within_the_picture() {
        let losses: BTreeMap<u64, f64> = (1..=2000).map(|s| (s, 4.0 / s as f64)).collect();
        let evals = BTreeMap::from([(0, 4.5), (1000, 0.01)]);
        let svg = curves(&losses, &evals).unwrap();
        assert!(svg.contains("logarithmic"));
        let line = svg.lines().find(|l| l.contains("stroke-width")).unwrap();
        let path = line.split('"').nth(1).unwrap();
        let points: Vec<(f64, f64)> = path[1..]
            .split('L')
            .map(|p| p.split_once(' ').unwrap())
            .map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()))
            .collect();
        assert!(points.len() <= POINTS + 1, "{}", points.len());
        assert!(points.iter().all(|(x, y)| (0.0..=WIDTH).contains(x) && (0.0..=HEIGHT).contains(y)));
        // It falls: further right is further down.
        assert!(points[0].1 < points[points.len() - 1].1);
        assert!(curves(&BTreeMap::from([(1, 1.0)]), &evals).is_none());
    }
}
