//! The conversation that the chat page holds: a thread of its own with the model, and with its base where that is asked.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;

use super::effects::Note;
use crate::console::Message;
use crate::console::message::Who;
use crate::run::artifact;
use crate::run::event::SampleSettings;
use crate::run::talk::Talk;
use crate::{Error, Result};

/// Pieces of an answer are collected for so long: nobody reads faster.
const PIECE: Duration = Duration::from_millis(40);

enum Ask {
    Say(String, SampleSettings),
    BeginAnew,
}

/// Dropped, it ends.
pub struct Talking {
    asks: Sender<Ask>,
    hush: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
}

impl Talking {
    /// Begins to read the model of `run`.
    pub fn start(run: &Path, compare: bool, say: UnboundedSender<Note>) -> Self {
        let (asks, asked) = mpsc::channel();
        let (hush, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let what = run.display().to_string();
        let stop = Stop { hush: Arc::clone(&hush), over: Arc::clone(&over) };
        std::thread::spawn(move || {
            if let Err(e) = talk(&what, compare, &asked, &stop, &say)
                && !stop.over.load(Ordering::Relaxed)
            {
                let _ = say.send(Note::Tell(Message::TalkFailed(e.to_string())));
            }
        });
        Self { asks, hush, over }
    }

    pub fn say(&self, text: String, settings: SampleSettings) {
        self.hush.store(false, Ordering::Relaxed);
        let _ = self.asks.send(Ask::Say(text, settings));
    }

    pub fn begin_anew(&self) {
        let _ = self.asks.send(Ask::BeginAnew);
    }

    /// Ends the answer that is on its way.
    pub fn hush(&self) {
        self.hush.store(true, Ordering::Relaxed);
    }
}

impl Drop for Talking {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

struct Stop {
    hush: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
}

impl Stop {
    fn asked(&self) -> bool {
        self.hush.load(Ordering::Relaxed) || self.over.load(Ordering::Relaxed)
    }
}

fn talk(what: &str, compare: bool, asked: &Receiver<Ask>, stop: &Stop, say: &UnboundedSender<Note>) -> Result<()> {
    let artifact = artifact::find(what)?;
    let before = match compare {
        true => Some(artifact.before().ok_or_else(|| Error::new(format!("what {what} was before is not known")))?),
        false => None,
    };
    let mut talks = vec![(Who::Trained, Talk::open(&artifact)?)];
    if let Some(before) = &before {
        talks.push((Who::Before, Talk::open(before)?));
    }
    let _ = say.send(Note::Tell(Message::TalkReady {
        title: artifact.title.clone(),
        before: before.map(|b| b.title),
        settings: Talk::settings(&artifact),
    }));
    while let Ok(ask) = asked.recv() {
        if stop.over.load(Ordering::Relaxed) {
            break;
        }
        match ask {
            Ask::BeginAnew => talks.iter_mut().for_each(|(_, t)| t.begin_anew()),
            Ask::Say(text, settings) => {
                for (who, talk) in &mut talks {
                    if let Err(e) = answer(*who, talk, &text, &settings, stop, say) {
                        let _ = say.send(Note::Tell(Message::TalkFailed(e.to_string())));
                        break;
                    }
                }
            }
        }
    }
    Ok(())
}

fn answer(
    who: Who,
    talk: &mut Talk,
    text: &str,
    settings: &SampleSettings,
    stop: &Stop,
    say: &UnboundedSender<Note>,
) -> Result<()> {
    let heard = |piece: String, ended| drop(say.send(Note::Tell(Message::Heard { who, piece, ended })));
    let began = Instant::now();
    let (mut held, mut sent) = (String::new(), Instant::now());
    let answer = talk.say(text, settings, &mut |piece| {
        held.push_str(piece);
        if sent.elapsed() >= PIECE {
            heard(std::mem::take(&mut held), None);
            sent = Instant::now();
        }
        !stop.asked()
    })?;
    let rate = answer.tokens as f64 / began.elapsed().as_secs_f64().max(1e-9);
    let why = match answer.stop_reason {
        "stop" | "stop_string" => "stop ✓",
        "interrupted" => "ended by you",
        _ => "no stop",
    };
    heard(held, Some(format!("{why}, {} tokens, {rate:.0} tok/s", answer.tokens)));
    Ok(())
}
