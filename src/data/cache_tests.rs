use super::*;
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
        },
        places: (0..n).map(|i| Place { file: 0, line: i + 1, offset: u64::from(i) * 9, len: 9 }).collect(),
        fingerprints: (0..n).map(u64::from).collect(),
        examples: (0..n).map(example).collect(),
        columns: (0..n).map(|i| format!("{{\"answer\":{i}}}")).collect(),
    }
}

fn cache(dir: &tempfile::TempDir, cap: u64) -> Cache {
    Cache { folder: dir.path().join("tokens"), cap }
}

#[test]
fn what_is_stored_comes_back_equal() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, key) = (cache(&dir, 1 << 20), blake3::hash(b"key"));
    assert!(cache.load(&key).is_none());
    for n in [0, 1, 100] {
        cache.store(&key, &tokenized(n));
        assert_eq!(cache.load(&key).unwrap(), tokenized(n));
    }
    assert!(cache.load(&blake3::hash(b"other")).is_none());
}

#[test]
fn a_torn_or_altered_file_is_no_cache() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, key) = (cache(&dir, 1 << 20), blake3::hash(b"key"));
    cache.store(&key, &tokenized(50));
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
    // Even where the hash is right, counts are not believed beyond the bytes there are.
    let mut body = u64::MAX.to_le_bytes().to_vec();
    body.extend([1; 20]);
    let mut forged = MAGIC.to_vec();
    forged.extend(blake3::hash(&body).as_bytes());
    forged.extend(body);
    assert!(decode(&forged).is_none());
}

#[test]
fn the_longest_unused_go_when_there_is_too_much() {
    let dir = tempfile::tempdir().unwrap();
    let size = encode(&tokenized(100)).unwrap().len() as u64;
    let cache = cache(&dir, 2 * size + size / 2);
    let keys: Vec<_> = (0..3u8).map(|i| blake3::hash(&[i])).collect();
    let age = |key: &blake3::Hash, seconds: u64| {
        let file = std::fs::File::options().append(true).open(cache.path(key)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
    };
    cache.store(&keys[0], &tokenized(100));
    age(&keys[0], 200);
    cache.store(&keys[1], &tokenized(100));
    age(&keys[1], 100);
    assert!(cache.load(&keys[0]).is_some(), "using it makes it the newest");
    cache.store(&keys[2], &tokenized(100));
    assert!(cache.load(&keys[0]).is_some() && cache.load(&keys[2]).is_some());
    assert!(cache.load(&keys[1]).is_none());
    assert_eq!(cache.files().len(), 2);
}

#[test]
fn a_folder_that_cannot_be_made_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokens"), "a file").unwrap();
    let cache = cache(&dir, 1 << 20);
    cache.store(&blake3::hash(b"key"), &tokenized(3));
    assert!(cache.load(&blake3::hash(b"key")).is_none());
}
