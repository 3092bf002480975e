//! `finetop show RECIPE --as trl|unsloth`: the recipe as a Python script.

use super::args::ShowArgs;
use super::output;
use crate::Result;
use crate::data::survey::Survey;
use crate::recipe::{self, python};
use std::path::Path;

pub fn run(args: &ShowArgs) -> Result<()> {
    let loaded = recipe::load(&args.recipe, &args.set)?;
    let recipe = &loaded.recipe;
    let library = if args.library == "unsloth" { python::Library::Unsloth } else { python::Library::Trl };
    let format = match (recipe.data.format.as_str(), recipe.data.train.first()) {
        // The rows say; where they are not here the method does.
        ("auto", Some(source)) if recipe.data.messages.is_none() => found(recipe, source).unwrap_or_else(|e| {
            let usual = match recipe.method {
                recipe::Method::Sft => "messages",
                recipe::Method::Cpt => "text",
                recipe::Method::Dpo => "preference",
                recipe::Method::Grpo => "prompt",
            };
            output::progress(&format!("note: the rows cannot be read, so the script takes them for {usual}: {e}"));
            usual.to_string()
        }),
        (format, _) => format.to_string(),
    };
    let name = Path::new(&args.recipe).file_name().map_or(args.recipe.clone(), |n| n.to_string_lossy().into_owned());
    output::print(&python::script(recipe, library, &format, &name)?)
}

fn found(recipe: &recipe::Recipe, source: &recipe::DataSource) -> Result<String> {
    if let Some(format) = &source.format {
        return Ok(format.clone());
    }
    let survey = Survey::of(source, &mut output::progress)?;
    let served = survey.methods.into_iter().find(|(m, _)| *m == recipe.method).map(|(_, served)| served);
    match served {
        Some(Ok(detected)) => Ok(detected.format.name().to_string()),
        Some(Err(why)) => Err(crate::Error::new(why)),
        None => Err(crate::Error::new("the method is not known")),
    }
}
