//! Pane 3: memory, estimated and measured side by side; of the card, or of the process on the host.

use super::header::memory_now;
use super::title;
use crate::console::format::{self, UNKNOWN, gib};
use crate::console::model::Model;
use crate::console::run_page::{Pane, RunPage};
use crate::console::view::pen::{Pen, fit};
use crate::run::event::Component;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use unicode_width::UnicodeWidthStr;

/// Rows that the pane would fill.
pub fn height(page: &RunPage) -> u16 {
    page.run.memory.components.len() as u16 + 7 + u16::from(!measured_by_part(page))
}

pub fn render(m: &Model, page: &RunPage, area: Rect, buf: &mut Buffer) {
    let (t, memory, reading) = (&m.theme, &page.run.memory, &page.reading);
    let card = reading.source.starts_with("nvml") || page.run.start.device.starts_with("cuda");
    let source = if reading.source.is_empty() { "host" } else { &reading.source };
    title(m, page, Pane::Memory, Pane::Memory.name(), &[(source.to_string(), t.dim)], area, buf);
    let body = Rect { y: area.y + 1, height: area.height.saturating_sub(1), width: area.width.min(76), ..area };

    let (used, total) = memory_now(page);
    let numbers = format!("{:>5} / {} GiB", used.map_or(UNKNOWN.into(), gib), total.map_or(UNKNOWN.into(), gib));
    let label = if card { "card  " } else { "host  " };
    let width = usize::from(body.width).saturating_sub(2 + label.len() + 1 + numbers.width());
    let share = used.zip(total).map_or(0.0, |(u, t)| u as f64 / t.max(1) as f64);
    let full = ((share * width as f64).round() as usize).clamp(usize::from(used.is_some()).min(width), width);
    let mut pen = Pen::at(buf, body, 0);
    pen.gap(2).put(label, t.dim).put("█".repeat(full), if share > 0.95 { t.warn } else { t.accent });
    pen.put("░".repeat(width - full), t.dim).gap(1).put(numbers, t.text);

    let peak = memory.peak.into_iter().chain(used).max();
    let mut pen = Pen::at(buf, body, 1);
    pen.gap(2).put("peak ", t.dim).put(peak.map_or(UNKNOWN.into(), gib), t.text).gap(3);
    if let Some((p, total)) = peak.zip(total) {
        pen.put("room ", t.dim).put(gib(total.saturating_sub(p)), t.text);
    }

    let parts = &memory.components;
    if parts.is_empty() {
        Pen::at(buf, body, 3).gap(2).put("the estimate follows once the model is loaded", t.dim);
        return;
    }
    let mut row = table(m, page, body, 3, buf);
    let mut facts: Vec<String> = Vec::new();
    facts.extend(reading.temperature_celsius.map(|v| format!("{v:.0} °C")));
    facts.extend(reading.clock_mhz.map(|v| format!("{} MHz", format::thousands(v as u64))));
    if card {
        facts.extend(reading.host_used.zip(reading.host_total).map(|(u, t)| format!("host {}/{}", gib(u), gib(t))));
    } else {
        facts.extend(reading.cpu_percent.map(|v| format!("cpu {v:.0} %")));
        facts.extend(reading.host_used.zip(reading.host_total).map(|(u, t)| format!("machine {}/{}", gib(u), gib(t))));
    }
    if row + 1 < body.height {
        row += 1;
    }
    Pen::at(buf, body, row).gap(2).put(facts.join("   "), t.dim);
}

/// A line of the table: its numbers, and what is to be compared, the estimate first.
struct Line<'a> {
    name: &'a str,
    values: Vec<Option<u64>>,
    compared: Option<(u64, u64)>,
    total: bool,
}

/// The parts and their sum. Where the parts are measured, estimate and measurement stand side by side; where only the
/// process is (on a CPU), its peak stands under the estimate's sum.
fn table_lines(page: &RunPage) -> Vec<Line<'_>> {
    let memory = &page.run.memory;
    let sum = |f: fn(&Component) -> Option<u64>| {
        let known: Vec<u64> = memory.components.iter().filter_map(f).collect();
        (!known.is_empty()).then(|| known.iter().sum::<u64>())
    };
    let estimate = sum(|c| c.estimate);
    let used = memory_now(page).0;
    let mut lines = Vec::new();
    if measured_by_part(page) {
        let measured = used.or(sum(|c| c.measured));
        lines.extend(memory.components.iter().map(|c| Line {
            name: &c.name,
            values: vec![c.estimate, c.measured],
            compared: c.estimate.zip(c.measured),
            total: false,
        }));
        let (values, compared) = (vec![estimate, measured], estimate.zip(measured));
        lines.push(Line { name: "total", values, compared, total: true });
        return lines;
    }
    let parts = memory.components.iter();
    lines.extend(parts.map(|c| Line { name: &c.name, values: vec![c.estimate], compared: None, total: false }));
    // What is held before the first step says nothing of an estimate of the peak.
    let peak = memory.peak.into_iter().chain(used).max().filter(|_| !page.run.steps.is_empty());
    lines.push(Line { name: "total", values: vec![estimate], compared: None, total: true });
    lines.push(Line { name: "measured, at its peak", values: vec![peak], compared: estimate.zip(peak), total: true });
    lines
}

fn measured_by_part(page: &RunPage) -> bool {
    page.run.memory.components.iter().any(|c| c.measured.is_some())
}

/// Draws the table from `row`; returns the row after it.
fn table(m: &Model, page: &RunPage, body: Rect, mut row: u16, buf: &mut Buffer) -> u16 {
    let t = &m.theme;
    let parts = &page.run.memory.components;
    let small = parts.iter().any(|c| c.estimate.or(c.measured).is_some_and(|b| b < 100 << 20));
    // A small model's parts would all read 0.0 in GiB.
    let (unit, number): (_, fn(u64) -> String) = if small && memory_now(page).0.is_none_or(|u| u < 8 << 30) {
        ("MiB", |b| format::thousands((b as f64 / 1_048_576.0).round() as u64))
    } else {
        ("GiB", gib)
    };
    let heads: &[&str] = if measured_by_part(page) { &["estimate", "measured"] } else { &["estimate"] };
    let (column, off_column) = if body.width >= 54 { (11, 7) } else { (9, 6) };
    let name = usize::from(body.width).saturating_sub(2 + heads.len() * column + off_column);
    let right = |text: &str, width: usize| format!("{}{text}", " ".repeat(width.saturating_sub(text.width())));
    let mut pen = Pen::at(buf, body, row);
    pen.gap(2).put(format!("{unit:<name$}"), t.dim);
    for head in heads {
        pen.put(right(head, column), t.dim);
    }
    row += 1;
    let lines = table_lines(page);
    // Where there is too little room, the first parts (the model itself, largest and surest) stay, and the totals.
    let totals = lines.iter().filter(|l| l.total).count();
    let room = usize::from(body.height.saturating_sub(row)).saturating_sub(totals);
    for (i, line) in lines.into_iter().enumerate() {
        if i >= room && !line.total {
            continue;
        }
        let style = if line.total { t.strong() } else { t.text };
        let mut pen = Pen::at(buf, body, row);
        pen.gap(2).put(format!("{:<name$}", fit(line.name, name)), style);
        for value in line.values {
            pen.put(right(&value.map_or(UNKNOWN.into(), number), column), style);
        }
        if let Some((e, v)) = line.compared {
            let off = (v as f64 / e.max(1) as f64 - 1.0) * 100.0;
            if off.abs() >= 1.0 && off.abs() < 1000.0 {
                pen.put(right(&format!("{off:+.0} %"), off_column), t.dim);
            }
        }
        row += 1;
    }
    row
}
