//! `finetop chat`: talk to a run, an adapter or a model.

use super::args::ChatArgs;
use super::output;
use crate::run::artifact;
use crate::run::talk::Talk;
use crate::{Error, Result};
use std::io::{BufRead, IsTerminal, Write};

const HELP: &str = "/new begins anew · /temp 0.7 sets the temperature · /quit or Ctrl-D ends";

pub fn run(args: &ChatArgs) -> Result<()> {
    let artifact = artifact::find(&args.what)?;
    output::fetch(&artifact.model)?;
    let mut talk = Talk::open(&artifact)?;
    let mut settings = Talk::settings(&artifact);
    let person = std::io::stdin().is_terminal();
    output::progress(&artifact.title);
    if person {
        output::progress(HELP);
    }
    loop {
        if person {
            say("\n› ")?;
        }
        let mut line = String::new();
        if std::io::stdin().lock().read_line(&mut line)? == 0 {
            return Ok(());
        }
        let text = match line.trim() {
            "" => continue,
            "/quit" => return Ok(()),
            "/new" => {
                talk.begin_anew();
                continue;
            }
            command if command.starts_with("/temp") => {
                match command.trim_start_matches("/temp").trim().parse::<f64>() {
                    Ok(t) if (0.0..=5.0).contains(&t) => settings.temperature = t,
                    _ => output::progress("write /temp and a number from 0 to 5"),
                }
                continue;
            }
            text => text,
        };
        let mut broken = None;
        talk.say(text, &settings, &mut |piece| match say(piece) {
            Ok(()) => true,
            Err(e) => {
                broken = Some(e);
                false
            }
        })?;
        if let Some(e) = broken {
            return Err(e);
        }
        say("\n")?;
    }
}

fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| Error::new(format!("cannot write: {e}")))
}
