//! The start page: runs of this machine, and ways to begin a new one.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::chrome::{self, cut, put, put_right, width};
use crate::console::format;
use crate::console::keymap::{Action, Context};
use crate::console::model::{Machine, Model, RunRow};
use crate::console::start::{Item, StartPage};
use crate::console::theme::Theme;

/// The methods of this version: what each is for, and what data it needs.
const METHODS: [(&str, &str, &str); 4] = [
    ("sft", "follow instructions, answer in a format", "needs question and answer pairs, or chats"),
    ("cpt", "know a domain", "needs plain text, documents"),
    ("dpo", "prefer one style of answer", "needs prompt, chosen, rejected"),
    ("grpo", "reason towards a checkable answer", "needs prompts and a reward"),
];

/// Something at a place of the page: what is drawn there, and what a click there means.
struct Placed<'a> {
    x: u16,
    y: u16,
    right: u16,
    what: What<'a>,
}

enum What<'a> {
    Heading,
    Empty,
    Run(&'a RunRow),
    /// Why a run ended, under it.
    Note(&'a RunRow),
    NewRun,
    Method(usize),
    RecipesHere,
    /// The index among the recipes.
    Recipe(usize),
    Demo,
}

pub fn render(m: &Model, area: Rect, buf: &mut Buffer) {
    header(m, area, buf);
    let current = m.start.current();
    let columns = Columns::new(area.width);
    let t = &m.theme;
    for Placed { x, y, right, what } in lay_out(m, area) {
        match what {
            What::Heading => heading(m, area, y, &columns, buf),
            What::Empty => {
                put(buf, area.x + 4, y, right, nothing_yet(&m.start), t.dim);
            }
            What::Run(run) => {
                let selected = current == Item::Run(run.folder.clone());
                let marked = m.start.marked.contains(&run.folder);
                run_line(run, selected, marked, m, area, y, &columns, buf);
            }
            What::Note(run) => {
                let key = m.keymap.key(Action::ResumeRun);
                let resume = StartPage::resumable(run);
                let stop = if resume { right.saturating_sub(width(&key) + 9) } else { right };
                let x = put(buf, x, y, stop, &run.note, t.dim);
                if resume && x < stop {
                    let x = x.max((area.x + columns.name).saturating_add(66)).min(stop) + 2;
                    let x = put(buf, x, y, right, &key, t.accent);
                    put(buf, x + 1, y, right, "resume", t.text);
                }
            }
            What::NewRun => {
                let rect = Rect { y, height: 1, ..area };
                chrome::rule(buf, rect, "new run", "", !matches!(current, Item::Run(_)), t);
            }
            What::Method(i) => {
                let (method, goal, needs) = METHODS[i];
                put(buf, x, y, right, method, t.strong());
                put(buf, x + 8, y, right, goal, t.text);
                // Said whole or not at all.
                if area.width >= 104 {
                    put(buf, x + 54, y, right, needs, t.dim);
                }
            }
            What::RecipesHere => {
                put(buf, x, y, right, "recipes here", t.dim);
            }
            What::Recipe(i) => {
                let recipe = &m.start.recipes[i];
                let selected = current == Item::Recipe(recipe.path.clone());
                if selected {
                    put(buf, x - 2, y, right, "▸", t.focus());
                }
                let x = put(buf, x, y, right, &recipe_name(recipe), if selected { t.focus() } else { t.text }) + 2;
                let (glyph, words, style) = verdict(recipe, t);
                let x = put(buf, x, y, right, glyph, style) + 1;
                put(buf, x, y, right, &words, t.dim);
            }
            What::Demo => {
                let selected = current == Item::Demo;
                if selected {
                    put(buf, area.x + 2, y, right, "▸", t.focus());
                }
                put(buf, area.x + 4, y, right, "demo", if selected { t.focus() } else { t.strong() });
                let words = if area.width >= 90 {
                    "watch a small model learn to call tools, on this CPU, about a minute"
                } else {
                    "watch a small model learn to call tools"
                };
                put(buf, x, y, right, words, if selected { t.text } else { t.dim });
            }
        }
    }
    let keys: Vec<_> =
        m.keymap.footer(Context::Start).into_iter().filter(|(_, word)| does_something(&m.start, word)).collect();
    chrome::footer(buf, area, &keys, &chrome::always(m, "quit"), t);
}

/// Whether the footer's word means something for what the cursor is on.
fn does_something(start: &StartPage, word: &str) -> bool {
    match (word, start.run()) {
        ("resume", run) => run.is_some_and(StartPage::resumable),
        ("delete", run) => run.is_some_and(|r| !r.live) || !start.marked.is_empty(),
        ("mark", run) => run.is_some(),
        ("search", _) => !start.runs.is_empty(),
        _ => true,
    }
}

/// What is drawn at a cell that can be opened.
pub fn item_at(m: &Model, column: u16, row: u16) -> Option<Item> {
    let area = Rect::new(0, 0, m.width, m.height);
    lay_out(m, area).into_iter().find_map(|p| {
        if p.y != row || !(p.x..p.right).contains(&column) {
            return None;
        }
        match p.what {
            What::Run(run) | What::Note(run) => Some(Item::Run(run.folder.clone())),
            What::Recipe(i) => Some(Item::Recipe(m.start.recipes[i].path.clone())),
            What::Demo => Some(Item::Demo),
            _ => None,
        }
    })
}

fn header(m: &Model, area: Rect, buf: &mut Buffer) {
    let right = area.right().saturating_sub(1);
    let x = put(buf, area.x + 1, area.y, right, "finetop", m.theme.strong()) + 2;
    // As many facts as fit; the name of the processor goes first.
    let facts = facts(&m.machine);
    let from = (0..facts.len()).find(|&i| width(&facts[i..].join(" · ")) <= right.saturating_sub(x));
    if let Some(i) = from {
        put_right(buf, x, area.y, right, &facts[i..].join(" · "), m.theme.dim);
    }
}

fn facts(machine: &Machine) -> Vec<String> {
    let mut facts = Vec::new();
    match machine.gpu_free {
        Some(free) => facts.push(format!("{} {} free", machine.name, format::gib(free))),
        None if !machine.name.is_empty() => facts.push(machine.name.clone()),
        None => {}
    }
    if machine.cores > 0 {
        facts.push(format!("{} {}", machine.cores, if machine.cores == 1 { "core" } else { "cores" }));
    }
    if machine.gpu_free.is_none() {
        facts.extend(machine.memory_total.map(|b| format!("{} GiB memory", format::gib(b))));
    }
    facts.extend(machine.disk_free.map(|b| format!("{} GiB disk", b >> 30)));
    facts
}

fn nothing_yet(start: &StartPage) -> &'static str {
    if !start.listed {
        "reading …"
    } else if start.runs.is_empty() {
        "none yet: enter on the demo or on a recipe starts the first"
    } else {
        "no run matches"
    }
}

/// Where everything goes; the one truth for drawing and for clicks.
fn lay_out(m: &Model, area: Rect) -> Vec<Placed<'_>> {
    let mut out = Vec::new();
    let right = area.right().saturating_sub(1);
    let roomy = area.height >= 18;
    let mut y = area.y + if roomy { 2 } else { 1 };
    let mut place = |x: u16, y: u16, right: u16, what| out.push(Placed { x, y, right, what });
    let recipes = place_recipes(m, area);
    let recipe_lines = recipes.last().map_or(0, |(_, _, line)| line + 1);
    // What comes below the runs: new run, methods, recipes, the demo.
    let methods = if roomy { METHODS.len() as u16 + 2 } else { 0 };
    let below = u16::from(roomy) + methods + recipe_lines + 1 + u16::from(roomy) + chrome::FOOTER;
    let bottom = area.bottom().saturating_sub(below);

    place(area.x, y, right, What::Heading);
    y += if roomy { 2 } else { 1 };
    let shown = m.start.shown();
    if shown.is_empty() {
        place(area.x, y, right, What::Empty);
        y += 1;
    }
    let lines = |run: &RunRow| 1 + u16::from(roomy && !run.note.is_empty());
    let selected = m.start.run().and_then(|s| shown.iter().position(|r| r.folder == s.folder)).unwrap_or(0);
    let room = bottom.saturating_sub(y);
    // The first run such that the selected one is still inside.
    let first = (0..=selected)
        .find(|&f| shown[f.min(shown.len())..].iter().take(selected + 1 - f).map(|r| lines(r)).sum::<u16>() <= room);
    for run in shown.iter().skip(first.unwrap_or(selected)) {
        if y + lines(run) > bottom {
            break;
        }
        place(area.x, y, area.right(), What::Run(run));
        if lines(run) == 2 {
            place(area.x + 6, y + 1, right, What::Note(run));
        }
        y += lines(run);
    }
    if roomy {
        y += 1;
        place(area.x, y, area.right(), What::NewRun);
        y += 1;
        for i in 0..METHODS.len() {
            place(area.x + 4, y, right, What::Method(i));
            y += 1;
        }
        y += 1;
    }
    let indent = demo_indent(area);
    if recipe_lines > 0 {
        place(area.x + 4, y, area.x + indent, What::RecipesHere);
    }
    for (i, (x, end), line) in recipes {
        place(x, y + line, end, What::Recipe(i));
    }
    place(area.x + indent, y + recipe_lines, right, What::Demo);
    out
}

/// The column in which the recipes and the demo's words begin.
fn demo_indent(area: Rect) -> u16 {
    if area.width >= 60 { 19 } else { 10 }
}

/// The recipes in lines: index, columns, line. Not more lines than a fifth of the page.
fn place_recipes(m: &Model, area: Rect) -> Vec<(usize, (u16, u16), u16)> {
    let (left, right) = (area.x + if area.width >= 60 { 19 } else { 4 }, area.right().saturating_sub(1));
    let most = (area.height / 5).max(1);
    let all: Vec<u16> =
        m.start.recipes.iter().map(|r| width(&recipe_name(r)) + 2 + 1 + 1 + width(&verdict(r, &m.theme).1)).collect();
    let mut out: Vec<(usize, (u16, u16), u16)> = Vec::new();
    let (mut x, mut line) = (left, 0);
    for (i, wide) in all.iter().enumerate() {
        if x > left && x + wide > right {
            (x, line) = (left, line + 1);
        }
        out.push((i, (x, (x + wide).min(right)), line));
        x += wide + 6;
    }
    // Lines around the selected recipe, where there are too many.
    let Item::Recipe(path) = m.start.current() else {
        out.retain(|(_, _, line)| *line < most);
        return out;
    };
    let at = m.start.recipes.iter().position(|r| r.path == path).and_then(|i| out.get(i)).map_or(0, |p| p.2);
    let first = (at + 1).saturating_sub(most);
    out.retain(|(_, _, line)| (first..first + most).contains(line));
    out.iter_mut().for_each(|p| p.2 -= first);
    out
}

fn recipe_name(recipe: &crate::console::model::RecipeRow) -> String {
    let parent = recipe.path.parent().and_then(|p| p.file_name()).map(|p| p.to_string_lossy().into_owned());
    let name = recipe.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    match parent {
        // Relative paths are shown as they would be typed: `recipes/cpt.toml`.
        Some(parent) if recipe.path.is_relative() && !parent.is_empty() => format!("{parent}/{name}"),
        _ => name,
    }
}

fn verdict(recipe: &crate::console::model::RecipeRow, t: &Theme) -> (&'static str, String, Style) {
    match &recipe.check {
        None => ("·", "not checked".into(), t.dim),
        Some(Ok(0)) => ("✓", "checked".into(), t.pass),
        Some(Ok(1)) => ("▲", "1 warning".into(), t.warn),
        Some(Ok(n)) => ("▲", format!("{n} warnings"), t.warn),
        Some(Err(place)) => ("✕", place.clone(), t.error),
    }
}

/// First columns of the table; `None`: not at this width.
struct Columns {
    state: Option<u16>,
    name: u16,
    name_width: u16,
    method: Option<u16>,
    model: Option<(u16, u16)>,
    loss: Option<(u16, u16)>,
    eval: Option<u16>,
    /// Past their last columns.
    step: u16,
    age: u16,
}

impl Columns {
    fn new(total: u16) -> Columns {
        let age = total.saturating_sub(1);
        let step = age.saturating_sub(6);
        let mut right = step.saturating_sub(12);
        let mut take = |wide: u16, from: u16| {
            (total >= from).then(|| {
                right = right.saturating_sub(wide + 2);
                (right, wide)
            })
        };
        let eval = take(12, 60).map(|(x, _)| x);
        let loss = take(
            if total >= 140 {
                32
            } else if total >= 120 {
                16
            } else {
                10
            },
            80,
        );
        let state = (total >= 80).then_some(6);
        let name = if state.is_some() { 16 } else { 6 };
        let rest = right.saturating_sub(name);
        if total < 104 {
            let name_width = rest.saturating_sub(2);
            return Columns { state, name, name_width, method: None, model: None, loss, eval, step, age };
        }
        let name_width = (rest.saturating_sub(12) * 9 / 20).clamp(14, 40);
        let method = name + name_width + 2;
        let model = method + 8;
        let model = Some((model, right.saturating_sub(model + 2)));
        Columns { state, name, name_width, method: Some(method), model, loss, eval, step, age }
    }
}

/// The rule over the table, and the names of its columns where there is room.
fn heading(m: &Model, area: Rect, y: u16, columns: &Columns, buf: &mut Buffer) {
    let t = &m.theme;
    let (start, shown) = (&m.start, m.start.shown().len());
    let search = match (&start.search, start.filter.as_str()) {
        (Some(input), _) => format!("/ {}▏", input.value()),
        (None, "") => "/ search".into(),
        (None, filter) => format!("/ {filter}"),
    };
    let count = if shown == start.runs.len() {
        format!("{shown} on this machine")
    } else {
        format!("{shown} of {}", start.runs.len())
    };
    let marked = if start.marked.is_empty() { String::new() } else { format!("{} marked   ", start.marked.len()) };
    let full = format!("{marked}{count}   {search}   sort: {}", start.sort.title());
    let right = if width(&full) + 14 <= area.width { full } else { search };
    let rect = Rect { y, height: 1, ..area };
    chrome::rule(buf, rect, "runs", &right, matches!(start.current(), Item::Run(_)), t);
    if area.height < 18 {
        return;
    }
    let (y, end) = (y + 1, area.right());
    let x = |at: u16| area.x + at;
    if columns.state.is_some() {
        put(buf, x(4), y, end, "state", t.dim);
    }
    put(buf, x(columns.name), y, end, "name", t.dim);
    if let Some(at) = columns.method {
        put(buf, x(at), y, end, "method", t.dim);
    }
    if let Some((at, _)) = columns.model {
        put(buf, x(at), y, end, "model", t.dim);
    }
    if let Some((at, _)) = columns.loss {
        put(buf, x(at), y, end, "loss", t.dim);
    }
    if let Some(at) = columns.eval {
        put(buf, x(at), y, end, "eval best", t.dim);
    }
    put_right(buf, area.x, y, x(columns.step), "step", t.dim);
    put_right(buf, area.x, y, x(columns.age), "age", t.dim);
}

#[allow(clippy::too_many_arguments)]
fn run_line(
    run: &RunRow,
    selected: bool,
    marked: bool,
    m: &Model,
    area: Rect,
    y: u16,
    columns: &Columns,
    buf: &mut Buffer,
) {
    let t = &m.theme;
    let x = |at: u16| area.x + at;
    let end = area.right();
    if selected {
        put(buf, x(2), y, end, "▸", t.focus());
    }
    if marked {
        put(buf, x(3), y, end, "•", t.accent);
    }
    let (glyph, style) = glyph(&run.state, t);
    put(buf, x(4), y, end, glyph, style);
    if let Some(at) = columns.state {
        put(buf, x(at), y, x(columns.name), &run.state, t.text);
    }
    let name_style = if selected { t.focus() } else { t.text };
    put(buf, x(columns.name), y, end, &cut(&run.name, columns.name_width), name_style);
    if let Some(at) = columns.method {
        put(buf, x(at), y, end, &run.method, t.text);
    }
    if let Some((at, wide)) = columns.model {
        put(buf, x(at), y, x(at + wide), &run.model, t.dim);
    }
    if let Some((at, wide)) = columns.loss {
        let line = spark(&run.loss, usize::from(wide));
        put(buf, x(at), y, x(at + wide), &line, if run.live { t.accent } else { t.text });
    }
    if let Some(at) = columns.eval {
        match run.best_eval {
            Some((loss, step)) => {
                let after = put(buf, x(at), y, x(at + 6), &format!("{:>5}", format::loss(loss)), t.text);
                put(buf, after + 1, y, x(at + 14), &format!("@{step}"), t.dim);
            }
            None => {
                put(buf, x(at), y, end, &format!("{:>5}", format::UNKNOWN), t.dim);
            }
        }
    }
    let step = if run.total_steps == 0 {
        format::UNKNOWN.to_string()
    } else {
        format!("{}/{}", format::thousands(run.step), format::thousands(run.total_steps))
    };
    put_right(buf, x(columns.name), y, x(columns.step), &step, t.text);
    put_right(buf, x(columns.step), y, x(columns.age), &age(run, m.now), t.dim);
}

/// The sign of a state, as everywhere: passed ✓, error ✕; going on in the accent.
fn glyph(state: &str, t: &Theme) -> (&'static str, Style) {
    match state {
        "training" => ("●", t.accent),
        "preparing" => ("◌", t.accent),
        "paused" => ("‖", t.accent),
        "finished" => ("✓", t.pass),
        "stopped" => ("■", t.dim),
        "failed" | "died" => ("✕", t.error),
        _ => ("·", t.dim),
    }
}

/// The age of a run's last word in one unit: `9m`; one that goes on is `now`.
fn age(run: &RunRow, now: f64) -> String {
    let seconds = (now - run.changed).max(0.0);
    if run.live && seconds < 60.0 {
        return "now".into();
    }
    match seconds as u64 {
        s @ 0..60 => format!("{s}s"),
        s @ 60..3600 => format!("{}m", s / 60),
        s @ 3600..86_400 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

/// The mean of the values that fall on each of `columns` columns, as blocks.
fn spark(values: &[f64], columns: usize) -> String {
    let n = values.len().min(columns);
    let means: Vec<Option<f64>> = (0..n)
        .map(|i| {
            let here = &values[i * values.len() / n..((i + 1) * values.len() / n)];
            let finite: Vec<f64> = here.iter().copied().filter(|v| v.is_finite()).collect();
            (!finite.is_empty()).then(|| finite.iter().sum::<f64>() / finite.len() as f64)
        })
        .collect();
    let finite = || means.iter().flatten().copied();
    let (low, high) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    crate::console::chart::spark(&means, low, high)
}
