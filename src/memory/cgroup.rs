//! The memory limit of this process's control group: what a container or a batch job may hold.

use std::path::Path;

/// Limit and present use of the group, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    pub limit: u64,
    pub used: Option<u64>,
}

/// Version 1 writes "no limit" as a number near 2^63.
const NONE: u64 = 1 << 60;

/// The tightest limit on the way from this process's group to the root: version 2 (`memory.max`), else version 1.
/// `mount` is where the groups are mounted (`/sys/fs/cgroup`), `own` the text of `/proc/self/cgroup`.
pub fn limit(mount: &Path, own: &str) -> Option<Limit> {
    let mut found = None;
    for line in own.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let here = if controllers.is_empty() {
            tightest(mount, path, "memory.max", "memory.current")
        } else if controllers.split(',').any(|c| c == "memory") {
            tightest(&mount.join("memory"), path, "memory.limit_in_bytes", "memory.usage_in_bytes")
        } else {
            None
        };
        found = [found, here].into_iter().flatten().min_by_key(|l: &Limit| l.limit);
    }
    found
}

/// Where a container sees only its own part, `path` may not exist: the root itself then has the limit.
fn tightest(root: &Path, path: &str, limit: &str, used: &str) -> Option<Limit> {
    let group = root.join(path.trim_start_matches('/'));
    let number = |at: &Path, name: &str| std::fs::read_to_string(at.join(name)).ok()?.trim().parse::<u64>().ok();
    let way = group.ancestors().take_while(|at| at.starts_with(root));
    way.filter_map(|at| number(at, limit).filter(|n| *n < NONE).map(|limit| Limit { limit, used: number(at, used) }))
        .min_by_key(|l| l.limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, write};

    #[test]
    fn the_tightest_limit_on_the_way_to_the_root_counts() {
        let dir = tempfile::tempdir().unwrap();
        create_dir_all(dir.path().join("a/b")).unwrap();
        write(dir.path().join("a/b/memory.max"), "max\n").unwrap();
        write(dir.path().join("a/memory.max"), "4096\n").unwrap();
        write(dir.path().join("a/memory.current"), "1024\n").unwrap();
        let found = limit(dir.path(), "0::/a/b\n").unwrap();
        assert_eq!((found.limit, found.used), (4096, Some(1024)));
    }

    #[test]
    fn a_container_finds_its_limit_at_the_root_it_sees() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path().join("memory.max"), "8192").unwrap();
        assert_eq!(limit(dir.path(), "0::/not/here").unwrap().limit, 8192);
    }

    #[test]
    fn version_1_is_read_and_its_word_for_none_is_none() {
        let dir = tempfile::tempdir().unwrap();
        create_dir_all(dir.path().join("memory/job")).unwrap();
        write(dir.path().join("memory/memory.limit_in_bytes"), "9223372036854771712").unwrap();
        write(dir.path().join("memory/job/memory.limit_in_bytes"), "2048").unwrap();
        let own = "5:cpu,cpuacct:/job\n4:memory:/job\n";
        assert_eq!(limit(dir.path(), own).unwrap().limit, 2048);
        write(dir.path().join("memory/job/memory.limit_in_bytes"), "9223372036854771712").unwrap();
        assert_eq!(limit(dir.path(), own), None);
        assert_eq!(limit(dir.path(), "garbage"), None);
    }
}
