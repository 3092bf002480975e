//! The run page: layout by size, one file a pane.

mod completions;
mod diagnostics;
mod footer;
mod header;
mod hint;
mod loss;
mod memory;
mod recipe;
mod samples;
mod series;

pub use header::bar;

use crate::console::model::Model;
use crate::console::run_page::{Pane, RunPage};
use crate::console::theme::Theme;
use crate::console::view::pen::Pen;
use crate::run::event::Severity;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use unicode_width::UnicodeWidthStr;

/// How much fits; see the specification's breakpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// Under 60 columns or very low: vital numbers, a chart if there is room.
    Vitals,
    /// One pane, with tabs.
    Tabs,
    /// Chart and rail.
    Rail,
    /// All five panes.
    Five,
}

/// The row of the tabs; a pane that starts there has them for its title.
const TAB_ROW: u16 = 2;

/// Tabs have a status line from this height on.
const ROOMY: u16 = 28;

/// Rows at the bottom that a notice leaves alone: the keys, and their rule where no status line lies between.
pub fn footer_rows(area: Rect) -> u16 {
    match form(area.width, area.height) {
        Form::Vitals => u16::from(area.height >= 4),
        Form::Tabs if area.height < ROOMY => 2,
        _ => 1,
    }
}

/// The form for a terminal of this size.
pub fn form(width: u16, height: u16) -> Form {
    match (width, height) {
        (160.., 40..) => Form::Five,
        (120.., 32..) => Form::Rail,
        (60.., 16..) => Form::Tabs,
        _ => Form::Vitals,
    }
}

pub fn render(m: &Model, area: Rect, buf: &mut Buffer) {
    let Some(page) = &m.run else { return };
    match form(area.width, area.height) {
        Form::Vitals => vitals(m, page, area, buf),
        Form::Tabs => tabs(m, page, area, buf),
        form => {
            frame(m, page, area, buf);
            for (pane, at) in places(page, area, form) {
                draw_pane(m, page, pane, at, buf);
            }
        }
    }
}

/// Where each pane stands in the forms that show several; a zoomed one has it all. The update asks too, for clicks.
pub fn places(page: &RunPage, area: Rect, form: Form) -> Vec<(Pane, Rect)> {
    if matches!(form, Form::Vitals | Form::Tabs) {
        return vec![(page.focus, area)];
    }
    let body = Rect { y: area.y + 6, height: area.height.saturating_sub(10), ..area };
    if page.zoomed {
        return vec![(page.focus, Rect { width: body.width - 1, ..body })];
    }
    let rail = match form {
        Form::Five => (body.width * 7 / 20).clamp(56, 76),
        _ => (body.width * 2 / 5).clamp(48, 54),
    };
    let left = Rect { width: body.width - rail - 2, ..body };
    // One column stays free at the right edge, as at the left.
    let right = Rect { x: left.right() + 2, width: rail - 1, ..body };
    let extra = body.height.saturating_sub(38);
    let low = match form {
        Form::Five => 12 + extra * 2 / 5 - 38u16.saturating_sub(body.height).min(5),
        _ => (body.height / 3).clamp(8, 14),
    };
    let upper = body.height - low - 1;
    let under = |r: Rect| Rect { y: r.y + upper + 1, height: low, ..r };
    let over = |r: Rect| Rect { height: upper, ..r };
    let mut out = vec![(Pane::Loss, over(left)), (Pane::Samples, under(left))];
    match form {
        Form::Five => {
            let memory = memory::height(page).min(upper / 2 + 2);
            out.push((Pane::Memory, Rect { height: memory, ..right }));
            out.push((Pane::Recipe, Rect { y: right.y + memory + 1, height: upper - memory - 1, ..right }));
            out.push((Pane::Diagnostics, under(right)));
        }
        // The rail holds memory and diagnostics, and the recipe where there is room; focused, it takes memory's place.
        _ => {
            let (memory, all) = (memory::height(page), over(right));
            if page.focus == Pane::Recipe {
                out.push((Pane::Recipe, all));
            } else if memory + 6 <= upper {
                out.push((Pane::Memory, Rect { height: memory, ..all }));
                out.push((Pane::Recipe, Rect { y: all.y + memory + 1, height: upper - memory - 1, ..all }));
            } else {
                out.push((Pane::Memory, all));
            }
            out.push((Pane::Diagnostics, under(right)));
        }
    }
    out
}

/// What stands around the panes of the larger forms.
fn frame(m: &Model, page: &RunPage, area: Rect, buf: &mut Buffer) {
    header::wide(m, page, area, buf);
    header::vitals(m, page, Rect { y: area.y + 3, height: 2, ..area }, buf);
    hint::render(m, page, area, area.height - 4, buf);
    footer::rule(m, area, area.height - 3, buf);
    footer::status(m, page, area, area.height - 2, buf);
    footer::keys(m, page, area, area.height - 1, buf);
}

fn draw_pane(m: &Model, page: &RunPage, pane: Pane, area: Rect, buf: &mut Buffer) {
    match pane {
        Pane::Loss => {
            // A method's own curves want lines of their own, of which the chart leaves as many as it can.
            let own = page.curves().len() as u16;
            let lines = if area.height >= 17 {
                4 + own.min(area.height.saturating_sub(17) / 2)
            } else if area.height >= 13 {
                2
            } else {
                0
            };
            let gap = u16::from(lines > 0);
            let hero = Rect { height: area.height.saturating_sub(lines + gap), ..area };
            loss::hero(m, page, hero, buf);
            let below = Rect { y: hero.bottom() + gap, height: lines, ..area };
            loss::sparklines(m, page, below, buf);
        }
        Pane::Samples => samples::render(m, page, area, buf),
        Pane::Memory => memory::render(m, page, area, buf),
        Pane::Recipe => recipe::render(m, page, area, buf),
        Pane::Diagnostics => diagnostics::render(m, page, area, buf),
    }
}

/// 60 to 119 columns: one pane, the others by their tabs.
fn tabs(m: &Model, page: &RunPage, area: Rect, buf: &mut Buffer) {
    header::narrow(m, page, area, buf);
    header::vitals_line(m, page, area, 1, buf);
    let roomy = area.height >= ROOMY;
    let bottom = area.height - if roomy { 3 } else { 2 };
    footer::rule(m, area, bottom, buf);
    if roomy {
        footer::status(m, page, area, bottom + 1, buf);
    }
    footer::keys(m, page, area, area.height - 1, buf);
    // One row above the rule is free: for the demo's hint, or what the overlay says.
    let free = bottom - 1;
    hint::render(m, page, area, free, buf);
    let body = Rect { y: area.y + 3, height: free.saturating_sub(3), ..area };
    if page.focus != Pane::Loss {
        draw_pane(m, page, page.focus, Rect { y: area.y + TAB_ROW, height: body.height + 1, ..area }, buf);
        return;
    }
    let mut row = Pen::at(buf, area, TAB_ROW);
    tab_row(m, page, &mut row);
    row.fill('─', m.theme.dim, 0);
    let samples =
        if page.zoomed || page.run.prompts.is_empty() || body.height < 14 { 0 } else { (body.height / 4).clamp(4, 12) };
    let own = page.curves().len() as u16;
    let sparks = if body.height >= 26 { 5 + own.min((body.height - 26) / 2) } else { 0 };
    let chart = body.height.saturating_sub(samples + sparks + 1);
    let tight = if chart < 15 { 0 } else { 1 };
    loss::bare(m, page, Rect { height: chart, ..body }, buf);
    if sparks > 0 {
        loss::sparklines(m, page, Rect { y: body.y + chart + tight, height: sparks - 1, ..body }, buf);
    }
    let finding = body.y - area.y + chart + sparks;
    diagnostics::line(m, page, area, finding, buf);
    if samples > 0 {
        samples::peek(m, page, Rect { y: area.y + finding + 1, height: samples, ..body }, buf);
    }
}

/// The tab under a column of the tab row.
pub fn tab_at(page: &RunPage, column: u16) -> Option<Pane> {
    let mut x = 0;
    Pane::ALL.into_iter().find(|p| {
        let from = x;
        x += tab_name(page, *p).width() as u16 + 5;
        (from..x).contains(&column)
    })
}

fn tab_name(page: &RunPage, pane: Pane) -> &'static str {
    if pane == Pane::Loss { series::label(page, page.chart.metric) } else { pane.name() }
}

fn tab_row(m: &Model, page: &RunPage, pen: &mut Pen) {
    let t = &m.theme;
    for pane in Pane::ALL {
        let focused = pane == page.focus;
        let style = if focused { t.focus() } else { t.dim };
        let name = tab_name(page, pane);
        pen.put(if focused { "▌ " } else { "  " }, t.accent).put(format!("{} {name} ", pane.number()), style);
    }
}

/// Under 60 columns: the vital numbers, a chart if there is room, the worst finding, the keys.
fn vitals(m: &Model, page: &RunPage, area: Rect, buf: &mut Buffer) {
    header::narrow(m, page, area, buf);
    header::vitals_line(m, page, area, 1, buf);
    let height = area.height;
    if height >= 4 {
        footer::keys(m, page, area, height - 1, buf);
    }
    if height >= 3 {
        diagnostics::line(m, page, area, 2.max(height.saturating_sub(2)), buf);
    }
    if height >= 8 {
        loss::bare(m, page, Rect { y: area.y + 2, height: height - 4, ..area }, buf);
    }
}

/// A pane's title rule: `▌ 1 loss ──────── words`.
fn title(m: &Model, page: &RunPage, pane: Pane, name: &str, words: &[(String, Style)], area: Rect, buf: &mut Buffer) {
    let t = &m.theme;
    let focused = page.focus == pane;
    let mut pen = Pen::at(buf, area, 0);
    if area.y == TAB_ROW {
        tab_row(m, page, &mut pen);
    } else {
        pen.put(if focused { "▌ " } else { "  " }, t.accent);
        let style = if focused { t.focus() } else { t.strong() };
        pen.put(format!("{} {name} ", pane.number()), style);
    }
    let mut words = words;
    let width = |w: &[(String, Style)]| w.iter().map(|w| w.0.width()).sum::<usize>() as u16;
    while width(words) + 2 > pen.room() && !words.is_empty() {
        words = &words[1..];
    }
    let tail = width(words);
    pen.fill('─', t.dim, if tail > 0 { tail + 1 } else { 0 }).gap(1);
    for (word, style) in words {
        pen.put(word, *style);
    }
}

/// The sign and colour of a severity.
fn severity(s: Severity, t: &Theme) -> (&'static str, Style) {
    match s {
        Severity::Passed => ("✓", t.pass),
        Severity::Note => ("·", t.text),
        Severity::Warning => ("▲", t.warn),
        Severity::Error => ("✕", t.error),
    }
}

/// Text being typed, with its cursor as a reversed cell.
pub fn typed(pen: &mut Pen, input: &tui_input::Input, t: &Theme) {
    let room = usize::from(pen.room().min(60)).saturating_sub(1);
    let skip = input.visual_scroll(room.max(1));
    let (mut column, mut under) = (0, false);
    let cursor = input.visual_cursor();
    for c in input.value().chars() {
        let width = unicode_width::UnicodeWidthChar::width(c).unwrap_or(0);
        if column >= skip && column + width <= skip + room {
            let here = column == cursor;
            under |= here;
            let style = if here {
                t.strong().add_modifier(Modifier::REVERSED)
            } else {
                t.strong().add_modifier(Modifier::UNDERLINED)
            };
            pen.put(c.to_string(), style);
        }
        column += width;
    }
    if !under {
        pen.put(" ", t.strong().add_modifier(Modifier::REVERSED));
    }
}
