//! Blocks of which a file keeps little: what two ends compare, and the sum of their accounts.
//!
//! What stands for them is one record at the beginning of the file. A file gets it, and loses the records of those
//! blocks, when a new file is written beside it and renamed: a crash leaves the one or the other.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use distill::ledger::BlockLedger;
use shell::files::sync_folder;
use zeroize::Zeroizing;

use super::record::{DIGEST_BYTES, Format, Header, Kind, PAST_ROW_BYTES};
use super::waits::count_header;
use super::{BlockDigest, BlockState, BlockStore, Entry, FILE_MAGIC, StoreError, StoredBlock, at, encode_with};

/// One committed block that was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub block: u64,
    pub session: u64,
    pub bits: u64,
    pub digest: [u8; DIGEST_BYTES],
}

/// All that were given up.
#[derive(Clone, Debug, Default)]
pub(super) struct Past {
    /// By number.
    pub rows: Vec<Row>,
    /// First number that none of them has.
    pub next: u64,
    /// Sum of their accounts, and of the accounts of those that gave no key.
    pub sum: BlockLedger,
}

impl Row {
    fn encode(&self) -> [u8; PAST_ROW_BYTES] {
        let mut bytes = [0; PAST_ROW_BYTES];
        for (place, number) in [self.block, self.session, self.bits].into_iter().enumerate() {
            bytes[8 * place..8 * place + 8].copy_from_slice(&number.to_le_bytes());
        }
        bytes[24..].copy_from_slice(&self.digest);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let number = |place: usize| Some(u64::from_le_bytes(*bytes.get(8 * place..)?.first_chunk()?));
        Some(Self {
            block: number(0)?,
            session: number(1)?,
            bits: number(2)?,
            digest: *bytes.get(24..)?.first_chunk()?,
        })
    }

    /// The block, as far as it is known still.
    pub fn block(&self) -> StoredBlock {
        StoredBlock {
            number: self.block,
            session: self.session,
            state: BlockState::Committed,
            key_bits: self.bits,
            key_digest: self.digest,
            ledger: "{}".to_owned(),
            trace_id: String::new(),
        }
    }

    pub fn compared(&self) -> (u64, BlockDigest) {
        (self.block, BlockDigest { session: self.session, bits: self.bits, sha256: self.digest })
    }
}

impl Past {
    /// The record's body; none where it is not one that was written here.
    pub fn decode(header: &Header, body: &[u8]) -> Option<Self> {
        let (rows, rest) = body.split_at_checked(header.key_bytes(Format::Digest))?;
        let rows: Vec<Row> = rows.chunks(PAST_ROW_BYTES).map(Row::decode).collect::<Option<_>>()?;
        let sum = serde_json::from_slice(rest.get(..header.ledger_bytes as usize)?).ok()?;
        let ordered = rows.windows(2).all(|pair| pair[0].block < pair[1].block);
        let below = rows.last().is_none_or(|row| row.block < header.block);
        (ordered && below).then_some(Self { rows, next: header.block, sum })
    }

    pub fn row(&self, block: u64) -> Option<&Row> {
        self.rows.binary_search_by_key(&block, |row| row.block).ok().map(|place| &self.rows[place])
    }
}

impl BlockStore {
    /// What is left of blocks that were given up: number and bits of each that counts, in order, and the sum of all their
    /// accounts. Nothing where none was.
    pub fn given_up(&self) -> Option<(impl Iterator<Item = (u64, u64)>, &BlockLedger)> {
        let past = self.past.as_ref()?;
        Some((past.rows.iter().map(|row| (row.block, row.bits)), &past.sum))
    }

    /// Keeps about `kept` blocks: of older ones that are decided what two ends compare, which is all that a delivery
    /// needs as well, and the sum of their accounts. Hundreds are given up at a time. Gives the space of key that waits
    /// no longer back, too, where it is most of the file. True where the file was rewritten.
    pub fn retire(&mut self, kept: usize) -> Result<bool, StoreError> {
        if self.entries.len() <= kept.saturating_add((kept / 4).max(RETIRED_AT_ONCE_MIN)) {
            let much = self.erased_bytes > ERASED_BYTES_MAX.max(self.log.end() / 2);
            return if much { self.rewrite(&self.past.clone().unwrap_or_default()).map(|()| true) } else { Ok(false) };
        }
        let old = self.latest.iter().take(self.latest.len().saturating_sub(kept));
        let old = old.take_while(|(_, index)| self.entries[**index].state != BlockState::Prepared);
        let Some(next) = old.last().map(|(block, _)| block + 1) else { return Ok(false) };
        let mut past = self.past.clone().unwrap_or_default();
        past.next = next;
        for entry in self.entries.iter().filter(|entry| entry.header.block < next) {
            let mut account: BlockLedger = serde_json::from_str(&self.read(entry)?.ledger)
                .map_err(|_| self.corrupt(entry, "a ledger that cannot be read"))?;
            if entry.state == BlockState::Voided {
                account.void();
            }
            past.sum.add(&account);
        }
        let committed = self.latest.range(..next).map(|(_, index)| &self.entries[*index]);
        past.rows.extend(committed.filter(|entry| entry.state == BlockState::Committed).map(|entry| Row {
            block: entry.header.block,
            session: entry.header.session,
            bits: entry.header.key_bits,
            digest: entry.digest,
        }));
        self.rewrite(&past)?;
        Ok(true)
    }

    /// The file with this past and the blocks after it, in its own place.
    fn rewrite(&mut self, past: &Past) -> Result<(), StoreError> {
        let (path, folder) = (self.path.clone(), self.path.parent().unwrap_or(Path::new(".")).to_owned());
        let beside = path.with_extension("qkd.new");
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(&beside);
        let file = file.map_err(at("create", &beside))?;
        file.try_lock().map_err(|error| at("lock", &beside)(error.into()))?;
        let records = self.records_after(past)?;
        self.disk.write_all_at(&file, &records, 0).map_err(at("write", &beside))?;
        file.sync_all().map_err(at("write", &beside))?;
        fs::rename(&beside, &path).map_err(at("replace", &path))?;
        sync_folder(&folder).map_err(at("write", &folder))?;
        // What waits is in the new file now, and is no more to be found where the old one was.
        let waiting: Vec<_> = self.parts().collect();
        let erased = waiting.into_iter().try_for_each(|(part, block)| self.erase(part, block));
        if let Err(error) = erased.and_then(|()| self.wait(&self.pending())) {
            tracing::warn!("sealed key is left on the disk where it was before: {error}");
        }
        *self = Self::scan(&path, file, self.disk.clone(), true)?;
        Ok(())
    }

    fn records_after(&self, past: &Past) -> Result<Vec<u8>, StoreError> {
        let sum = serde_json::to_string(&past.sum).unwrap_or_default();
        let rows: Vec<u8> = past.rows.iter().flat_map(Row::encode).collect();
        let mut sequence = 0;
        let mut header = |kind, block, session, key_bits, ledger: &str, trace_id: &str| {
            let (ledger_bytes, trace_bytes) = (ledger.len() as u32, trace_id.len() as u32);
            let header = Header { kind, sequence, block, session, key_bits, ledger_bytes, trace_bytes };
            sequence += 1;
            header
        };
        let mut bytes = FILE_MAGIC.to_vec();
        if past.next > 0 {
            let first = header(Kind::Past, past.next, 0, past.rows.len() as u64, &sum, "");
            bytes.extend_from_slice(&encode_with(&first, &rows, &sum, ""));
        }
        for entry in self.entries.iter().filter(|entry| entry.header.block >= past.next) {
            let block = self.read(entry)?;
            let kind = match entry.state {
                BlockState::Committed => Kind::Stored,
                BlockState::Prepared | BlockState::Voided => Kind::Prepared,
                BlockState::Aborted => Kind::Aborted,
            };
            let (number, session) = (block.number, block.session);
            let own = header(kind, number, session, block.key_bits, &block.ledger, &block.trace_id);
            let digest = &entry.digest[..own.key_bytes(Format::Digest)];
            bytes.extend_from_slice(&encode_with(&own, digest, &block.ledger, &block.trace_id));
            if entry.state == BlockState::Voided {
                let decided = header(Kind::Voided, number, session, 0, "", "");
                bytes.extend_from_slice(&encode_with(&decided, &[], "", ""));
            }
        }
        for (part, block) in self.parts() {
            let record = self.sealed(part, block)?.and_then(|sealed| sealed.record(sequence));
            let Some((_, record)) = record else { continue };
            bytes.extend_from_slice(&record);
            sequence += 1;
        }
        for (what, number) in &self.counts {
            bytes.extend_from_slice(&encode_with(&count_header(*what, *number, sequence), &[], "", ""));
            sequence += 1;
        }
        Ok(bytes)
    }

    /// The record of the past, which begins a file.
    pub(super) fn read_past(file: &File, path: &Path, header: &Header, offset: u64) -> Result<Past, StoreError> {
        let mut body = Zeroizing::new(vec![0; header.body_bytes(Format::Digest)]);
        file.read_exact_at(&mut body, offset + super::HEADER_BYTES as u64).map_err(at("read", path))?;
        let what = "what is left of old blocks is not in order";
        Past::decode(header, &body).ok_or_else(|| StoreError::Corrupt { path: path.to_owned(), offset, what })
    }
}

/// Bytes of key that waits no longer which a file may have in any case.
const ERASED_BYTES_MAX: u64 = 16 << 20;
/// Fewer are not worth a file.
const RETIRED_AT_ONCE_MIN: usize = 256;

/// Digests of committed blocks, given up or not, from number `first` on.
pub(super) fn compared_from<'a>(
    past: Option<&'a Past>,
    entries: impl Iterator<Item = &'a Entry>,
    first: u64,
) -> BTreeMap<u64, BlockDigest> {
    let of_past = past.into_iter().flat_map(|past| &past.rows).filter(|row| row.block >= first).map(Row::compared);
    let of_entries = entries.filter(|entry| entry.header.block >= first).map(|entry| {
        let (session, bits) = (entry.header.session, entry.header.key_bits);
        (entry.header.block, BlockDigest { session, bits, sha256: entry.digest })
    });
    of_past.chain(of_entries).collect()
}
