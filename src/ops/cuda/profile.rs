//! Where a step's time goes: events around every launch, added up by part. Off unless asked for, since it costs time.

use super::device::driver;
use crate::Result;
use cudarc::driver::{result::event, sys};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Milliseconds by part, and by kernel or product.
pub type Times = BTreeMap<(&'static str, String), f64>;

/// Launches of a part, each between two events.
#[derive(Default)]
struct Record {
    spans: Vec<(&'static str, String, sys::CUevent, sys::CUevent)>,
    /// Parts that launches count to whatever they are: the innermost, where there are any.
    scopes: Vec<&'static str>,
}

#[derive(Default)]
pub(super) struct Profile {
    on: AtomicBool,
    record: Mutex<Record>,
}

// SAFETY: events may be used on any thread whose context is current.
unsafe impl Send for Profile {}
// SAFETY: as above; the record is behind a lock.
unsafe impl Sync for Profile {}

/// Ends a scope when dropped.
pub struct Scope<'a>(Option<&'a Profile>);

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        if let Some(profile) = self.0 {
            profile.lock().scopes.pop();
        }
    }
}

impl Profile {
    fn lock(&self) -> std::sync::MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn start(&self) {
        self.on.store(true, Ordering::Relaxed);
    }

    /// Milliseconds by part and by what was launched since the start; everything must have run.
    pub fn stop(&self) -> Result<Times> {
        self.on.store(false, Ordering::Relaxed);
        let mut all = Times::new();
        for (part, name, start, end) in self.lock().spans.drain(..) {
            // SAFETY: both were recorded, and are this object's to destroy.
            unsafe {
                *all.entry((part, name)).or_insert(0.0) +=
                    f64::from(event::elapsed(start, end).map_err(driver("reading a time"))?);
                let _ = (event::destroy(start), event::destroy(end));
            }
        }
        Ok(all)
    }

    pub fn scope(&self, part: &'static str) -> Scope<'_> {
        if !self.on.load(Ordering::Relaxed) {
            return Scope(None);
        }
        self.lock().scopes.push(part);
        Scope(Some(self))
    }

    /// Run `work`, which puts something into `stream`.
    pub fn around<T>(
        &self,
        (part, name): (&'static str, impl FnOnce() -> String),
        stream: sys::CUstream,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        if !self.on.load(Ordering::Relaxed) {
            return work();
        }
        let wrap = driver("timing");
        let new = || event::create(sys::CUevent_flags_enum::CU_EVENT_DEFAULT).map_err(&wrap);
        let (start, end) = (new()?, new()?);
        // SAFETY: the events were just made, the stream is the card's.
        unsafe { event::record(start, stream) }.map_err(&wrap)?;
        let done = work()?;
        // SAFETY: as above.
        unsafe { event::record(end, stream) }.map_err(&wrap)?;
        let mut record = self.lock();
        let part = record.scopes.last().copied().unwrap_or(part);
        record.spans.push((part, name(), start, end));
        Ok(done)
    }
}

/// What a kernel counts to, by its name.
pub(super) fn part_of(kernel: &str) -> &'static str {
    let starts = |with: &[&str]| with.iter().any(|w| kernel.starts_with(w));
    match () {
        () if starts(&["attention"]) => "attention",
        () if starts(&["cross_entropy", "add_up"]) => "loss",
        () if starts(&["adamw", "l2", "spread"]) => "optimizer",
        () if starts(&["nf4", "gguf", "dequantize"]) => "dequantize",
        () => "elementwise",
    }
}
