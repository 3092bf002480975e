//! One card: its context, its one stream, its kernels, and a ledger of every byte that is allocated on it.
//!
//! CUDA's libraries are opened when a card is asked for, never linked: the same program starts on a machine without
//! them and says what is missing. All work goes to one stream, in order; nothing here waits for it unless it says so.
//!
//! Must not know what the kernels compute.

use super::profile::{self, Profile, Scope};
use crate::{Error, Result};
use cudarc::driver::{result, sys};
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, MutexGuard};

// `IMAGES`: the kernels, one fat binary a source file (see build.rs).
include!(concat!(env!("OUT_DIR"), "/images.rs"));

/// The oldest cards that the kernels run on: compute capability 8.0 (Ampere).
const OLDEST: (i32, i32) = (8, 0);
/// The oldest driver that has all calls that are made: CUDA 12.8.
const OLDEST_DRIVER: i32 = 12_080;

/// Bytes by component, now and at their highest.
#[derive(Debug, Default, Clone)]
pub struct Ledger {
    now: BTreeMap<&'static str, u64>,
    total: u64,
    /// The largest total so far, and what it consisted of.
    pub peak: u64,
    pub at_peak: BTreeMap<&'static str, u64>,
}

impl Ledger {
    fn add(&mut self, component: &'static str, bytes: u64) {
        *self.now.entry(component).or_default() += bytes;
        self.total += bytes;
        if self.total > self.peak {
            self.peak = self.total;
            self.at_peak = self.now.clone();
        }
    }

    fn remove(&mut self, component: &'static str, bytes: u64) {
        if let Some(held) = self.now.get_mut(component) {
            *held = held.saturating_sub(bytes);
        }
        self.total = self.total.saturating_sub(bytes);
    }

    /// Bytes held now, by component.
    pub fn now(&self) -> Vec<(&'static str, u64)> {
        self.now.iter().map(|(name, bytes)| (*name, *bytes)).collect()
    }

    /// Bytes held now.
    pub fn total(&self) -> u64 {
        self.total
    }
}

/// A loaded kernel, and what its time counts to.
#[derive(Debug, Clone, Copy)]
pub struct Kernel(sys::CUfunction, &'static str, &'static str);

/// A card in use. Cheap to clone; everything on it belongs to one stream.
#[derive(Clone)]
pub struct Gpu(Arc<Inner>);

struct Inner {
    context: sys::CUcontext,
    device: sys::CUdevice,
    stream: sys::CUstream,
    copies: sys::CUstream,
    kernels: HashMap<String, Kernel>,
    ledger: Mutex<Ledger>,
    profile: Profile,
    name: String,
    uuid: String,
    total: u64,
    multiprocessors: i32,
    hopper: bool,
}

// SAFETY: the handles are the driver's own, which are valid on any thread where the context is current; `bind` makes it
// so, and the ledger is behind a lock.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpu").field("name", &self.0.name).finish()
    }
}

/// The driver's word for what went wrong, at what we were doing.
pub(crate) fn driver(doing: &str) -> impl Fn(result::DriverError) -> Error + '_ {
    move |e| {
        if e.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            return Error::new(format!("the card is out of memory ({doing})")).kind(crate::Kind::OutOfMemory).next(
                "lower train.per_device_train_batch_size or model.max_seq_length, or set model.load_in_4bit = true",
            );
        }
        let name = e.error_string().ok().and_then(|s| s.to_str().ok()).unwrap_or("unknown error").to_string();
        Error::new(format!("CUDA: {name} ({doing})"))
    }
}

/// Why no card can be used, or how many there are.
pub fn cards() -> Result<i32> {
    let missing = |what: &str, then: &str| Err(Error::new(format!("{what} is missing")).next(then));
    // SAFETY: these only try to open the libraries.
    unsafe {
        if !sys::is_culib_present() {
            return missing(
                "the NVIDIA driver (libcuda.so.1)",
                "install it, or train on the CPU: model.device = \"cpu\"",
            );
        }
        if !cudarc::cublaslt::sys::is_culib_present() {
            return missing(
                "cuBLAS (libcublasLt.so)",
                "install CUDA's runtime libraries and put their folder into LD_LIBRARY_PATH, or train on the CPU",
            );
        }
    }
    result::init().map_err(driver("starting the driver"))?;
    let mut version = 0;
    // SAFETY: the driver writes one number.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().map_err(driver("asking for the driver's version"))?;
    if version < OLDEST_DRIVER {
        let (major, minor) = (version / 1000, version % 1000 / 10);
        return Err(Error::new(format!(
            "the NVIDIA driver is for CUDA {major}.{minor}; 12.8 (driver 570) or newer is needed"
        ))
        .next("update the driver, or train on the CPU: model.device = \"cpu\""));
    }
    match result::device::get_count().map_err(driver("counting cards"))? {
        0 => missing("an NVIDIA card", "train on the CPU: model.device = \"cpu\""),
        n => Ok(n),
    }
}

impl Gpu {
    /// Open card `ordinal` in CUDA's order (what `CUDA_VISIBLE_DEVICES` leaves).
    ///
    /// # Errors
    /// Names what is missing: the driver, cuBLAS, the card, or a card that is new enough.
    pub fn open(ordinal: usize) -> Result<Self> {
        let count = cards()?;
        let device = match i32::try_from(ordinal) {
            Ok(n) if n < count => result::device::get(n).map_err(driver("opening the card"))?,
            _ => return Err(Error::usage(format!("there is no cuda:{ordinal}")).next(format!("cards: {count}"))),
        };
        let name = result::device::get_name(device).map_err(driver("reading the card's name"))?;
        use sys::CUdevice_attribute_enum as A;
        // SAFETY: `device` came from the driver.
        let attribute = |a| unsafe { result::device::get_attribute(device, a) }.map_err(driver("reading the card"));
        let major = attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        if (major, minor) < OLDEST {
            return Err(Error::new(format!(
                "{name} has compute capability {major}.{minor}; 8.0 (Ampere) or newer is needed"
            ))
            .next("train on the CPU: model.device = \"cpu\""));
        }
        let multiprocessors = attribute(A::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        // SAFETY: `device` came from the driver; the context is kept for as long as this object lives.
        unsafe {
            let total = result::device::total_mem(device).map_err(driver("reading the card's memory"))? as u64;
            let context = result::primary_ctx::retain(device).map_err(driver("making a context"))?;
            result::ctx::set_current(context).map_err(driver("making a context"))?;
            let stream =
                |_| result::stream::create(result::stream::StreamKind::NonBlocking).map_err(driver("making a stream"));
            let (stream, copies) = (stream(0)?, stream(1)?);
            // Memory given back stays with the process: a step that allocates pays no system call.
            let pool = result::device::get_default_mem_pool(device).map_err(driver("the memory pool"))?;
            let mut keep = u64::MAX;
            result::mem_pool::set_attribute(
                pool,
                sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
                (&raw mut keep).cast(),
            )
            .map_err(driver("the memory pool"))?;
            let uuid = uuid(&result::device::get_uuid(device).map_err(driver("the card's UUID"))?);
            let kernels = kernels()?;
            Ok(Self(Arc::new(Inner {
                context,
                device,
                stream,
                copies,
                kernels,
                ledger: Mutex::default(),
                profile: Profile::default(),
                name,
                uuid,
                total,
                multiprocessors,
                hopper: (major, minor) == (9, 0),
            })))
        }
    }

    /// `NVIDIA H100 80GB HBM3`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// As NVML spells it: `GPU-…`.
    pub fn uuid(&self) -> &str {
        &self.0.uuid
    }

    pub fn total_memory(&self) -> u64 {
        self.0.total
    }

    pub fn multiprocessors(&self) -> usize {
        self.0.multiprocessors as usize
    }

    /// Whether the kernels of compute capability 9.0 are the ones to run.
    pub fn is_hopper(&self) -> bool {
        self.0.hopper
    }

    /// Bytes that are really free on the card now, after all work so far.
    pub fn free_memory(&self) -> Result<u64> {
        self.wait()?;
        // What was given back is kept by the pool, and would not be seen as free.
        // SAFETY: the pool is the device's own.
        unsafe {
            let pool = result::device::get_default_mem_pool(self.0.device).map_err(driver("the memory pool"))?;
            result::mem_pool::trim_to(pool, 0).map_err(driver("the memory pool"))?;
        }
        let (free, _) = result::mem_get_info().map_err(driver("reading free memory"))?;
        Ok(free as u64)
    }

    /// The stream that everything runs on.
    pub fn stream(&self) -> sys::CUstream {
        self.0.stream
    }

    /// The stream of copies to and from the host that run beside the work.
    pub fn copies(&self) -> sys::CUstream {
        self.0.copies
    }

    /// Make this card the calling thread's.
    pub fn bind(&self) -> Result<()> {
        // SAFETY: the context lives as long as `self`.
        unsafe { result::ctx::set_current(self.0.context) }.map_err(driver("choosing the card"))
    }

    /// Wait for all work so far.
    pub fn wait(&self) -> Result<()> {
        self.bind()?;
        // SAFETY: the stream lives as long as `self`.
        unsafe { result::stream::synchronize(self.0.stream) }.map_err(driver("running kernels"))
    }

    /// Copy from an address on the card, after all work so far.
    pub fn download<T: Copy>(&self, from: u64, into: &mut [T]) -> Result<()> {
        self.bind()?;
        // SAFETY: who calls vouches for the address; the stream is waited for before `into` is read.
        unsafe { result::memcpy_dtoh_async(into, from, self.0.stream) }.map_err(driver("copying from the card"))?;
        self.wait()
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.ledger.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Forget the peak so far.
    pub fn reset_peak(&self) {
        let mut l = self.ledger();
        l.peak = l.total;
        l.at_peak = l.now.clone();
    }

    /// Zeroed memory on the card, counted under `component`.
    pub fn zeros(&self, component: &'static str, bytes: usize) -> Result<Buffer> {
        self.bind()?;
        let size = bytes.max(256).next_multiple_of(256);
        // SAFETY: a fresh allocation of this stream's, as large as what is cleared.
        let at = unsafe {
            let at = result::malloc_async(self.0.stream, size).map_err(driver("allocating"))?;
            result::memset_d8_async(at, 0, size, self.0.stream).map_err(driver("clearing memory"))?;
            at
        };
        self.ledger().add(component, size as u64);
        Ok(Buffer { gpu: self.clone(), at, size, component })
    }

    /// Copy on the card, in stream order.
    pub fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        // SAFETY: who calls vouches for both ranges.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.0.stream) }.map_err(driver("copying on the card"))
    }

    /// Record what `work` puts into the stream, without running it. It must wait for nothing and allocate nothing.
    pub fn record(&self, work: impl FnOnce() -> Result<()>) -> Result<Graph> {
        let wrap = driver("recording a graph");
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives as long as `self`; the graph is destroyed once its executable form is made.
        unsafe {
            result::stream::begin_capture(self.0.stream, mode).map_err(&wrap)?;
            let done = work();
            let graph = result::stream::end_capture(self.0.stream).map_err(&wrap);
            done?;
            let graph = graph?;
            let mut exec = std::ptr::null_mut();
            let made = sys::cuGraphInstantiateWithFlags(&raw mut exec, graph, 0).result();
            let _ = result::graph::destroy(graph);
            made.map_err(&wrap)?;
            Ok(Graph { gpu: self.clone(), exec })
        }
    }

    /// The kernel of this name.
    pub fn kernel(&self, name: &str) -> Result<Kernel> {
        self.0.kernels.get(name).copied().ok_or_else(|| Error::new(format!("there is no kernel {name}")))
    }

    /// Launch a kernel.
    ///
    /// # Safety
    /// `arguments` point to values of the kernel's parameter types in order, and what they point to on the card is as
    /// large as the kernel takes it to be and outlives the work.
    pub unsafe fn launch(
        &self,
        kernel: Kernel,
        grid: (usize, usize, usize),
        threads: usize,
        shared: usize,
        arguments: &mut [*mut c_void],
    ) -> Result<()> {
        if grid.0 == 0 || grid.1 == 0 || grid.2 == 0 {
            return Ok(());
        }
        let grid = (grid.0 as u32, grid.1 as u32, grid.2 as u32);
        self.timed(
            kernel.1,
            || kernel.2.to_string(),
            || {
                // SAFETY: promised by the caller.
                unsafe {
                    result::launch_kernel(
                        kernel.0,
                        grid,
                        (threads as u32, 1, 1),
                        shared as u32,
                        self.0.stream,
                        arguments,
                    )
                }
                .map_err(driver("launching a kernel"))
            },
        )
    }

    /// Run what puts work into the stream; its time counts to `part` while times are taken.
    pub(super) fn timed<T>(
        &self,
        part: &'static str,
        name: impl FnOnce() -> String,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        self.0.profile.around((part, name), self.0.stream, work)
    }

    /// What is launched until this is dropped counts to `part`.
    pub fn scope(&self, part: &'static str) -> Scope<'_> {
        self.0.profile.scope(part)
    }

    /// Take times from now on.
    pub fn start_profile(&self) {
        self.0.profile.start();
    }

    /// Milliseconds by part and by what was launched since then.
    pub fn stop_profile(&self) -> Result<profile::Times> {
        self.wait()?;
        self.0.profile.stop()
    }

    /// Allow a kernel more shared memory than the default 48 KiB.
    pub fn allow_shared(&self, kernel: Kernel, bytes: usize) -> Result<()> {
        let what = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function lives as long as its module, which is never unloaded.
        unsafe { result::function::set_function_attribute(kernel.0, what, bytes as i32) }
            .map_err(driver("raising a kernel's shared memory"))
    }

    /// NVML and the driver count devices on their own; this is the driver's handle.
    pub fn device(&self) -> i32 {
        self.0.device
    }
}

/// Memory on a card; given back when dropped, after the work that is in the stream by then.
#[derive(Debug)]
pub struct Buffer {
    gpu: Gpu,
    at: u64,
    size: usize,
    component: &'static str,
}

impl Buffer {
    /// Its address on the card.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    fn check(&self, offset: usize, bytes: usize) -> Result<()> {
        if offset.checked_add(bytes).is_none_or(|end| end > self.size) {
            return Err(Error::new(format!("{bytes} bytes at {offset} are not in a buffer of {}", self.size)));
        }
        Ok(())
    }

    /// Copy from the host to `offset`; returns once the host's memory may change again.
    pub fn upload<T: Copy>(&self, offset: usize, from: &[T]) -> Result<()> {
        self.check(offset, size_of_val(from))?;
        self.gpu.bind()?;
        // SAFETY: the range was checked. Pageable memory has been staged when the call returns.
        unsafe { result::memcpy_htod_async(self.at + offset as u64, from, self.gpu.0.stream) }
            .map_err(driver("copying to the card"))
    }

    /// Copy `rows` rows of `width` bytes from the host, contiguous there, to rows `pitch` bytes apart.
    pub fn upload_rows<T: Copy>(
        &self,
        offset: usize,
        from: &[T],
        rows: usize,
        width: usize,
        pitch: usize,
    ) -> Result<()> {
        if rows == 0 {
            return Ok(());
        }
        if size_of_val(from) != rows * width {
            return Err(Error::new(format!("{} bytes are not {rows} rows of {width}", size_of_val(from))));
        }
        self.check(offset, (rows - 1) * pitch + width)?;
        self.gpu.bind()?;
        let copy = sys::CUDA_MEMCPY2D {
            srcXInBytes: 0,
            srcY: 0,
            srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_HOST,
            srcHost: from.as_ptr().cast(),
            srcDevice: 0,
            srcArray: std::ptr::null_mut(),
            srcPitch: width,
            dstXInBytes: 0,
            dstY: 0,
            dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
            dstHost: std::ptr::null_mut(),
            dstDevice: self.at + offset as u64,
            dstArray: std::ptr::null_mut(),
            dstPitch: pitch,
            WidthInBytes: width,
            Height: rows,
        };
        // SAFETY: both ranges were checked; the copy is waited for, so that `from` may go.
        unsafe { sys::cuMemcpy2DAsync_v2(&raw const copy, self.gpu.0.stream).result() }
            .map_err(driver("copying to the card"))?;
        self.gpu.wait()
    }

    /// Copy `into.len()` numbers from `offset`, after all work so far.
    pub fn download<T: Copy>(&self, offset: usize, into: &mut [T]) -> Result<()> {
        self.check(offset, size_of_val(into))?;
        self.gpu.bind()?;
        // SAFETY: the range was checked; the stream is waited for before `into` is read.
        unsafe { result::memcpy_dtoh_async(into, self.at + offset as u64, self.gpu.0.stream) }
            .map_err(driver("copying from the card"))?;
        self.gpu.wait()
    }

    /// Set `bytes` at `offset` to 0.
    pub fn clear(&self, offset: usize, bytes: usize) -> Result<()> {
        self.check(offset, bytes)?;
        // SAFETY: the range was checked.
        unsafe { result::memset_d8_async(self.at + offset as u64, 0, bytes, self.gpu.0.stream) }
            .map_err(driver("clearing memory"))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.gpu.ledger().remove(self.component, self.size as u64);
        // SAFETY: this object owned it. An error here has nobody to go to: the context is gone then, and the memory with it.
        unsafe {
            let _ = self.gpu.bind();
            let _ = result::free_async(self.at, self.gpu.0.stream);
        }
    }
}

/// Work that was recorded once and is launched as one.
pub struct Graph {
    gpu: Gpu,
    exec: sys::CUgraphExec,
}

impl Graph {
    pub fn launch(&self) -> Result<()> {
        // SAFETY: both live as long as `self`.
        unsafe { result::graph::launch(self.exec, self.gpu.0.stream) }.map_err(driver("launching a graph"))
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: this object made it; the driver keeps what still runs.
        let _ = unsafe { result::graph::exec_destroy(self.exec) };
    }
}

/// Load every kernel of the images by its name.
fn kernels() -> Result<HashMap<String, Kernel>> {
    let mut all = HashMap::new();
    for image in IMAGES {
        // SAFETY: the image is a fat binary, whole and unchanged.
        let module = unsafe { result::module::load_data(image.as_ptr().cast()) }.map_err(driver("loading kernels"))?;
        for name in names(module)? {
            let c = CString::new(name.clone()).map_err(|_| Error::new("a kernel's name has a zero in it"))?;
            // SAFETY: the module is loaded and never unloaded.
            let f = unsafe { result::module::get_function(module, c) }.map_err(driver("loading kernels"))?;
            let part = profile::part_of(&name);
            // Kernels are never unloaded, nor are their names.
            all.insert(name.clone(), Kernel(f, part, name.leak()));
        }
    }
    Ok(all)
}

/// The names of a module's kernels.
fn names(module: sys::CUmodule) -> Result<Vec<String>> {
    let mut count = 0u32;
    // SAFETY: the driver fills `count`, then as many handles, then hands out names that live as long as the module.
    unsafe {
        sys::cuModuleGetFunctionCount(&raw mut count, module).result().map_err(driver("loading kernels"))?;
        // An image of Hopper's kernels has none for another card.
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut functions = vec![std::ptr::null_mut(); count as usize];
        sys::cuModuleEnumerateFunctions(functions.as_mut_ptr(), count, module)
            .result()
            .map_err(driver("loading kernels"))?;
        functions
            .into_iter()
            .map(|f| {
                let mut name = std::ptr::null();
                sys::cuFuncGetName(&raw mut name, f).result().map_err(driver("loading kernels"))?;
                Ok(std::ffi::CStr::from_ptr(name).to_string_lossy().into_owned())
            })
            .collect()
    }
}

fn uuid(id: &sys::CUuuid) -> String {
    let hex: String = id.bytes.iter().map(|b| format!("{:02x}", *b as u8)).collect();
    format!("GPU-{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
