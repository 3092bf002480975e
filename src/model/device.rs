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

/// `auto` (a card where one can be used, else the CPU), `cpu`, `cuda` (the first card) or `cuda:N`.
///
/// # Errors
/// Another word; a card that was asked for and is not there, or that this build cannot use.
pub fn choose(device: &str) -> Result<Place> {
    match device {
        "cpu" => Ok(Place::Cpu { because: None }),
        "auto" => Ok(auto()),
        _ => {
            let number =
                if device == "cuda" { Some(0) } else { device.strip_prefix("cuda:").and_then(|n| n.parse().ok()) };
            match number {
                Some(n) => card(n),
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
fn card(n: usize) -> Result<Place> {
    Err(Error::usage(format!("device cuda:{n}: this program was built without CUDA"))
        .next("build it with `cargo build --release --features cuda`, or use auto or cpu"))
}

#[cfg(feature = "cuda")]
fn auto() -> Place {
    match crate::ops::cuda::device::cards() {
        Ok(_) => Place::Cuda(0),
        Err(e) => Place::Cpu { because: Some(e.to_string()) },
    }
}

#[cfg(feature = "cuda")]
fn card(n: usize) -> Result<Place> {
    crate::ops::cuda::device::cards()?;
    Ok(Place::Cuda(n))
}
