//! Blocks that come twice, grants that come twice, old age, voided pools, deposits, and files that do not grow.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::disk::Disk;
use common::*;
use keystore::*;

fn open(disk: &Disk) -> KeyStore {
    KeyStore::open_on(disk.media(), &master(), &settings()).unwrap()
}

#[test]
fn a_block_that_comes_twice_counts_once() {
    let (disk, confirmed) = (Disk::default(), BlockStatus::Confirmed { generation: 0, start: 0 });
    let store = open(&disk);
    for _ in 0..2 {
        assert_eq!(store.offer(PEER, block(1, 0, 0, 1_000)).wait().unwrap(), BlockStatus::Offered);
    }
    let other = store.offer(PEER, block(1, 7, 0, 1_000)).wait().unwrap_err();
    assert!(matches!(other, StoreError::BlockConflict { .. }), "{other}");
    let offered = OfferedBlock { id: id(1), bytes: 1_000, origin: "{\"block\":1}".to_owned(), offered_ms: 5 };
    assert_eq!(store.offered(PEER, None).wait().unwrap(), [offered]);
    assert_eq!(store.offered_key(PEER, id(1)).wait().unwrap().expose(), stream(0, 0, 1_000));
    let gap = store.confirm(PEER, id(1), 0, 1, 0).wait().unwrap_err();
    assert_eq!(gap, StoreError::NotContiguous { start: 1, end_bytes: 0 });
    assert!(matches!(store.confirm(PEER, id(1), 1, 0, 0).wait(), Err(StoreError::OtherGeneration { .. })));
    for _ in 0..2 {
        assert_eq!(store.confirm(PEER, id(1), 0, 0, 16).wait().unwrap(), confirmed);
    }
    assert!(store.confirm(PEER, id(1), 0, 984, 16).wait().is_err(), "confirmed elsewhere");
    drop(store);
    let store = open(&disk);
    assert_eq!(store.offer(PEER, block(1, 0, 0, 1_000)).wait().unwrap(), confirmed);
    assert!(store.offer(PEER, block(1, 7, 0, 1_000)).wait().is_err());
    let quarantined = BlockStatus::Quarantined { reason: "differs".to_owned() };
    store.offer(PEER, block(2, 0, 0, 500)).wait().unwrap();
    assert_eq!(store.quarantine(PEER, id(2), "differs").wait().unwrap(), quarantined);
    assert_eq!(store.quarantine(PEER, id(2), "again").wait().unwrap(), quarantined);
    assert_eq!(store.offer(PEER, block(2, 0, 0, 500)).wait().unwrap(), quarantined);
    assert!(store.confirm(PEER, id(2), 0, 984, 0).wait().is_err());
    assert_eq!(store.confirm(PEER, id(3), 0, 984, 0).wait().unwrap_err(), StoreError::UnknownBlock);
    let ledger = checked(&store, PEER);
    assert_eq!((ledger.offered_bits, ledger.confirmed_bits, ledger.deducted_bits), (12_000, 8_000, 128));
    assert_eq!((ledger.quarantined_bits, ledger.unassigned_bits), (4_000, 7_872));
    grant(&store, PEER, Use::SupplyOut, 984, 0);
    let key = store.draw(PEER, Use::SupplyOut, 984).unwrap().key;
    assert_eq!(key.expose(), stream(0, 16, 984), "without what the MAC used");
}

#[test]
fn blocks_that_wait_are_listed_in_pages_and_without_reading_them() {
    const BLOCKS: u64 = 1_500;
    const BYTES: usize = 8 << 10;
    let disk = Disk::default();
    let store = open(&disk);
    let ids = || (0..BLOCKS).map(id);
    let offers: Vec<_> = (0..BLOCKS).map(|number| store.offer(PEER, block(number, 0, 0, BYTES))).collect();
    offers.into_iter().for_each(|offer| drop(offer.wait().unwrap()));
    store.quarantine(PEER, id(7), "differs").wait().unwrap();
    let mut waiting: Vec<[u8; 16]> = ids().filter(|block| *block != id(7)).collect();
    waiting.sort();
    drop(store);

    let store = open(&disk);
    let before = disk.read_bytes();
    let (mut listed, mut pages) = (Vec::new(), 0);
    loop {
        let page = store.offered(PEER, listed.last().copied()).wait().unwrap();
        if page.is_empty() {
            break;
        }
        pages += 1;
        listed.extend(page.into_iter().map(|block| block.id));
    }
    assert!(listed == waiting && pages > 1, "{} blocks in {pages} pages", listed.len());
    let read = disk.read_bytes() - before;
    assert!(read < BLOCKS * BYTES as u64 / 4, "{read} bytes were read");
}

#[test]
fn a_block_that_is_abandoned_is_counted_as_wasted_and_never_comes_back() {
    let (disk, reason) = (Disk::default(), "the other site does not have it");
    let store = open(&disk);
    let abandoned = BlockStatus::Abandoned { reason: reason.to_owned() };
    for number in [1, 2] {
        store.offer(PEER, block(number, 0, 0, 1_000)).wait().unwrap();
    }
    assert_eq!(store.abandon(PEER, id(3), reason).wait().unwrap_err(), StoreError::UnknownBlock);
    assert_eq!(store.abandon(PEER, id(1), reason).wait().unwrap(), abandoned);
    store.confirm(PEER, id(2), 0, 0, 0).wait().unwrap();
    assert!(store.abandon(PEER, id(2), reason).wait().is_err(), "it counts already");
    drop(store);
    let store = open(&disk);
    assert_eq!(store.abandon(PEER, id(1), "again").wait().unwrap(), abandoned);
    assert_eq!(store.quarantine(PEER, id(1), "again").wait().unwrap(), abandoned);
    assert_eq!(
        store.offer(PEER, block(1, 0, 0, 1_000)).wait().unwrap(),
        abandoned,
        "a module that is late is answered"
    );
    assert!(matches!(store.confirm(PEER, id(1), 0, 1_000, 0).wait(), Err(StoreError::BlockConflict { .. })));
    assert!(store.offered_key(PEER, id(1)).wait().is_err());
    let ledger = checked(&store, PEER);
    assert_eq!((ledger.offered_bits, ledger.abandoned_bits, ledger.pending_bits), (16_000, 8_000, 0));
    assert_eq!(store.levels(PEER).unwrap().offered_bytes, 0);
}

#[test]
fn very_many_blocks_that_wait_are_listed_page_by_page() {
    let store = open(&Disk::default());
    let offered: Vec<_> = (0..2_500).map(|number| store.offer(PEER, block(number, 0, 0, 40))).collect();
    offered.into_iter().for_each(|pending| drop(pending.wait().unwrap()));
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = store.offered(PEER, after).wait().unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        listed.extend(page.iter().map(|block| block.id));
    }
    assert_eq!(listed, (0..2_500).map(id).collect::<Vec<_>>());
    assert!(store.offered(PEER, Some([255; 16])).wait().unwrap().is_empty());
}

#[test]
fn two_stores_that_hold_the_same_have_one_digest_whatever_the_chunks() {
    let (here, there) = (open(&Disk::default()), open(&Disk::default()));
    let key = Secret::new(vec![3; 32]);
    for store in [&here, &there] {
        fill(store, PEER, 1, 20_000);
    }
    grant(&here, PEER, Use::SupplyOut, 9_000, 0);
    grant(&there, PEER, Use::SupplyIn, 9_000, 0);
    grant(&here, PEER, Use::SupplyIn, 5_000, 0);
    grant(&there, PEER, Use::SupplyOut, 5_000, 0);
    let drawn = here.draw(PEER, Use::SupplyOut, 700).unwrap();
    there.redeem(PEER, Use::SupplyIn, 0, &[(drawn.start, 700)]).wait().unwrap();
    there.draw(PEER, Use::SupplyOut, 64).unwrap();
    assert_eq!(here.held(PEER).wait().unwrap(), [(700, 8_300), (14_000, 6_000)]);
    assert_eq!(there.held(PEER).wait().unwrap(), [(9_064, 4_936), (14_000, 6_000)]);
    let ranges = [(700, 8_300), (9_064, 4_936), (14_000, 6_000)];
    let digest = |store: &KeyStore, key: &Secret| store.digest(PEER, 0, &ranges, key).wait().unwrap();
    let both = digest(&here, &key);
    assert_eq!((both, both.bytes), (digest(&there, &key), 19_236));
    assert_ne!(digest(&here, &Secret::new(vec![4; 32])).hmac_sha256, both.hmac_sha256);
    // A byte that one of them has given away is missing from its digest alone.
    there.redeem(PEER, Use::SupplyIn, 0, &[(5_000, 1)]).wait().unwrap();
    assert_eq!((digest(&here, &key).bytes, digest(&there, &key).bytes), (19_236, 19_235));
    assert_ne!(digest(&here, &key).hmac_sha256, digest(&there, &key).hmac_sha256);
}

#[test]
fn a_grant_that_comes_twice_is_one_and_is_drawn_from_once_active() {
    let disk = Disk::default();
    let store = open(&disk);
    fill(&store, PEER, 1, 1_000);
    let first =
        Grant { generation: 0, seq: 0, use_: Use::SupplyOut, start: 0, bytes: 600, granted_ms: 5, active: false };
    for _ in 0..2 {
        assert_eq!(store.grant(PEER, first).wait().unwrap(), first);
    }
    let wrong = [
        Grant { use_: Use::RelayOut, ..first },
        Grant { bytes: 601, ..first },
        Grant { seq: 2, start: 600, ..first },
        Grant { seq: 1, start: 601, bytes: 1, ..first },
        Grant { seq: 1, start: 600, bytes: 401, ..first },
        Grant { seq: 1, start: 600, bytes: 0, ..first },
    ];
    for wrong in wrong {
        let refused = store.grant(PEER, wrong).wait().unwrap_err();
        assert!(matches!(refused, StoreError::GrantConflict { .. }), "{wrong:?}: {refused}");
    }
    assert!(matches!(store.draw(PEER, Use::SupplyOut, 1), Err(StoreError::Exhausted { .. })), "not active yet");
    drop(store);
    let store = open(&disk);
    assert!(store.draw(PEER, Use::SupplyOut, 1).is_err());
    assert_eq!(store.levels(PEER).unwrap().stored_bytes, 1_000);
    store.activate_grant(PEER, 0, 0).wait().unwrap();
    assert!(matches!(store.activate_grant(PEER, 0, 1).wait(), Err(StoreError::GrantConflict { .. })));
    assert_eq!(store.draw(PEER, Use::SupplyOut, 600).unwrap().start, 0);
    store.expire(10).wait().unwrap();
    assert_eq!(store.grant(PEER, first).wait().unwrap(), Grant { active: true, ..first }, "also when it is used up");
    checked(&store, PEER);
}

#[test]
fn what_is_too_old_is_neither_drawn_nor_redeemed() {
    let disk = Disk::default();
    let settings = Settings { retention_out_ms: 100, retention_in_ms: 200, ..settings() };
    let store = KeyStore::open_on(disk.media(), &master(), &settings).unwrap();
    fill(&store, PEER, 1, 9_000);
    grant(&store, PEER, Use::SupplyOut, 1_000, 1_000);
    grant(&store, PEER, Use::SupplyIn, 1_000, 1_000);
    grant(&store, PEER, Use::SupplyOut, 1_000, 1_050);
    store.draw(PEER, Use::SupplyOut, 300).unwrap();
    store.redeem(PEER, Use::SupplyIn, 0, &[(1_500, 100)]).wait().unwrap();
    store.expire(1_099).wait().unwrap();
    assert_eq!(store.draw(PEER, Use::SupplyOut, 100).unwrap().start, 300);
    store.expire(1_100).wait().unwrap();
    assert_eq!(store.draw(PEER, Use::SupplyOut, 100).unwrap().start, 2_000);
    assert_eq!(store.redeem(PEER, Use::SupplyIn, 0, &[(1_000, 100)]).wait().unwrap().len(), 1);
    store.expire(1_200).wait().unwrap();
    let gone = store.redeem(PEER, Use::SupplyIn, 0, &[(1_200, 1)]).wait().unwrap_err();
    assert_eq!(gone, StoreError::AlreadyTaken { start: 1_200, bytes: 1 });
    assert!(matches!(store.draw(PEER, Use::SupplyOut, 1), Err(StoreError::Exhausted { .. })));
    let ledger = checked(&store, PEER);
    assert_eq!(ledger.of(Use::SupplyOut).expired_bits, 8 * (600 + 900));
    assert_eq!(ledger.of(Use::SupplyIn).expired_bits, 8 * 800);
    drop(store);
    let store = KeyStore::open_on(disk.media(), &master(), &settings).unwrap();
    assert_eq!(checked(&store, PEER), ledger);
}

#[test]
fn a_voided_pool_starts_over_and_remembers_its_blocks() {
    let disk = Disk::default();
    let store = open(&disk);
    fill(&store, PEER, 1, 5_000);
    grant(&store, PEER, Use::SupplyOut, 1_000, 0);
    grant(&store, PEER, Use::RelayIn, 1_000, 0);
    store.draw(PEER, Use::SupplyOut, 100).unwrap();
    store.redeem(PEER, Use::RelayIn, 0, &[(1_000, 50)]).wait().unwrap();
    for _ in 0..2 {
        assert_eq!(store.void_pool(PEER, 0, "the peer lost its disk").wait().unwrap(), 1);
    }
    assert!(matches!(store.void_pool(PEER, 2, "ahead").wait(), Err(StoreError::OtherGeneration { .. })));
    assert!(matches!(store.draw(PEER, Use::SupplyOut, 1), Err(StoreError::Exhausted { .. })));
    let ledger = checked(&store, PEER);
    assert_eq!((ledger.of(Use::SupplyOut).wasted_bits, ledger.of(Use::RelayIn).wasted_bits), (7_200, 7_600));
    assert_eq!(ledger.voided_bits, 24_000);
    let status = store.offer(PEER, block(1, 0, 0, 5_000)).wait().unwrap();
    assert_eq!(status, BlockStatus::Confirmed { generation: 0, start: 0 });
    fill(&store, PEER, 2, 5_000);
    grant(&store, PEER, Use::SupplyOut, 1_000, 0);
    let key = store.draw(PEER, Use::SupplyOut, 100).unwrap();
    assert_eq!((key.generation, key.start, key.key.expose()), (1, 0, &stream(1, 0, 100)[..]));
    drop(store);
    let store = open(&disk);
    assert_eq!(store.levels(PEER).unwrap().generation, 1);
    checked(&store, PEER);
}

#[test]
fn origins_are_told_for_bytes_long_handed_out() {
    let store = open(&Disk::default());
    fill(&store, PEER, 1, 100);
    fill(&store, PEER, 2, 200);
    grant(&store, PEER, Use::SupplyOut, 300, 0);
    store.draw(PEER, Use::SupplyOut, 300).unwrap();
    store.expire(u64::MAX).wait().unwrap();
    let pieces = store.origins(PEER, 0, 90, 50).wait().unwrap();
    let told: Vec<_> = pieces.iter().map(|piece| (piece.start, piece.bytes, piece.origin.as_str())).collect();
    assert_eq!(told, [(90, 10, "{\"block\":1}"), (100, 40, "{\"block\":2}")]);
    assert_eq!(pieces[1].span, [2; 25]);
    assert!(store.origins(PEER, 0, 300, 10).wait().unwrap().is_empty());
}

#[test]
fn a_deposit_is_taken_once_by_each_slave_all_or_nothing() {
    let disk = Disk::default();
    let store = open(&disk);
    let deposit = |number| Deposit {
        key_id: id(number),
        key: Secret::new(vec![number as u8; 32]),
        master: "a".to_owned(),
        slaves: vec!["b".to_owned(), "c".to_owned()],
        expires_ms: 100 * number,
        origin: "o".to_owned(),
    };
    for number in [1, 1, 2] {
        store.deposit(deposit(number)).wait().unwrap();
    }
    let other = Deposit { key: Secret::new(vec![9; 32]), ..deposit(1) };
    assert_eq!(store.deposit(other).wait().unwrap_err(), StoreError::DepositConflict);
    let take = |store: &KeyStore, ids: &[u64], slave, now_ms| {
        let ids: Vec<_> = ids.iter().map(|number| id(*number)).collect();
        store.take_deposit(&ids, slave, "a", now_ms).wait().map(|taken| taken.len())
    };
    assert_eq!(take(&store, &[1, 3], "b", 0), Err(StoreError::DepositNotFound { index: 1 }));
    assert_eq!(take(&store, &[1, 1], "b", 0), Err(StoreError::DepositNotFound { index: 1 }));
    assert_eq!(take(&store, &[1], "d", 0), Err(StoreError::DepositNotForCaller));
    assert_eq!(take(&store, &[1, 2], "b", 99), Ok(2), "refusals took nothing");
    assert_eq!(take(&store, &[2], "b", 99), Err(StoreError::DepositNotFound { index: 0 }));
    drop(store);
    let store = open(&disk);
    assert_eq!(take(&store, &[1], "c", 100), Err(StoreError::DepositNotFound { index: 0 }), "expired");
    store.expire(150).wait().unwrap();
    assert_eq!(take(&store, &[1], "c", 0), Err(StoreError::DepositNotFound { index: 0 }), "erased");
    assert_eq!(take(&store, &[2], "c", 150), Ok(1));
}

#[test]
fn the_oldest_of_very_many_blocks_is_forgotten_with_its_origin() {
    const MORE: u64 = 3;
    let store = open(&Disk::default());
    let numbers: Vec<u64> = (0..BLOCKS_REMEMBERED + MORE).collect();
    for some in numbers.chunks(4_000) {
        let offers: Vec<_> = some.iter().map(|n| store.offer(PEER, block(*n, 0, *n, 1))).collect();
        let confirmed: Vec<_> = some.iter().map(|n| store.confirm(PEER, id(*n), 0, *n, 0)).collect();
        offers.into_iter().chain(confirmed).for_each(|answer| assert!(answer.wait().is_ok()));
    }
    for number in 0..MORE {
        assert_eq!(store.block_status(PEER, id(number)).wait().unwrap_err(), StoreError::UnknownBlock);
    }
    let status = store.offer(PEER, block(MORE, 0, MORE, 1)).wait().unwrap();
    assert_eq!(status, BlockStatus::Confirmed { generation: 0, start: MORE });
    assert_eq!(store.origins(PEER, 0, 0, MORE + 2).wait().unwrap().len(), 2);
    assert_eq!(checked(&store, PEER).confirmed_bits, 8 * (BLOCKS_REMEMBERED + MORE));
}

#[test]
fn small_values_are_kept_by_pool() {
    let disk = Disk::default();
    let store = open(&disk);
    assert_eq!(store.meta_get(PEER, "peer-instance").wait().unwrap(), None);
    for value in [&b"first"[..], b"second"] {
        store.meta_put(PEER, "peer-instance", Secret::copy_of(value)).wait().unwrap();
    }
    drop(store);
    let store = open(&disk);
    assert_eq!(store.meta_get(PEER, "peer-instance").wait().unwrap(), Some(Secret::copy_of(b"second")));
    assert_eq!(store.meta_get("valrose", "peer-instance").wait().unwrap(), None);
}

#[test]
fn the_file_does_not_grow_under_steady_traffic() {
    let disk = Disk::default();
    let store = open(&disk);
    let mut sizes = Vec::new();
    for number in 0..400 {
        fill(&store, PEER, number, 40_000);
        grant(&store, PEER, Use::SupplyOut, 20_000, number);
        let in_ = grant(&store, PEER, Use::SupplyIn, 20_000, number);
        store.draw_many(PEER, Use::SupplyOut, 1_000, 20).unwrap();
        store.redeem(PEER, Use::SupplyIn, 0, &[(in_.start, 20_000)]).wait().unwrap();
        if number % 10 == 0 {
            store.expire(number).wait().unwrap();
            sizes.push(disk.bytes(0));
        }
    }
    // 16 MB pass through; the file doubles now and then until it holds what is on its way, and then stays.
    let (early, late) = (sizes[sizes.len() / 2], sizes[sizes.len() - 1]);
    assert!(late <= early && late < 6 << 20, "{sizes:?}");
    assert_eq!(store.levels(PEER).unwrap().stored_bytes, 0);
    checked(&store, PEER);
}

#[test]
fn a_database_that_is_mostly_free_is_made_smaller_when_it_is_opened_and_keeps_what_it_holds() {
    let disk = Disk::default();
    let store = open(&disk);
    for number in 0..120 {
        fill(&store, PEER, number, 100_000);
    }
    fill(&store, "valrose", 1, 5_000);
    let full = disk.bytes(0);
    store.close().unwrap();
    let store = open(&disk);
    assert_eq!(disk.bytes(0), full, "it is full");
    store.void_pool(PEER, 0, "the peer lost its disk").wait().unwrap();
    store.close().unwrap();
    assert!(disk.bytes(0) > 4 << 20, "{} bytes", disk.bytes(0));
    let store = open(&disk);
    assert!(disk.bytes(0) < 1 << 20, "{} bytes of {full}", disk.bytes(0));
    assert_eq!(store.levels("valrose").unwrap().stored_bytes, 5_000);
    grant(&store, "valrose", Use::SupplyOut, 1_000, 0);
    assert_eq!(store.draw("valrose", Use::SupplyOut, 100).unwrap().key.expose(), &stream(0, 0, 100)[..]);
    checked(&store, PEER);
}

#[test]
fn many_callers_at_once_get_different_bytes_and_share_commits() {
    let disk = Disk::default();
    let store = Arc::new(open(&disk));
    for number in 0..20 {
        fill(&store, PEER, number, 40_000);
        grant(&store, PEER, if number % 2 == 0 { Use::SupplyOut } else { Use::SupplyIn }, 40_000, 0);
    }
    let before = store.activity();
    let callers: Vec<_> = (0..8u64)
        .map(|caller| {
            let store = Arc::clone(&store);
            std::thread::spawn(move || {
                let mut starts = Vec::new();
                for number in 0..1_000 {
                    let key = store.draw(PEER, Use::SupplyOut, 32).unwrap();
                    assert_eq!(key.key.expose(), stream(0, key.start, 32));
                    starts.push(key.start);
                    let at = (number % 10) * 80_000 + 40_000 + 32 * (8 * (number / 10) + caller);
                    let key = store.redeem(PEER, Use::SupplyIn, 0, &[(at, 32)]).wait().unwrap();
                    assert_eq!(key[0].expose(), stream(0, at, 32));
                }
                starts
            })
        })
        .collect();
    let mut starts: Vec<u64> = callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect();
    starts.sort_unstable();
    assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= 32), "two callers got the same bytes");
    let activity = store.activity();
    assert!(activity.journal_commits - before.journal_commits < 8_000, "no commit was shared");
    checked(&store, PEER);
}

/// A runtime polls a task again when it is woken, and never else.
#[test]
fn a_task_that_draws_is_woken_when_the_lease_is_there() {
    let store = open(&Disk::default());
    fill(&store, PEER, 1, 10_000);
    grant(&store, PEER, Use::RelayOut, 10_000, 0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        for start in (0..9_900).step_by(300) {
            let draw = store.draw_many_async(PEER, Use::RelayOut, 100, 3);
            let keys = tokio::time::timeout(Duration::from_secs(60), draw).await.expect("never woken").unwrap();
            assert_eq!(keys.iter().map(|key| key.start).collect::<Vec<_>>(), [start, start + 100, start + 200]);
        }
    });
}
