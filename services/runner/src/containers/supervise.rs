//! One service's container: started, its log brought back, started again when it dies, asked to end.

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use shell::{failpoint, files};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use topology::plan::{Service, ServiceConfig};

use super::engine::ContainerState;
use super::folder::ContainerNetwork;
use super::{ETSI014_PORT, GRPC_PORT, METRICS_PORT};
use crate::Start;

/// Wait before a service that died is started again; it grows while the service dies young.
const RESTART_PAUSE: Duration = Duration::from_millis(200);
const RESTART_PAUSE_LAST: Duration = Duration::from_secs(5);
/// A service that lived this long did start.
const YOUNG: Duration = Duration::from_secs(10);

/// Where this machine reaches the ports of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published(Vec<(u16, SocketAddr)>);

impl Published {
    pub fn address(&self, port: u16) -> Option<SocketAddr> {
        self.0.iter().find(|(inside, _)| *inside == port).map(|(_, address)| *address)
    }
}

/// How to start one service, and where it is.
pub struct Container {
    network: Arc<ContainerNetwork>,
    service: String,
    name: String,
    kind: &'static str,
    arguments: Vec<String>,
    ports: &'static [u16],
    log: PathBuf,
    /// The ports of the start before are asked for again, so that applications find a key store where it was.
    published: watch::Sender<Option<Published>>,
    started: Instant,
}

impl Container {
    pub fn prepare(
        start: &Start<'_>,
        network: &Arc<ContainerNetwork>,
        service: &Service,
        published: watch::Sender<Option<Published>>,
    ) -> Result<Self> {
        network.prepare(start, service)?;
        let ports: &[u16] = match service.config {
            ServiceConfig::Kms(_) => &[GRPC_PORT, ETSI014_PORT, METRICS_PORT],
            _ => &[GRPC_PORT],
        };
        // An address of an earlier run leads to somebody else by now.
        let _ = std::fs::remove_file(shell::server::address_file(&network.addresses, &service.name));
        Ok(Self {
            network: network.clone(),
            service: service.name.clone(),
            name: network.container(&service.name),
            kind: service.config.kind(),
            arguments: network.arguments(start, service)?,
            ports,
            log: network.logs.join(format!("{}.log", service.name)),
            published,
            started: Instant::now(),
        })
    }

    /// The first start. Failpoints are armed here alone, so that a service that crashed at one can go on.
    pub async fn start(mut self) -> Result<Self> {
        let armed = std::env::var_os(failpoint::VARIABLE).map(|_| failpoint::VARIABLE);
        self.run(None, armed).await.with_context(|| format!("start {} in a container", self.service))?;
        Ok(self)
    }

    async fn run(&mut self, ports: Option<&Published>, variable: Option<&str>) -> Result<()> {
        let mut args: Vec<String> = vec!["run".to_owned(), "--detach".to_owned()];
        for port in self.ports {
            // Without a port of this machine the engine takes a free one.
            let host = ports.and_then(|ports| ports.address(*port)).map_or(String::new(), |at| at.port().to_string());
            args.extend(["--publish".to_owned(), format!("127.0.0.1:{host}:{port}")]);
        }
        if let Some(variable) = variable {
            args.extend(["--env".to_owned(), variable.to_owned()]);
        }
        args.extend(self.arguments.iter().cloned());
        args.extend([&self.network.image, self.kind, "--config", "/etc/qkdnet/config.yaml"].map(str::to_owned));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.network.engine.start(&args).await?;
        self.started = Instant::now();
        self.tell_ports().await
    }

    /// Writes the addresses where whoever watches this service looks for them.
    async fn tell_ports(&self) -> Result<()> {
        let mut published = Published::default();
        for port in self.ports {
            match self.network.engine.published(&self.name, *port).await {
                Ok(address) => published.0.push((*port, address)),
                // A container that died at once has no ports; its supervisor will find it so.
                Err(error) => match self.network.engine.state(&self.name).await? {
                    ContainerState::Running => return Err(error),
                    _ => return Ok(()),
                },
            }
        }
        if let Some(address) = published.address(GRPC_PORT) {
            let path = shell::server::address_file(&self.network.addresses, &self.service);
            files::write_durably(&path, format!("{address}\n").as_bytes())
                .with_context(|| format!("write {}", path.display()))?;
        }
        self.published.send_replace(Some(published));
        Ok(())
    }

    /// Keeps the service running until `end`, then asks it to end.
    pub async fn supervise(mut self, end: CancellationToken) -> Result<()> {
        let mut pause = RESTART_PAUSE;
        loop {
            let state = tokio::select! {
                state = self.follow() => state?,
                () = end.cancelled() => {
                    // The log is followed to its end: what a service says last is often what matters.
                    let (stopped, state) = tokio::join!(self.stop(), self.follow());
                    stopped?;
                    return self.note(&state?);
                }
            };
            self.note(&state)?;
            if end.is_cancelled() {
                return Ok(());
            }
            pause = if self.started.elapsed() < YOUNG { (pause * 2).min(RESTART_PAUSE_LAST) } else { RESTART_PAUSE };
            tracing::warn!(
                service = self.service, log = %self.log.display(), "container {state}, starting it again"
            );
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = end.cancelled() => return Ok(()),
            }
            tokio::select! {
                again = self.restart() => again?,
                // What was started meanwhile goes with the run's label.
                () = end.cancelled() => return Ok(()),
            }
        }
    }

    async fn restart(&mut self) -> Result<()> {
        let again = self.published.borrow().clone();
        self.remove().await?;
        if let Err(error) = self.run(again.as_ref(), None).await {
            tracing::warn!(service = self.service, "not on the same ports again: {}", shell::chain(&error));
            self.remove().await?;
            self.run(None, None).await.with_context(|| format!("start {} again", self.service))?;
        }
        Ok(())
    }

    async fn remove(&self) -> Result<()> {
        self.network.engine.run(&["rm", "--force", "--volumes", &self.name]).await.map(drop)
    }

    async fn stop(&self) -> Result<()> {
        self.network.engine.stop(std::slice::from_ref(&self.name)).await
    }

    /// Appends what the container says to the service's log until it has ended.
    async fn follow(&self) -> Result<ContainerState> {
        let mut args = vec!["logs", "--follow", &self.name];
        loop {
            let (log, engine) = (self.open_log()?, &self.network.engine);
            let mut command = engine.command(&args);
            let copy = log.try_clone().context("open a log twice")?;
            let mut child = command.stdout(copy).stderr(log).spawn().context("start the container engine")?;
            child.wait().await.context("wait for the container engine")?;
            let state = engine.state(&self.name).await?;
            if state != ContainerState::Running {
                return Ok(state);
            }
            // The engine has stopped telling, which the container does not know.
            tokio::time::sleep(RESTART_PAUSE).await;
            args = vec!["logs", "--follow", "--tail", "0", &self.name];
        }
    }

    fn open_log(&self) -> Result<File> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&self.log);
        file.with_context(|| format!("open {}", self.log.display()))
    }

    /// The exit code belongs to the log.
    fn note(&self, state: &ContainerState) -> Result<()> {
        let mut log = self.open_log()?;
        writeln!(log, "container {} {state}", self.name).with_context(|| format!("write {}", self.log.display()))
    }
}
