//! `qkdnet down`: ends a network, and removes what a run has left with a container engine.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::engine::Engine;
use super::folder::network_label;
use crate::cli::containers::DownArgs;
use crate::commands::{files, print};
use crate::failure::Failure;
use crate::run::lock::Lock;
use crate::wire;

/// Time that a run gets to finish what is under way before it is cut short, and again to end then.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);

pub fn run(args: &DownArgs, _log: Option<&str>) -> Result<(), Failure> {
    let data = match (&args.data, &args.file) {
        (Some(data), _) => data.clone(),
        (None, Some(file)) => crate::cli::default_data_dir(files::load(file)?.metadata.name.as_str()),
        (None, None) => return Err(Failure::bad_input("which network is not said").hint("give a FILE or `--data DIR`")),
    };
    let text: Result<String, Failure> = wire::briefly(async {
        let ended = end_run(&data).await?;
        let (removed, refusals) = remove(args, &data).await?;
        if let (Some(engine), [_, ..], 0) = (args.engine, &refusals[..], removed) {
            return Err(Failure::failed(format!("{} does not answer: {}", engine.program(), refusals.join("; "))));
        }
        Ok(match (ended, removed) {
            (None, 0) => format!("no network runs on {}\n", data.display()),
            (None, containers) => format!("removed {containers} containers that a run had left\n"),
            (Some(process), _) => format!("ended the network of process {process}\n"),
        })
    })?;
    print(&text?)
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

async fn remove(args: &DownArgs, data: &std::path::Path) -> Result<(usize, Vec<String>)> {
    let label = network_label(data)?;
    let (engines, refusals) = Engine::answering(args.engine).await;
    let mut removed = 0;
    for engine in engines {
        removed += engine.remove_labelled(&label).await?;
    }
    Ok((removed, refusals))
}
