//! `finetop cache`: the token cache, what is in it, and clearing it.

use super::args::CacheArgs;
use super::output;
use crate::data::cache::Cache;
use crate::run::host::now;
use crate::run::summary::duration;
use crate::{Error, Result};
use serde_json::json;
use std::time::UNIX_EPOCH;

pub fn run(args: &CacheArgs) -> Result<()> {
    let cache =
        Cache::of_user().ok_or_else(|| Error::new("no cache folder is known").next("set XDG_CACHE_HOME or HOME"))?;
    let files = cache.files();
    let total: u64 = files.iter().map(|f| f.1).sum();
    if args.clear {
        let gone: u64 = files.iter().filter(|f| std::fs::remove_file(&f.0).is_ok()).map(|f| f.1).sum();
        return output::print(&format!("{} freed; a run that is at work keeps its tokens until it ends", mib(gone)));
    }
    let seconds = |t: &std::time::SystemTime| t.duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
    if args.json {
        let list: Vec<_> =
            files.iter().map(|(p, bytes, used)| json!({"path": p, "bytes": bytes, "used": seconds(used)})).collect();
        return output::print_json(&json!({"folder": cache.folder, "bytes": total, "cap": cache.cap, "files": list}));
    }
    let mut out =
        vec![format!("{}: {} of {} in {} data sets", cache.folder.display(), mib(total), mib(cache.cap), files.len())];
    for (path, bytes, used) in files.iter().rev() {
        let name = path.file_stem().map_or_else(String::new, |s| s.to_string_lossy().chars().take(12).collect());
        out.push(format!("  {name}  {:>10}  used {} ago", mib(*bytes), duration(now() - seconds(used))));
    }
    output::print(&out.join("\n"))
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1u64 << 20) as f64)
}
