//! `finetop new`: a commented recipe for a goal, a model and rows.

use super::args::NewArgs;
use super::output::{self, progress};
use crate::data::survey::Survey;
use crate::train::draft::{self, Wish};
use crate::{Error, Result};
use std::io::{IsTerminal, Write};

pub fn run(args: &NewArgs) -> Result<()> {
    let terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    let answers = ask(args, terminal, &mut |question| line(question))?;
    let (path, text) = draft::write(&answers.wish, &answers.survey, args.out.as_deref(), &mut progress)?;
    output::print(&text)?;
    progress(&format!("wrote {}; next: finetop check {0}, then finetop {0}", path.display()));
    Ok(())
}

/// What was asked for, and what the rows are.
struct Answers {
    wish: Wish,
    survey: Survey,
}

/// Ask for what the arguments leave open.
fn ask(args: &NewArgs, terminal: bool, answer: &mut dyn FnMut(&str) -> Option<String>) -> Result<Answers> {
    let missing = |what: &str, option: &str| {
        Error::usage(format!("{what} is not given, and there is no terminal to ask on")).next(format!("add {option}"))
    };
    if !terminal {
        if args.method.is_none() {
            let names: Vec<String> = draft::goals().into_iter().map(|g| g.0).collect();
            return Err(missing("the method", &format!("--method {}", names.join("|"))));
        }
        if args.data.is_none() {
            return Err(missing("the data", "--data PATH"));
        }
    }
    let data = match &args.data {
        Some(data) => data.clone(),
        None => until(answer, "rows to learn from (a file, a folder, or hf:OWNER/NAME): ", None)?,
    };
    let source = draft::source(&data)?;
    let survey = Survey::of(&source, &mut progress).map_err(|e| e.at(&data))?;
    let goal = match &args.method {
        Some(goal) => goal.clone(),
        None => {
            progress(&table(&survey));
            let first = draft::goals().into_iter().map(|g| g.0).find(|g| serves(g, &survey).is_ok());
            until(answer, "what for", first.as_deref())?
        }
    };
    let (method, full) = draft::method(&goal)?;
    let model = match &args.model {
        Some(model) => model.clone(),
        None if terminal => until(
            answer,
            "model (a folder, a .gguf file, OWNER/NAME of the hub, ollama:NAME)",
            Some(draft::suggested_model()),
        )?,
        None => draft::suggested_model().to_string(),
    };
    Ok(Answers { wish: Wish { method, full, model, data }, survey })
}

fn serves(goal: &str, survey: &Survey) -> std::result::Result<(), String> {
    let (method, _) = draft::method(goal).map_err(|e| e.what)?;
    survey.can(method).map_err(str::to_string)
}

/// The goals, and which the rows serve.
fn table(survey: &Survey) -> String {
    let mut out = vec![survey.about()];
    for (goal, good_for, needs) in draft::goals() {
        let (sign, why) = match serves(&goal, survey) {
            Ok(()) => ('✓', format!("needs {needs}")),
            Err(why) => ('✕', why),
        };
        out.push(format!("  {sign} {goal:<6} {good_for:<46} {why}"));
    }
    out.join("\n")
}

/// The answer to a question; Enter takes what is offered.
fn until(answer: &mut dyn FnMut(&str) -> Option<String>, question: &str, offered: Option<&str>) -> Result<String> {
    let text = match offered {
        Some(offered) => answer(&format!("{question} [{offered}]: ")),
        None => answer(question),
    };
    match (text, offered) {
        (None, _) => Err(Error::usage("no answer")),
        (Some(text), Some(offered)) if text.trim().is_empty() => Ok(offered.to_string()),
        (Some(text), _) if text.trim().is_empty() => {
            Err(Error::usage("nothing was named").next("finetop new --help says what can be given"))
        }
        (Some(text), _) => Ok(text.trim().to_string()),
    }
}

fn line(question: &str) -> Option<String> {
    let mut err = std::io::stderr().lock();
    let _ = write!(err, "{question}").and_then(|()| err.flush());
    let mut text = String::new();
    (std::io::stdin().read_line(&mut text).ok()? > 0).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_arguments_leave_open_is_asked_and_without_a_terminal_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.jsonl");
        std::fs::write(&file, "{\"instruction\":\"q\",\"output\":\"a\"}\n").unwrap();
        let none = NewArgs { method: None, model: None, data: None, out: None };
        let e = ask(&none, false, &mut |_| None).err().unwrap().to_string();
        assert!(e.contains("--method sft|"), "{e}");
        let mut asked = Vec::new();
        let mut replies = vec!["demo", "", file.to_str().unwrap()];
        let answers = ask(&none, true, &mut |q| {
            asked.push(q.to_string());
            replies.pop().map(str::to_string)
        });
        let wish = answers.unwrap().wish;
        assert_eq!((wish.model.as_str(), wish.full), ("demo", false));
        assert!(asked[1].contains("[sft]"), "the first goal that the rows serve is offered: {asked:?}");
    }
}
