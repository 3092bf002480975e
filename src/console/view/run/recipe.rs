//! Pane 4: the recipe's fields, what is usual for each, and which can change while the run goes on.

use super::title;
use crate::console::fields::{self, Field};
use crate::console::model::Model;
use crate::console::run_page::{Goal, Pane, RunPage};
use crate::console::run_update::reachable;
use crate::console::view::pen::{Pen, fit, wrap};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use unicode_width::UnicodeWidthStr;

pub fn render(m: &Model, page: &RunPage, area: Rect, buf: &mut Buffer) {
    let t = &m.theme;
    let live = reachable(page);
    let words = match (page.recipe.diff, live) {
        (true, _) => vec![("what differs, d all".to_string(), t.dim)],
        (_, true) => {
            vec![("live ".to_string(), t.dim), ("●".to_string(), t.accent), (" = can change now".to_string(), t.dim)]
        }
        (_, false) if page.folder.is_some() => vec![("as it ran".to_string(), t.dim)],
        (_, false) => vec![("all fields, i edits".to_string(), t.dim)],
    };
    title(m, page, Pane::Recipe, Pane::Recipe.name(), &words, area, buf);
    let body = Rect { y: area.y + 1, height: area.height.saturating_sub(1), ..area };
    let fields = fields::shown(page);
    let focused = page.focus == Pane::Recipe;
    let selected = page.recipe.selected.min(fields.len().saturating_sub(1));
    // The last two rows tell where it comes from, or about the field under the cursor.
    let foot = if body.height >= 5 { 2 } else { 0 };
    let rows = usize::from(body.height.saturating_sub(foot));
    let first = selected.saturating_sub(rows.saturating_sub(2)).min(fields.len().saturating_sub(rows));
    let shown = &fields[first..(first + rows).min(fields.len())];
    let columns = Columns::of(shown, body.width);
    if fields.is_empty() {
        let words = if page.recipe.diff { "nothing differs" } else { "the recipe cannot be read" };
        Pen::at(buf, body, 0).gap(2).put(words, t.dim);
    }
    for (i, f) in fields.iter().enumerate().skip(first).take(rows) {
        line(m, page, f, focused && i == selected, &columns, body, (i - first) as u16, buf);
    }
    if foot > 0 {
        footer(m, page, fields.get(selected).filter(|_| focused), body, buf);
    }
}

struct Columns {
    label: usize,
    value: usize,
}

impl Columns {
    fn of(fields: &[Field], width: u16) -> Self {
        let room = usize::from(width).saturating_sub(6);
        // Notes keep about 16 columns; a long value is cut, and shown whole while it is edited.
        let longest = |f: fn(&Field) -> &String| fields.iter().map(|x| f(x).width()).max().unwrap_or(0);
        let label = longest(|f| &f.label).clamp(17, (room * 2 / 5).max(18));
        Self { label, value: longest(|f| &f.value).clamp(10, room.saturating_sub(label + 20).clamp(10, 44)) }
    }
}

#[allow(clippy::too_many_arguments)] // One row of a table, and where it goes.
fn line(m: &Model, page: &RunPage, f: &Field, selected: bool, c: &Columns, body: Rect, row: u16, buf: &mut Buffer) {
    let t = &m.theme;
    let mut pen = Pen::at(buf, body, row);
    pen.put(if selected { "▸ " } else { "  " }, t.accent);
    pen.put(
        format!("{}{}", fit(&f.label, c.label), " ".repeat(c.label.saturating_sub(f.label.width()))),
        if selected { t.focus() } else { t.text },
    )
    .gap(2);
    let start = pen.x;
    if let Some(typing) = page.input.as_ref().filter(|i| selected && i.goal == Goal::Field(f.key.clone())) {
        super::typed(&mut pen, &typing.input, t);
        let note = f.note.text.as_str();
        if usize::from(pen.room()) > note.width() + 3 {
            pen.right(note, t.dim, 0);
        }
        return;
    }
    pen.put(fit(&f.value, c.value), if f.changed { t.accent } else { t.text });
    pen.x = pen.x.max(start + c.value as u16);
    pen.gap(1).put(if f.live && reachable(page) { "●" } else { " " }, t.accent).gap(1);
    if f.note.outside {
        pen.put("▲ ", t.warn);
    }
    let room = usize::from(pen.room());
    let wide = room > 50;
    pen.put(fit(&f.note.text, if wide { 26 } else { room }), t.dim);
    if wide {
        // Alone on a wide screen, every field says what it is for.
        pen.to(start + c.value as u16 + 3 + 28);
        let room = usize::from(pen.room());
        pen.put(fit(&f.help, room), t.dim);
    }
}

fn footer(m: &Model, page: &RunPage, selected: Option<&Field>, body: Rect, buf: &mut Buffer) {
    let t = &m.theme;
    let row = body.height - 1;
    let width = usize::from(body.width.saturating_sub(3));
    if let Some(problem) = page.input.as_ref().and_then(|i| i.problem.as_ref()) {
        Pen::at(buf, body, row).gap(2).put("✕ ", t.error).put(fit(problem, width - 2), t.text);
        return;
    }
    if let Some(f) = selected.filter(|_| body.width < 110) {
        let lines = wrap(&f.help, width, 2);
        let first = row + 1 - lines.len() as u16;
        for (i, line) in lines.iter().enumerate() {
            Pen::at(buf, body, first + i as u16).gap(2).put(line, t.dim);
        }
        return;
    }
    let name = match &page.recipe_path {
        Some(path) => path.file_name().map_or(String::new(), |n| n.to_string_lossy().into_owned()),
        None => "recipe.toml".into(),
    };
    let changes = match &page.folder {
        Some(_) => page.run.changes.iter().filter(|c| c.what.key.contains('.')).count(),
        None => page.recipe.undo.len(),
    };
    let changes = match changes {
        0 => String::new(),
        n => format!(
            " · {n} change{} since {}",
            if n == 1 { "" } else { "s" },
            if page.folder.is_some() { "start" } else { "opened" }
        ),
    };
    let problems = fields::problems(page);
    match problems.first() {
        Some(p) => {
            Pen::at(buf, body, row).gap(2).put("✕ ", t.error).put(fit(p, width.saturating_sub(2)), t.text);
        }
        None => {
            Pen::at(buf, body, row).gap(2).put(fit(&format!("{name}{changes}"), width), t.dim);
        }
    }
}
