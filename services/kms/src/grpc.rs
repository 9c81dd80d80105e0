//! The key store as a process or container of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use futures::future::BoxFuture;
use keystore::{KeyStore, Use};
use proto::kms::v1::kms_peer_client::KmsPeerClient;
use proto::kms::v1::kms_peer_server::{KmsPeer, KmsPeerServer};
use proto::kms::v1::kms_server::{Kms, KmsServer};
use proto::kms::v1::{
    Block, DeliverAnswer, GetStatusRequest, GetStatusResponse, PairMessage, PoolStatus, RelayAnswer, RelayRequest,
    SetApplicationsRequest, SetApplicationsResponse, UseStatus,
};
use shell::dial::Dial;
use shell::fault::{FaultService, Kind, Place};
use shell::launch::ServiceFile;
use shell::{Connector, PeerIdentity, Shutdown, duplex};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};
use topology::plan::{CONTROL_IDENTITY, KmsConfig};

use crate::applications::Applications;
use crate::etsi014::Counters;
use crate::front::{self, Front};
use crate::ingest::{BLOCKS_IN_FLIGHT, ModuleStream};
use crate::node::{self, Incoming, PairDial, RELAY_MESSAGES_IN_FLIGHT, RelayStream};
use crate::pair::{MESSAGES_IN_FLIGHT, PairStream, Pool, wire_use};
use crate::supplier::Supplier;

const STREAMS_WAITING: usize = 4;

/// What a key store tells of itself; never key.
#[derive(Clone)]
pub struct View {
    pub config: Arc<KmsConfig>,
    pub pools: BTreeMap<String, Arc<Pool>>,
    pub supplier: Arc<Supplier>,
    pub applications: Applications,
    pub etsi014: SocketAddr,
    pub metrics: SocketAddr,
    pub counters: Arc<Counters>,
}

impl View {
    pub fn store(&self) -> &KeyStore {
        self.supplier.store()
    }
}

/// Everything that a key store counts.
pub fn status(view: &View) -> GetStatusResponse {
    let counts = &view.supplier.counts;
    let load = |count: &std::sync::atomic::AtomicU64| count.load(std::sync::atomic::Ordering::Relaxed);
    let requests = view.counters.snapshot();
    let activity = view.store().activity();
    GetStatusResponse {
        site: view.config.site.clone(),
        kme_id: view.config.name.clone(),
        etsi014_address: view.etsi014.to_string(),
        metrics_address: view.metrics.to_string(),
        pools: view.pools.values().map(|pool| pool_status(pool)).collect(),
        keys_supplied: load(&counts.supplied),
        keys_fetched: load(&counts.fetched),
        requests: requests.requests.iter().map(|counted| counted.count).sum(),
        requests_refused: requests.requests.iter().filter(|counted| counted.status >= 400).map(|c| c.count).sum(),
        fsyncs: 2 * activity.database_commits + activity.journal_commits,
    }
}

fn pool_status(pool: &Pool) -> PoolStatus {
    let ledger = pool.store.ledger(&pool.peer).unwrap_or_default();
    let use_status = |use_: Use| {
        let counted = ledger.of(use_);
        UseStatus {
            purpose: wire_use(use_).into(),
            granted_bits: counted.granted_bits,
            handed_out_bits: counted.handed_out_bits,
            wasted_bits: counted.wasted_bits,
            expired_bits: counted.expired_bits,
            left_bits: counted.left_bits,
        }
    };
    PoolStatus {
        site: pool.peer.clone(),
        adjacent: pool.adjacent,
        connected: pool.connected(),
        generation: ledger.generation,
        offered_bits: ledger.offered_bits,
        pending_bits: ledger.pending_bits,
        confirmed_bits: ledger.confirmed_bits,
        deducted_bits: ledger.deducted_bits,
        quarantined_bits: ledger.quarantined_bits,
        abandoned_bits: ledger.abandoned_bits,
        unassigned_bits: ledger.unassigned_bits,
        uses: Use::ALL.map(use_status).to_vec(),
        wasted_ungranted_bits: ledger.voided_bits,
    }
}

/// Hands streams to the tasks of the node, and answers for it.
#[derive(Clone)]
struct KmsService {
    view: View,
    modules: mpsc::Sender<ModuleStream>,
    pairs: mpsc::Sender<(String, PairStream)>,
    relays: mpsc::Sender<RelayStream>,
}

fn stopping<T>(_: T) -> Status {
    Status::unavailable("the key store is stopping")
}

#[tonic::async_trait]
impl Kms for KmsService {
    type DeliverStream = duplex::Answer<DeliverAnswer>;
    type RelayStream = duplex::Answer<RelayAnswer>;

    async fn deliver(&self, request: Request<Streaming<Block>>) -> Result<Response<Self::DeliverStream>, Status> {
        let modules: Vec<&str> = self.view.config.modules.iter().map(|module| module.service.as_str()).collect();
        PeerIdentity::require(&request, &modules)?;
        let (stream, answer) = duplex::accept(request.into_inner(), BLOCKS_IN_FLIGHT);
        self.modules.send(stream).await.map_err(stopping)?;
        Ok(answer)
    }

    async fn relay(&self, request: Request<Streaming<RelayRequest>>) -> Result<Response<Self::RelayStream>, Status> {
        let relay: Vec<&str> = self.view.config.relay.iter().map(String::as_str).collect();
        PeerIdentity::require(&request, &relay)?;
        let (stream, answer) = duplex::accept(request.into_inner(), RELAY_MESSAGES_IN_FLIGHT);
        self.relays.send(stream).await.map_err(stopping)?;
        Ok(answer)
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        Ok(Response::new(status(&self.view)))
    }

    async fn set_applications(
        &self,
        request: Request<SetApplicationsRequest>,
    ) -> Result<Response<SetApplicationsResponse>, Status> {
        PeerIdentity::require(&request, &[CONTROL_IDENTITY])?;
        let SetApplicationsRequest { saes, directory } = request.into_inner();
        let config = &self.view.config;
        let of_plan = |site: &String| *site == config.site || config.peers.iter().any(|peer| peer.site == *site);
        if let Some((sae, site)) = directory.iter().find(|(_, site)| !of_plan(site)) {
            return Err(Status::failed_precondition(format!("{sae} is at {site}, which this key store does not know")));
        }
        let directory = directory.into_iter().collect();
        let replaced = self.view.applications.replace(&saes, &directory);
        let changed = replaced.map_err(|error| Status::invalid_argument(error.to_string()))?;
        if changed {
            tracing::info!(here = saes.len(), network = directory.len(), "there are other applications");
        }
        Ok(Response::new(SetApplicationsResponse { changed }))
    }
}

#[tonic::async_trait]
impl KmsPeer for KmsService {
    type PairStream = duplex::Answer<PairMessage>;

    async fn pair(&self, request: Request<Streaming<PairMessage>>) -> Result<Response<Self::PairStream>, Status> {
        let caller = PeerIdentity::of(&request)?.name.clone();
        let peer = self.view.config.peers.iter().find(|peer| peer.service == caller);
        let peer = peer.ok_or_else(|| Status::permission_denied("not a key store of the plan"))?;
        let site = peer.site.clone();
        let (stream, answer) = duplex::accept(request.into_inner(), MESSAGES_IN_FLIGHT);
        self.pairs.send((site, stream)).await.map_err(stopping)?;
        Ok(answer)
    }
}

/// Reaches another site's key store over gRPC.
struct KmsDial(Connector);

impl Dial<PairMessage, PairMessage> for KmsDial {
    fn dial(&self) -> BoxFuture<'_, Result<PairStream>> {
        Box::pin(async move {
            let channel = self.0.clone().connect().await?;
            let mut client = shell::limited!(KmsPeerClient::new(channel));
            let open = duplex::open(MESSAGES_IN_FLIGHT, |outgoing| async move { client.pair(outgoing).await });
            open.await.context("open a stream to the peer's key store")
        })
    }
}

/// What this key store is to its desk of faults.
pub fn place(config: &KmsConfig) -> Place {
    Place::new(&config.name, &config.site, "", Kind::Kms, 0)
}

/// Serves until the process is asked to stop.
pub async fn serve(file: ServiceFile<KmsConfig>, shutdown: &Shutdown) -> Result<()> {
    let config = file.service.clone();
    let faults = file.fault_desk(config.faults_allowed, place(&config), CONTROL_IDENTITY, shutdown).await?;
    let node = node::open_placed(&config, &file.data, file.secrets.as_deref(), faults.clone()).await?;
    let stop = shutdown.token();
    let front = Front::start(&node, &file.pki, front::Addresses::of(&file), &stop).await?;
    let (modules_tx, modules) = mpsc::channel(STREAMS_WAITING);
    let (pairs_tx, pairs) = mpsc::channel(STREAMS_WAITING);
    let (relays_tx, relays) = mpsc::channel(STREAMS_WAITING);
    let service = KmsService { view: front.view.clone(), modules: modules_tx, pairs: pairs_tx, relays: relays_tx };
    let server = file
        .server(&config.name, &config.accepts)?
        .add_service(shell::limited!(KmsServer::new(service.clone())))
        .add_service(shell::limited!(KmsPeerServer::new(service)))
        .add_optional_service(FaultService::of(faults.as_ref(), CONTROL_IDENTITY, &stop));
    let running = server.start(stop.clone()).await?;
    let mut dials: BTreeMap<String, PairDial> = BTreeMap::new();
    for peer in config.peers.iter().filter(|peer| peer.site > config.site) {
        let connector = file.connector(&config.name, &peer.service, &stop)?;
        dials.insert(peer.site.clone(), Arc::new(KmsDial(connector)));
    }
    let ended = node::run(node, dials, Incoming { modules, pairs, relays }, stop.clone()).await;
    shutdown.request();
    front.stopped().await;
    running.stopped().await?;
    ended
}
