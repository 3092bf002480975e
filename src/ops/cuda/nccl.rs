//! Sums over the cards of several processes, in stream order, by NVIDIA's NCCL.
//!
//! The library is opened when it is first needed, by its own name (`libnccl.so.2`): PyTorch's packages and
//! distributions carry no other. Names and numbers below are those of `nccl.h`.

use super::device::Gpu;
use crate::{Error, Result};
use libloading::Library;
use std::ffi::{CStr, c_char, c_int, c_void};

const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];
const FLOAT32: c_int = 7;
const FLOAT64: c_int = 8;
const SUM: c_int = 0;
const ID_BYTES: usize = 128;

/// What rank 0 hands to the others so that they find each other.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct UniqueId([u8; ID_BYTES]);

type GetUniqueId = unsafe extern "C" fn(*mut UniqueId) -> c_int;
type CommInitRank = unsafe extern "C" fn(*mut *mut c_void, c_int, UniqueId, c_int) -> c_int;
type AllReduce =
    unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, *mut c_void, *mut c_void) -> c_int;
type CommDestroy = unsafe extern "C" fn(*mut c_void) -> c_int;
type GetErrorString = unsafe extern "C" fn(c_int) -> *const c_char;

/// The library's calls. They point into `_library`, which stays open as long.
pub struct Nccl {
    get_unique_id: GetUniqueId,
    comm_init_rank: CommInitRank,
    all_reduce: AllReduce,
    comm_destroy: CommDestroy,
    get_error_string: GetErrorString,
    _library: Library,
}

impl Nccl {
    /// # Errors
    /// The library is not there.
    pub fn open() -> Result<Self> {
        let missing = |e: libloading::Error| Error::new(format!("NCCL ({}) cannot be opened: {e}", NAMES[0]));
        // SAFETY: opening NCCL runs its initialisers, which ask nothing of the program.
        let library = unsafe { Library::new(NAMES[0]).or_else(|_| Library::new(NAMES[1])) }.map_err(missing)?;
        // SAFETY: the names have these types in every NCCL 2.
        unsafe {
            Ok(Self {
                get_unique_id: *library.get::<GetUniqueId>(b"ncclGetUniqueId\0").map_err(missing)?,
                comm_init_rank: *library.get::<CommInitRank>(b"ncclCommInitRank\0").map_err(missing)?,
                all_reduce: *library.get::<AllReduce>(b"ncclAllReduce\0").map_err(missing)?,
                comm_destroy: *library.get::<CommDestroy>(b"ncclCommDestroy\0").map_err(missing)?,
                get_error_string: *library.get::<GetErrorString>(b"ncclGetErrorString\0").map_err(missing)?,
                _library: library,
            })
        }
    }

    /// A fresh id: rank 0 makes it.
    pub fn unique_id(&self) -> Result<Vec<u8>> {
        let mut id = UniqueId([0; ID_BYTES]);
        // SAFETY: `id` is as large as NCCL takes it to be.
        let status = unsafe { (self.get_unique_id)(&raw mut id) };
        self.check("making an id", status)?;
        Ok(id.0.to_vec())
    }

    fn check(&self, what: &str, status: c_int) -> Result<()> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: NCCL returns a static string for any number.
        let why = unsafe { CStr::from_ptr((self.get_error_string)(status)) }.to_string_lossy();
        Err(Error::new(format!("NCCL: {what}: {why}")).next("NCCL_DEBUG=INFO makes it say more"))
    }
}

/// This process's card among those of the others.
pub struct Communicator {
    nccl: Nccl,
    comm: *mut c_void,
    gpu: Gpu,
}

// SAFETY: used by whoever owns it, one thread at a time.
unsafe impl Send for Communicator {}

impl Communicator {
    /// Meets the others, who all pass the id that rank 0 made.
    pub fn new(nccl: Nccl, gpu: &Gpu, id: &[u8], rank: usize, size: usize) -> Result<Self> {
        gpu.bind()?;
        let id = id.try_into().map(UniqueId).map_err(|_| Error::new("NCCL: an id of another length"))?;
        let mut comm = std::ptr::null_mut();
        // SAFETY: the context is bound, `comm` is written once.
        let status = unsafe { (nccl.comm_init_rank)(&raw mut comm, size as c_int, id, rank as c_int) };
        nccl.check("connecting the cards", status)?;
        Ok(Self { nccl, comm, gpu: gpu.clone() })
    }

    /// `count` f32 numbers on the card become their sums over all ranks.
    ///
    /// # Safety
    /// They are there.
    pub unsafe fn sum_f32(&self, at: u64, count: usize) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.sum(at, count, FLOAT32) }
    }

    /// As [`Communicator::sum_f32`], f64.
    ///
    /// # Safety
    /// As there.
    pub unsafe fn sum_f64(&self, at: u64, count: usize) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.sum(at, count, FLOAT64) }
    }

    unsafe fn sum(&self, at: u64, count: usize, kind: c_int) -> Result<()> {
        self.gpu.bind()?;
        let stream = self.gpu.stream().cast();
        // SAFETY: in place, in the card's stream; the caller vouches for the range.
        let status = unsafe {
            (self.nccl.all_reduce)(at as *const c_void, at as *mut c_void, count, kind, SUM, self.comm, stream)
        };
        self.nccl.check("adding up over the cards", status)
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        let _ = self.gpu.wait();
        // SAFETY: it is this object's own, and nothing of it is under way.
        unsafe { (self.nccl.comm_destroy)(self.comm) };
    }
}
