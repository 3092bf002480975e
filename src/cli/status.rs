//! `status`: how one run stands.

use super::args::StatusArgs;
use super::output::{ascii, print, print_json};
use crate::run::Index;
use crate::run::event::Severity;
use crate::run::host::now;
use crate::run::summary::{Status, Summary, duration, sign};
use crate::{Kind, Result};

pub fn run(args: &StatusArgs) -> Result<()> {
    let index = Index::of_user();
    let folder = match index.find(args.run.as_deref()) {
        Ok(folder) => folder,
        // A status bar has nothing to show where nothing runs.
        Err(e) if args.line && e.kind == Kind::Failed => return Ok(()),
        Err(e) => return Err(e),
    };
    let summary = index.summary(&folder);
    if args.json {
        return print_json(&summary);
    }
    if args.line {
        return print(&line(&summary, ascii()));
    }
    print(&text(&summary, ascii(), now()))
}

/// `qwen7b-support ● 412/1,218 34% loss 1.284 left 18m ▲1`.
pub fn line(s: &Summary, ascii: bool) -> String {
    let mut parts = vec![s.name.clone(), sign(s.state, ascii).to_string()];
    if !matches!(s.state, Status::Running | Status::Finished) {
        parts.push(s.state.word().into());
    }
    parts.push(s.progress());
    if let Some(percent) = s.percent() {
        parts.push(format!("{percent}%"));
    }
    if let Some(loss) = s.loss {
        parts.push(format!("loss {loss:.3}"));
    }
    if let Some(left) = s.seconds_left.filter(|_| s.state == Status::Running) {
        parts.push(format!("left {}", duration(left)));
    }
    if let Some(worst) = &s.worst {
        parts.push(format!("{}{}", mark(worst.severity, ascii), s.findings));
    }
    parts.join(" ")
}

/// All of it, a line each.
fn text(s: &Summary, ascii: bool, now: f64) -> String {
    let join = |parts: Vec<String>| parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join("  ");
    let known = |label: &str, value: Option<String>| value.map(|v| format!("{label} {v}")).unwrap_or_default();
    let what = [s.method.as_str(), &s.tuning, &s.model].into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>();
    let left = s.seconds_left.filter(|_| s.state == Status::Running);
    let mut lines = vec![
        join(vec![s.name.clone(), format!("{} {}", sign(s.state, ascii), s.state.word()), s.why.clone()]),
        what.join(if ascii { " / " } else { " · " }),
        join(vec![
            format!("step {}", s.progress()),
            s.percent().map(|p| format!("{p}%")).unwrap_or_default(),
            known("left", left.map(duration)),
            format!("heard {} ago", duration(now - s.updated)),
        ]),
        join(vec![
            known("loss", s.loss.map(|l| format!("{l:.4}"))),
            known("eval best", s.eval_best.map(|(loss, step)| format!("{loss:.4} @{step}"))),
            known("checkpoint", s.last_checkpoint.map(|c| c.to_string())),
        ]),
    ];
    if let Some(worst) = &s.worst {
        let more = if s.findings > 1 { format!(", and {} more", s.findings - 1) } else { String::new() };
        lines.push(format!("{} {}, since step {}{more}", mark(worst.severity, ascii), worst.title, worst.since));
    }
    lines.push(s.dir.display().to_string());
    if let (true, Some(host), Some(pid)) = (s.state.is_live(), &s.host, s.pid) {
        lines.push(format!("process {pid} on {host}"));
    }
    lines.into_iter().filter(|l| !l.is_empty()).map(|l| l + "\n").collect()
}

fn mark(severity: Severity, ascii: bool) -> char {
    match (severity, ascii) {
        (Severity::Error, false) => '✕',
        (_, false) => '▲',
        (Severity::Error, true) => 'x',
        (_, true) => '!',
    }
}
