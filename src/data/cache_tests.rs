use super::*;
use crate::data::batch::Example;
use crate::data::dataset::Head;
use crate::data::format::{Detected, Format};
use crate::data::summary::MaskCounts;
use std::time::Duration;

fn tokenized(n: u32) -> Tokenized {
    let example = |row: u32| Example {
        ids: (0..row % 19).map(|i| i * 7 + row).collect(),
        trained: (0..row % 19).map(|i| i % 3 == 1).collect(),
        row,
        truncated: row.is_multiple_of(5),
    };
    Tokenized {
        head: Head {
            detected: Detected { format: Format::Text, why: "column text".into(), unused: vec!["id".into()] },
            sources: Vec::new(),
            bad: 0,
            bad_rows: Vec::new(),
            truncated: 3,
            masked_out: 0,
            masked_out_rows: vec![4],
            mask: MaskCounts { all: u64::from(n), ..MaskCounts::default() },
            plain_pairs: true,
            columns: (0..n).map(|i| format!("{{\"answer\":{i}}}")).collect(),
        },
        places: (0..n).map(|i| Place { file: 0, line: i + 1, offset: u64::from(i) * 9, len: 9 }).collect(),
        fingerprints: (0..n).map(u64::from).collect(),
        examples: (0..n).map(example).collect(),
    }
}

fn cache(dir: &tempfile::TempDir, cap: u64) -> Cache {
    Cache { folder: dir.path().join("tokens"), cap }
}

fn store(cache: &Cache, key: &blake3::Hash, t: &Tokenized) -> Tokenized {
    let mut slot = slot(Some(cache), key).unwrap();
    for e in &t.examples {
        slot.example(e).unwrap();
    }
    for (p, f) in t.places.iter().zip(&t.fingerprints) {
        slot.row(p, *f);
    }
    slot.finish(&serde_json::to_vec(&t.head).unwrap(), Some(cache)).unwrap()
}

#[test]
fn what_is_stored_comes_back_equal() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, key) = (cache(&dir, 1 << 20), blake3::hash(b"key"));
    assert!(cache.load(&key).is_none());
    for n in [0, 1, 100] {
        assert_eq!(store(&cache, &key, &tokenized(n)), tokenized(n));
        assert_eq!(cache.load(&key).unwrap(), tokenized(n));
    }
    assert!(cache.load(&blake3::hash(b"other")).is_none());
}

#[test]
fn a_torn_or_altered_file_is_no_cache() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, key) = (cache(&dir, 1 << 20), blake3::hash(b"key"));
    store(&cache, &key, &tokenized(50));
    let path = cache.path(&key);
    let whole = std::fs::read(&path).unwrap();
    for len in [0, 7, 8, 39, 40, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..len]).unwrap();
        assert!(cache.load(&key).is_none(), "{len} of {} bytes", whole.len());
    }
    for at in [0, 10, 60, whole.len() - 1] {
        let mut altered = whole.clone();
        altered[at] ^= 1;
        std::fs::write(&path, &altered).unwrap();
        assert!(cache.load(&key).is_none(), "byte {at}");
    }
    // Even where the hash is right, places and counts are not believed beyond the bytes there are, nor flags that are none.
    let footer = whole.len() - FOOTER_BYTES;
    for (at, byte) in
        [(footer + 8, 0xff), (footer + 16, 0xff), (footer + 32, 0xff), (footer + 15, 0x7f), (8 + 19 * 4 + 1, 2)]
    {
        let mut forged = whole.clone();
        forged[at] = byte;
        let end = forged.len() - 32;
        let hash = blake3::hash(&forged[..end]);
        forged[end..].copy_from_slice(hash.as_bytes());
        std::fs::write(&path, &forged).unwrap();
        let _ = cache.load(&key);
    }
    std::fs::write(&path, &whole).unwrap();
    assert!(cache.load(&key).is_some());
}

const FOOTER_BYTES: usize = 8 + 3 * 8 + 3 * 8 + 32;

#[test]
fn the_longest_unused_go_when_there_is_too_much() {
    let dir = tempfile::tempdir().unwrap();
    let roomy = cache(&dir, u64::MAX);
    store(&roomy, &blake3::hash(b"size"), &tokenized(100));
    let size = roomy.files()[0].1;
    std::fs::remove_file(&roomy.files()[0].0).unwrap();
    let cache = cache(&dir, 2 * size + size / 2);
    let keys: Vec<_> = (0..3u8).map(|i| blake3::hash(&[i])).collect();
    let age = |key: &blake3::Hash, seconds: u64| {
        let file = std::fs::File::options().append(true).open(cache.path(key)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
    };
    store(&cache, &keys[0], &tokenized(100));
    age(&keys[0], 200);
    store(&cache, &keys[1], &tokenized(100));
    age(&keys[1], 100);
    assert!(cache.load(&keys[0]).is_some(), "using it makes it the newest");
    store(&cache, &keys[2], &tokenized(100));
    assert!(cache.load(&keys[0]).is_some() && cache.load(&keys[2]).is_some());
    assert!(cache.load(&keys[1]).is_none());
    assert_eq!(cache.files().len(), 2);
}

#[test]
fn where_the_cache_cannot_be_written_the_tokens_are_still_there() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokens"), "a file").unwrap();
    let cache = cache(&dir, 1 << 20);
    assert_eq!(store(&cache, &blake3::hash(b"key"), &tokenized(3)), tokenized(3));
    assert!(cache.load(&blake3::hash(b"key")).is_none());
}

#[test]
fn a_file_that_is_larger_than_the_cache_is_kept_while_it_is_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let cache = cache(&dir, 100);
    let (first, second) = (blake3::hash(b"1"), blake3::hash(b"2"));
    store(&cache, &first, &tokenized(100));
    assert!(cache.load(&first).is_some());
    store(&cache, &second, &tokenized(100));
    assert!(cache.load(&first).is_none() && cache.load(&second).is_some());
    assert!(std::fs::read_dir(&cache.folder).unwrap().count() == 1, "no part is left behind");
}
