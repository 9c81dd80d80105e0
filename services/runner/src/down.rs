//! Ends a network that somebody else runs, and removes what a run has left with a container engine.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::containers::{Engine, EngineName, network_label};
use crate::failure::Failure;
use crate::lock::Lock;

/// Time that a run gets to finish what is under way before it is cut short, and again to end then.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);

/// What there was to end.
pub struct Ended {
    /// The process that ran the network.
    pub process: Option<u32>,
    /// Containers that were left and are removed.
    pub containers: usize,
}

/// Ends the network that runs on this data; containers are looked for with the engine that is named, or with all.
pub async fn down(data: &std::path::Path, engine: Option<EngineName>) -> Result<Ended, Failure> {
    let process = end_run(data).await?;
    let (containers, refusals) = remove(engine, data).await?;
    if let (Some(engine), [_, ..], 0) = (engine, &refusals[..], containers) {
        return Err(Failure::failed(format!("{} does not answer: {}", engine.program(), refusals.join("; "))));
    }
    Ok(Ended { process, containers })
}

/// Interrupts whoever runs a network on this data, as Ctrl-C does, and waits for the end.
async fn end_run(data: &std::path::Path) -> Result<Option<u32>, Failure> {
    let Some(process) = Lock::holder(data) else { return Ok(None) };
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw).context("read who runs the network")?;
    for _ in 0..2 {
        kill_process(pid, Signal::INT).with_context(|| format!("interrupt process {process}"))?;
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if Lock::holder(data) != Some(process) {
                return Ok(Some(process));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    Err(Failure::failed(format!("process {process} does not end")).hint(format!("`kill -9 {process}`, then again")))
}

async fn remove(engine: Option<EngineName>, data: &std::path::Path) -> Result<(usize, Vec<String>)> {
    let label = network_label(data)?;
    let (engines, refusals) = Engine::answering(engine).await;
    let mut removed = 0;
    for engine in engines {
        removed += engine.remove_labelled(&label).await?;
    }
    Ok((removed, refusals))
}
