//! Matrix products on the card through cuBLASLt: bf16 in, f32 inside, bf16 or f32 out.
//!
//! Everything is row-major here; cuBLASLt, which is column-major, is handed the transposed problem. What a shape was
//! found to run fastest with is kept, so that a product costs one call from the second time on.

use super::device::{Buffer, Gpu, driver};
use crate::{Error, Result};
use cudarc::cublaslt::{result, sys};
use cudarc::driver::result::event;
use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::c_void;

/// What cuBLAS asks for on Hopper.
const WORKSPACE: usize = 32 << 20;
/// Candidates that a large product is timed with at its first use.
const CANDIDATES: usize = 16;
/// Multiplications from which a product is worth timing.
const LARGE: usize = 1 << 31;

/// A matrix on the card: address, and row stride in elements.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mat {
    pub at: u64,
    pub ld: usize,
}

impl Mat {
    pub fn new(at: u64, ld: usize) -> Self {
        Self { at, ld }
    }

    /// A bf16 matrix from this row and column on.
    pub fn part(self, row: usize, column: usize) -> Self {
        Self { at: self.at + ((row * self.ld + column) * 2) as u64, ld: self.ld }
    }
}

/// The type of what comes out (and of what is added to it).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Out {
    Bf16,
    F32,
}

/// A product `d [m, n] = alpha · op(a) [m, k] · op(b) [k, n] + c`; `ta` says that `a` is stored `[k, m]`, `tb` that `b` is
/// stored `[n, k]`. Without `c` nothing is added; `c` may be `d`.
#[derive(Debug, Clone, Copy)]
pub struct Product {
    pub size: (usize, usize, usize),
    pub a: Mat,
    pub ta: bool,
    pub b: Mat,
    pub tb: bool,
    pub alpha: f32,
    pub c: Option<Mat>,
    pub d: Mat,
    pub out: Out,
    /// The factors are e4m3 with f32 scales at these addresses, one a row of `a` and one a row of `b`; `ta` is false
    /// and `tb` true then.
    pub scales: Option<[u64; 2]>,
}

#[derive(Debug, PartialEq, Eq, Hash, Clone, Copy)]
struct Key {
    size: (usize, usize, usize),
    transposed: (bool, bool),
    strides: [usize; 4],
    alignment: [u32; 4],
    adds: bool,
    out: Out,
    fp8: bool,
}

struct Plan {
    describe: sys::cublasLtMatmulDesc_t,
    layouts: [sys::cublasLtMatrixLayout_t; 4],
    algo: sys::cublasLtMatmulAlgo_t,
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: this object made them and alone has them.
        unsafe {
            let _ = result::destroy_matmul_desc(self.describe);
            for l in self.layouts {
                let _ = result::destroy_matrix_layout(l);
            }
        }
    }
}

/// cuBLASLt on one card.
pub struct Gemm {
    gpu: Gpu,
    handle: sys::cublasLtHandle_t,
    workspace: Buffer,
    plans: RefCell<HashMap<Key, Plan>>,
}

// SAFETY: the handle and the plans are used by whoever owns this object, one thread at a time.
unsafe impl Send for Gemm {}

fn blas(e: result::CublasError) -> Error {
    Error::new(format!("cuBLAS: {e}"))
}

/// Tell a description where the scales of `a` and `b` are.
unsafe fn point(describe: sys::cublasLtMatmulDesc_t, [a, b]: &[u64; 2]) -> Result<()> {
    use sys::cublasLtMatmulDescAttributes_t as D;
    // The problem is handed over transposed: its first factor is `b`.
    for (what, at) in [(D::CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, b), (D::CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, a)] {
        // SAFETY: the attribute is an address, of eight bytes.
        unsafe { result::set_matmul_desc_attribute(describe, what, std::ptr::from_ref(at).cast(), 8) }.map_err(blas)?;
    }
    Ok(())
}

fn alignment(m: Mat, bytes: usize) -> u32 {
    let all = m.at | (m.ld * bytes) as u64;
    1 << all.trailing_zeros().min(8)
}

impl Gemm {
    pub fn new(gpu: &Gpu) -> Result<Self> {
        gpu.bind()?;
        let handle = result::create_handle().map_err(blas)?;
        let workspace = gpu.zeros("cuBLAS", WORKSPACE)?;
        Ok(Self { gpu: gpu.clone(), handle, workspace, plans: RefCell::default() })
    }

    /// Put the product into the stream.
    ///
    /// # Safety
    /// The matrices are as large as the product takes them to be and outlive the work; `d` overlaps neither factor.
    pub unsafe fn run(&self, p: &Product) -> Result<()> {
        let (m, n, k) = p.size;
        if m == 0 || n == 0 {
            return Ok(());
        }
        let c = p.c.unwrap_or(p.d);
        let width = if p.out == Out::F32 { 4 } else { 2 };
        let factor = if p.scales.is_some() { 1 } else { 2 };
        let key = Key {
            size: p.size,
            transposed: (p.ta, p.tb),
            strides: [p.a.ld, p.b.ld, c.ld, p.d.ld],
            alignment: [alignment(p.a, factor), alignment(p.b, factor), alignment(c, width), alignment(p.d, width)],
            adds: p.c.is_some(),
            out: p.out,
            fp8: p.scales.is_some(),
        };
        let mut plans = self.plans.borrow_mut();
        let plan = match plans.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                // Running a product again must give the same: not where it adds to its own result.
                let timed = m * n * k >= LARGE && p.c != Some(p.d);
                // SAFETY: the caller's promise.
                place.insert(unsafe { self.plan(&key, p, timed) }?)
            }
        };
        // SAFETY: the caller's promise.
        let kind = if p.scales.is_some() { " fp8" } else { "" };
        self.gpu.timed("linear", || format!("{m} x {n} x {k}{kind}"), || unsafe { self.go(plan, &plan.algo, p) })
    }

    unsafe fn go(&self, plan: &Plan, algo: &sys::cublasLtMatmulAlgo_t, p: &Product) -> Result<()> {
        let beta: f32 = if p.c.is_some() { 1.0 } else { 0.0 };
        let [a, b, c, d] = plan.layouts;
        let at = |m: Mat| m.at as *mut c_void;
        if let Some(scales) = &p.scales {
            // SAFETY: as in `plan`.
            unsafe { point(plan.describe, scales) }?;
        }
        // SAFETY: descriptors are the plan's, memory is promised by the caller. The problem is the transposed one.
        unsafe {
            result::matmul(
                self.handle,
                plan.describe,
                (&raw const p.alpha).cast(),
                (&raw const beta).cast(),
                at(p.b),
                b,
                at(p.a),
                a,
                at(p.c.unwrap_or(p.d)),
                c,
                at(p.d),
                d,
                algo,
                self.workspace.at() as *mut c_void,
                WORKSPACE,
                self.gpu.stream().cast(),
            )
        }
        .map_err(|e| Error::new(format!("cuBLAS: {e} (product {:?})", p.size)))
    }

    unsafe fn plan(&self, key: &Key, p: &Product, timed: bool) -> Result<Plan> {
        use sys::cublasLtMatmulDescAttributes_t as D;
        use sys::cublasLtMatmulPreferenceAttributes_t as P;
        use sys::cudaDataType_t::{CUDA_R_8F_E4M3, CUDA_R_16BF, CUDA_R_32F};
        let (m, n, k) = key.size;
        let out = if key.out == Out::F32 { CUDA_R_32F } else { CUDA_R_16BF };
        let factor = if key.fp8 { CUDA_R_8F_E4M3 } else { CUDA_R_16BF };
        let layout = |kind, rows: usize, columns: usize, ld: usize| {
            result::create_matrix_layout(kind, rows as u64, columns as u64, ld as i64).map_err(blas)
        };
        let describe =
            result::create_matmul_desc(sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, CUDA_R_32F).map_err(blas)?;
        let (ar, ac) = if key.transposed.0 { (m, k) } else { (k, m) };
        let (br, bc) = if key.transposed.1 { (k, n) } else { (n, k) };
        let layouts = [
            layout(factor, ar, ac, key.strides[0])?,
            layout(factor, br, bc, key.strides[1])?,
            layout(out, n, m, key.strides[2])?,
            layout(out, n, m, key.strides[3])?,
        ];
        let operation = |t: bool| i32::from(t);
        // SAFETY: every attribute is given as the type and size that cuBLASLt documents for it.
        unsafe {
            for (what, t) in [
                (D::CUBLASLT_MATMUL_DESC_TRANSA, operation(key.transposed.1)),
                (D::CUBLASLT_MATMUL_DESC_TRANSB, operation(key.transposed.0)),
            ] {
                result::set_matmul_desc_attribute(describe, what, (&raw const t).cast(), 4).map_err(blas)?;
            }
            if let Some(scales) = &p.scales {
                let rows = sys::cublasLtMatmulMatrixScale_t::CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
                for what in [D::CUBLASLT_MATMUL_DESC_A_SCALE_MODE, D::CUBLASLT_MATMUL_DESC_B_SCALE_MODE] {
                    result::set_matmul_desc_attribute(describe, what, (&raw const rows).cast(), 4).map_err(blas)?;
                }
                point(describe, scales)?;
            }
            let preference = result::create_matmul_pref().map_err(blas)?;
            let set32 = |what, value: u32| {
                result::set_matmul_pref_attribute(preference, what, (&raw const value).cast(), 4).map_err(blas)
            };
            let size = WORKSPACE;
            result::set_matmul_pref_attribute(
                preference,
                P::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                (&raw const size).cast(),
                8,
            )
            .map_err(blas)?;
            set32(P::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key.alignment[1])?;
            set32(P::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key.alignment[0])?;
            set32(P::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key.alignment[2])?;
            set32(P::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key.alignment[3])?;
            // Parts of a split sum are added in f32 (in place, or in the workspace), never in bf16.
            set32(P::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, 3)?;
            let mut found = [std::mem::MaybeUninit::<sys::cublasLtMatmulHeuristicResult_t>::zeroed(); CANDIDATES];
            let mut count = 0i32;
            let asked = if timed { CANDIDATES } else { 1 };
            let [a, b, c, d] = layouts;
            let status = sys::cublasLtMatmulAlgoGetHeuristic(
                self.handle,
                describe,
                b,
                a,
                c,
                d,
                preference,
                asked as i32,
                found.as_mut_ptr().cast(),
                &raw mut count,
            );
            let _ = result::destroy_matmul_pref(preference);
            status.result().map_err(blas)?;
            let mut algos = found.iter().take(count.max(0) as usize).map(|f| f.assume_init_ref().algo);
            let Some(first) = algos.next() else {
                return Err(Error::new(format!("cuBLAS has no algorithm for the product {key:?}")));
            };
            let mut plan = Plan { describe, layouts, algo: first };
            if timed {
                let mut best = (self.time(&plan, &first, p)?, first);
                for algo in algos {
                    let took = self.time(&plan, &algo, p)?;
                    if took < best.0 {
                        best = (took, algo);
                    }
                }
                plan.algo = best.1;
            }
            Ok(plan)
        }
    }

    /// Milliseconds that a candidate takes, the better of two.
    unsafe fn time(&self, plan: &Plan, algo: &sys::cublasLtMatmulAlgo_t, p: &Product) -> Result<f32> {
        let stream = self.gpu.stream();
        let wrap = driver("timing a product");
        let mut best = f32::INFINITY;
        // SAFETY: the caller's promise; the events are this function's own.
        unsafe {
            let flags = cudarc::driver::sys::CUevent_flags_enum::CU_EVENT_DEFAULT;
            let (start, end) = (event::create(flags).map_err(&wrap)?, event::create(flags).map_err(&wrap)?);
            for _ in 0..3 {
                event::record(start, stream).map_err(&wrap)?;
                if self.go(plan, algo, p).is_err() {
                    break;
                }
                event::record(end, stream).map_err(&wrap)?;
                event::synchronize(end).map_err(&wrap)?;
                best = best.min(event::elapsed(start, end).map_err(&wrap)?);
            }
            let _ = (event::destroy(start), event::destroy(end));
        }
        Ok(best)
    }
}

impl Drop for Gemm {
    fn drop(&mut self) {
        self.plans.borrow_mut().clear();
        // SAFETY: this object made the handle.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}
