//! The journal of redemptions: what was consumed since the last checkpoint, one record and one fsync per group.
//!
//! A commit of the database costs about twice the fsync that it needs (pages are copied up to the root), too much for
//! a redemption. So a group of redemptions is one record here: keyed digest, epoch, number, ranges. The file has its
//! full length from the start, so that a sync has no metadata to write. A checkpoint writes the maps of taken bytes to
//! the database together with the next epoch, and the journal starts over; records of an older epoch mean nothing.
//!
//! The record that a crash tore is the last one: nobody was told of it. A record that does not read, with a readable
//! one of the same epoch behind it, is damage and is refused.

use std::sync::Arc;

use subtle::ConstantTimeEq;

use crate::StoreError;
use crate::codec::{Reader, Row};
use crate::crypt::Sealer;
use crate::media::Backend;

/// Records start at multiples of this.
const ALIGN_BYTES: u64 = 16;
/// Read at once while the tail is searched.
const WINDOW_BYTES: u64 = 64 << 10;
const DIGEST_BYTES: usize = 16;
const HEADER_BYTES: usize = DIGEST_BYTES + 8 + 8 + 4;
const ENTRY_BYTES: usize = 4 + 4 + 8 + 4;

/// A range of a pool's stream that was redeemed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub pool: u32,
    pub generation: u32,
    pub start: u64,
    pub bytes: u32,
    /// Taken before anybody asked for it ([`crate::advance`]).
    pub in_advance: bool,
}

/// In the length of a range that was taken in advance. Ranges are shorter than this.
const IN_ADVANCE: u32 = 1 << 31;

pub(crate) struct Journal {
    file: Backend,
    length: u64,
    epoch: u64,
    next_number: u64,
    offset: u64,
}

/// What a journal held when it was opened.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    pub entries: Vec<Entry>,
    pub records: u64,
    /// A record of this epoch was begun and not finished.
    pub torn: bool,
    /// An epoch after this one: the database is older than the journal.
    pub later_epoch: Option<u64>,
}

impl Journal {
    /// Makes the file: zeros to its full length, on the disk.
    pub fn create(file: Backend, length: u64, epoch: u64) -> Result<Self, StoreError> {
        let zeros = vec![0; 64 << 10];
        file.set_len(length).map_err(|error| failed("create the journal", error))?;
        for offset in (0..length).step_by(zeros.len()) {
            let bytes = (length - offset).min(zeros.len() as u64) as usize;
            file.write(offset, &zeros[..bytes]).map_err(|error| failed("create the journal", error))?;
        }
        file.sync_data().map_err(|error| failed("create the journal", error))?;
        Ok(Self { file, length, epoch, next_number: 0, offset: 0 })
    }

    /// Reads what was written under `epoch`.
    pub fn open(file: Backend, epoch: u64, sealer: &Sealer) -> Result<(Self, Replay), StoreError> {
        let length = file.len().map_err(|error| failed("read the journal", error))?;
        if length < (8 << 10) {
            return Err(StoreError::corrupt("the journal of redemptions is missing or cut off"));
        }
        let mut journal = Self { file, length, epoch, next_number: 0, offset: 0 };
        let mut replay = Replay::default();
        while let Some((number, mut entries, bytes)) = journal.read_record(journal.offset, sealer)? {
            if number != journal.next_number {
                return Err(StoreError::corrupt("a record of the journal is missing"));
            }
            replay.entries.append(&mut entries);
            journal.next_number += 1;
            journal.offset += bytes;
        }
        replay.records = journal.next_number;
        replay.torn = journal.check_tail(sealer)?;
        if replay.records == 0 {
            replay.later_epoch = journal.later_epoch(sealer)?;
        }
        Ok((journal, replay))
    }

    /// Whether a record was begun behind the last whole one. A whole one further behind is damage in between.
    fn check_tail(&self, sealer: &Sealer) -> Result<bool, StoreError> {
        let epoch = self.epoch.to_le_bytes();
        let (mut torn, mut window) = (false, vec![0; WINDOW_BYTES as usize]);
        for begin in (self.offset..self.length).step_by((WINDOW_BYTES - ALIGN_BYTES) as usize) {
            let bytes = (self.length - begin).min(WINDOW_BYTES) as usize;
            self.file.read(begin, &mut window[..bytes]).map_err(|error| failed("read the journal", error))?;
            // The epoch stands in the second sixteen bytes of a record.
            for (step, pair) in window[..bytes].chunks_exact(ALIGN_BYTES as usize).skip(1).enumerate() {
                let offset = begin + step as u64 * ALIGN_BYTES;
                if !pair.starts_with(&epoch) {
                    continue;
                }
                torn |= offset == self.offset;
                let found = self.read_record(offset, sealer)?;
                if found.is_some_and(|(number, ..)| number >= self.next_number) {
                    return Err(StoreError::corrupt("a record in the middle of the journal does not read"));
                }
            }
        }
        Ok(torn)
    }

    /// The epoch of the first record, where it is a whole one and later than this journal's.
    fn later_epoch(&self, sealer: &Sealer) -> Result<Option<u64>, StoreError> {
        let mut header = [0; HEADER_BYTES];
        self.file.read(0, &mut header).map_err(|error| failed("read the journal", error))?;
        let epoch = Reader::new(&header[DIGEST_BYTES..]).u64()?;
        let found = if epoch > self.epoch { self.read_record_of(epoch, 0, sealer)? } else { None };
        Ok(found.map(|_| epoch))
    }

    /// The record at `offset`: number, entries, length. `None` if there is no whole one of this epoch.
    fn read_record(&self, offset: u64, sealer: &Sealer) -> Result<Option<Read>, StoreError> {
        self.read_record_of(self.epoch, offset, sealer)
    }

    fn read_record_of(&self, wanted: u64, offset: u64, sealer: &Sealer) -> Result<Option<Read>, StoreError> {
        let mut header = [0; HEADER_BYTES];
        if offset + HEADER_BYTES as u64 > self.length {
            return Ok(None);
        }
        self.file.read(offset, &mut header).map_err(|error| failed("read the journal", error))?;
        let mut reader = Reader::new(&header[DIGEST_BYTES..]);
        let (epoch, number, count) = (reader.u64()?, reader.u64()?, reader.u32()? as usize);
        let bytes = count.saturating_mul(ENTRY_BYTES).saturating_add(HEADER_BYTES);
        if epoch != wanted || offset.saturating_add(bytes as u64) > self.length {
            return Ok(None);
        }
        let mut record = vec![0; bytes];
        self.file.read(offset, &mut record).map_err(|error| failed("read the journal", error))?;
        let (digest, body) = record.split_at(DIGEST_BYTES);
        if !bool::from(sealer.digest(&[body])[..DIGEST_BYTES].ct_eq(digest)) {
            return Ok(None);
        }
        let mut reader = Reader::new(&record[HEADER_BYTES..]);
        let entry = |_| {
            let (pool, generation, start, bytes) = (reader.u32()?, reader.u32()?, reader.u64()?, reader.u32()?);
            let in_advance = bytes & IN_ADVANCE != 0;
            Ok(Entry { pool, generation, start, bytes: bytes & !IN_ADVANCE, in_advance })
        };
        let entries = (0..count).map(entry).collect::<Result<_, StoreError>>()?;
        Ok(Some((number, entries, record_bytes(count))))
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether a record of this many ranges still fits.
    pub fn has_room(&self, entries: usize) -> bool {
        self.offset + record_bytes(entries) <= self.length
    }

    /// The next record, for its place in the file.
    pub fn next_record(&mut self, entries: &[Entry], sealer: &Sealer) -> Record {
        let mut body = Row::default().u64(self.epoch).u64(self.next_number).u32(entries.len() as u32);
        for entry in entries {
            let bytes = if entry.in_advance { entry.bytes | IN_ADVANCE } else { entry.bytes };
            body = body.u32(entry.pool).u32(entry.generation).u64(entry.start).u32(bytes);
        }
        let digest = sealer.digest(&[&body.0]);
        let mut bytes = Row::default().raw(&digest[..DIGEST_BYTES]).raw(&body.0).0;
        bytes.resize(record_bytes(entries.len()) as usize, 0);
        let record = Record { file: Arc::clone(&self.file), offset: self.offset, bytes };
        self.offset += record.bytes.len() as u64;
        self.next_number += 1;
        record
    }

    /// Starts over, once the database holds `epoch` and everything of the one before.
    pub fn restart(&mut self, epoch: u64) {
        (self.epoch, self.next_number, self.offset) = (epoch, 0, 0);
    }

    pub fn close(&self) -> Result<(), StoreError> {
        self.file.close().map_err(|error| failed("close the journal", error))
    }
}

/// A record on its way to the disk.
pub(crate) struct Record {
    file: Backend,
    offset: u64,
    bytes: Vec<u8>,
}

impl Record {
    /// Returns once the record is on the disk. One record of a journal at a time: a later one on the disk says that
    /// those before it are.
    pub fn write(&self) -> Result<(), StoreError> {
        self.file.write(self.offset, &self.bytes).map_err(|error| failed("write the journal", error))?;
        self.file.sync_data().map_err(|error| failed("sync the journal", error))
    }
}

fn failed(doing: &'static str, error: impl std::fmt::Display) -> StoreError {
    StoreError::io(doing, &error)
}

fn record_bytes(entries: usize) -> u64 {
    ((HEADER_BYTES + entries * ENTRY_BYTES) as u64).next_multiple_of(ALIGN_BYTES)
}

type Read = (u64, Vec<Entry>, u64);

#[cfg(test)]
mod tests {
    use super::*;
    use redb::StorageBackend;
    use redb::backends::InMemoryBackend;

    #[derive(Clone, Debug, Default)]
    struct Shared(Arc<InMemoryBackend>);

    impl StorageBackend for Shared {
        fn len(&self) -> Result<u64, std::io::Error> {
            self.0.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
            self.0.read(offset, out)
        }
        fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
            self.0.set_len(len)
        }
        fn sync_data(&self) -> Result<(), std::io::Error> {
            Ok(())
        }
        fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
            self.0.write(offset, data)
        }
    }

    fn entries(first: u64) -> Vec<Entry> {
        let entry = |start| Entry { pool: 1, generation: 2, start, bytes: 32, in_advance: start % 2 == 1 };
        (first..first + 5).map(entry).collect()
    }

    fn written(sealer: &Sealer) -> Shared {
        let file = Shared::default();
        let mut journal = Journal::create(Arc::new(file.clone()), 16 << 10, 9).unwrap();
        for record in 0..3 {
            journal.next_record(&entries(record * 10), sealer).write().unwrap();
        }
        file
    }

    #[test]
    fn what_was_appended_is_read_back_under_its_epoch_only() {
        let sealer = Sealer::new(&[1; 32]).unwrap();
        let file = written(&sealer);
        let (_, replay) = Journal::open(Arc::new(file.clone()), 9, &sealer).unwrap();
        assert_eq!(replay.entries, [entries(0), entries(10), entries(20)].concat());
        assert!(!replay.torn);
        let (_, replay) = Journal::open(Arc::new(file), 10, &sealer).unwrap();
        assert!(replay.entries.is_empty() && !replay.torn);
    }

    #[test]
    fn a_torn_last_record_is_dropped_and_a_damaged_one_before_it_is_refused() {
        let sealer = Sealer::new(&[1; 32]).unwrap();
        let bytes = record_bytes(5);
        let file = written(&sealer);
        file.write(2 * bytes + 40, &[0xff]).unwrap();
        let (_, replay) = Journal::open(Arc::new(file.clone()), 9, &sealer).unwrap();
        assert_eq!(replay.entries, [entries(0), entries(10)].concat());
        assert!(replay.torn);
        let file = written(&sealer);
        file.write(bytes + 40, &[0xff]).unwrap();
        assert!(matches!(Journal::open(Arc::new(file), 9, &sealer), Err(StoreError::Corrupt { .. })));
    }
}
