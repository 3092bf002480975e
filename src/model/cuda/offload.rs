//! Blocks' inputs on their way to the host and back, beside the work.
//!
//! On the card there are [`crate::memory::card::RING`] of them. A second stream copies each to page-locked memory once it is
//! written, and back before its block's turn; events keep the two streams in order, and the host waits for neither.

use super::workspace::Workspace;
use crate::Result;
use crate::memory::card::RING;
use crate::ops::cuda::device::{Gpu, driver};
use cudarc::driver::{result, sys};
use std::ffi::c_void;

/// Page-locked memory.
pub(super) struct Pinned {
    gpu: Gpu,
    at: *mut c_void,
    bytes: usize,
}

// SAFETY: the memory belongs to this object alone.
unsafe impl Send for Pinned {}

impl Pinned {
    pub fn new(gpu: &Gpu, bytes: usize) -> Result<Self> {
        gpu.bind()?;
        // SAFETY: a fresh allocation, freed on drop.
        let at = unsafe { result::malloc_host(bytes.max(64), 0) }.map_err(driver("locking host memory"))?;
        Ok(Self { gpu: gpu.clone(), at, bytes })
    }

    /// Room for `n` values of T.
    pub fn as_mut<T: Copy>(&mut self, n: usize) -> &mut [T] {
        let n = n.min(self.bytes / size_of::<T>());
        // SAFETY: page-aligned, large enough, exclusively borrowed; T is plain data.
        unsafe { std::slice::from_raw_parts_mut(self.at.cast(), n) }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn at(&self) -> *mut c_void {
        self.at
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: this object owned it; work that uses it has been waited for by whoever drops it.
        unsafe {
            let _ = self.gpu.bind();
            let _ = result::free_host(self.at);
        }
    }
}

/// A mark in a stream.
pub(super) struct Event(sys::CUevent);

// SAFETY: events may be used on any thread whose context is current.
unsafe impl Send for Event {}

impl Event {
    pub fn new() -> Result<Self> {
        let flags = sys::CUevent_flags_enum::CU_EVENT_DISABLE_TIMING;
        Ok(Self(result::event::create(flags).map_err(driver("making an event"))?))
    }

    pub fn record(&self, stream: sys::CUstream) -> Result<()> {
        // SAFETY: both live.
        unsafe { result::event::record(self.0, stream) }.map_err(driver("marking a stream"))
    }

    pub fn hold(&self, stream: sys::CUstream) -> Result<()> {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: both live.
        unsafe { result::stream::wait_event(stream, self.0, flags) }.map_err(driver("ordering streams"))
    }

    /// Wait on the host.
    pub fn wait(&self) -> Result<()> {
        // SAFETY: it lives.
        unsafe { result::event::synchronize(self.0) }.map_err(driver("waiting for a copy"))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: this object made it.
        let _ = unsafe { result::event::destroy(self.0) };
    }
}

pub(super) struct Offload {
    gpu: Gpu,
    host: Vec<Pinned>,
    /// Work up to a block's input, or through with it.
    written: Vec<Event>,
    /// The copy of a block's input, either way.
    copied: Vec<Event>,
}

impl Offload {
    /// Room on the host for every block's input of `bytes`.
    pub fn new(gpu: &Gpu, layers: usize, bytes: usize) -> Result<Self> {
        let host = (0..layers).map(|_| Pinned::new(gpu, bytes)).collect::<Result<_>>()?;
        let events = || (0..=layers).map(|_| Event::new()).collect::<Result<Vec<_>>>();
        Ok(Self { gpu: gpu.clone(), host, written: events()?, copied: events()? })
    }

    /// Block `layer`'s input, at `from`, has been written: send it to the host.
    pub fn leaves(&self, layer: usize, from: u64, bytes: usize) -> Result<()> {
        self.written[layer].record(self.gpu.stream())?;
        self.written[layer].hold(self.gpu.copies())?;
        // SAFETY: the host's place is as large as a full input; the event orders the copy after the writing.
        unsafe {
            sys::cuMemcpyDtoHAsync_v2(
                self.host[layer].at(),
                from,
                bytes.min(self.host[layer].bytes()),
                self.gpu.copies(),
            )
            .result()
            .map_err(driver("copying to the host"))?;
        }
        self.copied[layer].record(self.gpu.copies())
    }

    /// The place of block `layer`'s input is about to be written: what was there must have left.
    pub fn room_for(&self, layer: usize) -> Result<()> {
        match layer.checked_sub(RING) {
            Some(old) => self.copied[old].hold(self.gpu.stream()),
            None => Ok(()),
        }
    }

    /// The way forward is over and the head is done with the last block's output, which stood where the input of block
    /// `layers - RING` stands.
    pub fn turn_round(&self, layers: usize, space: &Workspace, bytes: usize) -> Result<()> {
        self.written[layers].record(self.gpu.stream())?;
        self.fetch(layers, space, bytes)
    }

    /// Bring the input that stands where `after`'s stood, whose use has been marked.
    fn fetch(&self, after: usize, space: &Workspace, bytes: usize) -> Result<()> {
        let Some(layer) = after.checked_sub(RING) else { return Ok(()) };
        self.written[after].hold(self.gpu.copies())?;
        // SAFETY: as in `leaves`; the event orders the copy after the last use of what stood there.
        unsafe {
            sys::cuMemcpyHtoDAsync_v2(space.input(layer).at, self.host[layer].at(), bytes, self.gpu.copies())
                .result()
                .map_err(driver("copying from the host"))?;
        }
        self.copied[layer].record(self.gpu.copies())
    }

    /// Block `layer`'s way back is about to begin: its input must be there.
    pub fn returns(&self, layer: usize, layers: usize) -> Result<()> {
        // The last ones never left the card.
        if layer + RING > layers {
            return Ok(());
        }
        self.copied[layer].hold(self.gpu.stream())
    }

    /// Block `layer` is done with its input.
    pub fn done(&self, layer: usize, space: &Workspace, bytes: usize) -> Result<()> {
        self.written[layer].record(self.gpu.stream())?;
        self.fetch(layer, space, bytes)
    }
}
