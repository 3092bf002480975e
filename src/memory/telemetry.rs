//! What the process holds, and what the machine has.

use super::cards::{Card, Cards};
use super::cgroup;
use std::path::Path;
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

/// One reading. Unknown stays `None`, never 0.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reading {
    /// Resident set of this process, bytes.
    pub used: Option<u64>,
    /// Its largest so far.
    pub peak: Option<u64>,
    /// What this process may hold: the control group's limit or the host's memory, whichever is less.
    pub total: Option<u64>,
    /// What of it is free now.
    pub available: Option<u64>,
    /// All of the host's memory.
    pub host_total: Option<u64>,
    /// The cards this process may use; none on a machine without.
    pub cards: Vec<Card>,
}

/// A source of readings.
pub trait Telemetry: Send {
    fn read(&mut self) -> Reading;

    /// The device in words, for titles: `AMD EPYC · 2 cores`.
    fn device(&self) -> String;
}

/// This process on this machine.
pub struct Local {
    /// None where the system tells nothing.
    system: Option<System>,
    cards: Cards,
    cpu: String,
}

impl Local {
    /// Looks at the machine once: the CPU's name, and whether there is NVML.
    pub fn new() -> Self {
        let system = System::new_with_specifics(RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing())).ok();
        let first = system.as_ref().and_then(|s| s.cpus().first());
        let brand = first.map(|c| c.brand().to_string()).unwrap_or_default();
        Self { system, cards: Cards::open(), cpu: cpu_name(&brand) }
    }
}

impl Default for Local {
    fn default() -> Self {
        Self::new()
    }
}

impl Telemetry for Local {
    fn read(&mut self) -> Reading {
        let known = |bytes: u64| (bytes > 0).then_some(bytes);
        let (host_total, host_free) = match &mut self.system {
            Some(system) => {
                system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
                (known(system.total_memory()), known(system.available_memory()))
            }
            None => (None, None),
        };
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let group = cgroup::limit(Path::new("/sys/fs/cgroup"), &own);
        let least = |a: Option<u64>, b: Option<u64>| [a, b].into_iter().flatten().min();
        let group_free = group.and_then(|g| Some(g.limit.saturating_sub(g.used?)));
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Reading {
            used: kilobytes(&status, "VmRSS:"),
            peak: kilobytes(&status, "VmHWM:"),
            total: least(group.map(|g| g.limit), host_total),
            available: least(group_free, host_free),
            host_total,
            cards: self.cards.read(),
        }
    }

    fn device(&self) -> String {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let noun = if cores == 1 { "core" } else { "cores" };
        format!("{} · {cores} {noun}", self.cpu)
    }
}

/// A value of `/proc/PID/status`, which is in kB (1024 bytes).
fn kilobytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|n| n * 1024)
}

/// A CPU's brand as people say it: `AMD EPYC 7763`, `Intel Xeon Platinum 8480+`; `CPU` where it has none.
pub fn cpu_name(brand: &str) -> String {
    let plain = brand.replace("(R)", "").replace("(TM)", "").replace("(r)", "").replace("(tm)", "");
    let plain = plain.split(" @ ").next().unwrap_or("").split(" with ").next().unwrap_or("");
    let words = plain.split_whitespace().filter(|w| !matches!(*w, "CPU" | "Processor") && !w.ends_with("-Core"));
    let name = words.collect::<Vec<_>>().join(" ");
    if name.is_empty() { "CPU".into() } else { name }
}

/// Readings made up beforehand, for tests: each in turn, the last for ever.
#[derive(Debug, Clone, Default)]
pub struct Fake {
    pub readings: Vec<Reading>,
    pub device: String,
    next: usize,
}

impl Fake {
    pub fn new(device: &str, readings: Vec<Reading>) -> Self {
        Self { readings, device: device.into(), next: 0 }
    }
}

impl Telemetry for Fake {
    fn read(&mut self) -> Reading {
        let at = self.next.min(self.readings.len().saturating_sub(1));
        self.next += 1;
        self.readings.get(at).cloned().unwrap_or_default()
    }

    fn device(&self) -> String {
        self.device.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_cpus_are_as_people_say_them() {
        for (brand, name) in [
            ("AMD EPYC", "AMD EPYC"),
            ("AMD EPYC 7763 64-Core Processor", "AMD EPYC 7763"),
            ("Intel(R) Xeon(R) Platinum 8480+", "Intel Xeon Platinum 8480+"),
            ("Intel(R) Xeon(R) CPU @ 2.20GHz", "Intel Xeon"),
            ("AMD Ryzen 7 7840U with Radeon 780M Graphics", "AMD Ryzen 7 7840U"),
            ("Apple M2", "Apple M2"),
            ("", "CPU"),
        ] {
            assert_eq!(cpu_name(brand), name);
        }
    }

    #[test]
    fn status_lines_are_read_and_missing_ones_are_unknown() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(kilobytes(status, "VmRSS:"), Some(1 << 20));
        assert_eq!(kilobytes(status, "VmHWM:"), Some(2 << 20));
        assert_eq!(kilobytes(status, "VmSwap:"), None);
        assert_eq!(kilobytes("VmRSS: many kB", "VmRSS:"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_is_seen_to_grow_by_what_it_holds() {
        let mut local = Local::new();
        let before = local.read();
        let block = vec![1u8; 64 << 20];
        let after = local.read();
        assert!(block.iter().step_by(4096).all(|b| *b == 1));
        let grown = after.used.unwrap() as i64 - before.used.unwrap() as i64;
        assert!(grown > 48 << 20, "{grown}");
        assert!(after.peak >= after.used && after.total >= after.used && after.available <= after.total);
        assert!(local.device().contains(" · ") && local.device().contains("core"));
    }

    #[test]
    fn a_fake_says_its_readings_in_turn_and_keeps_the_last() {
        let of = |used| Reading { used: Some(used), ..Reading::default() };
        let mut fake = Fake::new("test", vec![of(1), of(2)]);
        assert_eq!([fake.read().used, fake.read().used, fake.read().used], [Some(1), Some(2), Some(2)]);
        assert_eq!(Fake::default().read(), Reading::default());
    }
}
