//! Watching a run: what is open, and that each finding is said once.

use super::history::History;
use super::rules::{self, Rule};
use crate::recipe::Recipe;
use crate::train::event::{Body, Event, Finding};

/// Watches one run's events.
pub struct Doctor {
    history: History,
    open: Vec<(&'static Rule, Finding)>,
}

impl Doctor {
    pub fn new(recipe: &Recipe) -> Self {
        Self { history: History::new(recipe), open: Vec::new() }
    }

    /// Take an event; the answer is what opened by it, and what no longer holds (`resolved`). A rule that is open says
    /// nothing until it is resolved.
    ///
    /// Replaying a run's events rebuilds the doctor: the finding events among them are not read, what they say is
    /// found again.
    pub fn observe(&mut self, event: &Event) -> Vec<Finding> {
        if matches!(event.body, Body::Finding(_) | Body::State(_) | Body::Schema { .. }) {
            return Vec::new();
        }
        self.history.take(event);
        let mut said = Vec::new();
        for rule in rules::LIVE {
            let place = self.open.iter().position(|(r, _)| r.name == rule.name);
            let open = place.map(|i| &self.open[i].1);
            match ((rule.look)(&self.history, open), place) {
                (Some(found), None) => {
                    said.push(found.clone());
                    self.open.push((rule, found));
                }
                (None, Some(i)) => {
                    let (_, gone) = self.open.remove(i);
                    said.push(Finding { resolved: true, ..gone });
                }
                (Some(_), Some(_)) | (None, None) => {}
            }
        }
        said
    }

    /// What holds now, in the order it was found.
    pub fn open(&self) -> impl Iterator<Item = &Finding> {
        self.open.iter().map(|(_, finding)| finding)
    }
}
