//! Checkpoints that bitsandbytes has quantized to 4 bits (`*-bnb-4bit`): which are read, and a matrix's parts.
//!
//! A linear layer's `weight` holds its codes; its scales and their description lie beside it, under the weight's own name.

use crate::ops::lent::Lent;
use crate::ops::nf4::{self, Nf4, Scales};
use crate::ops::quant8::{self, Code};
use crate::{Error, Result};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// What follows a weight's name in the names of its parts (`QuantState.as_dict(packed=True)`).
const PARTS: [&str; 5] =
    [".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", ".quant_state.bitsandbytes__nf4"];
const STATE: &str = PARTS[4];

/// Whether a `quantization_config` is one whose weights are read here.
///
/// # Errors
/// Another of bitsandbytes' formats, or another program's, by name.
pub(crate) fn check(config: &Value) -> Result<()> {
    let text = |key: &str| config.get(key).and_then(Value::as_str);
    let flag = |key: &str| config.get(key).and_then(Value::as_bool).unwrap_or(false);
    let refuse = |what: String| Err(Error::new(what).next("use the original 16-bit model, or a .gguf"));
    let four = flag("load_in_4bit") || flag("_load_in_4bit");
    match text("quant_method") {
        Some("bitsandbytes") => {}
        None if four => {}
        Some(other) => return refuse(format!("the weights are quantized (quantization_config) by {other}")),
        None => return refuse("the weights are quantized (quantization_config)".into()),
    }
    if !four {
        return refuse(
            "the weights are quantized (quantization_config) to int8 by bitsandbytes; only nf4 is read".into(),
        );
    }
    match text("bnb_4bit_quant_type").unwrap_or("fp4") {
        "nf4" => Ok(()),
        other => refuse(format!(
            "the weights are quantized (quantization_config) as {other} by bitsandbytes; only nf4 is read"
        )),
    }
}

/// The weight that a tensor is a part of.
pub(crate) fn weight_of(tensor: &str) -> Option<&str> {
    PARTS.iter().find_map(|part| tensor.strip_suffix(part))
}

/// Whether this shard holds the weight in parts.
pub(crate) fn is_packed(shard: &SafeTensors, name: &str) -> bool {
    shard.tensor(&format!("{name}{STATE}")).is_ok()
}

/// A matrix of `rows · cols` weights from its parts; its codes are lent from the file by `lend`.
///
/// # Errors
/// A part that is missing or does not fit; other codes than NF4's, other scales than the signed dynamic map's.
pub(crate) fn read(
    shard: &SafeTensors,
    name: &str,
    (rows, cols): (usize, usize),
    lend: &dyn Fn(&[u8]) -> Result<Lent>,
) -> Result<Nf4> {
    let part = |suffix: &str, kind: Dtype| -> Result<TensorView> {
        let tensor = format!("{name}{suffix}");
        let view = shard.tensor(&tensor).map_err(|_| Error::new("tensor is missing").at(&tensor))?;
        match view.dtype() == kind {
            true => Ok(view),
            false => Err(Error::new(format!("stored as {:?}, expected {kind:?}", view.dtype())).at(tensor)),
        }
    };
    let floats = |suffix: &str| -> Result<Vec<f32>> {
        let view = part(suffix, Dtype::F32)?;
        Ok(view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    };
    let state: Value = serde_json::from_slice(part(STATE, Dtype::U8)?.data())
        .map_err(|e| Error::new(format!("not valid JSON: {e}")).at(format!("{name}{STATE}")))?;
    let wrong = |what: String| Err(Error::new(what).at(format!("{name}{STATE}")));
    let size = |key: &str| state.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    let kind = state.get("quant_type").and_then(Value::as_str).unwrap_or("none");
    if kind != "nf4" {
        return wrong(format!("quant_type {kind:?} is not read, only \"nf4\""));
    }
    let shape = state.get("shape").cloned().unwrap_or_default();
    if shape != serde_json::json!([rows, cols]) {
        return wrong(format!("shape {shape}, but config.json asks for [{rows}, {cols}]"));
    }
    let Some(block) = size("blocksize") else { return wrong("blocksize is missing".into()) };
    if floats(".quant_map")? != nf4::VALUES {
        return wrong("its quant_map is not NF4's".into());
    }
    let scales = match state.get("nested_offset").and_then(Value::as_f64) {
        None => Scales::Plain(floats(".absmax")?),
        Some(offset) => {
            if floats(".nested_quant_map")? != Code::dynamic(true).values() {
                return wrong("its nested_quant_map is not the signed dynamic map".into());
            }
            if size("nested_blocksize") != Some(quant8::BLOCK) {
                return wrong(format!("nested_blocksize is not {}", quant8::BLOCK));
            }
            let absmax = part(".absmax", Dtype::U8)?.data().to_vec();
            Scales::Nested { absmax, nested: floats(".nested_absmax")?, offset: offset as f32 }
        }
    };
    let codes = lend(part("", Dtype::U8)?.data())?;
    Nf4::of(rows, cols, block, codes, scales).map_err(|e| e.at(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_nf4_is_read_and_the_others_are_refused_by_name() {
        let nf4 = json!({"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4"});
        assert!(check(&nf4).is_ok());
        assert!(check(&json!({"_load_in_4bit": true, "bnb_4bit_quant_type": "nf4"})).is_ok());
        for (config, named) in [
            (json!({"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "fp4"}), "fp4"),
            (json!({"quant_method": "bitsandbytes", "load_in_4bit": true}), "fp4"),
            (json!({"quant_method": "bitsandbytes", "load_in_8bit": true}), "int8"),
            (json!({"quant_method": "gptq"}), "gptq"),
            (json!({}), "quantized"),
        ] {
            let e = check(&config).unwrap_err().to_string();
            assert!(e.contains(named), "{e}");
        }
    }
}
