//! What the records of a reserve's file add up to.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use anchor::Instance;
use distill::auth::reserve::{Cells, Offsets};
use distill::auth::{Direction, Layout, Mark, MaskKey, ReserveError, Side};
use distill::bits::Bits;
use shell::log::{Found, Reader};
use zeroize::Zeroizing;

use super::format::{FRAMING, HEADER, digest, header, number, record};
use super::{BODY_MAX, OpenError, RolledBack, SECRET_BITS_MIN};

/// A secret and a state of older releases, which have no key of masks.
const SECRET: u8 = 1;
const STATE: u8 = 5;
const REFILL: u8 = 2;
pub const OFFSETS: u8 = 3;
const CUT: u8 = 4;
const MASKED_STATE: u8 = 6;
const INSTANCE: u8 = 7;
const ROLLED_BACK: u8 = 8;
/// A state whose used bits are no longer kept: how many of each direction, then as [`MASKED_STATE`].
const ERASED_STATE: u8 = 9;

/// A record that is to be appended.
pub type Record = (u8, Zeroizing<Vec<u8>>);

#[derive(Default)]
pub struct ReserveState {
    pub cells: Cells,
    pub offsets: Offsets,
    pub generation: u64,
    /// Digests of all secrets that were ever put in by hand: none may come twice.
    pub secrets: BTreeSet<[u8; 32]>,
    pub mask_key: Option<MaskKey>,
    /// None in a file of an older release, until it is taken over.
    pub instance: Option<Instance>,
    pub rolled_back: Option<RolledBack>,
}

impl ReserveState {
    /// Of a placed secret, with the number that its link knows it by, if it has one.
    pub fn of_secret(secret: &[u8], generation: Option<u64>) -> Result<Self, ReserveError> {
        let mut state = Self::default();
        state.set_masked_secret(secret)?;
        state.generation = generation.unwrap_or(state.generation);
        Ok(state)
    }

    /// Of a reserve that is made of a secret. One that is made of the same secret once more, because a folder was put back
    /// in which it had not been made yet, has the same ceilings. Drawn where the secret has no key of masks.
    pub fn identity(&self, side: Side) -> io::Result<Instance> {
        match &self.mask_key {
            Some(key) => Ok(Instance::from_bytes(key.identity(side.direction()))),
            None => Instance::draw(),
        }
    }

    /// The last 256 bits are kept apart, the rest are the cells of the two directions.
    fn set_masked_secret(&mut self, secret: &[u8]) -> Result<(), ReserveError> {
        let (cells, key) =
            secret.split_last_chunk::<{ MaskKey::BYTES }>().ok_or(ReserveError::Odd(secret.len() * 8))?;
        self.set_secret(cells, digest(secret))?;
        let key = MaskKey::new(*key);
        // The same at both ends, whatever each had before.
        self.generation = key.generation();
        self.mask_key = Some(key);
        Ok(())
    }

    fn set_secret(&mut self, cells: &[u8], digest: [u8; 32]) -> Result<(), ReserveError> {
        self.cells = Cells::new(&Bits::from_bytes(cells, cells.len() * 8))?;
        self.offsets = Offsets::default();
        self.mask_key = None;
        self.rolled_back = None;
        self.secrets.insert(digest);
        Ok(())
    }

    /// The state after a fresh secret, and the record that makes it so.
    pub fn rekeyed(&self, secret: &[u8], generation: Option<u64>) -> Result<(Self, Record), ReserveError> {
        let mut state = Self::of_secret(secret, generation)?;
        state.secrets.extend(&self.secrets);
        state.instance = self.instance;
        let record = (MASKED_STATE, state.masked_snapshot());
        Ok((state, record))
    }

    /// Tags are used from now on: what they were made of is erased in memory.
    pub fn go_on_to(&mut self, side: Side, layout: Layout, offsets: Offsets) {
        for tag in self.offsets.send..offsets.send {
            self.cells.clear(side.direction(), layout.pad_cell(tag));
        }
        for tag in self.offsets.receive..offsets.receive {
            self.cells.clear(side.other().direction(), layout.pad_cell(tag));
        }
        self.offsets = offsets;
    }

    /// Drops what is used up. A state of an older release, which has no key of masks, keeps its place for it.
    pub fn erase_used(&mut self, side: Side, layout: Layout) {
        if self.mask_key.is_some() {
            self.cells.erase_used(side, layout, self.offsets);
        }
    }

    pub fn offsets_record(offsets: Offsets) -> Record {
        let body = [offsets.send.to_le_bytes(), offsets.receive.to_le_bytes()].concat();
        (OFFSETS, Zeroizing::new(body))
    }

    pub fn refill_record(block: u64, bits: &Bits) -> Record {
        let mut body = Zeroizing::new(Vec::with_capacity(16 + bits.len() / 8 + 1));
        body.extend_from_slice(&block.to_le_bytes());
        body.extend_from_slice(&(bits.len() as u64).to_le_bytes());
        body.extend_from_slice(&Zeroizing::new(bits.to_bytes()));
        (REFILL, body)
    }

    pub fn cut_record(bits: u64) -> Record {
        (CUT, Zeroizing::new(bits.to_le_bytes().to_vec()))
    }

    pub fn rolled_back_record(rolled_back: &RolledBack) -> Record {
        let mut body = Zeroizing::new(rolled_back.since_ms.to_le_bytes().to_vec());
        body.extend_from_slice(rolled_back.why.as_bytes());
        (ROLLED_BACK, body)
    }

    /// The records of a file, and where a torn one begins.
    pub fn replay(path: &Path, bytes: &[u8]) -> Result<(Self, Option<usize>), OpenError> {
        let damaged = |at, what| OpenError::Damaged { path: path.to_owned(), at, what };
        let mut state = Self::default();
        let mut at = HEADER;
        let records = bytes.get(HEADER..).unwrap_or_default();
        let mut reader = Reader::new(records, records.len() as u64, FRAMING);
        loop {
            match reader.read_next().map_err(|source| OpenError::Io { path: path.to_owned(), source })? {
                Found::Record { head, body, bytes } => {
                    state.apply(head[0], &body).ok_or_else(|| damaged(at, "a record without sense"))?;
                    at += bytes as usize;
                }
                Found::End => break,
                // The first record came with the file and was never being written.
                Found::Torn if at > HEADER => return Ok((state, Some(at))),
                Found::Torn | Found::Damaged(_) => return Err(damaged(at, "a record's checksum is wrong")),
            }
        }
        if state.secrets.is_empty() { Err(damaged(at, "no secret")) } else { Ok((state, None)) }
    }

    fn apply(&mut self, kind: u8, body: &[u8]) -> Option<()> {
        match kind {
            SECRET => {
                self.generation += 1;
                self.set_secret(body, digest(body)).ok()
            }

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
                if bits > self.cells.bits() || bits < self.cells.dropped_bits() || !rest.is_empty() {
                    return None;
                }
                self.cells.truncate(bits);
                Some(())
            }
            STATE => self.restore(0, body),
            MASKED_STATE => self.restore_masked(0, body),
            ERASED_STATE => {
                let (dropped_bits, rest) = number(body)?;
                self.restore_masked(dropped_bits, rest)
            }
            INSTANCE => {
                self.instance = Some(Instance::from_bytes(body.try_into().ok()?));
                Some(())
            }
            ROLLED_BACK => {
                let (since_ms, why) = number(body)?;
                self.rolled_back = Some(RolledBack { since_ms, why: String::from_utf8_lossy(why).into_owned() });
                Some(())
            }
            _ => None,
        }
    }

    fn masked_snapshot(&self) -> Zeroizing<Vec<u8>> {
        let mut body = Zeroizing::new(Vec::with_capacity(8192 + self.cells.bits() as usize / 4));
        if let Some(key) = &self.mask_key {
            body.extend_from_slice(key.expose());
        }
        body.extend_from_slice(&self.snapshot());
        body
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

    fn restore_masked(&mut self, dropped_bits: u64, body: &[u8]) -> Option<()> {
        let (key, rest) = body.split_first_chunk::<{ MaskKey::BYTES }>()?;
        self.restore(dropped_bits, rest)?;
        self.mask_key = Some(MaskKey::new(*key));
        Some(())
    }

    fn restore(&mut self, dropped_bits: u64, body: &[u8]) -> Option<()> {
        let mut rest = body;
        let mut take = || {
            let (value, after) = number(rest)?;
            rest = after;
            Some(value)
        };
        self.generation = take()?;
        self.offsets = Offsets { send: take()?, receive: take()? };
        let (secrets, marks) = (take()?, take()?);
        let bits = usize::try_from(take()?.checked_sub(dropped_bits)?).ok()?;
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
        self.cells =
            Cells::restored(dropped_bits, Bits::from_bytes(forward, bits), Bits::from_bytes(backward, bits), marks)?;
        self.mask_key = None;
        self.rolled_back = None;
        Some(())
    }

    /// A fresh file that says all of it.
    pub fn file(&self, side: Side, layout: Layout) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(header(side, layout));
        if let Some(instance) = &self.instance {
            bytes.extend_from_slice(&record(INSTANCE, instance.bytes()));
        }
        let state = match self.mask_key {
            Some(_) => {
                let dropped_bits = self.cells.dropped_bits().to_le_bytes();
                record(ERASED_STATE, &Zeroizing::new([&dropped_bits[..], &self.masked_snapshot()].concat()))
            }
            None => record(STATE, &self.snapshot()),
        };
        bytes.extend_from_slice(&state);
        if let Some(rolled_back) = &self.rolled_back {
            let (kind, body) = Self::rolled_back_record(rolled_back);
            bytes.extend_from_slice(&record(kind, &body));
        }
        bytes
    }
}

/// Bits of the smallest secret: those of two directions, and those that are kept apart.
pub const SECRET_BITS: u64 = 2 * SECRET_BITS_MIN + 8 * MaskKey::BYTES as u64;

/// The size in bits of a secret that cannot be used.
pub fn check_secret(secret: &[u8]) -> Result<(), u64> {
    let bits = secret.len() as u64 * 8;
    if bits >= SECRET_BITS && secret.len() <= BODY_MAX / 2 { Ok(()) } else { Err(bits) }
}
