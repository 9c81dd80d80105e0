//! A store whose files, all or some, are put back from a copy.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anchor::{Anchor, Ceilings, Instance, MemoryAnchor};
use common::disk::{Disk, Loss};
use common::*;
use keystore::*;

fn anchored(anchor: &Arc<MemoryAnchor>) -> Settings {
    Settings { anchor: anchor.clone(), anchor_period: Duration::from_millis(5), wall_ms: || 77, ..settings() }
}

/// A store with a pool that is granted in quarters: supply out, supply in, relay out, relay in.
fn made(settings: &Settings) -> (Disk, KeyStore) {
    let disk = Disk::default();
    let store = KeyStore::open_on(disk.media(), &master(), settings).unwrap();
    for number in 0..8 {
        fill(&store, PEER, number, BLOCK_BYTES);
    }
    for use_ in [Use::SupplyOut, Use::SupplyIn, Use::RelayOut, Use::RelayIn] {
        grant(&store, PEER, use_, 20_000, 0);
    }
    (disk, store)
}

fn open(disk: &Disk, settings: &Settings) -> KeyStore {
    KeyStore::open_on(disk.media(), &master(), settings).unwrap()
}

/// Waits until the anchor knows all that was done.
fn wait_for(anchor: &MemoryAnchor, store: &KeyStore, name: &str, count: u64) {
    let instance = Instance::from_bytes(store.instance_id());
    while anchor.read(instance).unwrap().unwrap_or_default().get(name).copied().unwrap_or(0) < count {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn is_rolled_back<T: std::fmt::Debug>(answer: Result<T, StoreError>) {
    assert!(matches!(answer, Err(StoreError::RolledBack { .. })), "{answer:?}");
}

/// Nothing of it is used, by nobody, and blocks wait.
fn serves_nothing(store: &KeyStore) {
    let known = store.rolled_back(PEER).expect("a store that was put back says so");
    assert_eq!((known.site.as_str(), known.since_ms), ("", 77));
    is_rolled_back(store.draw(PEER, Use::SupplyOut, 8));
    is_rolled_back(store.draw(PEER, Use::RelayOut, 8));
    is_rolled_back(store.redeem(PEER, Use::SupplyIn, 0, &[(39_000, 8)]).wait());
    is_rolled_back(store.redeem(PEER, Use::RelayIn, 0, &[(79_000, 8)]).wait());
    is_rolled_back(store.take_deposit(&[id(1)], "b", "a", 0).wait());
    let waits = store.offer(PEER, block(99, 0, 0, 100)).wait();
    assert_eq!(waits, Ok(BlockStatus::Offered));
    is_rolled_back(store.confirm(PEER, id(99), 0, store.levels(PEER).unwrap().end_bytes, 0).wait());
    checked(store, PEER);
}

#[test]
fn whatever_part_of_a_store_is_put_back_it_hands_out_nothing_until_it_is_voided() {
    for (database, journals, clean) in
        [(true, true, true), (true, true, false), (false, true, false), (true, false, false), (true, false, true)]
    {
        println!("database {database}, journals {journals}, closed cleanly {clean}");
        let anchor = Arc::new(MemoryAnchor::default());
        let settings = anchored(&anchor);
        let (disk, store) = made(&settings);
        store.redeem(PEER, Use::SupplyIn, 0, &[(20_000, 32)]).wait().unwrap();
        store.draw(PEER, Use::SupplyOut, 32).unwrap();
        let copy = disk.snapshot();
        let before = store.activity();
        store.redeem(PEER, Use::SupplyIn, 0, &[(20_032, 32)]).wait().unwrap();
        store.expire(0).wait().unwrap();
        let (commits, records) = (before.database_commits + 1, before.journal_commits + 1);
        wait_for(&anchor, &store, "records", records);
        wait_for(&anchor, &store, "commits", commits);
        let now = if clean {
            store.close().unwrap();
            disk.snapshot()
        } else {
            // A process that is killed settles nothing.
            std::mem::forget(store);
            disk.snapshot()
        };
        let now = now.with_files_of(&copy, database, journals);
        // A clean close leaves nothing in the journals that old ones could lack.
        if !database && clean {
            continue;
        }
        // Whoever looks at it without the anchor does not hide anything.
        for _ in 0..8 {
            open(&now, &Settings { wall_ms: || 77, ..common::settings() }).close().unwrap();
        }
        for _ in 0..2 {
            let store = open(&now, &settings);
            serves_nothing(&store);
            store.close().unwrap();
        }
        let store = open(&now, &settings);
        let instance = store.instance_id();
        store.void_everything("restored").wait().unwrap();
        store.close().unwrap();
        drop(store);
        let store = open(&now, &settings);
        assert_ne!(store.instance_id(), instance);
        assert_eq!(store.rolled_back(PEER), None);
        let levels = store.levels(PEER).unwrap();
        assert_eq!((levels.generation, levels.end_bytes, levels.offered_blocks), (1, 0, 0));
        checked(&store, PEER);
        fill(&store, PEER, 200, BLOCK_BYTES);
        grant(&store, PEER, Use::SupplyOut, 10_000, 0);
        assert_eq!(store.draw(PEER, Use::SupplyOut, 32).unwrap().key.expose(), stream(1, 0, 32));
    }
}

#[test]
fn what_a_store_that_was_put_back_drew_since_then_is_not_drawn_again() {
    for age in 0..6 {
        let anchor = Arc::new(MemoryAnchor::default());
        // As long as this test lasts the anchor learns nothing but ceilings.
        let settings = Settings { anchor_period: Duration::from_secs(3600), ..anchored(&anchor) };
        let (disk, store) = made(&settings);
        let mut drawn = BTreeSet::new();
        let mut draw = |store: &KeyStore, count: usize| {
            for _ in 0..count {
                match store.draw(PEER, Use::SupplyOut, 32) {
                    Ok(key) => assert!(drawn.insert(key.start), "byte {} is drawn twice", key.start),
                    Err(StoreError::RolledBack { .. } | StoreError::Exhausted { .. }) => return,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        draw(&store, 10);
        let copy = disk.snapshot();
        draw(&store, 60 * age);
        std::mem::forget(store);
        let store = open(&copy, &settings);
        draw(&store, 1_000);
        checked(&store, PEER);
    }
}

#[test]
fn a_crash_goes_on_at_the_ceiling_and_a_clean_close_wastes_nothing() {
    let anchor = Arc::new(MemoryAnchor::default());
    let settings = anchored(&anchor);
    let (disk, store) = made(&settings);
    store.draw(PEER, Use::SupplyOut, 32).unwrap();
    store.close().unwrap();
    drop(store);
    let store = open(&disk, &settings);
    assert_eq!(checked(&store, PEER).of(Use::SupplyOut).wasted_bits, 0);
    assert_eq!(store.draw(PEER, Use::SupplyOut, 32).unwrap().start, 32);
    while !store.anchor_is_current() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let disk = disk.snapshot();
    let ceilings = anchor.read(Instance::from_bytes(store.instance_id())).unwrap().unwrap();
    std::mem::forget(store);
    let store = open(&disk, &settings);
    let ledger = checked(&store, PEER);
    let ceiling = ceilings[&format!("supply-drawn/{PEER}")];
    assert!(ceiling > 4096 && ceiling <= 20_000, "{ceiling}");
    assert_eq!(ledger.of(Use::SupplyOut).wasted_bits + ledger.of(Use::SupplyOut).handed_out_bits, 8 * ceiling);
    assert_eq!(store.rolled_back(PEER), None);
    assert_eq!(store.draw(PEER, Use::SupplyOut, 32).unwrap().start, ceiling);
}

/// Raises nothing while it is told so.
#[derive(Debug, Default)]
struct Stubborn {
    kept: MemoryAnchor,
    refuses: std::sync::atomic::AtomicBool,
}

impl Anchor for Stubborn {
    fn read(&self, store: Instance) -> Result<Option<Ceilings>, anchor::AnchorError> {
        self.kept.read(store)
    }

    fn raise(&self, store: Instance, ceilings: &Ceilings) -> Result<(), anchor::AnchorError> {
        if self.refuses.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(anchor::AnchorError::Unreachable("not now".to_owned()));
        }
        self.kept.raise(store, ceilings)
    }

    fn settle(&self, store: Instance, counts: &Ceilings) -> Result<(), anchor::AnchorError> {
        self.kept.settle(store, counts)
    }
}

#[test]
fn an_anchor_that_does_not_answer_stops_drawing_at_the_ceiling_and_nothing_else() {
    let anchor = Arc::new(Stubborn::default());
    let settings = Settings { anchor: anchor.clone(), ..settings() };
    let (_, store) = made(&settings);
    store.draw(PEER, Use::SupplyOut, 32).unwrap();
    anchor.refuses.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut drawn = 0;
    while let Some(keys) = store.try_draw_many(PEER, Use::SupplyOut, 32, 1).unwrap() {
        drawn += keys.len();
        // What is fetched ahead comes before what waits.
        store.expire(0).wait().unwrap();
    }
    assert!((100..600).contains(&drawn), "{drawn}");
    // The writer does not wait with it.
    store.redeem(PEER, Use::SupplyIn, 0, &[(20_000, 32)]).wait().unwrap();
    while store.anchor_failing().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    anchor.refuses.store(false, std::sync::atomic::Ordering::Relaxed);
    store.draw(PEER, Use::SupplyOut, 32).unwrap();
    assert_eq!(store.anchor_failing(), None);
}

#[test]
fn what_is_certain_and_what_cannot_be_excluded_meet_again_after_a_clean_close() {
    let (disk, store) = made(&settings());
    store.draw(PEER, Use::SupplyOut, 100).unwrap();
    store.redeem(PEER, Use::SupplyIn, 0, &[(20_500, 40)]).wait().unwrap();
    store.redeem(PEER, Use::RelayIn, 0, &[(60_000, 10)]).wait().unwrap();
    let marks = Marks { drawn_end: [100, 0], redeemed_end: [20_540, 60_010], redeemed_bytes: 50 };
    assert_eq!(store.standing(PEER).unwrap(), Standing { least: marks, most: marks });
    let crashed = disk.after_power_loss(Loss::All);
    store.close().unwrap();
    drop(store);
    let store = open(&disk, &settings());
    assert_eq!(store.standing(PEER).unwrap(), Standing { least: marks, most: marks });
    let store = open(&crashed, &settings());
    let Standing { least, most } = store.standing(PEER).unwrap();
    assert!(least.drawn_end[0] <= 100 && most.drawn_end[0] >= 100 && most.drawn_end[0] <= 4096, "{least:?} {most:?}");
    assert_eq!((least.redeemed_end, least.redeemed_bytes, most.redeemed_bytes), ([20_540, 60_010], 50, 50));
    store.void_pool(PEER, 0, "test").wait().unwrap();
    let marks = store.standing(PEER).unwrap().most;
    assert_eq!((marks.drawn_end, marks.redeemed_end), ([0; 2], [0; 2]));
}

#[test]
fn a_pool_that_a_peer_calls_put_back_waits_for_its_next_generation_also_after_a_restart() {
    let (disk, store) = made(&settings());
    store.draw(PEER, Use::SupplyOut, 100).unwrap();
    let known = RolledBack { site: "sophia".to_owned(), since_ms: 5, why: "it says so".to_owned() };
    store.mark_rolled_back(PEER, known.clone()).wait().unwrap();
    is_rolled_back(store.draw(PEER, Use::SupplyOut, 8));
    store.close().unwrap();
    drop(store);
    let store = open(&disk, &settings());
    assert_eq!(store.rolled_back(PEER), Some(known));
    is_rolled_back(store.redeem(PEER, Use::SupplyIn, 0, &[(39_000, 8)]).wait());
    store.void_pool(PEER, 0, "the other site begins again").wait().unwrap();
    assert_eq!(store.rolled_back(PEER), None);
    store.close().unwrap();
    drop(store);
    assert_eq!(open(&disk, &settings()).rolled_back(PEER), None);
}
