//! One site's key store at work: what its parts share, and the tasks that run it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anchor::{Anchor, Instance};
use anyhow::{Context, Result};
use keystore::{KeyStore, Settings};
use proto::kms::v1::{PairMessage, RelayAnswer, RelayRequest};
use shell::dial::Dial;
use shell::duplex::Duplex;
use shell::fault::{self, Desk};
use telemetry::trace::Tracer;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use topology::document::WhenFull;
use topology::plan::KmsConfig;

use crate::Pools;
use crate::applications::Applications;
use crate::deliveries::Deliveries;
use crate::ingest::{self, ModuleStream};
use crate::pair::{self, Lasting, PairStream, Pool, ShareOut};
use crate::supplier::Supplier;
use crate::{master, pads};

/// Wait before a broken dialogue is tried again, and one that cannot be had before somebody does something.
const RETRY: Duration = Duration::from_millis(250);
const RETRY_LASTING: Duration = Duration::from_secs(5);
/// Time between looks for what has expired.
const EXPIRY_PULSE: Duration = Duration::from_secs(10);
/// A store that is stopped goes on for this long with blocks that do not count yet.
const SETTLING: Duration = Duration::from_millis(500);
pub const RELAY_MESSAGES_IN_FLIGHT: usize = 64;

/// The relay's stream as the key store sees it.
pub type RelayStream = Duplex<RelayAnswer, RelayRequest>;
pub type PairDial = Arc<dyn Dial<PairMessage, PairMessage>>;

/// The store, its pools, and what supplies from them.
pub struct Node {
    pub config: KmsConfig,
    pub store: Arc<KeyStore>,
    pub pools: Pools,
    pub supplier: Arc<Supplier>,
    pub applications: Applications,
    shares: BTreeMap<String, mpsc::Receiver<ShareOut>>,
    faults: Option<Desk>,
}

/// Streams that others open to this key store.
pub struct Incoming {
    pub modules: mpsc::Receiver<ModuleStream>,
    /// With the site that connects.
    pub pairs: mpsc::Receiver<(String, PairStream)>,
    pub relays: mpsc::Receiver<RelayStream>,
    /// Sites to which relays lead, when they are others than before.
    pub relayed: mpsc::Receiver<RelayedSites>,
}

/// The sites without a link to this one with which key is shared from now on.
pub struct RelayedSites {
    /// With the way to those that this key store calls.
    pub sites: Vec<(String, Option<PairDial>)>,
    /// Whether they are others than before.
    pub done: oneshot::Sender<Result<bool>>,
}

/// Where whoever starts a key store may have placed its master key.
pub fn placed_master_key_path(secrets: &Path, site: &str) -> PathBuf {
    secrets.join("stores").join(format!("{site}.key"))
}

/// Opens the store of the site; makes it, and its master key, where there is none.
/// `anchor` keeps its ceilings, outside of `data`. `faults` only where the topology allows them.
pub async fn open(config: &KmsConfig, data: &Path, anchor: Arc<dyn Anchor>, faults: Option<Desk>) -> Result<Node> {
    open_placed(config, data, None, anchor, faults).await
}

/// As [`open`], with the master key from a folder of placed secrets.
pub async fn open_placed(
    config: &KmsConfig,
    data: &Path,
    secrets: Option<&Path>,
    anchor: Arc<dyn Anchor>,
    faults: Option<Desk>,
) -> Result<Node> {
    let folder = keystore::folder(data, &config.site);
    shell::files::create_private_folder(&folder).with_context(|| format!("create {}", folder.display()))?;
    let disk = faults.as_ref().map(Desk::disk).unwrap_or_default();
    let settings = Settings { anchor, ..settings(config) };
    let store = match secrets {
        Some(secrets) => {
            master::open_placed(&folder, &placed_master_key_path(secrets, &config.site), &settings, &disk)?
        }
        None => master::open_store(&folder, &settings, &disk)?,
    };
    let deliveries = Deliveries::open(&folder).with_context(|| format!("open a file in {}", folder.display()))?;
    on_store(config, store, deliveries, faults).await
}

/// Makes the store of a site that was put back from a copy safe again: all that may have been used is void, and it goes
/// on as another store, which its peers find out when they meet it. The store must not run. Nothing where there is none.
pub fn void_restored(data: &Path, site: &str, secrets: Option<&Path>, anchor: Arc<dyn Anchor>) -> Result<bool> {
    let folder = keystore::folder(data, site);
    if !folder.is_dir() {
        return Ok(false);
    }
    let settings = Settings { anchor: anchor.clone(), wall_ms: crate::now_ms, ..Settings::default() };
    let disk = shell::disk::Disk::default();
    let store = match secrets {
        Some(secrets) => master::open_placed(&folder, &placed_master_key_path(secrets, site), &settings, &disk)?,
        None => master::open_store(&folder, &settings, &disk)?,
    };
    // It becomes another store. A copy of what it was is one that was put back, however new.
    let given_up = [(keystore::COMMITS.to_owned(), u64::MAX)].into();
    anchor
        .raise(Instance::from_bytes(store.instance_id()), &given_up)
        .context("give the ceilings of the key store up")?;
    store.void_everything("put back from a copy, and voided").wait().context("void the key store")?;
    store.close().context("close the key store")?;
    Ok(true)
}

/// Limits of the store, as the configuration has them.
pub(crate) fn settings(config: &KmsConfig) -> Settings {
    let retention_ms = config.supply.retention_ms;
    Settings {
        retention_out_ms: retention_ms,
        // What one site still hands out the other must still redeem.
        retention_in_ms: retention_ms + retention_ms / 8 + 60_000,
        capacity_bytes: config.supply.pool_bits / 8,
        at_step: shell::failpoint::hit,
        wall_ms: crate::now_ms,
        deposits_per_master_max: config.supply.keys_waiting.into(),
        ..Settings::default()
    }
}

/// The node on a store that is open.
pub(crate) async fn on_store(
    config: &KmsConfig,
    store: KeyStore,
    deliveries: Deliveries,
    faults: Option<Desk>,
) -> Result<Node> {
    let store = Arc::new(store);
    let (pools, mut shares) = (Pools::default(), BTreeMap::new());
    for peer in &config.peers {
        let (pool, outgoing) = load_pool(config, &store, &peer.site, peer.adjacent).await?;
        pools.insert(pool);
        shares.insert(peer.site.clone(), outgoing);
    }
    let applications = Applications::of(config)?;
    let supplier = Supplier::new(config, store.clone(), pools.clone(), applications.clone(), deliveries);
    Ok(Node { config: config.clone(), store, pools, supplier: Arc::new(supplier), applications, shares, faults })
}

async fn load_pool(
    config: &KmsConfig,
    store: &Arc<KeyStore>,
    peer: &str,
    adjacent: bool,
) -> Result<(Arc<Pool>, mpsc::Receiver<ShareOut>)> {
    let relayed = config.relay.is_some() && adjacent;
    let transfer_bytes = if relayed { config.relay_transfer_bytes.into() } else { 0 };
    let retention_ms = config.supply.retention_ms;
    let (pool, outgoing) = Pool::new(store.clone(), &config.site, peer, adjacent, transfer_bytes, retention_ms);
    if config.supply.when_full == WhenFull::Expire {
        pool.expire_beyond(settings(config).capacity_bytes);
    }
    let links = config.modules.iter().filter(|module| module.peer_site == peer);
    let loaded = pool.load(links.map(|module| module.link.as_str())).await;
    loaded.with_context(|| format!("load the pool shared with {peer}"))?;
    Ok((pool, outgoing))
}

/// Runs until `stop`.
pub async fn run(
    mut node: Node,
    dials: BTreeMap<String, PairDial>,
    incoming: Incoming,
    stop: CancellationToken,
) -> Result<()> {
    let Incoming { modules, mut pairs, relays, mut relayed } = incoming;
    let mut tasks = JoinSet::new();
    tasks.spawn(serve_modules(&node, modules, stop.clone()));
    tasks.spawn(pads::serve(node.pools.clone(), node.config.name.clone(), relays, stop.clone()));
    tasks.spawn(expire(node.store.clone(), stop.clone()));
    let talking = CancellationToken::new();
    let mut dialogues = Dialogues::new(node.faults.clone(), talking.clone());
    for pool in node.pools.all() {
        if let Some(shares) = node.shares.remove(&pool.peer) {
            let dial = dials.get(&pool.peer).cloned();
            dialogues.begin(pool, dial, shares);
        }
    }
    loop {
        tokio::select! {
            Some((site, stream)) = pairs.recv() => dialogues.take_up(&site, stream).await,
            Some(RelayedSites { sites, done }) = relayed.recv() => {
                // Whoever asked may have gone.
                let _ = done.send(set_relayed(&node, &mut dialogues, sites).await);
            }
            Some(ended) = tasks.join_next() => {
                ended.context("a task of the key store ended abnormally")?.context("run the key store")?;
            }
            Some(ended) = dialogues.tasks.join_next() => {
                ended.context("a dialogue with a peer ended abnormally")?.context("run the key store")?;
            }
            () = stop.cancelled() => break,
        }
    }
    tasks.shutdown().await;
    // What takes longer, because the peer does not have it or has no room, is for the next start.
    let _ = tokio::time::timeout(SETTLING, settle(&node.pools)).await;
    talking.cancel();
    dialogues.tasks.shutdown().await;
    for pool in node.pools.all() {
        pool.note_marks().await?;
    }
    node.store.close().context("close the key store")
}

/// Waits until what the modules handed over counts at both sites, so that a run in order leaves equal pools.
async fn settle(pools: &Pools) {
    for pool in pools.all() {
        let mut progress = pool.progress();
        while pool.connected() && pool.levels().offered_blocks > 0 && progress.changed().await.is_ok() {}
    }
}

/// Makes these the sites to which relays lead; whether they were others before.
async fn set_relayed(node: &Node, dialogues: &mut Dialogues, sites: Vec<(String, Option<PairDial>)>) -> Result<bool> {
    let mut changed = false;
    for pool in node.pools.all() {
        if !pool.adjacent && !sites.iter().any(|(site, _)| *site == pool.peer) {
            tracing::info!(peer = pool.peer, "key is no longer shared with this site");
            node.pools.remove(&pool.peer);
            dialogues.end(&pool.peer);
            changed = true;
        }
    }
    for (site, dial) in sites {
        if node.pools.get(&site).is_none() {
            let (pool, shares) = load_pool(&node.config, &node.store, &site, false).await?;
            tracing::info!(peer = site, "key is shared with this site from now on");
            node.pools.insert(pool.clone());
            dialogues.begin(pool, dial, shares);
            changed = true;
        }
    }
    Ok(changed)
}

/// The dialogues with the key stores of other sites, one for each pool.
struct Dialogues {
    tasks: JoinSet<Result<()>>,
    /// Where streams go that peers open.
    doors: BTreeMap<String, mpsc::Sender<PairStream>>,
    ends: BTreeMap<String, CancellationToken>,
    faults: Option<Desk>,
    stop: CancellationToken,
}

impl Dialogues {
    fn new(faults: Option<Desk>, stop: CancellationToken) -> Self {
        Self { tasks: JoinSet::new(), doors: BTreeMap::new(), ends: BTreeMap::new(), faults, stop }
    }

    fn begin(&mut self, pool: Arc<Pool>, dial: Option<PairDial>, shares: mpsc::Receiver<ShareOut>) {
        let (site, end) = (pool.peer.clone(), self.stop.child_token());
        match dial {
            Some(dial) => {
                let dial = fault::dial(self.faults.as_ref(), &site, dial);
                self.tasks.spawn(keep_coordinating(pool, dial, shares, end.clone()));
            }
            None => {
                let (door, streams) = mpsc::channel(1);
                self.doors.insert(site.clone(), door);
                self.tasks.spawn(keep_following(pool, streams, shares, end.clone()));
            }
        }
        self.ends.insert(site, end);
    }

    fn end(&mut self, site: &str) {
        self.doors.remove(site);
        if let Some(end) = self.ends.remove(site) {
            end.cancel();
        }
    }

    async fn take_up(&self, site: &str, stream: PairStream) {
        let stream = match &self.faults {
            Some(desk) => desk.reach(site, stream),
            None => Some(stream),
        };
        if let (Some(door), Some(stream)) = (self.doors.get(site), stream) {
            // One that waits is taken up at once and dropped for this one.
            if door.send(stream).await.is_err() {
                tracing::debug!(site, "nobody takes up the peer's dialogue");
            }
        }
    }
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
    let mut next = None;
    loop {
        let stream = match next.take() {
            Some(stream) => Some(stream),
            None => tokio::select! {
                stream = streams.recv() => stream,
                () = stop.cancelled() => return Ok(()),
            },
        };
        let Some(stream) = stream else { return Ok(()) };
        let ended = tokio::select! {
            ended = pair::follow(&pool, stream, &mut shares) => ended,
            // The peer has restarted: what it still said on the old stream does not count.
            newer = streams.recv() => {
                next = newer;
                continue;
            }
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
    let mut retry = RETRY;
    if let Err(error) = ended {
        let lasting = error.downcast_ref::<Lasting>().is_some();
        let error = shell::chain(&error);
        if lasting {
            tracing::warn!(peer = pool.peer, "there is no dialogue with the peer's key store: {error}");
            retry = RETRY_LASTING;
        } else {
            tracing::info!(peer = pool.peer, "the dialogue with the peer's key store ended: {error}");
        }
    }
    pool.note_marks().await?;
    tokio::select! {
        () = tokio::time::sleep(retry) => Ok(true),
        () = stop.cancelled() => Ok(false),
    }
}

/// Takes blocks of any number of modules.
fn serve_modules(
    node: &Node,
    mut modules: mpsc::Receiver<ModuleStream>,
    stop: CancellationToken,
) -> impl Future<Output = Result<()>> + use<> {
    let by_link = |module: &topology::plan::KmsModule| Some((module.link.clone(), node.pools.get(&module.peer_site)?));
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
                        tracing::warn!("a module's blocks are not taken: {}", shell::chain(&error));
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
