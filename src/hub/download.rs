//! Files of a commit into the cache: what is missing, resumed where it was cut, checked by its hash.

use super::Say;
use super::cache::Cache;
use super::client::{Client, Failure, Hash, Info, Sibling};
use super::repo::Repo;
use super::settings::Settings;
use crate::{Error, Result};
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often a download says how far it is.
const EVERY: Duration = Duration::from_secs(1);

/// Attempts that bring nothing new before a download is given up.
const ATTEMPTS: u32 = 5;

/// Have `files` of a commit on disk, in that order.
pub fn all(
    client: &Client,
    settings: &Settings,
    cache: &Cache,
    repo: &Repo,
    info: &Info,
    files: &[String],
    say: Say,
) -> Result<()> {
    let mut missing = Vec::new();
    for path in files {
        let sibling = info.files.iter().find(|s| s.path == *path).ok_or_else(|| {
            Error::new(format!("the repository has no file {path}"))
                .at(repo)
                .next("its files may have changed: try again")
        })?;
        // A blob is renamed in only when its hash was right.
        if !cache.blob(sibling.hash.etag()).is_file() {
            missing.push(sibling);
        } else {
            cache.link(&info.commit, path, sibling.hash.etag())?;
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    room(cache, repo, &missing)?;
    let mut tally = Tally {
        done: 0,
        total: missing.iter().map(|s| s.size.unwrap_or(0)).sum(),
        fetched: 0,
        began: Instant::now(),
        told: Instant::now(),
    };
    for (i, sibling) in missing.iter().enumerate() {
        if settings.offline {
            return Err(Error::new(format!("{} is not in the cache", sibling.path)).at(repo));
        }
        let title = format!("downloading {} ({} of {})", sibling.path, i + 1, missing.len());
        let etag = sibling.hash.etag();
        let lock =
            cache.lock(etag, &mut || say(&format!("another program downloads {}: waiting for it", sibling.path)))?;
        if !cache.blob(etag).is_file() {
            one(client, cache, repo, &info.commit, sibling, &title, &mut tally, say)?;
        }
        drop(lock);
        cache.link(&info.commit, &sibling.path, etag)?;
        tally.done += sibling.size.unwrap_or(0);
    }
    Ok(())
}

/// How far all files together are.
struct Tally {
    /// Bytes of the files that are whole.
    done: u64,
    total: u64,
    /// Bytes that came over the network, for the speed.
    fetched: u64,
    began: Instant,
    told: Instant,
}

impl Tally {
    fn tell(&mut self, title: &str, at: u64, say: Say) {
        if self.told.elapsed() < EVERY {
            return;
        }
        self.told = Instant::now();
        let speed = self.fetched as f64 / self.began.elapsed().as_secs_f64().max(1e-3);
        let done = self.done + at;
        let left = match (self.total.saturating_sub(done) as f64 / speed.max(1.0)) as u64 {
            s if s < 60 => format!("{s} s"),
            s if s < 3600 => format!("{} min", s / 60),
            s => format!("{} h {} min", s / 3600, s % 3600 / 60),
        };
        say(&format!("{title}: {} of {}, {:.1} MB/s, {left} left", size(done), size(self.total), speed / 1e6));
    }
}

/// Refuse before hours are spent where the disk cannot hold it.
fn room(cache: &Cache, repo: &Repo, missing: &[&Sibling]) -> Result<()> {
    fs::create_dir_all(cache.root()).map_err(|e| {
        Error::from(e).at(cache.root().display()).next("set HF_HOME or HF_HUB_CACHE to a folder that can be written")
    })?;
    let there = |s: &&Sibling| fs::metadata(part(cache, s.hash.etag())).map_or(0, |m| m.len());
    let need: u64 = missing.iter().map(|s| s.size.unwrap_or(0).saturating_sub(there(s))).sum();
    let Ok(stat) = rustix::fs::statvfs(cache.root()) else { return Ok(()) };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if need > free {
        return Err(
            full(&format!("{} are to be downloaded, and {} are free", size(need), size(free)), cache.root()).at(repo)
        );
    }
    Ok(())
}

fn full(what: &str, root: &Path) -> Error {
    Error::new(format!("the disk of {} is too full: {what}", root.display()))
        .next("make room, or set HF_HOME to a folder on a larger disk; what was downloaded so far is kept")
}

/// Where a file grows; as `huggingface_hub` names it.
fn part(cache: &Cache, etag: &str) -> std::path::PathBuf {
    cache.blob(&format!("{etag}.incomplete"))
}

#[allow(clippy::too_many_arguments)]
fn one(
    client: &Client,
    cache: &Cache,
    repo: &Repo,
    commit: &str,
    sibling: &Sibling,
    title: &str,
    tally: &mut Tally,
    say: Say,
) -> Result<()> {
    let etag = sibling.hash.etag();
    let path = part(cache, etag);
    let place = format!("{repo}: {}", sibling.path);
    fs::create_dir_all(path.parent().unwrap_or(cache.root())).map_err(|e| Error::from(e).at(path.display()))?;
    let (mut in_vain, mut furthest) = (0, 0);
    loop {
        let from = fs::metadata(&path).map_or(0, |m| m.len());
        let failure = if sibling.size == Some(from) && from > 0 {
            None
        } else {
            match piece(client, repo, commit, sibling, &path, from, title, tally, say) {
                Ok(()) => None,
                Err(Failure::Other(e)) if e.place.is_none() => return Err(full(&e.what, cache.root()).at(&place)),
                Err(Failure::Other(e)) => return Err(e),
                Err(Failure::Unreachable(e)) => Some(e),
            }
        };
        let length = fs::metadata(&path).map_or(0, |m| m.len());
        let complete = failure.is_none() && sibling.size.is_none_or(|s| s == length);
        if complete {
            say_checking(length, &sibling.path, say);
            if hash_of(&path, &sibling.hash, length).map_err(|e| Error::from(e).at(path.display()))? == etag {
                fs::rename(&path, cache.blob(etag)).map_err(|e| Error::from(e).at(path.display()))?;
                return Ok(());
            }
            // What was resumed may have been begun by another version of the file: once more, from the start.
            fs::remove_file(&path).map_err(|e| Error::from(e).at(path.display()))?;
            if from == 0 {
                return Err(Error::new("what came is not what the hub says it is: its hash is wrong")
                    .at(place)
                    .next("try again; if it stays so, something between here and the hub changes files"));
            }
            continue;
        }
        if length > furthest {
            (furthest, in_vain) = (length, 0);
        } else {
            in_vain += 1;
        }
        if sibling.size.is_some_and(|s| length > s) {
            let _ = fs::remove_file(&path);
        }
        if in_vain >= ATTEMPTS {
            let e = failure.unwrap_or_else(|| Error::new("the connection ends before the file does"));
            return Err(Error::new(format!(
                "the download stopped at {} of {}: {}",
                size(length),
                size(sibling.size.unwrap_or(0)),
                e.what
            ))
            .at(place)
            .next("start again: it goes on from there"));
        }
        say(&format!("{title}: the connection was cut at {}; going on from there", size(length)));
        std::thread::sleep(Duration::from_millis(200) * (1 << in_vain.min(5)));
    }
}

/// Bytes as a person reads them: `412 MB`, `14.2 GB`.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} kB", bytes.div_ceil(1000)),
        1_000_000..1_000_000_000 => format!("{:.0} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

fn say_checking(length: u64, path: &str, say: Say) {
    if length > 1 << 30 {
        say(&format!("checking the hash of {path}"));
    }
}

/// One request's bytes, behind those that are there. `Unreachable`: worth another try.
#[allow(clippy::too_many_arguments)]
fn piece(
    client: &Client,
    repo: &Repo,
    commit: &str,
    sibling: &Sibling,
    path: &Path,
    from: u64,
    title: &str,
    tally: &mut Tally,
    say: Say,
) -> std::result::Result<(), Failure> {
    // Without a place: the disk's fault, which the caller explains.
    let disk = |e: std::io::Error| Failure::Other(Error::new(e.to_string()));
    let response = client.file(repo, commit, &sibling.path, from)?;
    let status = response.status().as_u16();
    if status == 416 {
        // Longer than the file is: not a beginning of it.
        fs::remove_file(path).map_err(disk)?;
        return Err(Failure::Unreachable(Error::new("the part on disk is longer than the file")));
    }
    let resumed = status == 206;
    let mut file =
        File::options().create(true).write(true).append(resumed).truncate(!resumed).open(path).map_err(disk)?;
    let mut at = if resumed { from } else { 0 };
    let mut reader = response.into_body().into_reader();
    let mut buffer = vec![0; 1 << 18];
    loop {
        let n = match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Failure::Unreachable(Error::new(e.to_string()))),
        };
        file.write_all(&buffer[..n]).map_err(disk)?;
        at += n as u64;
        tally.fetched += n as u64;
        tally.tell(title, at, say);
    }
}

/// The hash of a file's contents, as the hub counts it.
fn hash_of(path: &Path, kind: &Hash, length: u64) -> std::io::Result<String> {
    let mut context = match kind {
        Hash::Sha256(_) => Context::new(&SHA256),
        Hash::GitBlob(_) => {
            let mut c = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
            c.update(format!("blob {length}\0").as_bytes());
            c
        }
    };
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => context.update(&buffer[..n]),
        }
    }
    Ok(context.finish().as_ref().iter().map(|b| format!("{b:02x}")).collect())
}
