//! For tests: files that `scripts/fetch-assets.sh` lays and that are never committed.

use std::path::{Path, PathBuf};

/// A fetched file or folder in `$FINETOP_ASSETS` or `assets/`; says so and gives `None` when it is absent.
pub(crate) fn asset(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("FINETOP_ASSETS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("assets"), PathBuf::from);
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: {} is absent; scripts/fetch-assets.sh lays it", path.display());
    None
}
