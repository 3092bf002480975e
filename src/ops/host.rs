//! Reaching a CPU tensor's numbers: the one place that looks inside candle's storage.

use crate::{Error, Result};
use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Storage, StorageRef, Tensor};
use std::cell::Cell;

/// A read lock on a contiguous f32 CPU tensor.
pub(super) struct Host<'a> {
    storage: StorageRef<'a>,
    start: usize,
    end: usize,
}

impl std::ops::Deref for Host<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(v)) => &v[self.start..self.end],
            // `read` has looked; an empty slice would be caught by every length check.
            _ => &[],
        }
    }
}

fn check(t: &Tensor, op: &'static str) -> Result<()> {
    if !t.device().is_cpu() {
        return Err(Error::new(format!("{op} has no kernel for {:?}", t.device())).next("use device = \"cpu\""));
    }
    if t.dtype() != DType::F32 {
        return Err(Error::new(format!("{op} computes in f32 on the CPU, but was given {:?}", t.dtype())));
    }
    Ok(())
}

/// The numbers of a contiguous f32 CPU tensor, row by row.
pub(super) fn read<'a>(t: &'a Tensor, op: &'static str) -> Result<Host<'a>> {
    check(t, op)?;
    let (storage, layout) = t.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else {
        return Err(Error::new(format!("{op} needs a contiguous tensor, but was given strides {:?}", layout.stride())));
    };
    Ok(Host { storage, start, end })
}

/// A matrix as it lies in memory: element `(i, j)` is at `start + i * row + j * col`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Strided {
    pub rows: usize,
    pub cols: usize,
    pub row: usize,
    pub col: usize,
}

impl Strided {
    pub fn of(layout: &Layout, op: &'static str) -> Result<Self> {
        match (layout.dims(), layout.stride()) {
            (&[rows, cols], &[row, col]) => Ok(Self { rows, cols, row, col }),
            (dims, _) => Err(Error::new(format!("{op} needs a matrix, but was given shape {dims:?}"))),
        }
    }

    /// Numbers from the first element to the last, both included.
    pub fn span(&self) -> usize {
        if self.rows == 0 || self.cols == 0 { 0 } else { (self.rows - 1) * self.row + (self.cols - 1) * self.col + 1 }
    }
}

/// The numbers of an f32 CPU matrix with any strides, from its first element on, and how they lie.
pub(super) fn read_matrix<'a>(t: &'a Tensor, op: &'static str) -> Result<(Host<'a>, Strided)> {
    check(t, op)?;
    let (storage, layout) = t.storage_and_layout();
    let m = Strided::of(layout, op)?;
    let start = layout.start_offset();
    Ok((Host { storage, start, end: start + m.span() }, m))
}

/// Lets a closure be candle's in-place operation.
struct InPlace<F>(&'static str, Cell<Option<F>>);

impl<F: FnOnce(&mut [f32], &Layout) -> Result<()>> InplaceOp1 for InPlace<F> {
    fn name(&self) -> &'static str {
        self.0
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (CpuStorage::F32(v), Some(f)) = (storage, self.1.take()) else {
            return Err(candle_core::Error::Msg(format!("{} computes in f32", self.0)));
        };
        f(v, layout).map_err(|e| candle_core::Error::Msg(e.to_string()))
    }
}

/// Change a contiguous f32 CPU tensor in place; views of it change too.
pub(super) fn write<R>(t: &Tensor, op: &'static str, f: impl FnOnce(&mut [f32]) -> Result<R>) -> Result<R> {
    check(t, op)?;
    let mut out = None;
    t.inplace_op1(&InPlace(
        op,
        Cell::new(Some(|v: &mut [f32], layout: &Layout| {
            let Some((start, end)) = layout.contiguous_offsets() else {
                return Err(Error::new(format!("{op} needs a contiguous tensor")));
            };
            out = Some(f(&mut v[start..end])?);
            Ok(())
        })),
    ))?;
    out.ok_or_else(|| Error::new(format!("{op} did not run")))
}

/// Change an f32 CPU matrix with any strides in place: the closure gets the numbers from its first element on.
pub(super) fn write_matrix(
    t: &Tensor,
    op: &'static str,
    f: impl FnOnce(&mut [f32], Strided) -> Result<()>,
) -> Result<()> {
    check(t, op)?;
    t.inplace_op1(&InPlace(
        op,
        Cell::new(Some(|v: &mut [f32], layout: &Layout| {
            let m = Strided::of(layout, op)?;
            let start = layout.start_offset();
            f(&mut v[start..start + m.span()], m)
        })),
    ))?;
    Ok(())
}

/// A new CPU tensor that takes the numbers as they are.
pub(super) fn tensor(v: Vec<f32>, shape: &[usize]) -> Result<Tensor> {
    Ok(Tensor::from_vec(v, shape, &Device::Cpu)?)
}

/// Room for `n` numbers, of no particular value: the caller overwrites every one before any is read.
///
/// Clearing it first would be one more pass over memory, which for activations costs as much as the operation itself.
pub(super) fn room(n: usize) -> Vec<f32> {
    // SAFETY: a float has no invalid bits, and every caller writes all places before it reads one.
    unsafe { Box::<[f32]>::new_uninit_slice(n).assume_init() }.into_vec()
}

/// A pointer that parallel tasks share; each task writes places that no other task reads or writes.
#[derive(Clone, Copy)]
pub(super) struct Shared(*mut f32);

// SAFETY: the pointer is only dereferenced through `slice`, whose callers promise disjoint places.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub fn new(v: &mut [f32]) -> Self {
        Self(v.as_mut_ptr())
    }

    pub fn at(self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }

    /// # Safety
    /// `start..start + len` lies within the slice given to `new`, that slice outlives the use, and no other task
    /// touches these places meanwhile.
    pub unsafe fn slice<'a>(self, start: usize, len: usize) -> &'a mut [f32] {
        // SAFETY: promised by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }
}

/// The two dimensions of a matrix.
pub(super) fn dims2(t: &Tensor, op: &'static str) -> Result<(usize, usize)> {
    t.dims2().map_err(|_| Error::new(format!("{op} needs a matrix, but was given shape {:?}", t.dims())))
}

/// Complain unless two shapes agree.
pub(super) fn same(op: &'static str, what: &str, found: &[usize], expected: &[usize]) -> Result<()> {
    if found == expected {
        Ok(())
    } else {
        Err(Error::new(format!("{op}: {what} has shape {found:?}, expected {expected:?}")))
    }
}
