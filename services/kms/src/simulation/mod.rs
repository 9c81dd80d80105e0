//! Two whole key stores on a network and on disks that a seed spoils: streams break, stall and double, the sites are
//! parted, processes are killed, and disks lose power with what was not synced. Applications at both ends ask for keys
//! all the while, modules hand over blocks, some of which the other site never gets or gets with other bits.
//!
//! Afterwards nothing was supplied twice, nothing wrong, nothing that was acknowledged is lost, and the two pools are
//! one. What goes wrong follows from the seed; how threads take turns does not.

#[allow(dead_code)]
#[path = "../../../../crates/keystore/tests/common/disk.rs"]
mod disk;
mod load;
mod net;
mod put_back;
mod site;
mod steps;

use std::sync::Arc;
use std::time::Duration;

use keystore::{BlockStatus, Drawn, KeyStore, Secret, StoreError, Use};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;

use self::disk::{Disk, Loss};
use self::load::{Blocks, Book};
use self::net::Net;
use self::site::Site;

const SITES: [&str; 2] = ["alpha", "beta"];
/// Only what hangs waits so long: a busy machine is no failure.
const PATIENCE: Duration = Duration::from_secs(300);

struct World {
    rng: ChaCha8Rng,
    net: Arc<Net>,
    blocks: Arc<Blocks>,
    book: Arc<Book>,
    sites: [Site; 2],
    volumes_lost: u32,
}

impl World {
    async fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (net, blocks) = (Arc::new(Net::new(seed)), Arc::new(Blocks::new(rng.random())));
        let book = Arc::new(Book::default());
        let [a, b] = [0, 1].map(|end| Site::new(end, Disk::default(), &net, &blocks, &book, seed));
        let mut world = Self { rng, net, blocks, book, sites: [a, b], volumes_lost: 0 };
        for site in &mut world.sites {
            site.start().await;
        }
        world
    }

    /// One thing that goes wrong, then a while for its consequences.
    async fn misfortune(&mut self) {
        let site = self.rng.random_range(0..2);
        match self.rng.random_range(0..100) {
            0..25 => self.net.cut_after(self.rng.random_range(0..40)),
            25..35 => self.net.double_after(self.rng.random_range(0..30)),
            35..50 => self.net.part(self.rng.random_bool(0.5)),
            50..75 => self.crash(site).await,
            // Both at once.
            75..85 => {
                self.crash(site).await;
                self.crash(1 - site).await;
            }
            85..95 => self.sites[site].restart().await,
            _ => {}
        }
        self.blocks.make(self.rng.random_range(0..6));
        tokio::time::sleep(Duration::from_millis(self.rng.random_range(5..150))).await;
        if self.rng.random_bool(0.7) {
            self.net.join();
        }
    }

    async fn crash(&mut self, site: usize) {
        let after = self.rng.random_range(0..30);
        let loss = match self.rng.random_range(0..4) {
            0 => Loss::All,
            1 => Loss::Nothing,
            _ => Loss::Some(self.rng.random()),
        };
        self.sites[site].crash(after, loss).await;
    }

    async fn lose_volume(&mut self, site: usize) {
        self.volumes_lost += 1;
        self.book.pool_is_lost();
        self.sites[site].crash(0, Loss::Nothing).await;
        self.sites[site].lose_volume().await;
    }

    /// Nothing goes wrong any more: every block that both sites get counts, every other one has ended.
    async fn settle(&mut self) {
        self.net.join();
        self.net.calm();
        self.blocks.close();
        let patience = Instant::now() + PATIENCE;
        while !self.is_settled() {
            assert!(Instant::now() < patience, "never at rest: {}", self.describe());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn is_settled(&self) -> bool {
        assert!(self.sites.iter().all(|site| !site.is_put_back()), "a store says that it was put back");
        let [Some(a), Some(b)] = self.sites.each_ref().map(|site| site.levels()) else { return false };
        self.sites.iter().all(|site| site.is_at_rest())
            && a.offered_blocks + b.offered_blocks == 0
            && (a.generation == 0 || self.volumes_lost > 0)
            && (a.generation, a.end_bytes, a.next_grant) == (b.generation, b.end_bytes, b.next_grant)
    }

    fn describe(&self) -> String {
        let site = |site: &Site| format!("{:?} at rest {}", site.levels(), site.is_at_rest());
        self.sites.iter().map(site).collect::<Vec<_>>().join("; ")
    }

    /// Every block has the end that it should have, the same at both sites.
    async fn check_blocks(&self) {
        let [a, b] = self.sites.each_ref().map(|site| site.node().store.clone());
        for block in self.blocks.all() {
            let ends = [a.block_status(SITES[1], block.id).await, b.block_status(SITES[0], block.id).await];
            let what = format!("link {} block {}: {ends:?}", block.link, block.number);
            match ends {
                [Ok(BlockStatus::Confirmed { generation, start }), other] => {
                    assert!(block.reaches == [true, true] && !block.differs, "{what}");
                    assert!(
                        other == Ok(BlockStatus::Confirmed { generation, start }) || self.volumes_lost > 0,
                        "{what}"
                    );
                }
                [Err(_), Err(_)] => assert!(block.reaches == [false; 2] || self.volumes_lost > 0, "{what}"),
                // Confirmed at the follower alone: before the generation ended.
                [_, Ok(BlockStatus::Confirmed { .. })] => assert!(self.volumes_lost > 0, "{what}"),
                [one, two] => {
                    let sound = block.reaches == [true; 2] && !block.differs;
                    assert!(!sound || self.volumes_lost > 0, "an acknowledged block is lost: {what}");
                    let waits = |end: &Result<BlockStatus, _>| matches!(end, Ok(BlockStatus::Offered));
                    assert!(!waits(&one) && !waits(&two), "{what}");
                }
            }
        }
    }

    /// Stops both sites and compares what is on their disks: the same digest, and every bit that one can still draw the
    /// other redeems. What a crash wasted of what was redeemed in advance may lie where the other site has not drawn yet:
    /// that much may be missing, and no more. How many bytes there were to compare.
    async fn check_pools(mut self) -> u64 {
        for site in &mut self.sites {
            site.stop().await;
        }
        let stores = self.sites.each_ref().map(Site::open);
        let key = Secret::new(vec![7; 32]);
        let mut ranges = stores[0].held(SITES[1]).await.unwrap();
        ranges.extend(stores[1].held(SITES[0]).await.unwrap());
        ranges.sort_unstable();
        let generation = stores[0].levels(SITES[1]).unwrap().generation;
        let mut digests = Vec::new();
        for (store, peer) in [(&stores[0], SITES[1]), (&stores[1], SITES[0])] {
            store.ledger(peer).unwrap().check().unwrap();
            digests.push(store.digest(peer, generation, &ranges, &key).await.unwrap());
        }
        let wasted = |store: &KeyStore, peer, use_: Use| store.ledger(peer).unwrap().uses[use_.index()].wasted_bits / 8;
        let wasted_in = [wasted(&stores[0], SITES[1], Use::SupplyIn), wasted(&stores[1], SITES[0], Use::SupplyIn)];
        if wasted_in == [0, 0] {
            assert_eq!(digests[0], digests[1], "the two pools differ");
        }
        let mut bytes = 0;
        for (out, into, end) in [(0, 1, 1), (1, 0, 0)] {
            for (use_, mirrored) in [(Use::SupplyOut, Use::SupplyIn), (Use::RelayOut, Use::RelayIn)] {
                let mut missing = 0;
                while let Ok(drawn) = stores[out].draw(SITES[end], use_, 16) {
                    missing += redeem_all(&stores[into], SITES[out], mirrored, &drawn).await;
                    assert!(self.book.is_new(&drawn.key), "key came a second time");
                    bytes += 16;
                }
                let wasted = if mirrored == Use::SupplyIn { wasted_in[into] } else { 0 };
                assert!(missing <= wasted, "{missing} bytes are missing at the other end, which wasted {wasted}");
            }
        }
        bytes
    }
}

/// Redeems what the other site drew: the same bits. How many bytes are not here any more.
async fn redeem_all(store: &KeyStore, peer: &str, use_: Use, drawn: &Drawn) -> u64 {
    let bytes = drawn.key.len() as u64;
    match store.redeem(peer, use_, drawn.generation, &[(drawn.start, bytes)]).await {
        Ok(keys) => {
            assert!(keys[0] == drawn.key, "the two ends differ at {}", drawn.start);
            0
        }
        Err(StoreError::AlreadyTaken { .. }) => {
            let mut missing = 0;
            for at in 0..bytes {
                match store.redeem(peer, use_, drawn.generation, &[(drawn.start + at, 1)]).await {
                    Ok(keys) => assert!(keys[0].expose()[0] == drawn.key.expose()[at as usize], "the two ends differ"),
                    Err(StoreError::AlreadyTaken { .. }) => missing += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            missing
        }
        Err(error) => panic!("{error}"),
    }
}

/// One history. Prints its seed first: that is what a failure is repeated with.
async fn history(seed: u64) -> (u64, u64) {
    println!("seed {seed}");
    let mut world = World::new(seed).await;
    world.blocks.make(8);
    for step in 0..10 {
        world.misfortune().await;
        if seed % 8 == 5 && step == 5 {
            world.lose_volume((seed / 8 % 2) as usize).await;
        }
    }
    world.settle().await;
    for site in &mut world.sites {
        site.end_load().await;
    }
    world.check_blocks().await;
    let nodes = world.sites.each_ref().map(Site::node);
    let counts = world.book.fetch_the_rest(&nodes).await;
    drop(nodes);
    assert!(world.check_pools().await > 0, "something is left to compare");
    println!("seed {seed}: {} keys supplied, {} fetched", counts.0, counts.1);
    counts
}

fn seeds() -> u64 {
    std::env::var("KMS_SIMULATION_SEEDS").map_or(16, |text| text.parse().expect("a number"))
}

#[test]
fn whatever_breaks_no_key_is_wrong_twice_or_lost_and_both_pools_are_one() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut counts = (0, 0);
    // They mostly wait: some at a time.
    let all: Vec<u64> = (0..seeds()).collect();
    for some in all.chunks(4) {
        let histories: Vec<_> = some.iter().map(|seed| runtime.spawn(history(*seed))).collect();
        for (seed, history) in some.iter().zip(histories) {
            let count = runtime.block_on(history).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            counts = (counts.0 + count.0, counts.1 + count.1);
        }
    }
    assert!(counts.1 > 10 * seeds(), "the applications got something: {counts:?}");
}
