//! One decoder block: `h = x + o(attention(qkv(norm(x))))`, `y = h + down(swiglu(gate_up(norm(h))))`.

use super::config::{Config, Weights};
use super::linear::{Linear, Saved as Inner, Weight};
use super::lora::{Context, LoraConfig};
use super::params::Params;
use crate::Result;
use crate::ops::attention::{Heads, attention, attention_backward, attention_cached};
use crate::ops::residual::add_;
use crate::ops::rms_norm::{rms_norm, rms_norm_backward};
use crate::ops::rope::rope_;
use crate::ops::swiglu::{swiglu, swiglu_backward_};
use candle_core::Tensor;

/// A block's weights.
#[derive(Debug)]
pub(super) struct Block {
    prefix: String,
    attention_norm: Weight,
    qkv: Linear,
    o: Linear,
    mlp_norm: Weight,
    gate_up: Linear,
    down: Linear,
    heads: Heads,
    eps: f64,
    layer: u32,
}

/// Where the tokens stand: the angles of their positions, and the sequences they form.
pub(super) struct Place<'a> {
    pub cos: Tensor,
    pub sin: Tensor,
    pub cu_seqlens: &'a [u32],
}

/// What the backward pass needs. Norm outputs and the gated activation are cheap and computed again.
pub(super) struct Saved {
    x: Tensor,
    /// Turned queries and keys, and values.
    qkv: Tensor,
    attended: Tensor,
    lse: Tensor,
    h: Tensor,
    gate_up: Tensor,
    inner: [Inner; 4],
}

/// The block's projections in arena order: (name under the block, outputs, inputs); those of one input together.
pub(super) fn projections(c: &Config) -> [Vec<(&'static str, usize, usize)>; 4] {
    let (n, f) = (c.hidden_size, c.intermediate_size);
    let (q, kv) = (c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim);
    [
        vec![("self_attn.q_proj", q, n), ("self_attn.k_proj", kv, n), ("self_attn.v_proj", kv, n)],
        vec![("self_attn.o_proj", n, q)],
        vec![("mlp.gate_proj", f, n), ("mlp.up_proj", f, n)],
        vec![("mlp.down_proj", n, f)],
    ]
}

pub(super) const NORMS: [&str; 2] = ["input_layernorm.weight", "post_attention_layernorm.weight"];

impl Block {
    pub fn new(weights: &mut Weights, params: &Params, lora: Option<&LoraConfig>, layer: u32) -> Result<Self> {
        let c = weights.config.clone();
        let prefix = format!("model.layers.{layer}");
        let [qkv, o, gate_up, down] = projections(&c);
        let mut linear = |group: Vec<(&str, usize, usize)>| {
            let inputs = group.first().map_or(0, |g| g.2);
            let parts: Vec<_> = group.iter().map(|(name, out, _)| (format!("{prefix}.{name}"), *out)).collect();
            Linear::new(weights, params, lora, &parts, inputs)
        };
        let (qkv, o, gate_up, down) = (linear(qkv)?, linear(o)?, linear(gate_up)?, linear(down)?);
        let mut norm = |name: &str| Weight::load(weights, params, &[(format!("{prefix}.{name}"), vec![c.hidden_size])]);
        let (attention_norm, mlp_norm) = (norm(NORMS[0])?, norm(NORMS[1])?);
        let heads = Heads { heads: c.num_attention_heads, kv_heads: c.num_key_value_heads, head_dim: c.head_dim };
        Ok(Self { prefix, attention_norm, qkv, o, mlp_norm, gate_up, down, heads, eps: c.rms_norm_eps, layer })
    }

    fn turned(&self) -> usize {
        self.heads.heads + self.heads.kv_heads
    }

    /// `x [T, n]` to the same shape.
    pub fn forward(&self, x: &Tensor, place: &Place, c: Context) -> Result<(Tensor, Saved)> {
        let c = Context { layer: self.layer, ..c };
        let (normed, _) = rms_norm(x, &self.attention_norm.value, self.eps)?;
        let (qkv, inner_qkv) = self.qkv.forward(&normed, &c)?;
        rope_(&qkv, &place.cos, &place.sin, self.turned(), false)?;
        let (attended, lse) = attention(&qkv, self.heads, place.cu_seqlens)?;
        let (h, inner_o) = self.o.forward(&attended, &c)?;
        add_(&h, x)?;
        let (y, gate_up, inner_gate_up, inner_down) = self.mlp(&h, &c)?;
        let inner = [inner_qkv, inner_o, inner_gate_up, inner_down];
        Ok((y, Saved { x: x.clone(), qkv, attended, lse, h, gate_up, inner }))
    }

    fn mlp(&self, h: &Tensor, c: &Context) -> Result<(Tensor, Tensor, Inner, Inner)> {
        let (normed, _) = rms_norm(h, &self.mlp_norm.value, self.eps)?;
        let (gate_up, inner_gate_up) = self.gate_up.forward(&normed, c)?;
        let (y, inner_down) = self.down.forward(&swiglu(&gate_up)?, c)?;
        add_(&y, h)?;
        Ok((y, gate_up, inner_gate_up, inner_down))
    }

    /// Turns `dy` (whose tensor it overwrites) into `dx`, adding into what trains on the way. Unless `wanted`, what
    /// lies below the adapters of this block's first layer is left out and the result is not a gradient.
    pub fn backward(&self, dy: Tensor, saved: Saved, place: &Place, wanted: bool, c: Context) -> Result<Tensor> {
        let c = Context { layer: self.layer, ..c };
        let [inner_qkv, inner_o, inner_gate_up, inner_down] = &saved.inner;
        // The MLP; `dy` itself goes on through the residual stream.
        let active = swiglu(&saved.gate_up)?;
        if let Some(dactive) = self.down.backward(&dy, &active, inner_down, true, &c)? {
            swiglu_backward_(&saved.gate_up, &dactive)?;
        }
        drop(active);
        let (normed, rstd) = rms_norm(&saved.h, &self.mlp_norm.value, self.eps)?;
        if let Some(d) = self.gate_up.backward(&saved.gate_up, &normed, inner_gate_up, true, &c)? {
            let w = &self.mlp_norm;
            rms_norm_backward(&d, &saved.h, &w.value, &rstd, &dy, w.grad.as_ref())?;
        }
        // Attention.
        let Some(dattended) = self.o.backward(&dy, &saved.attended, inner_o, true, &c)? else { return Ok(dy) };
        let dqkv =
            attention_backward(&dattended, &saved.qkv, &saved.attended, &saved.lse, self.heads, place.cu_seqlens)?;
        rope_(&dqkv, &place.cos, &place.sin, self.turned(), true)?;
        let (normed, rstd) = rms_norm(&saved.x, &self.attention_norm.value, self.eps)?;
        if let Some(d) = self.qkv.backward(&dqkv, &normed, inner_qkv, wanted, &c)? {
            let w = &self.attention_norm;
            rms_norm_backward(&d, &saved.x, &w.value, &rstd, &dy, w.grad.as_ref())?;
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
        let (normed, _) = rms_norm(x, &self.attention_norm.value, self.eps)?;
        let (qkv, _) = self.qkv.forward(&normed, &c)?;
        rope_(&qkv, &place.cos, &place.sin, self.turned(), false)?;
        let attended = attention_cached(&qkv, self.heads, &cache.0, &cache.1, past)?;
        let (h, _) = self.o.forward(&attended, &c)?;
        add_(&h, x)?;
        Ok(self.mlp(&h, &c)?.0)
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
        let (normed, _) = rms_norm(x, &self.attention_norm.value, self.eps)?;
        let (qkv, _) = self.qkv.forward(&normed, &c)?;
        rope_(&qkv, &place.cos, &place.sin, self.turned(), false)?;
        let attended = caches
            .iter()
            .zip(pasts)
            .enumerate()
            .map(|(i, (cache, &past))| attention_cached(&qkv.narrow(0, i, 1)?, self.heads, &cache.0, &cache.1, past))
            .collect::<Result<Vec<_>>>()?;
        let (h, _) = self.o.forward(&Tensor::cat(&attended, 0)?, &c)?;
        add_(&h, x)?;
        Ok(self.mlp(&h, &c)?.0)
    }

    /// The block's weights in Hugging Face's names.
    pub fn state(&self) -> Result<Vec<(String, Tensor)>> {
        let mut all = Vec::new();
        for linear in [&self.qkv, &self.o, &self.gate_up, &self.down] {
            all.extend(linear.state()?);
        }
        for (name, norm) in NORMS.iter().zip([&self.attention_norm, &self.mlp_norm]) {
            all.push((format!("{}.{name}", self.prefix), norm.value.clone()));
        }
        Ok(all)
    }
}
