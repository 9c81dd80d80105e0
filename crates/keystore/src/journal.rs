//! The journal of redemptions: what was consumed since the last checkpoint, one record and one fsync per group.
//!
//! A commit of the database costs about twice the fsync that it needs (pages are copied up to the root), too much for
//! a redemption. So a group of redemptions is one record here: keyed digest, epoch, number, ranges. The file has its
//! full length from the start, so that a sync has no metadata to write. A checkpoint writes the maps of taken bytes to
//! the database together with the next epoch, and the journal starts over; records of an older epoch mean nothing.
//!
//! The record that a crash tore is the last one: nobody was told of it. A record that does not read, with a readable
//! one of the same epoch behind it, is damage and is refused.

use crate::codec::{Reader, Row};
use crate::crypt::Sealer;
use crate::media::Backend;
use crate::{Secret, StoreError};

/// Records start at multiples of this.
const ALIGN_BYTES: u64 = 16;
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
}

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
    /// A record of this epoch was begun and not finished.
    pub torn: bool,
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
        let mut content = vec![0; usize::try_from(length).map_err(|_| StoreError::corrupt("the journal is too long"))?];
        file.read(0, &mut content).map_err(|error| failed("read the journal", error))?;
        let mut journal = Self { file, length, epoch, next_number: 0, offset: 0 };
        let mut replay = Replay::default();
        while let Some((number, mut entries, bytes)) = read_record(&content, journal.offset, epoch, sealer)? {
            if number != journal.next_number {
                return Err(StoreError::corrupt("a record of the journal is missing"));
            }
            replay.entries.append(&mut entries);
            journal.next_number += 1;
            journal.offset += bytes;
        }
        let tail = usize::try_from(journal.offset).unwrap_or(content.len()).min(content.len());
        replay.torn = content[tail..].get(DIGEST_BYTES..DIGEST_BYTES + 8) == Some(&epoch.to_le_bytes()[..]);
        let mut offset = journal.offset + ALIGN_BYTES;
        while offset < length {
            if read_record(&content, offset, epoch, sealer)?.is_some_and(|(number, ..)| number >= journal.next_number) {
                return Err(StoreError::corrupt("a record in the middle of the journal does not read"));
            }
            offset += ALIGN_BYTES;
        }
        Ok((journal, replay))
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether a record of so many ranges still fits.
    pub fn has_room(&self, entries: usize) -> bool {
        self.offset + record_bytes(entries) <= self.length
    }

    /// Writes and syncs one record.
    pub fn append(&mut self, entries: &[Entry], sealer: &Sealer) -> Result<(), StoreError> {
        let mut body = Row::default().u64(self.epoch).u64(self.next_number).u32(entries.len() as u32);
        for entry in entries {
            body = body.u32(entry.pool).u32(entry.generation).u64(entry.start).u32(entry.bytes);
        }
        let digest = sealer.digest(&[&body.0]);
        let mut record = Row::default().raw(&digest[..DIGEST_BYTES]).raw(&body.0).0;
        record.resize(record_bytes(entries.len()) as usize, 0);
        self.file.write(self.offset, &record).map_err(|error| failed("write the journal", error))?;
        self.file.sync_data().map_err(|error| failed("sync the journal", error))?;
        self.offset += record.len() as u64;
        self.next_number += 1;
        Ok(())
    }

    /// Starts over, once the database holds `epoch` and everything of the one before.
    pub fn restart(&mut self, epoch: u64) {
        (self.epoch, self.next_number, self.offset) = (epoch, 0, 0);
    }

    pub fn close(self) -> Result<(), StoreError> {
        self.file.close().map_err(|error| failed("close the journal", error))
    }
}

fn failed(doing: &'static str, error: impl std::fmt::Display) -> StoreError {
    StoreError::io(doing, &error)
}

fn record_bytes(entries: usize) -> u64 {
    ((HEADER_BYTES + entries * ENTRY_BYTES) as u64).next_multiple_of(ALIGN_BYTES)
}

type Record = (u64, Vec<Entry>, u64);

/// The record at `offset`: number, entries, length. `None` if there is no whole one of this epoch.
fn read_record(content: &[u8], offset: u64, epoch: u64, sealer: &Sealer) -> Result<Option<Record>, StoreError> {
    let Some(record) = usize::try_from(offset).ok().and_then(|offset| content.get(offset..)) else { return Ok(None) };
    if record.len() < HEADER_BYTES || record[DIGEST_BYTES..DIGEST_BYTES + 8] != epoch.to_le_bytes() {
        return Ok(None);
    }
    let mut header = Reader::new(&record[DIGEST_BYTES + 8..HEADER_BYTES]);
    let (number, count) = (header.u64()?, header.u32()? as usize);
    let Some(body) = count.checked_mul(ENTRY_BYTES).and_then(|bytes| record.get(DIGEST_BYTES..HEADER_BYTES + bytes))
    else {
        return Ok(None);
    };
    let digest = sealer.digest(&[body]);
    if Secret::copy_of(&digest[..DIGEST_BYTES]) != Secret::copy_of(&record[..DIGEST_BYTES]) {
        return Ok(None);
    }
    let mut reader = Reader::new(&body[HEADER_BYTES - DIGEST_BYTES..]);
    let entry =
        |_| Ok(Entry { pool: reader.u32()?, generation: reader.u32()?, start: reader.u64()?, bytes: reader.u32()? });
    let entries = (0..count).map(entry).collect::<Result<_, StoreError>>()?;
    Ok(Some((number, entries, record_bytes(count))))
}

#[cfg(test)]
mod tests {
    use redb::StorageBackend;
    use redb::backends::InMemoryBackend;
    use std::sync::Arc;

    use super::*;

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
        (first..first + 5).map(|start| Entry { pool: 1, generation: 2, start, bytes: 32 }).collect()
    }

    fn written(sealer: &Sealer) -> Shared {
        let file = Shared::default();
        let mut journal = Journal::create(Box::new(file.clone()), 16 << 10, 9).unwrap();
        for record in 0..3 {
            journal.append(&entries(record * 10), sealer).unwrap();
        }
        file
    }

    #[test]
    fn what_was_appended_is_read_back_under_its_epoch_only() {
        let sealer = Sealer::new(&[1; 32]).unwrap();
        let file = written(&sealer);
        let (_, replay) = Journal::open(Box::new(file.clone()), 9, &sealer).unwrap();
        assert_eq!(replay.entries, [entries(0), entries(10), entries(20)].concat());
        assert!(!replay.torn);
        let (_, replay) = Journal::open(Box::new(file), 10, &sealer).unwrap();
        assert!(replay.entries.is_empty() && !replay.torn);
    }

    #[test]
    fn a_torn_last_record_is_dropped_and_a_damaged_one_before_it_is_refused() {
        let sealer = Sealer::new(&[1; 32]).unwrap();
        let bytes = record_bytes(5);
        let file = written(&sealer);
        file.write(2 * bytes + 40, &[0xff]).unwrap();
        let (_, replay) = Journal::open(Box::new(file.clone()), 9, &sealer).unwrap();
        assert_eq!(replay.entries, [entries(0), entries(10)].concat());
        assert!(replay.torn);
        let file = written(&sealer);
        file.write(bytes + 40, &[0xff]).unwrap();
        assert!(matches!(Journal::open(Box::new(file), 9, &sealer), Err(StoreError::Corrupt { .. })));
    }
}
