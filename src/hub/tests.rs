//! The hub's client against a hub of the test's own.

use super::server::{COMMIT, Held, Hub};
use super::*;

fn model() -> Held {
    let big: Vec<u8> = (0..300_000u32).flat_map(|i| i.to_le_bytes()).collect();
    Held {
        files: [
            ("config.json".to_string(), b"{}".to_vec()),
            ("model.safetensors".to_string(), big),
            ("README.md".to_string(), b"# hello".to_vec()),
            ("a/b.txt".to_string(), b"deep".to_vec()),
        ]
        .into(),
        large: vec!["model.safetensors".into()],
        ..Held::default()
    }
}

fn repo(text: &str) -> Repo {
    Repo::parse(Kind::Model, text).unwrap()
}

/// Fetch these files, and what was said meanwhile.
fn get(settings: &Settings, name: &str, files: &[&str]) -> (Result<Snapshot>, Vec<String>) {
    let mut said = Vec::new();
    let files: Vec<String> = files.iter().map(|f| f.to_string()).collect();
    let wanted = |_: &Info, _: &Cached| Ok(Wanted { files: files.clone(), more: false });
    let got = fetch(settings, &repo(name), &wanted, &mut |s| said.push(s.to_string()));
    (got, said)
}

#[test]
fn what_is_wanted_is_fetched_once_and_laid_out_as_huggingface_hub_does() {
    let (hub, dir) = (Hub::start([("models/o/n", model())]), tempfile::tempdir().unwrap());
    let settings = hub.settings(dir.path());
    let got = get(&settings, "o/n", &["config.json", "model.safetensors", "a/b.txt"]).0.unwrap();
    assert_eq!(got.commit, COMMIT);
    let root = dir.path().join("hub/models--o--n");
    assert_eq!(got.folder, root.join("snapshots").join(COMMIT));
    assert_eq!(std::fs::read(got.folder.join("model.safetensors")).unwrap(), model().files["model.safetensors"]);
    assert_eq!(std::fs::read(got.folder.join("a/b.txt")).unwrap(), b"deep");
    assert_eq!(std::fs::read_to_string(root.join("refs/main")).unwrap(), COMMIT);
    // The blob of a small file is named by git's hash (`git hash-object`), that of a large one by its SHA-256.
    let link = std::fs::read_link(got.folder.join("config.json")).unwrap();
    assert_eq!(link.to_str().unwrap(), "../../blobs/9e26dfeeb6e641a33dae4961196235bdb965b21b");
    assert_eq!(std::fs::read_link(got.folder.join("a/b.txt")).unwrap().components().count(), 5);
    assert_eq!(std::fs::read_link(got.folder.join("model.safetensors")).unwrap().file_name().unwrap().len(), 64);
    assert!(!got.folder.join("README.md").exists());

    let before = hub.requests().len();
    get(&settings, "o/n", &["config.json", "model.safetensors"]).0.unwrap();
    assert_eq!(hub.requests().len(), before + 1, "only the list of files is asked for again");
}

#[test]
fn a_cut_connection_goes_on_where_it_stopped() {
    let mut held = model();
    held.cuts.insert("model.safetensors".into(), vec![100_000, 250_000]);
    let (hub, dir) = (Hub::start([("models/o/n", held)]), tempfile::tempdir().unwrap());
    let (got, said) = get(&hub.settings(dir.path()), "o/n", &["model.safetensors"]);
    assert_eq!(
        std::fs::read(got.unwrap().folder.join("model.safetensors")).unwrap(),
        model().files["model.safetensors"]
    );
    let ranges: Vec<String> =
        hub.requests().iter().filter_map(|r| r.split_once(" bytes=").map(|(_, n)| n.to_string())).collect();
    assert_eq!(ranges, ["100000-", "350000-"]);
    assert!(said.iter().any(|s| s.contains("was cut at 100 kB")), "{said:?}");
}

#[test]
fn a_download_that_was_given_up_is_resumed_by_the_next_start() {
    let mut held = model();
    held.cuts.insert("model.safetensors".into(), vec![100_000, 0, 0, 0, 0, 0]);
    let (hub, dir) = (Hub::start([("models/o/n", held)]), tempfile::tempdir().unwrap());
    let settings = hub.settings(dir.path());
    let e = get(&settings, "o/n", &["model.safetensors"]).0.unwrap_err().to_string();
    assert!(e.contains("stopped at 100 kB of 1 MB") && e.contains("goes on from there"), "{e}");
    let got = get(&settings, "o/n", &["model.safetensors"]).0.unwrap();
    assert_eq!(std::fs::read(got.folder.join("model.safetensors")).unwrap(), model().files["model.safetensors"]);
    assert!(hub.requests().last().unwrap().ends_with("bytes=100000-"));
}

#[test]
fn contents_with_a_wrong_hash_are_refused_and_not_kept() {
    for file in ["model.safetensors", "config.json"] {
        let mut held = model();
        let mut lie = held.files[file].clone();
        lie[0] ^= 1;
        held.lies.insert(file.into(), lie);
        let (hub, dir) = (Hub::start([("models/o/n", held)]), tempfile::tempdir().unwrap());
        let settings = hub.settings(dir.path());
        let e = get(&settings, "o/n", &[file]).0.unwrap_err().to_string();
        assert!(e.contains("its hash is wrong") && e.contains(file), "{e}");
        let blobs = std::fs::read_dir(dir.path().join("hub/models--o--n/blobs")).unwrap().count();
        assert_eq!(blobs, 0);
        // Mended, it loads.
        hub.with("models/o/n", |h| h.lies.clear());
        get(&settings, "o/n", &[file]).0.unwrap();
    }
}

#[test]
fn a_part_of_another_version_is_thrown_away_and_fetched_anew() {
    let (hub, dir) = (Hub::start([("models/o/n", model())]), tempfile::tempdir().unwrap());
    let settings = hub.settings(dir.path());
    let etag = get(&settings, "o/n", &["model.safetensors"]).0.unwrap().folder.join("model.safetensors");
    let blob = std::fs::canonicalize(etag).unwrap();
    std::fs::write(
        blob.with_file_name(format!("{}.incomplete", blob.file_name().unwrap().to_str().unwrap())),
        b"other",
    )
    .unwrap();
    std::fs::remove_file(&blob).unwrap();
    let got = get(&settings, "o/n", &["model.safetensors"]).0.unwrap();
    assert_eq!(std::fs::read(got.folder.join("model.safetensors")).unwrap(), model().files["model.safetensors"]);
}

#[test]
fn a_gated_repository_says_where_to_ask_and_opens_to_a_token() {
    let held = Held { gated: true, token: Some("hf_good".into()), ..model() };
    let (hub, dir) = (Hub::start([("models/o/n", held)]), tempfile::tempdir().unwrap());
    let mut settings = hub.settings(dir.path());
    let e = get(&settings, "o/n", &["config.json"]).0.unwrap_err().to_string();
    assert!(e.contains("gated") && e.contains("/o/n") && e.contains("HF_TOKEN"), "{e}");
    settings.token = Some("hf_bad".into());
    settings.token_from = "HF_TOKEN".into();
    let e = get(&settings, "o/n", &["config.json"]).0.unwrap_err().to_string();
    assert!(e.contains("gated") && e.contains("the token of HF_TOKEN") && !e.contains("hf_bad"), "{e}");
    settings.token = Some("hf_good".into());
    get(&settings, "o/n", &["config.json"]).0.unwrap();
}

#[test]
fn what_is_not_there_is_said_each_in_its_own_words() {
    let (hub, dir) = (Hub::start([("models/o/n", model())]), tempfile::tempdir().unwrap());
    let settings = hub.settings(dir.path());
    for (name, file, words) in [
        ("o/other", "config.json", "no such repository"),
        ("o/n@v9", "config.json", "no revision v9"),
        ("o/n", "none.json", "no file none.json"),
    ] {
        let e = get(&settings, name, &[file]).0.unwrap_err().to_string();
        assert!(e.contains(words) && e.contains('→'), "{name}: {e}");
    }
}

#[test]
fn offline_the_cache_answers_and_nothing_is_asked() {
    let (hub, dir) = (Hub::start([("models/o/n", model())]), tempfile::tempdir().unwrap());
    let mut settings = hub.settings(dir.path());
    settings.offline = true;
    let e = get(&settings, "o/n", &["config.json"]).0.unwrap_err().to_string();
    assert!(e.contains("HF_HUB_OFFLINE") && hub.requests().is_empty(), "{e}");
    settings.offline = false;
    get(&settings, "o/n", &["config.json"]).0.unwrap();
    let before = hub.requests().len();
    settings.offline = true;
    assert_eq!(get(&settings, "o/n", &["config.json"]).0.unwrap().commit, COMMIT);
    assert_eq!(get(&settings, &format!("o/n@{COMMIT}"), &["config.json"]).0.unwrap().commit, COMMIT);
    assert_eq!(hub.requests().len(), before);
}

#[test]
fn a_hub_that_is_down_leaves_what_the_cache_has() {
    let (hub, dir) = (Hub::start([("models/o/n", model())]), tempfile::tempdir().unwrap());
    let mut settings = hub.settings(dir.path());
    get(&settings, "o/n", &["config.json"]).0.unwrap();
    // Nobody listens on this port any more.
    settings.endpoint = "http://127.0.0.1:9".into();
    let (got, said) = get(&settings, "o/n", &["config.json"]);
    assert_eq!(got.unwrap().commit, COMMIT);
    assert!(said[0].contains("cannot be reached") && said[0].contains("0123456789"), "{said:?}");
    let e = get(&settings, "o/other", &["config.json"]).0.unwrap_err().to_string();
    assert!(e.contains("cannot be reached") && e.contains("HF_ENDPOINT"), "{e}");
}

#[test]
fn what_the_disk_cannot_hold_is_refused_before_it_is_fetched() {
    let (hub, dir) = (Hub::start([("models/o/n", model())]), tempfile::tempdir().unwrap());
    let settings = hub.settings(dir.path());
    let wanted = |info: &Info, _: &Cached| {
        assert!(info.files.iter().all(|f| f.size.is_some()));
        Ok(Wanted { files: vec!["config.json".into()], more: false })
    };
    let mut info =
        client::Client::new(&settings).unwrap().info(&repo("o/n")).unwrap_or_else(|e| panic!("{}", Error::from(e)));
    for f in &mut info.files {
        f.size = Some(1 << 60);
    }
    let client = client::Client::new(&settings).unwrap();
    let cache = settings.cache(&repo("o/n")).unwrap();
    let e = download::all(&client, &settings, &cache, &repo("o/n"), &info, &["config.json".into()], &mut |_| ())
        .unwrap_err()
        .to_string();
    assert!(e.contains("too full") && e.contains("HF_HOME"), "{e}");
    fetch(&settings, &repo("o/n"), &wanted, &mut |_| ()).unwrap();
}
