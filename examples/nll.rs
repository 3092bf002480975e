//! Mean negative log-likelihood of a text under each model, as JSON by file name: `nll TEXT [--windows N] MODEL …`. The text is
//! cut into windows of 512 tokens, each on its own, of which the first N count (1 unless given). For
//! `tests/reference/served.py` and `ship_served.py`.

use finetop::data::batch::{Batch, Example};
use finetop::train::speaker::{Speaker, TemplateChoice};
use std::collections::BTreeMap;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let windows = match arguments.iter().position(|a| a == "--windows") {
        Some(at) => {
            let given: Vec<String> = arguments.drain(at..(at + 2).min(arguments.len())).collect();
            given.get(1).ok_or("how many windows?")?.parse()?
        }
        None => 1,
    };
    let mut arguments = arguments.into_iter();
    let text = std::fs::read_to_string(arguments.next().ok_or("name a text")?)?;
    let mut found = BTreeMap::new();
    for model in arguments {
        let speaker = Speaker::load(&model, None, TemplateChoice::default())?;
        let ids = speaker.tokenizer.encode(&text)?.ids;
        let (mut sum, mut labels) = (0.0, 0);
        for window in ids.chunks(512).take(windows) {
            let (s, n) = speaker.model.loss(&Batch::of(&[&Example {
                ids: window.to_vec().into(),
                trained: vec![true; window.len()].into(),
                row: 0,
                truncated: false,
            }]))?;
            sum += s;
            labels += n;
        }
        let name = Path::new(&model).file_name().ok_or("no file")?.to_string_lossy().into_owned();
        found.insert(name, sum / labels as f64);
    }
    println!("{}", serde_json::to_string_pretty(&found)?);
    Ok(())
}
