//! The durable authentication reserve of one end: a file that grows by one checked record per event.
//!
//! A tag is on disk as used before its pad is handed out. A record that a crash tore off is dropped, and with it one
//! more tag of either direction if the torn record may have used it. Damage anywhere else is an error: to guess
//! could use a pad twice.

mod format;

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use distill::auth::reserve::{Cells, Offsets};
use distill::auth::{Cell, Direction, Layout, Mark, Reserve, ReserveError, Side};
use distill::bits::Bits;
use shell::disk::Disk;
use zeroize::Zeroizing;

use self::format::{HEADER, Parsed, check_header, digest, header, number, parse, record, record_head};

/// Largest body of a record, and with it the largest secret.
const BODY_MAX: usize = 64 << 20;
/// The file is written anew at opening once it has this many bytes.
const COMPACT_BYTES: usize = 1 << 20;
/// Bits per direction that make at least one tag: a hash key and a pad.
pub const SECRET_BITS_MIN: u64 = 256;

const SECRET: u8 = 1;
const REFILL: u8 = 2;
const OFFSETS: u8 = 3;
const CUT: u8 = 4;
const STATE: u8 = 5;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is in use by another process", path.display())]
    Locked { path: PathBuf },
    #[error("{} is damaged at byte {at}: {what}", path.display())]
    Damaged { path: PathBuf, at: usize, what: &'static str },
    #[error("{} was made for {found}, not for {expected}", path.display())]
    Other { path: PathBuf, found: String, expected: String },
    #[error("{} holds {bits} bits; two directions need at least {} and equal parts", path.display(), 2 * SECRET_BITS_MIN)]
    Secret { path: PathBuf, bits: u64 },
}

/// One end's reserve.
pub struct FileReserve {
    path: PathBuf,
    disk: Disk,
    file: File,
    /// Held as long as the reserve is open.
    _lock: File,
    side: Side,
    layout: Layout,
    state: State,
    /// The last write failed: what is on disk is not known any more, so nothing may be used.
    broken: Option<Broken>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    /// The disk was full: a part of the last record may be there, and no sync has failed.
    NoRoom,
    Unknown,
}

/// What the records of a file add up to.
#[derive(Default)]
struct State {
    cells: Cells,
    offsets: Offsets,
    generation: u64,
    /// Digests of all secrets that were ever put in by hand: none may come twice.
    secrets: BTreeSet<[u8; 32]>,
}

impl FileReserve {
    /// Opens the reserve at `path`, or makes it from the first secret, which was placed at `secret`.
    pub fn open(path: &Path, secret: &Path, side: Side, layout: Layout, disk: Disk) -> Result<Self, OpenError> {
        Self::open_as(path, secret, 0, side, layout, disk)
    }

    /// As [`Self::open`], where the placed secret is not the first one of its link.
    pub fn open_as(
        path: &Path,
        secret: &Path,
        generation: u64,
        side: Side,
        layout: Layout,
        disk: Disk,
    ) -> Result<Self, OpenError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        if let Some(folder) = path.parent() {
            shell::files::create_private_folder(folder).map_err(io(folder))?;
        }
        let lock = lock(path)?;
        if !path.exists() {
            let state = State::of_secret(secret, generation)?;
            disk.write_durably(path, &state.file(side, layout)).map_err(io(path))?;
        }
        let (file, state) = Self::load(path, side, layout, &disk, true)?;
        Ok(Self { path: path.to_owned(), disk, file, _lock: lock, side, layout, state, broken: None })
    }

    /// Goes on after the disk was full: reads what is there, without the record that was written in part, whose tag was
    /// never handed out. True where there was something to mend. After a failed sync the reserve stays as it is: nobody
    /// knows what the disk has.
    pub fn mend(&mut self) -> Result<bool, OpenError> {
        if self.broken != Some(Broken::NoRoom) {
            return Ok(false);
        }
        (self.file, self.state) = Self::load(&self.path, self.side, self.layout, &self.disk, false)?;
        self.broken = None;
        Ok(true)
    }

    /// What the file holds. A torn record is dropped for good; after a crash, one that may say that a tag was used costs
    /// a tag.
    fn load(
        path: &Path,
        side: Side,
        layout: Layout,
        disk: &Disk,
        after_a_crash: bool,
    ) -> Result<(File, State), OpenError> {
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        let bytes = Zeroizing::new(std::fs::read(path).map_err(io)?);
        check_header(path, &bytes, side, layout)?;
        let (mut state, torn) = State::replay(path, &bytes)?;
        let skips =
            torn.is_some_and(|at| after_a_crash && record_head(&bytes[at..]).is_none_or(|(kind, _)| kind == OFFSETS));
        if let Some(at) = torn {
            tracing::warn!(path = %path.display(), at, skips, "a torn record was dropped");
        }
        if skips {
            state.offsets.send = state.offsets.send.saturating_add(1);
            state.offsets.receive = state.offsets.receive.saturating_add(1);
        }
        if torn.is_some() || bytes.len() > COMPACT_BYTES {
            disk.write_durably(path, &state.file(side, layout)).map_err(io)?;
        }
        Ok((OpenOptions::new().append(true).open(path).map_err(io)?, state))
    }

    /// Replaces the reserve by a fresh secret that the peer's end gets too. Tags are numbered anew.
    pub fn rekey(&mut self, secret: &[u8]) -> Result<(), RekeyError> {
        let bits = Bits::from_bytes(secret, secret.len() * 8);
        check_secret(secret).map_err(|bits| RekeyError::Length { bits })?;
        if self.state.secrets.contains(&digest(secret)) {
            return Err(RekeyError::Repeated);
        }
        self.append_record(SECRET, &bits.to_bytes())?;
        shell::failpoint::hit("reserve.rekeyed");
        self.state.set_secret(secret)?;
        Ok(())
    }

    /// As [`Self::rekey`], where the secret has a number that the peer's end knows it by.
    pub fn rekey_as(&mut self, secret: &[u8], generation: u64) -> Result<(), RekeyError> {
        check_secret(secret).map_err(|bits| RekeyError::Length { bits })?;
        if self.state.secrets.contains(&digest(secret)) {
            return Err(RekeyError::Repeated);
        }
        let mut state = State { secrets: self.state.secrets.clone(), ..State::default() };
        state.set_secret(secret)?;
        state.generation = generation;
        self.append_record(STATE, &state.snapshot())?;
        self.state = state;
        Ok(())
    }

    /// Whether two ends hold the same cells, and neither has taken a tag of the other's that was not sent. The key itself
    /// is told to nobody.
    pub fn agrees_with(&self, peer: &Self) -> bool {
        let same = |direction| {
            let bytes = |end: &Self| Zeroizing::new(end.state.cells.direction(direction).to_bytes());
            digest(&bytes(self)) == digest(&bytes(peer))
        };
        let (ours, theirs) = (self.state.offsets, peer.state.offsets);
        let not_ahead = ours.receive <= theirs.send && theirs.receive <= ours.send;
        self.side != peer.side && not_ahead && same(Direction::Forward) && same(Direction::Backward)
    }

    fn append_record(&mut self, kind: u8, body: &[u8]) -> Result<(), ReserveError> {
        if self.broken.is_some() {
            return Err(ReserveError::Store(io::Error::other("an earlier write failed")));
        }
        // Stays so unless everything below succeeds.
        self.broken = Some(Broken::Unknown);
        if let Err(error) = self.disk.write_all(&self.file, &record(kind, body)) {
            if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
                self.broken = Some(Broken::NoRoom);
            }
            return Err(error.into());
        }
        self.file.sync_data()?;
        self.broken = None;
        Ok(())
    }

    fn store_offsets(&mut self, offsets: Offsets) -> Result<(), ReserveError> {
        self.append_record(OFFSETS, &offsets_body(offsets))?;
        self.state.offsets = offsets;
        shell::failpoint::hit("tag.persisted");
        Ok(())
    }

    fn tags(&self) -> u64 {
        self.layout.tags_in(self.state.cells.bits())
    }
}

/// Why a fresh secret is not taken.
#[derive(Debug, thiserror::Error)]
pub enum RekeyError {
    #[error("a secret of {bits} bits: two directions need at least {} and equal parts", 2 * SECRET_BITS_MIN)]
    Length { bits: u64 },
    #[error("this secret was used before")]
    Repeated,
    #[error(transparent)]
    Reserve(#[from] ReserveError),
}

impl Reserve for FileReserve {
    fn layout(&self) -> Layout {
        self.layout
    }

    fn next_send(&self) -> u64 {
        self.state.offsets.send
    }

    fn next_receive(&self) -> u64 {
        self.state.offsets.receive
    }

    fn remaining_send(&self) -> u64 {
        self.tags().saturating_sub(self.state.offsets.send)
    }

    fn remaining_receive(&self) -> u64 {
        self.tags().saturating_sub(self.state.offsets.receive)
    }

    fn hash_key(&self, direction: Direction, tag: u64) -> Result<Cell, ReserveError> {
        self.state.cells.cell(direction, self.layout.hash_cell(tag))
    }

    fn take_send(&mut self, tag: u64) -> Result<Cell, ReserveError> {
        if tag < self.state.offsets.send {
            return Err(ReserveError::Used(tag));
        }
        let cell = self.state.cells.cell(self.side.direction(), self.layout.pad_cell(tag))?;
        self.store_offsets(Offsets { send: tag + 1, ..self.state.offsets })?;
        Ok(cell)
    }

    fn take_receive(&mut self, tag: u64) -> Result<Cell, ReserveError> {
        if tag < self.state.offsets.receive {
            return Err(ReserveError::Used(tag));
        }
        let cell = self.state.cells.cell(self.side.other().direction(), self.layout.pad_cell(tag))?;
        self.store_offsets(Offsets { receive: tag + 1, ..self.state.offsets })?;
        Ok(cell)
    }

    fn generation(&self) -> u64 {
        self.state.generation
    }

    fn marks(&self) -> Vec<Mark> {
        self.state.cells.marks().to_vec()
    }

    fn append(&mut self, block: u64, bits: &Bits) -> Result<(), ReserveError> {
        if !self.state.cells.takes(block) {
            return Ok(());
        }
        if !bits.len().is_multiple_of(2) {
            return Err(ReserveError::Odd(bits.len()));
        }
        let mut body = Zeroizing::new(Vec::with_capacity(16 + bits.len() / 8 + 1));
        body.extend_from_slice(&block.to_le_bytes());
        body.extend_from_slice(&(bits.len() as u64).to_le_bytes());
        body.extend_from_slice(&bits.to_bytes());
        self.append_record(REFILL, &body)?;
        shell::failpoint::hit("reserve.refilled");
        self.state.cells.append(block, bits).map(|_| ())
    }

    fn align(&mut self, peer: &[Mark]) -> Result<(), ReserveError> {
        let bits = self.state.cells.aligned_bits(peer, self.state.offsets.used_bits(self.layout))?;
        if bits < self.state.cells.bits() {
            tracing::info!(from = self.state.cells.bits(), to = bits, "refills that only this end got are dropped");
            self.append_record(CUT, &bits.to_le_bytes())?;
            shell::failpoint::hit("reserve.cut");
            self.state.cells.truncate(bits);
        }
        Ok(())
    }
}

impl State {
    fn of_secret(path: &Path, generation: u64) -> Result<Self, OpenError> {
        let secret = std::fs::read(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
        let secret = Zeroizing::new(secret);
        let wrong = |bits| OpenError::Secret { path: path.to_owned(), bits };
        check_secret(&secret).map_err(wrong)?;
        let mut state = Self::default();
        state.set_secret(&secret).map_err(|_| wrong(secret.len() as u64 * 8))?;
        state.generation = generation;
        Ok(state)
    }

    fn set_secret(&mut self, secret: &[u8]) -> Result<(), ReserveError> {
        self.cells = Cells::new(&Bits::from_bytes(secret, secret.len() * 8))?;
        self.offsets = Offsets::default();
        self.generation += 1;
        self.secrets.insert(digest(secret));
        Ok(())
    }

    /// The records of a file, and where a torn one begins.
    fn replay(path: &Path, bytes: &[u8]) -> Result<(Self, Option<usize>), OpenError> {
        let damaged = |at, what| OpenError::Damaged { path: path.to_owned(), at, what };
        let mut state = Self::default();
        let mut at = HEADER;
        while at < bytes.len() {
            match parse(&bytes[at..]) {
                Parsed::Record { kind, body, whole } => {
                    state.apply(kind, body).ok_or_else(|| damaged(at, "a record without sense"))?;
                    at += whole;
                }
                // The first record came with the file and was never being written.
                Parsed::Torn if at > HEADER => return Ok((state, Some(at))),
                Parsed::Torn | Parsed::Damaged => return Err(damaged(at, "a record's checksum is wrong")),
            }
        }
        if at == HEADER { Err(damaged(at, "no records")) } else { Ok((state, None)) }
    }

    fn apply(&mut self, kind: u8, body: &[u8]) -> Option<()> {
        match kind {
            SECRET => self.set_secret(body).ok(),
            REFILL => {
                let (block, rest) = number(body)?;
                let (length, rest) = number(rest)?;
                let length = usize::try_from(length).ok()?;
                if length.div_ceil(8) != rest.len() {
                    return None;
                }
                self.cells.append(block, &Bits::from_bytes(rest, length)).ok().map(|_| ())
            }
            OFFSETS => {
                let (send, rest) = number(body)?;
                let (receive, rest) = number(rest)?;
                let forward = send >= self.offsets.send && receive >= self.offsets.receive;
                self.offsets = Offsets { send, receive };
                (forward && rest.is_empty()).then_some(())
            }
            CUT => {
                let (bits, rest) = number(body)?;
                if bits > self.cells.bits() || !rest.is_empty() {
                    return None;
                }
                self.cells.truncate(bits);
                Some(())
            }
            STATE => self.restore(body),
            _ => None,
        }
    }

    /// The whole state as one record of a fresh file.
    fn snapshot(&self) -> Zeroizing<Vec<u8>> {
        let mut body = Zeroizing::new(Vec::with_capacity(4096 + self.cells.bits() as usize / 4));
        let mut put = |value: u64| body.extend_from_slice(&value.to_le_bytes());
        put(self.generation);
        put(self.offsets.send);
        put(self.offsets.receive);
        put(self.secrets.len() as u64);
        put(self.cells.marks().len() as u64);
        put(self.cells.bits());
        for mark in self.cells.marks() {
            put(mark.bits);
            put(mark.next_block);
        }
        for secret in &self.secrets {
            body.extend_from_slice(secret);
        }
        for direction in [Direction::Forward, Direction::Backward] {
            body.extend_from_slice(&Zeroizing::new(self.cells.direction(direction).to_bytes()));
        }
        body
    }

    fn restore(&mut self, body: &[u8]) -> Option<()> {
        let mut rest = body;
        let mut take = || {
            let (value, after) = number(rest)?;
            rest = after;
            Some(value)
        };
        self.generation = take()?;
        self.offsets = Offsets { send: take()?, receive: take()? };
        let (secrets, marks, bits) = (take()?, take()?, usize::try_from(take()?).ok()?);
        let marks: Vec<Mark> =
            (0..marks).map(|_| Some(Mark { bits: take()?, next_block: take()? })).collect::<Option<_>>()?;
        for _ in 0..secrets {
            let (secret, after) = rest.split_at_checked(32)?;
            self.secrets.insert(secret.try_into().ok()?);
            rest = after;
        }
        let bytes = bits.div_ceil(8);
        let (forward, backward) = rest.split_at_checked(bytes)?;
        if backward.len() != bytes {
            return None;
        }
        self.cells = Cells::restored(Bits::from_bytes(forward, bits), Bits::from_bytes(backward, bits), marks)?;
        Some(())
    }

    fn file(&self, side: Side, layout: Layout) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(header(side, layout));
        bytes.extend_from_slice(&record(STATE, &self.snapshot()));
        bytes
    }
}

/// A secret for both ends of a channel, from the system's randomness: `bits_per_direction`, rounded up to whole cells.
pub fn new_secret(bits_per_direction: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let cells = bits_per_direction.max(SECRET_BITS_MIN).div_ceil(128).min((BODY_MAX / 64) as u64);
    let mut secret = Zeroizing::new(vec![0; cells as usize * 32]);
    getrandom::fill(&mut secret).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(secret)
}

fn check_secret(secret: &[u8]) -> Result<(), u64> {
    let bits = secret.len() as u64 * 8;
    if bits >= 2 * SECRET_BITS_MIN && secret.len() <= BODY_MAX / 2 { Ok(()) } else { Err(bits) }
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let path = PathBuf::from(name);
    let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = opened.map_err(|source| OpenError::Io { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(OpenError::Locked { path }),
        Err(std::fs::TryLockError::Error(source)) => Err(OpenError::Io { path, source }),
    }
}

fn offsets_body(offsets: Offsets) -> [u8; 16] {
    let mut body = [0; 16];
    body[..8].copy_from_slice(&offsets.send.to_le_bytes());
    body[8..].copy_from_slice(&offsets.receive.to_le_bytes());
    body
}

#[cfg(test)]
#[path = "reserve_tests.rs"]
mod tests;
