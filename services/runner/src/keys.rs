//! Key stores and relays as tasks of this process, and what is seen of key stores wherever they run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::future::BoxFuture;
use kms::View;
use kms::front::{Addresses, Front};
use kms::ingest::{BLOCKS_IN_FLIGHT, ModuleStream};
use kms::node::{Incoming, PairDial, RELAY_MESSAGES_IN_FLIGHT, RelayStream};
use kms::pair::{MESSAGES_IN_FLIGHT, PairStream};
use proto::anchor::v1::RolledBack;
use proto::kms::v1::kms_client::KmsClient;
use proto::kms::v1::{GetStatusRequest, GetStatusResponse};
use proto::relay::v1 as relay_wire;
use proto::relay::v1::relay_client::RelayClient;
use shell::dial::{Door, MemoryDial, NamedDial};
use shell::fault::Desk;
use shell::{Connector, Credentials, Endpoint, pki};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use topology::plan::{KmsConfig, RelayConfig};

use super::Start;
use super::anchors::Anchors;
use super::asked::Asked;
use super::faults::Desks;
use super::life::{Life, Serving};

const STREAMS_WAITING: usize = 4;
/// Time between looks at a key store.
const LOOK: Duration = Duration::from_millis(250);
/// Time between looks at a relay, which has less to say.
const LOOK_RELAY: Duration = Duration::from_secs(1);

/// A key store as the run sees it.
pub struct StoreMonitor {
    pub site: String,
    pub latest: watch::Receiver<GetStatusResponse>,
}

/// A relay as the run sees it.
pub struct RelayMonitor {
    pub rolled_back: watch::Receiver<Option<RolledBack>>,
}

/// Follows what one relay says of itself, however it is asked.
fn watch_relay<F>(
    ask: impl Fn() -> F + Send + 'static,
    tasks: &mut JoinSet<Result<()>>,
    stop: &CancellationToken,
) -> RelayMonitor
where
    F: Future<Output = Option<relay_wire::GetStatusResponse>> + Send,
{
    let ((tx, rolled_back), stop) = (watch::channel(None), stop.clone());
    tasks.spawn(async move {
        loop {
            tokio::select! {
                status = ask() => if let Some(status) = status {
                    tx.send_if_modified(|known| std::mem::replace(known, status.rolled_back.clone()) != status.rolled_back);
                },
                () = stop.cancelled() => return Ok(()),
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_RELAY) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    });
    RelayMonitor { rolled_back }
}

/// Follows a relay in another process.
pub fn watch_relay_process(
    start: &Start<'_>,
    config: &RelayConfig,
    credentials: &Credentials,
    tasks: &mut JoinSet<Result<()>>,
    stop: &CancellationToken,
) -> RelayMonitor {
    let asked = Asked::new(start, &config.name, credentials, LOOK_RELAY);
    let ask = move || {
        let asked = asked.clone();
        async move {
            asked
                .ask(|channel| async move {
                    shell::limited!(RelayClient::new(channel)).get_status(relay_wire::GetStatusRequest {}).await
                })
                .await
        }
    };
    watch_relay(ask, tasks, stop)
}

/// What key stores in this process hand to those that connect to them.
#[derive(Default)]
pub struct Doors {
    pub modules: BTreeMap<String, module::KmsDial>,
    relays: BTreeMap<String, Door<RelayStream>>,
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
    desks: &Desks,
    tasks: &mut JoinSet<Result<()>>,
    stop: &CancellationToken,
) -> Result<(Doors, Vec<StoreMonitor>)> {
    let (mut doors, mut monitors) = (Doors::default(), Vec::new());
    let pairs: BTreeMap<String, Door<(String, PairStream)>> =
        start.plan.key_stores().map(|config| (config.site.clone(), Door::new(STREAMS_WAITING))).collect();
    for config in start.plan.key_stores().cloned().map(|config| start.plan.directory.complete_kms(config)) {
        let modules: Door<ModuleStream> = Door::new(STREAMS_WAITING);
        let relays = Door::new(STREAMS_WAITING);
        let dial = MemoryDial::through(modules.clone(), BLOCKS_IN_FLIGHT);
        doors.modules.insert(config.name.clone(), Arc::new(dial));
        doors.relays.insert(config.name.clone(), relays.clone());
        let (status, latest) = watch::channel(GetStatusResponse { site: config.site.clone(), ..Default::default() });
        monitors.push(StoreMonitor { site: config.site.clone(), latest });
        let desk = desks.get(&config.name);
        let name = config.name.clone();
        let store = Arc::new(Store {
            data: start.folders.data.clone(),
            anchors: start.anchors.clone(),
            pki: start.folders.pki.clone(),
            run_dir: start.folders.run.clone(),
            modules,
            pairs: pairs.get(&config.site).context("a key store is not planned")?.clone(),
            relays,
            dials: pair_dials(&config, &pairs),
            config,
            status: Arc::new(status),
            faults: desk.clone(),
        });
        let begin = move |life| -> BoxFuture<'static, Result<Serving>> { Box::pin(store.clone().begin(life)) };
        tasks.spawn(Life::start(&name, desk, stop, begin).await?.keep());
    }
    Ok((doors, monitors))
}

/// What a key store is made of, each time that it starts.
struct Store {
    config: KmsConfig,
    data: PathBuf,
    anchors: Anchors,
    pki: PathBuf,
    run_dir: PathBuf,
    modules: Door<ModuleStream>,
    pairs: Door<(String, PairStream)>,
    relays: Door<RelayStream>,
    dials: BTreeMap<String, PairDial>,
    status: Arc<watch::Sender<GetStatusResponse>>,
    faults: Option<Desk>,
}

impl Store {
    async fn begin(self: Arc<Self>, life: CancellationToken) -> Result<Serving> {
        let node = kms::open(&self.config, &self.data, self.anchors.open()?, self.faults.clone()).await?;
        let front = Front::start(&node, &self.pki, Addresses::loopback(&self.run_dir), &life).await?;
        self.status.send_replace(kms::status(&front.view));
        tokio::spawn(watch_here(front.view.clone(), self.status.clone(), life.clone()));
        let (modules, pairs, relays) = (self.modules.open(), self.pairs.open(), self.relays.open());
        // A network in one process stays as it was begun.
        let incoming = Incoming { modules, pairs, relays, relayed: mpsc::channel(1).1 };
        let dials = self.dials.clone();
        Ok(Box::pin(async move {
            let ended = kms::run(node, dials, incoming, life.clone()).await;
            // Listeners end with the store, whatever ended it.
            life.cancel();
            front.stopped().await;
            ended
        }))
    }
}

fn pair_dials(config: &KmsConfig, doors: &BTreeMap<String, Door<(String, PairStream)>>) -> BTreeMap<String, PairDial> {
    let dial = |peer: &topology::plan::KmsPeer| {
        let door = doors.get(&peer.site)?.clone();
        let door = NamedDial::through(&config.site, door, MESSAGES_IN_FLIGHT);
        Some((peer.site.clone(), Arc::new(door) as PairDial))
    };
    config.peers.iter().filter(|peer| peer.site > config.site).filter_map(dial).collect()
}

async fn watch_here(view: View, tx: Arc<watch::Sender<GetStatusResponse>>, life: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => tx.send_replace(kms::status(&view)),
            () = life.cancelled() => return,
        };
    }
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
pub async fn start_relays(
    start: &Start<'_>,
    desks: &Desks,
    doors: &Doors,
    tasks: &mut JoinSet<Result<()>>,
    stop: &CancellationToken,
) -> Result<Vec<RelayMonitor>> {
    let mut monitors = Vec::new();
    let relays: BTreeMap<String, Door<(String, relay::NeighbourStream)>> =
        start.plan.relays().map(|config| (config.site.clone(), Door::new(STREAMS_WAITING))).collect();
    for config in start.plan.relays().cloned().map(|config| start.plan.directory.complete_relay(config)) {
        let incoming = relays.get(&config.site).context("a relay is not planned")?.clone();
        let kms = doors.relays.get(&config.kms).context("a key store is not planned")?.clone();
        let kms: relay::KmsDial = Arc::new(MemoryDial::through(kms, RELAY_MESSAGES_IN_FLIGHT));
        let dial = |near: &topology::plan::RelayNeighbour| {
            let door = relays.get(&near.site)?.clone();
            let door = NamedDial::through(&config.site, door, relay::MESSAGES_IN_FLIGHT);
            Some((near.site.clone(), Arc::new(door) as relay::NeighbourDial))
        };
        let neighbours = config.neighbours.iter().filter(|near| near.site > config.site);
        let neighbours: BTreeMap<_, _> = neighbours.filter_map(dial).collect();
        let desk = desks.get(&config.name);
        let (service, data, faults) = (config.clone(), start.folders.data.clone(), desk.clone());
        let anchors = start.anchors.clone();
        let status = Arc::new(relay::Status::default());
        let told = status.clone();
        monitors.push(watch_relay(move || std::future::ready(Some(told.figures())), tasks, stop));
        let begin = move |life| -> BoxFuture<'static, Result<Serving>> {
            let status = status.clone();
            let dials = relay::Dials { kms: kms.clone(), neighbours: neighbours.clone() };
            let (service, data) = (service.clone(), data.clone());
            let (anchors, faults) = (anchors.clone(), faults.clone());
            let incoming = relay::Incoming { neighbours: incoming.open(), targets: mpsc::channel(1).1 };
            Box::pin(async move {
                let lent = relay::Lent { status, anchor: anchors.open()?, faults };
                let run = async move { relay::run(service, &data, dials, incoming, lent, life).await };
                Ok(Box::pin(run) as Serving)
            })
        };
        tasks.spawn(Life::start(&config.name, desk, stop, begin).await?.keep());
    }
    Ok(monitors)
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
