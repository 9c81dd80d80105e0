//! The key store as a process or container of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use futures::future::BoxFuture;
use keystore::{KeyStore, POOLS_MAX, Use};
use proto::kms::v1::kms_peer_client::KmsPeerClient;
use proto::kms::v1::kms_peer_server::{KmsPeer, KmsPeerServer};
use proto::kms::v1::kms_server::{Kms, KmsServer};
use proto::kms::v1::{
    Block, DeliverAnswer, GetStatusRequest, GetStatusResponse, PairMessage, PoolStatus, RelayAnswer, RelayRequest,
    RelayedSite, SetNetworkRequest, SetNetworkResponse, UseStatus,
};
use shell::dial::Dial;
use shell::fault::{FaultService, Kind, Place};
use shell::launch::ServiceFile;
use shell::name::NameError;
use shell::{AllowList, Connector, PeerIdentity, Role, Shutdown, duplex};
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status, Streaming};
use topology::plan::{CONTROL_IDENTITY, Directory, KmsConfig, kms_name};

use crate::Pools;
use crate::applications::{Applications, Listed};
use crate::front::{self, Front};
use crate::ingest::{BLOCKS_IN_FLIGHT, ModuleStream};
use crate::node::{self, Incoming, PairDial, RELAY_MESSAGES_IN_FLIGHT, RelayStream, RelayedSites};
use crate::pair::{Lasting, MESSAGES_IN_FLIGHT, PairStream, Pool, wire_rolled_back, wire_use};
use crate::supplier::Supplier;
use etsi014::Counters;

const STREAMS_WAITING: usize = 4;

/// What a key store tells of itself; never key.
#[derive(Clone)]
pub struct View {
    pub config: Arc<KmsConfig>,
    pub pools: Pools,
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
    let requests = view.counters.counts();
    let activity = view.store().activity();
    GetStatusResponse {
        site: view.config.site.clone(),
        kme_id: view.config.name.clone(),
        etsi014_address: view.etsi014.to_string(),
        metrics_address: view.metrics.to_string(),
        pools: view.pools.all().iter().map(|pool| pool_status(pool)).collect(),
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
        rolled_back: pool.rolled_back().map(|known| {
            let message = Lasting::RolledBack { site: known.site.clone(), why: known.why.clone() }.to_string();
            proto::anchor::v1::RolledBack { message, ..wire_rolled_back(&known) }
        }),
        peer_version: pool.peer_version().map(|theirs| Lasting::PeerVersion { theirs }.to_string()).unwrap_or_default(),
    }
}

/// Hands streams to the tasks of the node, and answers for it.
#[derive(Clone)]
struct KmsService {
    view: View,
    modules: mpsc::Sender<ModuleStream>,
    pairs: mpsc::Sender<(String, PairStream)>,
    relays: mpsc::Sender<RelayStream>,
    relayed: mpsc::Sender<RelayedSites>,
    reach: Reach,
    allow: AllowList,
}

/// The way to the key store of another site, at an address if there is one in the plan.
type Reach = Arc<dyn Fn(&str, &str) -> Result<PairDial> + Send + Sync>;

fn stopping<T>(_: T) -> Status {
    Status::unavailable("the key store is stopping")
}

#[tonic::async_trait]
impl Kms for KmsService {
    type DeliverStream = duplex::Answer<DeliverAnswer>;
    type RelayStream = duplex::Answer<RelayAnswer>;

    async fn deliver(&self, request: Request<Streaming<Block>>) -> Result<Response<Self::DeliverStream>, Status> {
        let caller = &PeerIdentity::of(&request)?.name;
        let module = self.view.config.modules.iter().find(|module| module.service == *caller);
        let own = module.map(|module| module.link.clone());
        let check = move |block: &Block| match own.as_ref() == Some(&block.link) {
            true => Ok(()),
            false => Err(Status::permission_denied("blocks of that link are another module's to deliver")),
        };
        let (stream, answer) = duplex::accept_if(request.into_inner(), BLOCKS_IN_FLIGHT, check);
        self.modules.send(stream).await.map_err(stopping)?;
        Ok(answer)
    }

    async fn relay(&self, request: Request<Streaming<RelayRequest>>) -> Result<Response<Self::RelayStream>, Status> {
        let (stream, answer) = duplex::accept(request.into_inner(), RELAY_MESSAGES_IN_FLIGHT);
        self.relays.send(stream).await.map_err(stopping)?;
        Ok(answer)
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        Ok(Response::new(status(&self.view)))
    }

    async fn set_network(&self, request: Request<SetNetworkRequest>) -> Result<Response<SetNetworkResponse>, Status> {
        let SetNetworkRequest { saes, directory, relayed_sites } = request.into_inner();
        let of_plan = |site: &String| self.is_near(site) || relayed_sites.iter().any(|relayed| relayed.site == *site);
        if let Some((sae, site)) = directory.iter().find(|(_, site)| !of_plan(site)) {
            return Err(Status::failed_precondition(format!("{sae} is at {site}, which this key store does not know")));
        }
        if let Some(RelayedSite { site, .. }) = relayed_sites.iter().find(|relayed| self.is_near(&relayed.site)) {
            return Err(Status::failed_precondition(format!(
                "no relay leads to {site}: it is here, or at a link's end"
            )));
        }
        if relayed_sites.len() > POOLS_MAX {
            return Err(Status::invalid_argument(format!("more than {POOLS_MAX} sites to share key with")));
        }
        // Nothing counts before everything was checked.
        let listed = Listed::new(&saes, &directory).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let other_sites = self.set_relayed(&relayed_sites).await?;
        let other_applications = self.view.applications.replace(listed);
        if other_applications || other_sites {
            tracing::info!(here = saes.len(), relayed = relayed_sites.len(), "it is another network now");
        }
        Ok(Response::new(SetNetworkResponse { changed: other_applications || other_sites }))
    }
}

impl KmsService {
    /// This site, or one with a link to it.
    fn is_near(&self, site: &str) -> bool {
        let config = &self.view.config;
        config.site == site || config.peers.iter().any(|peer| peer.adjacent && peer.site == site)
    }

    /// Shares key with these sites by relay; whether they are others than before.
    async fn set_relayed(&self, sites: &[RelayedSite]) -> Result<bool, Status> {
        let config = &self.view.config;
        let way = |RelayedSite { site, address }: &RelayedSite| {
            let (name, calls) = (kms_name(site), *site > config.site);
            shell::name::check(&name)?;
            anyhow::Ok((site.clone(), calls.then(|| (self.reach)(&name, address)).transpose()?))
        };
        let ways = sites.iter().map(way).collect::<Result<Vec<_>>>();
        let ways = ways.map_err(|error| Status::invalid_argument(shell::chain(&error).to_string()))?;
        let far = sites.iter().filter(|other| other.site < config.site).map(|other| kms_name(&other.site));
        let far: Vec<String> = far.collect();
        let near = config.peers.iter().filter(|peer| peer.adjacent).map(|peer| &peer.service);
        let invalid = |error: NameError| Status::invalid_argument(error.to_string());
        self.allow.set(config.accepts_always().chain(&far)).map_err(invalid)?;
        self.allow.grant(Role::KeyStore, near.chain(&far)).map_err(invalid)?;
        let (done, answer) = oneshot::channel();
        self.relayed.send(RelayedSites { sites: ways, done }).await.map_err(stopping)?;
        let done = answer.await.map_err(stopping)?;
        done.map_err(|error| Status::internal(shell::chain(&error).to_string()))
    }
}

#[tonic::async_trait]
impl KmsPeer for KmsService {
    type PairStream = duplex::Answer<PairMessage>;

    async fn pair(&self, request: Request<Streaming<PairMessage>>) -> Result<Response<Self::PairStream>, Status> {
        let caller = PeerIdentity::of(&request)?.name.clone();
        let site = self.view.pools.all().iter().map(|pool| pool.peer.clone()).find(|site| kms_name(site) == caller);
        let site = site.ok_or_else(|| Status::permission_denied("not a key store of the plan"))?;
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

/// Who may connect, and what they are to this key store.
fn allow(config: &KmsConfig) -> Result<AllowList, NameError> {
    AllowList::new(&config.accepts)?
        .with(Role::Control, [CONTROL_IDENTITY])?
        .with(Role::Module, config.modules.iter().map(|module| &module.service))?
        .with(Role::Relay, &config.relay)?
        .with(Role::KeyStore, config.peers.iter().map(|peer| &peer.service))
}

/// Serves until the process is asked to stop.
pub async fn serve(file: ServiceFile<KmsConfig>, shutdown: &Shutdown) -> Result<()> {
    let directory: Directory = file.directory()?;
    let config = directory.complete_kms(file.service.clone());
    let faults = file.fault_desk(config.faults_allowed, place(&config), CONTROL_IDENTITY, shutdown).await?;
    let (anchored, stop) = (file.anchored(&config.name, CONTROL_IDENTITY, shutdown).await?, shutdown.token());
    let (anchor, secrets) = (anchored.anchor.clone(), file.secrets.as_deref());
    let node = node::open_placed(&config, &file.data, secrets, anchor, faults.clone()).await?;
    let front = Front::start(&node, &file.pki, front::Addresses::of(&file), &stop).await?;
    let (modules_tx, modules) = mpsc::channel(STREAMS_WAITING);
    let (pairs_tx, pairs) = mpsc::channel(STREAMS_WAITING);
    let (relays_tx, relays) = mpsc::channel(STREAMS_WAITING);
    let (relayed_tx, relayed) = mpsc::channel(STREAMS_WAITING);
    let allow = allow(&config)?;
    let reach: Reach = {
        let (file, name, stop) = (file.clone(), config.name.clone(), stop.clone());
        Arc::new(move |peer, address| Ok(Arc::new(KmsDial(file.connector_at(&name, peer, address, &stop)?))))
    };
    let service = KmsService {
        view: front.view.clone(),
        modules: modules_tx,
        pairs: pairs_tx,
        relays: relays_tx,
        relayed: relayed_tx,
        reach: reach.clone(),
        allow: allow.clone(),
    };
    let server = file
        .server(&config.name, &allow)?
        .add_service(shell::limited!(KmsServer::new(service.clone())))
        .add_service(shell::limited!(KmsPeerServer::new(service)))
        .add_optional_service(anchored.service(&stop))
        .add_optional_service(FaultService::of(faults.as_ref(), &stop));
    let running = server.start(stop.clone()).await?;
    let mut dials: BTreeMap<String, PairDial> = BTreeMap::new();
    for peer in config.peers.iter().filter(|peer| peer.site > config.site) {
        dials.insert(peer.site.clone(), reach(&peer.service, directory.address(&peer.site))?);
    }
    let ended = node::run(node, dials, Incoming { modules, pairs, relays, relayed }, stop.clone()).await;
    shutdown.request();
    front.stopped().await;
    running.stopped().await?;
    ended
}
