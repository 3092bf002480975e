//! Pane 1: the large chart with its marker track, and the other metrics as one-line sparklines.

use super::header;
use super::series::{self, Series};
use super::title;
use crate::console::chart::{Axis, Canvas, robust_range, spark};
use crate::console::format::{self, UNKNOWN};
use crate::console::keymap::Action;
use crate::console::model::Model;
use crate::console::run_page::{Metric, Pane, RunPage, XAxis};
use crate::console::view::pen::Pen;
use crate::run::event::Severity;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use unicode_width::UnicodeWidthStr;

/// Layers of the chart, the later over the earlier.
const DOTS: u8 = 0;
const EVAL: u8 = 1;
const LINE: u8 = 2;

/// The large chart with its title.
pub fn hero(m: &Model, page: &RunPage, area: Rect, buf: &mut Buffer) {
    let t = &m.theme;
    let chart = &page.chart;
    let axis = ["step", "epoch", "tokens", "time"][chart.axis as usize];
    let scale = if page.log_y() { "log" } else { "linear" };
    let (series, y) = prepare(page, area);
    let mut words: Vec<(String, Style)> = match chart.metric {
        Metric::Loss => vec![("train".into(), t.dim), (" · ".into(), t.dim), ("smoothed".into(), t.accent)],
        Metric::LearningRate => vec![("used by each step".into(), t.dim)],
        _ => vec![("each step".into(), t.dim), (" · ".into(), t.dim), ("smoothed".into(), t.accent)],
    };
    if matches!(chart.metric, Metric::Loss | Metric::Own(_)) {
        words.extend([(" · ".into(), t.dim), ("◆ eval".into(), t.text)]);
    }
    let zoomed = if chart.zoom.is_some() { "zoomed, 0 all   " } else { "" };
    words.push((format!("    {zoomed}x {axis}  y {scale}"), t.dim));
    let name = series::label(page, chart.metric);
    title(m, page, Pane::Loss, name, &words, area, buf);
    plot(m, page, &series, &y, Rect { y: area.y + 1, height: area.height.saturating_sub(1), ..area }, buf);
}

/// The chart alone, for pages without a title row of its own.
pub fn bare(m: &Model, page: &RunPage, area: Rect, buf: &mut Buffer) {
    let taller = Rect { y: area.y.saturating_sub(1), height: area.height + 1, ..area };
    let (series, y) = prepare(page, taller);
    plot(m, page, &series, &y, area, buf);
}

fn prepare(page: &RunPage, area: Rect) -> (Series, Axis) {
    let series = series::of(page, page.chart.metric, page.chart.axis);
    let shown = || series.points.iter().filter(|p| p.x >= series.low && p.x <= series.high);
    let evals = || series.evals.iter().filter(|e| e.0 >= series.low && e.0 <= series.high);
    let cloud = shown().step_by(1 + series.points.len() / 4000);
    let range = robust_range(shown().map(|p| p.smooth).chain(evals().map(|e| e.1)), cloud.map(|p| p.raw));
    let (low, high) = range.unwrap_or((0.0, 1.0));
    let most = usize::from(area.height.saturating_sub(3) * 2 / 5).clamp(3, 6);
    (series, Axis::round(low, high, most, page.log_y() && low > 0.0))
}

fn y_label(metric: Metric, axis: &Axis, v: f64) -> String {
    match metric {
        Metric::LearningRate if v == 0.0 => "0".into(),
        Metric::LearningRate => format!("{v:.1e}"),
        Metric::Own(_) => format!("{v:.d$}", d = axis.decimals()),
        _ if axis.high.abs() >= 1000.0 => format::thousands(v.max(0.0).round() as u64),
        Metric::Loss => format!("{v:.d$}", d = axis.decimals().max(2)),
        _ => format!("{v:.d$}", d = axis.decimals()),
    }
}

fn x_label(axis: XAxis, v: f64, span: f64) -> String {
    match axis {
        XAxis::Step => format::thousands(v.max(0.0).round() as u64),
        XAxis::Epoch => format::epoch(v),
        XAxis::Tokens if span >= 2e6 => format!("{}M", format::epoch(v / 1e6)),
        XAxis::Tokens if span >= 2e3 => format!("{}k", format::epoch(v / 1e3)),
        XAxis::Tokens => format!("{v:.0}"),
        XAxis::Time if span > 7200.0 => format!("{}h", format::epoch(v / 3600.0)),
        XAxis::Time if span > 180.0 => format!("{}m", format::epoch(v / 60.0)),
        XAxis::Time => format!("{v:.0}s"),
    }
}

fn plot(m: &Model, page: &RunPage, s: &Series, y: &Axis, area: Rect, buf: &mut Buffer) {
    let t = &m.theme;
    let labels: Vec<(f64, String)> = y.ticks.iter().map(|v| (*v, y_label(page.chart.metric, y, *v))).collect();
    let gutter = if area.width >= 60 { 2 } else { 1 };
    let label_width = labels.iter().map(|l| l.1.width()).max().unwrap_or(0).max(4) as u16;
    let left = gutter + label_width + 1;
    let below = match area.height {
        0..5 => 0,
        5..16 => 2,
        _ => 3,
    };
    let rows = area.height.saturating_sub(below);
    if area.width <= left + 3 || rows == 0 {
        return;
    }
    let inner = Rect { x: area.x + left, y: area.y, width: area.width - left, height: rows };
    let empty = s.points.is_empty() && s.evals.is_empty();
    for (v, label) in labels.iter().filter(|_| !empty) {
        let row = ((1.0 - y.place(*v)) * f64::from(rows - 1)).round();
        if (0.0..f64::from(rows)).contains(&row) {
            Pen::at(buf, area, row as u16).gap(gutter + label_width - label.width() as u16).put(label, t.dim);
        }
    }
    let mut canvas = Canvas::new(inner.width, inner.height);
    draw_series(&mut canvas, s, y);
    let column = |x: f64| {
        let place = (x - s.low) / (s.high - s.low);
        (0.0..=1.0).contains(&place).then(|| (place * f64::from(inner.width - 1)).round() as u16)
    };
    if let Some(cursor) = page.chart.cursor
        && let Some(at) = column(series::x_of(page, page.chart.axis, cursor))
    {
        for row in (0..rows).filter(|r| canvas.is_empty(at, *r)) {
            Pen::at(buf, inner, row).gap(at).put("│", t.dim);
        }
    }
    canvas.render(inner, buf, &[t.dim, t.text, t.accent], t.glyphs);
    if empty && rows > 2 {
        let starts = format!("{} starts the run", m.keymap.key(Action::PauseOrResume));
        let word = match page.folder {
            None => starts.as_str(),
            Some(_) if header::over(page) => "it ended before its first step",
            Some(_) => "waiting for the first step",
        };
        let at = inner.width.saturating_sub(word.width() as u16) / 2;
        Pen::at(buf, inner, rows / 2).gap(at).put(word, t.dim);
    }
    if below >= 2 {
        x_axis(m, page, s, area, inner, &column, buf);
    }
    if below >= 3 {
        legend(m, page, area, left, rows + 2, buf);
    }
}

fn draw_series(canvas: &mut Canvas, s: &Series, y: &Axis) {
    let (columns, rows) = (canvas.columns(), canvas.rows());
    let to_x = |x: f64| (x - s.low) / (s.high - s.low) * (columns - 1) as f64;
    // What lies beyond the range is drawn at its edge: a spike is seen, but does not flatten the rest.
    let to_y = |v: f64| ((1.0 - y.place(v).clamp(0.0, 1.0)) * (rows - 1) as f64).round() as i64;
    let shown: Vec<_> = s.points.iter().filter(|p| p.x >= s.low && p.x <= s.high).collect();
    let dense = shown.len() > columns * 2;
    // One bucket a dot column: lowest and highest raw value, mean of the smoothed.
    let mut buckets = vec![(f64::INFINITY, f64::NEG_INFINITY, 0.0, 0u32, false); columns];
    for p in &shown {
        let b = &mut buckets[(to_x(p.x).round().max(0.0) as usize).min(columns - 1)];
        if p.raw.is_finite() {
            (b.0, b.1) = (b.0.min(p.raw), b.1.max(p.raw));
            if !dense && s.dots {
                canvas.dot(to_x(p.x).round() as i64, to_y(p.raw), DOTS);
            }
        }
        if p.smooth.is_finite() {
            b.2 += p.smooth;
            b.3 += 1;
        } else {
            b.4 = true;
        }
    }
    let mut previous: Option<(i64, i64)> = None;
    for (x, (low, high, sum, n, broken)) in buckets.into_iter().enumerate() {
        if dense && s.dots && low.is_finite() {
            canvas.dot(x as i64, to_y(low), DOTS);
            canvas.dot(x as i64, to_y(high), DOTS);
        }
        if broken {
            previous = None;
        }
        if n > 0 {
            let here = (x as i64, to_y(sum / f64::from(n)));
            canvas.line(previous.unwrap_or(here), here, LINE);
            previous = Some(here);
        }
    }
    let mut previous: Option<(i64, i64)> = None;
    for &(x, v) in s.evals.iter().filter(|e| e.0 >= s.low && e.0 <= s.high) {
        if !v.is_finite() {
            previous = None;
            continue;
        }
        let here = (to_x(x).round() as i64, to_y(v));
        dotted(canvas, previous.unwrap_or(here), here);
        previous = Some(here);
    }
    for &(x, v) in s.evals.iter().filter(|e| e.0 >= s.low && e.0 <= s.high && e.1.is_finite()) {
        canvas.mark(to_x(x).round() as i64, to_y(v), '◆', EVAL);
    }
}

/// The way between two evaluations: every third dot, since nothing was measured there.
fn dotted(canvas: &mut Canvas, from: (i64, i64), to: (i64, i64)) {
    for x in (from.0..to.0).step_by(3) {
        let share = (x - from.0) as f64 / (to.0 - from.0) as f64;
        canvas.dot(x, from.1 + ((to.1 - from.1) as f64 * share).round() as i64, EVAL);
    }
}

fn x_axis(
    m: &Model,
    page: &RunPage,
    s: &Series,
    area: Rect,
    inner: Rect,
    column: &dyn Fn(f64) -> Option<u16>,
    buf: &mut Buffer,
) {
    let t = &m.theme;
    let row = inner.height;
    let below = Rect { x: inner.x, width: inner.width, ..area };
    Pen::at(buf, below, row).put("└", t.dim).fill('─', t.dim, 0);
    let mut track: Vec<(u16, u8, char, Style)> = Vec::new();
    let mut at = |step: u64, rank: u8, symbol: char, style: Style| {
        if let Some(c) = column(series::x_of(page, page.chart.axis, step)) {
            match track.iter_mut().find(|k| k.0 == c) {
                Some(k) if k.1 >= rank => {}
                Some(k) => *k = (c, rank, symbol, style),
                None => track.push((c, rank, symbol, style)),
            }
        }
    };
    page.run.checkpoints.iter().for_each(|c| at(c.step, 1, '○', t.text));
    page.run.changes.iter().for_each(|c| at(c.step, 3, '△', t.text));
    for f in page.run.findings.iter().filter(|f| f.severity > Severity::Note) {
        let (rank, symbol, style) = match (f.resolved, f.severity) {
            (true, _) => (2, '▲', t.dim),
            (_, Severity::Error) => (5, '✕', t.error),
            _ => (4, '▲', t.warn),
        };
        at(f.since, rank, symbol, style);
    }
    for (c, _, symbol, style) in track {
        Pen::at(buf, below, row).gap(c).put(symbol.to_string(), style);
    }
    if let Some(c) = page.chart.cursor.and_then(|c| column(series::x_of(page, page.chart.axis, c))) {
        Pen::at(buf, below, row).gap(c).put("┴", t.accent);
    }
    if s.points.is_empty() && s.evals.is_empty() {
        return;
    }
    let ticks = Axis::exact(s.low, s.high, usize::from(inner.width / 16).clamp(2, 8)).ticks;
    let mut free = 0;
    for v in ticks {
        let Some(c) = column(v) else { continue };
        let label = x_label(page.chart.axis, v, s.high - s.low);
        let width = label.width() as u16;
        let start = c.saturating_sub(width / 2);
        if start >= free && start + width <= inner.width {
            Pen::at(buf, below, row + 1).gap(start).put(&label, t.dim);
            free = start + width + 2;
        }
    }
}

/// What the marks on the track are: the newest of each kind.
fn legend(m: &Model, page: &RunPage, area: Rect, left: u16, row: u16, buf: &mut Buffer) {
    let t = &m.theme;
    let mut pen = Pen::at(buf, area, row);
    pen.gap(left);
    if let Some(c) = page.run.checkpoints.last() {
        let best = if c.what.best { ", best" } else { "" };
        pen.put("○", t.text).gap(1).put(format!("checkpoint {}{best}", format::thousands(c.step)), t.dim).gap(3);
    }
    if let Some(c) = page.run.changes.last() {
        let w = &c.what;
        let words = match (w.key.as_str(), page.run.rolled_back) {
            ("roll_back", Some(r)) => format!("{} back to {}, by {}", r.from, r.to, w.by),
            _ => {
                let key = if w.key == "train.learning_rate" { "lr" } else { &w.key };
                let key = key.rsplit('.').next().unwrap_or(key);
                format!("{} {key} {} → {}, by {}", format::thousands(c.step), w.from, w.to, w.by)
            }
        };
        if usize::from(pen.room()) > words.width() + 2 {
            pen.put("△", t.text).gap(1).put(words, t.dim).gap(3);
        }
    }
    if let Some(f) = page.run.open().into_iter().find(|f| f.severity > Severity::Note) {
        let (sign, style) = super::severity(f.severity, t);
        // "0 rows are cut" would say the opposite.
        let words = match f.since {
            0 => f.title.clone(),
            step => format!("{} {}", format::thousands(step), f.title),
        };
        if usize::from(pen.room()) > words.width() + 2 {
            pen.put(sign, style).gap(1).put(words, t.dim);
        }
    }
}

/// The top of a line's scale: what nineteen in twenty columns stay below, so that the first steps do not flatten it.
fn most_of(columns: &[Option<f64>]) -> Option<f64> {
    let mut v: Vec<f64> = columns.iter().flatten().copied().collect();
    v.sort_unstable_by(f64::total_cmp);
    v.get(v.len().saturating_sub(1) * 19 / 20).copied()
}

/// The other metrics, one line each: the number first, then its course, then what is usual for it.
pub fn sparklines(m: &Model, page: &RunPage, area: Rect, buf: &mut Buffer) {
    let t = &m.theme;
    let wide = page.curves().iter().map(|c| c.label.width()).max().unwrap_or(0).max(6);
    for (i, metric) in page.sparklines().enumerate().take(usize::from(area.height)) {
        let marked = page.chart.mark == Some(i) && page.focus == Pane::Loss;
        let mut pen = Pen::at(buf, area, i as u16);
        let name = series::label(page, metric);
        let style = if marked { t.focus() } else { t.dim };
        pen.put(if marked { "▸ " } else { "  " }, t.accent).put(format!("{name:<wide$}"), style);
        let now = series::now(page, metric).unwrap_or(UNKNOWN.into());
        pen.put(format!("{now:>9}"), t.text).gap(3);
        let note = series::note(page, metric);
        let room = usize::from(pen.room());
        let noted = if room >= 40 { 23 } else { 0 };
        let s = series::thinned(page, metric);
        let columns = series::columns(&s, room.saturating_sub(noted));
        let top = columns.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
        let lowest = columns.iter().flatten().copied().fold(f64::INFINITY, f64::min);
        let (low, high) = match metric {
            Metric::Own(_) => (lowest, top),
            Metric::Loss | Metric::Grad => (lowest, most_of(&columns).unwrap_or(top)),
            _ => (0.0, top.max(1e-12) * 1.35),
        };
        pen.put(spark(&columns, low, high), if marked { t.accent } else { t.dim });
        if noted > 0 {
            pen.gap(3).put(&note, t.dim);
        }
    }
}
