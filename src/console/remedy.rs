//! What can be done about a finding now: its fix, as far as there is a trainer to take it and a checkpoint to go back to.
//!
//! The panes, the footer, the hint and the key all ask here, so that nothing is offered that a key does not do.

use super::run_page::{Pane, RunPage};
use super::run_update::reachable;
use crate::recipe::schema;
use crate::run::event::{Finding, Fix, FixAction};

/// Recipe keys and their new values, as TOML text.
pub type Values = Vec<(String, String)>;

/// What the key does.
#[derive(Debug, Clone, PartialEq)]
pub enum Remedy {
    /// Write the values into the recipe that is open, before a run.
    Edit(Values),
    /// Tell the trainer to go back to a checkpoint, and perhaps to stop there.
    RollBack { step: u64, stop: bool },
    /// Start another run from a checkpoint, with the values set.
    Branch { step: u64, set: Values },
    /// End the run.
    Stop,
    /// Tell the trainer the values that can change now.
    Change(Values),
    /// To the clipboard: they can only be the next run's.
    Copy(Values),
}

/// A remedy and its words.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    pub remedy: Remedy,
    pub label: String,
}

/// What the key does about `finding` now; nothing where there is nothing to be done.
pub fn offer(page: &RunPage, finding: &Finding) -> Option<Offer> {
    let fix = finding.fix.as_ref()?;
    let set = &fix.set;
    if page.folder.is_none() {
        let remedy = Remedy::Edit(set.clone());
        return (!set.is_empty()).then(|| Offer { remedy, label: words(set) });
    }
    let live = reachable(page);
    let as_is = |remedy| Some(Offer { remedy, label: fix.label.clone() });
    match fix.action {
        FixAction::RollBack { step, .. } | FixAction::Branch { step } if !kept(page).contains(&step) => copy(fix),
        FixAction::RollBack { step, stop } if live => as_is(Remedy::RollBack { step, stop }),
        // The steps since are not lost that way, and a run that has ended need not be begun again.
        FixAction::RollBack { step, stop: false } => {
            let label = format!("branch from {step}");
            Some(Offer { remedy: Remedy::Branch { step, set: set.clone() }, label })
        }
        FixAction::Branch { step } => as_is(Remedy::Branch { step, set: set.clone() }),
        FixAction::Stop if live => as_is(Remedy::Stop),
        FixAction::Recipe if live && set.iter().all(|(key, _)| is_live(key)) => as_is(Remedy::Change(set.clone())),
        FixAction::RollBack { .. } | FixAction::Stop | FixAction::Recipe => copy(fix),
    }
}

/// What is left of a fix where neither trainer nor checkpoint is there: its values, for the next run.
fn copy(fix: &Fix) -> Option<Offer> {
    let label = "copy it for the next run".to_string();
    (!fix.set.is_empty()).then(|| Offer { remedy: Remedy::Copy(fix.set.clone()), label })
}

/// Whether this recipe key can change while the run goes on.
pub fn is_live(key: &str) -> bool {
    schema::entry(key).is_some_and(|e| e.live)
}

/// The steps of the checkpoints that are still there.
pub fn kept(page: &RunPage) -> Vec<u64> {
    let limit = page.recipe.values.as_ref().map_or(0, |r| r.train.save_total_limit);
    page.run.kept_checkpoints(limit)
}

/// `learning_rate = 1e-4, max_steps = 150`.
pub fn words(set: &[(String, String)]) -> String {
    set.iter().map(|(k, v)| format!("{k} = {v}")).collect::<Vec<_>>().join(", ")
}

/// The finding that the key is about, and what it does: the selected one in its pane, else the worst that has any.
pub fn at_hand(page: &RunPage) -> Option<(&Finding, Offer)> {
    let open = page.run.open();
    let with = |f| Some((f, offer(page, f)?));
    let selected = open.get(page.diagnostics.selected).copied().filter(|_| page.focus == Pane::Diagnostics);
    let selected = selected.and_then(with);
    selected.or_else(|| open.iter().copied().find_map(with))
}
