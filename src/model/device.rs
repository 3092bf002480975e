//! Which device to compute on: what a recipe asks for, and what this machine has.
//!
//! Must not know recipes: it is given their words.

use crate::{Error, Result};

/// A device that can be used.
#[derive(Debug, Clone)]
pub enum Place {
    Cpu {
        /// Why it is not a card, where one was looked for and something stood in the way.
        because: Option<String>,
    },
    #[cfg(feature = "cuda")]
    Cuda(usize),
}

/// `auto` (a card where one can be used, else the CPU), `cpu`, `cuda` (the first card, or this process's own) or
/// `cuda:N`.
///
/// # Errors
/// Another word; a card that was asked for and is not there, or that this build cannot use.
pub fn choose(device: &str) -> Result<Place> {
    match device {
        "cpu" => Ok(Place::Cpu { because: None }),
        "auto" => Ok(auto()),
        _ => {
            let number = device.strip_prefix("cuda:").and_then(|n| n.parse().ok());
            match number {
                _ if device == "cuda" => card(None),
                Some(n) => card(Some(n)),
                None => Err(Error::usage(format!("device \"{device}\" is not known")).next("use auto, cpu or cuda:N")),
            }
        }
    }
}

#[cfg(not(feature = "cuda"))]
fn auto() -> Place {
    Place::Cpu { because: None }
}

#[cfg(not(feature = "cuda"))]
fn card(n: Option<usize>) -> Result<Place> {
    let asked = n.map_or("cuda".to_string(), |n| format!("cuda:{n}"));
    Err(Error::usage(format!("device {asked}: this program was built without CUDA"))
        .next("build it with `cargo build --release --features cuda`, or use auto or cpu"))
}

#[cfg(feature = "cuda")]
fn auto() -> Place {
    match own() {
        Ok(n) => Place::Cuda(n),
        Err(e) => Place::Cpu { because: Some(e.to_string()) },
    }
}

#[cfg(feature = "cuda")]
fn card(n: Option<usize>) -> Result<Place> {
    let own = own()?;
    Ok(Place::Cuda(n.unwrap_or(own)))
}

/// The first card, or for one of several processes of this machine that of its number: round again where a launcher
/// shows each process fewer.
#[cfg(feature = "cuda")]
fn own() -> Result<usize> {
    let cards = crate::ops::cuda::device::cards()?;
    let local = ["LOCAL_RANK", "SLURM_LOCALID"].iter().find_map(|name| std::env::var(name).ok()?.parse::<usize>().ok());
    Ok(local.unwrap_or(0) % usize::try_from(cards).unwrap_or(1).max(1))
}
