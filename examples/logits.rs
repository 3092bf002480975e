//! The logits that this program computes, for `tests/reference/peft_check.py --compare`.
//!
//!     cargo run --release --example logits -- MODEL ADAPTER IDS.json OUT.json

use finetop::data::batch::{Batch, Example};
use finetop::train::speaker::{Speaker, TemplateChoice};
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, adapter, ids, out] = args.as_slice() else {
        return Err("usage: logits MODEL ADAPTER IDS.json OUT.json".into());
    };
    let ids: Vec<u32> = serde_json::from_str(&std::fs::read_to_string(ids)?)?;
    let speaker = Speaker::load(model, Some(Path::new(adapter)), TemplateChoice::default())?;
    let trained = vec![true; ids.len()];
    let batch = Batch::of(&[&Example { ids: ids.into(), trained: trained.into(), row: 0, truncated: false }]);
    let logits = speaker.model.logits(&batch)?.to_vec2::<f32>()?;
    std::fs::write(out, serde_json::to_string(&serde_json::json!({ "logits": logits }))?)?;
    Ok(())
}
