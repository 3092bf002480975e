//! Rows of a run's data as its model sees them: tokens, and which of them it is trained to say.
//!
//! Reads and tokenizes as the trainer did (from its token cache, mostly); call it off the screen's thread.

use std::path::Path;

use super::effects::Note;
use crate::console::Message;
use crate::console::model::{RowToken, RowTokens};
use crate::data::explain;
use crate::data::of_recipe::{self, OfRecipe};
use crate::data::prepare::Prepared;
use crate::data::tokenizer::Tokenizer;
use crate::model::loading::Opened;
use crate::model::source;
use crate::recipe::{self, Recipe};
use crate::run::folder::RunFolder;
use crate::{Error, Result};

/// The rows of a step of `run`, for the console.
///
/// # Errors
/// The model's tokenizer or the data cannot be read any more; the rows are not in it.
pub fn read(run: &Path, rows: &[u32]) -> Result<Note> {
    let folder = RunFolder::open(run)?;
    let loaded = recipe::parse(&folder.read_recipe()?, &folder.recipe().to_string_lossy(), &[])?;
    let found = rows_of(&loaded.recipe, rows)?;
    if found.is_empty() {
        return Err(Error::new("none of this step's rows is in the data any more").at("data.train"));
    }
    Ok(Note::Tell(Message::Rows(found)))
}

/// These rows of a recipe's training data. A row that makes several examples comes several times.
///
/// # Errors
/// The model's tokenizer or the data cannot be read.
pub fn rows_of(recipe: &Recipe, rows: &[u32]) -> Result<Vec<RowTokens>> {
    let opened = Opened::open(&source::resolve(&recipe.model.name_or_path)?)?;
    let OfRecipe { tokenizer, prepared } = of_recipe::read(recipe, &opened)?;
    Ok(rows.iter().flat_map(|&row| of_row(row, &prepared, &tokenizer)).collect())
}

fn of_row(row: u32, prepared: &Prepared, tokenizer: &Tokenizer) -> Vec<RowTokens> {
    let place = prepared.rows.places.get(row as usize).and_then(|place| {
        let file = prepared.rows.files.get(place.file as usize)?;
        Some(format!("{} line {}", file.file_name().unwrap_or_default().to_string_lossy(), place.line))
    });
    let examples = prepared.train.iter().filter(|e| e.row == row);
    let told = examples.map(|e| {
        let trained = explain(e, tokenizer).into_iter().map(|(_, id, trained)| (id, trained));
        // The text as it is, line breaks and all: the page flows with them.
        let token = |(id, trained)| {
            let text = tokenizer.decode(&[id], false).unwrap_or_else(|_| tokenizer.display(id));
            // Half of a character of several bytes is no text of its own.
            let text = if text.contains('\u{fffd}') { tokenizer.display(id) } else { text };
            RowToken { id, text, trained, loss: None }
        };
        RowTokens { row, place: place.clone().unwrap_or_default(), tokens: trained.map(token).collect() }
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_trained_on_its_answer_and_not_on_its_question() {
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny-llama");
        let text = format!(
            "method = \"sft\"\n[model]\nname_or_path = {model:?}\n[data]\ntrain = \"{model}/rows.jsonl\"\n\
             [train]\nassistant_only_loss = true\n"
        );
        let recipe = recipe::parse(&text, "r.toml", &[]).unwrap().recipe;
        let rows = rows_of(&recipe, &[0, 2]).unwrap();
        assert_eq!(rows.iter().map(|r| r.row).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(rows[0].place, "rows.jsonl line 1");
        let text = |trained| {
            rows[0].tokens.iter().filter(|t| t.trained == trained).map(|t| t.text.as_str()).collect::<String>()
        };
        assert!(text(true).contains("The bridge is north of the mill.<|im_end|>"), "{:?}", text(true));
        assert!(text(false).contains("user\nWhere is the bridge?"), "{:?}", text(false));
        assert!(!text(true).contains("Where"), "{:?}", text(true));
    }

    #[test]
    fn a_row_that_is_not_there_is_not_made_up() {
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny-llama");
        let text =
            format!("method = \"sft\"\n[model]\nname_or_path = {model:?}\n[data]\ntrain = \"{model}/rows.jsonl\"\n");
        let recipe = recipe::parse(&text, "r.toml", &[]).unwrap().recipe;
        assert!(rows_of(&recipe, &[100_000]).unwrap().is_empty());
    }
}
