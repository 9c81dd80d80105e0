//! Opening: format, keys, pools, journal; what a crash left behind is settled before anything is served.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend, TableError};
use zeroize::Zeroizing;

use anchor::Instance;

use super::rollback::Seen;
use super::{Engine, Pool, chunk_at, erase_stream, put_grant, store_fact};
use crate::crypt::{SEAL_BYTES, Sealer, random};
use crate::journal::Journal;
use crate::journals::Journals;
use crate::keeper::{Keeper, anchor_error};
use crate::master::MasterKey;
use crate::media::{Backend, Media};
use crate::queue::Shared;
use crate::tables::{
    BLOCKS, DECIDED, DEPOSIT_EXPIRY, DEPOSITS, DepositRow, FORMAT, FORMAT_OLDEST, GRANTS, GrantRow, LEASED_UNKNOWN,
    META, OFFERED, ORIGINS, POOLS, PoolRow, Progress, STORE, STREAM, TAKEN,
};
use crate::taken::Chunk;
use crate::types::Settings;
use crate::{StoreError, Use};

/// Facts that a store is made with.
struct Facts {
    instance: [u8; 16],
    data_key: Zeroizing<[u8; 32]>,
    epoch: u64,
    progress: Progress,
    /// Of an earlier version.
    old: bool,
}

/// A store ready to serve, and its instance identifier.
pub(crate) fn opened<D: StorageBackend, J: StorageBackend>(
    media: Media<D, J>,
    master: &MasterKey,
    settings: &Settings,
    shared: &Arc<Shared>,
) -> Result<(Engine, [u8; 16]), StoreError> {
    settings.check()?;
    let mut builder = Builder::new();
    builder.set_cache_size(settings.cache_bytes).set_check_integrity_on_open(true);
    let bytes = media.database.len().map_err(|error| StoreError::io("read the length of the database", &error))?;
    let mut db = builder.create_with_backend(media.database).map_err(database_error)?;
    let files = media.journals.map(|journal| -> Backend { Arc::new(journal) });
    let known = facts(&db, master)?;
    let mut replayed = Vec::new();
    let (mut torn, mut records, mut later_epoch) = (false, 0, None);
    let (facts, sealer, journals) = match known {
        Some(facts) => {
            super::space::give_back(&mut db, bytes)?;
            let sealer = Sealer::new(&facts.data_key)?;
            let journals = files.map(|file| {
                let (journal, mut replay) = Journal::open(file, facts.epoch, &sealer)?;
                replayed.append(&mut replay.entries);
                torn |= replay.torn;
                records += replay.records;
                later_epoch = later_epoch.max(replay.later_epoch);
                Ok(journal)
            });
            (facts, sealer, journals)
        }
        None => {
            let journals = files.map(|file| Journal::create(file, settings.journal_bytes, 1));
            // Before the database says that this is a store.
            if let Some(error) = journals.iter().find_map(|journal| journal.as_ref().err()) {
                return Err(error.clone());
            }
            let facts = make(&db, master)?;
            let sealer = Sealer::new(&facts.data_key)?;
            (facts, sealer, journals)
        }
    };
    let [first, second] = journals;
    let mut journals = Journals::start([first?, second?], shared, settings.at_step)?;
    if let Some(later) = later_epoch {
        // What is there of later epochs must never be taken for what is written from here on.
        journals.restart(later);
    }
    let instance = Instance::from_bytes(facts.instance);
    let ceilings = settings.anchor.read(instance).map_err(|error| anchor_error(&error))?.unwrap_or_default();
    let seen = Seen { progress: facts.progress, records, later_epoch: later_epoch.is_some() };
    let total = facts.progress.records_before + records;
    // A part that was put back must not make the counts fall.
    let before = Progress { records: total.max(facts.progress.records), ..facts.progress };
    let anchored = (settings.anchor.clone(), instance);
    let keeper = Keeper::start(anchored, settings.anchor_period, ceilings.clone(), before, shared)?;
    if torn {
        tracing::warn!("the last record of a journal was not written to its end and is left out");
    }
    let mut engine = Engine {
        db,
        txn: None,
        wrote: false,
        reader: None,
        commits: 0,
        journals,
        entries: Vec::new(),
        advances_made: 0,
        advanced: Vec::new(),
        checkpoint_due: true,
        instance,
        keeper,
        ceilings,
        before,
        records_before: facts.progress.records_before,
        appended: 0,
        replayed_beyond: false,
        risen: Vec::new(),
        rolled_back: None,
        claims: Vec::new(),
        sealer: Arc::new(sealer),
        settings: settings.clone(),
        shared: Arc::clone(shared),
        pools: Vec::new(),
        by_peer: HashMap::new(),
        dirty: BTreeSet::new(),
        news: BTreeSet::new(),
        deposits: 0,
        deposits_by_master: HashMap::new(),
    };
    if facts.old {
        tracing::info!(format = FORMAT, "the store is taken to the format of this version");
        engine.write(|_, txn| store_fact(txn, "format", &FORMAT.to_le_bytes()))?;
    }
    engine.load()?;
    engine.replay(replayed)?;
    engine.examine(&seen)?;
    engine.settle_crash()?;
    engine.commit(&BTreeSet::new(), &mut Vec::new())?;
    Ok((engine, facts.instance))
}

fn database_error(error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path: "keys.redb".into() },
        DatabaseError::Storage(error) => error.into(),
        other => StoreError::io("open the database", &other),
    }
}

fn facts(db: &Database, master: &MasterKey) -> Result<Option<Facts>, StoreError> {
    let txn = db.begin_read()?;
    let table = match txn.open_table(STORE) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) if txn.list_tables()?.next().is_none() => return Ok(None),
        Err(TableError::Storage(error)) => return Err(error.into()),
        Err(_) => return Err(StoreError::corrupt("the database is not a key store")),
    };
    let fact = |name: &str| -> Result<Vec<u8>, StoreError> {
        let value = table.get(name)?.ok_or_else(|| StoreError::corrupt("a fact of the store is missing"))?;
        Ok(value.value().to_vec())
    };
    let found = u32::from_le_bytes(exact(&fact("format")?)?);
    if !(FORMAT_OLDEST..=FORMAT).contains(&found) {
        return Err(StoreError::UnsupportedFormat { found, supported: FORMAT });
    }
    // Formats before 4 have none.
    let progress = table.get("progress")?.map(|row| Progress::decode(row.value())).transpose()?.unwrap_or_default();
    Ok(Some(Facts {
        progress,
        instance: exact(&fact("instance")?)?,
        data_key: master.unwrap_key(&fact("data_key")?)?,
        epoch: u64::from_le_bytes(exact(&fact("journal_epoch")?)?),
        old: found != FORMAT,
    }))
}

fn exact<const N: usize>(value: &[u8]) -> Result<[u8; N], StoreError> {
    value.try_into().map_err(|_| StoreError::corrupt("a fact of the store has the wrong length"))
}

/// Writes a new store: all tables, so that none is found missing later. The journal is on the disk by now.
fn make(db: &Database, master: &MasterKey) -> Result<Facts, StoreError> {
    let mut facts = Facts {
        instance: [0; 16],
        data_key: Zeroizing::new([0; 32]),
        epoch: 1,
        progress: Progress::default(),
        old: false,
    };
    random(&mut facts.instance)?;
    // A random UUID, version 4.
    facts.instance[6] = facts.instance[6] & 0x0f | 0x40;
    facts.instance[8] = facts.instance[8] & 0x3f | 0x80;
    random(&mut *facts.data_key)?;
    let txn = db.begin_write()?;
    store_fact(&txn, "format", &FORMAT.to_le_bytes())?;
    store_fact(&txn, "instance", &facts.instance)?;
    store_fact(&txn, "data_key", &master.wrap(&facts.data_key)?)?;
    store_fact(&txn, "journal_epoch", &facts.epoch.to_le_bytes())?;
    txn.open_table(POOLS)?;
    txn.open_table(BLOCKS)?;
    txn.open_table(OFFERED)?;
    txn.open_table(DECIDED)?;
    for table in [STREAM, TAKEN, GRANTS, ORIGINS] {
        txn.open_table(table)?;
    }
    txn.open_table(META)?;
    txn.open_table(DEPOSITS)?;
    txn.open_table(DEPOSIT_EXPIRY)?;
    txn.commit()?;
    Ok(facts)
}

impl Engine {
    fn load(&mut self) -> Result<(), StoreError> {
        let txn = self.db.begin_read()?;
        for found in txn.open_table(DEPOSITS)?.iter()? {
            let row = DepositRow::decode(found?.1.value())?;
            self.deposits += 1;
            *self.deposits_by_master.entry(row.master).or_default() += 1;
        }
        let mut pools = BTreeMap::new();
        for found in txn.open_table(POOLS)?.iter()? {
            let (peer, row) = found?;
            let row = PoolRow::decode(row.value())?;
            if row.granted_end > row.stream_end || row.decided_first > row.decided_next {
                return Err(StoreError::corrupt("the row of a pool contradicts itself"));
            }
            let pool = Pool::new(peer.value(), row, self.settings.lease_bytes);
            if pools.insert(row.id, pool).is_some() {
                return Err(StoreError::corrupt("two pools have one number"));
            }
        }
        let (grants, taken, stream) = (txn.open_table(GRANTS)?, txn.open_table(TAKEN)?, txn.open_table(STREAM)?);
        let offered = txn.open_table(OFFERED)?;
        for (number, (id, mut pool)) in pools.into_iter().enumerate() {
            if id as usize != number {
                return Err(StoreError::corrupt("a pool is missing"));
            }
            let generation = pool.row.generation;
            let all = (id, generation, 0)..=(id, generation, u64::MAX);
            for found in offered.range((id, 0)..=(id, u128::MAX))? {
                pool.offered.insert(found?.0.value().1);
            }
            let unknown = pool.row.leased == [LEASED_UNKNOWN; 2];
            if unknown {
                pool.row.leased = [0; 2];
            }
            for found in grants.range(all.clone())? {
                let (place, grant) = found?;
                let mut row = GrantRow::decode(grant.value())?;
                if let Some(lane) = row.use_.lane().filter(|_| unknown && row.mark > row.start) {
                    pool.row.leased[lane] = pool.row.leased[lane].max(row.mark);
                }
                if pool.rise(&mut row, &self.ceilings) {
                    self.risen.push((id as usize, place.value().2, row));
                }
                pool.load_grant(place.value().2, row);
            }
            for found in taken.range(all)? {
                let (place, map) = found?;
                let start = place.value().2;
                let chunk = chunk_at(&stream, place.value())?.filter(|(at, _)| *at == start);
                let (_, sealed) = chunk.ok_or_else(|| StoreError::corrupt("a map of taken bytes has no chunk"))?;
                pool.taken.insert(start, Chunk::decode(sealed.len() - SEAL_BYTES, map.value())?);
            }
            self.add_pool(pool);
        }
        Ok(())
    }

    /// Wastes what was on lease when the store stopped without giving it back, and erases it.
    fn settle_crash(&mut self) -> Result<(), StoreError> {
        for (pool, seq, grant) in std::mem::take(&mut self.risen) {
            let row = self.pools[pool].row;
            tracing::warn!(peer = self.pools[pool].peer, "key below the ceiling of its use counts as used");
            self.write(|_, txn| put_grant(txn, &row, seq, &grant))?;
        }
        for number in 0..self.pools.len() {
            self.write(|engine, txn| {
                let pool = engine.change(number);
                let row = &mut pool.row;
                let mut state = pool.face.lock();
                for use_ in Use::ALL {
                    let Some(lane) = use_.lane() else { continue };
                    let counted = &mut row.counters.uses[use_.index()];
                    let lost = std::mem::take(&mut row.on_lease[use_.index()]);
                    if lost > 0 {
                        tracing::warn!(peer = pool.peer, wasted_bytes = lost, "a lease was lost");
                    }
                    counted.wasted += lost;
                    state.lanes[lane].handed_out = counted.handed_out;
                    state.lanes[lane].wasted = counted.wasted;
                    state.lanes[lane].drawn_end = row.drawn[lane];
                    state.lanes[lane].drawn_end_most = row.leased[lane];
                }
                for (use_, lane) in [(Use::SupplyIn, 0), (Use::RelayIn, 1)] {
                    state.redeemed_end[lane] = state.redeemed_end[lane].max(row.redeemed[lane]);
                    state.redeemed_bytes += row.counters.uses[use_.index()].handed_out;
                }
                drop(state);
                let row = pool.row;
                let drawn = pool.grants.iter().filter(|(_, grant)| grant.use_.is_out() && grant.mark > grant.start);
                let drawn: Vec<(u64, GrantRow)> = drawn.map(|(seq, grant)| (*seq, *grant)).collect();
                for (seq, grant) in drawn {
                    erase_stream(txn, (row.id, row.generation, grant.start), grant.mark)?;
                    if grant.mark == grant.end()
                        && let Some(done) = pool.finish_grant(seq)
                    {
                        put_grant(txn, &row, seq, &done)?;
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

impl Pool {
    fn load_grant(&mut self, seq: u64, grant: GrantRow) {
        if grant.done {
            return;
        }
        self.grants.insert(seq, grant);
        self.starts.insert(grant.start, seq);
        match grant.use_.lane() {
            None => self.left_in[grant.use_.index()] += grant.bytes - grant.taken,
            Some(lane) if !grant.active => self.inactive[lane] += grant.left_to_draw(),
            Some(lane) if grant.mark < grant.end() => self.news[lane].runs.push(super::grants::run(seq, &grant)),
            Some(_) => {}
        }
    }
}
