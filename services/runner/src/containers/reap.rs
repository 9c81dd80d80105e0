//! A process of its own that outlives a run by as long as it takes to remove its containers: also of a run that was
//! killed and could remove nothing.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::engine::{Engine, EngineName};
use super::folder::{ContainerNetwork, RUN_LABEL};
use crate::failure::Failure;
use crate::runtime;

/// Longest wait for containers to be gone at the end of a run; after that the process goes on alone.
const PATIENCE: Duration = Duration::from_secs(60);
/// Attempts to remove everything, as an engine may be busy with just that.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// Removes a run's containers when it is dropped, or when this process ends.
pub struct Reaper {
    child: Child,
    log: std::path::PathBuf,
}

impl Reaper {
    pub fn start(network: &ContainerNetwork) -> Result<Self> {
        let log = network.logs.join("reap.log");
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("open {}", log.display()))?;
        let program = std::env::current_exe().context("find this program")?;
        let child = Command::new(program)
            .args(["reap", "--engine", network.engine.name.program(), "--run", &network.run])
            // Its end is the end of this process, whatever that dies of.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(file)
            .process_group(0)
            .spawn()
            .context("start the process that removes containers")?;
        Ok(Self { child, log })
    }

    /// Has everything removed and waits for it.
    pub async fn finish(mut self) {
        drop(self.child.stdin.take());
        match tokio::time::timeout(PATIENCE, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => {}
            Ok(_) => tracing::warn!(log = %self.log.display(), "containers may be left: `qkdnet down` removes them"),
            Err(_) => tracing::warn!(log = %self.log.display(), "containers are still being removed"),
        }
    }
}

/// Waits for the end of standard input, then removes what has the label of the run. What goes wrong meanwhile is told.
pub fn run(engine: EngineName, run: &str, tell: fn(&str)) -> Result<(), Failure> {
    let reaped: Result<()> = runtime::briefly(async {
        // Whoever ends the run in a hurry does not mean this process.
        let _hangup = signal(SignalKind::hangup()).context("listen for signals")?;
        let _terminate = signal(SignalKind::terminate()).context("listen for signals")?;
        let _interrupt = signal(SignalKind::interrupt()).context("listen for signals")?;
        // An error is an end as well.
        let _ = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await;
        let (engines, refusals) = Engine::answering(Some(engine)).await;
        let engine = engines.first().with_context(|| refusals.join("; "))?;
        remove(engine, &format!("{RUN_LABEL}={run}"), tell).await
    })?;
    Ok(reaped?)
}

async fn remove(engine: &Engine, label: &str, tell: fn(&str)) -> Result<()> {
    let running = engine.containers(&format!("label={label}")).await?;
    // Services that are asked put what they have on the disk; one that does not listen is killed.
    if !running.is_empty()
        && let Err(error) = engine.stop(&running).await
    {
        tell(&shell::chain(&error).to_string());
    }
    let mut attempt = 1;
    loop {
        match engine.remove_labelled(label).await {
            Ok(0) => return Ok(()),
            // A run that was killed may have asked for one more container just before.
            Ok(_) => {}
            Err(error) if attempt < ATTEMPTS => tell(&shell::chain(&error).to_string()),
            Err(error) => return Err(error),
        }
        attempt += 1;
        tokio::time::sleep(PAUSE).await;
    }
}
