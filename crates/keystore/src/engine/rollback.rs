//! A store, or one of its parts, that is older than what was done with it.

use std::ops::Bound;

use anchor::{Ceilings, Instance};
use redb::{ReadableTable, WriteTransaction};

use super::{Engine, Pool, store_fact};
use crate::StoreError;
use crate::codec::{Reader, Row};
use crate::crypt::random;
use crate::keeper::{COMMITS, GENERATIONS_MAX, RECORDS, drawn_name, ordinal, place};
use crate::tables::{DEPOSIT_EXPIRY, DEPOSITS, GrantRow, Progress, STORE};
use crate::types::{LEASE_BYTES_MIN, NAME_BYTES_MAX, RolledBack};

/// Least and most by which a ceiling is raised ahead of a lease: an eighth of the pool in between.
const AHEAD_BYTES_MIN: u64 = LEASE_BYTES_MIN;
const AHEAD_BYTES_MAX: u64 = 1 << 20;
/// More than a crash leaves between the mark of a use and its ceiling: two leases that were begun, and what is ahead.
const CHUNK_BYTES: u64 = 4 << 20;

const OLDER_THAN_USED: &str = "its database is older than what was done with it";
const OLDER_THAN_JOURNALS: &str = "its database is older than its journals of redemptions";
const JOURNALS_OLDER: &str = "its journals of redemptions are older than what was redeemed";
/// Fact of the store, and with a peer behind it of one pool.
const FACT: &str = "rolled-back";

/// What the parts of a store show of each other when it is opened.
#[derive(Default)]
pub(super) struct Seen {
    pub progress: Progress,
    /// Records of the present epoch in the journals.
    pub records: u64,
    pub later_epoch: bool,
}

impl Seen {
    /// What shows that a part of the store was put back, if anything does.
    pub fn evidence(&self, ceilings: &Ceilings) -> Option<&'static str> {
        let records = self.progress.records_before + self.records;
        let at_least = |name| ceilings.get(name).copied().unwrap_or(0);
        if self.later_epoch {
            Some(OLDER_THAN_JOURNALS)
        } else if self.progress.commits < at_least(COMMITS) {
            Some(OLDER_THAN_USED)
        } else if records < self.progress.records.max(at_least(RECORDS)) {
            Some(JOURNALS_OLDER)
        } else {
            None
        }
    }
}

impl Pool {
    /// The ceiling for drawing that comes to `end`, no further than what is granted on the disk: no crash leaves a
    /// ceiling beyond that.
    fn reach(&self, end: u64) -> u64 {
        let committed = self.face.lock();
        ordinal(committed.generation, end.min(committed.granted_end))
    }

    fn ahead_bytes(&self, lane: usize) -> u64 {
        let committed = self.face.lock();
        let stored = committed.stream_end - committed.granted_end + committed.lanes[lane].available();
        (stored / 8).clamp(AHEAD_BYTES_MIN, AHEAD_BYTES_MAX)
    }

    pub(super) fn check_usable(&self) -> Result<(), StoreError> {
        match &self.face.lock().rolled_back {
            Some(known) => Err(StoreError::rolled_back(known)),
            None => Ok(()),
        }
    }

    /// Takes what lies below the ceiling of its use out of a grant. What it wastes is counted.
    pub(super) fn rise(&mut self, grant: &mut GrantRow, ceilings: &Ceilings) -> bool {
        let Some(lane) = grant.use_.lane().filter(|_| !grant.done) else { return false };
        let Some(ceiling) = ceilings.get(&drawn_name(&self.peer, lane)) else { return false };
        let (generation, position) = place(*ceiling);
        let mark = position.min(grant.end());
        if generation != self.row.generation || mark <= grant.mark {
            return false;
        }
        self.row.counters.uses[grant.use_.index()].wasted += mark - grant.mark;
        self.row.leased[lane] = self.row.leased[lane].max(mark);
        self.risen_bytes += mark - grant.mark;
        grant.mark = mark;
        true
    }

    /// Whether the ceilings say that more was drawn than this pool knows, and a crash does not explain it.
    fn is_behind(&self, ceilings: &Ceilings) -> bool {
        let beyond = |lane| {
            let (generation, position) = ceilings.get(&drawn_name(&self.peer, lane)).map_or((0, 0), |at| place(*at));
            generation > self.row.generation || (generation == self.row.generation && position > self.row.granted_end)
        };
        beyond(0) || beyond(1) || self.risen_bytes > CHUNK_BYTES
    }
}

impl Engine {
    /// Whether the next lease of a lane may be taken: it ends below its ceiling, which is kept ahead of it.
    pub(super) fn may_lease(&self, pool: usize, lane: usize, end: u64) -> bool {
        let name = drawn_name(&self.pools[pool].peer, lane);
        let (number, pool) = (pool, &self.pools[pool]);
        let ahead = pool.ahead_bytes(lane);
        let allowed = self.keeper.allows(&name, pool.reach(end), pool.reach(end + ahead), (number, lane));
        if allowed {
            self.keeper.raise(&name, pool.reach(end + ahead / 2), pool.reach(end + ahead));
        }
        allowed
    }

    /// Key was granted to be drawn: its first lease is not to wait for a ceiling.
    pub(super) fn raise_ahead(&self, pool: usize) {
        let pool = &self.pools[pool];
        for lane in 0..2 {
            let Some(end) = pool.face.lock().lanes[lane].next_lease_end() else { continue };
            let ahead = pool.ahead_bytes(lane);
            self.keeper.raise(&drawn_name(&pool.peer, lane), pool.reach(end), pool.reach(end + ahead));
        }
    }

    /// The counts that a clean close leaves.
    pub(super) fn counts(&self) -> Ceilings {
        let before = self.before;
        let counts = &self.shared.counts;
        let load = |count: &std::sync::atomic::AtomicU64| count.load(std::sync::atomic::Ordering::Relaxed);
        // Where nothing is counted nothing is kept, either.
        let mut settled = Ceilings::from([
            (COMMITS.to_owned(), before.commits + load(&counts.database_commits)),
            (RECORDS.to_owned(), before.records + load(&counts.journal_commits)),
        ]);
        for pool in &self.pools {
            for (lane, leased) in pool.row.leased.into_iter().enumerate().filter(|(_, leased)| *leased > 0) {
                settled.insert(drawn_name(&pool.peer, lane), ordinal(pool.row.generation, leased));
            }
        }
        settled
    }

    /// Finds out whether the store was put back, now or before, and shows it.
    pub(super) fn examine(&mut self, seen: &Seen) -> Result<(), StoreError> {
        let known = self.look(|_, txn| read_facts(txn))?;
        let mut of_pools = Vec::new();
        for (name, known) in known {
            match name.strip_prefix(FACT).and_then(|rest| rest.strip_prefix('/')) {
                Some(peer) => of_pools.push((peer.to_owned(), known)),
                None => self.rolled_back = Some(known),
            }
        }
        let pools = self.pools.iter().any(|pool| pool.is_behind(&self.ceilings)).then_some(OLDER_THAN_USED);
        let evidence = seen.evidence(&self.ceilings).or(self.replayed_beyond.then_some(OLDER_THAN_JOURNALS)).or(pools);
        if let Some(why) = evidence.filter(|_| self.rolled_back.is_none()) {
            tracing::warn!(why, "the key store was put back: none of its key is handed out. `qkdnet restore` voids it");
            let known = RolledBack { site: String::new(), since_ms: (self.settings.wall_ms)(), why: why.to_owned() };
            self.write(|_, txn| store_fact(txn, FACT, &encode(&known)))?;
            self.rolled_back = Some(known);
        }
        for (peer, known) in of_pools {
            if let Ok(pool) = self.pool_of(&peer) {
                self.pools[pool].face.lock().rolled_back = Some(known);
            }
        }
        if let Some(known) = &self.rolled_back {
            self.pools.iter().for_each(|pool| pool.face.lock().rolled_back = Some(known.clone()));
        }
        Ok(())
    }

    /// Deposits are of no pool: they wait where the whole store was put back.
    pub(super) fn check_deposits_usable(&self) -> Result<(), StoreError> {
        self.rolled_back.as_ref().map_or(Ok(()), |known| Err(StoreError::rolled_back(known)))
    }

    /// Nothing of a pool is used any more: its key may have been. Ends with the generation.
    pub fn mark_rolled_back(&mut self, peer: &str, known: &RolledBack) -> Result<(), StoreError> {
        let longest = known.site.len().max(known.why.len());
        if longest > NAME_BYTES_MAX {
            return Err(super::limit("the length of what shows it", NAME_BYTES_MAX, longest));
        }
        let pool = self.pool_or_new(peer)?;
        if self.pools[pool].face.lock().rolled_back.is_some() {
            return Ok(());
        }
        tracing::warn!(peer, site = known.site, why = known.why, "a key store was put back: the pool is not used");
        // What callers could still take from memory is put back first.
        self.end_advances(pool, |_| true);
        self.write(|_, txn| store_fact(txn, &format!("{FACT}/{peer}"), &encode(known)))?;
        self.news.insert(pool);
        // Before it is on the disk, so that requests are refused meanwhile.
        self.pools[pool].face.lock().rolled_back = Some(known.clone());
        Ok(())
    }

    /// A generation has ended, and with it the doubt about it. That about the whole store stays.
    pub(super) fn clear_rolled_back(&mut self, txn: &WriteTransaction, pool: usize) -> Result<(), StoreError> {
        let pool = &self.pools[pool];
        txn.open_table(STORE)?.remove(format!("{FACT}/{}", pool.peer).as_str())?;
        pool.face.lock().rolled_back = self.rolled_back.clone();
        Ok(())
    }

    /// Gives up all that the store holds, as [`Engine::void_pool`] does, and what waits in it. From here on it is
    /// another store: its peers give the pools up as for one that was lost.
    pub fn void_everything(&mut self, reason: &str) -> Result<[u8; 16], StoreError> {
        let mut instance = [0; 16];
        random(&mut instance)?;
        instance[6] = instance[6] & 0x0f | 0x40;
        instance[8] = instance[8] & 0x3f | 0x80;
        self.checkpoint()?;
        for pool in 0..self.pools.len() {
            let peer = self.pools[pool].peer.clone();
            for block in std::mem::take(&mut self.pools[pool].offered) {
                self.abandon(&peer, &block.to_be_bytes(), reason)?;
            }
            // The generations that it has forgotten end, too.
            let lived = (0..2).filter_map(|lane| self.ceilings.get(&drawn_name(&peer, lane))).map(|at| place(*at).0);
            let newest = lived.max().unwrap_or(0).max(self.pools[pool].row.generation);
            self.begin_generation(pool, newest.saturating_add(1).min(GENERATIONS_MAX - 1))?;
        }
        self.write(|engine, txn| {
            txn.open_table(DEPOSITS)?.retain(|_, _| false)?;
            txn.open_table(DEPOSIT_EXPIRY)?.retain(|_, ()| false)?;
            (engine.deposits, engine.rolled_back) = (0, None);
            engine.deposits_by_master.clear();
            store_fact(txn, "instance", &instance)?;
            txn.open_table(STORE)?.remove(FACT)?;
            Ok(())
        })?;
        for pool in 0..self.pools.len() {
            self.write(|engine, txn| engine.clear_rolled_back(txn, pool))?;
        }
        self.instance = Instance::from_bytes(instance);
        Ok(instance)
    }
}

fn read_facts(txn: &WriteTransaction) -> Result<Vec<(String, RolledBack)>, StoreError> {
    let table = txn.open_table(STORE)?;
    let mut facts = Vec::new();
    for found in table.range::<&str>((Bound::Included(FACT), Bound::Unbounded))? {
        let (name, row) = found?;
        if !name.value().starts_with(FACT) {
            break;
        }
        let mut r = Reader::new(row.value());
        let known = RolledBack { site: r.text()?, since_ms: r.u64()?, why: r.text()? };
        r.end()?;
        facts.push((name.value().to_owned(), known));
    }
    Ok(facts)
}

fn encode(known: &RolledBack) -> Vec<u8> {
    Row::default().bytes(known.site.as_bytes()).u64(known.since_ms).bytes(known.why.as_bytes()).0
}
