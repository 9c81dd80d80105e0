//! What else a link end has in its block file: key that waits, sealed, and numbers that are counted.
//!
//! Key stands before the record of its block and is written with it, so that one sync is enough for both. It is
//! overwritten in its place once it waits no longer; the space comes back when the file is rewritten
//! ([`BlockStore::retire`]).

use std::os::unix::fs::FileExt;

use shell::log::Pending;
use zeroize::Zeroizing;

use super::record::{DIGEST_BYTES, Format, HEADER_BYTES, Header, KEY_BITS_MAX, Kind, TRAILER_BYTES};
use super::{BlockState, BlockStore, NewBlock, StoreError, at, encode, encode_with};
use crate::waiting::Part;

/// A number of a link end; the last one that was written counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Count {
    /// First epoch that is not leased.
    Leased = 1,
    /// First block that the key store has not said to be durable there.
    Delivered = 2,
    /// How often a block has left for the key store.
    Departed = 3,
}

impl Count {
    pub(super) fn from_number(number: u64) -> Option<Self> {
        [Self::Leased, Self::Delivered, Self::Departed].into_iter().find(|count| *count as u64 == number)
    }
}

/// Key that waits as it is on the disk.
#[derive(Clone, Debug)]
pub struct Sealed {
    pub part: Part,
    pub block: u64,
    pub session: u64,
    /// Bits of what is sealed.
    pub bits: u64,
    pub content: Vec<u8>,
}

/// Where key that waits is.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub offset: u64,
    pub header: Header,
    /// Overwritten, also where a crash came before all of it was.
    erased: bool,
}

/// Records that are written at once.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    records: Vec<(Header, [u8; DIGEST_BYTES], u64)>,
}

impl Batch {
    fn add(&mut self, header: Header, digest: [u8; DIGEST_BYTES], record: &[u8]) {
        self.records.push((header, digest, self.bytes.len() as u64));
        self.bytes.extend_from_slice(record);
    }
}

impl Sealed {
    /// Its record; nothing where it is none that can be kept.
    pub(super) fn record(&self, sequence: u64) -> Option<(Header, Zeroizing<Vec<u8>>)> {
        let own_bytes = (self.content.len() as u64).checked_sub(self.bits.div_ceil(8))?;
        let header = Header {
            kind: match self.part {
                Part::Key => Kind::Key,
                Part::Slice => Kind::Slice,
            },
            sequence,
            block: self.block,
            session: self.session,
            key_bits: self.bits,
            ledger_bytes: u32::try_from(own_bytes).ok()?,
            trace_bytes: 0,
        };
        let kept = self.bits <= KEY_BITS_MAX && header.ledger_bytes as usize <= super::record::LEDGER_BYTES_MAX;
        kept.then(|| (header, encode_with(&header, &self.content, "", "")))
    }
}

impl BlockStore {
    /// Puts a block on the disk, undecided or as part of the key, with what waits of it and with what is counted.
    pub fn put(
        &mut self,
        state: BlockState,
        block: &NewBlock<'_>,
        sealed: &[Sealed],
        counts: &[(Count, u64)],
    ) -> Result<Pending, StoreError> {
        self.expect_new(block.number)?;
        let kind = match state {
            BlockState::Prepared => Kind::Prepared,
            BlockState::Committed => Kind::Stored,
            BlockState::Aborted if block.key.is_empty() => Kind::Aborted,
            BlockState::Aborted => {
                return Err(StoreError::Order { block: block.number, what: "is aborted and must not bring key" });
            }
            BlockState::Voided => return Err(StoreError::Order { block: block.number, what: "was never prepared" }),
        };
        self.write_records(Some((kind, block)), sealed, counts)
    }

    /// Makes a prepared block part of the key, as [`commit`](Self::commit), and does not wait for the disk.
    pub fn commit_later(&mut self, block: u64) -> Result<Option<Pending>, StoreError> {
        match self.state(block) {
            Some(BlockState::Prepared) => self.decide(Kind::Committed, block).map(Some),
            Some(BlockState::Committed) => Ok(None),
            Some(_) => Err(StoreError::Order { block, what: "was voided and cannot be committed" }),
            None => Err(StoreError::Order { block, what: "was never prepared" }),
        }
    }

    /// Keeps key that waits.
    pub fn keep(&mut self, sealed: Sealed) -> Result<Pending, StoreError> {
        self.write_records(None, &[sealed], &[])
    }

    /// Counts on.
    pub fn count(&mut self, what: Count, number: u64) -> Result<Pending, StoreError> {
        self.write_records(None, &[], &[(what, number)])
    }

    pub fn counted(&self, what: Count) -> Option<u64> {
        self.counts.get(&what).copied()
    }

    /// Key that waits, as it is on the disk.
    pub fn sealed(&self, part: Part, block: u64) -> Result<Option<Sealed>, StoreError> {
        let Some(place) = self.parts.get(&(part, block)).filter(|place| !place.erased) else { return Ok(None) };
        let Header { session, key_bits: bits, .. } = place.header;
        let mut content = vec![0; place.header.body_bytes(Format::Digest)];
        let begin = place.offset + HEADER_BYTES as u64;
        self.log.file().read_exact_at(&mut content, begin).map_err(at("read", &self.path))?;
        Ok(Some(Sealed { part, block, session, bits, content }))
    }

    /// First block that the key store has not said to be durable there. Key of a block that counts is erased after it
    /// has said so alone, and a loss of power may keep that and not the count.
    pub fn delivered(&self) -> u64 {
        let erased = self.parts.iter().filter(|((part, _), place)| *part == Part::Key && place.erased);
        let of_key = erased.filter(|((_, block), _)| self.state(*block) == Some(BlockState::Committed));
        let next = of_key.map(|((_, block), _)| block + 1).max().unwrap_or(0);
        next.max(self.counted(Count::Delivered).unwrap_or(0))
    }

    /// What waits, of which block.
    pub fn parts(&self) -> impl Iterator<Item = (Part, u64)> + '_ {
        self.parts.iter().filter(|(_, place)| !place.erased).map(|(of, _)| *of)
    }

    /// Overwrites what waited; nothing to do where it does not. That is on the disk with the next sync.
    pub fn erase(&mut self, part: Part, block: u64) -> Result<(), StoreError> {
        let Some(place) = self.parts.get_mut(&(part, block)).filter(|place| !place.erased) else { return Ok(()) };
        let (begin, bytes) = (place.offset + HEADER_BYTES as u64, place.header.body_bytes(Format::Digest) as u64);
        place.erased = true;
        self.erased_bytes += bytes;
        self.log.erase(begin, bytes).map_err(at("erase", &self.path))?.later();
        Ok(())
    }

    /// Waits for all that was written.
    pub fn pending(&self) -> Pending {
        self.log.pending()
    }

    pub(super) fn write_records(
        &mut self,
        block: Option<(Kind, &NewBlock<'_>)>,
        sealed: &[Sealed],
        counts: &[(Count, u64)],
    ) -> Result<Pending, StoreError> {
        if self.log.broken().is_some() || !self.writable {
            return Err(StoreError::Poisoned { path: self.path.clone() });
        }
        if self.format == Format::Key {
            return Err(StoreError::Old { path: self.path.clone() });
        }
        let mut batch = Batch::default();
        let next = |batch: &Batch| self.sequence + batch.records.len() as u64;
        for sealed in sealed {
            let too_large = StoreError::TooLarge { block: sealed.block, what: "sealed key" };
            let (header, record) = sealed.record(next(&batch)).ok_or(too_large)?;
            batch.add(header, [0; DIGEST_BYTES], &record);
        }
        if let Some((kind, block)) = block {
            let header = block.header(kind, next(&batch))?;
            let kept = header.key_bytes(self.format) > 0;
            let digest = if kept { super::digest_of(block.key) } else { [0; DIGEST_BYTES] };
            batch.add(header, digest, &encode(&header, &digest, block.ledger, block.trace_id));
        }
        for (what, number) in counts {
            let header = count_header(*what, *number, next(&batch));
            batch.add(header, [0; DIGEST_BYTES], &encode_with(&header, &[], "", ""));
        }
        let begin = self.log.end();
        let pending = self.log.append(&batch.bytes).map_err(at("write", &self.path))?;
        for (header, digest, offset) in batch.records {
            self.enter(header, digest, begin + offset);
        }
        Ok(pending)
    }

    /// Takes a count into the index.
    pub(super) fn enter_count(&mut self, header: Header, offset: u64) {
        let Some(what) = Count::from_number(header.session) else { return };
        self.counts.insert(what, header.block);
        if what == Count::Departed {
            self.departed_at = offset;
        }
    }

    /// Takes key that waits into the index, which may have been erased since.
    pub(super) fn enter_part(&mut self, part: Part, header: Header, offset: u64) {
        let before = self.parts.insert((part, header.block), Place { offset, header, erased: false });
        if let Some(before) = before.filter(|before| !before.erased) {
            self.erased_bytes += before.header.body_bytes(Format::Digest) as u64;
        }
    }

    /// Finds out, after the file was read, what of it was erased before.
    pub(super) fn find_erased(&mut self) -> Result<(), StoreError> {
        for place in self.parts.values_mut() {
            let bytes = place.header.body_bytes(Format::Digest);
            let mut begin = vec![0; bytes.min(ERASED_SIGN_BYTES)];
            let offset = place.offset + HEADER_BYTES as u64;
            self.log.file().read_exact_at(&mut begin, offset).map_err(at("read", &self.path))?;
            place.erased = begin.iter().all(|byte| *byte == 0);
            self.erased_bytes += if place.erased { bytes as u64 } else { 0 };
        }
        Ok(())
    }

    /// Where the last block begins, if a loss of power kept its key from the disk and not its record. Nobody was told
    /// of such a block: one sync is for both, and what left since would be counted behind it.
    pub(super) fn keyless_block(&self) -> Result<Option<u64>, StoreError> {
        let Some(last) = self.entries.last() else { return Ok(None) };
        let block = last.header.block;
        let decided = last.header.kind == Kind::Prepared && last.state != BlockState::Prepared;
        let Some(key) = self.parts.get(&(Part::Key, block)) else { return Ok(None) };
        let follows = key.offset + key.header.record_bytes(Format::Digest) == last.offset;
        if decided || !follows || self.departed_at > last.offset || (!key.erased && self.is_whole(key)?) {
            return Ok(None);
        }
        let slice = self.parts.get(&(Part::Slice, block)).map(|slice| slice.offset);
        let before = |offset: &u64| *offset < key.offset;
        Ok(Some(slice.filter(before).unwrap_or(key.offset)))
    }

    fn is_whole(&self, place: &Place) -> Result<bool, StoreError> {
        let bytes = place.header.body_bytes(Format::Digest);
        let mut body = vec![0; bytes + TRAILER_BYTES];
        let begin = place.offset + HEADER_BYTES as u64;
        self.log.file().read_exact_at(&mut body, begin).map_err(at("read", &self.path))?;
        let (body, check) = body.split_at(bytes);
        Ok(Format::Digest.framing().is_whole(&place.header.encode(), body, check))
    }
}

/// Sealed key begins with a random nonce.
const ERASED_SIGN_BYTES: usize = 12;

pub(super) fn count_header(what: Count, number: u64, sequence: u64) -> Header {
    let session = what as u64;
    Header { kind: Kind::Count, sequence, block: number, session, key_bits: 0, ledger_bytes: 0, trace_bytes: 0 }
}
