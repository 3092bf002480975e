//! What the page of a new run asks for: a look at rows, and a recipe written for them.

use crate::Result;
use crate::console::message::{Goal, Looked};
use crate::data::survey::Survey;
use crate::train::draft::{self, Wish};
use std::path::PathBuf;

/// Look at rows; `say` hears how a download goes.
///
/// # Errors
/// They cannot be read.
pub fn look(data: &str, say: &mut dyn FnMut(&str)) -> Result<Looked> {
    let survey = Survey::of(&draft::source(data)?, say).map_err(|e| e.at(data))?;
    let goal = |(name, good_for, needs): (String, &str, &str)| {
        let why = draft::method(&name).map_err(|e| e.what).and_then(|(m, _)| survey.can(m).map_err(str::to_string));
        let words = match &why {
            Ok(()) => format!("needs {needs}"),
            Err(why) => why.clone(),
        };
        Goal { name, good_for: good_for.to_string(), words, serves: why.is_ok() }
    };
    let goals = draft::goals().into_iter().map(goal).collect();
    Ok(Looked { data: data.to_string(), about: survey.about(), goals, model: draft::suggested_model().to_string() })
}

/// Write the recipe; where it is.
///
/// # Errors
/// As [`draft::write`].
pub fn write(goal: &str, model: &str, data: &str, say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let survey = Survey::of(&draft::source(data)?, say)?;
    let (method, full) = draft::method(goal)?;
    let wish = Wish { method, full, model: model.to_string(), data: data.to_string() };
    Ok(draft::write(&wish, &survey, None, say)?.0)
}
