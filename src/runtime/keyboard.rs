//! The terminal's events, read on another thread than the screen's: on a terminal that hung up, reading never
//! returns, and leaving must not wait for it.

use crossterm::event::{Event, EventStream};
use futures_util::StreamExt;
use std::io;
use std::sync::mpsc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;

/// How long giving the keyboard up may take.
const PATIENCE: Duration = Duration::from_millis(300);

/// Events from [`Keyboard::listen`] until it is dropped; after that the keys are another program's.
pub struct Keyboard {
    events: UnboundedReceiver<io::Result<Event>>,
    /// Dropped to end the reading.
    stop: Option<oneshot::Sender<()>>,
    ended: mpsc::Receiver<()>,
}

impl Keyboard {
    /// Begins to read. Must be called within the runtime.
    pub fn listen() -> Keyboard {
        let (say, events) = unbounded_channel();
        let (stop, mut stopped) = oneshot::channel::<()>();
        let (end, ended) = mpsc::channel();
        tokio::spawn(async move {
            let mut stream = EventStream::new();
            loop {
                tokio::select! {
                    biased;
                    _ = &mut stopped => break,
                    event = stream.next() => {
                        let Some(event) = event else { break };
                        if say.send(event).is_err() {
                            break;
                        }
                    }
                }
            }
            drop(stream);
            let _ = end.send(());
        });
        Keyboard { events, stop: Some(stop), ended }
    }

    /// The next event; `None`: the keyboard is gone.
    pub async fn next(&mut self) -> Option<io::Result<Event>> {
        self.events.recv().await
    }

    /// The next event that is there already.
    pub fn waiting(&mut self) -> Option<Event> {
        self.events.try_recv().ok()?.ok()
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        self.stop = None;
        let _ = self.ended.recv_timeout(PATIENCE);
    }
}
