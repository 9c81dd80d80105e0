//! Key stores and relays as tasks of this process, and what is seen of key stores wherever they run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::future::BoxFuture;
use kms::front::{Addresses, Front};
use kms::ingest::{BLOCKS_IN_FLIGHT, ModuleStream};
use kms::node::{Incoming, PairDial, RELAY_MESSAGES_IN_FLIGHT, RelayStream};
use kms::pair::{MESSAGES_IN_FLIGHT, PairStream};
use proto::kms::v1::kms_client::KmsClient;
use proto::kms::v1::{GetStatusRequest, GetStatusResponse};
use shell::dial::{Dial, MemoryDial};
use shell::duplex::Duplex;
use shell::{Connector, Credentials, Endpoint, pki};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use topology::plan::KmsConfig;

use super::Start;

const STREAMS_WAITING: usize = 4;
/// Time between looks at a key store.
const LOOK: Duration = Duration::from_millis(250);

/// A key store as the run sees it.
pub struct StoreMonitor {
    pub site: String,
    pub latest: watch::Receiver<GetStatusResponse>,
}

/// What key stores in this process hand to those that connect to them.
#[derive(Default)]
pub struct Doors {
    pub modules: BTreeMap<String, detector::KmsDial>,
    pub relays: BTreeMap<String, mpsc::Sender<RelayStream>>,
}

/// Opens streams to a service that is told which site connects.
struct SiteDoor<M> {
    site: String,
    listener: mpsc::Sender<(String, Duplex<M, M>)>,
    capacity: usize,
}

impl<M: Send + 'static> Dial<M, M> for SiteDoor<M> {
    fn dial(&self) -> BoxFuture<'_, Result<Duplex<M, M>>> {
        Box::pin(async move {
            let (ours, theirs) = Duplex::pair(self.capacity);
            self.listener.send((self.site.clone(), theirs)).await.ok().context("the service is not running")?;
            Ok(ours)
        })
    }
}

/// Certificates for applications, and for whatever else of the plan is named.
pub fn prepare_certificates(start: &Start<'_>, names: &[String]) -> Result<()> {
    let authority = pki::prepare(&start.folders.pki, &start.plan.topology, names).context("make certificates")?;
    let saes: Vec<String> = start.plan.key_stores().flat_map(|config| config.saes.clone()).collect();
    pki::prepare_applications(&start.folders.pki, &authority, &saes).context("make certificates of applications")
}

/// Starts every key store of the plan as a task.
pub async fn start(
    start: &Start<'_>,
    tasks: &mut JoinSet<Result<()>>,
    stop: &CancellationToken,
) -> Result<(Doors, Vec<StoreMonitor>)> {
    let (mut doors, mut monitors) = (Doors::default(), Vec::new());
    let (mut pair_doors, mut pair_queues) = (BTreeMap::new(), BTreeMap::new());
    for config in start.plan.key_stores() {
        let (door, queue) = mpsc::channel(STREAMS_WAITING);
        pair_doors.insert(config.site.clone(), door);
        pair_queues.insert(config.site.clone(), queue);
    }
    for config in start.plan.key_stores() {
        let (modules_tx, modules) = mpsc::channel::<ModuleStream>(STREAMS_WAITING);
        let (relays_tx, relays) = mpsc::channel(STREAMS_WAITING);
        doors.modules.insert(config.name.clone(), Arc::new(MemoryDial::new(modules_tx, BLOCKS_IN_FLIGHT)));
        doors.relays.insert(config.name.clone(), relays_tx);
        let pairs = pair_queues.remove(&config.site).context("a key store is planned twice")?;
        let node = kms::open(config, &start.folders.data).await?;
        let addresses = Addresses::loopback(&start.folders.run);
        let front = Front::start(&node, &start.folders.pki, addresses, stop).await?;
        monitors.push(watch_here(config, &front, tasks, stop));
        let dials = pair_dials(config, &pair_doors);
        let (stop, incoming) = (stop.clone(), Incoming { modules, pairs, relays });
        tasks.spawn(async move {
            let ended = kms::run(node, dials, incoming, stop).await;
            front.stopped().await;
            ended
        });
    }
    Ok((doors, monitors))
}

fn pair_dials(
    config: &KmsConfig,
    doors: &BTreeMap<String, mpsc::Sender<(String, PairStream)>>,
) -> BTreeMap<String, PairDial> {
    let dial = |peer: &topology::plan::KmsPeer| {
        let listener = doors.get(&peer.site)?.clone();
        let door = SiteDoor { site: config.site.clone(), listener, capacity: MESSAGES_IN_FLIGHT };
        Some((peer.site.clone(), Arc::new(door) as PairDial))
    };
    config.peers.iter().filter(|peer| peer.site > config.site).filter_map(dial).collect()
}

fn watch_here(
    config: &KmsConfig,
    front: &Front,
    tasks: &mut JoinSet<Result<()>>,
    stop: &CancellationToken,
) -> StoreMonitor {
    let (view, stop) = (front.view.clone(), stop.clone());
    let (tx, latest) = watch::channel(kms::status(&view));
    tasks.spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => tx.send_replace(kms::status(&view)),
                () = stop.cancelled() => return Ok(()),
            };
        }
    });
    StoreMonitor { site: config.site.clone(), latest }
}

/// Follows a key store in another process; `seen` makes of its status what is true on this machine.
pub fn watch_process(
    start: &Start<'_>,
    config: &KmsConfig,
    credentials: &Credentials,
    tasks: &mut JoinSet<Result<()>>,
    stop: &CancellationToken,
    seen: impl Fn(GetStatusResponse) -> GetStatusResponse + Send + 'static,
) -> StoreMonitor {
    let endpoint = Endpoint::in_run_dir(&start.folders.run, &config.name);
    let connector = Connector::new(&endpoint, &config.name, credentials).deadline(Duration::from_secs(3600));
    let (connector, stop) = (connector.stop(stop.clone()), stop.clone());
    let (tx, latest) = watch::channel(GetStatusResponse { site: config.site.clone(), ..Default::default() });
    tasks.spawn(async move {
        tokio::select! {
            followed = follow(connector, tx, seen) => followed,
            () = stop.cancelled() => Ok(()),
        }
    });
    StoreMonitor { site: config.site.clone(), latest }
}

/// Starts every relay of the plan as a task.
pub fn start_relays(
    start: &Start<'_>,
    doors: &Doors,
    tasks: &mut JoinSet<Result<()>>,
    stop: &CancellationToken,
) -> Result<()> {
    let (mut relay_doors, mut queues) = (BTreeMap::new(), BTreeMap::new());
    for config in start.plan.relays() {
        let (door, queue) = mpsc::channel(STREAMS_WAITING);
        relay_doors.insert(config.site.clone(), door);
        queues.insert(config.site.clone(), queue);
    }
    for config in start.plan.relays() {
        let incoming = queues.remove(&config.site).context("a relay is planned twice")?;
        let kms = doors.relays.get(&config.kms).context("a key store is not planned")?.clone();
        let kms = Arc::new(MemoryDial::new(kms, RELAY_MESSAGES_IN_FLIGHT));
        let neighbours = config.neighbours.iter().filter(|near| near.site > config.site);
        let dial = |near: &topology::plan::RelayNeighbour| {
            let listener = relay_doors.get(&near.site)?.clone();
            let door = SiteDoor { site: config.site.clone(), listener, capacity: relay::MESSAGES_IN_FLIGHT };
            Some((near.site.clone(), Arc::new(door) as relay::NeighbourDial))
        };
        let dials = relay::Dials { kms, neighbours: neighbours.filter_map(dial).collect() };
        let (config, data, stop) = (config.clone(), start.folders.data.clone(), stop.clone());
        tasks.spawn(async move { relay::run(config, &data, dials, incoming, Arc::default(), stop).await });
    }
    Ok(())
}

async fn follow(
    connector: Connector,
    tx: watch::Sender<GetStatusResponse>,
    seen: impl Fn(GetStatusResponse) -> GetStatusResponse,
) -> Result<()> {
    loop {
        let channel = connector.clone().connect().await?;
        let mut client = shell::limited!(KmsClient::new(channel));
        while let Ok(status) = client.get_status(GetStatusRequest {}).await {
            tx.send_replace(seen(status.into_inner()));
            tokio::time::sleep(LOOK).await;
        }
        tokio::time::sleep(LOOK).await;
    }
}
