//! `runs`: the list.

use std::path::Path;

use super::args::RunsArgs;
use super::output::{ascii, columns, print, print_json};
use super::sparkline::sparkline;
use crate::Result;
use crate::run::host::now;
use crate::run::index::Index;
use crate::run::summary::{Status, Summary, duration, sign};

pub fn run(args: &RunsArgs) -> Result<()> {
    let index = Index::of_user();
    // Where `output_dir` points unless a recipe says otherwise.
    index.scan(Path::new("runs"));
    args.folders.iter().for_each(|folder| index.scan(folder));
    let runs = index.list();
    if args.json {
        return print_json(&runs);
    }
    if runs.is_empty() {
        return print("no runs seen on this machine; `finetop runs DIR` looks for them in DIR");
    }
    print(&table(&runs, columns().unwrap_or(usize::MAX), ascii(), now()))
}

/// The list as text, no line longer than `width`.
pub fn table(runs: &[Summary], width: usize, ascii: bool, now: f64) -> String {
    let longest = |of: fn(&Summary) -> &str| runs.iter().map(|s| of(s).chars().count()).max().unwrap_or(0);
    let name = longest(|s| &s.name).clamp(4, 28);
    let model = longest(|s| &s.model).clamp(5, 24);
    let curve = if ascii { 0 } else { 16 };
    let mut lines = vec![row(
        [("state", 11), ("name", name), ("method", 6), ("model", model)],
        "loss",
        curve,
        "eval best",
        "step",
        "age",
    )];
    for s in runs {
        let state = format!("{} {}", sign(s.state, ascii), s.state.word());
        let best = s.eval_best.map_or("–".into(), |(loss, step)| format!("{loss:.3} @{step}"));
        let best = if ascii { best.replace('–', "-") } else { best };
        let losses = sparkline(&s.losses, curve);
        let cells = [(state.as_str(), 11), (&s.name, name), (&s.method, 6), (&s.model, model)];
        lines.push(row(cells, &losses, curve, &best, &s.progress(), &duration(now - s.updated)));
        if let Some(note) = note(s) {
            lines.push(format!("  {note}"));
        }
    }
    lines.into_iter().map(|line| cut(line.trim_end(), width) + "\n").collect()
}

fn row(cells: [(&str, usize); 4], losses: &str, curve: usize, best: &str, step: &str, age: &str) -> String {
    let left: String = cells.iter().map(|&(text, width)| format!("{:<width$}  ", cut(text, width))).collect();
    let curve = if curve == 0 { String::new() } else { format!("{losses:<curve$}  ") };
    format!("{left}{curve}{best:>13}  {step:>13}  {age:>4}")
}

/// Under a run that ended badly: why, and what to do.
fn note(s: &Summary) -> Option<String> {
    let why = s.why.lines().next().unwrap_or_default();
    match s.state {
        Status::Died | Status::Failed => Some(match s.last_checkpoint {
            Some(_) => format!("{why}; `finetop train --resume {}`", s.name),
            None => why.to_owned(),
        }),
        _ => None,
    }
}

/// At most `width` characters, the last of them `…` where some are missing.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}
