//! The thread that holds the model: jobs come in, pieces of answers go out.

use super::api::{Prompt, Request, Usage};
use crate::run::artifact::Artifact;
use crate::run::talk::{Pieces, Talk};
use crate::train::parts::generate::{Stops, generate};
use crate::train::speaker::Speaker;
use crate::{Error, Result};
use std::sync::mpsc::{self, Sender};
use tokio::sync::mpsc::UnboundedSender;

/// What a job hears.
#[derive(Debug)]
pub enum Heard {
    Piece(String),
    /// The end: the whole text, why, and what it took.
    End {
        text: String,
        stop_reason: &'static str,
        usage: Usage,
    },
    Failed(String),
}

pub struct Job {
    pub request: Request,
    /// Closed, the job is of no use to anybody and ends.
    pub to: UnboundedSender<Heard>,
}

/// Reads the model, then answers jobs one after the other for as long as any can come.
///
/// # Errors
/// When the model cannot be read.
pub fn start(artifact: &Artifact) -> Result<Sender<Job>> {
    let (jobs, received) = mpsc::channel::<Job>();
    let (ready, is_ready) = mpsc::channel();
    let artifact = artifact.clone();
    std::thread::spawn(move || {
        let stops = artifact.recipe.as_ref().map(|r| r.sample.stop.clone()).unwrap_or_default();
        match artifact.load() {
            Ok(speaker) => {
                let _ = ready.send(Ok(()));
                for job in received {
                    if let Err(e) = answer(&speaker, &stops, &job) {
                        let _ = job.to.send(Heard::Failed(e.to_string()));
                    }
                }
            }
            Err(e) => drop(ready.send(Err(e))),
        }
    });
    is_ready.recv().map_err(|_| Error::new("the model's thread ended"))??;
    Ok(jobs)
}

/// How requests are drawn that do not say otherwise.
pub fn usual(artifact: &Artifact) -> crate::train::event::SampleSettings {
    Talk::settings(artifact)
}

fn answer(speaker: &Speaker, stops: &[String], job: &Job) -> Result<()> {
    let request = &job.request;
    let ids = match &request.prompt {
        Prompt::Chat(messages) => speaker.conversation_ids(messages)?,
        Prompt::Text(text) => speaker.tokenizer.encode_with_special(text)?.ids,
    };
    let strings = stops.iter().chain(&request.stop).cloned().collect();
    let stops = Stops { ids: speaker.stop_ids.clone(), strings };
    let mut pieces = Pieces::default();
    // A text that may be the start of a stop string is held back: what was sent cannot be taken back.
    let held = stops.strings.iter().map(String::len).max().unwrap_or(1).saturating_sub(1);
    let decode = |ids: &[u32]| speaker.decode(ids);
    let done = generate(&speaker.model, &ids, &request.settings, &stops, 0, &decode, &mut |new| {
        let text = speaker.decode(new).unwrap_or_default();
        let mut end = text.len().saturating_sub(held);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        if let Some(piece) = pieces.new_in(&text[..end]) {
            return job.to.send(Heard::Piece(piece.to_string())).is_ok();
        }
        !job.to.is_closed()
    })?;
    if let Some(rest) = pieces.rest_of(&done.text) {
        let _ = job.to.send(Heard::Piece(rest.to_string()));
    }
    let usage = Usage { prompt: ids.len(), completion: done.ids.len() };
    let _ = job.to.send(Heard::End { text: done.text, stop_reason: done.stop_reason, usage });
    Ok(())
}
