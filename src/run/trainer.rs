//! A whole run in this process: from a recipe to its ending, every word of it through a session.

use super::folder::RunFolder;
use super::follower::Follower;
use super::session::Session;
use super::{events, host};
use crate::diagnose::{self, Doctor, Preflight};
use crate::model::ranks::Ranks;
use crate::recipe::Recipe;
use crate::train::event::{Body, Finding, RunState, Severity, State};
use crate::train::method;
use crate::train::outlet::Outlet;
use crate::train::parts::ending::Ending;
use crate::train::setup::{self, Prepared};
use crate::{Error, Result};

/// Train `recipe` in the session's folder, from its checkpoint of step `resume` where there is one. A failure is said
/// in the run's last state as well as returned.
pub fn train(recipe: &Recipe, ranks: Ranks, resume: Option<u64>, session: &mut Session) -> Result<Ending> {
    let result = attempt(recipe, ranks, resume, session);
    if let Err(e) = &result {
        let _ = say(session, resume.unwrap_or(0), RunState::Failed, &e.to_string());
    }
    result
}

fn attempt(recipe: &Recipe, ranks: Ranks, resume: Option<u64>, session: &mut Session) -> Result<Ending> {
    let step = resume.unwrap_or(0);
    let mut unsaid = Ok(());
    let mut prepared = setup::prepare(recipe, ranks, &mut |what| {
        if unsaid.is_ok() {
            unsaid = say(session, step, RunState::Preparing, what);
        }
    })?;
    unsaid?;
    prepared.start.host = host::host_name();
    let findings = preflight(recipe, &prepared);
    for finding in &findings {
        if finding.severity == Severity::Passed {
            let f = finding.clone();
            prepared.start.passed.push((f.rule, f.title, f.evidence));
        } else if resume.is_none() {
            session.emit(step, Body::Finding(finding.clone()))?;
        }
    }
    if let Some(blocked) = diagnose::blocked(&findings) {
        return Err(blocked);
    }
    let mut doctor = Doctor::new(recipe);
    let from = match resume {
        Some(step) => {
            for event in events::read_all(&session.folder.events())?.iter().filter(|e| e.step <= step) {
                doctor.observe(event);
            }
            session.forget_after(step)?;
            let dir = session.checkpoint(step);
            Some(dir.ok_or_else(|| Error::usage(format!("there is no whole checkpoint of step {step}")))?)
        }
        None => None,
    };
    session.watch(doctor);
    method::train(recipe, prepared, session, from.as_deref())
}

/// Beside rank 0, whose folder this is: all of [`train`] but its words.
pub fn follow(recipe: &Recipe, ranks: Ranks, folder: RunFolder, resume: Option<u64>) -> Result<()> {
    let prepared = setup::prepare(recipe, ranks, &mut |_| {})?;
    let from = resume.map(|step| folder.find_checkpoint(Some(step))).transpose()?.map(|(_, dir)| dir);
    method::train(recipe, prepared, &mut Follower::new(folder), from.as_deref()).map(|_| ())
}

/// What can be known of the rows as they will be trained, before the first step.
pub fn preflight(recipe: &Recipe, prepared: &Prepared) -> Vec<Finding> {
    let speaker = &prepared.speaker;
    let template = recipe.model.chat_template.as_deref().or(speaker.own_template.as_deref());
    diagnose::preflight(&Preflight {
        recipe,
        examples: &prepared.data.train,
        end_ids: &speaker.stop_ids,
        bos_id: speaker.tokenizer.bos_id(),
        decode: &|ids| speaker.tokenizer.decode(ids, false).unwrap_or_default(),
        encode: &|text| speaker.tokenizer.encode(text).map(|e| e.ids).unwrap_or_default(),
        template: speaker.template.as_ref().and(template),
        own_template: speaker.own_template.as_deref(),
        parameters: Some(prepared.start.total_parameters),
        near_duplicates: Some(prepared.data.summary.duplicates),
    })
}

fn say(session: &mut Session, step: u64, state: RunState, why: &str) -> Result<()> {
    session.emit(step, Body::State(State { state, why: why.to_string() }))
}
