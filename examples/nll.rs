//! Mean negative log-likelihood of a text's first 512 tokens under each model, as JSON by file name:
//! `nll TEXT MODEL …`. For `tests/reference/served.py`.

use finetop::data::batch::{Batch, Example};
use finetop::train::speaker::{Speaker, TemplateChoice};
use std::collections::BTreeMap;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let text = std::fs::read_to_string(arguments.next().ok_or("name a text")?)?;
    let mut found = BTreeMap::new();
    for model in arguments {
        let speaker = Speaker::load(&model, None, TemplateChoice::default())?;
        let mut ids = speaker.tokenizer.encode(&text)?.ids;
        ids.truncate(512);
        let trained = vec![true; ids.len()];
        let (sum, labels) = speaker.model.loss(&Batch::of(&[&Example { ids: ids.into(), trained: trained.into(), row: 0, truncated: false }]))?;
        let name = Path::new(&model).file_name().ok_or("no file")?.to_string_lossy().into_owned();
        found.insert(name, sum / labels as f64);
    }
    println!("{}", serde_json::to_string_pretty(&found)?);
    Ok(())
}
