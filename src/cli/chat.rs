//! `finetop chat`: talk to a run, an adapter or a model.

use super::args::ChatArgs;
use super::output;
use crate::run::artifact;
use crate::train::event::SampleSettings;
use crate::train::parts::generate::{Stops, generate};
use crate::train::parts::samples;
use crate::{Error, Result};
use serde_json::{Value, json};
use std::io::{BufRead, IsTerminal, Write};

const HELP: &str = "/new begins anew · /temp 0.7 sets the temperature · /quit or Ctrl-D ends";

pub fn run(args: &ChatArgs) -> Result<()> {
    let artifact = artifact::find(&args.what)?;
    output::fetch(&artifact.model)?;
    let speaker = artifact.load()?;
    let mut settings = artifact.recipe.as_ref().map_or_else(SampleSettings::default, |r| samples::settings(&r.sample));
    settings.max_new_tokens = settings.max_new_tokens.max(512);
    let system = artifact.recipe.as_ref().and_then(|r| r.sample.system.clone());
    let stops = Stops {
        ids: speaker.stop_ids.clone(),
        strings: artifact.recipe.as_ref().map(|r| r.sample.stop.clone()).unwrap_or_default(),
    };
    let person = std::io::stdin().is_terminal();
    output::progress(&artifact.title);
    if person {
        output::progress(HELP);
    }
    let opening = || system.iter().map(|s| json!({"role": "system", "content": s})).collect::<Vec<Value>>();
    let mut messages = opening();
    let mut turn = 0u64;
    loop {
        if person {
            say("\n› ")?;
        }
        let mut line = String::new();
        if std::io::stdin().lock().read_line(&mut line)? == 0 {
            return Ok(());
        }
        match line.trim() {
            "" => continue,
            "/quit" => return Ok(()),
            "/new" => {
                messages = opening();
                continue;
            }
            command if command.starts_with("/temp") => {
                match command.trim_start_matches("/temp").trim().parse::<f64>() {
                    Ok(t) if (0.0..=5.0).contains(&t) => settings.temperature = t,
                    _ => output::progress("write /temp and a number from 0 to 5"),
                }
                continue;
            }
            text => messages.push(json!({"role": "user", "content": text})),
        }
        let ids = speaker.conversation_ids(&messages)?;
        // What is decoded grows by whole characters only: a token can be a part of one.
        let mut shown = 0;
        let mut broken = None;
        let done = generate(&speaker.model, &ids, &settings, &stops, turn, &|ids| speaker.decode(ids), &mut |new| {
            let text = speaker.decode(new).unwrap_or_default();
            let whole = text.trim_end_matches('\u{fffd}').len();
            if whole > shown && text.is_char_boundary(shown) {
                if let Err(e) = say(&text[shown..whole]) {
                    broken = Some(e);
                    return false;
                }
                shown = whole;
            }
            true
        })?;
        if let Some(e) = broken {
            return Err(e);
        }
        if shown < done.text.len() && done.text.is_char_boundary(shown) {
            say(&done.text[shown..])?;
        }
        say("\n")?;
        messages.push(json!({"role": "assistant", "content": done.text}));
        turn += 1;
    }
}

fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| Error::new(format!("cannot write: {e}")))
}
