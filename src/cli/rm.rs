//! `rm`: delete runs, after asking.

use super::args::RmArgs;
use super::output::{ask, print};
use crate::run::folder::RunFolder;
use crate::run::lock::holder;
use crate::run::{Index, files};
use crate::runtime::remove;
use crate::{Error, Result};

pub fn run(args: &RmArgs) -> Result<()> {
    let index = Index::of_user();
    let folders = args.runs.iter().map(|run| index.find(Some(run))).collect::<Result<Vec<_>>>()?;
    // Nothing is deleted if one of them cannot be.
    for folder in &folders {
        if holder(folder.path()).is_live() {
            return Err(Error::new(format!("{} is being trained", folder.name()))
                .at(folder.path().display())
                .next(format!("end it first: `finetop stop {}`", folder.path().display())));
        }
    }
    for folder in folders {
        if !args.yes {
            let asked = ask(&format!("delete {}?", describe(&folder)));
            match asked {
                Some(true) => {}
                Some(false) => continue,
                None => {
                    return Err(Error::usage("nobody is there to ask whether to delete the run")
                        .next("add --yes to delete without asking"));
                }
            }
        }
        remove::remove(folder.path(), &index)?;
        print(&format!("{} is deleted", folder.path().display()))?;
    }
    Ok(())
}

fn describe(folder: &RunFolder) -> String {
    let bytes = files::tree_size(folder.path());
    let checkpoints = match folder.checkpoints().len() {
        0 => "no checkpoint".into(),
        1 => "1 checkpoint".into(),
        n => format!("{n} checkpoints"),
    };
    format!("{} ({checkpoints}, {:.1} MiB)", folder.path().display(), bytes as f64 / 1_048_576.0)
}
