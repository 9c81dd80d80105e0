//! A store on real files: blocks, grants, draws, redemptions, and what is left after closing.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use keystore::*;

fn open(folder: &std::path::Path) -> KeyStore {
    KeyStore::open(folder, &master(), &settings()).unwrap()
}

#[test]
fn a_block_is_drawn_here_and_redeemed_at_the_peer() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (out, in_) = (open(here.path()), open(there.path()));
    for store in [&out, &in_] {
        fill(store, PEER, 1, BLOCK_BYTES);
        fill(store, PEER, 2, BLOCK_BYTES);
    }
    grant(&out, PEER, Use::SupplyOut, 12_000, 0);
    grant(&in_, PEER, Use::SupplyIn, 12_000, 0);
    let keys: Vec<_> = (0..375).map(|_| out.draw(PEER, Use::SupplyOut, 32).unwrap()).collect();
    assert!(matches!(out.draw(PEER, Use::SupplyOut, 1), Err(StoreError::Exhausted { available_bytes: 0, .. })));
    for key in keys.iter().rev() {
        let redeemed = in_.redeem(PEER, Use::SupplyIn, key.generation, &[(key.start, 32)]).wait().unwrap();
        assert_eq!(redeemed[0], key.key);
        assert_eq!(key.key.expose(), stream(0, key.start, 32));
    }
    assert_eq!(keys[0].origins[0].block_id, id(1));
    assert_eq!(keys[374].origins[0].block_id, id(2));
    for (store, use_) in [(&out, Use::SupplyOut), (&in_, Use::SupplyIn)] {
        let ledger = checked(store, PEER);
        assert_eq!(ledger.of(use_).handed_out_bits, 96_000);
        assert_eq!(ledger.unassigned_bits, 8 * 8_000);
    }
}

#[test]
fn a_bit_that_was_handed_out_never_comes_back_after_closing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    fill(&store, PEER, 1, BLOCK_BYTES);
    grant(&store, PEER, Use::SupplyOut, 5_000, 0);
    grant(&store, PEER, Use::SupplyIn, 5_000, 0);
    assert_eq!(store.draw(PEER, Use::SupplyOut, 100).unwrap().start, 0);
    store.redeem(PEER, Use::SupplyIn, 0, &[(5_100, 32), (9_000, 1_000)]).wait().unwrap();
    let before = checked(&store, PEER);
    store.close().unwrap();
    assert_eq!(store.draw(PEER, Use::SupplyOut, 1).unwrap_err(), StoreError::Closed);
    assert_eq!(store.expire(0).wait().unwrap_err(), StoreError::Closed);
    drop(store);
    let store = open(folder.path());
    assert_eq!(checked(&store, PEER), before, "a clean close wastes nothing");
    assert_eq!(store.draw(PEER, Use::SupplyOut, 100).unwrap().start, 100);
    for taken in [(5_100, 32), (5_131, 1), (9_999, 1), (8_999, 2)] {
        let refused = store.redeem(PEER, Use::SupplyIn, 0, &[(6_000, 10), taken]).wait().unwrap_err();
        assert_eq!(refused, StoreError::AlreadyTaken { start: taken.0, bytes: taken.1 });
    }
    assert_eq!(store.redeem(PEER, Use::SupplyIn, 0, &[(6_000, 10)]).wait().unwrap().len(), 1, "refusals take nothing");
}

#[test]
fn redeeming_refuses_what_is_not_granted_to_the_use() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    fill(&store, PEER, 1, BLOCK_BYTES);
    grant(&store, PEER, Use::SupplyOut, 100, 0);
    grant(&store, PEER, Use::SupplyIn, 100, 0);
    grant(&store, PEER, Use::RelayIn, 100, 0);
    let redeem = |use_, range| store.redeem(PEER, use_, 0, &[range]).wait();
    for range in [(0, 10), (200, 10), (195, 10), (300, 1), (u64::MAX - 3, 2), (95, 10)] {
        assert_eq!(
            redeem(Use::SupplyIn, range).unwrap_err(),
            StoreError::NotGranted { start: range.0, bytes: range.1 },
            "{range:?}"
        );
    }
    assert_eq!(redeem(Use::RelayIn, (200, 100)).unwrap()[0].expose(), stream(0, 200, 100));
    assert_eq!(redeem(Use::RelayIn, (200, 1)).unwrap_err(), StoreError::AlreadyTaken { start: 200, bytes: 1 });
    assert!(matches!(redeem(Use::SupplyOut, (0, 10)), Err(StoreError::WrongUse { .. })));
    let refused = store.redeem(PEER, Use::SupplyIn, 1, &[(100, 1)]).wait().unwrap_err();
    assert_eq!(refused, StoreError::OtherGeneration { asked: 1, current: 0 });
    let twice = store.redeem(PEER, Use::SupplyIn, 0, &[(110, 10), (119, 2)]).wait().unwrap_err();
    assert_eq!(twice, StoreError::AlreadyTaken { start: 119, bytes: 2 });
    checked(&store, PEER);
}
