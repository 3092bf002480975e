//! One decoder block: `h = x + o(attention(qkv(norm(x))))`, `y = h + mlp(norm(h))`; in some families what joins the
//! residual stream is normalised first.

use super::config::{Config, HEAD_NORMS, Projection, Rope, SINKS, Weights};
use super::linear::{Linear, Saved as Inner, Weight};
use super::lora::{Context, LoraConfig};
use super::mlp::{self, Mlp};
use super::norm::Norm;
use super::params::Params;
use crate::Result;
use crate::ops::attention::{Attention, attention, attention_backward, attention_cached, sinks_backward};
use crate::ops::head_norm::{HeadNorm, head_norm, head_norm_backward_};
use crate::ops::residual::add_;
use crate::ops::rope::rope_;
use candle_core::{DType, Tensor};

/// A block's weights.
#[derive(Debug)]
pub(super) struct Block {
    prefix: String,
    norms: Vec<(&'static str, Norm)>,
    qkv: Linear,
    /// Of queries, of keys.
    head_norms: Option<[Weight; 2]>,
    sinks: Option<Weight>,
    o: Linear,
    mlp: Mlp,
    attention: Attention,
    rope: Rope,
    plus: f32,
    eps: f64,
    layer: u32,
}

/// Where the tokens stand: the angles of their positions, and the sequences they form.
pub(super) struct Place<'a> {
    /// Cosines and sines of [`Rope::Global`], and of [`Rope::Local`] where a layer turns by those.
    pub global: (Tensor, Tensor),
    pub local: Option<(Tensor, Tensor)>,
    pub cu_seqlens: &'a [u32],
}

/// What the backward pass needs. Norm outputs and the gated activation are cheap and computed again.
pub(super) struct Saved {
    x: Tensor,
    /// Queries, keys and values before their norms, and the norms' 1/rms, where the family has them.
    raw: Option<(Tensor, Tensor)>,
    /// Turned queries and keys, and values.
    qkv: Tensor,
    attended: Tensor,
    lse: Tensor,
    /// Attention's share of the residual stream, before the norm after it, where the family has one.
    attention_share: Option<Tensor>,
    h: Tensor,
    mlp: mlp::Saved,
    /// The MLP's share, as above.
    mlp_share: Option<Tensor>,
    inner: [Inner; 2],
}

/// The block's projections in arena order: (name under the block, outputs, inputs); those of one input together.
pub(super) fn projections(c: &Config) -> [Vec<Projection>; 4] {
    c.projections()
}

/// A linear layer over a group of [`projections`] under `prefix`.
pub(super) fn linear(
    weights: &mut Weights,
    params: &Params,
    lora: Option<&LoraConfig>,
    prefix: &str,
    group: &[Projection],
    biased: bool,
) -> Result<Linear> {
    let inputs = group.first().map_or(0, |g| g.2);
    let parts: Vec<_> = group.iter().map(|(name, out, _)| (format!("{prefix}.{name}"), *out)).collect();
    Linear::new(weights, params, lora, &parts, inputs, biased)
}

impl Block {
    pub fn new(weights: &mut Weights, params: &Params, lora: Option<&LoraConfig>, layer: u32) -> Result<Self> {
        let c = weights.config.clone();
        let prefix = format!("model.layers.{layer}");
        let ([qkv, o, ..], [qkv_bias, o_bias, ..]) = (projections(&c), c.biases());
        let qkv = linear(weights, params, lora, &prefix, &qkv, qkv_bias)?;
        let o = linear(weights, params, lora, &prefix, &o, o_bias)?;
        let mlp = Mlp::new(weights, params, lora, &prefix)?;
        let norm = |name: &'static str| Ok((name, Norm::load(weights, params, format!("{prefix}.{name}"))?));
        let norms = c.norms().into_iter().map(norm).collect::<Result<Vec<_>>>()?;
        let mut head = |name: &str| Weight::load(weights, params, &[(format!("{prefix}.{name}"), vec![c.head_dim])]);
        let head_norms = match c.traits.head_norms {
            true => Some([head(HEAD_NORMS[0])?, head(HEAD_NORMS[1])?]),
            false => None,
        };
        let sinks = match c.traits.sinks {
            true => Some(Weight::load(weights, params, &[(format!("{prefix}.{SINKS}"), vec![c.num_attention_heads])])?),
            false => None,
        };
        let (mut attention, rope) = (c.attention(layer as usize), c.layer(layer as usize).rope);
        attention.sinks = sinks.as_ref().map(|s| s.value.clone());
        let (plus, eps) = (c.norm_offset(), c.rms_norm_eps);
        Ok(Self { prefix, norms, qkv, head_norms, sinks, o, mlp, attention, rope, plus, eps, layer })
    }

    /// Before attention, and before the MLP.
    fn before(&self, which: usize) -> &Norm {
        &self.norms[which].1
    }

    /// After attention, and after the MLP, where the family has them.
    fn after(&self, which: usize) -> Option<&Norm> {
        self.norms.get(2 + which).map(|(_, norm)| norm)
    }

    /// Turn queries and keys (or their gradients `back`) in place.
    fn turn(&self, qkv: &Tensor, place: &Place, back: bool) -> Result<()> {
        let h = self.attention.heads;
        let angles = match self.rope {
            Rope::None => return Ok(()),
            Rope::Local => place.local.as_ref().unwrap_or(&place.global),
            Rope::Global => &place.global,
        };
        rope_(qkv, (&angles.0, &angles.1), h.heads + h.kv_heads, h.head_dim, back)
    }

    fn head_norm(&self) -> Option<HeadNorm<'_>> {
        let [q, k] = self.head_norms.as_ref()?;
        Some(HeadNorm { q: &q.value, k: &k.value, plus: self.plus, eps: self.eps })
    }

    /// The normed input to turned queries and keys, and values; what the norms on heads took, and what the layer leaves.
    #[allow(clippy::type_complexity)]
    fn queries(&self, x: &Tensor, place: &Place, c: &Context) -> Result<(Tensor, Option<(Tensor, Tensor)>, Inner)> {
        let (normed, _) = self.before(0).forward(x)?;
        let (mut qkv, inner) = self.qkv.forward(&normed, c)?;
        let mut raw = None;
        if let Some(n) = self.head_norm() {
            let (normed, rstd) = head_norm(&qkv, self.attention.heads, n)?;
            raw = Some((std::mem::replace(&mut qkv, normed), rstd));
        }
        self.turn(&qkv, place, false)?;
        Ok((qkv, raw, inner))
    }

    /// `x` plus a share of the residual stream, which is normalised first where the family says so; the share as it was.
    fn join(&self, which: usize, share: Tensor, x: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
        let (y, share) = match self.after(which) {
            None => (share, None),
            Some(norm) => (norm.forward(&share)?.0, Some(share)),
        };
        add_(&y, x)?;
        Ok((y, share))
    }

    /// The gradient of a share, given that of the residual stream; `None` where that is the same.
    fn part(&self, which: usize, dy: &Tensor, share: Option<&Tensor>) -> Result<Option<Tensor>> {
        let (Some(norm), Some(share)) = (self.after(which), share) else { return Ok(None) };
        let (_, rstd) = norm.forward(share)?;
        let d = Tensor::zeros(share.shape(), DType::F32, share.device())?;
        norm.backward(dy, share, &rstd, &d)?;
        Ok(Some(d))
    }

    /// `x [T, n]` to the same shape.
    pub fn forward(&self, x: &Tensor, place: &Place, c: Context) -> Result<(Tensor, Saved)> {
        let c = Context { layer: self.layer, ..c };
        let (qkv, raw, inner_qkv) = self.queries(x, place, &c)?;
        let (attended, lse) = attention(&qkv, &self.attention, place.cu_seqlens)?;
        let (o, inner_o) = self.o.forward(&attended, &c)?;
        let (h, attention_share) = self.join(0, o, x)?;
        let (share, mlp) = self.mlp.forward(&self.before(1).forward(&h)?.0, &c)?;
        let (y, mlp_share) = self.join(1, share, &h)?;
        let inner = [inner_qkv, inner_o];
        Ok((y, Saved { x: x.clone(), raw, qkv, attended, lse, attention_share, h, mlp, mlp_share, inner }))
    }

    /// Turns `dy` (whose tensor it overwrites) into `dx`, adding into what trains on the way. Unless `wanted`, what
    /// lies below the adapters of this block's first layer is left out and the result is not a gradient.
    pub fn backward(&self, dy: Tensor, mut saved: Saved, place: &Place, wanted: bool, c: Context) -> Result<Tensor> {
        let c = Context { layer: self.layer, ..c };
        // The MLP; `dy` itself goes on through the residual stream.
        match self.part(1, &dy, saved.mlp_share.as_ref())? {
            Some(dshare) => self.mlp.backward_inner(&dshare, &mut saved.mlp, &c)?,
            None => self.mlp.backward_inner(&dy, &mut saved.mlp, &c)?,
        }
        let (normed, rstd) = self.before(1).forward(&saved.h)?;
        if let Some(d) = self.mlp.backward(&normed, &saved.mlp, &c)? {
            self.before(1).backward(&d, &saved.h, &rstd, &dy)?;
        }
        // Attention.
        let [inner_qkv, inner_o] = &saved.inner;
        let dshare = self.part(0, &dy, saved.attention_share.as_ref())?;
        let dshare = dshare.as_ref().unwrap_or(&dy);
        let Some(dattended) = self.o.backward(dshare, &saved.attended, inner_o, true, &c)? else { return Ok(dy) };
        let (qkv, attended, lse) = (&saved.qkv, &saved.attended, &saved.lse);
        let dqkv = attention_backward(&dattended, qkv, attended, lse, &self.attention, place.cu_seqlens)?;
        if let Some(grad) = self.sinks.as_ref().and_then(|s| s.grad.as_ref()) {
            sinks_backward(&dattended, attended, lse, &self.attention, grad)?;
        }
        self.turn(&dqkv, place, true)?;
        if let (Some(n), Some((raw, rstd)), Some([q, k])) = (self.head_norm(), &saved.raw, &self.head_norms) {
            let grads = q.grad.as_ref().zip(k.grad.as_ref());
            head_norm_backward_(&dqkv, raw, rstd, self.attention.heads, n, grads)?;
        }
        let (normed, rstd) = self.before(0).forward(&saved.x)?;
        if let Some(d) = self.qkv.backward(&dqkv, &normed, inner_qkv, wanted, &c)? {
            self.before(0).backward(&d, &saved.x, &rstd, &dy)?;
        }
        Ok(dy)
    }

    /// New tokens `x [T, n]` after `past` ones whose keys and values are in `cache`; adds their own there.
    pub fn decode(
        &self,
        x: &Tensor,
        place: &Place,
        cache: &(Tensor, Tensor),
        past: usize,
        c: Context,
    ) -> Result<Tensor> {
        let c = Context { layer: self.layer, ..c };
        let (qkv, ..) = self.queries(x, place, &c)?;
        let attended = attention_cached(&qkv, &self.attention, &cache.0, &cache.1, past)?;
        let (h, _) = self.join(0, self.o.forward(&attended, &c)?.0, x)?;
        let (share, _) = self.mlp.forward(&self.before(1).forward(&h)?.0, &c)?;
        Ok(self.join(1, share, &h)?.0)
    }

    /// One new token of each of several conversations, `x [R, n]`, row i after the `pasts[i]` tokens of `caches[i]`.
    pub fn decode_rows(
        &self,
        x: &Tensor,
        place: &Place,
        caches: &[&(Tensor, Tensor)],
        pasts: &[usize],
        c: Context,
    ) -> Result<Tensor> {
        let c = Context { layer: self.layer, ..c };
        let (qkv, ..) = self.queries(x, place, &c)?;
        let attended = caches
            .iter()
            .zip(pasts)
            .enumerate()
            .map(|(i, (cache, &past))| {
                attention_cached(&qkv.narrow(0, i, 1)?, &self.attention, &cache.0, &cache.1, past)
            })
            .collect::<Result<Vec<_>>>()?;
        let (h, _) = self.join(0, self.o.forward(&Tensor::cat(&attended, 0)?, &c)?.0, x)?;
        let (share, _) = self.mlp.forward(&self.before(1).forward(&h)?.0, &c)?;
        Ok(self.join(1, share, &h)?.0)
    }

    /// The block's weights in Hugging Face's names.
    pub fn state(&self) -> Result<Vec<(String, Tensor)>> {
        let mut all = [self.qkv.state()?, self.o.state()?, self.mlp.state()?].concat();
        let norms = self.norms.iter().map(|(name, norm)| (*name, &norm.weight));
        let heads = HEAD_NORMS.iter().zip(self.head_norms.iter().flatten()).map(|(name, w)| (*name, w));
        let sinks = self.sinks.iter().map(|w| (SINKS, w));
        all.extend(
            norms.chain(heads).chain(sinks).map(|(name, w)| (format!("{}.{name}", self.prefix), w.value.clone())),
        );
        Ok(all)
    }
}
