//! `finetop diff`: what two recipes or runs do not have in common.

use super::args::DiffArgs;
use super::output;
use crate::recipe::{self, Recipe};
use crate::run::index::Index;
use crate::run::summary::{Summary, duration, thousands};
use crate::{Error, Kind, Result};
use serde_json::json;
use std::path::Path;

pub fn run(args: &DiffArgs) -> Result<()> {
    let (a, b) = (Side::read(&args.a)?, Side::read(&args.b)?);
    let keys = recipe::diff(&a.recipe, &b.recipe);
    let results = results(&a, &b);
    if args.json {
        let of = |rows: &[(String, String, String)]| {
            rows.iter().map(|(k, a, b)| json!({"key": k, "a": a, "b": b})).collect::<Vec<_>>()
        };
        let keys: Vec<_> = keys.into_iter().map(|(k, a, b)| (k.to_string(), a, b)).collect();
        return output::print_json(&json!({"a": a.name, "b": b.name, "recipe": of(&keys), "results": of(&results)}));
    }
    let mut rows: Vec<(String, String, String)> = vec![(String::new(), a.name, b.name)];
    rows.extend(keys.into_iter().map(|(k, a, b)| (k.to_string(), a, b)));
    if rows.len() == 1 {
        rows.push(("the recipes are the same".into(), String::new(), String::new()));
    }
    if !results.is_empty() {
        rows.push(Default::default());
        rows.extend(results);
    }
    output::print(&table(&rows))
}

/// One of the two.
struct Side {
    name: String,
    recipe: Recipe,
    run: Option<Summary>,
}

impl Side {
    /// A recipe's path, `demo`, or a run's name or folder.
    fn read(what: &str) -> Result<Self> {
        let path = Path::new(what);
        if what == "demo" || path.is_file() {
            let recipe = recipe::load(what, &[])?.recipe;
            let name = path.file_name().map_or(what.to_string(), |n| n.to_string_lossy().into_owned());
            return Ok(Self { name, recipe, run: None });
        }
        let index = Index::of_user();
        let folder = index.find(Some(what)).map_err(|e| {
            Error { kind: Kind::Usage, ..e }
                .next("name two recipes (.toml files) or runs; `finetop runs` lists those seen")
        })?;
        let recipe = recipe::parse(&folder.read_recipe()?, &folder.recipe().to_string_lossy(), &[])?.recipe;
        Ok(Self { name: folder.name(), recipe, run: Some(index.summary(&folder)) })
    }
}

/// How two runs went, where both are runs.
fn results(a: &Side, b: &Side) -> Vec<(String, String, String)> {
    let (Some(a), Some(b)) = (&a.run, &b.run) else { return Vec::new() };
    let unknown = || "–".to_string();
    let row = |name: &str, of: &dyn Fn(&Summary) -> String| (name.to_string(), of(a), of(b));
    vec![
        row("state", &|s| s.state.word().to_string()),
        row("step", &|s| format!("{}/{}", thousands(s.step), thousands(s.total_steps))),
        row("loss, last", &|s| s.loss.map_or_else(unknown, |l| format!("{l:.4}"))),
        row("eval, best", &|s| s.eval_best.map_or_else(unknown, |(l, step)| format!("{l:.4} @{step}"))),
        row("time", &|s| duration(s.updated - s.trainer_started.max(s.started))),
        row("findings", &|s| s.worst.as_ref().map_or("none".to_string(), |f| f.title.clone())),
    ]
}

/// Three columns; a value that is long is cut.
fn table(rows: &[(String, String, String)]) -> String {
    let cut = |t: &str| match t.chars().count() > 44 {
        true => t.chars().take(43).chain(['…']).collect::<String>(),
        false => t.to_string(),
    };
    let wide = |of: &dyn Fn(&(String, String, String)) -> String| {
        rows.iter().map(|r| of(r).chars().count()).max().unwrap_or(0)
    };
    let (key, a) = (wide(&|r| cut(&r.0)), wide(&|r| cut(&r.1)));
    rows.iter()
        .map(|r| format!("{:<key$}  {:<a$}  {}", cut(&r.0), cut(&r.1), cut(&r.2)).trim_end().to_string() + "\n")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_differ_stand_beside_each_other() {
        let rows = [
            (String::new(), "a.toml".into(), "b.toml".into()),
            ("train.learning_rate".into(), "2e-4".into(), "1e-4".into()),
        ];
        assert_eq!(table(&rows), "                     a.toml  b.toml\ntrain.learning_rate  2e-4    1e-4\n");
    }
}
