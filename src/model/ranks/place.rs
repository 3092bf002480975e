//! Which process of how many this one is, as launchers say it in the environment: torchrun, Slurm, or this program's own
//! `--nproc-per-node`.

use crate::{Error, Result};

/// A process among those of one training.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub rank: usize,
    pub size: usize,
    /// Where rank 0 listens.
    pub host: String,
    pub port: u16,
}

impl Place {
    /// From `RANK`, `WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT`, else from Slurm's variables of a job step; `None` where
    /// neither speaks of more than one process.
    ///
    /// # Errors
    /// Variables that are half there or no numbers.
    pub fn from_env(var: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let number = |name: &str| -> Result<Option<usize>> {
            var(name)
                .map(|v| v.trim().parse().map_err(|_| Error::usage(format!("{name} = {v} is not a whole number"))))
                .transpose()
        };
        let (rank, size, slurm) = match number("WORLD_SIZE")? {
            Some(size) => (number("RANK")?, size, false),
            // Only a job step has it: a batch script alone is one process, however many tasks were asked for.
            None => match number("SLURM_STEP_NUM_TASKS")? {
                Some(size) => (number("SLURM_PROCID")?, size, true),
                None => return Ok(None),
            },
        };
        if size <= 1 {
            return Ok(None);
        }
        let names = if slurm { "SLURM_PROCID" } else { "RANK" };
        let rank = rank.ok_or_else(|| {
            Error::usage(format!("{size} processes are to train together, but {names} is not set"))
                .next("start them with torchrun, srun or --nproc-per-node")
        })?;
        if rank >= size {
            return Err(Error::usage(format!("{names} = {rank} is not among {size} processes")));
        }
        let host = match (var("MASTER_ADDR"), slurm) {
            (Some(host), _) => host,
            (None, true) => var("SLURM_STEP_NODELIST").as_deref().map_or("localhost".into(), first_host),
            (None, false) => return Err(Error::usage("MASTER_ADDR is not set").next("name the host of rank 0")),
        };
        let port = match (number("MASTER_PORT")?, slurm) {
            (Some(port), _) => port,
            // Apart for every job of a cluster, as far as numbers allow.
            (None, true) => 20_000 + number("SLURM_JOB_ID")?.unwrap_or(0) % 20_000,
            (None, false) => {
                return Err(Error::usage("MASTER_PORT is not set").next("name a free port of rank 0's host"));
            }
        };
        // torchrun itself listens on its port.
        let port = if var("TORCHELASTIC_RUN_ID").is_some() { port + 1 } else { port };
        let port = u16::try_from(port).map_err(|_| Error::usage(format!("MASTER_PORT = {port} is no port")))?;
        Ok(Some(Self { rank, size, host, port }))
    }
}

/// The first host of Slurm's list, which folds numbers: `node[03-05,9],other` starts with `node03`.
fn first_host(list: &str) -> String {
    let Some(open) = list.find('[') else { return list.split(',').next().unwrap_or(list).to_string() };
    match list.find(',') {
        Some(comma) if comma < open => list[..comma].to_string(),
        _ => {
            let inside = &list[open + 1..];
            let end = inside.find([',', '-', ']']).unwrap_or(inside.len());
            let close = inside.find(']').map_or("", |at| inside[at + 1..].split(',').next().unwrap_or(""));
            format!("{}{}{close}", &list[..open], &inside[..end])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(vars: &[(&str, &str)]) -> Result<Option<Place>> {
        Place::from_env(&|name| vars.iter().find(|v| v.0 == name).map(|v| v.1.to_string()))
    }

    fn at(rank: usize, size: usize, host: &str, port: u16) -> Option<Place> {
        Some(Place { rank, size, host: host.into(), port })
    }

    const TORCH: [(&str, &str); 4] =
        [("RANK", "2"), ("WORLD_SIZE", "4"), ("MASTER_ADDR", "10.0.0.1"), ("MASTER_PORT", "29500")];

    #[test]
    fn torchruns_variables_are_read_and_its_own_port_is_left_to_it() {
        assert_eq!(place(&TORCH).unwrap(), at(2, 4, "10.0.0.1", 29500));
        let mut under = TORCH.to_vec();
        under.push(("TORCHELASTIC_RUN_ID", "none"));
        assert_eq!(place(&under).unwrap(), at(2, 4, "10.0.0.1", 29501));
        assert_eq!(place(&[("WORLD_SIZE", "1"), ("RANK", "0")]).unwrap(), None);
        assert_eq!(place(&[]).unwrap(), None);
    }

    #[test]
    fn slurms_variables_are_read_in_a_job_step_only() {
        let step = [
            ("SLURM_PROCID", "1"),
            ("SLURM_STEP_NUM_TASKS", "2"),
            ("SLURM_STEP_NODELIST", "gpu[07-08]"),
            ("SLURM_JOB_ID", "41234"),
        ];
        assert_eq!(place(&step).unwrap(), at(1, 2, "gpu07", 21234));
        assert_eq!(place(&[("SLURM_NTASKS", "8"), ("SLURM_PROCID", "0")]).unwrap(), None);
    }

    #[test]
    fn what_is_half_there_is_refused_by_name() {
        for missing in 0..4 {
            let mut vars = TORCH.to_vec();
            let name = vars.remove(missing).0;
            match place(&vars) {
                Ok(found) => assert!(name == "WORLD_SIZE" && found.is_none(), "{name}"),
                Err(e) => assert!(e.to_string().contains(name), "{name}: {e}"),
            }
        }
        assert!(place(&[("WORLD_SIZE", "two")]).unwrap_err().to_string().contains("WORLD_SIZE = two"));
        let mut beyond = TORCH.to_vec();
        beyond[0].1 = "4";
        assert!(place(&beyond).is_err());
    }

    #[test]
    fn slurms_lists_start_with_their_first_host() {
        for (list, first) in [
            ("one", "one"),
            ("a1,b2", "a1"),
            ("n[3-5]", "n3"),
            ("n[03,07-9],x", "n03"),
            ("a,b[1-2]", "a"),
            ("r[1-2].cluster,z", "r1.cluster"),
        ] {
            assert_eq!(first_host(list), first);
        }
    }
}
