//! Sites in one process: real key stores on folders of their own, real relays, streams in memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use etsi014::supply::{GetKey, KeySupply as _, SaeId, SuppliedKey};
use futures::future::BoxFuture;
use kms::supplier::Supplier;
use proto::kms::v1::{Block, DeliverAnswer, PairMessage, RelayAnswer, RelayRequest};
use proto::relay::v1::{GetStatusResponse, RelayMessage};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use relay::{Dials, Incoming, Lent, Settings, Status};
use shell::dial::Dial;
use shell::duplex::Duplex;
use shell::handover::Handover;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use topology::document::WhenFull;
use topology::plan::{KeySupply, KmsConfig, KmsModule, KmsPeer, RelayConfig, RelayNeighbour};

pub const TRANSFER_BYTES: u32 = 1024;
pub const LOW_BYTES: u64 = 6 << 10;
pub const HIGH_BYTES: u64 = 12 << 10;
/// Only what hangs waits so long: a busy machine is no failure.
const PATIENCE: Duration = Duration::from_secs(600);

type Door<S, R> = mpsc::Sender<(String, Duplex<S, R>)>;
type ModuleDoor = mpsc::Sender<Duplex<DeliverAnswer, Block>>;

/// Where a service is at present; it moves with every start.
struct Place<S, R> {
    site: String,
    door: Arc<Mutex<Option<Door<S, R>>>>,
    link: Arc<Mutex<Cable>>,
}

/// A link that can be cut.
pub struct Cable {
    up: bool,
    cut: CancellationToken,
}

impl Default for Cable {
    fn default() -> Self {
        Self { up: true, cut: CancellationToken::new() }
    }
}

impl<S: Send + 'static, R: Send + 'static> Dial<S, R> for Place<R, S> {
    fn dial(&self) -> BoxFuture<'_, anyhow::Result<Duplex<S, R>>> {
        Box::pin(async move {
            let door = self.door.lock().unwrap().clone();
            let (up, cut) = {
                let cable = self.link.lock().unwrap();
                (cable.up, cable.cut.clone())
            };
            let door = door.filter(|_| up).ok_or_else(|| anyhow::anyhow!("nobody is there"))?;
            let (ours, near) = Duplex::pair(64);
            let (far, theirs) = Duplex::pair(64);
            let ((near_tx, near_rx), (far_tx, far_rx)) = (near.split(), far.split());
            tokio::spawn(async move {
                tokio::select! {
                    () = pass(near_rx, far_tx) => {}
                    () = pass(far_rx, near_tx) => {}
                    () = cut.cancelled() => {}
                }
            });
            door.send((self.site.clone(), theirs)).await.map_err(|_| anyhow::anyhow!("nobody is there"))?;
            Ok(ours)
        })
    }
}

async fn pass<M>(mut from: mpsc::Receiver<M>, to: mpsc::Sender<M>) {
    while let Some(message) = from.recv().await {
        if to.send(message).await.is_err() {
            return;
        }
    }
}

type SharedDoor<S, R> = Arc<Mutex<Option<Door<S, R>>>>;

#[derive(Default)]
struct Doors {
    pair: SharedDoor<PairMessage, PairMessage>,
    kms: SharedDoor<RelayAnswer, RelayRequest>,
    relay: SharedDoor<RelayMessage, RelayMessage>,
    modules: Mutex<Option<ModuleDoor>>,
}

#[derive(Default)]
struct Running {
    kms: Option<JoinHandle<()>>,
    relay: Option<JoinHandle<()>>,
    supplier: Option<Arc<Supplier>>,
    status: Arc<Status>,
}

pub struct World {
    pub folder: tempfile::TempDir,
    sites: Vec<String>,
    links: Vec<(String, String)>,
    shares: u8,
    scale: Scale,
    settings: Settings,
    doors: BTreeMap<String, Doors>,
    cables: BTreeMap<(String, String), Arc<Mutex<Cable>>>,
    running: BTreeMap<String, Running>,
    /// Of the relays.
    anchor: Arc<anchor::MemoryAnchor>,
    random: ChaCha20Rng,
    blocks: u64,
}

/// Sizes of what is relayed.
#[derive(Clone, Copy)]
pub struct Scale {
    pub transfer_bytes: u32,
    pub low_bytes: u64,
    pub high_bytes: u64,
}

impl Default for Scale {
    fn default() -> Self {
        Self { transfer_bytes: TRANSFER_BYTES, low_bytes: LOW_BYTES, high_bytes: HIGH_BYTES }
    }
}

pub fn settings() -> Settings {
    Settings {
        retry_ms: 300,
        doubt_ms: 3000,
        backoff_ms: 100,
        backoff_max_ms: 1000,
        no_path_ms: 100,
        suspect_ms: 1000,
        link_state_min_ms: 50,
        refresh_ms: 1000,
        ..Settings::default()
    }
}

impl World {
    pub async fn start(links: &[(&str, &str)], shares: u8, seed: u64) -> Self {
        Self::of_scale(links, shares, seed, Scale::default()).await
    }

    pub async fn of_scale(links: &[(&str, &str)], shares: u8, seed: u64, scale: Scale) -> Self {
        println!("seed {seed}");
        let links: Vec<(String, String)> =
            links.iter().map(|(a, b)| ((*a.min(b)).to_owned(), (*a.max(b)).to_owned())).collect();
        let mut sites: Vec<String> = links.iter().flat_map(|(a, b)| [a.clone(), b.clone()]).collect();
        sites.sort();
        sites.dedup();
        let mut world = Self {
            folder: tempfile::tempdir().unwrap(),
            doors: sites.iter().map(|site| (site.clone(), Doors::default())).collect(),
            cables: links.iter().map(|link| (link.clone(), Arc::default())).collect(),
            running: sites.iter().map(|site| (site.clone(), Running::default())).collect(),
            sites,
            links,
            shares,
            scale,
            settings: settings(),
            anchor: Arc::default(),
            random: ChaCha20Rng::seed_from_u64(seed),
            blocks: 0,
        };
        for site in world.sites.clone() {
            world.start_kms(&site).await;
        }
        for site in world.sites.clone() {
            world.start_relay(&site);
        }
        world
    }

    fn near(&self, site: &str) -> Vec<String> {
        let other = |(a, b): &(String, String)| match site {
            _ if a == site => Some(b.clone()),
            _ if b == site => Some(a.clone()),
            _ => None,
        };
        self.links.iter().filter_map(other).collect()
    }

    fn kms_config(&self, site: &str) -> KmsConfig {
        let near = self.near(site);
        let peer = |peer: &String| KmsPeer {
            site: peer.clone(),
            service: format!("kms-{peer}"),
            adjacent: near.contains(peer),
        };
        let module = |peer: &String| KmsModule {
            service: format!("module-{site}-{peer}"),
            link: link_name(site, peer),
            peer_site: peer.clone(),
        };
        KmsConfig {
            name: format!("kms-{site}"),
            site: site.to_owned(),
            peers: self.sites.iter().filter(|peer| *peer != site).map(peer).collect(),
            modules: near.iter().map(module).collect(),
            relay: Some(format!("relay-{site}")),
            relay_transfer_bytes: 1024,
            saes: vec![format!("sae-{site}")],
            directory: self.sites.iter().map(|site| (format!("sae-{site}"), site.clone())).collect(),
            supply: KeySupply {
                key_size_bits: 256,
                key_size_min_bits: 64,
                key_size_max_bits: 4096,
                keys_per_request: 128,
                key_count_max: 100_000,
                additional_saes: 0,
                keys_per_second: 0,
                keys_waiting: 10_000,
                pool_bits: 1 << 27,
                when_full: WhenFull::Wait,
                retention_ms: 3_600_000,
                redelivery_window_ms: 0,
            },
            faults_allowed: false,
            accepts: Vec::new(),
        }
    }

    fn relay_config(&self, site: &str) -> RelayConfig {
        let near = self.near(site);
        let far = |other: &&String| other.as_str() > site && !near.contains(other);
        RelayConfig {
            name: format!("relay-{site}"),
            site: site.to_owned(),
            kms: format!("kms-{site}"),
            targets: self.sites.iter().filter(far).cloned().collect(),
            neighbours: near
                .into_iter()
                .map(|site| RelayNeighbour { service: format!("relay-{site}"), site, rerouted: false })
                .collect(),
            transfer_bytes: self.scale.transfer_bytes,
            low_water_bytes: self.scale.low_bytes,
            high_water_bytes: self.scale.high_bytes,
            shares: self.shares,
            faults_allowed: false,
            accepts: Vec::new(),
        }
    }

    pub async fn start_kms(&mut self, site: &str) {
        let config = self.kms_config(site);
        let node = {
            // The store of the life before may still be closing.
            let opened = async {
                loop {
                    match kms::open(&config, self.folder.path(), Arc::new(anchor::Unanchored), None).await {
                        Ok(node) => return node,
                        Err(error) if format!("{error:#}").contains("in use") => {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                        Err(error) => panic!("{error:#}"),
                    }
                }
            };
            tokio::time::timeout(PATIENCE, opened).await.expect("the store never closed")
        };
        let doors = &self.doors[site];
        let (modules_tx, modules) = mpsc::channel(4);
        let (pairs_tx, pairs) = mpsc::channel(4);
        let (named_tx, mut named) = mpsc::channel(4);
        let (relays_tx, relays) = mpsc::channel(4);
        *doors.modules.lock().unwrap() = Some(modules_tx);
        *doors.pair.lock().unwrap() = Some(pairs_tx);
        *doors.kms.lock().unwrap() = Some(named_tx);
        tokio::spawn(async move {
            while let Some((_, stream)) = named.recv().await {
                if relays_tx.send(stream).await.is_err() {
                    return;
                }
            }
        });
        let mut dials: BTreeMap<String, kms::node::PairDial> = BTreeMap::new();
        for peer in self.sites.iter().filter(|peer| peer.as_str() > site) {
            let door = self.doors[peer].pair.clone();
            dials.insert(peer.clone(), Arc::new(Place { site: site.to_owned(), door, link: Arc::default() }));
        }
        let running = self.running.get_mut(site).unwrap();
        running.supplier = Some(node.supplier.clone());
        let name = site.to_owned();
        running.kms = Some(tokio::spawn(async move {
            let incoming = kms::Incoming { modules, pairs, relays, relayed: mpsc::channel(1).1 };
            let ended = kms::run(node, dials, incoming, CancellationToken::new()).await;
            panic!("the key store of {name} ended: {ended:?}");
        }));
    }

    pub fn start_relay(&mut self, site: &str) {
        let config = self.relay_config(site);
        let (tx, streams) = mpsc::channel(4);
        *self.doors[site].relay.lock().unwrap() = Some(tx);
        let incoming = Incoming { neighbours: streams, targets: mpsc::channel(1).1 };
        let door = self.doors[site].kms.clone();
        let kms = Arc::new(Place { site: site.to_owned(), door, link: Arc::default() });
        let mut neighbours: BTreeMap<String, relay::NeighbourDial> = BTreeMap::new();
        for near in self.near(site).into_iter().filter(|near| near.as_str() > site) {
            let (door, link) = (self.doors[&near].relay.clone(), self.cable(site, &near));
            neighbours.insert(near, Arc::new(Place { site: site.to_owned(), door, link }));
        }
        let (data, settings) = (self.folder.path().to_owned(), self.settings.clone());
        let running = self.running.get_mut(site).unwrap();
        running.status = Arc::new(Status::default());
        let (status, anchor, name) = (running.status.clone(), self.anchor.clone(), site.to_owned());
        running.relay = Some(tokio::spawn(async move {
            let dials = Dials { kms, neighbours };
            let stop = CancellationToken::new();
            let lent = Lent { status, anchor, faults: None };
            let ended = relay::run_with(config, settings, &data, dials, incoming, lent, stop).await;
            panic!("the relay of {name} ended: {ended:?}");
        }));
    }

    /// Ends a relay between any two of its steps.
    pub async fn kill_relay(&mut self, site: &str) {
        *self.doors[site].relay.lock().unwrap() = None;
        let task = self.running.get_mut(site).unwrap().relay.take().expect("a relay that runs");
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled(), "the relay of {site} had ended by itself");
    }

    /// The records of a relay that does not run, once the last write of the life before has ended.
    pub async fn copy_records(&self, site: &str) -> Vec<u8> {
        drop(Self::completed(self.folder.path(), site).await);
        std::fs::read(relay::folder(self.folder.path(), site).join("records.redb")).unwrap()
    }

    pub async fn put_records_back(&self, site: &str, copy: &[u8]) {
        drop(Self::completed(self.folder.path(), site).await);
        std::fs::write(relay::folder(self.folder.path(), site).join("records.redb"), copy).unwrap();
    }

    /// Ends a key store between any two of its steps.
    pub async fn kill_kms(&mut self, site: &str) {
        let doors = &self.doors[site];
        *doors.modules.lock().unwrap() = None;
        *doors.pair.lock().unwrap() = None;
        *doors.kms.lock().unwrap() = None;
        let running = self.running.get_mut(site).unwrap();
        running.supplier = None;
        let task = running.kms.take().expect("a key store that runs");
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled(), "the key store of {site} had ended by itself");
    }

    fn cable(&self, a: &str, b: &str) -> Arc<Mutex<Cable>> {
        self.cables[&(a.min(b).to_owned(), a.max(b).to_owned())].clone()
    }

    /// Cuts the link between the relays of two sites.
    pub fn cut(&self, a: &str, b: &str) {
        let cable = self.cable(a, b);
        let mut cable = cable.lock().unwrap();
        cable.up = false;
        cable.cut.cancel();
    }

    pub fn heal(&self, a: &str, b: &str) {
        *self.cable(a, b).lock().unwrap() = Cable::default();
    }

    /// Gives both ends of a link the same random block.
    pub async fn feed(&mut self, a: &str, b: &str, bytes: usize) {
        self.blocks += 1;
        let mut key = vec![0; bytes];
        self.random.fill_bytes(&mut key);
        let mut id = [0; 16];
        self.random.fill_bytes(&mut id);
        for site in [a, b] {
            let door = self.doors[site].modules.lock().unwrap().clone().expect("a key store that runs");
            let (module, stream) = Duplex::pair(4);
            door.send(stream).await.unwrap();
            let mut module = Handover::open(module).await.unwrap();
            let block = Block {
                link: link_name(a, b),
                number: self.blocks,
                id: id.to_vec().into(),
                key_bits: 8 * bytes as u64,
                ..Block::default()
            };
            module.send(block, &key).await.unwrap();
            assert_eq!(module.taken().await.unwrap(), self.blocks);
        }
    }

    pub async fn feed_all(&mut self, bytes: usize) {
        for (a, b) in self.links.clone() {
            self.feed(&a, &b, bytes).await;
        }
    }

    pub fn status(&self, site: &str) -> GetStatusResponse {
        self.running[site].status.figures()
    }

    pub fn shared_status(&self, site: &str) -> Arc<Status> {
        self.running[site].status.clone()
    }

    pub fn supplier(&self, site: &str) -> Arc<Supplier> {
        self.running[site].supplier.clone().expect("a key store that runs")
    }

    /// Key in the pool of a pair that both ends have confirmed, as `site` sees it.
    pub fn stored_bytes(&self, site: &str, peer: &str) -> u64 {
        self.supplier(site).store().levels(peer).unwrap_or_default().stored_bytes
    }

    pub async fn filled(&self, a: &str, b: &str) {
        eventually(&format!("key between {a} and {b}"), async || {
            let low = LOW_BYTES - u64::from(TRANSFER_BYTES);
            self.stored_bytes(a, b) >= low && self.stored_bytes(b, a) >= low
        })
        .await;
    }

    /// Draws keys at one site, takes them at the other, and sees that they are the same.
    pub async fn exchange(&self, master: &str, slave: &str, number: u32) {
        let (from, to) = (self.supplier(master), self.supplier(slave));
        let (master, slave) = (sae(master), sae(slave));
        let span = tracing_none();
        let mut drawn: Vec<SuppliedKey> = Vec::new();
        eventually("keys at the master", async || {
            let request =
                GetKey { master: &master, slave: &slave, additional: &[], number, size_bits: 256, span: &span };
            drawn = from.get_key(request).await.unwrap_or_default();
            !drawn.is_empty()
        })
        .await;
        let ids: Vec<_> = drawn.iter().map(|key| key.id).collect();
        let taken = to.get_key_with_ids(&slave, &master, &ids).await.expect("the peer has the key");
        assert_eq!(taken.len(), number as usize);
        for (here, there) in drawn.iter().zip(&taken) {
            assert!(here.key == there.key, "the two ends differ");
            assert_eq!(here.key.len(), 32);
        }
    }

    /// As [`World::exchange`] of 32 keys, where there are that many.
    pub async fn exchange_if_any(&self, master: &str, slave: &str) -> bool {
        let (from, to) = (self.supplier(master), self.supplier(slave));
        let (master, slave) = (sae(master), sae(slave));
        let span = tracing_none();
        let request =
            GetKey { master: &master, slave: &slave, additional: &[], number: 32, size_bits: 256, span: &span };
        let Ok(drawn) = from.get_key(request).await else { return false };
        let ids: Vec<_> = drawn.iter().map(|key| key.id).collect();
        let taken = to.get_key_with_ids(&slave, &master, &ids).await.expect("the peer has the key");
        assert!(drawn.iter().zip(&taken).all(|(here, there)| here.key == there.key), "the two ends differ");
        true
    }

    /// Comes back while key between the two sites is being made: some has just come, more is on its way.
    pub async fn in_the_middle(&self, origin: &str, target: &str) {
        let relayed = || self.status(origin).transfers_relayed;
        let before = relayed();
        eventually("key on its way", async || {
            self.exchange_if_any(origin, target).await;
            relayed() > before
        })
        .await;
    }

    /// Ends everything and looks whether every bit is accounted for.
    pub async fn close(mut self) -> tempfile::TempDir {
        for site in self.sites.clone() {
            let running = self.running.get_mut(&site).unwrap();
            for task in [running.relay.take(), running.kms.take()].into_iter().flatten() {
                task.abort();
                assert!(task.await.unwrap_err().is_cancelled(), "a service of {site} had ended by itself");
            }
            let supplier = running.supplier.take().expect("a key store that runs");
            for pool in supplier.store().pools() {
                supplier.store().ledger(&pool).unwrap().check().unwrap();
            }
        }
        self.folder
    }

    /// What is on the disk, once the last write of the life before has ended.
    pub async fn completed(data: &Path, site: &str) -> Vec<transfer::CompletedTransfer> {
        let mut all = Vec::new();
        eventually("the records", async || match relay::completed(data, site) {
            Ok(completed) => {
                all = completed;
                true
            }
            Err(relay::RecordError::InUse { .. }) => false,
            Err(error) => panic!("{error}"),
        })
        .await;
        all
    }
}

fn tracing_none() -> tracing::Span {
    tracing::Span::none()
}

fn sae(site: &str) -> SaeId {
    SaeId::new(format!("sae-{site}")).unwrap()
}

fn link_name(a: &str, b: &str) -> String {
    format!("{}-{}", a.min(b), a.max(b))
}

/// Waits for what other tasks bring about, however slow the machine is.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waited).await.unwrap_or_else(|_| panic!("never came: {what}"));
}
