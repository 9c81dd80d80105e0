//! One site's key store at work: what its parts share, and the tasks that run it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use keystore::{KeyStore, MasterKey, Settings};
use proto::kms::v1::{PairMessage, RelayAnswer, RelayRequest};
use shell::dial::Dial;
use shell::duplex::Duplex;
use telemetry::trace::Tracer;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use topology::plan::KmsConfig;

use crate::deliveries::Deliveries;
use crate::ingest::{self, ModuleStream};
use crate::pads;
use crate::pair::{self, PairStream, Pool, ShareOut};
use crate::supplier::Supplier;

/// Wait before a broken dialogue is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// Time between looks for what has expired.
const EXPIRY_PULSE: Duration = Duration::from_secs(10);
pub const RELAY_MESSAGES_IN_FLIGHT: usize = 64;

/// The relay's stream as the key store sees it.
pub type RelayStream = Duplex<RelayAnswer, RelayRequest>;
pub type PairDial = Arc<dyn Dial<PairMessage, PairMessage>>;

/// The store, its pools, and what supplies from them.
pub struct Node {
    pub config: KmsConfig,
    pub store: Arc<KeyStore>,
    pub pools: BTreeMap<String, Arc<Pool>>,
    pub supplier: Arc<Supplier>,
    shares: BTreeMap<String, mpsc::Receiver<ShareOut>>,
}

/// Streams that others open to this key store.
pub struct Incoming {
    pub modules: mpsc::Receiver<ModuleStream>,
    /// With the site that connects.
    pub pairs: mpsc::Receiver<(String, PairStream)>,
    pub relays: mpsc::Receiver<RelayStream>,
}

/// Where the master key of a site's store is.
pub fn master_key_path(data: &Path, site: &str) -> PathBuf {
    keystore::folder(data, site).join("master.key")
}

/// Where whoever starts a key store may have placed its master key.
pub fn placed_master_key_path(secrets: &Path, site: &str) -> PathBuf {
    secrets.join("stores").join(format!("{site}.key"))
}

/// Opens the store of the site; makes it, and its master key, where there is none.
pub async fn open(config: &KmsConfig, data: &Path) -> Result<Node> {
    open_placed(config, data, None).await
}

/// As [`open`], with the master key from a folder of placed secrets.
pub async fn open_placed(config: &KmsConfig, data: &Path, secrets: Option<&Path>) -> Result<Node> {
    let folder = keystore::folder(data, &config.site);
    shell::files::create_private_folder(&folder).with_context(|| format!("create {}", folder.display()))?;
    let path = master_key_path(data, &config.site);
    let master = match secrets {
        Some(secrets) => MasterKey::read_placed(&placed_master_key_path(secrets, &config.site)),
        None if path.exists() => MasterKey::read(&path),
        None => MasterKey::create(&path),
    };
    let master = master.context("load the master key")?;
    let day_ms = config.supply.retention_ms;
    let settings = Settings {
        retention_out_ms: day_ms,
        // What one site still hands out the other must still redeem.
        retention_in_ms: day_ms + day_ms / 8 + 60_000,
        capacity_bytes: config.supply.pool_bits / 8,
        ..Settings::default()
    };
    let store = Arc::new(KeyStore::open(&folder, &master, &settings).context("open the key store")?);
    let (mut pools, mut shares) = (BTreeMap::new(), BTreeMap::new());
    for peer in &config.peers {
        let relayed = config.relay.is_some() && peer.adjacent;
        let (pool, outgoing) =
            Pool::new(store.clone(), &config.site, &peer.site, peer.adjacent, relayed, config.supply.retention_ms);
        pool.load().await.with_context(|| format!("load the pool shared with {}", peer.site))?;
        pools.insert(peer.site.clone(), pool);
        shares.insert(peer.site.clone(), outgoing);
    }
    let deliveries = Deliveries::open(&folder).with_context(|| format!("open a file in {}", folder.display()))?;
    let supplier = Arc::new(Supplier::new(config, store.clone(), pools.clone(), deliveries));
    Ok(Node { config: config.clone(), store, pools, supplier, shares })
}

/// Runs until `stop`.
pub async fn run(
    mut node: Node,
    dials: BTreeMap<String, PairDial>,
    incoming: Incoming,
    stop: CancellationToken,
) -> Result<()> {
    let Incoming { modules, mut pairs, relays } = incoming;
    let mut tasks = JoinSet::new();
    let mut doors = BTreeMap::new();
    for (site, pool) in &node.pools {
        let Some(shares) = node.shares.remove(site) else { continue };
        let (pool, stop) = (pool.clone(), stop.clone());
        match dials.get(site) {
            Some(dial) => drop(tasks.spawn(keep_coordinating(pool, dial.clone(), shares, stop))),
            None => {
                let (door, streams) = mpsc::channel(1);
                doors.insert(site.clone(), door);
                tasks.spawn(keep_following(pool, streams, shares, stop));
            }
        }
    }
    tasks.spawn(serve_modules(&node, modules, stop.clone()));
    tasks.spawn(pads::serve(node.pools.clone(), node.config.name.clone(), relays, stop.clone()));
    tasks.spawn(expire(node.store.clone(), stop.clone()));
    loop {
        tokio::select! {
            Some((site, stream)) = pairs.recv() => {
                if let Some(door) = doors.get(&site) {
                    // A newer stream takes the place of one that nobody has taken up.
                    let _ = door.try_send(stream);
                }
            }
            Some(ended) = tasks.join_next() => {
                ended.context("a task of the key store ended abnormally")?.context("run the key store")?;
            }
            () = stop.cancelled() => break,
        }
    }
    tasks.shutdown().await;
    node.store.close().context("close the key store")
}

async fn keep_coordinating(
    pool: Arc<Pool>,
    dial: PairDial,
    mut shares: mpsc::Receiver<ShareOut>,
    stop: CancellationToken,
) -> Result<()> {
    loop {
        let dialogue = async { pair::coordinate(&pool, dial.dial().await?, &mut shares).await };
        let ended = tokio::select! {
            ended = dialogue => ended,
            () = stop.cancelled() => return Ok(()),
        };
        if !pause(&pool, ended, &stop).await? {
            return Ok(());
        }
    }
}

async fn keep_following(
    pool: Arc<Pool>,
    mut streams: mpsc::Receiver<PairStream>,
    mut shares: mpsc::Receiver<ShareOut>,
    stop: CancellationToken,
) -> Result<()> {
    loop {
        let stream = tokio::select! {
            stream = streams.recv() => stream,
            () = stop.cancelled() => return Ok(()),
        };
        let Some(stream) = stream else { return Ok(()) };
        let ended = tokio::select! {
            ended = pair::follow(&pool, stream, &mut shares) => ended,
            () = stop.cancelled() => return Ok(()),
        };
        if !pause(&pool, ended, &stop).await? {
            return Ok(());
        }
    }
}

/// After a dialogue: false where there is no other. A store that has stopped ends the service.
async fn pause(pool: &Pool, ended: Result<()>, stop: &CancellationToken) -> Result<bool> {
    if let Some(error) = pool.store.stopped() {
        return Err(error).context("the key store has stopped");
    }
    if let Err(error) = ended {
        tracing::info!(peer = pool.peer, "the dialogue with the peer's key store ended: {error:#}");
    }
    tokio::select! {
        () = tokio::time::sleep(RETRY) => Ok(true),
        () = stop.cancelled() => Ok(false),
    }
}

/// Takes blocks of any number of modules.
fn serve_modules(
    node: &Node,
    mut modules: mpsc::Receiver<ModuleStream>,
    stop: CancellationToken,
) -> impl Future<Output = Result<()>> + use<> {
    let by_link =
        |module: &topology::plan::KmsModule| Some((module.link.clone(), node.pools.get(&module.peer_site)?.clone()));
    let pools: Arc<BTreeMap<String, Arc<Pool>>> = Arc::new(node.config.modules.iter().filter_map(by_link).collect());
    let (tracer, store) = (Tracer::new(node.config.name.clone()), node.store.clone());
    async move {
        let mut taking = JoinSet::new();
        loop {
            tokio::select! {
                Some(stream) = modules.recv() => {
                    let (pools, tracer, stop) = (pools.clone(), tracer.clone(), stop.clone());
                    taking.spawn(async move { ingest::take(&pools, &tracer, stream, &stop).await });
                }
                Some(ended) = taking.join_next() => {
                    if let Some(error) = store.stopped() {
                        return Err(error).context("the key store has stopped");
                    }
                    if let Err(error) = ended.context("a task ended abnormally").and_then(|ended| ended) {
                        tracing::warn!("a module's blocks are not taken: {error:#}");
                    }
                }
                () = stop.cancelled() => return Ok(()),
            }
        }
    }
}

async fn expire(store: Arc<KeyStore>, stop: CancellationToken) -> Result<()> {
    let mut pulse = tokio::time::interval(EXPIRY_PULSE);
    loop {
        tokio::select! {
            _ = pulse.tick() => store.expire(crate::now_ms()).await.context("erase what has expired")?,
            () = stop.cancelled() => return Ok(()),
        }
    }
}
