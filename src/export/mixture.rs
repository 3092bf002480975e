//! Which type each tensor of a model gets for a file type, as llama-quantize decides it (`llama_tensor_get_type_impl`
//! and `tensor_type_fallback` in llama-quant.cpp) without an importance matrix, for the families there are here.
//!
//! Must not know values or files.

use super::quant::Kind;
use crate::model::config::Config;
use crate::model::gguf::architecture;
use crate::{Error, Result};

/// A file type: what llama-quantize's TYPE argument names. Numbers are llama.cpp's `llama_ftype`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mixture {
    F32,
    F16,
    BF16,
    Q8_0,
    Q6K,
    Q5KM,
    Q5KS,
    Q5_1,
    Q5_0,
    Q4KM,
    Q4KS,
    Q4_1,
    Q4_0,
    Q3KL,
    Q3KM,
    Q3KS,
    Q2K,
}

/// Mixture, its name in arguments, its number, the type it starts from.
const TABLE: [(Mixture, &str, u32, Kind); 17] = [
    (Mixture::F32, "f32", 0, Kind::F32),
    (Mixture::F16, "f16", 1, Kind::F16),
    (Mixture::BF16, "bf16", 32, Kind::BF16),
    (Mixture::Q8_0, "q8_0", 7, Kind::Q8_0),
    (Mixture::Q6K, "q6_k", 18, Kind::Q6K),
    (Mixture::Q5KM, "q5_k_m", 17, Kind::Q5K),
    (Mixture::Q5KS, "q5_k_s", 16, Kind::Q5K),
    (Mixture::Q5_1, "q5_1", 9, Kind::Q5_1),
    (Mixture::Q5_0, "q5_0", 8, Kind::Q5_0),
    (Mixture::Q4KM, "q4_k_m", 15, Kind::Q4K),
    (Mixture::Q4KS, "q4_k_s", 14, Kind::Q4K),
    (Mixture::Q4_1, "q4_1", 3, Kind::Q4_1),
    (Mixture::Q4_0, "q4_0", 2, Kind::Q4_0),
    (Mixture::Q3KL, "q3_k_l", 13, Kind::Q3K),
    (Mixture::Q3KM, "q3_k_m", 12, Kind::Q3K),
    (Mixture::Q3KS, "q3_k_s", 11, Kind::Q3K),
    (Mixture::Q2K, "q2_k", 10, Kind::Q2K),
];

impl Mixture {
    fn row(self) -> &'static (Mixture, &'static str, u32, Kind) {
        // The table is in the order of the declaration, which a test holds to.
        &TABLE[self as usize]
    }

    /// `q4_k_m`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// `general.file_type`.
    pub fn file_type(self) -> u32 {
        self.row().2
    }

    /// The type that most tensors get.
    pub fn kind(self) -> Kind {
        self.row().3
    }

    /// By name, in any case.
    ///
    /// # Errors
    /// When there is no such type; the error lists those there are.
    pub fn parse(name: &str) -> Result<Self> {
        let lower = name.trim().to_lowercase();
        TABLE.iter().find(|row| row.1 == lower).map(|row| row.0).ok_or_else(|| {
            let all: Vec<&str> = TABLE.iter().map(|row| row.1).collect();
            Error::usage(format!("there is no GGUF type {name}")).next(format!("types: {}", all.join(", ")))
        })
    }
}

/// What of a model decides types besides names and shapes.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// `general.architecture`
    pub architecture: &'static str,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    /// 0 in a dense model.
    pub num_experts: usize,
}

impl Facts {
    pub fn of(c: &Config) -> Self {
        Self {
            architecture: architecture(c),
            num_hidden_layers: c.num_hidden_layers,
            num_attention_heads: c.num_attention_heads,
            num_key_value_heads: c.num_key_value_heads,
            num_experts: c.traits.experts.map_or(0, |e| e.count),
        }
    }

    /// llama.cpp gives the 70B model's shared values more bits (`LLM_TYPE_70B`, which Qwen2's 72B is too).
    fn is_70b(self) -> bool {
        let shared = self.num_attention_heads != self.num_key_value_heads;
        self.num_hidden_layers == 80 && (self.architecture == "qwen2" || self.architecture == "llama" && shared)
    }
}

/// A tensor by its name in the GGUF, with its rows' length and number of dimensions.
#[derive(Debug, Clone, Copy)]
pub struct Shape<'a> {
    pub name: &'a str,
    pub columns: usize,
    pub dimensions: usize,
}

/// The order in which llama-quantize goes through tensors and writes them: layer, then name.
pub fn order(name: &str) -> (i64, &str) {
    let layer = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')).and_then(|(n, _)| n.parse().ok());
    (layer.unwrap_or(-1), name)
}

/// The type of each tensor; `None` keeps the type that it has. `tensors` come in the order of [`order`].
pub fn kinds(mixture: Mixture, facts: Facts, tensors: &[Shape]) -> Vec<Option<Kind>> {
    let tied = !tensors.iter().any(|t| t.name == "output.weight");
    let (mut values, mut downs) = (0, 0);
    let mut kinds = Vec::with_capacity(tensors.len());
    for t in tensors {
        // A router is small, and stays as it is.
        let matrix = t.dimensions >= 2
            && t.name.ends_with("weight")
            && !t.name.contains("_norm.weight")
            && !t.name.contains("ffn_gate_inp.weight");
        let kind = match mixture.kind() {
            _ if !matrix => None,
            kind if !kind.is_quantized() => Some(kind),
            _ => Some(fallback(chosen(mixture, facts, t, tied, (&mut values, &mut downs)), t.columns)),
        };
        kinds.push(kind);
    }
    kinds
}

/// Whether a layer is among those that `_m` mixtures give more bits: the first and last eighth, and every third.
fn use_more_bits(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

/// The mixture's choice. `values` and `downs` count the attn_v (or attn_qkv) and ffn_down tensors met
/// so far.
fn chosen(mixture: Mixture, facts: Facts, t: &Shape, tied: bool, (values, downs): (&mut usize, &mut usize)) -> Kind {
    use Mixture::{Q2K, Q3KL, Q3KM, Q3KS, Q4KM, Q4KS, Q5KM};
    let usual = mixture.kind();
    let layers = facts.num_hidden_layers;
    if t.name == "output.weight" || (tied && t.name == "token_embd.weight") {
        return match usual {
            _ if !t.columns.is_multiple_of(usual.block()) => Kind::Q8_0,
            Kind::Q8_0 => Kind::Q8_0,
            _ => Kind::Q6K,
        };
    }
    let eight = facts.num_experts == 8;
    if t.name.contains("attn_k.weight") && eight {
        return Kind::Q8_0;
    }
    if t.name.contains("attn_v.weight") || t.name.contains("attn_qkv.weight") {
        let layer = *values;
        *values += 1;
        let many = facts.num_attention_heads / facts.num_key_value_heads.max(1) >= 4;
        let kind = match mixture {
            Q2K if many => Kind::Q4K,
            Q2K => Kind::Q3K,
            Q3KM if layer < 2 => Kind::Q5K,
            Q3KM => Kind::Q4K,
            Q3KL => Kind::Q5K,
            Q4KM | Q5KM if use_more_bits(layer, layers) => Kind::Q6K,
            Q4KS if layer < 4 => Kind::Q5K,
            _ => usual,
        };
        return match kind {
            _ if eight => Kind::Q8_0,
            Kind::Q3K | Kind::Q4K if facts.is_70b() => Kind::Q5K,
            kind => kind,
        };
    }
    if t.name.contains("ffn_down") {
        let layer = *downs;
        *downs += 1;
        return match mixture {
            Q2K => Kind::Q3K,
            Q3KM if layer < layers / 16 => Kind::Q5K,
            Q3KM => Kind::Q4K,
            Q3KL => Kind::Q5K,
            Q4KM | Q5KM if use_more_bits(layer, layers) => Kind::Q6K,
            Q4KS if layer < layers / 8 => Kind::Q5K,
            _ => usual,
        };
    }
    if t.name.contains("attn_output.weight") {
        return match mixture {
            Q2K | Q3KS | Q3KM | Q4KS | Q4KM if eight => Kind::Q5K,
            _ if eight => usual,
            Q2K => Kind::Q3K,
            Q3KM => Kind::Q4K,
            Q3KL => Kind::Q5K,
            _ => usual,
        };
    }
    usual
}

/// The type of blocks of 32 that takes the place of one of 256 where rows are no whole blocks; f16 where even that
/// does not fit.
fn fallback(kind: Kind, columns: usize) -> Kind {
    if columns.is_multiple_of(kind.block()) {
        return kind;
    }
    let smaller = match kind {
        Kind::Q2K | Kind::Q3K => Kind::Q4_0,
        Kind::Q4K => Kind::Q5_0,
        Kind::Q5K => Kind::Q5_1,
        Kind::Q6K => Kind::Q8_0,
        other => other,
    };
    if columns.is_multiple_of(smaller.block()) { smaller } else { Kind::F16 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_table_is_in_the_order_of_the_mixtures_and_names_go_both_ways() {
        for (i, (mixture, name, ..)) in TABLE.iter().enumerate() {
            assert_eq!(*mixture as usize, i);
            assert_eq!(Mixture::parse(&name.to_uppercase()).unwrap(), *mixture);
        }
        assert!(Mixture::parse("q4").unwrap_err().to_string().contains("q4_k_m"));
    }

    fn llama(
        hidden: usize,
        ffn: usize,
        layers: usize,
        heads: (usize, usize),
        tied: bool,
    ) -> (Facts, Vec<(String, usize)>) {
        let facts = Facts {
            architecture: "llama",
            num_hidden_layers: layers,
            num_attention_heads: heads.0,
            num_key_value_heads: heads.1,
            num_experts: 0,
        };
        let mut names = vec![("token_embd.weight".to_string(), hidden)];
        if !tied {
            names.push(("output.weight".to_string(), hidden));
        }
        for n in 0..layers {
            for part in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up"] {
                names.push((format!("blk.{n}.{part}.weight"), hidden));
            }
            names.push((format!("blk.{n}.ffn_down.weight"), ffn));
            names.push((format!("blk.{n}.attn_norm.weight"), 0));
        }
        names.sort_by(|a, b| order(&a.0).cmp(&order(&b.0)));
        (facts, names)
    }

    fn counts(mixture: &str, (facts, names): &(Facts, Vec<(String, usize)>)) -> BTreeMap<&'static str, usize> {
        let shapes: Vec<Shape> = names
            .iter()
            .map(|(name, columns)| Shape { name, columns: *columns, dimensions: if *columns == 0 { 1 } else { 2 } })
            .collect();
        let mut counts = BTreeMap::new();
        for kind in kinds(Mixture::parse(mixture).unwrap(), *facts, &shapes).into_iter().flatten() {
            *counts.entry(kind.name()).or_insert(0) += 1;
        }
        counts
    }

    #[test]
    fn smollm2_s_mixture_is_llama_quantize_s() {
        // llama-quantize on SmolLM2-135M's f16: 576 columns are no multiple of 256, so 180 tensors fall back.
        let smollm2 = llama(576, 1536, 30, (9, 3), true);
        let expected = BTreeMap::from([("Q5_0", 166), ("Q8_0", 15), ("Q4_K", 16), ("Q6_K", 14)]);
        assert_eq!(counts("q4_k_m", &smollm2), expected);
        assert_eq!(counts("f16", &smollm2), BTreeMap::from([("F16", 211)]));
        assert_eq!(counts("q8_0", &smollm2), BTreeMap::from([("Q8_0", 211)]));
    }

    #[test]
    fn eight_experts_get_more_bits_where_all_share_and_a_router_stays_as_it_is() {
        let (facts, mut names) = llama(4096, 14336, 32, (32, 8), false);
        names.retain(|(name, _)| !name.contains("ffn"));
        for n in 0..32 {
            for (part, columns) in [("gate_exps", 4096), ("up_exps", 4096), ("down_exps", 14336), ("gate_inp", 4096)] {
                names.push((format!("blk.{n}.ffn_{part}.weight"), columns));
            }
        }
        names.sort_by(|a, b| order(&a.0).cmp(&order(&b.0)));
        // k and v of 32 layers, o of 32, every other ffn_down as in a dense model; 32 routers have none.
        let mixtral = (Facts { num_experts: 8, ..facts }, names.clone());
        let expected = BTreeMap::from([("Q4_K", 113), ("Q5_K", 32), ("Q6_K", 17), ("Q8_0", 64)]);
        assert_eq!(counts("q4_k_m", &mixtral), expected);
        assert_eq!(counts("f16", &mixtral), BTreeMap::from([("F16", 226)]));
        let others = (Facts { num_experts: 128, ..facts }, names);
        assert_eq!(counts("q4_k_m", &others), BTreeMap::from([("Q4_K", 193), ("Q6_K", 33)]));
    }

    #[test]
    fn one_matrix_for_q_k_and_v_counts_as_values() {
        let (facts, mut names) = llama(3072, 8192, 32, (32, 32), false);
        names.retain(|(name, _)| !["attn_q.", "attn_k.", "attn_v.", "ffn_gate"].iter().any(|part| name.contains(part)));
        names.extend((0..32).map(|n| (format!("blk.{n}.attn_qkv.weight"), 3072)));
        names.sort_by(|a, b| order(&a.0).cmp(&order(&b.0)));
        let phi3 = (Facts { architecture: "phi3", ..facts }, names);
        assert_eq!(counts("q4_k_m", &phi3), BTreeMap::from([("Q4_K", 97), ("Q6_K", 33)]));
        assert_eq!(counts("q2_k", &phi3), BTreeMap::from([("Q2_K", 33), ("Q3_K", 96), ("Q6_K", 1)]));
    }

    #[test]
    fn larger_shapes_follow_the_rules_by_layer() {
        // 32 layers, 4 heads a value head: layers 0..4, 28.. and every third between get Q6_K (llama_ftype Q4_K_M).
        let llama3_8b = llama(4096, 14336, 32, (32, 8), false);
        assert_eq!(counts("q4_k_m", &llama3_8b), BTreeMap::from([("Q4_K", 193), ("Q6_K", 33)]));
        assert_eq!(counts("q4_k_s", &llama3_8b), BTreeMap::from([("Q4_K", 217), ("Q5_K", 8), ("Q6_K", 1)]));
        assert_eq!(
            counts("q2_k", &llama3_8b),
            BTreeMap::from([("Q2_K", 129), ("Q3_K", 64), ("Q4_K", 32), ("Q6_K", 1)])
        );
        let llama_70b = llama(8192, 28672, 80, (64, 8), false);
        let values = counts("q4_k_m", &llama_70b);
        assert_eq!((values["Q5_K"], values["Q6_K"]), (40, 81));
    }
}
