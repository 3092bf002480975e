//! What the events of a run add up to: series, samples, findings, checkpoints, time left.
//!
//! Folded one event at a time, so that a long run costs nothing to keep following.

use crate::run::event::{Body, Event, RunState, Start};

#[derive(Debug, Clone, Default)]
pub struct Run {
    pub start: Start,
    pub state: Option<RunState>,
    pub why: String,
    pub step: u64,
}

impl Run {
    pub fn fold(&mut self, event: &Event) {
        match &event.body {
            Body::Start(s) => self.start = (**s).clone(),
            Body::Step(_) => self.step = event.step,
            Body::State(s) => {
                self.state = Some(s.state);
                self.why.clone_from(&s.why);
            }
            _ => {}
        }
    }
}
