//! The export that the page follows: a thread that looks at the model once, and then at what its export says.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

use super::effects::Note;
use crate::console::Message;
use crate::run::shipping::{self, Word, folder_of};

/// Between two looks at what it said.
const LOOK: Duration = Duration::from_millis(200);

/// Dropped, it no longer follows.
pub struct Exports {
    over: Arc<AtomicBool>,
}

impl Exports {
    pub fn follow(run: PathBuf, say: UnboundedSender<Note>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (looked, watched) = (Arc::clone(&over), Arc::clone(&over));
        let (offered, to) = (run.clone(), say.clone());
        std::thread::spawn(move || {
            let found = shipping::offer(&offered.display().to_string(), &folder_of(&offered), &mut |word| {
                if let Word::Note { text } = word {
                    let _ = to.send(Note::Tell(Message::Replied(Ok(text))));
                }
            });
            if !looked.load(Ordering::Relaxed) {
                let found = found.map_err(|e| e.to_string());
                let _ = to.send(Note::Tell(Message::Offered { run: offered, found }));
            }
        });
        std::thread::spawn(move || watch(&run, &watched, &say));
        Self { over }
    }
}

impl Drop for Exports {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn watch(run: &Path, over: &AtomicBool, say: &UnboundedSender<Note>) {
    let out = folder_of(run);
    let mut known: Vec<Word> = Vec::new();
    while !over.load(Ordering::Relaxed) && !say.is_closed() {
        // What cannot be read now may be read in a moment: it is being written.
        if let Ok(words) = shipping::words(&out)
            && words != known
        {
            known.clone_from(&words);
            let _ = say.send(Note::Tell(Message::Exported { run: run.to_owned(), words }));
        }
        std::thread::sleep(LOOK);
    }
}
