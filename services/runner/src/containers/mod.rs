//! Every service in a container of its own, watched over published ports as processes are over theirs.
//!
//! Nothing of a run outlives it: everything carries the run's label, a process of its own (`reap`) waits for the end
//! of this one, however that comes, and removes what has the label; and a start removes what an earlier run on the
//! same data has left.

mod engine;
mod folder;
mod reap;
mod supervise;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use module::Monitor;
use shell::{Connector, Credentials, Endpoint};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use topology::plan::{CONTROL_IDENTITY, KmsConfig, Service, ServiceConfig};

pub use self::engine::{Engine, EngineName};
use self::folder::ContainerNetwork;
pub(crate) use self::folder::network_label;
pub use self::reap::run as reap;
use self::supervise::{Container, Published};
use super::faults::{Feed, Watchers};
use super::keys::{RelayMonitor, StoreMonitor};
use super::pace::{self, PaceMonitor};
use super::process::mirror;
use super::roster::Roster;
use super::{End, Held, Running, Start, keys};
use crate::failure::Failure;
use crate::runtime;

/// Ports inside a container; each has an address of its own.
const GRPC_PORT: u16 = 7400;
const ETSI014_PORT: u16 = 7443;
const METRICS_PORT: u16 = 7490;

/// What containers are made of.
#[derive(Clone, Debug)]
pub struct Containers {
    pub engine: Engine,
    pub image: String,
    /// What somebody should know of the image.
    pub warning: Option<String>,
}

impl Containers {
    /// Finds an engine that answers and sees that it has the image.
    pub fn find(engine: Option<EngineName>, image: Option<String>) -> Result<Self, Failure> {
        runtime::briefly(Self::ask(engine, image))?
    }

    async fn ask(engine: Option<EngineName>, image: Option<String>) -> Result<Self, Failure> {
        let engine = Engine::find(engine).await?;
        let version = env!("CARGO_PKG_VERSION");
        let image = image.unwrap_or_else(|| format!("qkdnet:{version}"));
        let labelled = engine.image_version(&image).await.map_err(|error| {
            Failure::failed(format!("{} has no image {image}: {}", engine.name.program(), shell::chain(&error)))
                .hint("build it with `make image`, or pull one and name it with `--image`")
        })?;
        let warning = (labelled != version)
            .then(|| format!("warning: image {image} is of version `{labelled}`, this program is {version}"));
        Ok(Self { engine, image, warning })
    }
}

pub async fn start(start: &Start<'_>, containers: &Containers, held: Held) -> Result<Running> {
    let names: Vec<String> =
        start.plan.services.iter().map(|s| s.name.clone()).chain([CONTROL_IDENTITY.to_owned()]).collect();
    keys::prepare_certificates(start, &names)?;
    let network = Arc::new(ContainerNetwork::new(start, containers)?);
    network.remove_leftovers().await?;
    // From here on whatever the engine is told to make is removed again.
    let reaper = reap::Reaper::start(&network)?;
    match start_services(start, &network).await {
        Ok(started) => Ok(started.running(reaper, held)),
        Err(error) => {
            reaper.finish().await;
            Err(error)
        }
    }
}

/// Services that have been started, and what is seen of them.
struct Started {
    ends: Vec<End>,
    stores: Vec<StoreMonitor>,
    relays: Vec<RelayMonitor>,
    pacer: Option<PaceMonitor>,
    nodes: JoinSet<Result<()>>,
    watchers: JoinSet<Result<()>>,
    supervisors: JoinSet<Result<()>>,
    watching_faults: Watchers,
    faults: Feed,
    roster: Option<Roster>,
    drain: CancellationToken,
    stop: CancellationToken,
}

impl Started {
    fn new(start: &Start<'_>) -> Self {
        let stop = CancellationToken::new();
        let (watching_faults, faults) = Watchers::new(&stop);
        Self {
            ends: Vec::new(),
            stores: Vec::new(),
            relays: Vec::new(),
            pacer: None,
            nodes: JoinSet::new(),
            watchers: JoinSet::new(),
            supervisors: JoinSet::new(),
            watching_faults,
            faults,
            roster: start.plan.faults_allowed.then(|| Roster::of(start.plan, start.folders, |service| service)),
            drain: CancellationToken::new(),
            stop,
        }
    }

    fn running(self, reaper: reap::Reaper, held: Held) -> Running {
        let Self {
            ends,
            stores,
            relays,
            pacer,
            nodes,
            watchers: mut others,
            mut supervisors,
            faults,
            roster,
            drain,
            stop,
            ..
        } = self;
        let failed = stop.clone();
        others.spawn(async move {
            let mut ended = Ok(());
            while let Some(supervisor) = supervisors.join_next().await {
                let one = supervisor.context("a supervisor ended abnormally").and_then(|result| result);
                if one.is_err() {
                    failed.cancel();
                }
                ended = ended.and(one);
            }
            reaper.finish().await;
            ended
        });
        Running { ends, stores, relays, pacer, drain, stop, nodes, others, faults, roster, held }
    }
}

async fn start_services(start: &Start<'_>, network: &Arc<ContainerNetwork>) -> Result<Started> {
    folder::write_directories(start)?;
    network.create().await?;
    let credentials = Credentials::from_folder(&start.folders.pki, CONTROL_IDENTITY)?;
    let mut started = Started::new(start);
    let mut first = JoinSet::new();
    for service in &start.plan.services {
        let (published, ports) = watch::channel(None);
        let container = Container::prepare(start, network, service, published)?;
        watch_service(start, service, &credentials, ports, &mut started);
        // A source that is asked to end ends the light; the others finish what is under way and end later.
        let is_source = matches!(service.config, ServiceConfig::Source(_));
        let end = if is_source { started.drain.clone() } else { started.stop.clone() };
        first.spawn(async move { container.start().await.map(|container| (container, end)) });
    }
    while let Some(container) = first.join_next().await {
        let (container, end) = container.context("a start ended abnormally")??;
        started.supervisors.spawn(container.supervise(end));
    }
    Ok(started)
}

/// Follows what a service says of itself, as if it were a process on this machine.
fn watch_service(
    start: &Start<'_>,
    service: &Service,
    credentials: &Credentials,
    ports: watch::Receiver<Option<Published>>,
    started: &mut Started,
) {
    let endpoint = Endpoint::in_run_dir(&start.folders.run, &service.name);
    let connector = Connector::new(&endpoint, &service.name, credentials).deadline(Duration::from_secs(3600));
    let connector = connector.stop(started.stop.clone());
    if start.plan.faults_allowed {
        started.watching_faults.follow(connector.clone(), &mut started.watchers);
    }
    if let Some(module) = service.config.module() {
        let monitor = Arc::new(Monitor::new(module::initial_status(module)));
        started.ends.push(End::new(module, monitor.clone()));
        started.nodes.spawn(mirror(connector, monitor, started.stop.clone()));
    }
    match &service.config {
        ServiceConfig::Kms(config) => {
            let monitor = watch_key_store(start, config, credentials, ports, started);
            started.stores.push(monitor);
        }
        ServiceConfig::Relay(config) => {
            let monitor = keys::watch_relay_process(start, config, credentials, &mut started.watchers, &started.stop);
            started.relays.push(monitor);
        }
        ServiceConfig::Pacer(config) => {
            let monitor = pace::watch_process(start, config, credentials, &mut started.watchers, &started.stop);
            started.pacer = Some(monitor);
        }
        ServiceConfig::Source(_)
        | ServiceConfig::Detector(_)
        | ServiceConfig::Transmitter(_)
        | ServiceConfig::Channel(_) => {}
    }
}

/// A key store in a container knows its own ports, and not the ones of this machine that lead there.
fn watch_key_store(
    start: &Start<'_>,
    config: &KmsConfig,
    credentials: &Credentials,
    ports: watch::Receiver<Option<Published>>,
    started: &mut Started,
) -> StoreMonitor {
    let translate = move |mut status: proto::kms::v1::GetStatusResponse| {
        if let Some(published) = ports.borrow().as_ref() {
            let text = |address: Option<std::net::SocketAddr>| address.map(|a| a.to_string()).unwrap_or_default();
            status.etsi014_address = text(published.address(ETSI014_PORT));
            status.metrics_address = text(published.address(METRICS_PORT));
        }
        status
    };
    keys::watch_process(start, config, credentials, &mut started.watchers, &started.stop, translate)
}
