//! The durable file of distilled blocks of one link end: `<data>/<site>/<link>/blocks.qkd`.
//!
//! It says what became of each block, with a digest of its key. The key itself stands before it, sealed, until the key
//! store has it, and nowhere from then on ([`crate::waiting`]). Numbers that the link end counts are there, too
//! ([`Count`]).
//!
//! Append-only. A block is *prepared* (its key is on disk, its fate open) and then *committed* or *voided* by a later
//! record; where one end decides alone it is *stored* in one step. A method that changes something returns only after
//! the record is on the disk (`fdatasync`), or gives a [`Pending`] to wait with, so that what follows from it survives
//! a kill. A record that a crash tore is cut off when the file is opened again: nobody was told
//! of it. Damage anywhere else is refused, never repaired by guessing.
//!
//! Of old blocks little is kept ([`BlockStore::retire`]).
//!
//! Files of release 0.1 have the key in them. They are read, and become files of today before anything is appended
//! ([`BlockStore::take_over`]).

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use distill::bits::Bits;
use keystore::Secret;
use shell::disk::Disk;
use shell::log::{Broken, Log, Pending};
use zeroize::Zeroizing;

mod digest;
mod past;
mod record;
mod scan;
pub mod stretches;
mod takeover;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod waits;

pub use digest::{BlockDigest, KeyDigest};
use past::Past;
use record::{
    DIGEST_BYTES, Format, HEADER_BYTES, Header, KEY_BITS_MAX, Kind, LEDGER_BYTES_MAX, TRACE_BYTES_MAX, TRAILER_BYTES,
};
use scan::{Scanned, Scanner};
use waits::Place;
pub use waits::{Count, Sealed};

use crate::waiting::Part;

/// First bytes of every block file; the last one is the version of the format.
const FILE_MAGIC: [u8; 8] = *b"QKDBLK\0\x04";
/// Of releases that kept key that waits, and what is counted, in files beside it; of one that begins with what is left
/// of old blocks, and of one that does not. Such a file gets today's first bytes when it is opened for writing.
const OLDER_FILE_MAGICS: [[u8; 8]; 2] = [*b"QKDBLK\0\x02", *b"QKDBLK\0\x03"];
/// Of release 0.1, which kept the key.
const OLD_FILE_MAGIC: [u8; 8] = *b"QKDBLK\0\x01";

/// Name of the file in the directory of a site and link.
pub const FILE_NAME: &str = "blocks.qkd";

/// Where the blocks of a link end are.
pub fn path(data: &Path, site: &str, link: &str) -> PathBuf {
    data.join(site).join(link).join(FILE_NAME)
}

/// The blocks of a link end, to be read; nothing where it never ran.
pub fn existing(path: &Path) -> Result<Option<BlockStore>, StoreError> {
    match BlockStore::open_read_only(path) {
        Ok(store) => Ok(Some(store)),
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{doing} {path}: {source}", path = path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is in use by another process", path.display())]
    InUse { path: PathBuf },
    #[error("{} is not a block file of this version", path.display())]
    Foreign { path: PathBuf },
    #[error("{} is a block file of release 0.1, which nothing is appended to before it was taken over", path.display())]
    Old { path: PathBuf },
    #[error("{} is damaged at byte {offset}: {what}", path.display())]
    Corrupt { path: PathBuf, offset: u64, what: &'static str },
    #[error("block {block} {what}")]
    Order { block: u64, what: &'static str },
    #[error("block {block} is too large to store: {what}")]
    TooLarge { block: u64, what: &'static str },
    #[error("an earlier write to {} failed; open it again before writing more", path.display())]
    Poisoned { path: PathBuf },
}

/// The fate of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockState {
    Prepared,
    Committed,
    Voided,
    /// Ended without key.
    Aborted,
}

/// A block on its way to the disk, where a digest of its key is kept; an aborted block has none.
#[derive(Clone, Copy, Debug)]
pub struct NewBlock<'a> {
    pub number: u64,
    pub session: u64,
    pub key: &'a Bits,
    /// Ledger of the block as JSON.
    pub ledger: &'a str,
    pub trace_id: &'a str,
}

/// A block as it was read back.
#[derive(Debug)]
pub struct StoredBlock {
    pub number: u64,
    pub session: u64,
    pub state: BlockState,
    pub key_bits: u64,
    pub key_digest: [u8; 32],
    pub ledger: String,
    pub trace_id: String,
}

/// Bytes that a crash left behind at the end of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornTail {
    pub offset: u64,
    pub bytes: u64,
}

impl NewBlock<'_> {
    fn header(&self, kind: Kind, sequence: u64) -> Result<Header, StoreError> {
        let too_large = |what| StoreError::TooLarge { block: self.number, what };
        if self.key.len() as u64 > KEY_BITS_MAX {
            return Err(too_large("key"));
        }
        if self.ledger.len() > LEDGER_BYTES_MAX || self.trace_id.len() > TRACE_BYTES_MAX {
            return Err(too_large("ledger or trace ID"));
        }
        Ok(Header {
            kind,
            sequence,
            block: self.number,
            session: self.session,
            key_bits: self.key.len() as u64,
            ledger_bytes: self.ledger.len() as u32,
            trace_bytes: self.trace_id.len() as u32,
        })
    }
}

impl StoredBlock {
    /// Whether this is the key that the block was stored with.
    pub fn is_key(&self, key: &Bits) -> bool {
        digest_of(key) == self.key_digest
    }
}

impl std::fmt::Display for TornTail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { offset, bytes } = self;
        write!(f, "the last record, {bytes} bytes from byte {offset}, was not written to its end and is cut off")
    }
}

/// Where a block's record is, and what became of it.
#[derive(Clone, Copy)]
struct Entry {
    offset: u64,
    header: Header,
    digest: [u8; DIGEST_BYTES],
    state: BlockState,
}

/// The blocks of one link end.
pub struct BlockStore {
    path: PathBuf,
    log: Log,
    format: Format,
    disk: Disk,
    writable: bool,
    sequence: u64,
    entries: Vec<Entry>,
    /// Latest entry of each block number.
    latest: BTreeMap<u64, usize>,
    past: Option<Past>,
    /// Key that waits, or did.
    parts: BTreeMap<(Part, u64), Place>,
    /// Of those that wait no longer.
    erased_bytes: u64,
    counts: BTreeMap<Count, u64>,
    /// Where it was last written that a block leaves.
    departed_at: u64,
    torn: Option<TornTail>,
}

impl BlockStore {
    /// Opens the file for writing, creating it and its directories where they do not exist. One process at a time.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_on(path, Disk::default())
    }

    /// As [`open`](Self::open), on a disk that may be full.
    pub fn open_on(path: impl AsRef<Path>, disk: Disk) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(directory).map_err(at("create", directory))?;
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = file.map_err(at("open", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(StoreError::InUse { path: path.to_owned() }),
            Err(std::fs::TryLockError::Error(error)) => return Err(at("lock", path)(error)),
        }
        takeover::still_there(path, &file)?;
        let mut store = Self::scan(path, file, disk, true)?;
        if let Some(offset) = store.keyless_block()? {
            let torn = TornTail { offset, bytes: store.log.end() - offset };
            store.cut(offset)?;
            store = store.again()?;
            store.torn = Some(torn);
        }
        store.make_ready(directory)?;
        Ok(store)
    }

    /// Opens the file for reading, also while another process writes it. A torn tail is left alone.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(at("open", path))?;
        Self::scan(path, file, Disk::default(), false)
    }

    /// What a crash left at the end of the file when it was opened.
    pub fn torn_tail(&self) -> Option<TornTail> {
        self.torn
    }

    /// Puts a block on the disk without deciding its fate.
    pub fn prepare(&mut self, block: &NewBlock<'_>) -> Result<(), StoreError> {
        let pending = self.put(BlockState::Prepared, block, &[], &[])?;
        self.wait(&pending)
    }

    /// Puts a block on the disk as part of the key.
    pub fn store(&mut self, block: &NewBlock<'_>) -> Result<(), StoreError> {
        let pending = self.put(BlockState::Committed, block, &[], &[])?;
        self.wait(&pending)
    }

    /// Keeps the ledger of a block that gave no key.
    pub fn abort(&mut self, block: &NewBlock<'_>) -> Result<(), StoreError> {
        let pending = self.put(BlockState::Aborted, block, &[], &[])?;
        self.wait(&pending)
    }

    /// Makes a prepared block part of the key. Done twice it is done once.
    pub fn commit(&mut self, block: u64) -> Result<(), StoreError> {
        match self.commit_later(block)? {
            Some(pending) => self.wait(&pending),
            None => Ok(()),
        }
    }

    /// Gives a prepared block up for good. Done twice it is done once.
    pub fn void(&mut self, block: u64) -> Result<(), StoreError> {
        match self.state(block) {
            Some(BlockState::Prepared) => {
                let pending = self.decide(Kind::Voided, block)?;
                self.wait(&pending)
            }
            Some(BlockState::Voided | BlockState::Aborted) => Ok(()),
            Some(BlockState::Committed) => Err(StoreError::Order { block, what: "is committed and cannot be voided" }),
            None => Err(StoreError::Order { block, what: "was never prepared" }),
        }
    }

    /// The latest fate of a block number.
    pub fn state(&self, block: u64) -> Option<BlockState> {
        let kept = self.latest.get(&block).map(|&index| self.entries[index].state);
        kept.or_else(|| self.past.as_ref()?.row(block).map(|_| BlockState::Committed))
    }

    /// Blocks that are on the disk and undecided.
    pub fn in_doubt(&self) -> Vec<u64> {
        self.latest_in(BlockState::Prepared).map(|entry| entry.header.block).collect()
    }

    pub fn last_committed(&self) -> Option<u64> {
        let kept = self.latest_in(BlockState::Committed).next_back().map(|entry| entry.header.block);
        kept.or_else(|| self.past.as_ref()?.rows.last().map(|row| row.block))
    }

    /// First number that no block has had.
    pub fn next_number(&self) -> u64 {
        let kept = self.latest.last_key_value().map_or(0, |(block, _)| block + 1);
        kept.max(self.past.as_ref().map_or(0, |past| past.next))
    }

    /// Number and bits of all committed blocks.
    pub fn committed_totals(&self) -> (u64, u64) {
        let kept = self.latest_in(BlockState::Committed).map(|entry| entry.header.key_bits);
        let of_past = self.past.iter().flat_map(|past| &past.rows).map(|row| row.bits);
        kept.chain(of_past).fold((0, 0), |(blocks, sum), bits| (blocks + 1, sum + bits))
    }

    /// Committed blocks that are kept, in the order of their numbers, read from the disk one by one.
    pub fn committed(&self) -> impl Iterator<Item = Result<StoredBlock, StoreError>> + '_ {
        self.latest_in(BlockState::Committed).map(|entry| self.read(entry))
    }

    /// Every block that is kept, in the order of writing, whatever became of it.
    pub fn all(&self) -> impl Iterator<Item = Result<StoredBlock, StoreError>> + '_ {
        self.entries.iter().map(|entry| self.read(entry))
    }

    /// The latest block of a number.
    pub fn get(&self, block: u64) -> Result<Option<StoredBlock>, StoreError> {
        match self.latest.get(&block) {
            Some(&index) => self.read(&self.entries[index]).map(Some),
            None => Ok(self.past.as_ref().and_then(|past| past.row(block)).map(past::Row::block)),
        }
    }

    /// The latest entry of each number in this state, in the order of numbers.
    fn latest_in(&self, state: BlockState) -> impl DoubleEndedIterator<Item = &Entry> {
        self.latest.values().map(|&index| &self.entries[index]).filter(move |entry| entry.state == state)
    }

    /// A block number is used again only where the block before it under that number gave no key.
    fn expect_new(&self, block: u64) -> Result<(), StoreError> {
        if self.past.as_ref().is_some_and(|past| block < past.next) {
            return Err(StoreError::Order { block, what: "is older than the blocks that are kept" });
        }
        match self.state(block) {
            None | Some(BlockState::Voided | BlockState::Aborted) => Ok(()),
            Some(BlockState::Committed) => Err(StoreError::Order { block, what: "is committed already" }),
            Some(BlockState::Prepared) => Err(StoreError::Order { block, what: "is prepared already" }),
        }
    }

    fn decide(&mut self, kind: Kind, block: u64) -> Result<Pending, StoreError> {
        let session = self.latest.get(&block).map_or(0, |&index| self.entries[index].header.session);
        let nothing = Bits::default();
        let decided = NewBlock { number: block, session, key: &nothing, ledger: "", trace_id: "" };
        self.write_records(Some((kind, &decided)), &[], &[])
    }

    fn wait(&self, pending: &Pending) -> Result<(), StoreError> {
        pending.wait().map_err(at("write", &self.path))
    }

    /// Goes on after the disk was full: cuts off what was begun and written in part, of which nobody was told. True
    /// where there was something to mend. A file whose sync failed stays as it is: nobody knows what the disk has.
    pub fn mend(&mut self) -> Result<bool, StoreError> {
        if self.log.broken() != Some(Broken::NoRoom) {
            return Ok(false);
        }
        let mut fresh = self.again()?;
        let directory = self.path.parent().unwrap_or(Path::new(".")).to_owned();
        fresh.make_ready(&directory)?;
        *self = fresh;
        Ok(true)
    }

    /// The file read again. The lock belongs to the open file, which both handles share.
    fn again(&self) -> Result<Self, StoreError> {
        let file = self.log.file().try_clone().map_err(at("open", &self.path))?;
        Self::scan(&self.path, file, self.disk.clone(), true)
    }

    /// Takes a record into the index.
    fn enter(&mut self, header: Header, digest: [u8; DIGEST_BYTES], offset: u64) {
        self.sequence = header.sequence + 1;
        let state = match header.kind {
            Kind::Prepared => BlockState::Prepared,
            Kind::Stored => BlockState::Committed,
            Kind::Aborted => BlockState::Aborted,
            Kind::Committed | Kind::Voided => {
                let state = if header.kind == Kind::Committed { BlockState::Committed } else { BlockState::Voided };
                if let Some(&index) = self.latest.get(&header.block) {
                    self.entries[index].state = state;
                }
                return;
            }
            Kind::Key | Kind::Slice => {
                let part = if header.kind == Kind::Key { Part::Key } else { Part::Slice };
                return self.enter_part(part, header, offset);
            }
            Kind::Count => return self.enter_count(header, offset),
            Kind::Past => return,
        };
        self.latest.insert(header.block, self.entries.len());
        self.entries.push(Entry { offset, header, digest, state });
    }

    fn scan(path: &Path, file: File, disk: Disk, writable: bool) -> Result<Self, StoreError> {
        let length = file.metadata().map_err(at("read", path))?.len();
        let (mut headers, mut format, mut end, mut torn) = (Vec::new(), Format::Digest, 0, length > 0);
        if let Some(mut scanner) = Scanner::new(path, &file, length)? {
            format = scanner.format();
            torn = loop {
                let offset = scanner.offset();
                match scanner.next()? {
                    Scanned::End => break false,
                    Scanned::Torn => break true,
                    Scanned::Record(header, digest) => headers.push((header, digest, offset)),
                }
            };
            end = scanner.offset();
        }
        let mut store = Self {
            path: path.to_owned(),
            log: Log::new(file, end, disk.clone()),
            format,
            disk,
            writable,
            sequence: 0,
            entries: Vec::new(),
            latest: BTreeMap::new(),
            past: None,
            parts: BTreeMap::new(),
            erased_bytes: 0,
            counts: BTreeMap::new(),
            departed_at: 0,
            torn: torn.then_some(TornTail { offset: end, bytes: length - end }),
        };
        for (header, digest, offset) in headers {
            let first = offset == FILE_MAGIC.len() as u64 && format == Format::Digest && header.sequence == 0;
            if first && header.kind == Kind::Past {
                store.past = Some(Self::read_past(store.log.file(), path, &header, offset)?);
                store.sequence = 1;
            } else {
                store.replay(header, digest, offset)?;
            }
        }
        store.find_erased()?;
        Ok(store)
    }

    /// Takes a record of an existing file into the index if it can follow what came before.
    fn replay(&mut self, header: Header, digest: [u8; DIGEST_BYTES], offset: u64) -> Result<(), StoreError> {
        let before = self.state(header.block);
        let possible = match header.kind {
            Kind::Prepared | Kind::Stored | Kind::Aborted => self.expect_new(header.block).is_ok(),
            Kind::Committed | Kind::Voided => before == Some(BlockState::Prepared),
            Kind::Key | Kind::Slice => self.format == Format::Digest,
            Kind::Count => self.format == Format::Digest && Count::from_number(header.session).is_some(),
            Kind::Past => false,
        };
        if !possible || header.sequence != self.sequence {
            let what = "a record does not follow from those before it";
            return Err(StoreError::Corrupt { path: self.path.clone(), offset, what });
        }
        self.enter(header, digest, offset);
        Ok(())
    }

    /// Removes what a crash left, writes the first bytes of a file of today, and makes both durable, the name included.
    fn make_ready(&mut self, directory: &Path) -> Result<(), StoreError> {
        if self.torn.is_some() {
            self.cut(self.log.end())?;
        }
        if self.log.end() == 0 {
            let magic = self.log.append(&FILE_MAGIC).map_err(at("write", &self.path))?;
            self.wait(&magic)?;
            let synced = File::open(directory).and_then(|directory| directory.sync_all());
            return synced.map_err(at("write", directory));
        }
        let mut magic = FILE_MAGIC;
        self.log.file().read_exact_at(&mut magic, 0).map_err(at("read", &self.path))?;
        if OLDER_FILE_MAGICS.contains(&magic) {
            self.disk.write_all_at(self.log.file(), &FILE_MAGIC, 0).map_err(at("write", &self.path))?;
            self.log.file().sync_data().map_err(at("write", &self.path))?;
        }
        Ok(())
    }

    /// Cuts off what nobody was told of.
    fn cut(&self, offset: u64) -> Result<(), StoreError> {
        let cut = self.log.file().set_len(offset).and_then(|()| self.log.file().sync_all());
        cut.map_err(at("truncate", &self.path))
    }

    /// The body of a record, checked once more.
    fn body(&self, entry: &Entry) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let bytes = entry.header.body_bytes(self.format);
        let mut body = Zeroizing::new(vec![0u8; bytes + TRAILER_BYTES]);
        let offset = entry.offset + HEADER_BYTES as u64;
        self.log.file().read_exact_at(&mut body, offset).map_err(at("read", &self.path))?;
        if !self.format.framing().is_whole(&entry.header.encode(), &body[..bytes], &body[bytes..]) {
            return Err(self.corrupt(entry, "the checksum of a record does not match"));
        }
        body.truncate(bytes);
        Ok(body)
    }

    fn read(&self, entry: &Entry) -> Result<StoredBlock, StoreError> {
        let header = entry.header;
        let body = self.body(entry)?;
        let (ledger, trace_id) = body[header.key_bytes(self.format)..].split_at(header.ledger_bytes as usize);
        let text =
            |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| self.corrupt(entry, "a text is not UTF-8"));
        Ok(StoredBlock {
            number: header.block,
            session: header.session,
            state: entry.state,
            key_bits: header.key_bits,
            key_digest: entry.digest,
            ledger: text(ledger)?,
            trace_id: text(trace_id)?,
        })
    }

    fn corrupt(&self, entry: &Entry, what: &'static str) -> StoreError {
        StoreError::Corrupt { path: self.path.clone(), offset: entry.offset, what }
    }
}

impl std::fmt::Debug for BlockStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (blocks, bits) = self.committed_totals();
        write!(f, "BlockStore({}, {blocks} blocks, {bits} bits)", self.path.display())
    }
}

fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { doing, path, source }
}

fn digest_of(key: &Bits) -> [u8; DIGEST_BYTES] {
    digest::of_key(key.len() as u64, Secret::new(key.to_bytes()).expose())
}

/// A record of a file of today.
fn encode(header: &Header, digest: &[u8; DIGEST_BYTES], ledger: &str, trace_id: &str) -> Zeroizing<Vec<u8>> {
    encode_with(header, &digest[..header.key_bytes(Format::Digest)], ledger, trace_id)
}

/// With what stands for the key.
fn encode_with(header: &Header, of_key: &[u8], ledger: &str, trace_id: &str) -> Zeroizing<Vec<u8>> {
    Format::Digest.framing().record(&header.encode(), &[of_key, ledger.as_bytes(), trace_id.as_bytes()])
}
