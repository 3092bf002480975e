//! The thin binary: everything is in the library.

use std::ffi::{c_int, c_long};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

unsafe extern "C" {
    /// mimalloc's own; declared here since its crate exports it only together with its whole extended interface.
    fn mi_option_set(option: c_int, value: c_long);
}

/// `mi_option_purge_delay` in mimalloc 2 and 3.
const PURGE_DELAY: c_int = 15;

fn main() -> std::process::ExitCode {
    // A training step frees and takes the same hundreds of megabytes again. Giving them back to the system in between
    // costs a page fault for every 4 KiB: a tenth of a step on the CPU (docs/performance.md).
    // SAFETY: an option that exists, set before any thread starts.
    unsafe { mi_option_set(PURGE_DELAY, -1) };
    finetop::cli::main()
}
