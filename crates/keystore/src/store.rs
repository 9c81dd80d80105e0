//! The store as callers hold it.

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use redb::StorageBackend;

use crate::engine::{Engine, opened};
use crate::face::{Face, State};
use crate::keeper::Failing;
use crate::lane::Taken;
use crate::ledger::PoolLedger;
use crate::master::MasterKey;
use crate::media::{Media, database_path};
use crate::queue::{Pending, Shared};
use crate::types::*;
use crate::{Secret, StoreError};

/// The pools of one site. Cheap to share behind an `Arc`; dropping it closes it.
pub struct KeyStore {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<Result<(), StoreError>>>>,
    instance_id: [u8; 16],
    anchor_failing: Failing,
}

impl KeyStore {
    /// Opens the store in `folder`, or makes it. A folder that another process has open is refused.
    pub fn open(folder: &Path, master: &MasterKey, settings: &Settings) -> Result<Self, StoreError> {
        Self::open_on(Media::files(folder)?, master, settings).map_err(|error| match error {
            StoreError::InUse { .. } => StoreError::InUse { path: database_path(folder) },
            other => other,
        })
    }

    /// Opens the store on other media than files.
    pub fn open_on<D: StorageBackend, J: StorageBackend>(
        media: Media<D, J>,
        master: &MasterKey,
        settings: &Settings,
    ) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared::default());
        let (engine, instance_id) = opened(media, master, settings, &shared)?;
        let anchor_failing = engine.anchor_failing();
        let writer = std::thread::Builder::new().name("keystore".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || write_groups(engine, &shared)
        });
        let writer = writer.map_err(|error| StoreError::io("start the writer", &error))?;
        Ok(Self { shared, writer: Mutex::new(Some(writer)), instance_id, anchor_failing })
    }

    /// A random UUID (version 4), made when the store was.
    pub fn instance_id(&self) -> [u8; 16] {
        self.instance_id
    }

    /// Why the store serves nothing, if so.
    pub fn stopped(&self) -> Option<StoreError> {
        self.shared.stopped().cloned()
    }

    /// Ends what was begun, gives leases back, and closes the files. What is asked from here on is refused.
    pub fn close(&self) -> Result<(), StoreError> {
        self.shared.close();
        let writer = self.writer.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        match writer.map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(StoreError::io("close the store", &"the writer panicked")),
            None => Ok(()),
        }
    }

    // --- blocks

    /// Puts a block on the disk. Its bits do not count until it is confirmed.
    pub fn offer(&self, peer: &str, offer: Offer) -> Pending<BlockStatus> {
        let (peer, bytes) = (peer.to_owned(), offer.key.len() + offer.origin.len());
        self.shared.submit(bytes, move |engine| engine.offer(&peer, &offer))
    }

    /// Appends an offered block, less its first `deducted_bytes`, to the stream at `start`.
    pub fn confirm(
        &self,
        peer: &str,
        id: [u8; 16],
        generation: u32,
        start: u64,
        deducted_bytes: u64,
    ) -> Pending<BlockStatus> {
        let peer = peer.to_owned();
        self.shared.submit(0, move |engine| engine.confirm(&peer, &id, (generation, start), (deducted_bytes, 0)))
    }

    /// As [`KeyStore::confirm`]; the last `kept` of the deducted bytes become the generation's key, in the same commit.
    pub fn confirm_keeping(
        &self,
        peer: &str,
        id: [u8; 16],
        generation: u32,
        start: u64,
        (deducted, kept): (u64, u64),
    ) -> Pending<BlockStatus> {
        let peer = peer.to_owned();
        self.shared.submit(0, move |engine| engine.confirm(&peer, &id, (generation, start), (deducted, kept)))
    }

    /// What was kept of a generation's key, if it is the present one.
    pub fn generation_key(&self, peer: &str, generation: u32) -> Pending<Option<Secret>> {
        let peer = peer.to_owned();
        self.shared.submit(0, move |engine| engine.generation_key(&peer, generation))
    }

    /// Erases an offered block for good: its two ends differ.
    pub fn quarantine(&self, peer: &str, id: [u8; 16], reason: &str) -> Pending<BlockStatus> {
        let (peer, reason) = (peer.to_owned(), reason.to_owned());
        self.shared.submit(reason.len(), move |engine| engine.quarantine(&peer, &id, &reason))
    }

    /// Erases an offered block for good: the other site does not have it, and what it is worth is wasted.
    pub fn abandon(&self, peer: &str, id: [u8; 16], reason: &str) -> Pending<BlockStatus> {
        let (peer, reason) = (peer.to_owned(), reason.to_owned());
        self.shared.submit(reason.len(), move |engine| engine.abandon(&peer, &id, &reason))
    }

    pub fn block_status(&self, peer: &str, id: [u8; 16]) -> Pending<BlockStatus> {
        let peer = peer.to_owned();
        self.shared.submit(0, move |engine| engine.block_status(&peer, &id))
    }

    /// Blocks that wait for a decision, in the order of their identifiers: those behind `after`, at most 1024.
    pub fn offered(&self, peer: &str, after: Option<[u8; 16]>) -> Pending<Vec<OfferedBlock>> {
        let peer = peer.to_owned();
        self.shared.submit(0, move |engine| engine.offered(&peer, after, ITEMS_MAX))
    }

    /// The bytes of a block that waits for a decision: for the MAC that decides it.
    pub fn offered_key(&self, peer: &str, id: [u8; 16]) -> Pending<Secret> {
        let peer = peer.to_owned();
        self.shared.submit(0, move |engine| engine.offered_key(&peer, &id))
    }

    /// Where a part of the stream came from, also when it was handed out long ago.
    pub fn origins(&self, peer: &str, generation: u32, start: u64, bytes: u64) -> Pending<Vec<OriginPiece>> {
        let peer = peer.to_owned();
        self.shared.submit(0, move |engine| engine.origins(&peer, generation, start, bytes))
    }

    // --- grants

    /// Assigns the next range of the stream. The answer is the grant as it stands.
    pub fn grant(&self, peer: &str, grant: Grant) -> Pending<Grant> {
        let peer = peer.to_owned();
        self.shared.submit(0, move |engine| engine.grant(&peer, &grant))
    }

    /// Lets an Out grant be drawn from: its peer has it on its disk.
    pub fn activate_grant(&self, peer: &str, generation: u32, seq: u64) -> Pending<()> {
        let peer = peer.to_owned();
        self.shared.submit(0, move |engine| engine.activate_grant(&peer, generation, seq))
    }

    /// Grants of the current generation from number `seq` on, at most 1024; used-up ones while they are remembered.
    pub fn grants(&self, peer: &str, seq: u64) -> Pending<Vec<Grant>> {
        let peer = peer.to_owned();
        self.shared.submit(0, move |engine| engine.grants(&peer, seq, ITEMS_MAX))
    }

    // --- out

    /// Takes the next `bytes` of a use. Blocks for one commit if the lease has run out.
    pub fn draw(&self, peer: &str, use_: Use, bytes: usize) -> Result<Drawn, StoreError> {
        let mut keys = self.draw_many(peer, use_, bytes, 1)?;
        keys.pop().ok_or(StoreError::Exhausted { asked_bytes: bytes as u64, available_bytes: 0 })
    }

    /// Takes `count` keys or none. Blocks for one commit if the lease has run out.
    pub fn draw_many(&self, peer: &str, use_: Use, bytes_each: usize, count: usize) -> Result<Vec<Drawn>, StoreError> {
        let (pool, lane, face) = self.lane(peer, use_, bytes_each, count)?;
        let mut state = face.lock();
        loop {
            match self.attempt(&mut state, (pool, lane), bytes_each, count)? {
                Some(keys) => return Ok(keys),
                None => state = face.wait(state),
            }
        }
    }

    /// Takes `count` keys if they are on lease. `None`: a lease was asked for, come back.
    pub fn try_draw_many(
        &self,
        peer: &str,
        use_: Use,
        bytes_each: usize,
        count: usize,
    ) -> Result<Option<Vec<Drawn>>, StoreError> {
        let (pool, lane, face) = self.lane(peer, use_, bytes_each, count)?;
        self.attempt(&mut face.lock(), (pool, lane), bytes_each, count)
    }

    /// As [`KeyStore::draw_many`], for a task: waits without holding its thread.
    pub async fn draw_many_async(
        &self,
        peer: &str,
        use_: Use,
        bytes_each: usize,
        count: usize,
    ) -> Result<Vec<Drawn>, StoreError> {
        let (pool, lane, face) = self.lane(peer, use_, bytes_each, count)?;
        loop {
            let change = {
                let mut state = face.lock();
                match self.attempt(&mut state, (pool, lane), bytes_each, count)? {
                    Some(keys) => return Ok(keys),
                    None => state.next_change(),
                }
            };
            // Whatever ended the wait, the next attempt says how things stand.
            let _ = change.await;
        }
    }

    fn lane(
        &self,
        peer: &str,
        use_: Use,
        bytes_each: usize,
        count: usize,
    ) -> Result<(usize, usize, Arc<Face>), StoreError> {
        let lane = use_.lane().ok_or(StoreError::WrongUse { use_ })?;
        let total = bytes_each.saturating_mul(count);
        if total == 0 {
            return Err(StoreError::BadRequest { what: "a request for no bytes" });
        }
        if total > DRAW_BYTES_MAX || count > ITEMS_MAX {
            let max = DRAW_BYTES_MAX as u64;
            return Err(StoreError::Limit { what: "the bytes of a request", max, given: total as u64 });
        }
        let (pool, face) = self.face(peer)?;
        Ok((pool, lane, face))
    }

    fn face(&self, peer: &str) -> Result<(usize, Arc<Face>), StoreError> {
        self.shared.face(peer).ok_or_else(|| StoreError::UnknownPeer { peer: peer.chars().take(64).collect() })
    }

    fn attempt(
        &self,
        state: &mut State,
        (pool, lane): (usize, usize),
        each: usize,
        count: usize,
    ) -> Result<Option<Vec<Drawn>>, StoreError> {
        if let Some(why) = &state.stopped {
            return Err(why.clone());
        }
        if let Some(known) = &state.rolled_back {
            return Err(StoreError::rolled_back(known));
        }
        let generation = state.generation;
        let asked = &mut state.lanes[lane];
        let keys = match asked.take(generation, each, count)? {
            Taken::Keys(keys) => Some(keys),
            Taken::NotLeased { want_bytes } => {
                asked.want_bytes = asked.want_bytes.max(want_bytes);
                self.shared.counts.stalls.fetch_add(1, Relaxed);
                None
            }
        };
        if (keys.is_none() && !asked.requested) || asked.runs_low() {
            asked.requested = true;
            self.shared.ask_for_lease(pool, lane);
        }
        Ok(keys)
    }

    // --- in

    /// Takes ranges of In grants, all or none, each byte once ever. The answer comes when that is on the disk: at once
    /// where keys are fetched fast and their chunk is taken in advance ([`Settings::redeem_in_advance_from`]).
    pub fn redeem(&self, peer: &str, use_: Use, generation: u32, ranges: &[(u64, u64)]) -> Pending<Vec<Secret>> {
        let known = self.shared.face(peer);
        let few = ranges.len() <= ITEMS_MAX;
        if let Some((_, face)) = known.as_ref().filter(|_| few)
            && let Some(keys) = face.lock().redeem_in_advance(use_, generation, ranges)
        {
            return Pending::settled(Ok(keys), &self.shared);
        }
        let number = known.map(|(number, _)| number as u32);
        let readable = number.filter(|_| few && total_bytes(ranges) <= DRAW_BYTES_MAX as u64);
        let ahead = readable.map(|id| self.shared.ahead.read(peer, id, generation, ranges)).unwrap_or_default();
        let (peer, ranges) = (peer.to_owned(), ranges.to_vec());
        let bytes = ranges.len() * 16 + ahead.pieces.iter().map(|piece| piece.key.len()).sum::<usize>();
        self.shared.submit(bytes, move |engine| engine.redeem(&peer, use_, generation, &ranges, ahead))
    }

    /// Takes one range of an In grant, makes offers of its bytes, and keeps them, all in one commit: after a crash
    /// either the range is still there and nothing was made of it, or it is gone and all is there that was offered.
    ///
    /// `vault` names a pool and a block that must not have been offered there: one that was is answered with
    /// [`StoreError::BlockConflict`], and nothing is taken. `make` runs on the writer's thread: memory work only. The
    /// answers to the offers come in their order; the range is taken also where one was refused.
    pub fn redeem_into<T: Send + 'static>(
        &self,
        peer: &str,
        (use_, generation): (Use, u32),
        range: (u64, u64),
        vault: (&str, [u8; 16]),
        make: impl FnOnce(&Secret) -> Made<T> + Send + 'static,
    ) -> Pending<(T, Vec<Result<BlockStatus, StoreError>>)> {
        let (peer, (vault, id)) = (peer.to_owned(), (vault.0.to_owned(), vault.1));
        // What `make` holds to make it of is about as long as the range.
        let bytes = usize::try_from(range.1).unwrap_or(usize::MAX).min(DRAW_BYTES_MAX);
        self.shared
            .submit(bytes, move |engine| engine.redeem_into((&peer, use_, generation), range, (&vault, &id), make))
    }

    // --- deposits

    pub fn deposit(&self, deposit: Deposit) -> Pending<()> {
        self.shared.submit(deposit.key.len() + deposit.origin.len(), move |engine| engine.deposit(&deposit))
    }

    /// Takes deposits for one slave, all or none.
    pub fn take_deposit(
        &self,
        key_ids: &[[u8; 16]],
        slave: &str,
        master: &str,
        now_ms: u64,
    ) -> Pending<Vec<TakenDeposit>> {
        let (key_ids, slave, master) = (key_ids.to_vec(), slave.to_owned(), master.to_owned());
        let bytes = key_ids.len() * 16;
        self.shared.submit(bytes, move |engine| engine.take_deposit(&key_ids, &slave, &master, now_ms))
    }

    // --- life

    /// Erases what is too old at `now_ms`, and tidies up. To be called regularly.
    pub fn expire(&self, now_ms: u64) -> Pending<()> {
        self.shared.submit(0, move |engine| engine.expire(now_ms))
    }

    /// Ends `generation` of a pool: all that is left of it is wasted. Answers with the generation that is current now,
    /// which is a later one at once if that generation had ended before.
    pub fn void_pool(&self, peer: &str, generation: u32, reason: &str) -> Pending<u32> {
        let (peer, reason) = (peer.to_owned(), reason.to_owned());
        self.shared.submit(reason.len(), move |engine| engine.void_pool(&peer, generation, &reason))
    }

    /// Nothing of this pool is handed out or redeemed until its generation ends: a store of one of its sites was put
    /// back. The first word stays.
    pub fn mark_rolled_back(&self, peer: &str, known: RolledBack) -> Pending<()> {
        let peer = peer.to_owned();
        self.shared.submit(0, move |engine| engine.mark_rolled_back(&peer, &known))
    }

    /// Ends the present generation of every pool, and gives up what waits in the store: blocks, deposits, what other
    /// pools hold. It is another store from here on ([`KeyStore::instance_id`] when it is opened again), and was never
    /// put back. For a store whose key may have been used: the peers do the same when they meet it.
    pub fn void_everything(&self, reason: &str) -> Pending<[u8; 16]> {
        let reason = reason.to_owned();
        self.shared.submit(reason.len(), move |engine| engine.void_everything(&reason))
    }

    /// As [`KeyStore::void_pool`], for all generations before `next`, with one commit.
    pub fn void_pool_to(&self, peer: &str, next: u32, reason: &str) -> Pending<u32> {
        let (peer, reason) = (peer.to_owned(), reason.to_owned());
        self.shared.submit(reason.len(), move |engine| engine.void_pool_to(&peer, next, &reason))
    }

    pub fn meta_put(&self, peer: &str, name: &str, value: Secret) -> Pending<()> {
        let (peer, name) = (peer.to_owned(), name.to_owned());
        self.shared.submit(value.len(), move |engine| engine.meta_put(&peer, &name, &value))
    }

    pub fn meta_get(&self, peer: &str, name: &str) -> Pending<Option<Secret>> {
        let (peer, name) = (peer.to_owned(), name.to_owned());
        self.shared.submit(0, move |engine| engine.meta_get(&peer, &name))
    }

    /// Puts the store under another master key; `present` must open it.
    pub fn rotate(&self, present: &MasterKey, new: &MasterKey) -> Pending<()> {
        let (present, new) = (present.clone(), new.clone());
        self.shared.submit(0, move |engine| engine.rotate(&present, &new))
    }

    // --- views

    /// What of a pool may still be handed out or assigned from here, without In grants: of those the other site says
    /// what is left.
    pub fn held(&self, peer: &str) -> Pending<Vec<(u64, u64)>> {
        let peer = peer.to_owned();
        self.shared.submit(0, move |engine| engine.held(&peer))
    }

    /// How much of these ranges (start, bytes) is here and was not handed out, and an HMAC-SHA256 of it with its places:
    /// two sites that hold the same bits for the same have the same digest under the same key.
    pub fn digest(&self, peer: &str, generation: u32, ranges: &[(u64, u64)], key: &Secret) -> Pending<StreamDigest> {
        let (peer, ranges, key) = (peer.to_owned(), ranges.to_vec(), key.clone());
        self.shared.submit(16 * ranges.len(), move |engine| engine.digest(&peer, generation, &ranges, &key))
    }

    /// Peers with a pool, sorted.
    pub fn pools(&self) -> Vec<String> {
        self.shared.peers()
    }

    pub fn levels(&self, peer: &str) -> Result<Levels, StoreError> {
        Ok(self.face(peer)?.1.lock().levels())
    }

    pub fn ledger(&self, peer: &str) -> Result<PoolLedger, StoreError> {
        Ok(self.face(peer)?.1.lock().ledger())
    }

    /// Why nothing of a pool is used, if so.
    pub fn rolled_back(&self, peer: &str) -> Option<RolledBack> {
        self.face(peer).ok()?.1.lock().rolled_back.clone()
    }

    /// How far both sites may have come with a pool, as far as this one knows.
    pub fn standing(&self, peer: &str) -> Result<Standing, StoreError> {
        Ok(self.face(peer)?.1.lock().standing())
    }

    /// The error that keeps the anchor from being raised: what is on lease is then the last that is handed out.
    pub fn anchor_failing(&self) -> Option<String> {
        self.anchor_failing.failing()
    }

    /// Whether the anchor knows all that is on the disk. Asking makes it so, soon.
    pub fn anchor_is_current(&self) -> bool {
        self.anchor_failing.is_current()
    }

    pub fn activity(&self) -> Activity {
        let counts = &self.shared.counts;
        Activity {
            requests: counts.requests.load(Relaxed),
            database_commits: counts.database_commits.load(Relaxed),
            journal_commits: counts.journal_commits.load(Relaxed),
            journal_sync: Duration::from_nanos(counts.journal_sync_ns.load(Relaxed)),
            checkpoints: counts.checkpoints.load(Relaxed),
            leases: counts.leases.load(Relaxed),
            stalls: counts.stalls.load(Relaxed),
        }
    }
}

impl Drop for KeyStore {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "the store did not close cleanly");
        }
    }
}

impl std::fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyStore({} pools)", self.shared.peers().len())
    }
}

fn total_bytes(ranges: &[(u64, u64)]) -> u64 {
    ranges.iter().fold(0, |total, (_, bytes)| total.saturating_add(*bytes))
}

/// The writer: one group after the other, until the store is closed or the disk fails.
fn write_groups(mut engine: Engine, shared: &Arc<Shared>) -> Result<(), StoreError> {
    let _stop = StopAtEnd(shared);
    let gate = engine.gate();
    loop {
        let group = shared.next_group(&gate);
        if let Some(why) = shared.stopped() {
            return Err(why.clone());
        }
        let count = group.requests.len();
        shared.counts.requests.fetch_add(count as u64, Relaxed);
        let (mut answers, mut failed) = (Vec::with_capacity(count), None);
        for request in group.requests {
            let (answer, fatal) = request(&mut engine);
            answers.push(answer);
            failed = fatal;
            if failed.is_some() {
                break;
            }
        }
        let failed = failed.or_else(|| engine.commit(&group.leases, &mut answers).err());
        if let Some(error) = failed {
            tracing::error!(%error, "the store stops");
            shared.stop(&error);
            answers.into_iter().for_each(|answer| answer(Some(&error)));
            return Err(error);
        }
        answers.into_iter().for_each(|answer| answer(None));
        if group.closing {
            return engine.close(&StoreError::Closed);
        }
    }
}

/// However the writer ends, nobody waits for it for ever.
struct StopAtEnd<'a>(&'a Shared);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.stop(&StoreError::Closed);
    }
}
