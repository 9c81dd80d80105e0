//! Random operations on a disk that loses power at any write or sync, against a model in memory.
//!
//! The model knows what was answered. After the power came back: what was answered is there, what was handed out never
//! comes back, what is served is the right byte, and the ledger sums exactly. What was asked and not answered may have
//! happened or not.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::disk::{Disk, Loss};
use common::*;
use keystore::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const PEERS: [&str; 2] = ["sophia", "valrose"];
/// A pool of the site's own, in which nothing is ever confirmed.
const VAULT: &str = "~between";
const RETENTION_MS: u64 = 1_000;
/// Most that a power loss wastes of what was taken in advance.
const WASTED_BYTES_MAX: u64 = 33 * 3968;

fn settings() -> Settings {
    Settings {
        retention_out_ms: RETENTION_MS,
        retention_in_ms: RETENTION_MS + 500,
        lease_bytes: 4 << 10,
        journal_bytes: 8 << 10,
        ..Settings::default()
    }
}

/// Every request takes what is left of its chunk, too.
fn settings_in_advance() -> Settings {
    Settings { redeem_in_advance_from: 0, ..settings() }
}

/// What is known of one pool.
#[derive(Default)]
struct Pool {
    generation: u32,
    /// Answered ends; a power loss may find them further on.
    end: u64,
    granted_end: u64,
    grants: Vec<Grant>,
    offered: Vec<(u64, u64, usize)>,
    handed_out: BTreeSet<(u32, u64)>,
    handed_out_bytes: u64,
    /// Ranges asked for when the power failed: gone or not.
    doubtful: Vec<(u64, u64)>,
}

struct Run {
    rng: ChaCha8Rng,
    pools: BTreeMap<&'static str, Pool>,
    deposits: BTreeMap<u64, Vec<&'static str>>,
    now_ms: u64,
    /// The last expiry that was answered.
    expired_ms: u64,
    next_block: u64,
    /// Blocks of the vault, and what was under way when the power failed.
    exchanged: Vec<(u64, Secret)>,
    exchanging: Option<Exchange>,
    /// A power loss wastes what was taken in advance.
    in_advance: bool,
}

/// Peer, generation, use, range and place in the vault.
type Exchange = (&'static str, u32, Use, (u64, u64), u64);

type Step = Result<(), StoreError>;

impl Run {
    fn new(seed: u64, settings: &Settings) -> Self {
        let pools = PEERS.into_iter().map(|peer| (peer, Pool::default())).collect();
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            pools,
            deposits: BTreeMap::new(),
            now_ms: 0,
            expired_ms: 0,
            next_block: 0,
            exchanged: Vec::new(),
            exchanging: None,
            in_advance: settings.redeem_in_advance_from == 0,
        }
    }

    /// One random operation. An error that is fatal, or closed, ends the run: the power failed.
    fn step(&mut self, store: &KeyStore) -> Step {
        let peer = PEERS[self.rng.random_range(0..PEERS.len())];
        let refused = match self.rng.random_range(0..100) {
            0..14 => self.fill(store, peer),
            14..24 => self.grant(store, peer),
            24..55 => self.draw(store, peer),
            55..80 => self.redeem(store, peer),
            80..85 => self.exchange(store, peer),
            85..90 => self.activate(store, peer),
            90..94 => self.deposit(store),
            94..97 => self.take_deposit(store),
            97 => self.void(store, peer),
            _ => self.expire(store),
        };
        match refused {
            Err(error) if error.is_fatal() || error == StoreError::Closed => Err(error),
            _ => Ok(()),
        }
    }

    fn fill(&mut self, store: &KeyStore, peer: &'static str) -> Step {
        let bytes = self.rng.random_range(1..9_000);
        let pool = self.pools.get_mut(peer).unwrap();
        let (number, start) = (self.next_block, pool.end);
        self.next_block += 1;
        pool.offered.push((number, start, bytes));
        store.offer(peer, block(number, pool.generation, start, bytes)).wait()?;
        if self.rng.random_range(0..8) == 0 {
            store.quarantine(peer, id(number), "does not match").wait()?;
            return Ok(());
        }
        store.confirm(peer, id(number), pool.generation, start, 0).wait()?;
        pool.end += bytes as u64;
        Ok(())
    }

    fn grant(&mut self, store: &KeyStore, peer: &'static str) -> Step {
        let pool = self.pools.get_mut(peer).unwrap();
        let free = pool.end - pool.granted_end;
        if free == 0 {
            return Ok(());
        }
        let grant = Grant {
            generation: pool.generation,
            seq: pool.grants.len() as u64,
            use_: Use::ALL[self.rng.random_range(0..4)],
            start: pool.granted_end,
            bytes: self.rng.random_range(1..=free),
            granted_ms: self.now_ms,
            active: self.rng.random_range(0..4) > 0,
        };
        store.grant(peer, grant).wait()?;
        pool.granted_end += grant.bytes;
        pool.grants.push(grant);
        Ok(())
    }

    fn activate(&mut self, store: &KeyStore, peer: &'static str) -> Step {
        let pool = self.pools.get_mut(peer).unwrap();
        for seq in 0..pool.grants.len() {
            store.activate_grant(peer, pool.generation, seq as u64).wait()?;
            pool.grants[seq].active = true;
        }
        Ok(())
    }

    fn draw(&mut self, store: &KeyStore, peer: &'static str) -> Step {
        let use_ = [Use::SupplyOut, Use::RelayOut][self.rng.random_range(0..2)];
        let (each, count) = (self.rng.random_range(1..300), self.rng.random_range(1..6));
        let keys = store.draw_many(peer, use_, each, count)?;
        assert_eq!(keys.len(), count);
        keys.into_iter().for_each(|key| self.hand_out(peer, use_, key.generation, key.start, &key.key));
        Ok(())
    }

    fn redeem(&mut self, store: &KeyStore, peer: &'static str) -> Step {
        let pool = self.pools.get_mut(peer).unwrap();
        let ins: Vec<Grant> = pool.grants.iter().filter(|grant| !grant.use_.is_out()).copied().collect();
        if ins.is_empty() {
            return Ok(());
        }
        let grant = ins[self.rng.random_range(0..ins.len())];
        let ranges: Vec<(u64, u64)> = (0..self.rng.random_range(1..4))
            .map(|_| {
                let start = grant.start + self.rng.random_range(0..grant.bytes);
                (start, self.rng.random_range(1..=300.min(grant.start + grant.bytes - start)))
            })
            .collect();
        let answer = store.redeem(peer, grant.use_, pool.generation, &ranges).wait();
        if answer.as_ref().is_err_and(|error| error.is_fatal() || *error == StoreError::Closed) {
            pool.doubtful.extend(&ranges);
        }
        let generation = pool.generation;
        for ((start, _), key) in ranges.iter().zip(answer?) {
            self.hand_out(peer, grant.use_, generation, *start, &key);
        }
        Ok(())
    }

    /// Redeems a range and keeps what was made of it in a vault: after a power loss both happened or neither.
    fn exchange(&mut self, store: &KeyStore, peer: &'static str) -> Step {
        let pool = self.pools.get_mut(peer).unwrap();
        let grant = pool.grants.iter().rev().find(|grant| !grant.use_.is_out());
        let Some(grant) = grant.copied() else { return Ok(()) };
        let start = grant.start + self.rng.random_range(0..grant.bytes);
        let range = (start, self.rng.random_range(1..=300.min(grant.start + grant.bytes - start)));
        let (number, generation) = (self.next_block, pool.generation);
        self.next_block += 1;
        let make = move |taken: &Secret| {
            let offer = Offer {
                id: id(number),
                key: taken.clone(),
                origin: String::new(),
                span: [0; 25],
                offered_ms: 0,
                relayed: false,
            };
            Made { offers: vec![(VAULT.to_owned(), offer)], answer: taken.clone() }
        };
        let answer = store.redeem_into(peer, (grant.use_, generation), range, (VAULT, id(number)), make).wait();
        if answer.as_ref().is_err_and(|error| error.is_fatal() || *error == StoreError::Closed) {
            self.exchanging = Some((peer, generation, grant.use_, range, number));
        }
        let (taken, offered) = answer?;
        assert_eq!(offered, [Ok(BlockStatus::Offered)]);
        self.hand_out(peer, grant.use_, generation, range.0, &taken);
        self.exchanged.push((number, taken));
        let again = store.redeem_into(peer, (grant.use_, generation), range, (VAULT, id(number)), |taken| Made {
            offers: Vec::new(),
            answer: taken.clone(),
        });
        assert_eq!(again.wait().err(), Some(StoreError::BlockConflict { was: "offered" }));
        Ok(())
    }

    /// What was answered is in the vault; of what was under way, the range is gone if and only if the vault has it.
    fn check_exchanged(&mut self, store: &KeyStore) {
        for (number, taken) in &self.exchanged {
            assert_eq!(store.offered_key(VAULT, id(*number)).wait().unwrap(), *taken);
        }
        let Some((peer, generation, use_, range, number)) = self.exchanging.take() else { return };
        if store.levels(peer).map(|levels| levels.generation) != Ok(generation) {
            return;
        }
        let kept = store.offered_key(VAULT, id(number)).wait();
        let kept = kept.inspect(|kept| assert_eq!(kept.expose(), stream(generation, range.0, range.1 as usize)));
        match store.redeem(peer, use_, generation, &[range]).wait() {
            Ok(key) => {
                assert!(kept.is_err(), "a range came back, and what was made of it stayed");
                self.hand_out(peer, use_, generation, range.0, &key[0]);
            }
            Err(StoreError::AlreadyTaken { .. } | StoreError::NotGranted { .. }) => {
                let wasted = self.in_advance && use_ == Use::SupplyIn;
                assert!(
                    wasted || kept.is_ok() || !self.was_there(peer, generation, range),
                    "a range is gone, and nothing is kept"
                );
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Whether nothing of a range had been handed out or had grown too old.
    fn was_there(&self, peer: &str, generation: u32, (start, bytes): (u64, u64)) -> bool {
        let pool = &self.pools[peer];
        let mut taken = pool.handed_out.range((generation, start)..(generation, start + bytes));
        let grant = pool.grants.iter().find(|grant| (grant.start..grant.start + grant.bytes).contains(&start));
        taken.next().is_none() && grant.is_some_and(|grant| grant.granted_ms + RETENTION_MS + 500 > self.now_ms)
    }

    /// Every byte is the right one, of a grant of this use, and was never handed out.
    fn hand_out(&mut self, peer: &'static str, use_: Use, generation: u32, start: u64, key: &Secret) {
        let pool = self.pools.get_mut(peer).unwrap();
        assert_eq!(generation, pool.generation);
        assert_eq!(key.expose(), stream(generation, start, key.len()), "{peer} at {start}");
        for position in start..start + key.len() as u64 {
            assert!(pool.handed_out.insert((generation, position)), "{peer} {use_:?} byte {position} came back");
            let grant = pool.grants.iter().find(|grant| (grant.start..grant.start + grant.bytes).contains(&position));
            let grant = grant.expect("a byte that is not granted");
            assert_eq!(grant.use_, use_);
            let retention_ms = if use_.is_out() { RETENTION_MS } else { RETENTION_MS + 500 };
            assert!(!use_.is_out() || grant.active, "drawn from a grant that is not active");
            assert!(grant.granted_ms + retention_ms > self.expired_ms, "handed out when it was too old");
        }
        pool.handed_out_bytes += key.len() as u64;
    }

    fn deposit(&mut self, store: &KeyStore) -> Step {
        let number = self.next_block;
        self.next_block += 1;
        let slaves = vec!["sae-b", "sae-c"];
        let deposit = Deposit {
            key_id: id(number),
            key: Secret::new(stream(9, number, 32)),
            master: "sae-a".to_owned(),
            slaves: slaves.iter().map(|slave| (*slave).to_owned()).collect(),
            expires_ms: u64::MAX,
            origin: String::new(),
        };
        store.deposit(deposit).wait()?;
        self.deposits.insert(number, slaves);
        Ok(())
    }

    fn take_deposit(&mut self, store: &KeyStore) -> Step {
        let Some((&number, left)) = self.deposits.iter_mut().find(|(_, left)| !left.is_empty()) else { return Ok(()) };
        let slave = left.pop().unwrap();
        let taken = store.take_deposit(&[id(number)], slave, "sae-a", self.now_ms).wait()?;
        assert_eq!(taken[0].key.expose(), stream(9, number, 32));
        let again = store.take_deposit(&[id(number)], slave, "sae-a", self.now_ms).wait();
        assert!(again.is_err(), "a deposit was taken twice");
        Ok(())
    }

    fn void(&mut self, store: &KeyStore, peer: &'static str) -> Step {
        let pool = self.pools.get_mut(peer).unwrap();
        let answer = store.void_pool(peer, pool.generation, "test").wait();
        if !matches!(answer, Err(StoreError::UnknownPeer { .. })) {
            // In doubt after a failure; `recover` reads what became of it.
            answer?;
            pool.begin(pool.generation + 1);
        }
        Ok(())
    }

    fn expire(&mut self, store: &KeyStore) -> Step {
        self.now_ms += self.rng.random_range(0..RETENTION_MS / 2);
        store.expire(self.now_ms).wait()?;
        self.expired_ms = self.now_ms;
        Ok(())
    }

    /// Draws everything that is left: a byte that comes back is found.
    fn drain(&mut self, store: &KeyStore) {
        for peer in PEERS {
            for (use_, each) in [(Use::SupplyOut, 97), (Use::SupplyOut, 1), (Use::RelayOut, 97), (Use::RelayOut, 1)] {
                while let Ok(key) = store.draw(peer, use_, each) {
                    self.hand_out(peer, use_, key.generation, key.start, &key.key);
                }
            }
        }
    }

    /// What the store holds after the power came back agrees with what was answered.
    fn recover(&mut self, store: &KeyStore) {
        for peer in PEERS {
            let pool = self.pools.get_mut(peer).unwrap();
            let Ok(levels) = store.levels(peer) else {
                assert!(pool.end == 0 && pool.generation == 0, "{peer} was answered for and is gone");
                continue;
            };
            let ledger = checked(store, peer);
            assert!(levels.generation == pool.generation || levels.generation == pool.generation + 1);
            if levels.generation > pool.generation {
                pool.begin(levels.generation);
            }
            assert!(levels.end_bytes >= pool.end && levels.granted_end_bytes >= pool.granted_end, "{peer}: {levels:?}");
            let grants = store.grants(peer, 0).wait().unwrap();
            assert!(grants.len() >= pool.grants.len() && grants.len() <= pool.grants.len() + 1);
            for (known, found) in pool.grants.iter().zip(&grants) {
                assert_eq!(Grant { active: found.active, ..*known }, *found);
                let expired = known.granted_ms + RETENTION_MS <= self.now_ms;
                let meant = known.active && known.use_.is_out() && !expired;
                assert!(found.active || !meant, "an activation was lost");
            }
            (pool.end, pool.granted_end, pool.grants) = (levels.end_bytes, levels.granted_end_bytes, grants);
            let gone: u64 = ledger.uses.iter().map(|use_| (use_.handed_out_bits + use_.wasted_bits) / 8).sum();
            assert!(gone >= pool.handed_out_bytes, "{peer}: fewer bits are gone than were handed out");
            for (number, ..) in std::mem::take(&mut pool.offered) {
                let status = store.block_status(peer, id(number)).wait();
                assert!(matches!(status, Ok(_) | Err(StoreError::UnknownBlock)), "{status:?}");
                if status == Ok(BlockStatus::Offered) {
                    store.quarantine(peer, id(number), "in doubt").wait().unwrap();
                }
            }
            pool.check_redeemed(store, peer);
        }
        self.check_exchanged(store);
    }
}

impl Pool {
    fn begin(&mut self, generation: u32) {
        *self = Self {
            generation,
            offered: std::mem::take(&mut self.offered),
            handed_out_bytes: self.handed_out_bytes,
            ..Self::default()
        };
    }

    /// Nothing that was redeemed can be redeemed again, not even as a part of something else.
    fn check_redeemed(&mut self, store: &KeyStore, peer: &str) {
        self.doubtful.clear();
        for grant in self.grants.iter().filter(|grant| !grant.use_.is_out()) {
            let redeemed =
                self.handed_out.range((self.generation, grant.start)..(self.generation, grant.start + grant.bytes));
            for (_, position) in redeemed.step_by(37) {
                let again = store.redeem(peer, grant.use_, self.generation, &[(*position, 1)]).wait();
                assert_eq!(again.err(), Some(StoreError::AlreadyTaken { start: *position, bytes: 1 }), "{peer}");
            }
        }
    }
}

/// Runs until the disk fails at `operation`, reopens what is left, and goes on for a while.
fn crash_at(seed: u64, operation: u64, loss: Loss, settings: &Settings) {
    let disk = Disk::default();
    let mut run = Run::new(seed, settings);
    disk.fail_at(operation);
    if let Ok(store) = KeyStore::open_on(disk.media(), &master(), settings) {
        while run.step(&store).is_ok() {}
        assert!(store.close().unwrap_err().is_fatal());
        assert!(store.stopped().is_some_and(|why| why.is_fatal()));
        assert!(store.draw(PEERS[0], Use::SupplyOut, 1).is_err(), "a store in doubt serves nothing");
    }
    let disk = disk.after_power_loss(loss);
    let store = KeyStore::open_on(disk.media(), &master(), settings).unwrap();
    run.recover(&store);
    for _ in 0..25 {
        run.step(&store).unwrap();
    }
    for peer in PEERS.iter().filter(|peer| store.levels(peer).is_ok()) {
        checked(&store, peer);
    }
    store.close().unwrap();
    drop(store);
    let store = KeyStore::open_on(disk.media(), &master(), settings).unwrap();
    run.recover(&store);
    run.drain(&store);
    PEERS.iter().filter(|peer| store.levels(peer).is_ok()).for_each(|peer| {
        checked(&store, peer);
    });
}

#[test]
fn whatever_the_power_interrupts_no_bit_comes_back_and_none_is_unaccounted_for() {
    let points: u64 = std::env::var("KEYSTORE_CRASH_POINTS").map_or(240, |text| text.parse().unwrap());
    for point in 0..points {
        let (seed, operation) = (1_000 + point % 16, 20 + point * 1_801 % 1_500);
        let loss = match point % 4 {
            0 => Loss::All,
            1 => Loss::Nothing,
            _ => Loss::Some(point),
        };
        let settings = if point / 4 % 2 == 0 { settings() } else { settings_in_advance() };
        let from = settings.redeem_in_advance_from;
        println!("seed {seed}, power fails at operation {operation}, lost: {loss:?}, in advance from {from}");
        crash_at(seed, operation, loss, &settings);
    }
}

#[test]
fn what_was_answered_to_any_of_many_callers_survives_a_power_loss() {
    for point in 0..40u64 {
        let settings = if point % 2 == 0 { settings() } else { settings_in_advance() };
        println!("point {point}, in advance from {}", settings.redeem_in_advance_from);
        let disk = Disk::default();
        let store = Arc::new(KeyStore::open_on(disk.media(), &master(), &settings).unwrap());
        fill(&store, PEERS[0], 1, 400_000);
        grant(&store, PEERS[0], Use::SupplyIn, 400_000, 0);
        // In advance there is little to write.
        disk.fail_at(disk.operations() + if point % 2 == 0 { 20 + point * 17 } else { 3 + point });
        let callers: Vec<_> = (0..8u64)
            .map(|caller| {
                let store = Arc::clone(&store);
                let ranges = (0..).map(move |number| ((8 * number + caller) * 32 % 399_968, 32));
                let redeemed = ranges.take_while(move |range| {
                    let answer = store.redeem(PEERS[0], Use::SupplyIn, 0, &[*range]).wait();
                    answer.is_ok_and(|key| key[0].expose() == stream(0, range.0, 32))
                });
                std::thread::spawn(move || redeemed.collect::<Vec<_>>())
            })
            .collect();
        let redeemed: Vec<_> = callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect();
        assert!(store.close().unwrap_err().is_fatal(), "the disk fails before the key runs out");
        let disk = disk.after_power_loss(Loss::Some(point));
        let store = KeyStore::open_on(disk.media(), &master(), &settings).unwrap();
        for (start, bytes) in &redeemed {
            let again = store.redeem(PEERS[0], Use::SupplyIn, 0, &[(*start, *bytes)]).wait();
            assert_eq!(again.err(), Some(StoreError::AlreadyTaken { start: *start, bytes: *bytes }));
        }
        let ledger = checked(&store, PEERS[0]);
        let counted = ledger.of(Use::SupplyIn);
        let gone = (counted.handed_out_bits + counted.wasted_bits) / 256;
        let least = redeemed.len() as u64;
        let most = least + if point % 2 == 0 { 8 } else { 8 + WASTED_BYTES_MAX / 32 };
        assert!((least..=most).contains(&gone), "{gone} of {least}");
    }
}

#[test]
fn a_long_run_without_failures_agrees_with_the_model() {
    for settings in [settings(), settings_in_advance()] {
        long_run(5, &settings);
    }
}

fn long_run(seed: u64, settings: &Settings) {
    println!("seed {seed}, in advance from {}", settings.redeem_in_advance_from);
    let (disk, mut run) = (Disk::default(), Run::new(seed, settings));
    let mut store = KeyStore::open_on(disk.media(), &master(), settings).unwrap();
    for step in 1..3_000 {
        run.step(&store).unwrap();
        PEERS
            .iter()
            .filter(|peer| store.levels(peer).is_ok())
            .for_each(|peer| assert!(checked(&store, peer).offered_bits > 0));
        if step % 500 == 0 {
            store.close().unwrap();
            store = KeyStore::open_on(disk.media(), &master(), settings).unwrap();
            run.recover(&store);
        }
    }
    let handed_out: u64 = run.pools.values().map(|pool| pool.handed_out_bytes).sum();
    assert!(handed_out > 100_000, "the run is worth something: {handed_out}");
}
