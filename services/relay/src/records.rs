//! What a relay has on its disk: the records of the state machine, and what was completed. No key, no payload.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anchor::{Anchor, AnchorError, Ceilings, Instance};
use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction};
use shell::disk::{Backend, Disk};
use transfer::{CompletedTransfer, Record, RecordKey};

/// Completed transfers that are remembered.
pub const COMPLETED_MAX: u64 = 100_000;
/// Most that one page lists.
pub const PAGE_MAX: usize = 1000;
const FORMAT: u64 = 1;
const CACHE_BYTES: usize = 1 << 20;

const FACTS: TableDefinition<'_, &str, u64> = TableDefinition::new("facts");
/// Counts that the records were written to; also the name of its ceiling.
const WRITES: &str = "writes";
/// Since when it is known that the records were put back, in milliseconds since 1970.
const ROLLED_BACK: &str = "rolled-back-since-ms";
const IDENTITY: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("identity");
const INSTANCE: &str = "instance";
const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");
const COMPLETED: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("completed");

/// The relay's disk cannot be relied on, and the service ends.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("use {}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{} is in use by another process", path.display())]
    InUse { path: PathBuf },
    #[error("format {found} of the relay's records is not one this version reads ({FORMAT})")]
    Format { found: u64 },
    #[error("the relay's records are damaged: {0}")]
    Damaged(String),
    #[error("use the relay's records: {0}")]
    Database(Box<redb::Error>),
    #[error("the ceiling of the relay's records: {0}")]
    Anchor(#[from] AnchorError),
}

macro_rules! from_redb {
    ($($kind:ty),*) => {$(
        impl From<$kind> for RecordError {
            fn from(error: $kind) -> Self {
                Self::Database(Box::new(error.into()))
            }
        }
    )*};
}
from_redb!(redb::StorageError, redb::TableError, redb::TransactionError, redb::CommitError, redb::DatabaseError);

impl From<serde_json::Error> for RecordError {
    fn from(error: serde_json::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// The folder of a site's relay.
pub fn folder(data: &Path, site: &str) -> PathBuf {
    data.join(site).join("relay")
}

fn file(data: &Path, site: &str) -> PathBuf {
    folder(data, site).join("records.redb")
}

/// What is to be written; all of it or nothing, in this order.
#[derive(Default)]
pub struct Batch {
    pub changes: Vec<Change>,
    pub completed: Vec<CompletedTransfer>,
}

pub enum Change {
    Put(Record),
    Forget(RecordKey),
}

impl Change {
    fn key(&self) -> RecordKey {
        match self {
            Self::Put(record) => record.key(),
            Self::Forget(key) => *key,
        }
    }
}

/// The records of one site. Calls block for the disk.
#[derive(Clone)]
pub struct Records {
    database: Arc<Database>,
    instance: Instance,
    /// Their count, as far as it is on the disk.
    writes: Arc<AtomicU64>,
    /// They were written to since then.
    uncounted: Arc<AtomicBool>,
}

impl Records {
    /// Opens the records of a site, or makes them.
    pub fn open(data: &Path, site: &str, disk: Disk) -> Result<Self, RecordError> {
        let (folder, path) = (folder(data, site), file(data, site));
        let failed = |source| RecordError::File { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let opened = options.open(&path).map_err(failed)?;
        std::fs::File::open(&folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE_BYTES);
        let backend = Backend::new(FileBackend::new(opened)?, disk);
        let database = builder.create_with_backend(backend).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => RecordError::InUse { path: path.clone() },
            other => other.into(),
        })?;
        let txn = database.begin_write()?;
        {
            let mut facts = txn.open_table(FACTS)?;
            let found = facts.get("format")?.map(|found| found.value());
            match found {
                None => drop(facts.insert("format", FORMAT)?),
                Some(FORMAT) => {}
                Some(found) => return Err(RecordError::Format { found }),
            }
            txn.open_table(RECORDS)?;
            txn.open_table(COMPLETED)?;
        }
        let drawn = Instance::draw().map_err(failed)?;
        let instance = {
            let mut identity = txn.open_table(IDENTITY)?;
            let known = identity.get(INSTANCE)?.map(|known| known.value().to_vec());
            match known {
                Some(known) => Instance::from_bytes(known.try_into().map_err(|_| no_identity())?),
                None => {
                    identity.insert(INSTANCE, drawn.bytes().as_slice())?;
                    drawn
                }
            }
        };
        let writes = counted(&txn)?;
        txn.commit()?;
        let (writes, uncounted) = (Arc::new(AtomicU64::new(writes)), Arc::default());
        Ok(Self { database: Arc::new(database), instance, writes, uncounted })
    }

    fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Looks whether the records are older than what was done with them. Then what they say of transfers under way may
    /// have been decided since, and is forgotten: the other sites, and the key stores, know better. Gives since when it
    /// is known that they were put back, until they are closed. Blocks while `anchor` is asked.
    pub fn examine(&self, anchor: &dyn Anchor, now_ms: u64) -> Result<Option<u64>, RecordError> {
        let ceiling = self.ceiling(anchor)?;
        if self.writes() >= ceiling {
            let txn = self.database.begin_read()?;
            return Ok(txn.open_table(FACTS)?.get(ROLLED_BACK)?.map(|since_ms| since_ms.value()));
        }
        self.commit_counted(ceiling, |txn| {
            txn.open_table(RECORDS)?.retain(|key, _| key == bytes(&RecordKey::Incarnation))?;
            txn.open_table(FACTS)?.insert(ROLLED_BACK, now_ms)?;
            Ok(())
        })?;
        Ok(Some(now_ms))
    }

    fn ceiling(&self, anchor: &dyn Anchor) -> Result<u64, RecordError> {
        Ok(anchor.read(self.instance)?.and_then(|ceilings| ceilings.get(WRITES).copied()).unwrap_or(0))
    }

    /// Counts what was written since the last call: once for all of it, as each count costs a page of the commit. Tells
    /// an anchor that knows of less, and gives what it knows. Blocks until it is kept.
    pub fn raise(&self, anchor: &dyn Anchor, known: u64) -> Result<u64, RecordError> {
        if self.uncounted.load(Ordering::Relaxed) {
            self.commit_counted(0, |_| Ok(()))?;
        }
        let writes = self.writes();
        if writes > known {
            anchor.raise(self.instance, &ceiling(writes))?;
        }
        Ok(writes)
    }

    /// The last that is done with them: it was told that they were put back, if they were. Blocks for disk and anchor.
    pub fn close(&self, anchor: &dyn Anchor) -> Result<(), RecordError> {
        self.commit_counted(0, |txn| {
            txn.open_table(FACTS)?.remove(ROLLED_BACK)?;
            Ok(())
        })?;
        Ok(anchor.settle(self.instance, &ceiling(self.writes()))?)
    }

    /// Durable, and counted beyond `beyond`, when it returns.
    fn commit_counted(
        &self,
        beyond: u64,
        change: impl FnOnce(&WriteTransaction) -> Result<(), RecordError>,
    ) -> Result<(), RecordError> {
        let txn = self.database.begin_write()?;
        // There is one transaction at a time: what is marked after this is not part of this one.
        let uncounted = self.uncounted.swap(false, Ordering::Relaxed);
        let written = count(&txn, beyond).and_then(|writes| change(&txn).map(|()| writes));
        match written.and_then(|writes| Ok(txn.commit().map(|()| writes)?)) {
            Ok(writes) => {
                self.writes.fetch_max(writes, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => {
                self.uncounted.fetch_or(uncounted, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    /// Everything that the state machine goes on from.
    pub fn load(&self) -> Result<Vec<Record>, RecordError> {
        let txn = self.database.begin_read()?;
        let table = txn.open_table(RECORDS)?;
        let mut records = Vec::new();
        for row in table.iter()? {
            records.push(serde_json::from_slice(row?.1.value())?);
        }
        Ok(records)
    }

    /// Durable when it returns.
    pub fn write(&self, batch: &Batch) -> Result<(), RecordError> {
        let txn = self.database.begin_write()?;
        self.uncounted.store(true, Ordering::Relaxed);
        {
            let mut records = txn.open_table(RECORDS)?;
            // Of several changes of a record the last one counts.
            let last: BTreeMap<RecordKey, &Change> =
                batch.changes.iter().map(|change| (change.key(), change)).collect();
            for change in last.into_values() {
                match change {
                    Change::Put(record) => {
                        records.insert(bytes(&record.key()).as_slice(), serde_json::to_vec(record)?.as_slice())?;
                    }
                    Change::Forget(key) => drop(records.remove(bytes(key).as_slice())?),
                }
            }
        }
        complete(&txn, &batch.completed)?;
        Ok(txn.commit()?)
    }

    /// Completed transfers from number `first` on, at most `limit` of them, with their numbers.
    pub fn page(&self, first: u64, limit: usize) -> Result<Vec<(u64, CompletedTransfer)>, RecordError> {
        let txn = self.database.begin_read()?;
        let table = match txn.open_table(COMPLETED) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            table => table?,
        };
        let mut page = Vec::new();
        for row in table.range(first..)?.take(limit.min(PAGE_MAX)) {
            let (number, completed) = row?;
            page.push((number.value(), serde_json::from_slice(completed.value())?));
        }
        Ok(page)
    }
}

/// Notes completed transfers, and forgets the oldest beyond what is remembered.
fn complete(txn: &WriteTransaction, completed: &[CompletedTransfer]) -> Result<(), RecordError> {
    if completed.is_empty() {
        return Ok(());
    }
    let mut table = txn.open_table(COMPLETED)?;
    let mut next = table.last()?.map_or(0, |(number, _)| number.value() + 1);
    for completed in completed {
        table.insert(next, serde_json::to_vec(completed)?.as_slice())?;
        next += 1;
    }
    let first = table.first()?.map_or(next, |(number, _)| number.value());
    for oldest in first..next.saturating_sub(COMPLETED_MAX).max(first) {
        table.remove(oldest)?;
    }
    Ok(())
}

fn ceiling(writes: u64) -> Ceilings {
    [(WRITES.to_owned(), writes)].into()
}

fn counted(txn: &WriteTransaction) -> Result<u64, RecordError> {
    Ok(txn.open_table(FACTS)?.get(WRITES)?.map_or(0, |writes| writes.value()))
}

fn count(txn: &WriteTransaction, beyond: u64) -> Result<u64, RecordError> {
    let mut facts = txn.open_table(FACTS)?;
    let writes = facts.get(WRITES)?.map_or(0, |writes| writes.value()).max(beyond) + 1;
    facts.insert(WRITES, writes)?;
    Ok(writes)
}

fn no_identity() -> RecordError {
    RecordError::Damaged("their identity has not as many bytes as one has".to_owned())
}

/// One byte that says the kind, then the identity.
fn bytes(key: &RecordKey) -> Vec<u8> {
    match key {
        RecordKey::Incarnation => vec![0],
        RecordKey::Outgoing(group) => [&[1], group.0.as_slice()].concat(),
        RecordKey::Incoming(transfer) => [&[2], transfer.0.as_slice()].concat(),
    }
}

/// The transfers that a site knows to be completed, oldest first, read while its relay does not run. Nothing where it
/// never ran.
pub fn completed(data: &Path, site: &str) -> Result<Vec<CompletedTransfer>, RecordError> {
    if !file(data, site).exists() {
        return Ok(Vec::new());
    }
    let records = Records::open(data, site, Disk::default())?;
    let mut all = Vec::new();
    let mut first = 0;
    loop {
        let page = records.page(first, PAGE_MAX)?;
        let Some((last, _)) = page.last() else { return Ok(all) };
        first = last + 1;
        all.extend(page.into_iter().map(|(_, completed)| completed));
    }
}

/// Makes the records of a relay that were put back from a copy safe: what was under way is forgotten, and it goes on as
/// another life of the relay. The relay must not run. Nothing where it never did.
pub fn void_restored(data: &Path, site: &str, anchor: &dyn Anchor) -> Result<(), RecordError> {
    if !file(data, site).exists() {
        return Ok(());
    }
    let records = Records::open(data, site, Disk::default())?;
    // Beyond the ceiling, so that all that was there before is behind it.
    records.commit_counted(records.ceiling(anchor)?, |txn| {
        txn.open_table(RECORDS)?.retain(|_, _| false)?;
        txn.open_table(FACTS)?.remove(ROLLED_BACK)?;
        Ok(())
    })?;
    Ok(anchor.settle(records.instance, &ceiling(records.writes()))?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use transfer::{Path as Way, SiteName, TransferId};

    use super::*;

    fn done(number: u64) -> CompletedTransfer {
        let sites = ["a", "b", "c"].map(|site| SiteName::parse(site).unwrap());
        let transfer = TransferId(u128::from(number).to_be_bytes());
        CompletedTransfer {
            transfer,
            group: transfer,
            share: 0,
            of: 1,
            origin: sites[0].clone(),
            target: sites[2].clone(),
            path: Way::new(sites.to_vec()).unwrap(),
            bytes: 4096,
        }
    }

    #[test]
    fn what_was_written_is_there_after_a_restart_and_what_was_forgotten_is_not() {
        let data = tempfile::tempdir().unwrap();
        let records = Records::open(data.path(), "a", Disk::default()).unwrap();
        assert!(matches!(Records::open(data.path(), "a", Disk::default()), Err(RecordError::InUse { .. })));
        let batch = Batch { changes: vec![Change::Put(Record::Incarnation(7))], completed: vec![done(1), done(2)] };
        records.write(&batch).unwrap();
        drop(records);
        let records = Records::open(data.path(), "a", Disk::default()).unwrap();
        assert_eq!(records.load().unwrap(), [Record::Incarnation(7)]);
        assert_eq!(records.page(1, 10).unwrap(), [(1, done(2))]);
        let changes = vec![Change::Forget(RecordKey::Incarnation)];
        records.write(&Batch { changes, ..Batch::default() }).unwrap();
        assert_eq!(records.load().unwrap(), []);
        drop(records);
        assert_eq!(completed(data.path(), "a").unwrap(), [done(1), done(2)]);
        assert_eq!(completed(data.path(), "b").unwrap(), []);
    }

    #[test]
    fn records_that_are_put_back_are_noticed_and_what_was_under_way_is_forgotten() {
        let data = tempfile::tempdir().unwrap();
        let (anchor, path) = (anchor::MemoryAnchor::default(), file(data.path(), "a"));
        let open = || Records::open(data.path(), "a", Disk::default()).unwrap();
        let carrying = Record::Incoming(transfer::IncomingRecord {
            header: transfer::Header {
                transfer: TransferId([3; 16]),
                group: TransferId([3; 16]),
                share: 0,
                of: 1,
                bytes: 64,
                path: done(1).path,
                hop: 1,
            },
            stage: transfer::IncomingStage::Forwarded,
            since_ms: 5,
        });
        let changes = || vec![Change::Put(Record::Incarnation(7)), Change::Put(carrying.clone())];
        let records = open();
        assert_eq!(records.examine(&anchor, 100).unwrap(), None);
        records.write(&Batch { changes: changes(), ..Batch::default() }).unwrap();
        assert_eq!(records.raise(&anchor, 0).unwrap(), 1);
        assert_eq!(records.raise(&anchor, 1).unwrap(), 1, "nothing was written since");
        drop(records);
        // A crash, and a clean close.
        let records = open();
        assert_eq!((records.examine(&anchor, 200).unwrap(), records.load().unwrap().len()), (None, 2));
        records.close(&anchor).unwrap();
        drop(records);
        let copy = std::fs::read(&path).unwrap();
        let records = open();
        assert_eq!(records.examine(&anchor, 300).unwrap(), None);
        records.write(&Batch { completed: vec![done(1)], ..Batch::default() }).unwrap();
        records.close(&anchor).unwrap();
        drop(records);

        std::fs::write(&path, copy).unwrap();
        let records = open();
        assert_eq!(records.examine(&anchor, 400).unwrap(), Some(400));
        assert_eq!(records.load().unwrap(), [Record::Incarnation(7)], "what was under way");
        drop(records);
        // It is told until a life has ended that could tell it.
        let records = open();
        assert_eq!(records.examine(&anchor, 500).unwrap(), Some(400));
        records.close(&anchor).unwrap();
        drop(records);
        assert_eq!(open().examine(&anchor, 600).unwrap(), None);
        // What was there before it was voided is older, too.
        let copy = std::fs::read(&path).unwrap();
        void_restored(data.path(), "a", &anchor).unwrap();
        assert_eq!(open().examine(&anchor, 700).unwrap(), None);
        std::fs::write(&path, copy).unwrap();
        assert_eq!(open().examine(&anchor, 800).unwrap(), Some(800));
    }

    #[test]
    fn the_oldest_completed_transfers_are_forgotten_first() {
        let data = tempfile::tempdir().unwrap();
        let records = Records::open(data.path(), "a", Disk::default()).unwrap();
        for start in (0..COMPLETED_MAX + 10).step_by(10_000) {
            let completed = (start..(start + 10_000).min(COMPLETED_MAX + 10)).map(done).collect();
            records.write(&Batch { completed, ..Batch::default() }).unwrap();
        }
        assert_eq!(records.page(0, 1).unwrap(), [(10, done(10))]);
        drop(records);
        assert_eq!(completed(data.path(), "a").unwrap().len() as u64, COMPLETED_MAX);
    }
}
