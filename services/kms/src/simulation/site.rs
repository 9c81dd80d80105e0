//! One key store with its disk, the modules of its links and its application.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anchor::MemoryAnchor;
use anyhow::Result;
use keystore::{KeyStore, Levels, MasterKey, Settings};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use topology::document::WhenFull;
use topology::plan::{KeySupply, KmsConfig, KmsModule, KmsPeer};

use super::SITES;
use super::disk::{Disk, Loss};
use super::load::{self, Blocks, Book, LINKS};
use super::net::{Net, Way};
use crate::deliveries::Deliveries;
use crate::node::{self, Incoming, Node, PairDial};
use crate::pair::Pool;
use crate::supplier::Supplier;

pub fn application(end: usize) -> String {
    format!("sae-{}", SITES[end])
}

pub fn config(end: usize) -> KmsConfig {
    let other = SITES[1 - end];
    KmsConfig {
        name: format!("kms-{}", SITES[end]),
        site: SITES[end].to_owned(),
        peers: vec![KmsPeer { site: other.to_owned(), service: format!("kms-{other}"), adjacent: true }],
        modules: LINKS
            .iter()
            .map(|link| KmsModule {
                service: format!("detector-{link}"),
                link: (*link).to_owned(),
                peer_site: other.to_owned(),
            })
            .collect(),
        relay: Some("relay".to_owned()),
        relay_transfer_bytes: 1024,
        saes: vec![application(end)],
        directory: (0..2).map(|end| (application(end), SITES[end].to_owned())).collect(),
        supply: KeySupply {
            key_size_bits: 256,
            key_size_min_bits: 64,
            key_size_max_bits: 4096,
            keys_per_request: 16,
            key_count_max: 100_000,
            keys_waiting: 10_000,
            additional_saes: 0,
            keys_per_second: 0,
            pool_bits: 1 << 26,
            when_full: WhenFull::Wait,
            retention_ms: 3_600_000,
            redelivery_window_ms: 0,
        },
        faults_allowed: true,
        accepts: Vec::new(),
    }
}

/// What outsiders need of a node that runs.
#[derive(Clone)]
pub struct Handles {
    pub store: Arc<KeyStore>,
    pub pool: Arc<Pool>,
    pub supplier: Arc<Supplier>,
}

struct Running {
    handles: Handles,
    stop: CancellationToken,
    node: JoinHandle<Result<()>>,
    load: Vec<JoinHandle<()>>,
}

pub struct Site {
    end: usize,
    disk: Disk,
    folder: TempDir,
    net: Arc<Net>,
    blocks: Arc<Blocks>,
    book: Arc<Book>,
    seed: u64,
    starts: u64,
    running: Option<Running>,
    /// How far each module has handed over, which outlives the key store.
    marks: Arc<Mutex<[usize; LINKS.len()]>>,
    /// Outside of the volume.
    anchor: Arc<MemoryAnchor>,
    /// Applications that do not pause, and redemptions in advance from the first one on.
    hurried: bool,
}

impl Site {
    pub fn new(end: usize, disk: Disk, net: &Arc<Net>, blocks: &Arc<Blocks>, book: &Arc<Book>, seed: u64) -> Self {
        Self {
            end,
            disk,
            folder: tempfile::tempdir().unwrap(),
            net: net.clone(),
            blocks: blocks.clone(),
            book: book.clone(),
            seed,
            starts: 0,
            running: None,
            marks: Arc::default(),
            anchor: Arc::default(),
            hurried: false,
        }
    }

    /// The store alone.
    pub fn open(&self) -> KeyStore {
        let settings = node::settings(&config(self.end));
        let settings = Settings {
            journal_bytes: 16 << 10,
            anchor: self.anchor.clone(),
            anchor_period: Duration::from_millis(20),
            redeem_in_advance_from: if self.hurried { 0 } else { settings.redeem_in_advance_from },
            ..settings
        };
        KeyStore::open_on(self.disk.media(), &MasterKey::from_bytes([self.end as u8; 32]), &settings).unwrap()
    }

    pub async fn start(&mut self) {
        let config = config(self.end);
        let deliveries = Deliveries::open(self.folder.path()).unwrap();
        let node: Node = node::on_store(&config, self.open(), deliveries, None).await.unwrap();
        let handles = Handles {
            store: node.store.clone(),
            pool: node.pools.get(SITES[1 - self.end]).unwrap(),
            supplier: node.supplier.clone(),
        };
        let (modules_tx, modules) = mpsc::channel(4);
        let (pairs_tx, pairs) = mpsc::channel(4);
        let (relays_tx, relays) = mpsc::channel(1);
        let mut dials: BTreeMap<String, PairDial> = BTreeMap::new();
        if self.end == 0 {
            dials.insert(SITES[1].to_owned(), Arc::new(Way(self.net.clone())));
        } else {
            self.net.open_door(pairs_tx.clone());
        }
        let stop = CancellationToken::new();
        let running = {
            let stop = stop.clone();
            // Kept open, as a server would.
            async move {
                let _open = (pairs_tx, relays_tx);
                node::run(node, dials, Incoming { modules, pairs, relays, relayed: mpsc::channel(1).1 }, stop).await
            }
        };
        let node = tokio::spawn(running);
        self.starts += 1;
        let seed = self.seed << 8 ^ self.starts << 1 ^ self.end as u64;
        let mut load: Vec<JoinHandle<()>> = (0..LINKS.len())
            .map(|link| {
                let module = load::Module {
                    end: self.end,
                    link,
                    blocks: self.blocks.clone(),
                    marks: self.marks.clone(),
                    seed: seed ^ (link as u64) << 40,
                };
                tokio::spawn(module.run(modules_tx.clone()))
            })
            .collect();
        let pause_ms = if self.hurried { 1 } else { 12 };
        load.push(tokio::spawn(load::application(
            self.end,
            self.book.clone(),
            handles.supplier.clone(),
            seed,
            pause_ms,
        )));
        load.push(tokio::spawn(load::relay(self.end, self.book.clone(), handles.pool.clone())));
        self.running = Some(Running { handles, stop, node, load });
    }

    pub fn levels(&self) -> Option<Levels> {
        let pool = &self.running.as_ref()?.handles.pool;
        pool.connected().then(|| pool.levels())
    }

    pub fn is_put_back(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.handles.pool.rolled_back().is_some())
    }

    /// The modules have handed over all there is.
    pub fn is_at_rest(&self) -> bool {
        let marks = self.marks.lock().unwrap();
        (0..LINKS.len()).all(|link| self.blocks.next(self.end, link, marks[link]).is_none())
    }

    pub fn node(&self) -> Handles {
        self.running.as_ref().expect("a site that runs").handles.clone()
    }

    /// The disk fails some operations from now on, and then the power does: what a kill in the middle of anything leaves,
    /// with more or less of what was not synced. Starts again on what is left.
    pub async fn crash(&mut self, operations: u64, loss: Loss) {
        self.disk.fail_at(self.disk.operations() + operations);
        if let Some(running) = self.running.take() {
            let Running { handles, node, load, .. } = running;
            // Where nothing is written there is nothing to interrupt.
            let _ = tokio::time::timeout(Duration::from_millis(60), async {
                while handles.store.stopped().is_none() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
            .await;
            self.disk.fail_at(0);
            self.disk = self.disk.after_power_loss(loss);
            end(load).await;
            node.abort();
            let _ = node.await;
            self.hang_up();
        }
        self.start().await;
    }

    /// A process that is gone has no connections.
    fn hang_up(&self) {
        self.net.break_streams();
    }

    pub async fn lose_volume(&mut self) {
        self.stop().await;
        self.disk = Disk::default();
        self.start().await;
    }

    pub fn hurry(&mut self) {
        self.hurried = true;
    }

    /// The volume as it is at this moment.
    pub fn snapshot(&self) -> Disk {
        self.disk.snapshot()
    }

    /// Stops, cleanly or not. What the anchor does not know yet it may never know: so it is waited for.
    pub async fn halt(&mut self, cleanly: bool) {
        if cleanly {
            return self.stop().await;
        }
        self.end_load().await;
        let store = self.node().store;
        while !store.anchor_is_current() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let left = self.disk.snapshot();
        drop(store);
        // What a process that is killed would do when it stops is done to a disk that nobody has.
        self.disk.fail_at(self.disk.operations());
        if let Some(Running { handles, node, .. }) = self.running.take() {
            node.abort();
            let _ = node.await;
            drop(handles);
            self.hang_up();
        }
        self.disk = left;
    }

    /// Puts back what a snapshot had. The site does not run.
    pub fn put_back(&mut self, copy: &Disk, database: bool, journals: bool) {
        self.disk = self.disk.with_files_of(copy, database, journals);
    }

    /// As `qkdnet restore` does. The site does not run.
    pub fn void(&self) {
        let store = self.open();
        store.void_everything("restored").wait().unwrap();
        store.close().unwrap();
    }

    /// Applications and modules have done enough.
    pub async fn end_load(&mut self) {
        let load = self.running.as_mut().map(|running| std::mem::take(&mut running.load));
        end(load.unwrap_or_default()).await;
    }

    pub async fn stop(&mut self) {
        let Some(Running { stop, node, load, handles }) = self.running.take() else { return };
        end(load).await;
        drop(handles);
        stop.cancel();
        node.await.unwrap().unwrap();
    }

    pub async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }
}

/// Stops what asks and hands over; what it found wrong is wrong.
async fn end(load: Vec<JoinHandle<()>>) {
    load.iter().for_each(JoinHandle::abort);
    for task in load {
        if let Err(error) = task.await
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}
