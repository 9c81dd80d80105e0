//! Volumes that are put back, whole or in parts, at one site or at both, from snapshots of any age; and kills and clean
//! stops under load, after which none may look as if it had been.
//!
//! The book knows every byte that was handed out, as key or as pad, and every key that was fetched: nothing comes twice,
//! or the stores said before that they were put back, and gave nothing.

use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;

use super::disk::Disk;
use super::{PATIENCE, World};

/// A site and which of its files are put back.
type Part = (usize, bool, bool);

const PARTS: [(bool, bool); 3] = [(true, true), (true, false), (false, true)];

impl World {
    /// Lets applications, relays and modules do something, and takes a snapshot of each volume now and then.
    async fn go_on(&mut self, snapshots: &mut [Vec<Disk>; 2]) {
        for _ in 0..self.rng.random_range(1..4) {
            self.blocks.make(self.rng.random_range(1..5));
            tokio::time::sleep(Duration::from_millis(self.rng.random_range(10..120))).await;
            for (site, snapshots) in self.sites.iter().zip(snapshots.iter_mut()) {
                snapshots.push(site.snapshot());
            }
        }
        self.blocks.make(3);
        tokio::time::sleep(Duration::from_millis(self.rng.random_range(10..120))).await;
    }

    /// One site or both, one file of it or all.
    fn parts(&mut self) -> Vec<Part> {
        let sites = [vec![0], vec![1], vec![0, 1]][self.rng.random_range(0..3)].clone();
        let parts = sites.into_iter().map(|site| {
            let (database, journals) = PARTS[self.rng.random_range(0..PARTS.len())];
            (site, database, journals)
        });
        parts.collect()
    }

    async fn put_back(&mut self, snapshots: &[Vec<Disk>; 2]) {
        let parts = self.parts();
        let ages: Vec<usize> =
            parts.iter().map(|(site, ..)| self.rng.random_range(0..snapshots[*site].len())).collect();
        println!("put back: {parts:?}, snapshots {ages:?}");
        let cleanly = self.rng.random_bool(0.5);
        for (site, ..) in &parts {
            self.sites[*site].halt(cleanly).await;
        }
        for ((site, database, journals), age) in parts.iter().zip(ages) {
            self.sites[*site].put_back(&snapshots[*site][age], *database, *journals);
            self.sites[*site].start().await;
        }
        // Whoever can get anything gets it.
        self.blocks.make(4);
        tokio::time::sleep(Duration::from_millis(self.rng.random_range(50..250))).await;
        for (site, ..) in parts {
            self.sites[site].halt(true).await;
            self.sites[site].void();
            self.sites[site].start().await;
        }
        // Pools start over, and both ends know nothing of it any more.
        let patience = Instant::now() + PATIENCE;
        while !self.sites.iter().all(|site| site.levels().is_some() && !site.is_put_back()) {
            assert!(Instant::now() < patience, "the pools do not start over: {}", self.describe());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// How many bytes were left in the pools: none, where a round was short of blocks after pools had started over.
async fn round(seed: u64) -> u64 {
    println!("seed {seed}");
    let mut world = World::new(seed).await;
    world.volumes_lost += 1;
    world.book.pool_is_lost();
    if seed % 2 == 1 {
        world.sites.iter_mut().for_each(super::site::Site::hurry);
    }
    world.blocks.make(10);
    let mut snapshots = [Vec::new(), Vec::new()];
    for _ in 0..2 {
        world.go_on(&mut snapshots).await;
        world.put_back(&snapshots).await;
    }
    world.settle().await;
    for site in &mut world.sites {
        site.end_load().await;
    }
    world.check_blocks().await;
    let nodes = world.sites.each_ref().map(super::Site::node);
    let counts = world.book.fetch_the_rest(&nodes).await;
    drop(nodes);
    let left = world.check_pools().await;
    println!("seed {seed}: {} keys supplied, {} fetched", counts.0, counts.1);
    left
}

/// Sites that are killed and stopped again and again, at any step of theirs, while keys are fetched as fast as they can
/// be.
async fn kills(seed: u64) -> u64 {
    println!("seed {seed}");
    let mut world = World::new(seed).await;
    world.sites.iter_mut().for_each(super::site::Site::hurry);
    // What is redeemed in advance is wasted by a crash.
    world.book.pool_is_lost();
    world.blocks.make(30);
    for _ in 0..6 {
        world.blocks.make(6);
        tokio::time::sleep(Duration::from_millis(world.rng.random_range(1..60))).await;
        let site = world.rng.random_range(0..2);
        if world.rng.random_bool(0.3) {
            world.sites[site].restart().await;
        } else {
            world.crash(site).await;
        }
        assert!(world.sites.iter().all(|site| !site.is_put_back()));
    }
    world.settle().await;
    for site in &mut world.sites {
        site.end_load().await;
    }
    let nodes = world.sites.each_ref().map(super::Site::node);
    let (_, fetched) = world.book.fetch_the_rest(&nodes).await;
    drop(nodes);
    assert!(world.check_pools().await > 0, "something is left to compare");
    fetched
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

fn side_by_side<F: Future<Output: Send> + Send + 'static>(seeds: u64, round: fn(u64) -> F) -> Vec<F::Output> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let all: Vec<u64> = (0..seeds).collect();
    let mut done = Vec::new();
    for some in all.chunks(4) {
        let rounds: Vec<_> = some.iter().map(|seed| runtime.spawn(round(*seed))).collect();
        for (seed, round) in some.iter().zip(rounds) {
            done.push(runtime.block_on(round).unwrap_or_else(|error| panic!("seed {seed}: {error}")));
        }
    }
    done
}

#[test]
fn whatever_volumes_are_put_back_no_key_is_delivered_twice_and_no_pad_used_twice() {
    let left: u64 = side_by_side(number("KMS_PUT_BACK_ROUNDS", 20), round).into_iter().sum();
    assert!(left > 0, "something is left to compare");
}

#[test]
fn no_kill_and_no_clean_stop_under_load_looks_like_a_volume_that_was_put_back() {
    let fetched: u64 = side_by_side(number("KMS_KILL_ROUNDS", 12), kills).into_iter().sum();
    assert!(fetched > 100, "there was load: {fetched}");
}
