use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keystore::{KeyStore, MasterKey, Offer, SPAN_BYTES, Secret, Settings, StoreError};
use proptest::prelude::*;
use proto::kms::v1::{PairHello, pair_message};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::pool::locked;
use super::*;
use crate::key_id::Form;
use crate::seal::SEAL_OVERHEAD_BYTES;

const RETENTION_MS: u64 = 60_000;
/// Of the first block of a generation.
const KEPT: u64 = GENERATION_KEY_BYTES as u64;

/// One site's end, with its disk.
struct End {
    folder: TempDir,
    /// Beyond which the oldest key expires; 0 for never.
    capacity_bytes: u64,
    site: &'static str,
    peer: &'static str,
}

impl End {
    fn new(site: &'static str, peer: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        MasterKey::create(&folder.path().join("master")).unwrap();
        Self { folder, capacity_bytes: 0, site, peer }
    }

    async fn open(&self) -> (Arc<Pool>, mpsc::Receiver<ShareOut>) {
        let path: &Path = self.folder.path();
        let master = MasterKey::read(&path.join("master")).unwrap();
        let store = KeyStore::open(&path.join("store"), &master, &Settings::default()).unwrap();
        let (pool, shares) = Pool::new(Arc::new(store), self.site, self.peer, true, 1024, RETENTION_MS);
        pool.expire_beyond(self.capacity_bytes);
        pool.load(["one"].into_iter()).await.unwrap();
        (pool, shares)
    }

    /// A copy of the store, which nobody has open.
    fn copy(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_files(&self.folder.path().join("store"), copy.path());
        copy
    }

    fn put_back(&self, copy: &TempDir) {
        copy_files(copy.path(), &self.folder.path().join("store"));
    }

    fn void(&self) {
        let master = MasterKey::read(&self.folder.path().join("master")).unwrap();
        let store = KeyStore::open(&self.folder.path().join("store"), &master, &Settings::default()).unwrap();
        store.void_everything("restored").wait().unwrap();
        store.close().unwrap();
    }

    fn lose_the_volume(&self) {
        std::fs::remove_dir_all(self.folder.path().join("store")).unwrap();
    }
}

fn copy_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

struct World {
    ends: [End; 2],
    rng: u64,
}

impl World {
    fn new() -> Self {
        Self { ends: [End::new("a", "b"), End::new("b", "a")], rng: 1 }
    }

    fn block(&mut self, bytes: usize) -> Offer {
        let mut key = Vec::with_capacity(bytes + 8);
        while key.len() < bytes {
            self.rng = self.rng.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            key.extend_from_slice(&(self.rng >> 16).to_le_bytes()[..6]);
        }
        key.truncate(bytes);
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.rng.to_be_bytes());
        Offer {
            id,
            key: Secret::new(key),
            origin: String::new(),
            span: [0; SPAN_BYTES],
            offered_ms: crate::now_ms(),
            relayed: false,
        }
    }

    /// Lets both ends talk until `until` holds; the line is cut, and with it both processes, after this many messages
    /// of each direction.
    async fn talk(&self, cut_after: [usize; 2], until: impl Fn(&Pool, &Pool) -> bool) -> [Arc<Pool>; 2] {
        let ((a, mut a_shares), (b, mut b_shares)) = (self.ends[0].open().await, self.ends[1].open().await);
        let (a_end, a_wire) = Duplex::pair(MESSAGES_IN_FLIGHT);
        let (b_end, b_wire) = Duplex::pair(MESSAGES_IN_FLIGHT);
        let cut = CancellationToken::new();
        let (a_tx, a_rx) = a_wire.split();
        let (b_tx, b_rx) = b_wire.split();
        let carry = async |mut rx: mpsc::Receiver<PairMessage>, tx: mpsc::Sender<PairMessage>, messages: usize| {
            for _ in 0..messages {
                let Some(message) = rx.recv().await else { break };
                let _ = tx.send(message).await;
            }
            cut.cancel();
        };
        let mut progress = (a.progress(), b.progress());
        let done = async {
            while !until(&a, &b) {
                tokio::select! {
                    _ = progress.0.changed() => {}
                    _ = progress.1.changed() => {}
                    () = tokio::time::sleep(Duration::from_millis(20)) => {}
                }
            }
        };
        let talk = async {
            tokio::join!(
                async { coordinate(&a, a_end, &mut a_shares).await },
                async { follow(&b, b_end, &mut b_shares).await },
                carry(a_rx, b_tx, cut_after[0]),
                carry(b_rx, a_tx, cut_after[1]),
            )
        };
        let bounded = tokio::time::timeout(Duration::from_secs(600), async {
            tokio::select! {
                ended = talk => {
                    assert!(cut.is_cancelled(), "the dialogue ended: {:?} {:?}", ended.0, ended.1);
                }
                () = cut.cancelled() => {}
                () = done => {}
            }
        });
        bounded.await.expect("the two ends came to no agreement");
        [a, b]
    }

    /// Lets both ends talk until both know what keeps them from going on. An end that concludes it first may hang up
    /// before the other one has heard: that one greets again, as it always does.
    async fn meet(&self) -> [Arc<Pool>; 2] {
        let ((a, mut a_shares), (b, mut b_shares)) = (self.ends[0].open().await, self.ends[1].open().await);
        let meeting = async {
            loop {
                let (a_end, b_end) = Duplex::pair(MESSAGES_IN_FLIGHT);
                let ended = tokio::join!(coordinate(&a, a_end, &mut a_shares), follow(&b, b_end, &mut b_shares));
                let errors = [ended.0, ended.1].map(Result::unwrap_err);
                if errors.iter().all(|error| error.downcast_ref::<Lasting>().is_some()) {
                    return;
                }
                errors.iter().for_each(|error| println!("{}", shell::chain(error)));
            }
        };
        tokio::time::timeout(Duration::from_secs(60), meeting).await.expect("both end");
        [a, b]
    }

    async fn settle(&self, bytes: u64) -> [Arc<Pool>; 2] {
        let ready = move |pool: &Pool| {
            let levels = pool.levels();
            levels.end_bytes == bytes && levels.available(Use::SupplyOut) > 0 && levels.available(Use::SupplyIn) > 0
        };
        self.talk([usize::MAX; 2], move |a, b| ready(a) && ready(b) && a.levels().next_grant == b.levels().next_grant)
            .await
    }
}

async fn offer(pools: &[Arc<Pool>; 2], block: &Offer) {
    for pool in pools {
        pool.store.offer(&pool.peer, block.clone()).await.unwrap();
        pool.wake.notify_one();
    }
}

/// Draws all that one end can draw and redeems it at the other one: the same bits.
async fn all_drawn_is_redeemed(out: &Pool, into: &Pool) -> usize {
    let mut bytes = 0;
    for (use_, mirrored) in [(Use::SupplyOut, Use::SupplyIn), (Use::RelayOut, Use::RelayIn)] {
        while let Ok(drawn) = out.store.draw(&out.peer, use_, 32) {
            let range = [(drawn.start, 32)];
            let redeemed = into.store.redeem(&into.peer, mirrored, drawn.generation, &range).await.unwrap();
            assert!(redeemed[0] == drawn.key, "the two ends differ");
            bytes += 32;
        }
    }
    bytes
}

fn check_ledgers(pools: &[Arc<Pool>; 2]) {
    for pool in pools {
        pool.store.ledger(&pool.peer).unwrap().check().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ends_come_to_hold_the_same_key_for_the_same_uses() {
    let mut world = World::new();
    let blocks: Vec<Offer> = (0..40).map(|i| world.block(500 + 64 * i)).collect();
    let pools = world.talk([0; 2], |_, _| true).await;
    for block in &blocks {
        offer(&pools, block).await;
    }
    drop(pools);
    let bytes: u64 = blocks.iter().map(|block| (block.key.len() - CONFIRMATION_BYTES) as u64).sum::<u64>() - KEPT;
    let pools = world.settle(bytes).await;
    assert!(all_drawn_is_redeemed(&pools[0], &pools[1]).await > 0);
    assert!(all_drawn_is_redeemed(&pools[1], &pools[0]).await > 0);
    check_ledgers(&pools);
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_that_wait_together_share_commits_at_both_ends() {
    const BLOCKS: usize = 256;
    let mut world = World::new();
    let blocks: Vec<Offer> = (0..BLOCKS).map(|_| world.block(1_000)).collect();
    let pools = world.talk([0; 2], |_, _| true).await;
    for block in &blocks {
        offer(&pools, block).await;
    }
    drop(pools);
    let pools = world.settle((BLOCKS * (1_000 - CONFIRMATION_BYTES)) as u64 - KEPT).await;
    for pool in &pools {
        let commits = pool.store.activity().database_commits;
        assert!(commits < BLOCKS as u64 / 2, "{commits} commits for {BLOCKS} blocks, and for grants");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_differs_is_quarantined_at_both_ends_and_the_next_one_counts() {
    let mut world = World::new();
    let pools = world.talk([0; 2], |_, _| true).await;
    let (mut bad, good) = (world.block(4000), world.block(4000));
    pools[0].store.offer("b", bad.clone()).await.unwrap();
    let mut other = bad.key.expose().to_vec();
    other[3999] ^= 0x80;
    bad.key = Secret::new(other);
    pools[1].store.offer("a", bad).await.unwrap();
    offer(&pools, &good).await;
    drop(pools);
    let pools = world.settle((4000 - CONFIRMATION_BYTES) as u64 - KEPT).await;
    for pool in &pools {
        let ledger = pool.store.ledger(&pool.peer).unwrap();
        assert_eq!((ledger.quarantined_bits, ledger.pending_bits), (4000 * 8, 0));
    }
    check_ledgers(&pools);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_only_one_end_has_waits_and_holds_nothing_up() {
    let mut world = World::new();
    let pools = world.talk([0; 2], |_, _| true).await;
    let (alone, both) = (world.block(4000), world.block(4000));
    pools[0].store.offer("b", alone.clone()).await.unwrap();
    offer(&pools, &both).await;
    drop(pools);
    let one = (4000 - CONFIRMATION_BYTES) as u64;
    let pools = world.settle(one - KEPT).await;
    pools[1].store.offer("a", alone).await.unwrap();
    drop(pools);
    world.settle(2 * one - KEPT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_lost_its_store_rejoins_empty_and_its_peer_gives_the_pool_up() {
    for lost in 0..2 {
        let mut world = World::new();
        let pools = world.talk([0; 2], |_, _| true).await;
        offer(&pools, &world.block(9000)).await;
        drop(pools);
        drop(world.settle((9000 - CONFIRMATION_BYTES) as u64 - KEPT).await);
        world.ends[lost].lose_the_volume();
        let pools = world.talk([0; 2], |_, _| true).await;
        offer(&pools, &world.block(7000)).await;
        drop(pools);
        let pools = world.settle((7000 - CONFIRMATION_BYTES) as u64 - KEPT).await;
        assert_eq!(pools[0].levels().generation, pools[1].levels().generation);
        assert!(pools[0].levels().generation > 0);
        assert!(all_drawn_is_redeemed(&pools[0], &pools[1]).await > 0);
        check_ledgers(&pools);
    }
}

/// Blocks beyond what the pool may hold, at both ends.
async fn overfilled(capacity_bytes: u64) -> World {
    let mut world = World::new();
    world.ends.iter_mut().for_each(|end| end.capacity_bytes = capacity_bytes);
    let pools = world.talk([0; 2], |_, _| true).await;
    for _ in 0..40 {
        offer(&pools, &world.block(4000)).await;
    }
    drop(pools);
    world
}

/// Both ends hold the same, with room for more, and can draw of it.
fn have_room(a: &Pool, b: &Pool) -> bool {
    let stands = |pool: &Pool| {
        let levels = pool.levels();
        (levels.end_bytes, levels.granted_end_bytes, levels.next_grant, levels.stored_bytes)
    };
    let is_ready = |pool: &&Pool| {
        let levels = pool.levels();
        let drawable = levels.available(Use::SupplyOut) > 0 && levels.available(Use::SupplyIn) > 0;
        pool.excess_bytes() == 0 && levels.offered_blocks == 0 && drawable
    };
    stands(a) == stands(b) && [a, b].iter().all(is_ready)
}

fn check_made_room(pools: &[Arc<Pool>; 2], capacity_bytes: u64) {
    check_ledgers(pools);
    let expired = |pool: &Pool| {
        let ledger = pool.store.ledger(&pool.peer).unwrap();
        ledger.uses.iter().map(|counted| counted.expired_bits / 8).sum::<u64>()
    };
    let held = pools.each_ref().map(|pool| pool.levels().stored_bytes);
    assert!(held[0] <= capacity_bytes && held[0] > capacity_bytes / 2, "{held:?}");
    assert_eq!(expired(&pools[0]), expired(&pools[1]));
    assert_eq!(expired(&pools[0]) + held[0], 40 * (4000 - CONFIRMATION_BYTES) as u64 - KEPT);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_full_pool_the_oldest_key_expires_at_both_ends_and_what_is_left_is_the_same() {
    const CAPACITY: u64 = 64_000;
    let world = overfilled(CAPACITY).await;
    let pools = world.talk([usize::MAX; 2], have_room).await;
    check_made_room(&pools, CAPACITY);
    assert!(all_drawn_is_redeemed(&pools[0], &pools[1]).await > 0);
    assert!(all_drawn_is_redeemed(&pools[1], &pools[0]).await > 0);
    check_ledgers(&pools);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_cut_while_key_expires_leaves_neither_end_with_key_that_the_other_one_lacks() {
    const CAPACITY: u64 = 64_000;
    let world = overfilled(CAPACITY).await;
    for messages in [1, 2, 3, 4, 5, 7, 9, 12, 16, 20, 30] {
        let pools = world.talk([messages, messages / 2 + 1], have_room).await;
        check_ledgers(&pools);
    }
    let pools = world.talk([usize::MAX; 2], have_room).await;
    check_made_room(&pools, CAPACITY);
    assert!(all_drawn_is_redeemed(&pools[0], &pools[1]).await > 0);
    assert!(all_drawn_is_redeemed(&pools[1], &pools[0]).await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_made_room_before_a_crash_erased_its_key_is_not_drawn_from_after_it() {
    let mut world = World::new();
    let pools = world.talk([0; 2], |_, _| true).await;
    offer(&pools, &world.block(90_000)).await;
    drop(pools);
    let pools = world.settle((90_000 - CONFIRMATION_BYTES) as u64 - KEPT).await;
    // Both have it on their disks, and neither has erased anything.
    let levels = pools[0].levels();
    for (pool, use_, active) in [(&pools[0], Use::SupplyIn, true), (&pools[1], Use::SupplyOut, false)] {
        let (seq, start, bytes) = (levels.next_grant, levels.granted_end_bytes, 1024);
        let grant = Grant { generation: levels.generation, seq, use_, start, bytes, granted_ms: 0, active };
        pool.store.grant(&pool.peer, grant).await.unwrap();
    }
    let ready = pools.each_ref().map(|pool| pool.levels().available(Use::SupplyOut));
    drop(pools);
    let pools = world.talk([usize::MAX; 2], |a, b| a.connected() && b.connected()).await;
    assert_eq!(pools.each_ref().map(|pool| pool.levels().available(Use::SupplyOut)), ready);
    for pool in &pools {
        pool.store.expire(crate::now_ms()).await.unwrap();
        let ledger = pool.store.ledger(&pool.peer).unwrap();
        assert_eq!(ledger.uses.iter().map(|counted| counted.expired_bits).sum::<u64>(), 1024 * 8);
    }
    check_ledgers(&pools);
}

fn serves_nothing(pool: &Pool, put_back: &str) {
    assert_eq!(pool.rolled_back().expect("it is known").site, put_back, "as {} knows it", pool.site);
    assert!(!pool.connected());
    let refused = |use_| matches!(pool.store.draw(&pool.peer, use_, 32), Err(StoreError::RolledBack { .. }));
    assert!(refused(Use::SupplyOut) && refused(Use::RelayOut));
}

/// Two ends that share key of which `out` has drawn 64 bytes and the other one has redeemed as many; one of the two
/// stores is copied when it was half of that.
async fn put_back(out: usize, copied: usize) -> World {
    let mut world = World::new();
    let pools = world.talk([0; 2], |_, _| true).await;
    offer(&pools, &world.block(9000)).await;
    drop(pools);
    let mut pools = world.settle((9000 - CONFIRMATION_BYTES) as u64 - KEPT).await;
    let mut copy = None;
    for round in 0..2 {
        let key = pools[out].store.draw(&pools[out].peer, Use::SupplyOut, 32).unwrap();
        let redeemed = pools[1 - out].store.redeem(&pools[1 - out].peer, Use::SupplyIn, 0, &[(key.start, 32)]).await;
        assert!(redeemed.unwrap()[0] == key.key);
        drop(pools);
        let heard = |pool: &Pool| locked(&pool.peer_marks).marks.redeemed_bytes;
        let bytes = 32 * (round + 1);
        pools = world
            .talk([usize::MAX; 2], |a, b| {
                let heard = heard([a, b][out]);
                a.connected() && b.connected() && heard == bytes
            })
            .await;
        pools[out].note_marks().await.unwrap();
        if round == 0 {
            drop(pools);
            copy = Some(world.ends[copied].copy());
            pools = world.talk([0; 2], |_, _| true).await;
        }
    }
    drop(pools);
    world.ends[copied].put_back(&copy.unwrap());
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_put_back_is_found_at_the_greeting_and_both_serve_nothing_until_it_is_voided() {
    for (out, copied) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        println!("end {out} hands out, the store of end {copied} is put back");
        let mut world = put_back(out, copied).await;
        for _ in 0..2 {
            let pools = world.meet().await;
            let site = world.ends[copied].site;
            pools.iter().for_each(|pool| serves_nothing(pool, site));
            assert!(pools.iter().all(|pool| pool.levels().generation == 0));
        }
        world.ends[copied].void();
        let pools = world.talk([0; 2], |_, _| true).await;
        offer(&pools, &world.block(7000)).await;
        drop(pools);
        let pools = world.settle((7000 - CONFIRMATION_BYTES) as u64 - KEPT).await;
        assert!(pools.iter().all(|pool| pool.rolled_back().is_none() && pool.levels().generation > 0));
        assert!(all_drawn_is_redeemed(&pools[0], &pools[1]).await > 0);
        check_ledgers(&pools);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_another_version_is_a_state_and_nothing_is_spent() {
    let world = World::new();
    for version in [0, VERSION + 1] {
        let (a, mut shares) = world.ends[0].open().await;
        let (ours, theirs) = Duplex::pair(MESSAGES_IN_FLIGHT);
        let answer = PairHello { version, generation: 7, stream_end: 5, ..PairHello::default() };
        let peer = async {
            let mut theirs: Duplex<PairMessage, PairMessage> = theirs;
            assert!(theirs.receive().await.is_some());
            theirs.send(PairMessage { message: Some(pair_message::Message::Hello(answer)) }).await.unwrap();
            theirs
        };
        let (ended, _) = tokio::join!(coordinate(&a, ours, &mut shares), peer);
        assert!(
            matches!(ended.unwrap_err().downcast_ref(), Some(Lasting::PeerVersion { theirs }) if *theirs == version)
        );
        assert_eq!((a.peer_version(), a.levels().generation), (Some(version), 0));
    }
    let (b, mut shares) = world.ends[1].open().await;
    let (ours, theirs) = Duplex::pair(MESSAGES_IN_FLIGHT);
    let hello = PairHello { version: VERSION + 1, generation: 7, ..PairHello::default() };
    let peer = async {
        let mut theirs: Duplex<PairMessage, PairMessage> = theirs;
        theirs.send(PairMessage { message: Some(pair_message::Message::Hello(hello)) }).await.unwrap();
        theirs.receive().await
    };
    let (ended, told) = tokio::join!(follow(&b, ours, &mut shares), peer);
    assert!(ended.unwrap_err().downcast_ref::<Lasting>().is_some());
    let told = told.and_then(|told| told.message);
    assert!(matches!(told, Some(pair_message::Message::Hello(hello)) if hello.version == VERSION), "it is told");
    assert_eq!((b.peer_version(), b.levels().generation), (Some(VERSION + 1), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_have_the_form_that_the_peer_last_said_that_it_reads() {
    let world = World::new();
    let hello = PairHello {
        version: VERSION,
        id_secret: vec![1; ID_SECRET_BYTES].into(),
        instance: vec![1; 16].into(),
        ..PairHello::default()
    };
    let old = Form::CycleWalking;
    for at in 0..2 {
        let mut before = old;
        // One of an earlier release says nothing; one of a later release may read more.
        for (number, form) in [(0, old), (1, Form::Ff1), (7, Form::NEWEST), (0, old)] {
            let (pool, mut shares) = world.ends[at].open().await;
            assert_eq!(pool.id_form(), before, "as before the restart");
            let (ours, mut theirs): (PairStream, PairStream) = Duplex::pair(MESSAGES_IN_FLIGHT);
            let hello = PairHello { key_id_form: number, ..hello.clone() };
            let mut progress = pool.progress();
            let peer = async {
                theirs.send(PairMessage { message: Some(pair_message::Message::Hello(hello)) }).await.unwrap();
                let Some(pair_message::Message::Hello(ours)) = theirs.receive().await.unwrap().message else {
                    panic!("site {at} does not greet");
                };
                assert_eq!(ours.key_id_form, Form::NEWEST.number(), "it says what it reads");
                progress.wait_for(|_| pool.connected()).await.unwrap();
                assert_eq!(pool.id_form(), form, "site {at}, a peer that says {number}");
                drop(theirs);
            };
            let dialogue = async {
                let ended = match at {
                    0 => coordinate(&pool, ours, &mut shares).await,
                    _ => follow(&pool, ours, &mut shares).await,
                };
                ended.unwrap_err()
            };
            tokio::join!(peer, dialogue);
            before = form;
        }
    }
}

/// A block of a link, as modules hand it over.
fn of_link(number: u64, block: Offer) -> Offer {
    Offer { origin: format!(r#"{{"kind":"link","link":"one","block":{number}}}"#), ..block }
}

/// Talks until no block waits at either end.
async fn at_rest(world: &World) -> [Arc<Pool>; 2] {
    let rest = |pool: &Pool| pool.connected() && pool.levels().offered_blocks == 0;
    world.talk([usize::MAX; 2], |a, b| rest(a) && rest(b)).await
}

async fn is_abandoned(pool: &Pool, block: &Offer) {
    let status = pool.store.block_status(&pool.peer, block.id).await.unwrap();
    assert!(matches!(status, keystore::BlockStatus::Abandoned { .. }), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_the_other_module_passed_over_is_abandoned_also_when_it_comes_late() {
    for end in 0..2 {
        let mut world = World::new();
        let (alone, later) = (of_link(4, world.block(4000)), of_link(5, world.block(3000)));
        let pools = world.talk([0; 2], |_, _| true).await;
        pools[end].store.offer(&pools[end].peer, alone.clone()).await.unwrap();
        pools[end].has_handed_over("one", 4).await.unwrap();
        offer(&pools, &later).await;
        for pool in &pools {
            pool.has_handed_over("one", 5).await.unwrap();
        }
        drop(pools);
        // Both stores restart before they talk: what the modules handed over is known all the same.
        let pools = at_rest(&world).await;
        is_abandoned(&pools[end], &alone).await;
        let ledgers = pools.each_ref().map(|pool| pool.store.ledger(&pool.peer).unwrap());
        assert_eq!((ledgers[end].abandoned_bits, ledgers[1 - end].abandoned_bits), (32_000, 0));
        assert!(ledgers.iter().all(|ledger| ledger.confirmed_bits == 24_000));
        pools[1 - end].store.offer(&pools[1 - end].peer, alone.clone()).await.unwrap();
        drop(pools);
        let pools = at_rest(&world).await;
        is_abandoned(&pools[1 - end], &alone).await;
        check_ledgers(&pools);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_only_one_end_has_is_abandoned_when_it_is_as_old_as_key_may_be() {
    for end in 0..2 {
        let mut world = World::new();
        let pools = world.talk([0; 2], |_, _| true).await;
        // A relayed key: no module hands over anything behind it.
        let (old, young) = (world.block(4000), world.block(2000));
        let offered_ms = crate::now_ms() - RETENTION_MS;
        pools[end].store.offer(&pools[end].peer, Offer { offered_ms, ..old.clone() }).await.unwrap();
        pools[end].store.offer(&pools[end].peer, young.clone()).await.unwrap();
        drop(pools);
        let one_left = |pool: &Pool| pool.connected() && pool.levels().offered_blocks < 2;
        let pools = world.talk([usize::MAX; 2], |a, b| one_left(a) && one_left(b)).await;
        is_abandoned(&pools[end], &old).await;
        let status = pools[end].store.block_status(&pools[end].peer, young.id).await;
        assert_eq!(status, Ok(keystore::BlockStatus::Offered), "it may still come at the other end");
        check_ledgers(&pools);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_one_end_has_decided_on_alone_ends_at_the_other_end_too() {
    for end in 0..2 {
        let mut world = World::new();
        let pools = world.talk([0; 2], |_, _| true).await;
        let (block, tiny) = (world.block(4000), world.block(CONFIRMATION_BYTES));
        offer(&pools, &block).await;
        offer(&pools, &tiny).await;
        // A crash came between the two quarantines.
        pools[end].store.quarantine(&pools[end].peer, block.id, "the two ends differ").await.unwrap();
        drop(pools);
        let pools = at_rest(&world).await;
        is_abandoned(&pools[1 - end], &block).await;
        // The coordinator does not confirm what has no bit to deliver.
        is_abandoned(&pools[1], &tiny).await;
        check_ledgers(&pools);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_only_the_follower_confirmed_before_the_generation_ended_ends_with_it() {
    let mut world = World::new();
    drop(world.talk([usize::MAX; 2], |a, b| a.connected() && b.connected()).await);
    let pools = world.talk([0; 2], |_, _| true).await;
    let block = world.block(4000);
    offer(&pools, &block).await;
    pools[1].store.confirm("a", block.id, 0, 0, CONFIRMATION_BYTES as u64).await.unwrap();
    pools[1].void_to(1, "out of step").await.unwrap();
    drop(pools);
    let pools = at_rest(&world).await;
    is_abandoned(&pools[0], &block).await;
    assert!(pools.iter().all(|pool| pool.levels().generation >= 1 && pool.levels().end_bytes == 0));
    check_ledgers(&pools);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_ends_with_many_blocks_that_the_other_one_lacks_come_to_an_end_all_the_same() {
    let mut world = World::new();
    let pools = world.talk([0; 2], |_, _| true).await;
    let both = of_link(9_999, world.block(2000));
    for (end, pool) in pools.iter().enumerate() {
        // More than may be in flight, and the identifiers of both ends mixed.
        let blocks: Vec<Offer> = (0..150).map(|at| of_link(2 * at + end as u64, world.block(40))).collect();
        let offered: Vec<_> = blocks.into_iter().map(|block| pool.store.offer(&pool.peer, block)).collect();
        for offered in offered {
            offered.await.unwrap();
        }
        pool.store.offer(&pool.peer, both.clone()).await.unwrap();
        pool.has_handed_over("one", 9_999).await.unwrap();
    }
    drop(pools);
    let pools = at_rest(&world).await;
    for pool in &pools {
        let ledger = pool.store.ledger(&pool.peer).unwrap();
        assert_eq!((ledger.abandoned_bits, ledger.confirmed_bits), (150 * 320, 16_000));
    }
    check_ledgers(&pools);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]
    #[test]
    fn wherever_the_line_and_both_processes_break_both_ends_agree_afterwards(
        cuts in proptest::collection::vec((0usize..60, 0usize..60, 200usize..6000), 1..6)
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            let mut bytes = 0;
            for (from_a, from_b, size) in cuts {
                let (pools, block) = (world.talk([0; 2], |_, _| true).await, world.block(size));
                offer(&pools, &block).await;
                bytes += (size - CONFIRMATION_BYTES) as u64;
                drop(pools);
                drop(world.talk([from_a, from_b], |_, _| false).await);
            }
            // Until enough is there for every use.
            let pools = world.talk([0; 2], |_, _| true).await;
            offer(&pools, &world.block(20_000)).await;
            drop(pools);
            let pools = world.settle(bytes + (20_000 - CONFIRMATION_BYTES) as u64 - KEPT).await;
            assert_eq!(pools[0].levels().generation, 0, "nothing was given up");
            assert!(all_drawn_is_redeemed(&pools[0], &pools[1]).await > 0);
            assert!(all_drawn_is_redeemed(&pools[1], &pools[0]).await > 0);
            check_ledgers(&pools);
        });
    }
}

/// Applications at both ends take whatever they get, blocks are shorter than a pad, and none is left over.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_gets_whole_pads_however_much_applications_take() {
    const PAD_BYTES: usize = 1024 + SEAL_OVERHEAD_BYTES;
    let world = std::cell::RefCell::new(World::new());
    let ends = World::new();
    let pads = std::cell::Cell::new([0; 2]);
    ends.talk([usize::MAX; 2], |a, b| {
        if a.levels().unassigned_bytes < 2 * PAD_BYTES as u64 {
            let block = world.borrow_mut().block(CONFIRMATION_BYTES + 640);
            for pool in [a, b] {
                drop(pool.store.offer(&pool.peer, block.clone()));
                pool.wake.notify_one();
            }
        }
        let mut drawn = pads.get();
        for (pool, drawn) in [a, b].into_iter().zip(&mut drawn) {
            while pool.store.draw(&pool.peer, Use::SupplyOut, 32).is_ok() {}
            pool.want(Use::SupplyOut, 64 << 10);
            // As a relay does: it asks for none until it could send one and leave two.
            if pool.levels().available(Use::RelayOut) >= 3 * PAD_BYTES as u64 {
                *drawn += usize::from(pool.store.draw(&pool.peer, Use::RelayOut, PAD_BYTES).is_ok());
            }
        }
        pads.set(drawn);
        drawn.iter().all(|pads| *pads >= 3)
    })
    .await;
}
