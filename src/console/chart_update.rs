//! What keys do to the large chart: cursor, zoom, axes, metric, sparklines.

use super::keymap::Action;
use super::message::Effect;
use super::model::Model;
use super::run_page::{Metric, Pane, RunPage, XAxis};

/// Carries out an action of the loss pane.
pub fn act(m: &mut Model, action: Action) -> Vec<Effect> {
    let Some(page) = &mut m.run else { return Vec::new() };
    let last = page.run.step_number();
    let first = page.run.steps.first().map_or(0, |p| p.step);
    let most = page.sparklines().count().saturating_sub(1);
    match action {
        Action::Left => move_cursor(page, -1),
        Action::Right => move_cursor(page, 1),
        Action::First => {
            hold_window(page);
            page.chart.cursor = (last > 0).then_some(first);
            keep_in_window(page);
        }
        Action::Last => page.chart.cursor = None,
        Action::LogY => page.chart.log = Some(!page.log_y()),
        Action::AxisX => {
            page.chart.axis = match page.chart.axis {
                XAxis::Step => XAxis::Epoch,
                XAxis::Epoch => XAxis::Tokens,
                XAxis::Tokens => XAxis::Time,
                XAxis::Time => XAxis::Step,
            }
        }
        Action::Metric => {
            let all = page.metrics();
            let at = all.iter().position(|m| *m == page.chart.metric).unwrap_or(0);
            promote(page, all[(at + 1) % all.len()]);
        }
        Action::ZoomIn => scale(page, 0.5),
        Action::ZoomOut => scale(page, 2.0),
        Action::ZoomAll => page.chart.zoom = None,
        Action::Up => page.chart.mark = page.chart.mark.map_or(Some(most), |i| i.checked_sub(1)),
        Action::Down => page.chart.mark = Some(page.chart.mark.map_or(0, |i| (i + 1).min(most))),
        Action::Open => match page.chart.mark.and_then(|i| page.sparklines().nth(i)) {
            Some(metric) => promote(page, metric),
            None if !page.run.open().is_empty() => {
                page.focus = Pane::Diagnostics;
                (page.diagnostics.selected, page.diagnostics.why) = (0, true);
            }
            None => {}
        },
        _ => {}
    }
    Vec::new()
}

fn promote(page: &mut RunPage, metric: Metric) {
    page.chart.metric = metric;
    page.chart.mark = None;
}

/// The steps shown now.
fn window(page: &RunPage) -> (f64, f64) {
    let last = page.run.step_number().max(1) as f64;
    match (page.chart.zoom, page.chart.cursor) {
        (None, _) => (0.0, last),
        (Some((low, high)), None) => (last - (high - low), last),
        (Some(zoom), Some(_)) => zoom,
    }
}

/// A window that follows the newest stays where it is once there is a cursor.
fn hold_window(page: &mut RunPage) {
    if page.chart.zoom.is_some() {
        page.chart.zoom = Some(window(page));
    }
}

fn move_cursor(page: &mut RunPage, direction: i64) {
    let (last, first) = (page.run.step_number(), page.run.steps.first().map_or(0, |p| p.step));
    if last == 0 {
        return;
    }
    hold_window(page);
    let (low, high) = window(page);
    // About a hundred key presses from end to end, and each step when zoomed in.
    let stride = ((high - low) / 100.0).round().max(1.0) as i64;
    let to = page.cursor_step() as i64 + direction * stride;
    page.chart.cursor = (to < last as i64).then(|| to.max(first as i64) as u64);
    keep_in_window(page);
}

/// Pans so that the cursor stays in sight.
fn keep_in_window(page: &mut RunPage) {
    let (Some((low, high)), Some(cursor)) = (page.chart.zoom, page.chart.cursor) else { return };
    let (c, span) = (cursor as f64, high - low);
    let low = if c < low {
        c
    } else if c > high {
        c - span
    } else {
        low
    };
    page.chart.zoom = Some((low, low + span));
}

fn scale(page: &mut RunPage, by: f64) {
    let last = page.run.step_number() as f64;
    if last < 2.0 {
        return;
    }
    let (low, high) = window(page);
    let span = ((high - low) * by).max(8.0);
    if span >= last {
        page.chart.zoom = None;
        return;
    }
    let middle = page.chart.cursor.map_or(high, |c| c as f64);
    let share = ((middle - low) / (high - low)).clamp(0.0, 1.0);
    let low = (middle - span * share).clamp(0.0, last - span);
    page.chart.zoom = Some((low, low + span));
}
