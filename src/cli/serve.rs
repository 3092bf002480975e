//! `finetop serve`: an OpenAI-compatible endpoint on loopback.

use super::args::ServeArgs;
use super::output;
use crate::run::artifact;
use crate::serve::serve;
use crate::{Error, Result};
use std::net::{IpAddr, SocketAddr};

pub fn run(args: &ServeArgs) -> Result<()> {
    let artifact = artifact::find(&args.what)?;
    output::fetch(&artifact.model)?;
    let host: IpAddr = args.host.parse().map_err(|_| {
        Error::usage(format!("{} is no address", args.host))
            .next("127.0.0.1 is this machine alone, 0.0.0.0 every network")
    })?;
    let name = artifact.recipe.as_ref().map_or_else(|| args.what.clone(), |r| r.run_name.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        output::progress(&artifact.title);
        let served = serve(&artifact, &name, SocketAddr::new(host, args.port)).await?;
        if !host.is_loopback() {
            output::progress("note: whoever reaches this address can use it; there is no key");
        }
        output::print(&format!("http://{}/v1  model {name}", served.address))?;
        let running = served.run(output::progress);
        tokio::select! {
            done = running => done,
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    })
}
