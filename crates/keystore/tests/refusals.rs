//! What the store refuses: other keys, other formats, other processes, damage, a failing disk, limits.
#![allow(clippy::unwrap_used)]

mod common;

use std::os::unix::fs::PermissionsExt;

use common::disk::{Disk, Loss};
use common::*;
use keystore::*;

fn open(disk: &Disk) -> Result<KeyStore, StoreError> {
    KeyStore::open_on(disk.media(), &master(), &settings())
}

#[test]
fn a_store_opens_with_its_master_key_only_and_rotation_changes_which() {
    let folder = tempfile::tempdir().unwrap();
    let store = KeyStore::open(folder.path(), &master(), &settings()).unwrap();
    fill(&store, PEER, 1, 100);
    let instance_id = store.instance_id();
    assert_eq!((instance_id[6] >> 4, instance_id[8] >> 6), (4, 2), "a random UUID");
    let new = MasterKey::random().unwrap();
    assert_eq!(store.rotate(&new, &new).wait().unwrap_err(), StoreError::WrongMasterKey);
    store.rotate(&master(), &new).wait().unwrap();
    drop(store);
    let refused = KeyStore::open(folder.path(), &master(), &settings()).unwrap_err();
    assert_eq!(refused, StoreError::WrongMasterKey);
    assert_eq!(refused.to_string(), "the master key does not open this store");
    let store = KeyStore::open(folder.path(), &new, &settings()).unwrap();
    assert_eq!(store.instance_id(), instance_id);
    assert_eq!(store.levels(PEER).unwrap().unassigned_bytes, 100);
}

#[test]
fn files_are_for_their_owner_and_for_one_store_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = keystore::folder(folder.path(), "valrose");
    let store = KeyStore::open(&path, &master(), &settings()).unwrap();
    for file in std::fs::read_dir(&path).unwrap().map(Result::unwrap) {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
    }
    let refused = KeyStore::open(&path, &master(), &settings()).unwrap_err();
    assert_eq!(refused, StoreError::InUse { path: path.join("keys.redb") });
    drop(store);
    KeyStore::open(&path, &master(), &settings()).unwrap();
}

#[test]
fn another_format_is_refused_by_its_number() {
    let folder = tempfile::tempdir().unwrap();
    drop(KeyStore::open(folder.path(), &master(), &settings()).unwrap());
    let database = redb::Database::open(folder.path().join("keys.redb")).unwrap();
    let txn = database.begin_write().unwrap();
    let table: redb::TableDefinition<&str, &[u8]> = redb::TableDefinition::new("store");
    txn.open_table(table).unwrap().insert("format", 2u32.to_le_bytes().as_slice()).unwrap();
    txn.commit().unwrap();
    drop(database);
    let refused = KeyStore::open(folder.path(), &master(), &settings()).unwrap_err();
    assert_eq!(refused, StoreError::UnsupportedFormat { found: 2, supported: 1 });
}

#[test]
fn a_missing_journal_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(KeyStore::open(folder.path(), &master(), &settings()).unwrap());
    std::fs::remove_file(folder.path().join("redeemed-1.log")).unwrap();
    let refused = KeyStore::open(folder.path(), &master(), &settings()).unwrap_err();
    assert!(matches!(&refused, StoreError::Corrupt { what } if what.contains("journal")), "{refused}");
}

#[test]
fn a_flipped_bit_is_found_and_never_served() {
    let disk = Disk::default();
    let store = open(&disk).unwrap();
    fill(&store, PEER, 1, 30_000);
    grant(&store, PEER, Use::SupplyIn, 30_000, 0);
    store.redeem(PEER, Use::SupplyIn, 0, &[(10, 10)]).wait().unwrap();
    store.close().unwrap();
    let pages = disk.bytes(0) / 4096;
    let mut found = 0;
    for page in 0..pages {
        let damaged = disk.after_power_loss(Loss::Nothing);
        damaged.flip(0, page * 4096 + 100);
        let Ok(store) = KeyStore::open_on(damaged.media(), &master(), &settings()) else {
            found += 1;
            continue;
        };
        // The page was free, or a copy was good: then everything is as it was.
        let key = store.redeem(PEER, Use::SupplyIn, 0, &[(20, 29_980)]).wait().unwrap();
        assert_eq!(key[0].expose(), stream(0, 20, 29_980));
        assert!(store.redeem(PEER, Use::SupplyIn, 0, &[(19, 1)]).wait().is_err());
        checked(&store, PEER);
    }
    assert!(found >= 8, "the stream alone has eight pages: {found} of {pages}");
}

#[test]
fn damage_while_the_store_runs_stops_it() {
    let disk = Disk::default();
    let settings = Settings { cache_bytes: 0, ..settings() };
    let store = KeyStore::open_on(disk.media(), &master(), &settings).unwrap();
    fill(&store, PEER, 1, 30_000);
    grant(&store, PEER, Use::SupplyIn, 30_000, 0);
    // Every page but the first, which holds the header, so that the chunks are among them whatever their place.
    (1..disk.bytes(0) / 4096).for_each(|page| (64..4096).step_by(64).for_each(|at| disk.flip(0, page * 4096 + at)));
    let refused = store.redeem(PEER, Use::SupplyIn, 0, &[(0, 32)]).wait().unwrap_err();
    assert!(refused.is_fatal() || refused == StoreError::Closed, "{refused}");
    assert!(store.close().is_err());
    assert!(store.redeem(PEER, Use::SupplyIn, 0, &[(64, 32)]).wait().is_err());
}

#[test]
fn a_full_disk_stops_the_store_and_loses_nothing() {
    let disk = Disk::default();
    let store = open(&disk).unwrap();
    fill(&store, PEER, 1, 10_000);
    grant(&store, PEER, Use::SupplyOut, 10_000, 0);
    disk.fail_at(disk.operations() + 1);
    let refused = store.offer(PEER, block(2, 0, 10_000, 100)).wait().unwrap_err();
    assert!(refused.is_fatal(), "{refused}");
    assert!(store.draw(PEER, Use::SupplyOut, 1).unwrap_err().is_fatal());
    assert!(store.close().unwrap_err().is_fatal());
    assert_eq!(store.stopped(), Some(refused));
    let store = open(&disk.after_power_loss(Loss::All)).unwrap();
    assert_eq!(store.draw(PEER, Use::SupplyOut, 10_000).unwrap().key.expose(), stream(0, 0, 10_000));
}

#[test]
fn key_bytes_are_not_on_the_disk() {
    let disk = Disk::default();
    let store = open(&disk).unwrap();
    let key = stream(0, 0, 10_000);
    store.offer(PEER, block(1, 0, 0, 10_000)).wait().unwrap();
    store.offer(PEER, block(2, 0, 0, 10_000)).wait().unwrap();
    store.confirm(PEER, id(1), 0, 0, 0).wait().unwrap();
    store.meta_put(PEER, "id-secret", Secret::copy_of(&key[..64])).wait().unwrap();
    store.close().unwrap();
    for file in 0..1 + JOURNALS {
        let content = disk.content(file);
        for part in key.chunks_exact(16) {
            assert!(!content.windows(16).any(|window| window == part));
        }
    }
    assert!(disk.content(0).windows(PEER.len()).any(|window| window == PEER.as_bytes()), "the search finds things");
}

#[test]
fn limits_are_kept() {
    let settings = Settings { capacity_bytes: 20_000, ..settings() };
    let store = KeyStore::open_on(Disk::default().media(), &master(), &settings).unwrap();
    let too_long = Offer { key: Secret::new(vec![0; BLOCK_BYTES_MAX + 1]), ..block(1, 0, 0, 1) };
    assert!(matches!(store.offer(PEER, too_long).wait(), Err(StoreError::Limit { .. })));
    let wordy = Offer { origin: "x".repeat(ORIGIN_BYTES_MAX + 1), ..block(1, 0, 0, 1) };
    assert!(matches!(store.offer(PEER, wordy).wait(), Err(StoreError::Limit { .. })));
    assert!(store.pools().is_empty(), "a refused offer leaves no pool");
    fill(&store, PEER, 1, 15_000);
    let full = store.offer(PEER, block(2, 0, 15_000, 5_001)).wait().unwrap_err();
    assert_eq!(full, StoreError::PoolFull { stored_bytes: 15_000, capacity_bytes: 20_000 });
    store.offer(PEER, block(2, 0, 15_000, 5_000)).wait().unwrap();
    assert!(matches!(store.draw_many(PEER, Use::SupplyOut, 1, ITEMS_MAX + 1), Err(StoreError::Limit { .. })));
    assert!(matches!(store.draw(PEER, Use::SupplyOut, 0), Err(StoreError::BadRequest { .. })));
    assert!(matches!(store.draw_many(PEER, Use::SupplyOut, usize::MAX, 2), Err(StoreError::Limit { .. })));
    assert!(matches!(store.redeem(PEER, Use::SupplyIn, 0, &[(0, u64::MAX)]).wait(), Err(StoreError::Limit { .. })));
    assert!(matches!(store.redeem(PEER, Use::SupplyIn, 0, &[(0, 0)]).wait(), Err(StoreError::BadRequest { .. })));
    let many = store.redeem(PEER, Use::SupplyIn, 0, &[(0, 1); ITEMS_MAX + 1]).wait();
    assert!(matches!(many, Err(StoreError::Limit { .. })));
    let large = Secret::new(vec![0; META_BYTES_MAX + 1]);
    assert!(matches!(store.meta_put(PEER, "large", large).wait(), Err(StoreError::Limit { .. })));
    assert!(matches!(store.levels("nobody"), Err(StoreError::UnknownPeer { .. })));
    checked(&store, PEER);
}
