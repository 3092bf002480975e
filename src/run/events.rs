//! `events.jsonl`: the writer, which the trainer has, and the tail, which every viewer has.
//!
//! A line is one event and one write. A line without its end is torn: readers leave it, the next writer
//! cuts it off. Viewers read the file, never the trainer, so a slow viewer slows nothing.

use serde::Deserialize;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::event::{Body, Event, Metrics, SCHEMA_VERSION, Step, number};
use super::files::failed;
use super::host::now;
use crate::{Error, Result};

/// Appends events. There is one at a time: its owner holds the run's lock.
pub struct EventWriter {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines.
    length: u64,
}

impl EventWriter {
    /// Opens the file for appending, cuts a torn last line off, and writes the schema line if it is new.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(failed("open the run's events", path))?;
        let length = whole_lines(&mut file).map_err(failed("read the run's events", path))?;
        file.set_len(length).map_err(failed("cut a torn line off the run's events", path))?;
        let mut writer = Self { path: path.to_owned(), file, length };
        if length == 0 {
            let program = format!("finetop {}", env!("CARGO_PKG_VERSION"));
            writer.write(&Event { time: now(), step: 0, body: Body::Schema { version: SCHEMA_VERSION, program } })?;
        }
        Ok(writer)
    }

    /// Appends one event with one write. Checkpoints and changes of state are synced to the disk as well.
    pub fn write(&mut self, event: &Event) -> Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        if let Err(e) = self.file.write_all(&line) {
            // A full disk may have taken half of it: the next line must not be glued to that half.
            let _ = self.file.set_len(self.length);
            return Err(failed("write the run's events", &self.path)(e));
        }
        self.length += line.len() as u64;
        if matches!(event.body, Body::Checkpoint(_) | Body::State(_)) {
            self.file.sync_data().map_err(failed("sync the run's events", &self.path))?;
        }
        Ok(())
    }
}

/// How many bytes of the file are whole lines: up to its last line end.
fn whole_lines(file: &mut File) -> std::io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut block = [0; 4096];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let piece = &mut block[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(piece)?;
        if let Some(last) = piece.iter().rposition(|&b| b == b'\n') {
            return Ok(start + last as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Reads events as they come: each call returns those whole since the last.
#[derive(Debug, Clone)]
pub struct Tail {
    path: PathBuf,
    offset: u64,
    skipped: u64,
}

impl Tail {
    /// From the first event.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self::from_offset(path, 0)
    }

    /// From a byte offset at which a line begins, as [`Tail::offset`] gave it.
    pub fn from_offset(path: impl Into<PathBuf>, offset: u64) -> Self {
        Self { path: path.into(), offset, skipped: 0 }
    }

    /// Where the next line begins, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Lines that could not be understood: event types of a later version, or damage.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The events whole since the last call. An event type that this version does not know is skipped.
    /// A file that is not there yet has none; one that became shorter is read from its start.
    ///
    /// # Errors
    /// When the file cannot be read, or is of a later schema version.
    pub fn read(&mut self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        self.read_lines(|line| {
            let event = parse(line);
            let known = event.is_some();
            events.extend(event);
            known
        })?;
        match events.iter().find_map(|e| if let Body::Schema { version, .. } = e.body { Some(version) } else { None }) {
            Some(version) if version > SCHEMA_VERSION => Err(Error::new(format!(
                "this run was written by a later finetop (schema {version}; this one reads {SCHEMA_VERSION})"
            ))
            .at(self.path.display())
            .next("update finetop here")),
            _ => Ok(events),
        }
    }

    /// Gives each whole line since the last call to `take`, without its end; it says whether it understood.
    fn read_lines(&mut self, mut take: impl FnMut(&[u8]) -> bool) -> Result<()> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(failed("read the run's events", &self.path)(e)),
        };
        let fail = || failed("read the run's events", &self.path);
        let length = file.metadata().map_err(fail())?.len();
        if length < self.offset {
            self.offset = 0;
        }
        if length == self.offset {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity((length - self.offset) as usize);
        file.seek(SeekFrom::Start(self.offset)).map_err(fail())?;
        file.take(length - self.offset).read_to_end(&mut bytes).map_err(fail())?;
        let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |last| last + 1);
        for line in bytes[..whole].split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
            if !take(line) {
                self.skipped += 1;
            }
        }
        self.offset += whole as u64;
        Ok(())
    }
}

/// Nearly all lines are steps, and read as what they are they cost a fraction of what finding out the type of
/// any event does (the type may stand anywhere, so everything is buffered first).
fn parse(line: &[u8]) -> Option<Event> {
    // In a text the quotes would be escaped, so this can only be the line's own type.
    let is_step = std::str::from_utf8(line).is_ok_and(|text| text.contains(r#""type":"step""#));
    if let (true, Ok(l)) = (is_step, serde_json::from_slice::<StepLine>(line)) {
        return Some(Event { time: l.time, step: l.step, body: Body::Step(l.into()) });
    }
    serde_json::from_slice(line).ok()
}

/// A step's line, flat as it is written.
#[derive(Deserialize)]
struct StepLine {
    time: f64,
    step: u64,
    #[serde(with = "number")]
    loss: f64,
    #[serde(with = "number")]
    grad_norm: f64,
    learning_rate: f64,
    epoch: f64,
    tokens: u64,
    label_tokens: u64,
    tokens_per_second: f64,
    seconds: f64,
    rows: Vec<u32>,
    #[serde(default)]
    metrics: Metrics,
}

impl From<StepLine> for Step {
    fn from(l: StepLine) -> Self {
        let StepLine {
            loss,
            grad_norm,
            learning_rate,
            epoch,
            tokens,
            label_tokens,
            tokens_per_second,
            seconds,
            rows,
            metrics,
            ..
        } = l;
        Step { loss, grad_norm, learning_rate, epoch, tokens, label_tokens, tokens_per_second, seconds, rows, metrics }
    }
}

/// All events of a file.
pub fn read_all(path: &Path) -> Result<Vec<Event>> {
    Tail::new(path).read()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::event::{RunState, State};

    fn state(step: u64) -> Event {
        Event { time: 1.5, step, body: Body::State(State { state: RunState::Running, why: String::new() }) }
    }

    fn append(path: &Path, text: &str) {
        OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn the_first_line_is_the_schema_and_is_written_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        EventWriter::open(&path).unwrap().write(&state(1)).unwrap();
        EventWriter::open(&path).unwrap().write(&state(2)).unwrap();
        let events = read_all(&path).unwrap();
        assert!(matches!(events[0].body, Body::Schema { version: SCHEMA_VERSION, .. }));
        assert_eq!(events[1..], [state(1), state(2)]);
    }

    #[test]
    fn a_torn_last_line_is_dropped_on_reading_and_cut_off_by_the_next_writer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        EventWriter::open(&path).unwrap().write(&state(1)).unwrap();
        // Longer than a block of the backward search.
        append(&path, &format!("{{\"time\":2.0,\"step\":2,\"type\":\"state\",\"why\":\"{}", "x".repeat(9000)));
        let mut tail = Tail::new(&path);
        assert_eq!(tail.read().unwrap().len(), 2);
        assert_eq!(tail.skipped(), 0);

        EventWriter::open(&path).unwrap().write(&state(3)).unwrap();
        assert_eq!(tail.read().unwrap(), [state(3)], "the same tail goes on over the cut");
        assert_eq!(read_all(&path).unwrap().len(), 3);
    }

    #[test]
    fn a_file_of_nothing_but_a_torn_line_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        std::fs::write(&path, "{\"time\":").unwrap();
        EventWriter::open(&path).unwrap();
        assert!(matches!(read_all(&path).unwrap()[..], [Event { body: Body::Schema { .. }, .. }]));
    }

    #[test]
    fn a_tail_returns_each_event_once_and_waits_for_the_end_of_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let mut tail = Tail::new(&path);
        assert!(tail.read().unwrap().is_empty(), "not there yet");
        let mut writer = EventWriter::open(&path).unwrap();
        assert_eq!(tail.read().unwrap().len(), 1);
        let line = serde_json::to_string(&state(5)).unwrap();
        append(&path, &line[..20]);
        assert!(tail.read().unwrap().is_empty());
        append(&path, &format!("{}\n", &line[20..]));
        assert_eq!(tail.read().unwrap(), [state(5)]);
        writer.write(&state(6)).unwrap();
        assert_eq!(Tail::from_offset(&path, tail.offset()).read().unwrap(), [state(6)]);
    }

    #[test]
    fn a_step_reads_the_same_by_the_short_way_and_the_long() {
        let step = Step {
            loss: 0.1 + 0.2,
            grad_norm: 1e-300,
            learning_rate: 1.87e-4,
            epoch: 0.34,
            tokens: 1,
            label_tokens: 2,
            tokens_per_second: 3.5,
            seconds: 4.5,
            rows: vec![7, 9],
            metrics: [("rewards/margins".to_string(), 0.1 + 0.2)].into(),
        };
        let event = Event { time: 1.25, step: 3, body: Body::Step(step) };
        let line = serde_json::to_vec(&event).unwrap();
        assert!(serde_json::from_slice::<StepLine>(&line).is_ok(), "the short way is taken");
        assert_eq!(parse(&line).unwrap(), event);
        assert_eq!(serde_json::from_slice::<Event>(&line).unwrap(), event);
        // The type may stand elsewhere, and the loss may be none.
        let other = r#"{"type":"step","time":1,"step":3,"loss":null,"grad_norm":1,"learning_rate":0,"epoch":0,"tokens":1,
            "label_tokens":1,"tokens_per_second":1,"seconds":1,"rows":[]}"#;
        assert!(matches!(parse(other.as_bytes()).unwrap().body, Body::Step(s) if s.loss.is_nan()));
    }

    #[test]
    fn unknown_event_types_and_damage_are_skipped_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let mut writer = EventWriter::open(&path).unwrap();
        append(&path, "{\"time\":1,\"step\":1,\"type\":\"from_the_future\",\"x\":[1]}\n\0\0\0\n");
        writer.write(&state(1)).unwrap();
        let mut tail = Tail::new(&path);
        assert_eq!(tail.read().unwrap().len(), 2);
        assert_eq!(tail.skipped(), 2);
    }

    #[test]
    fn a_later_schema_is_an_error_that_says_to_update() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        std::fs::write(&path, "{\"time\":1,\"step\":0,\"type\":\"schema\",\"version\":99,\"program\":\"x\"}\n")
            .unwrap();
        assert!(read_all(&path).unwrap_err().to_string().contains("update finetop"));
    }

    #[test]
    fn a_loss_that_is_not_a_number_survives_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let eval = crate::run::event::Eval {
            loss: f64::NAN,
            perplexity: f64::INFINITY,
            label_tokens: 1,
            seconds: 0.1,
            best: false,
            metrics: Metrics::new(),
        };
        EventWriter::open(&path).unwrap().write(&Event { time: 0.0, step: 1, body: Body::Eval(eval) }).unwrap();
        let Body::Eval(back) = &read_all(&path).unwrap()[1].body else { panic!() };
        assert!(back.loss.is_nan() && back.perplexity.is_nan());
    }
}
