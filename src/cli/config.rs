//! `finetop config`: the settings that hold, and where each comes from.

use super::args::ConfigArgs;
use super::output;
use crate::Result;
use crate::console::keymap::Keymap;
use crate::data::cache::Cache;
use crate::model::source;
use crate::recipe::problem::Place;
use crate::recipe::{self, Loaded, schema};
use crate::run::places;
use crate::runtime::personal::{Personal, keys_file};
use crate::runtime::settings::Origin;
use serde::Serialize;
use std::path::PathBuf;

/// One setting.
#[derive(Debug, Serialize)]
struct Setting {
    name: String,
    value: String,
    /// `flag`, `environment NAME`, `recipe FILE:LINE`, `config FILE:LINE` or `default`.
    origin: String,
}

pub fn run(args: &ConfigArgs) -> Result<()> {
    let personal = Personal::of_user();
    let mut all = program(&personal);
    all.extend(folders());
    if let Some(recipe) = &args.recipe {
        all.extend(of_recipe(&recipe::load(recipe, &args.set)?));
    }
    for problem in &personal.settings.problems {
        output::progress(&format!("note: {problem}"));
    }
    if args.json { output::print_json(&all) } else { output::print(&table(&all)) }
}

fn setting(name: &str, value: impl ToString, origin: impl ToString) -> Setting {
    Setting { name: name.into(), value: value.to_string(), origin: origin.to_string() }
}

/// What concerns the program itself.
fn program(personal: &Personal) -> Vec<Setting> {
    let s = &personal.settings;
    let default = Keymap::default();
    let changed = personal.keymap.bindings.iter().zip(&default.bindings).filter(|(a, b)| a.keys != b.keys).count();
    let keys = places::config_home().map(|home| keys_file(&home)).filter(|file| changed > 0 && file.is_file());
    let keys = keys.map_or(Origin::Default, |file| Origin::Config(file.display().to_string()));
    let theme = s.theme.value.clone().unwrap_or_else(|| personal.default_theme.to_string());
    vec![
        setting("theme", theme, &s.theme.origin),
        setting("glyphs", personal.theme.glyphs.word(), &s.glyphs.origin),
        setting("mouse", s.mouse.value, &s.mouse.origin),
        setting("keys", if changed == 0 { "the table's".into() } else { format!("{changed} of your own") }, keys),
        first_set(&["NO_COLOR"], "colours", |v| if v.is_empty() || v == "0" { "yes" } else { "no" }.into(), "yes"),
        first_set(&["VISUAL", "EDITOR"], "editor", |v| v.into(), "vi"),
        first_set(&["RAYON_NUM_THREADS"], "threads", |v| v.into(), &rayon::current_num_threads().to_string()),
    ]
}

/// A value out of the first of these variables that says something, else `default`.
fn first_set(names: &[&'static str], name: &str, read: fn(&str) -> String, default: &str) -> Setting {
    let found = names.iter().find_map(|n| std::env::var(n).ok().filter(|v| !v.trim().is_empty()).map(|v| (n, v)));
    match found {
        Some((variable, text)) => setting(name, read(&text), Origin::Environment(variable)),
        None => setting(name, default, Origin::Default),
    }
}

/// Where things are kept.
fn folders() -> Vec<Setting> {
    let by = |variables: &[&'static str]| {
        let set = variables.iter().find(|name| std::env::var_os(name).is_some_and(|v| !v.is_empty()));
        set.map_or(Origin::Default, |name| Origin::Environment(name))
    };
    let path = |p: Option<PathBuf>| p.map_or_else(|| "none: HOME is not set".into(), |p| p.display().to_string());
    let hub: &[&str] = &["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"];
    vec![
        setting("config folder", path(places::config_home()), by(&["XDG_CONFIG_HOME"])),
        setting("state folder", path(places::state_home()), by(&["XDG_STATE_HOME"])),
        setting("token cache", path(Cache::of_user().map(|c| c.folder)), by(&["XDG_CACHE_HOME"])),
        setting("models", path(source::hub_cache()), by(hub)),
    ]
}

/// Every value of a recipe.
fn of_recipe(loaded: &Loaded) -> Vec<Setting> {
    let values = schema::entries().filter_map(|e| Some((e.key, recipe::get(&loaded.recipe, e.key)?)));
    let origin = |key: &str| match loaded.places.get(key) {
        Some(Place::Set(_)) => "flag --set".to_string(),
        Some(place) => format!("recipe {place}"),
        None => "default".to_string(),
    };
    values.map(|(key, value)| setting(key, value.replace('\n', " "), origin(key))).collect()
}

/// A line a setting, in columns; long values are cut, `--json` has them whole.
fn table(all: &[Setting]) -> String {
    const VALUE: usize = 44;
    let name = all.iter().map(|s| s.name.chars().count()).max().unwrap_or(0);
    let line = |s: &Setting| {
        let long = s.value.chars().count() > VALUE;
        let value: String = s.value.chars().take(if long { VALUE - 1 } else { VALUE }).collect();
        let value = if long { value + "…" } else { value };
        format!("{:<name$}  {value:<VALUE$}  {}", s.name, s.origin)
    };
    all.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_of_a_recipe_says_where_it_comes_from() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.toml");
        std::fs::write(&path, "method = \"sft\"\n[model]\nname_or_path = \"demo\"\n[data]\ntrain = \"demo:train\"\n")
            .unwrap();
        let sets = [("train.seed".to_string(), "7".to_string())];
        let loaded = recipe::load(path.to_str().unwrap(), &sets).unwrap();
        let all = of_recipe(&loaded);
        let of = |name: &str| all.iter().find(|s| s.name == name).map(|s| (s.value.as_str(), s.origin.as_str()));
        assert_eq!(of("train.seed"), Some(("7", "flag --set")));
        assert_eq!(of("train.max_grad_norm").map(|s| s.1), Some("default"));
        let model = of("model.name_or_path").unwrap();
        assert!(model.1.starts_with("recipe ") && model.1.contains("a.toml:3:"), "{model:?}");
        assert!(of("lora.r").is_none(), "there is no [lora] table");
    }

    #[test]
    fn the_table_has_columns_and_cuts_what_is_too_long() {
        let text = table(&[setting("a", "x".repeat(80), "default"), setting("long name", "y", "flag --set")]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].find("default").map(|i| lines[0][..i].chars().count()), Some(57));
        assert_eq!(lines[1].find("flag"), Some(57));
        assert!(lines[0].contains('…'));
    }
}
