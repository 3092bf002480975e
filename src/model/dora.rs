//! Weight-decomposed adapters (DoRA; Liu et al., 2024) as PEFT computes them: each row of `W + s·B·A` is brought to the
//! length that its magnitude says, `y = g ∘ (x·Wᵀ + s·x·Aᵀ·Bᵀ) + bias` with `g = m / ‖W + s·B·A‖`. The length is taken
//! as a constant going back.
//!
//! With dropout PEFT lets the undropped input through once: `x·Wᵀ + (g − 1) ∘ x'·Wᵀ + g ∘ s·x'·Aᵀ·Bᵀ`, x' being the dropped
//! one; so does this.

use super::lora::{Context, Lora, Part};
use crate::ops::columns::{add_matrix_, columns_product_sum_, scale_columns_};
use crate::ops::dropout::{dropout, dropout_};
use crate::ops::matmul::{matmul, matmul_add_};
use crate::ops::matrix::Matrix;
use crate::ops::residual::add_;
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// The magnitudes of the adapters of one layer.
#[derive(Debug)]
pub(super) struct Dora {
    /// ‖W‖² of every row of the fused matrix.
    squares: Vec<f64>,
    /// Counts changes of what trains.
    version: Arc<AtomicU64>,
    /// Lengths of the rows of `W + s·B·A`, and the version they belong to: a conversation asks for them at every token.
    lengths: Mutex<Option<(u64, Arc<Vec<f32>>)>>,
}

/// Squares of the lengths of `w`'s rows.
fn squares(w: &Matrix) -> Result<Vec<f64>> {
    let mut squares = vec![0.0; w.dims()?.0];
    w.each_row(&mut |row, values| squares[row] = values.iter().map(|v| f64::from(*v).powi(2)).sum())?;
    Ok(squares)
}

impl Dora {
    /// Over the frozen `w [out, in]`. The magnitudes of fresh adapters become the lengths of its rows.
    pub fn new(w: &Matrix, lora: &Lora, version: Arc<AtomicU64>) -> Result<Self> {
        let squares = squares(w)?;
        for (part, m) in lora.parts.iter().filter_map(|p| Some((p, p.magnitude.as_ref()?))) {
            let rows = &squares[part.out.0..part.out.0 + part.out.1];
            let lengths: Vec<f32> = rows.iter().map(|s| s.sqrt() as f32).collect();
            crate::ops::arena::copy_(&m.value, &lengths)?;
        }
        Ok(Self { squares, version, lengths: Mutex::new(None) })
    }

    /// ‖W + s·B·A‖ of every row: ‖W‖² + 2s·B·(A·Wᵀ) + s²·B·(A·Aᵀ)·Bᵀ, so that W goes through one thin product. Rows
    /// without an adapter have 1.
    fn lengths(&self, w: &Matrix, lora: &Lora) -> Result<Arc<Vec<f32>>> {
        let broken = |_| Error::new("a thread died with the lengths of a layer's rows");
        let now = self.version.load(Ordering::Acquire);
        if let Some((then, lengths)) = self.lengths.lock().map_err(broken)?.as_ref()
            && *then == now
        {
            return Ok(lengths.clone());
        }
        let mut all = vec![1f32; self.squares.len()];
        let scale = f64::from(lora.scale);
        for part in &lora.parts {
            let (start, width) = part.out;
            let (a, r) = (&part.a.value, part.rank.1);
            let through = w.narrow(start, width)?.times_transposed(a)?.flatten_all()?.to_vec1::<f32>()?;
            let inner = matmul(a, &a.t()?)?.flatten_all()?.to_vec1::<f32>()?;
            let b = part.b.value.flatten_all()?.to_vec1::<f32>()?;
            for (j, b) in b.chunks_exact(r).enumerate() {
                let mut square = self.squares[start + j];
                for (k, &bk) in b.iter().enumerate() {
                    let row = &inner[k * r..(k + 1) * r];
                    let quadratic: f64 = row.iter().zip(b).map(|(&i, &bl)| f64::from(i) * f64::from(bl)).sum();
                    let cross = 2.0 * scale * f64::from(through[k * width + j]);
                    square += f64::from(bk) * (cross + scale * scale * quadratic);
                }
                all[start + j] = square.max(f64::MIN_POSITIVE).sqrt() as f32;
            }
        }
        let all = Arc::new(all);
        *self.lengths.lock().map_err(broken)? = Some((now, all.clone()));
        Ok(all)
    }

    /// What a part's columns are multiplied by, and the lengths: `m / length`, `[width]` each.
    fn factors(&self, w: &Matrix, lora: &Lora, part: &Part) -> Result<(Vec<f32>, Vec<f32>)> {
        let lengths = self.lengths(w, lora)?[part.out.0..part.out.0 + part.out.1].to_vec();
        let m = match &part.magnitude {
            Some(m) => m.value.to_vec1::<f32>()?,
            None => return Err(Error::new("an adapter without its magnitudes")),
        };
        Ok((m.iter().zip(&lengths).map(|(m, l)| m / l).collect(), lengths))
    }

    /// Finishes `y [T, out]`, which is `x·Wᵀ`; returns `x'·Aᵀ`, which the backward pass wants.
    pub fn forward(&self, w: &Matrix, lora: &Lora, x: &Tensor, y: &Tensor, c: &Context) -> Result<Tensor> {
        if !lora.drops(c) {
            let h = lora.forward(x, y, c)?;
            for p in &lora.parts {
                scale_columns_(&y.narrow(1, p.out.0, p.out.1)?, &self.factors(w, lora, p)?.0)?;
            }
            return Ok(h);
        }
        let more = Tensor::zeros(y.shape(), DType::F32, y.device())?;
        let h = lora.forward(x, &more, c)?;
        for p in &lora.parts {
            let Some(stream) = lora.stream(p, c) else { continue };
            let (g, _) = self.factors(w, lora, p)?;
            let more = more.narrow(1, p.out.0, p.out.1)?;
            scale_columns_(&more, &g)?;
            let plain = w.narrow(p.out.0, p.out.1)?.times_transposed(&dropout(x, lora.dropout, stream)?)?;
            scale_columns_(&plain, &less_one(&g))?;
            add_matrix_(&more, &plain)?;
        }
        add_(y, &more)?;
        Ok(h)
    }

    /// Adds into the gradients of A, B and the magnitudes, given `dy [T, out]`, and makes `dx [T, in]` where `wanted`.
    /// `h` from the forward pass.
    #[allow(clippy::too_many_arguments)] // The layer, its two gradients, and what the way forward left.
    pub fn backward(
        &self,
        w: &Matrix,
        lora: &Lora,
        dy: &Tensor,
        x: &Tensor,
        h: &Tensor,
        wanted: bool,
        c: &Context,
    ) -> Result<Option<Tensor>> {
        let drops = lora.drops(c);
        // dy ∘ g: what goes back through B, and without dropout through W.
        let scaled = dy.copy()?;
        for p in &lora.parts {
            let (g, lengths) = self.factors(w, lora, p)?;
            let stream = lora.stream(p, c).filter(|_| drops);
            let dropped = match stream {
                Some(stream) => dropout(x, lora.dropout, stream)?,
                None => x.clone(),
            };
            // What the magnitude multiplied: x'·Wᵀ + s·h·Bᵀ, made again.
            let u = w.narrow(p.out.0, p.out.1)?.times_transposed(&dropped)?;
            matmul_add_(&u, lora.scale, &h.narrow(1, p.rank.0, p.rank.1)?, &p.b.value.t()?)?;
            let dy = dy.narrow(1, p.out.0, p.out.1)?.contiguous()?;
            if let Some(m) = &p.magnitude {
                columns_product_sum_(&m.grad, &dy, &u, &lengths)?;
            }
            scale_columns_(&scaled.narrow(1, p.out.0, p.out.1)?, &g)?;
        }
        let dx = match (wanted, drops) {
            (false, _) => None,
            (true, false) => Some(w.times(&scaled)?),
            (true, true) => Some(w.times(dy)?),
        };
        if let (true, Some(dx)) = (drops, &dx) {
            for p in &lora.parts {
                let Some(stream) = lora.stream(p, c) else { continue };
                let (g, _) = self.factors(w, lora, p)?;
                let part = dy.narrow(1, p.out.0, p.out.1)?.contiguous()?.copy()?;
                scale_columns_(&part, &less_one(&g))?;
                let through = w.narrow(p.out.0, p.out.1)?.times(&part)?;
                dropout_(&through, lora.dropout, stream)?;
                add_(dx, &through)?;
            }
        }
        lora.backward(&scaled, x, h, dx.as_ref(), c)?;
        Ok(dx)
    }
}

fn less_one(g: &[f32]) -> Vec<f32> {
    g.iter().map(|g| g - 1.0).collect()
}
