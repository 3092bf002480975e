//! The top of the run page: what it is, how far, until when, and the vital numbers. Always there.

use crate::console::format::{self, UNKNOWN};
use crate::console::model::Model;
use crate::console::run_page::RunPage;
use crate::console::run_state::{EvalPoint, Trend};
use crate::console::theme::Theme;
use crate::console::view::pen::{Pen, fit};
use crate::run::event::{RunState, Severity};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use unicode_width::UnicodeWidthStr;

/// The state in a sign and a word, and its colour.
pub fn state(page: &RunPage, t: &Theme) -> (&'static str, &'static str, Style) {
    match page.run.state {
        None if page.folder.is_none() => ("○", "ready", t.accent),
        None | Some(RunState::Preparing) if page.live => ("○", "preparing", t.accent),
        Some(RunState::Running) if page.live => ("●", "training", t.accent),
        Some(RunState::Paused) if page.live => ("‖", "paused", t.warn),
        Some(RunState::Finished) => ("✓", "finished", t.pass),
        Some(RunState::Stopped) => ("■", "stopped", t.text),
        Some(RunState::Failed) => ("✕", "failed", t.error),
        None | Some(RunState::Preparing | RunState::Running | RunState::Paused) => ("✕", "died", t.error),
    }
}

/// Whether the run is over, one way or the other.
pub fn over(page: &RunPage) -> bool {
    matches!(page.run.state, Some(RunState::Finished | RunState::Stopped | RunState::Failed)) || !page.live
}

/// `━━━━╸────`: done, and still to do.
pub fn bar(done: f64, width: usize) -> (String, String) {
    let halves = (done.clamp(0.0, 1.0) * width as f64 * 2.0).round() as usize;
    let mut full = "━".repeat(halves / 2);
    if halves % 2 == 1 {
        full.push('╸');
    }
    let rest = "─".repeat(width - halves.div_ceil(2));
    (full, rest)
}

fn progress(page: &RunPage) -> (String, f64) {
    let (step, total) = (page.run.step_number(), page.run.start.total_steps);
    let total_text = if total == 0 { UNKNOWN.to_string() } else { format::thousands(total) };
    // Padded to its longest, so that nothing beside it moves.
    let text = format!("{}/{total_text}", format::thousands(step));
    let text = format!("{text:<w$}", w = total_text.width() * 2 + 1);
    (text, if total == 0 { 0.0 } else { step as f64 / total as f64 })
}

/// Rounded, but 100 only when all is done.
fn percent(done: f64) -> u64 {
    if done < 1.0 { ((done * 100.0).round() as u64).min(99) } else { 100 }
}

/// Time left while it runs, time taken when it is over.
fn time_words(page: &RunPage) -> (&'static str, String) {
    let run = &page.run;
    if over(page) && !run.steps.is_empty() {
        return ("took", format::duration(run.last_time - run.began));
    }
    if page.folder.is_none() {
        return ("left", UNKNOWN.into());
    }
    ("left", run.seconds_left().map_or(UNKNOWN.into(), format::duration))
}

/// Lines 1 and 2 of the wide page.
pub fn wide(m: &Model, page: &RunPage, area: Rect, buf: &mut Buffer) {
    let (t, run) = (&m.theme, &page.run);
    let (sign, word, style) = state(page, t);
    let mut pen = Pen::at(buf, area, 0);
    pen.gap(1).put(&page.name, t.strong()).gap(2).put(sign, style).gap(1).put(word, style).gap(3);
    let facts = [&run.start.method, &run.start.tuning, &run.start.model];
    let facts: Vec<_> = facts.into_iter().filter(|f| !f.is_empty()).cloned().collect();
    if matches!(word, "preparing" | "failed" | "stopped") && !run.why.is_empty() {
        pen.put(fit(&run.why, usize::from(pen.room() / 2)), t.dim);
    } else {
        pen.put(facts.join(" · "), t.text);
    }
    pen.gap(3);
    let watching =
        if page.folder.is_some() && page.watching > 0 { format!("{} watching", page.watching) } else { String::new() };
    let place = [run.start.device_name.as_str(), run.start.host.as_str(), watching.as_str()];
    let place: Vec<_> = place.into_iter().filter(|f| !f.is_empty()).collect();
    (0..place.len()).any(|i| {
        let before = pen.x;
        pen.right(&place[i..].join(" · "), t.dim, 1);
        pen.x != before
    });

    let (steps, done) = progress(page);
    let (full, rest) = bar(done, usize::from(area.width / 4));
    let mut pen = Pen::at(buf, area, 1);
    pen.gap(1).put("step ", t.dim).put(&steps, t.strong()).gap(1).put(full, t.accent).put(rest, t.dim);
    pen.put(format!("{:>4}%", percent(done)), t.text).gap(3);
    let epochs = run.start.num_train_epochs;
    if epochs > 0.0 {
        let now = run.last().map_or(0.0, |s| s.epoch);
        pen.put("epoch ", t.dim).put(format!("{now:.2}/{}", format::epoch(epochs)), t.text).gap(3);
    }
    let (label, time) = time_words(page);
    pen.put(label, t.dim).gap(1).put(format!("{time:<7}"), t.strong()).gap(3);
    if run.began > 0.0 {
        let end =
            if over(page) { Some(run.last_time) } else { run.seconds_left().map(|s| m.now.max(run.last_time) + s) };
        let zone = m.utc_offset.unwrap_or(0);
        let end = end.map_or(UNKNOWN.to_string(), |e| format::clock(e, zone));
        let utc = if m.utc_offset.is_none() { " UTC" } else { "" };
        let span = format!("{} → {end}{utc}", format::clock(run.began, zone));
        if usize::from(pen.room()) > span.width() {
            pen.put(span, t.dim);
        }
    }
}

/// The one header line of narrower pages.
pub fn narrow(m: &Model, page: &RunPage, area: Rect, buf: &mut Buffer) {
    let t = &m.theme;
    let (sign, word, style) = state(page, t);
    let (steps, done) = progress(page);
    let (label, time) = time_words(page);
    let end = format!("{label} {time:>7}");
    let percent = format!("{:>3}%", percent(done));
    let steps = steps.trim_end();
    // Name, bar and word give way to the numbers, in that order of width.
    let mut room =
        usize::from(area.width).saturating_sub(1 + 2 + steps.width() + 1 + percent.width() + 1 + end.width());
    let worded = room > word.width() + 1;
    room = room.saturating_sub(if worded { word.width() + 2 } else { 0 });
    let name = fit(&page.name, room.saturating_sub(10).min(24));
    let named = room >= 18 && !name.is_empty();
    room = room.saturating_sub(if named { name.width() + 2 } else { 0 });
    let mut pen = Pen::at(buf, area, 0);
    pen.gap(1);
    if named {
        pen.put(&name, t.strong()).gap(2);
    }
    pen.put(sign, style).gap(1);
    if worded {
        pen.put(word, style).gap(if area.width >= 60 { 2 } else { 1 });
    }
    pen.put(steps, t.strong()).gap(1);
    if room >= 8 {
        let (full, rest) = bar(done, (room - 4).min(60));
        pen.put(full, t.accent).put(rest, t.dim);
    }
    pen.put(&percent, t.text).right(&end, t.strong(), 0);
}

/// One vital number: label, text, style, columns it takes on the wide page.
struct Vital {
    label: &'static str,
    text: String,
    style: Style,
    width: u16,
}

fn trend_sign(trend: Trend) -> &'static str {
    match trend {
        Trend::Falling => "↓",
        Trend::Rising => "↑",
        Trend::Level => "→",
        Trend::Unknown => " ",
    }
}

/// The number that a run is about: the loss, or of GRPO the reward, whose loss says nothing.
fn of_steps(page: &RunPage) -> Option<f64> {
    let last = &page.run.steps.last()?.data;
    if by_reward(page) { last.metrics.get("reward").copied() } else { Some(last.loss) }
}

fn by_reward(page: &RunPage) -> bool {
    page.run.start.method == "grpo"
}

fn of_eval(page: &RunPage, e: &EvalPoint) -> f64 {
    if by_reward(page) { e.data.metrics.get("reward").copied().unwrap_or(f64::NAN) } else { e.data.loss }
}

/// Where it is heading, or nothing where that would be the loss's way and not the reward's.
fn heading(page: &RunPage) -> &'static str {
    if by_reward(page) { " " } else { trend_sign(page.run.trend()) }
}

fn name(page: &RunPage) -> &'static str {
    if by_reward(page) { "reward" } else { "loss" }
}

/// Memory in use and in all, of the card or of the process and its host.
pub fn memory_now(page: &RunPage) -> (Option<u64>, Option<u64>) {
    (page.reading.used.or(page.run.memory.used), page.reading.total.or(page.run.memory.total))
}

fn memory_text(page: &RunPage, between: &str) -> String {
    let (used, total) = memory_now(page);
    let gib = |b: Option<u64>| b.map_or(UNKNOWN.to_string(), format::gib);
    format!("{:>4}{between}{}", gib(used), gib(total))
}

/// The worst kind of open finding, counted: its sign in its colour, and words that stay readable on any background.
fn findings(page: &RunPage, t: &Theme) -> (&'static str, Style, usize, &'static str) {
    if page.run.start.total_steps == 0 {
        return (UNKNOWN, t.text, 0, "");
    }
    let open = page.run.open();
    let count = |s: Severity| open.iter().filter(|f| f.severity == s).count();
    match (count(Severity::Error), count(Severity::Warning), count(Severity::Note)) {
        (0, 0, 0) => ("✓", t.pass, 0, "none"),
        (0, 0, n) => ("·", t.text, n, "note"),
        (0, n, _) => ("▲", t.warn, n, "warning"),
        (n, _, _) => ("✕", t.error, n, "error"),
    }
}

/// Lines 4 and 5 of the wide page: labels, and numbers under them in columns that never move.
pub fn vitals(m: &Model, page: &RunPage, area: Rect, buf: &mut Buffer) {
    let (t, run) = (&m.theme, &page.run);
    let last = run.last();
    let text = |v: Option<String>, width: usize| format!("{:>width$}", v.unwrap_or(UNKNOWN.into()));
    let eval = match (run.evals.last(), run.best_eval()) {
        (Some(e), Some(b)) if area.width >= 130 => {
            format!("{}, best {} @{}", format::loss(of_eval(page, e)), format::loss(of_eval(page, b)), b.step)
        }
        (Some(e), _) => format::loss(of_eval(page, e)),
        _ => UNKNOWN.into(),
    };
    let bad = last.is_some_and(|s| !s.loss.is_finite());
    let mut all = vec![
        Vital {
            label: name(page),
            text: format!("{} {}", text(of_steps(page).map(format::loss), 5), heading(page)),
            style: if bad { t.error } else { t.strong() },
            width: 15,
        },
        Vital { label: "eval", text: eval, style: t.text, width: if area.width >= 130 { 26 } else { 10 } },
        Vital { label: "lr", text: text(last.map(|s| format::rate(s.learning_rate)), 7), style: t.text, width: 12 },
        Vital { label: "grad", text: text(last.map(|s| format::plain(s.grad_norm)), 4), style: t.text, width: 10 },
        Vital {
            label: "tok/s",
            text: text(run.tokens_per_second().map(|v| format::thousands(v.round() as u64)), 6),
            style: t.text,
            width: 12,
        },
        Vital { label: "step", text: text(run.step_seconds().map(format::step_time), 6), style: t.text, width: 12 },
        Vital { label: "memory", text: format!("{} GiB", memory_text(page, " / ")), style: t.text, width: 21 },
    ];
    let percent = |v: f64| format!("{v:>2.0} %");
    if area.width >= 150 {
        match (page.reading.gpu_percent, page.reading.cpu_percent) {
            (Some(v), _) => all.push(Vital { label: "gpu", text: percent(v), style: t.text, width: 10 }),
            (None, v) => all.push(Vital { label: "cpu", text: text(v.map(percent), 4), style: t.text, width: 10 }),
        }
        if let Some(w) = page.reading.power_watts {
            all.push(Vital { label: "power", text: format!("{w:>3.0} W"), style: t.text, width: 12 });
        }
    }
    let mut x = area.x + 1;
    for v in all {
        Pen::at(buf, area, 0).to(x).put(v.label, t.dim);
        Pen::at(buf, area, 1).to(x).put(fit(&v.text, usize::from(area.right().saturating_sub(x))), v.style);
        x += v.width;
    }
    let (sign, style, n, word) = findings(page, t);
    Pen::at(buf, area, 0).to(x).put("findings", t.dim);
    let words = match n {
        0 => word.to_string(),
        1 => format!("1 {word}"),
        _ => format!("{n} {word}s"),
    };
    Pen::at(buf, area, 1).to(x).put(sign, style).gap(1).put(words, if n > 0 { t.strong() } else { t.text });
}

/// The vital numbers on one line, with as many words as there is room for.
pub fn vitals_line(m: &Model, page: &RunPage, area: Rect, row: u16, buf: &mut Buffer) {
    let (t, run) = (&m.theme, &page.run);
    let last = run.last();
    let unknown = || UNKNOWN.to_string();
    let loss = format!("{}{}", of_steps(page).map_or(unknown(), format::loss), heading(page));
    let eval = run.evals.last().map_or(unknown(), |e| format::loss(of_eval(page, e)));
    let rate = last.map_or(unknown(), |s| format::rate(s.learning_rate));
    let speed = run.tokens_per_second().map_or(unknown(), |v| format::thousands(v.round() as u64));
    let memory = memory_text(page, "/");
    let memory = memory.trim_start();
    let (sign, sign_style, n, _) = findings(page, t);
    let mut pen = Pen::at(buf, area, row);
    if area.width >= 60 {
        pen.gap(1).put(name(page), t.dim).gap(1).put(format!("{loss:<6}"), t.strong());
        pen.gap(2).put("eval ", t.dim).put(format!("{eval:>5}"), t.text);
        pen.gap(2).put("lr ", t.dim).put(format!("{rate:>7}"), t.text);
        pen.gap(2).put(format!("{speed:>6}"), t.text).put(" t/s", t.dim);
        if area.width >= 70 {
            pen.gap(2).put("mem ", t.dim).put(memory, t.text);
        } else {
            pen.gap(1).put(memory, t.text);
        }
        let count = if n > 0 { n.to_string() } else { String::new() };
        pen.right(&format!("{sign}{count}"), t.strong(), 0);
        pen.gap(0).x -= (sign.width() + count.len()) as u16;
        pen.put(sign, sign_style);
    } else {
        pen.gap(u16::from(area.width >= 40))
            .put(format!("{loss:>6}"), t.strong())
            .gap(1)
            .put("◆", t.dim)
            .put(format!("{eval:>5}"), t.text);
        pen.gap(1)
            .put(format!("{rate:>7}"), t.text)
            .gap(1)
            .put(format!("{speed:>6}"), t.text)
            .gap(1)
            .put(memory, t.text);
    }
}
