//! The outlet with a queue before it, so that long work (an evaluation, a step of many micro-batches) can see that a
//! stop waits without losing the other orders.

use super::ending::Ending;
use crate::model::ranks::Ranks;
use crate::train::command::Command;
use crate::train::event::{Body, Change};
use crate::train::outlet::Outlet;
use crate::{Error, Result};
use std::collections::VecDeque;

pub struct Orders<'a> {
    outlet: &'a mut dyn Outlet,
    /// Whether other processes obey the same orders.
    together: bool,
    queue: VecDeque<Command>,
}

impl<'a> Orders<'a> {
    pub fn new(outlet: &'a mut dyn Outlet, ranks: &Ranks) -> Self {
        Self { outlet, together: ranks.size() > 1, queue: VecDeque::new() }
    }

    /// The next order, the same for all processes: rank 0 passes it on. While `paused` it waits for one.
    ///
    /// # Errors
    /// Another process is gone.
    pub fn next(&mut self, paused: bool, ranks: &mut Ranks) -> Result<Option<Command>> {
        let order = match self.queue.pop_front() {
            _ if !ranks.leads() => None,
            Some(order) => Some(order),
            None if paused => self.outlet.wait_command(),
            None => self.outlet.try_command(),
        };
        if !self.together {
            return Ok(order);
        }
        let word = ranks.leads().then_some(order);
        ranks.tell(word)
    }

    /// Whether an order waits that ends the run; all orders stay queued. Never among several processes: they could not
    /// agree on it in the middle of a step.
    pub fn urgent(&mut self) -> Option<Ending> {
        if self.together {
            return None;
        }
        while let Some(order) = self.outlet.try_command() {
            self.queue.push_back(order);
        }
        self.queue.iter().find_map(|order| match order {
            Command::Stop => Some(Ending::Stopped),
            Command::Abort => Some(Ending::Aborted),
            _ => None,
        })
    }

    pub fn emit(&mut self, step: u64, body: Body) -> Result<()> {
        self.outlet.emit(step, body)
    }

    /// Say that an order could not be done, and why; the run goes on.
    pub fn refuse(&mut self, step: u64, key: &str, why: &Error) -> Result<()> {
        let change =
            Change { key: key.to_string(), from: String::new(), to: String::new(), by: format!("refused: {why}") };
        self.outlet.emit(step, Body::Change(change))
    }

    /// The outlet itself, for what needs no queue.
    pub fn outlet(&mut self) -> &mut dyn Outlet {
        self.outlet
    }
}
