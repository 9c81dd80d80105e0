//! Redeeming in advance: fewer commits, the same answers, and what is left of it after a stop, a crash, and a look.
#![allow(clippy::unwrap_used)]

mod common;

use common::disk::{Disk, Loss};
use common::*;
use keystore::*;

const FROM: u32 = 100;
const BYTES: u64 = 60_000;

fn open(disk: &Disk) -> KeyStore {
    open_from(disk, FROM)
}

fn open_from(disk: &Disk, redeem_in_advance_from: u32) -> KeyStore {
    let settings = Settings { journal_bytes: 256 << 10, redeem_in_advance_from, ..Settings::default() };
    KeyStore::open_on(disk.media(), &master(), &settings).unwrap()
}

fn filled(disk: &Disk) -> KeyStore {
    filled_from(disk, FROM)
}

fn filled_from(disk: &Disk, redeem_in_advance_from: u32) -> KeyStore {
    let store = open_from(disk, redeem_in_advance_from);
    fill(&store, PEER, 1, BYTES as usize);
    grant(&store, PEER, Use::SupplyIn, BYTES, 0);
    store
}

fn redeem(store: &KeyStore, start: u64, bytes: u64) -> Result<(), StoreError> {
    let keys = store.redeem(PEER, Use::SupplyIn, 0, &[(start, bytes)]).wait()?;
    assert_eq!(keys[0].expose(), stream(0, start, bytes as usize));
    Ok(())
}

/// The first of these keys in order; how many journal commits they took.
fn redeem_keys(store: &KeyStore, keys: std::ops::Range<u64>) -> u64 {
    let before = store.activity().journal_commits;
    keys.for_each(|key| redeem(store, 32 * key, 32).unwrap());
    store.activity().journal_commits - before
}

#[test]
fn keys_that_are_fetched_fast_share_commits_and_slow_ones_do_not() {
    let store = filled(&Disk::default());
    assert_eq!(redeem_keys(&store, 0..50), 50);
    for _ in 0..4 {
        store.expire(0).wait().unwrap();
    }
    assert_eq!(redeem_keys(&store, 50..100), 50, "what was asked long ago hardly counts");
    redeem_keys(&store, 100..200);
    let commits = redeem_keys(&store, 200..1_200);
    assert!(
        (2..10).contains(&commits),
        "{commits} commits for 1,000 keys of which 124 lie in a chunk, of four at once"
    );
    let ledger = checked(&store, PEER);
    assert_eq!(ledger.of(Use::SupplyIn).handed_out_bits, 1_200 * 256);
    assert_eq!(store.levels(PEER).unwrap().available(Use::SupplyIn), BYTES - 1_200 * 32);
    for key in (0..1_200).step_by(17) {
        let again = redeem(&store, 32 * key, 32).unwrap_err();
        assert_eq!(again, StoreError::AlreadyTaken { start: 32 * key, bytes: 32 });
    }
}

#[test]
fn a_stop_loses_nothing_that_was_taken_in_advance() {
    let disk = Disk::default();
    let store = filled(&disk);
    redeem_keys(&store, 0..500);
    store.close().unwrap();
    drop(store);
    let store = open(&disk);
    let counted = *checked(&store, PEER).of(Use::SupplyIn);
    assert_eq!((counted.handed_out_bits, counted.wasted_bits), (500 * 256, 0));
    assert!(redeem(&store, 32 * 499, 32).is_err(), "a key came back");
    redeem_keys(&store, 500..BYTES / 32);
}

#[test]
fn a_crash_wastes_what_was_taken_in_advance_and_counts_it() {
    let disk = Disk::default();
    let store = filled(&disk);
    redeem_keys(&store, 0..500);
    let disk = disk.after_power_loss(Loss::Nothing);
    let store = open(&disk);
    let counted = *checked(&store, PEER).of(Use::SupplyIn);
    let gone = (counted.handed_out_bits + counted.wasted_bits) / 256;
    assert!(counted.wasted_bits > 0 && (500..=500 + 5 * 124).contains(&gone), "{counted:?}");
    (0..500).for_each(|key| assert!(redeem(&store, 32 * key, 32).is_err(), "a key came back"));
    redeem_keys(&store, gone..BYTES / 32);
}

#[test]
fn what_the_peer_is_told_is_what_was_asked_for_and_not_what_was_taken_in_advance() {
    let disk = Disk::default();
    let store = filled(&disk);
    redeem_keys(&store, 0..500);
    let marks = |store: &KeyStore| {
        let Standing { least, most } = store.standing(PEER).unwrap();
        (least.redeemed_end[0], least.redeemed_bytes, most.redeemed_bytes)
    };
    assert_eq!(marks(&store), (500 * 32, 500 * 32, 500 * 32));
    let crashed = disk.after_power_loss(Loss::Nothing);
    store.close().unwrap();
    drop(store);
    assert_eq!(marks(&open(&disk)), (500 * 32, 500 * 32, 500 * 32), "a clean close keeps them");
    // Which of what was taken was asked for as well is not on the disk.
    let store = open(&crashed);
    let wasted = checked(&store, PEER).of(Use::SupplyIn).wasted_bits / 8;
    let (end, bytes, most) = marks(&store);
    assert!(wasted > 0 && end <= 500 * 32 && bytes <= 500 * 32 && most >= 500 * 32, "{end} {bytes} {most} {wasted}");
}

#[test]
fn a_request_is_met_from_both_sides_of_a_chunks_border_or_not_at_all() {
    let store = filled(&Disk::default());
    redeem_keys(&store, 0..150);
    // Key 150 was not asked for, 0 was: nothing of such a request counts.
    let both = store.redeem(PEER, Use::SupplyIn, 0, &[(32 * 150, 32), (0, 32)]).wait();
    assert_eq!(both.err(), Some(StoreError::AlreadyTaken { start: 0, bytes: 32 }));
    let far = store.redeem(PEER, Use::SupplyIn, 0, &[(32 * 150, 32), (BYTES - 32, 32)]).wait().unwrap();
    assert_eq!(far[0].expose(), stream(0, 32 * 150, 32));
    assert_eq!(far[1].expose(), stream(0, BYTES - 32, 32));
    // The chunk of 150 ends at 2 * 3968, in the middle of this range.
    redeem(&store, 2 * 3_968 - 100, 200).unwrap();
    assert!(redeem(&store, 2 * 3_968, 1).is_err() && redeem(&store, 2 * 3_968 - 1, 1).is_err());
    redeem(&store, 2 * 3_968 - 132, 32).unwrap();
    redeem(&store, 2 * 3_968 + 100, 32).unwrap();
    assert_eq!(checked(&store, PEER).of(Use::SupplyIn).handed_out_bits, 8 * (150 * 32 + 64 + 200 + 64));
}

#[test]
fn what_was_taken_in_advance_and_not_asked_for_is_part_of_the_digest() {
    let [taken, not] = [FROM, u32::MAX].map(|from| {
        let store = filled_from(&Disk::default(), from);
        redeem_keys(&store, 0..130);
        store.digest(PEER, 0, &[(0, BYTES)], &Secret::new(vec![1; 32])).wait().unwrap()
    });
    assert_eq!(taken, not);
    assert_eq!(taken.bytes, BYTES - 32 * 130);
}

#[test]
fn what_is_too_old_or_voided_is_not_handed_out_from_memory() {
    let store = filled(&Disk::default());
    redeem_keys(&store, 0..200);
    store.expire(u64::MAX).wait().unwrap();
    assert!(redeem(&store, 32 * 200, 32).is_err());
    let counted = *checked(&store, PEER).of(Use::SupplyIn);
    assert_eq!((counted.handed_out_bits, counted.expired_bits), (200 * 256, 8 * BYTES - 200 * 256));

    let store = filled(&Disk::default());
    redeem_keys(&store, 0..200);
    store.void_pool(PEER, 0, "test").wait().unwrap();
    let voided = store.redeem(PEER, Use::SupplyIn, 0, &[(32 * 200, 32)]).wait().unwrap_err();
    assert_eq!(voided, StoreError::OtherGeneration { asked: 0, current: 1 });
    assert_eq!(checked(&store, PEER).of(Use::SupplyIn).wasted_bits, 8 * BYTES - 200 * 256);
}
