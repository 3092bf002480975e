//! What the console asks for, carried out. What may take long goes to a thread and answers with a [`Note`];
//! what needs the terminal goes back to the loop as a [`Wish`].

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::follow::Follower;
use super::recipe_file::RecipeFiles;
use super::shipping::Exports;
use super::talking::Talking;
use super::{drafting, launch, listing, remove, rows};
use crate::console::{Effect, Message};
use crate::run::folder::RunFolder;
use crate::run::link::{Link, LocalEnd};
use crate::run::shipping;
use crate::{Error, Result};

/// Of a long log only the end is shown.
const LOG_END: u64 = 256 * 1024;

/// What comes back to the loop.
#[derive(Debug)]
pub enum Note {
    /// For the console.
    Tell(Message),
    /// Open this run.
    Open(PathBuf),
    /// The list of runs is out of date.
    List,
}

impl Note {
    pub fn failed(e: Error) -> Note {
        Note::Tell(Message::Replied(Err(e.to_string())))
    }
}

/// What only the loop can do.
#[derive(Debug)]
pub enum Wish {
    Nothing,
    Take(Note),
    Leave(Option<String>),
    Suspend,
    Edit(PathBuf),
    Copy(String),
    /// These bytes, unless somebody is looking.
    Ring(String),
}

pub struct Effects {
    say: UnboundedSender<Note>,
    follower: Option<Follower>,
    /// The run that this process trains itself, if any.
    local: Option<LocalEnd>,
    files: RecipeFiles,
    /// The log that is shown.
    log: Option<PathBuf>,
    exports: Option<Exports>,
    talking: Option<Talking>,
}

impl Effects {
    pub fn new() -> (Effects, UnboundedReceiver<Note>) {
        let (say, inbox) = unbounded_channel();
        let effects = Effects {
            say,
            follower: None,
            local: None,
            files: RecipeFiles::default(),
            log: None,
            exports: None,
            talking: None,
        };
        (effects, inbox)
    }

    pub fn carry_out(&mut self, effect: Effect) -> Wish {
        match effect {
            Effect::Quit { line } => return Wish::Leave(line),
            Effect::Suspend => return Wish::Suspend,
            Effect::EditExternally { path } => return Wish::Edit(path),
            Effect::Copy(text) => return Wish::Copy(text),
            Effect::Bell => return Wish::Ring("\x07".into()),
            Effect::Notify(text) => return Wish::Ring(notification(&text)),
            Effect::OpenRun(dir) => return Wish::Take(self.open_run(&dir).unwrap_or_else(Note::failed)),
            Effect::OpenRecipe(what) => return Wish::Take(self.open_recipe(&what).unwrap_or_else(Note::failed)),
            Effect::ReadLog { run } => return Wish::Take(self.read_log(&run)),
            Effect::SaveRecipe { path, text } => return Wish::Take(self.save(&path, &text)),
            Effect::CloseRun => self.follower = None,
            Effect::Send(command) => match &self.follower {
                Some(follower) => follower.send(command),
                None => return Wish::Take(Note::failed(Error::new("no run is open"))),
            },
            Effect::ListRuns => {
                let say = self.say.clone();
                // The runs first: they are what one came for.
                self.work(move || {
                    let _ = say.send(Note::Tell(Message::Runs(listing::runs())));
                    let _ = say.send(Note::Tell(Message::Recipes(listing::recipes())));
                    Ok(Note::Tell(Message::Machine(listing::machine())))
                });
            }
            Effect::LookAt { data } => {
                let say = self.say.clone();
                self.work(move || {
                    let mut tell = |text: &str| drop(say.send(Note::Tell(Message::Replied(Ok(text.into())))));
                    Ok(Note::Tell(Message::Looked(drafting::look(&data, &mut tell).map_err(|e| e.to_string()))))
                });
            }
            Effect::Draft { goal, model, data } => {
                let say = self.say.clone();
                self.work(move || {
                    let mut tell = |text: &str| drop(say.send(Note::Tell(Message::Replied(Ok(text.into())))));
                    let written = drafting::write(&goal, &model, &data, &mut tell);
                    Ok(Note::Tell(written.map_or_else(|e| Message::NotDrafted(e.to_string()), Message::Drafted)))
                });
            }
            Effect::LookAtExport { run } => self.exports = Some(Exports::follow(run, self.say.clone())),
            Effect::CloseExport => self.exports = None,
            Effect::Export { run, out, wanted } => {
                let say = self.say.clone();
                self.work(move || {
                    shipping::start(&wanted, &out).inspect_err(|e| {
                        let words = vec![shipping::Word::Failed { why: e.to_string() }];
                        drop(say.send(Note::Tell(Message::Exported { run, words })));
                    })?;
                    Ok(Note::List)
                });
            }
            Effect::Talk { run, compare } => self.talking = Some(Talking::start(&run, compare, self.say.clone())),
            Effect::EndTalk => self.talking = None,
            Effect::Say { text, settings } => {
                if let Some(talking) = &self.talking {
                    talking.say(text, settings);
                }
            }
            Effect::Hush => {
                if let Some(talking) = &self.talking {
                    talking.hush();
                }
            }
            Effect::BeginAnew => {
                if let Some(talking) = &self.talking {
                    talking.begin_anew();
                }
            }
            Effect::Delete { runs } => self.work(move || remove::runs(&runs)),
            Effect::Rows { run, rows } => self.work(move || rows::read(&run, &rows)),
            Effect::Demo => self.work(|| launch::demo().map(Note::Open)),
            Effect::StartTraining { path, text } => {
                self.work(move || launch::recipe(path.as_deref(), &text).map(Note::Open));
            }
            Effect::Resume { run, step } => self.work(move || launch::resume(&run, step).map(Note::Open)),
            Effect::Branch { run, step, set } => self.work(move || launch::branch(&run, step, &set).map(Note::Open)),
        }
        Wish::Nothing
    }

    /// Opens a run and follows it. What it holds comes as messages.
    ///
    /// # Errors
    /// There is no run in `dir`.
    pub fn open_run(&mut self, dir: &Path) -> Result<Note> {
        if let Some(end) = self.local.clone().filter(|end| end.dir() == dir) {
            return self.open_local(end);
        }
        self.open(Link::open(dir)?)
    }

    /// Opens the run that this process trains.
    ///
    /// # Errors
    /// Its recipe cannot be read.
    pub fn open_local(&mut self, end: LocalEnd) -> Result<Note> {
        self.local = Some(end.clone());
        self.open(Link::local(end))
    }

    fn open(&mut self, link: Link) -> Result<Note> {
        let folder = RunFolder::open(link.dir())?;
        let (run, name) = (folder.path().to_owned(), folder.name());
        // A run killed in its first moments may have none; it can still be looked at.
        let recipe = folder.read_recipe().unwrap_or_default();
        let live = link.alive();
        self.follower = Some(Follower::start(link, self.say.clone()));
        Ok(Note::Tell(Message::Opened { run, name, recipe, live }))
    }

    /// Opens a recipe for editing: a path, or `demo`.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open_recipe(&mut self, what: &str) -> Result<Note> {
        let path = PathBuf::from(what);
        let text = if what == "demo" { crate::recipe::demo::TEXT.to_string() } else { self.files.read(&path)? };
        self.follower = None;
        Ok(Note::Tell(Message::RecipeOpened { path, text }))
    }

    fn save(&mut self, path: &Path, text: &str) -> Note {
        let reply = match self.files.save(path, text) {
            Ok(to) if to == path => Ok(format!("saved {}", path.display())),
            Ok(to) => Ok(format!(
                "another program changed {} meanwhile: it is left as it is, yours is saved as {}",
                path.display(),
                to.display()
            )),
            Err(e) => Err(format!("not saved, the text is still here: {e}")),
        };
        Note::Tell(Message::Replied(reply))
    }

    fn read_log(&mut self, run: &Path) -> Note {
        self.log = Some(run.join("run.log"));
        self.log_again().unwrap_or(Note::List)
    }

    /// The log that was asked for last, as it stands now.
    pub fn log_again(&mut self) -> Option<Note> {
        let path = self.log.as_ref()?;
        Some(match end_of(path) {
            Ok(lines) => Note::Tell(Message::Log(lines)),
            Err(e) => Note::failed(Error::new(format!("the log cannot be read: {e}")).at(path.display())),
        })
    }

    /// Before leaving: commands on their way get there.
    pub fn part(&mut self) {
        if let Some(follower) = self.follower.take() {
            follower.part();
        }
    }

    /// Does something slow on a thread; what it returns comes to the loop.
    fn work(&self, f: impl FnOnce() -> Result<Note> + Send + 'static) {
        let say = self.say.clone();
        tokio::task::spawn_blocking(move || {
            let _ = say.send(f().unwrap_or_else(Note::failed));
        });
    }
}

/// The last lines of a log; the first of them may have been cut and is then left out.
fn end_of(path: &Path) -> std::io::Result<Vec<String>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let from = file.metadata()?.len().saturating_sub(LOG_END);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().skip(usize::from(from > 0)).map(|l| l.replace('\t', "    ")).collect())
}

/// OSC 9: a desktop notification where the terminal has one, nothing elsewhere.
fn notification(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
    format!("\x1b]9;{text}\x07")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_carries_no_control_characters_of_its_own() {
        assert_eq!(notification("eval \x1b]52;c;AAAA\x07 rose"), "\x1b]9;eval ]52;c;AAAA rose\x07");
    }

    #[test]
    fn only_the_end_of_a_long_log_is_read_and_begins_with_a_whole_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.log");
        assert!(end_of(&path).unwrap().is_empty());
        let text: String = (0..50_000).map(|i| format!("line {i}\n")).collect();
        std::fs::write(&path, text).unwrap();
        let lines = end_of(&path).unwrap();
        assert_eq!(lines.last().unwrap(), "line 49999");
        assert!(lines.len() < 50_000 && lines[0].starts_with("line "));
    }
}
