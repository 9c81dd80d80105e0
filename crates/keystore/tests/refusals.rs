//! What the store refuses: other keys, other formats, other processes, damage, a failing disk, limits.
#![allow(clippy::unwrap_used)]

mod common;

use std::os::unix::fs::PermissionsExt;

use common::disk::{Disk, Loss};
use common::*;
use keystore::*;
use redb::ReadableTable;

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
    for found in [0u32, 6, 77] {
        let folder = tempfile::tempdir().unwrap();
        drop(KeyStore::open(folder.path(), &master(), &settings()).unwrap());
        edit(folder.path(), |txn| {
            txn.open_table(FACTS).unwrap().insert("format", found.to_le_bytes().as_slice()).unwrap();
        });
        let refused = KeyStore::open(folder.path(), &master(), &settings()).unwrap_err();
        assert_eq!(refused, StoreError::UnsupportedFormat { found, supported: 5 });
        assert_eq!(refused.to_string(), format!("format {found} of the store is not one this version reads (1 to 5)"));
    }
}

type Facts = redb::TableDefinition<'static, &'static str, &'static [u8]>;
const FACTS: Facts = redb::TableDefinition::new("store");

/// Changes the database behind the store's back.
fn edit(folder: &std::path::Path, change: impl FnOnce(&redb::WriteTransaction)) {
    let database = redb::Database::open(folder.join("keys.redb")).unwrap();
    let txn = database.begin_write().unwrap();
    change(&txn);
    txn.commit().unwrap();
}

/// Formats before 4 do not know how far the uses of a pool came, nor how often the store was written to; that before 5
/// does not tell relayed blocks.
fn make_it_older_than_4(txn: &redb::WriteTransaction, format: u32) {
    const POOLS: Facts = redb::TableDefinition::new("pools");
    let mut facts = txn.open_table(FACTS).unwrap();
    facts.insert("format", format.to_le_bytes().as_slice()).unwrap();
    facts.remove("progress").unwrap();
    let mut pools = txn.open_table(POOLS).unwrap();
    let row = pools.get(PEER).unwrap().unwrap().value().to_vec();
    pools.insert(PEER, &row[..row.len() - 56]).unwrap();
}

/// What a store of format 1 looks like: offered blocks without a time, pools without a count of abandoned blocks.
fn make_it_format_1(folder: &std::path::Path) {
    const BLOCKS: redb::TableDefinition<(u32, u128), &[u8]> = redb::TableDefinition::new("blocks");
    const POOLS: Facts = redb::TableDefinition::new("pools");
    edit(folder, |txn| {
        make_it_older_than_4(txn, 1);
        let (mut pools, mut blocks) = (txn.open_table(POOLS).unwrap(), txn.open_table(BLOCKS).unwrap());
        let row = pools.get(PEER).unwrap().unwrap().value().to_vec();
        pools.insert(PEER, &row[..row.len() - 8]).unwrap();
        let place = (0, u128::from_be_bytes(id(2)));
        let mut row = blocks.get(place).unwrap().unwrap().value().to_vec();
        // Behind length and digest: what became of it.
        assert_eq!(std::mem::replace(&mut row[40], 0), 3);
        blocks.insert(place, &row[..row.len() - 8]).unwrap();
    });
}

#[test]
fn a_store_of_a_format_before_is_taken_over_with_all_that_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let store = KeyStore::open(folder.path(), &master(), &settings()).unwrap();
    fill(&store, PEER, 1, 1_000);
    grant(&store, PEER, Use::SupplyOut, 500, 0);
    store.draw(PEER, Use::SupplyOut, 100).unwrap();
    store.offer(PEER, block(2, 0, 1_000, 300)).wait().unwrap();
    let before = checked(&store, PEER);
    drop(store);
    make_it_format_1(folder.path());
    for format in [1u32, 2, 3] {
        if format > 1 {
            edit(folder.path(), |txn| make_it_older_than_4(txn, format));
        }
        let store = KeyStore::open(folder.path(), &master(), &settings()).unwrap();
        assert_eq!(checked(&store, PEER), before);
        assert_eq!(store.rolled_back(PEER), None);
        let Standing { least, most } = store.standing(PEER).unwrap();
        assert_eq!((least.drawn_end[0], most.drawn_end[0]), (0, 100), "its marks say how far it may have come");
        assert_eq!(store.offered(PEER, None).wait().unwrap()[0].offered_ms, 0);
        assert_eq!(store.offered_key(PEER, id(2)).wait().unwrap().expose(), stream(0, 1_000, 300));
    }
    edit(folder.path(), |txn| {
        let format = txn.open_table(FACTS).unwrap().get("format").unwrap().unwrap().value().to_vec();
        assert_eq!(format, 5u32.to_le_bytes(), "it is of this version's format now");
    });
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
fn a_read_only_disk_stops_the_store_says_so_and_loses_nothing() {
    let disk = Disk::default();
    let store = open(&disk).unwrap();
    fill(&store, PEER, 1, 10_000);
    grant(&store, PEER, Use::SupplyIn, 10_000, 0);
    disk.turn_read_only();
    let refused = store.redeem(PEER, Use::SupplyIn, 0, &[(0, 32)]).wait().unwrap_err();
    assert!(refused.is_fatal() && refused.to_string().contains("read-only"), "{refused}");
    let stopped = store.offer(PEER, block(2, 0, 10_000, 100)).wait().unwrap_err();
    assert!(stopped.is_fatal() || stopped == StoreError::Closed, "{stopped}");
    assert_eq!(store.stopped(), Some(refused));
    // Opening writes that the store is open: it is refused, not served from.
    let refused = open(&disk).unwrap_err();
    assert!(refused.is_fatal() && refused.to_string().contains("read-only"), "{refused}");
    let store = open(&disk.after_power_loss(Loss::All)).unwrap();
    let key = store.redeem(PEER, Use::SupplyIn, 0, &[(0, 32)]).wait().unwrap();
    assert_eq!(key[0].expose(), stream(0, 0, 32), "what was refused was not taken");
}

#[test]
fn files_that_cannot_be_opened_are_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("keys.redb")).unwrap();
    let refused = KeyStore::open(folder.path(), &master(), &settings()).unwrap_err();
    assert!(refused.to_string().contains("keys.redb"), "{refused}");
}

#[test]
fn a_write_that_power_loss_tore_is_as_if_it_had_not_been_begun() {
    for torn in 0..200 {
        let disk = Disk::default();
        let store = open(&disk).unwrap();
        fill(&store, PEER, 1, 10_000);
        grant(&store, PEER, Use::SupplyIn, 10_000, 0);
        store.redeem(PEER, Use::SupplyIn, 0, &[(0, 100)]).wait().unwrap();
        // The sync of the next record fails: what was written before it is torn somewhere.
        disk.fail_at(disk.operations() + 2);
        assert!(store.redeem(PEER, Use::SupplyIn, 0, &[(100, 100), (300, 5_000)]).wait().is_err());
        drop(store);
        let store = open(&disk.after_power_loss(Loss::Some(torn))).unwrap();
        let again = store.redeem(PEER, Use::SupplyIn, 0, &[(0, 100)]).wait();
        assert_eq!(again.err(), Some(StoreError::AlreadyTaken { start: 0, bytes: 100 }), "{torn}");
        // All of what nobody was answered, or nothing.
        let first = store.redeem(PEER, Use::SupplyIn, 0, &[(100, 100)]).wait().is_ok();
        assert_eq!(store.redeem(PEER, Use::SupplyIn, 0, &[(300, 5_000)]).wait().is_ok(), first, "{torn}");
        assert_eq!(checked(&store, PEER).of(Use::SupplyIn).handed_out_bits, 8 * 5_200, "{torn}");
    }
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
