//! What the machine says of the open run: its trainer's memory and processor time, or the card's.
//!
//! The readings of this machine come from [`crate::memory`]; those of another process from `/proc`.
//! Unknown stays unknown, as everywhere.

use std::path::Path;
use std::time::Instant;

use crate::console::model::Reading;
use crate::memory::{Card, Local, Telemetry as _};
use crate::run::host::WorkerInfo;

/// `/proc/PID/stat` counts processor time in these, whatever the kernel's own clock (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Default)]
pub struct Telemetry {
    local: Local,
    /// The trainer's processor time when it was last looked at: pid, when, ticks.
    before: Option<(u32, Instant, u64)>,
}

impl Telemetry {
    /// Of the run in `dir`; `card`: it trains on one, of this UUID where that is known. A trainer that ended, or is on
    /// another host, leaves its own values unknown; so does a card that is not to be seen here.
    pub fn read(&mut self, dir: &Path, live: bool, card: Option<Option<&str>>) -> Reading {
        let machine = self.local.read();
        let worker = WorkerInfo::read(dir).filter(|w| live && w.process_lives());
        let mut reading = Reading {
            source: "host".into(),
            used: worker.as_ref().and_then(|w| resident(w.pid)),
            total: machine.total,
            host_used: machine.total.zip(machine.available).map(|(total, free)| total.saturating_sub(free)),
            host_total: machine.total,
            cpu_percent: worker.as_ref().and_then(|w| self.processor_share(w.pid)),
            ..Reading::default()
        };
        if let Some(uuid) = card {
            (reading.used, reading.total, reading.source) = (None, None, "as the run said".into());
            let same = |c: &&Card| uuid.is_none_or(|u| c.uuid.as_deref() == Some(u));
            if let Some(card) = machine.cards.iter().find(same).filter(|_| live) {
                put_card(&mut reading, card);
            }
        }
        reading
    }

    /// Percent of all cores since the last call, 0 to 100; `None` the first time.
    fn processor_share(&mut self, pid: u32) -> Option<f64> {
        let (now, ticks) = (Instant::now(), processor_ticks(pid)?);
        let before = self.before.replace((pid, now, ticks));
        let (_, then, had) = before.filter(|(p, ..)| *p == pid)?;
        let seconds = now.duration_since(then).as_secs_f64();
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get()) as f64;
        let share = ticks.checked_sub(had)? as f64 / TICKS_PER_SECOND / seconds / cores;
        (seconds > 0.0).then_some((share * 100.0).min(100.0))
    }
}

fn put_card(reading: &mut Reading, card: &Card) {
    reading.source = "nvml".into();
    reading.gpu_percent = card.utilization.map(f64::from);
    reading.power_watts = card.power;
    reading.temperature_celsius = card.temperature.map(f64::from);
    reading.clock_mhz = card.clock.map(f64::from);
    reading.used = card.memory_used;
    reading.total = card.memory_total;
}

/// A process's resident set, bytes.
fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    // In kB, which are 1024 bytes there.
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|n| n * 1024)
}

/// A process's user and system time, in ticks.
fn processor_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The fields after the name, which is in parentheses and may hold anything; proc(5) counts from 1.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let field = |n: usize| fields.get(n - 3)?.parse::<u64>().ok();
    Some(field(14)? + field(15)?)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use crate::run::folder::RunFolder;
    use crate::run::session::Session;

    #[test]
    fn a_trainer_s_memory_and_share_are_its_own_and_unknown_when_it_is_gone() {
        let out = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(out.path(), "a").unwrap();
        let session = Session::open_quietly(folder.clone()).unwrap();
        let mut telemetry = Telemetry::default();
        let first = telemetry.read(folder.path(), true, None);
        assert!(first.used.is_some_and(|b| b > 1 << 20), "this process is the trainer: {first:?}");
        assert_eq!(first.cpu_percent, None, "a share needs two looks");
        std::thread::sleep(std::time::Duration::from_millis(30));
        let share = telemetry.read(folder.path(), true, None).cpu_percent.unwrap();
        assert!((0.0..=100.0).contains(&share), "{share}");
        drop(session);
        let gone = telemetry.read(folder.path(), false, None);
        assert_eq!((gone.used, gone.cpu_percent), (None, None));
        assert!(gone.total.is_some());
        // A run on a card that is not to be seen here: nothing of the process is taken for the card's.
        let elsewhere = telemetry.read(folder.path(), true, Some(Some("GPU-none")));
        assert_eq!((elsewhere.used, elsewhere.total), (None, None));
    }
}
