//! The writer's side: all durable state, changed by one thread in groups of one transaction.
//!
//! A request changes memory and the open transaction; nothing of it is told to anyone before the commit. So there is
//! no rolling back: a request that must be refused is refused before it changes anything, and if the disk fails the
//! whole store stops.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use redb::{Database, ReadableDatabase, WriteTransaction};

use crate::ahead::{Committed, chunk_at, open_chunk};
use crate::crypt::Sealer;
use anchor::{Ceilings, Instance};

use crate::face::{Face, State};
use crate::journal::Entry;
use crate::journals::{Gate, Journals};
use crate::keeper::{Failing, Keeper};
use crate::lane::{Run, Segment};
use crate::queue::{Answer, Shared};
use crate::tables::{GRANTS, GrantRow, POOLS, Place, PoolRow, Progress, STORE, STREAM};
use crate::taken::TakenMap;
use crate::types::{NAME_BYTES_MAX, POOLS_MAX, RolledBack, Settings};
use crate::{StoreError, Use};

mod advance;
mod blocks;
mod checkpoint;
mod deposits;
mod digest;
mod exchange;
mod expire;
mod grants;
mod lease;
mod meta;
mod open;
mod redeem;
mod rollback;
mod space;

pub(crate) use open::opened;

/// Changes of a lane that callers see once they are on the disk.
#[derive(Default)]
struct LaneNews {
    runs: Vec<Run>,
    segments: Option<Vec<Segment>>,
    wasted: u64,
    /// What was removed before the commit and is counted elsewhere from now on.
    left: u64,
}

/// A pool as the writer knows it.
struct Pool {
    peer: String,
    row: PoolRow,
    face: Arc<Face>,
    /// Grants of which something is left, by number, and their numbers by start.
    grants: BTreeMap<u64, GrantRow>,
    starts: BTreeMap<u64, u64>,
    taken: TakenMap,
    /// Blocks that wait for a decision. To find them in the database their bytes would have to be read.
    offered: BTreeSet<u128>,
    /// In grants that were redeemed from since the last checkpoint, and how much, by use.
    touched_grants: BTreeSet<u64>,
    redeemed_since: [u64; 4],
    left_in: [u64; 4],
    /// Granted and not active, by lane.
    inactive: [u64; 2],
    /// Wasted at opening because it lies below a ceiling.
    risen_bytes: u64,
    news: [LaneNews; 2],
}

pub(crate) struct Engine {
    db: Database,
    txn: Option<WriteTransaction>,
    /// The open transaction changes something.
    wrote: bool,
    /// What is committed, for redemptions; dropped before a transaction begins.
    reader: Option<Arc<Committed>>,
    /// Number of commits of the database.
    commits: u64,
    journals: Journals,
    /// Redemptions of this group.
    entries: Vec<Entry>,
    /// Chunks that were taken in advance since the store was opened, and by pool those of this group.
    advances_made: u64,
    advanced: Vec<(usize, u64)>,
    checkpoint_due: bool,
    instance: Instance,
    keeper: Keeper,
    /// As the anchor had them when the store was opened.
    ceilings: Ceilings,
    /// How often the store had been written to by then.
    before: Progress,
    records_before: u64,
    /// Records that were given to the journals since then.
    appended: u64,
    /// The journals know of bytes that the database does not.
    replayed_beyond: bool,
    /// Grants that begin further on because of a ceiling: pool, number.
    risen: Vec<(usize, u64, GrantRow)>,
    rolled_back: Option<RolledBack>,
    /// Redemptions of this group that somebody asked for: pool, use, end, bytes.
    claims: Vec<(usize, usize, u64, u64)>,
    sealer: Arc<Sealer>,
    settings: Settings,
    shared: Arc<Shared>,
    pools: Vec<Pool>,
    by_peer: HashMap<String, usize>,
    /// Pools whose row is to be written, and pools whose callers have news.
    dirty: BTreeSet<usize>,
    news: BTreeSet<usize>,
    deposits: u64,
    deposits_by_master: HashMap<String, u64>,
}

impl Engine {
    /// Runs `f` in the group's transaction, and keeps what it changes.
    fn write<T>(
        &mut self,
        f: impl FnOnce(&mut Self, &WriteTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.wrote = true;
        self.look(f)
    }

    /// Runs `f`, which changes nothing, on what the group's transaction holds.
    fn look<T>(
        &mut self,
        f: impl FnOnce(&mut Self, &WriteTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let txn = match self.txn.take() {
            Some(txn) => txn,
            None => {
                // A reader would keep pages that this transaction frees.
                self.reader = None;
                self.shared.ahead.set(None);
                self.db.begin_write()?
            }
        };
        let result = f(self, &txn);
        self.txn = Some(txn);
        result
    }

    /// Makes the group durable, then visible. After an error nothing of it may be told.
    ///
    /// `answers` are the group's. If it ends in a journal they are taken: that tells them.
    pub fn commit(&mut self, leases: &BTreeSet<(usize, usize)>, answers: &mut Vec<Answer>) -> Result<(), StoreError> {
        for (pool, lane) in leases {
            self.lease(*pool, *lane)?;
        }
        let journal = self.journals.with_room(self.entries.len());
        self.checkpoint_due |= journal.is_none();
        if self.checkpoint_due {
            self.checkpoint()?;
        }
        self.commit_database()?;
        for pool in std::mem::take(&mut self.news) {
            let granted = self.pools[pool].news.iter().any(|news| !news.runs.is_empty());
            self.pools[pool].publish();
            if granted {
                self.raise_ahead(pool);
            }
        }
        if self.entries.is_empty() {
            self.claim();
        }
        if let Some(journal) = journal.filter(|_| !self.entries.is_empty()) {
            let mut answers_in_order = self.announcements();
            self.appended += 1;
            answers_in_order.append(answers);
            self.journals.append(journal, &self.entries, &self.sealer, answers_in_order);
            self.entries.clear();
        }
        Ok(())
    }

    /// For callers to see whether the anchor is raised.
    pub fn anchor_failing(&self) -> Failing {
        self.keeper.watch()
    }

    /// For the writer to wait with until a journal is free.
    pub fn gate(&self) -> Gate {
        self.journals.gate()
    }

    /// The stream as it is committed.
    fn committed(&mut self) -> Result<Arc<Committed>, StoreError> {
        if let Some(reader) = &self.reader {
            return Ok(Arc::clone(reader));
        }
        let stream = self.db.begin_read()?.open_table(STREAM)?;
        let reader = Arc::new(Committed { stream, sealer: Arc::clone(&self.sealer), commits: self.commits });
        self.shared.ahead.set(Some(Arc::clone(&reader)));
        self.reader = Some(Arc::clone(&reader));
        Ok(reader)
    }

    fn commit_database(&mut self) -> Result<(), StoreError> {
        let Some(txn) = self.txn.take() else { return Ok(()) };
        if !std::mem::take(&mut self.wrote) {
            return Ok(txn.abort()?);
        }
        {
            let mut table = txn.open_table(POOLS)?;
            for pool in std::mem::take(&mut self.dirty) {
                let pool = &self.pools[pool];
                table.insert(pool.peer.as_str(), pool.durable_row().encode().as_slice())?;
            }
        }
        store_fact(&txn, "progress", &self.progress().encode())?;
        txn.commit()?;
        let checkpoint = self.checkpoint_due;
        (self.settings.at_step)(if checkpoint { "store.checkpointed" } else { "store.committed" });
        self.commits += 1;
        self.shared.counts.database_commits.fetch_add(1, Relaxed);
        if std::mem::take(&mut self.checkpoint_due) {
            self.records_before = self.before.records + self.appended;
            self.journals.restart(self.journals.epoch() + 1);
        }
        Ok(())
    }

    /// How often the store is written to with this commit.
    fn progress(&self) -> Progress {
        let counts = &self.shared.counts;
        let records = self.before.records + counts.journal_commits.load(Relaxed);
        // Without an anchor nothing is counted: a look at a store that was put back must not hide that.
        let commits = if self.settings.anchor.keeps() { counts.database_commits.load(Relaxed) + 1 } else { 0 };
        Progress {
            commits: self.before.commits + commits,
            // A checkpoint holds what the journals were given, written or not.
            records_before: if self.checkpoint_due { self.before.records + self.appended } else { self.records_before },
            records: if self.checkpoint_due { self.before.records + self.appended } else { records },
        }
    }

    /// Marks a pool as changed: its row is written, its callers get the news.
    fn change(&mut self, pool: usize) -> &mut Pool {
        self.dirty.insert(pool);
        self.news.insert(pool);
        &mut self.pools[pool]
    }

    fn pool_of(&self, peer: &str) -> Result<usize, StoreError> {
        self.by_peer.get(peer).copied().ok_or_else(|| StoreError::UnknownPeer { peer: peer.chars().take(64).collect() })
    }

    fn pool_or_new(&mut self, peer: &str) -> Result<usize, StoreError> {
        if let Some(pool) = self.by_peer.get(peer) {
            return Ok(*pool);
        }
        if peer.is_empty() || peer.len() > NAME_BYTES_MAX {
            return Err(limit("the length of a peer's name", NAME_BYTES_MAX, peer.len()));
        }
        if self.pools.len() >= POOLS_MAX {
            return Err(limit("the number of pools", POOLS_MAX, self.pools.len() + 1));
        }
        let row = PoolRow { id: self.pools.len() as u32, ..PoolRow::default() };
        self.add_pool(Pool::new(peer, row, self.settings.lease_bytes));
        let pool = self.pools.len() - 1;
        self.write(|_, _| Ok(()))?;
        self.change(pool);
        Ok(pool)
    }

    fn add_pool(&mut self, pool: Pool) {
        let number = self.pools.len();
        pool.face.lock().rolled_back = self.rolled_back.clone();
        self.by_peer.insert(pool.peer.clone(), number);
        self.shared.add_face(&pool.peer, number, Arc::clone(&pool.face));
        self.pools.push(pool);
    }

    /// Gives leases back and writes everything: the store can be opened again without loss.
    pub fn close(mut self, why: &StoreError) -> Result<(), StoreError> {
        for number in 0..self.pools.len() {
            self.give_back_leases(number, why)?;
        }
        self.checkpoint_due = true;
        let committed = self.commit(&BTreeSet::new(), &mut Vec::new());
        // One that was put back must be found so by every later start.
        let settled = self.rolled_back.is_none().then(|| (self.instance, self.counts()));
        let Self { db, journals, reader, shared, keeper, .. } = self;
        drop(reader);
        shared.ahead.set(None);
        db.close().map_err(|error| StoreError::io("close the database", &error))?;
        journals.close()?;
        keeper.end(settled.filter(|_| committed.is_ok()));
        committed
    }
}

impl Pool {
    fn new(peer: &str, row: PoolRow, lease_bytes: u64) -> Self {
        let mut state = State::default();
        state.lanes.iter_mut().for_each(|lane| lane.lease_bytes = lease_bytes);
        Self {
            peer: peer.to_owned(),
            row,
            face: Arc::new(Face::new(state)),
            grants: BTreeMap::new(),
            starts: BTreeMap::new(),
            taken: TakenMap::new(),
            offered: BTreeSet::new(),
            touched_grants: BTreeSet::new(),
            redeemed_since: [0; 4],
            left_in: [0; 4],
            inactive: [0; 2],
            risen_bytes: 0,
            news: [LaneNews::default(), LaneNews::default()],
        }
    }

    /// The row as the disk must hold it: redemptions as of the last checkpoint (the journal has the others), draws as
    /// of now.
    fn durable_row(&self) -> PoolRow {
        let state = self.face.lock();
        let mut row = self.row;
        row.drawn = state.lanes.each_ref().map(|lane| lane.drawn_end);
        row.redeemed = state.redeemed_end;
        for use_ in Use::ALL {
            let index = use_.index();
            let counted = &mut row.counters.uses[index];
            match use_.lane() {
                None => counted.handed_out -= self.redeemed_since[index],
                Some(lane) => {
                    counted.handed_out = state.lanes[lane].handed_out;
                    counted.wasted = state.lanes[lane].wasted + self.news[lane].wasted;
                    row.on_lease[index] = state.lanes[lane].on_lease();
                }
            }
        }
        row
    }

    /// Shows callers what is on the disk now.
    fn publish(&mut self) {
        let mut state = self.face.lock();
        state.generation = self.row.generation;
        (state.stream_end, state.granted_end) = (self.row.stream_end, self.row.granted_end);
        state.next_seq = self.row.next_seq;
        state.counters = self.row.counters;
        state.left_in = self.left_in;
        for (index, news) in self.news.iter_mut().enumerate() {
            let news = std::mem::take(news);
            let lane = &mut state.lanes[index];
            lane.wasted += news.wasted;
            lane.leaving_bytes -= news.left;
            lane.inactive_bytes = self.inactive[index];
            news.runs.into_iter().for_each(|run| lane.add_run(run));
            if let Some(segments) = news.segments {
                lane.finish_lease(segments);
            }
        }
        self.face.announce(&mut state);
    }

    /// Ends a grant of which nothing is left.
    fn finish_grant(&mut self, seq: u64) -> Option<GrantRow> {
        let mut grant = self.grants.remove(&seq)?;
        self.starts.remove(&grant.start);
        grant.done = true;
        Some(grant)
    }
}

fn limit(what: &'static str, max: usize, given: usize) -> StoreError {
    StoreError::Limit { what, max: max as u64, given: given as u64 }
}

/// Deletes the records of the stream that lie within `from..to`. Whole: chunks do not cross the borders of a grant.
fn erase_stream(txn: &WriteTransaction, (id, generation, from): Place, to: u64) -> Result<(), StoreError> {
    let mut table = txn.open_table(STREAM)?;
    table.retain_in((id, generation, from)..(id, generation, to), |(_, _, start), sealed| {
        start + sealed.len().saturating_sub(crate::crypt::SEAL_BYTES) as u64 > to
    })?;
    Ok(())
}

/// Writes a grant, or forgets it if it is done and long past.
fn put_grant(txn: &WriteTransaction, row: &PoolRow, seq: u64, grant: &GrantRow) -> Result<(), StoreError> {
    let mut table = txn.open_table(GRANTS)?;
    let place = (row.id, row.generation, seq);
    if grant.done && seq + crate::types::GRANTS_REMEMBERED < row.next_seq {
        table.remove(place)?;
    } else {
        table.insert(place, grant.encode().as_slice())?;
    }
    Ok(())
}

fn store_fact(txn: &WriteTransaction, name: &str, value: &[u8]) -> Result<(), StoreError> {
    txn.open_table(STORE)?.insert(name, value)?;
    Ok(())
}
