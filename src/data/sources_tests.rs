use super::*;
use crate::hub::server::{Held, Hub};
use serde_json::json;

fn repo(text: &str) -> Repo {
    Repo::parse(Repository::Dataset, text).unwrap()
}

fn pick(
    names: &[&str],
    card: &Value,
    text: &str,
    split: Option<&str>,
    held_out: bool,
) -> std::result::Result<Vec<String>, String> {
    let names: Vec<String> = names.iter().map(|n| n.to_string()).collect();
    select(&names, card, &repo(text), split, held_out).map_err(|e| e.to_string())
}

const PLAIN: &[&str] = &[
    "README.md",
    "dataset_infos.json",
    "data/train-00000-of-00002.parquet",
    "data/train-00001-of-00002.parquet",
    "data/test-00000-of-00001.parquet",
];

#[test]
fn the_train_split_is_taken_unless_another_is_asked_for() {
    let none = Value::Null;
    assert_eq!(pick(PLAIN, &none, "o/n", None, false).unwrap(), [PLAIN[2], PLAIN[3]]);
    assert_eq!(pick(PLAIN, &none, "o/n", Some("test"), false).unwrap(), [PLAIN[4]]);
    assert_eq!(pick(PLAIN, &none, "o/n", None, true).unwrap(), [PLAIN[4]], "evaluation takes validation, or else test");
    let e = pick(PLAIN, &none, "o/n", Some("val"), false).unwrap_err();
    assert!(e.contains("split val") && e.contains("test, train"), "{e}");
    assert_eq!(pick(&["rows.jsonl", "README.md"], &none, "o/n", None, false).unwrap(), ["rows.jsonl"]);
    assert_eq!(pick(&["a/train.json", "a/dev.json"], &none, "o/n", Some("validation"), false).unwrap(), ["a/dev.json"]);
}

#[test]
fn a_card_s_configurations_decide_and_several_must_be_named() {
    let card = json!({"configs": [
        {"config_name": "main", "data_files": [{"split": "train", "path": "main/train-*"}, {"split": "test", "path": "main/test-*"}]},
        {"config_name": "socratic", "data_files": [{"split": "train", "path": ["socratic/train-*"]}]},
    ]});
    let names = &["main/train-0.parquet", "main/test-0.parquet", "socratic/train-0.parquet"];
    let e = pick(names, &card, "o/n", None, false).unwrap_err();
    assert!(e.contains("main, socratic") && e.contains("hf:o/n/main"), "{e}");
    assert_eq!(pick(names, &card, "o/n/main", None, false).unwrap(), [names[0]]);
    assert_eq!(pick(names, &card, "o/n/main", Some("test"), false).unwrap(), [names[1]]);
    assert_eq!(pick(names, &card, "o/n/socratic", None, false).unwrap(), [names[2]]);
    // Without a card, a folder is meant.
    assert_eq!(pick(names, &Value::Null, "o/n/main", None, false).unwrap(), [names[0]]);
    assert_eq!(pick(names, &Value::Null, "o/n/main/test-0.parquet", None, false).unwrap(), [names[1]]);
    let e = pick(names, &Value::Null, "o/n/other", None, false).unwrap_err();
    assert!(e.contains("main, socratic"), "{e}");
}

#[test]
fn of_rows_that_are_there_twice_one_kind_is_read() {
    assert_eq!(pick(&["train.parquet", "train.jsonl"], &Value::Null, "o/n", None, false).unwrap(), ["train.parquet"]);
    let e = pick(&["script.py", "README.md"], &Value::Null, "o/n", None, false).unwrap_err();
    assert!(e.contains("@refs/convert/parquet"), "{e}");
}

#[test]
fn patterns_are_those_of_a_shell() {
    for (pattern, name, fits) in [
        ("data/train-*", "data/train-0.parquet", true),
        ("data/train-*", "data/x/train-0.parquet", false),
        ("**/train-*", "a/b/train-1", true),
        ("**", "a/b", true),
        ("*.json", "a/b.json", false),
        ("a?.csv", "ab.csv", true),
    ] {
        assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
    }
}

#[test]
fn the_files_of_a_hub_data_set_are_fetched_and_offline_found_again() {
    let rows = b"{\"text\":\"a\"}\n".to_vec();
    let files = [("train.jsonl", &rows), ("test.jsonl", &rows), ("README.md", &rows)];
    let held = Held { files: files.iter().map(|(n, b)| (n.to_string(), b.to_vec())).collect(), ..Held::default() };
    let (hub, dir) = (Hub::start([("datasets/o/n", held)]), tempfile::tempdir().unwrap());
    let mut settings = hub.settings(dir.path());
    let get = |s: &Settings, key: &str| of_hub(s, "hf:o/n", None, key, &mut |_| ());
    let found = get(&settings, "data.train").unwrap();
    assert_eq!(std::fs::read(&found.files[0]).unwrap(), rows);
    assert!(found.files[0].ends_with("train.jsonl") && found.files.len() == 1);
    assert!(dir.path().join("hub/datasets--o--n/refs/main").is_file());
    let asked = hub.requests().len();
    assert_eq!(get(&settings, "data.train").unwrap(), found);
    assert_eq!(hub.requests().len(), asked, "within a process the hub is asked once");
    LOCATED.lock().unwrap().clear();
    settings.offline = true;
    assert_eq!(get(&settings, "data.train").unwrap(), found);
    let e = get(&settings, "data.eval").unwrap_err().to_string();
    assert!(e.contains("validation"), "{e}");
}

#[test]
fn a_folder_s_files_are_chosen_by_split() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["train-1.jsonl", "validation.jsonl", "sub/train.csv"] {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
    }
    let source = |path: &Path, split: &str| DataSource { split: Some(split.into()), ..DataSource::from(path) };
    let get = |s: DataSource| locate(&s, "data.train", &mut |_| ()).map(|f| f.files);
    assert_eq!(get(source(dir.path(), "train")).unwrap().len(), 2);
    assert_eq!(get(source(dir.path(), "val")).unwrap(), [dir.path().join("validation.jsonl")]);
    let e = get(source(dir.path(), "test")).unwrap_err().to_string();
    assert!(e.contains("train, validation"), "{e}");
    let lone = dir.path().join("rows.jsonl");
    std::fs::write(&lone, "x").unwrap();
    assert_eq!(get(source(&lone, "train")).unwrap(), std::slice::from_ref(&lone));
}
