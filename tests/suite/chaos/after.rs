//! What must hold once everything has come to rest.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use etsi014::supply::KeySupply;
use kms::node::{Incoming, Node, PairDial};
use kms::pair::{MESSAGES_IN_FLIGHT, PairStream};
use module::store::{self, BlockStore};
use serde_json::Value;
use shell::dial::Dial;
use shell::duplex::Duplex;
use shell::launch::ServiceFile;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use topology::plan::{ChannelConfig, Directory, KmsConfig};

use super::load::{Book, State, sae};
use super::{APPLICATIONS, LINKS, PATIENCE};
use crate::support::{qkdnet, success};

fn blocks(data: &Path, site: &str, link: &str) -> BlockStore {
    BlockStore::open_read_only(store::path(data, site, link)).expect("open the blocks")
}

pub fn committed(data: &Path, site: &str, link: &str) -> u64 {
    BlockStore::open_read_only(store::path(data, site, link)).map_or(0, |store| store.committed_totals().0)
}

fn path(data: &Path, service: &str) -> std::path::PathBuf {
    data.join(".qkdnet/run").join(format!("{service}.yaml"))
}

/// Both ends of every link have the same blocks, none undecided, and the same authentication key.
pub fn check_links(data: &Path) {
    for (link, sites) in LINKS {
        let ends = sites.map(|site| blocks(data, site, link));
        let digests = ends.each_ref().map(|end| end.digest());
        assert!(digests[0].bits > 0 && digests[0].bits == digests[1].bits, "{link}: {digests:?}");
        assert!(digests[0].sha256 == digests[1].sha256, "the two ends of {link} differ");
        assert!(ends.iter().all(|end| end.in_doubt().is_empty()), "a block of {link} is undecided");
        let channels = sites.map(|site| {
            let path = path(data, &format!("channel-{link}-{site}"));
            ServiceFile::<ChannelConfig>::load(&path).expect("a configuration").service
        });
        let agree = channel::reserves_agree(channels.each_ref(), data).expect("open the reserves");
        assert!(agree, "the authentication reserves of {link} differ");
    }
}

/// Opens streams to the key store of another site.
struct Door {
    site: String,
    listener: mpsc::Sender<(String, PairStream)>,
}

impl Dial<proto::kms::v1::PairMessage, proto::kms::v1::PairMessage> for Door {
    fn dial(&self) -> futures::future::BoxFuture<'_, anyhow::Result<PairStream>> {
        Box::pin(async move {
            let (ours, theirs) = Duplex::pair(MESSAGES_IN_FLIGHT);
            anyhow::ensure!(self.listener.send((self.site.clone(), theirs)).await.is_ok(), "not running");
            Ok(ours)
        })
    }
}

/// The key stores once more, without light and without applications, until they have agreed on all that they hold;
/// then every key that is left is fetched, and what is on the disks is compared.
pub fn check_stores(data: &Path, book: &Book) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(come_to_rest(data, book));
    book.check();
    let mut command = qkdnet();
    command.args(["digest", "--pools", "--output", "json", "--data"]).arg(data);
    let rows: Vec<Value> = serde_json::from_slice(&success(command).stdout).expect("JSON");
    assert_eq!(rows.len(), 6, "three pools with two ends: {rows:?}");
    for ends in rows.chunks(2) {
        assert_eq!((&ends[0]["site"], &ends[0]["peer"]), (&ends[1]["peer"], &ends[1]["site"]));
        for what in ["generation", "bits", "hmac_sha256"] {
            assert_eq!(ends[0][what], ends[1][what], "the pools differ: {ends:?}");
        }
        assert_eq!(ends[0]["generation"], 0, "a pool was given up: {ends:?}");
    }
}

async fn come_to_rest(data: &Path, book: &Book) {
    let stop = CancellationToken::new();
    let configs = APPLICATIONS.map(|(_, site)| {
        let file = ServiceFile::<KmsConfig>::load(&path(data, &format!("kms-{site}"))).expect("a configuration");
        file.directory::<Directory>().expect("the directory").complete_kms(file.service)
    });
    let (mut doors, mut queues) = (BTreeMap::new(), BTreeMap::new());
    for config in &configs {
        let (door, queue) = mpsc::channel(4);
        doors.insert(config.site.clone(), door);
        queues.insert(config.site.clone(), queue);
    }
    let (mut pools, mut suppliers, mut running) = (Vec::new(), BTreeMap::new(), Vec::new());
    for config in &configs {
        let node: Node =
            kms::open(config, data, std::sync::Arc::new(anchor::Unanchored), None).await.expect("open a key store");
        pools.extend(node.pools.all());
        suppliers.insert(config.site.clone(), node.supplier.clone());
        let dial = |peer: &topology::plan::KmsPeer| {
            let door = Door { site: config.site.clone(), listener: doors[&peer.site].clone() };
            (peer.site.clone(), Arc::new(door) as PairDial)
        };
        let dials = config.peers.iter().filter(|peer| peer.site > config.site).map(dial).collect();
        let ((modules_tx, modules), (relays_tx, relays)) = (mpsc::channel(1), mpsc::channel(1));
        let pairs = queues.remove(&config.site).expect("a queue for every site");
        let stop = stop.clone();
        running.push(tokio::spawn(async move {
            let _open = (modules_tx, relays_tx);
            let incoming = Incoming { modules, pairs, relays, relayed: mpsc::channel(1).1 };
            kms::run(node, dials, incoming, stop).await
        }));
    }
    let at_rest = async {
        while !pools.iter().all(|pool| pool.connected()) || !agree(&pools) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, at_rest).await.expect("the key stores come to rest");
    check_blocks(data, &pools);
    for (id, master, slave, state) in book.all() {
        let (_, site) = APPLICATIONS.into_iter().find(|(name, _)| *name == slave).expect("an application");
        let answer = suppliers[site].get_key_with_ids(&sae(slave), &sae(master), &[id]).await;
        match answer {
            Ok(keys) => book.fetched(id, &keys[0].key),
            Err(_) if state == State::Supplied => book.lost(id),
            Err(_) => {}
        }
    }
    drop((pools, suppliers));
    stop.cancel();
    for node in running {
        node.await.expect("a key store").expect("a key store that ends in order");
    }
}

/// Both ends of every pool are at the same place, and of the pools of links nothing waits.
fn agree(pools: &[Arc<kms::pair::Pool>]) -> bool {
    pools.iter().all(|pool| {
        let mirrored = pools.iter().find(|other| other.site == pool.peer && other.peer == pool.site);
        let (ours, theirs) = (pool.levels(), mirrored.expect("the other end of a pool").levels());
        let same = (ours.generation, ours.end_bytes, ours.next_grant)
            == (theirs.generation, theirs.end_bytes, theirs.next_grant);
        same && (!pool.adjacent || ours.offered_blocks == 0)
    })
}

/// Every block that a module handed over is in its store, counted once; and none was given up that could count.
fn check_blocks(data: &Path, pools: &[Arc<kms::pair::Pool>]) {
    for pool in pools {
        let ledger = pool.store.ledger(&pool.peer).expect("a ledger");
        ledger.check().expect("a ledger that sums");
        let given_up = ledger.quarantined_bits + ledger.abandoned_bits;
        if !pool.adjacent {
            assert_eq!(given_up, 0, "{} {}: {ledger:?}", pool.site, pool.peer);
            continue;
        }
        let (link, _) = LINKS
            .into_iter()
            .find(|(_, sites)| sites.contains(&pool.site.as_str()) && sites.contains(&pool.peer.as_str()))
            .expect("a link between neighbours");
        let next = module::next_undelivered(data, &pool.site, link).expect("read the mark");
        let store = blocks(data, &pool.site, link);
        assert!(store.last_committed().is_none_or(|last| last < next), "{link}: a block was not handed over");
        let made: Vec<u64> = store.committed().map(|block| block.expect("a block").key_bits / 8).collect();
        // What confirmation takes is all that such blocks have.
        let too_short: u64 = made.iter().filter(|bytes| **bytes <= kms::pair::CONFIRMATION_BYTES as u64).sum();
        assert_eq!(given_up, 8 * too_short, "{} {}: {ledger:?}", pool.site, pool.peer);
        let made = 8 * made.iter().sum::<u64>();
        assert_eq!(ledger.offered_bits, made, "{} of {link}: blocks were lost or counted twice", pool.site);
    }
}
