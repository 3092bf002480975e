//! One export from beginning to end: files, Modelfile, proof. The command line, the end of a run and the console
//! all go this way; what it says ([`Word`]) is written beside what it writes.
//!
//! Must not know who listens.

mod card;
mod manifest;
mod merged;
mod modelfile;
mod names;
mod offer;
mod order;
mod proof;
mod start;
mod svg;
mod sweep;
mod word;

pub use manifest::{read as made_from, write as make_manifest};
pub use merged::merge;
pub use names::{name_of, ollama as ollama_name};
pub use offer::{Choice, Offer, offer};
pub use order::{Order, Shipped, folder_of, ship};
pub use proof::{Proof, verify, written};
pub use start::{Wanted, start};
pub use sweep::{Point, Sweep, sweep};
pub use word::{Word, read as words};

use super::artifact::Artifact;
use crate::Result;
use crate::export::subject::Subject;
use crate::model::source::{self, Need};

/// Who hears the words.
pub type Tell<'a> = dyn FnMut(Word) + 'a;

/// The folder of a merged model within an export's.
pub const MERGED: &str = "merged";

/// The model that an artifact is, with the template that its recipe names; fetched where it is one of the hub's.
pub fn open(artifact: &Artifact, tell: &mut Tell) -> Result<Subject> {
    if artifact.recipe.as_ref().is_some_and(|r| r.model.load_in_4bit) && artifact.adapter.is_some() {
        tell(Word::Note { text: "trained over the base in 4 bits; exported over the base as it is stored".into() });
    }
    source::resolve_saying(&artifact.model, Need::Everything, &mut |text| tell(Word::Note { text: text.into() }))?;
    let template = artifact.recipe.as_ref().and_then(|r| r.model.chat_template.as_deref());
    Subject::open(&artifact.model, artifact.adapter.as_deref(), template)
}
